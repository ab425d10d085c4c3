//! One file for each command.

pub(crate) mod agent;
pub(crate) mod build;
pub(crate) mod config;
pub(crate) mod dns;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod host;
pub(crate) mod lb;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod pattern;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod version;
pub(crate) mod why;

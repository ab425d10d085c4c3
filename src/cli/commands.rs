//! One file for each command.

pub(crate) mod agent;
pub(crate) mod attach;
pub(crate) mod config;
pub(crate) mod cp;
pub(crate) mod dns;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod host;
pub(crate) mod images;
pub(crate) mod lb;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod pattern;
pub(crate) mod plan;
pub(crate) mod port;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod up;
pub(crate) mod version;
pub(crate) mod volumes;
pub(crate) mod wait;
pub(crate) mod why;

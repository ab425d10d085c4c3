//! The agent's API: JSON over HTTP/1.1 on a unix socket. Types, server and client; the CLI and other agents speak only this.

mod agent;
pub mod client;
mod refusal;
pub mod server;
pub mod types;

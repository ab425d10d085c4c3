//! Addresses outside: looked up by the host's own names and resolvers, and connected to from the host.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::super::choose::connect;
use super::{Reason, connect_error};
use crate::net::lookup::HostNames;

/// An address outside.
pub(super) struct Outside<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
}

impl Outside<'_> {
    /// Connects to the first of its addresses that takes it.
    pub(super) async fn connect(&self, names: &HostNames) -> Result<TcpStream, Reason> {
        let addresses = names.look_up(self.host).await.map_err(|error| error.to_string())?;
        let mut last = format!("`{}` has no address", self.host);
        for address in addresses {
            match connect(SocketAddr::new(address, self.port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = format!("{address}: {}", connect_error(&error)),
            }
        }
        Err(last)
    }
}

//! Addresses outside: looked up by the host's own names and resolvers, and connected to from the host.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::super::choose::connect;
use super::{Reason, connect_error};
use crate::net::lookup::HostNames;

/// Time that an address has for itself: one that is silent must not keep the others from being tried. Source: RFC 8305,
/// section 5.
const HEAD_START: Duration = Duration::from_millis(250);

/// An address outside.
pub(super) struct Outside<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
}

impl Outside<'_> {
    /// Connects to that of its addresses that takes it first, where each has a head start over the next.
    pub(super) async fn connect(self, names: &HostNames) -> Result<TcpStream, Reason> {
        let mut addresses = names.look_up(self.host).await.map_err(|error| error.to_string())?.into_iter();
        let mut last = format!("`{}` has no address", self.host);
        let mut connecting = FuturesUnordered::new();
        loop {
            if let Some(address) = addresses.next() {
                let to = SocketAddr::new(address, self.port);
                connecting.push(async move { (address, connect(to).await) });
            }
            tokio::select! {
                outcome = connecting.next() => match outcome {
                    None => return Err(last),
                    Some((_, Ok(stream))) => return Ok(stream),
                    Some((address, Err(error))) => last = format!("{address}: {}", connect_error(&error)),
                },
                () = sleep(HEAD_START), if addresses.len() > 0 => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    #[tokio::test]
    async fn an_address_that_is_silent_or_refuses_does_not_keep_the_others_from_being_tried() {
        // A listener whose queue is full: connects hang.
        let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
        silent.bind("127.91.0.1:0".parse().expect("valid")).expect("bound");
        let silent = silent.listen(1).expect("listens");
        let full = silent.local_addr().expect("an address");
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(100), TcpStream::connect(full)).await {
            queued.push(connected.expect("queued"));
        }
        let port = full.port();
        let good = TcpListener::bind(("127.91.0.3", port)).await.expect("no other test has it");
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(folder.path().join("etc")).expect("made");
        let hosts = "127.91.0.1 many.test\n127.91.0.2 many.test\n127.91.0.3 many.test\n127.91.0.2 none.test\n";
        std::fs::write(folder.path().join("etc/hosts"), hosts).expect("written");
        let names = HostNames::below(folder.path());
        let connect = |host| timeout(Duration::from_secs(10), Outside { host, port }.connect(&names));
        let stream = connect("many.test").await.expect("in time").expect("the third one takes it");
        assert_eq!(stream.peer_addr().expect("connected"), good.local_addr().expect("bound"));
        let refused = connect("none.test").await.expect("in time").expect_err("nobody listens");
        assert!(refused.starts_with("127.91.0.2: ") && refused.contains("refused"), "{refused}");
    }
}

//! Sockets inside a container's network: made there by a thread of their own, served by whoever gets them. Nothing runs in the
//! container.
//!
//! A socket keeps its network alive after the container: whoever has it must close it when the container's run is over. Opening
//! the network needs `SYS_PTRACE` and entering it `SYS_ADMIN`, which the agent has.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::sockets::{self, BindTo};

/// The network of a container, opened.
#[derive(Debug)]
pub struct Network(File);

impl Network {
    /// Opens the network that a process is in. Its id may be given to another process at any time: whoever asks must make sure
    /// afterwards that the process is still the one that was meant.
    ///
    /// # Errors
    /// There is no such process, or this one may not look at it.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self(File::open(format!("/proc/{pid}/ns/net"))?))
    }

    /// Listens at `address` inside, with `count` sockets between which the kernel spreads connections.
    ///
    /// # Errors
    /// What `setns` or `bind` said: `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`.
    pub fn listen(self, address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
        let inside = std::thread::Builder::new().name("orch-inside".to_owned()).spawn(move || {
            // The thread ends with this: no other ever sees that it was elsewhere.
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
            sockets::listen_shared(address, BindTo::Present, count)
        })?;
        inside.join().map_err(|_| io::Error::other("the thread inside the container's network panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::sync::mpsc;

    use super::*;
    use crate::host::namespace::{enter_new_network, in_new_network};

    #[test]
    fn a_socket_listens_in_another_network_and_is_served_from_here() {
        in_new_network(|| {
            let (tell, told) = mpsc::channel();
            let (go, wait) = mpsc::channel::<u16>();
            let container = std::thread::spawn(move || {
                enter_new_network().expect("a network of its own");
                tell.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("heard");
                let port = wait.recv().expect("told");
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop)
            });
            let thread = told.recv().expect("it is there");
            let network = Network::of_process(u32::try_from(thread).expect("positive")).expect("opened");
            let sockets = network.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 2).expect("it listens");
            let port = sockets[0].local_addr().expect("an address").port();
            assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "it is not here");
            go.send(port).expect("heard");
            container.join().expect("no panic").expect("connected from inside");
            let accepted = sockets.iter().filter(|socket| socket.accept().is_ok()).count();
            assert_eq!(accepted, 1);
        });
    }

    #[test]
    fn a_process_that_is_gone_has_no_network() {
        assert_eq!(Network::of_process(0).expect_err("none").kind(), io::ErrorKind::NotFound);
    }
}

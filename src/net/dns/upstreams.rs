//! The host's own resolvers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More entries than this are left out; glibc looks at three.
const MOST: usize = 8;

/// Resolvers, and which of them answered last.
#[derive(Debug, Default)]
pub struct Upstreams {
    addresses: Arc<[SocketAddr]>,
    preferred: AtomicUsize,
}

impl PartialEq for Upstreams {
    fn eq(&self, other: &Self) -> bool {
        let Self { addresses, preferred: _ } = self;
        *addresses == other.addresses
    }
}

impl Upstreams {
    /// Returns the resolvers at these addresses, the first to be asked first.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { addresses: addresses.into_iter().take(MOST).collect(), preferred: AtomicUsize::new(0) }
    }

    /// Reads the text of a host's `/etc/resolv.conf`. Loopback resolvers (127.0.0.53) are kept: the agent is in the
    /// host's network. Addresses with a scope (`fe80::1%eth0`) and everything but `nameserver` lines are left out.
    pub fn from_resolv_conf(text: &str) -> Self {
        let addresses = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = (words.next()? == "nameserver").then(|| words.next())??;
            Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, 53))
        });
        Self::new(addresses)
    }

    /// Returns the addresses in the order of the file.
    pub fn addresses(&self) -> &Arc<[SocketAddr]> {
        &self.addresses
    }

    /// Returns the index of the one that answered last.
    pub(super) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// Remembers which one answered: one that is down costs its time-out once, not at each question.
    pub(super) fn prefer(&self, index: usize) {
        self.preferred.store(index, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_read() {
        let text = "# comment\nsearch example.com\nnameserver 127.0.0.53\n nameserver\t::1 # local\nnameserver fe80::1%eth0\n\
                    nameserver\nnameservers 192.0.2.1\n;nameserver 192.0.2.2\nnameserver name\noptions edns0\n";
        let expected = ["127.0.0.53:53", "[::1]:53"].map(|text| text.parse().expect("an address"));
        assert_eq!(**Upstreams::from_resolv_conf(text).addresses(), expected);
        assert_eq!(Upstreams::from_resolv_conf(""), Upstreams::default());
    }
}

//! What went wrong with an endpoint of late, for who asks why. Written only where something goes wrong; bounded.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Kinds of trouble of one endpoint that are remembered at a time: a port scan must not grow this.
const MOST: usize = 16;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Nobody listens at the port.
    Refused,
    /// A connect got no answer in time.
    Silent,
    /// A connect failed otherwise.
    Unreachable,
    /// The agent of the endpoint's host did not make the connection: it, or the way to it.
    Host,
    /// A request was taken, and the connection ended before a whole answer came, or what came of its body made no sense.
    Broken,
    /// A request was answered with a head that is too large to be passed on.
    LargeHead,
    /// A request was answered with a head that contradicts itself.
    UnclearHead,
    /// A request was answered with something else than HTTP.
    NoHttp,
    /// A request was taken, and no answer came in time.
    Late,
    /// Datagrams were refused.
    DatagramsRefused,
}

impl Trouble {
    /// Says what a failed connect means.
    pub(super) fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Self::Refused,
            std::io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Unreachable,
        }
    }

    /// Returns whether a connection that is made says that it is over.
    fn is_over_once_connected(self) -> bool {
        !matches!(self, Self::Broken | Self::LargeHead | Self::UnclearHead | Self::NoHttp | Self::Late)
    }
}

/// One kind of trouble with one port of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TroubleStats {
    /// The port.
    pub port: u16,
    /// What went wrong.
    pub what: Trouble,
    /// How often, without anything going well in between.
    pub count: u64,
    /// Seconds since the first time.
    pub first_secs: u64,
    /// Seconds since the last time.
    pub last_secs: u64,
}

#[derive(Debug)]
struct Noted {
    count: u64,
    first: Duration,
    last: Duration,
}

/// The troubles of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<(u16, Trouble), Noted>>);

impl Troubles {
    /// Notes that something went wrong at `now`.
    pub(super) fn note(&self, port: u16, what: Trouble, now: Duration) {
        let mut noted = self.lock();
        if let Some(known) = noted.get_mut(&(port, what)) {
            (known.count, known.last) = (known.count + 1, now);
            return;
        }
        if noted.len() >= MOST
            && let Some(oldest) = noted.iter().min_by_key(|(_, one)| one.last).map(|(key, _)| *key)
        {
            noted.remove(&oldest);
        }
        noted.insert((port, what), Noted { count: 1, first: now, last: now });
    }

    /// Notes a connection to `port`, or an answer to datagrams.
    pub(super) fn connected(&self, port: u16) {
        self.lock().retain(|(failed, what), _| *failed != port || !what.is_over_once_connected());
    }

    /// Returns what went wrong, as of `now`.
    pub(super) fn stats(&self, now: Duration) -> Vec<TroubleStats> {
        let since = |then: Duration| now.saturating_sub(then).as_secs();
        let noted = self.lock();
        let stats = noted.iter().map(|((port, what), Noted { count, first, last })| TroubleStats {
            port: *port,
            what: *what,
            count: *count,
            first_secs: since(*first),
            last_secs: since(*last),
        });
        stats.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u16, Trouble), Noted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_connection_ends_what_it_disproves() {
        let troubles = Troubles::default();
        troubles.note(80, Trouble::Refused, SECOND);
        troubles.note(80, Trouble::Refused, 3 * SECOND);
        troubles.note(80, Trouble::Late, 3 * SECOND);
        troubles.note(81, Trouble::Silent, 3 * SECOND);
        let stats =
            |port, what, count, first_secs, last_secs| TroubleStats { port, what, count, first_secs, last_secs };
        let (late, other) = (stats(80, Trouble::Late, 1, 2, 2), stats(81, Trouble::Silent, 1, 2, 2));
        assert_eq!(troubles.stats(5 * SECOND), [stats(80, Trouble::Refused, 2, 4, 2), late.clone(), other.clone()]);
        troubles.connected(80);
        assert_eq!(troubles.stats(5 * SECOND), [late, other]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes() {
        let troubles = Troubles::default();
        for port in 1..=100 {
            troubles.note(port, Trouble::Refused, u32::from(port) * SECOND);
        }
        let ports: Vec<u16> = troubles.stats(100 * SECOND).iter().map(|one| one.port).collect();
        assert_eq!(ports, (85..=100).collect::<Vec<u16>>());
    }
}

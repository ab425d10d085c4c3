//! Which host decides, and since when: the seat moves by hand only, and each move has a higher number (epoch).
//!
//! A host takes over what a person tells its agent, or what more than half of the other hosts say: so one that was away
//! obeys the new seat when it is back, also when it was the seat itself, and no single host can make itself the seat.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::HostName;
use crate::store::StoreError;

use super::super::shared::Shared;
use super::members::{self, Fleet};

/// Which host decides, as somebody says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    /// Grows with every move.
    pub epoch: u64,
    /// The host.
    pub host: HostName,
}

impl Seat {
    /// Returns what this host holds true.
    pub fn of(fleet: &Fleet) -> Self {
        Self { epoch: fleet.epoch, host: fleet.seat.clone() }
    }
}

/// Returns the seat that this host is to obey from now on; `None`: the one that it obeys.
pub fn verdict(fleet: &Fleet, claims: &BTreeMap<HostName, Seat>) -> Option<Seat> {
    let others = fleet.others().count();
    let newest = claims.values().filter(|seat| seat.epoch > fleet.epoch).max()?;
    let voices = claims.iter().filter(|(host, seat)| *seat == newest && fleet.hosts.contains_key(*host)).count();
    (voices * 2 > others && fleet.hosts.contains_key(&newest.host)).then(|| newest.clone())
}

/// Obeys another seat from now on, also after a restart. Holds the admission lock: nothing is written by the old rule
/// after this.
///
/// # Errors
/// What the store says; nothing has changed then.
pub async fn obey(shared: &Shared, seat: Seat) -> Result<(), StoreError> {
    let _guard = shared.admission.lock().await;
    let fleet = shared.fleet();
    if seat.epoch <= fleet.epoch {
        return Ok(());
    }
    take(shared, &fleet, seat).await
}

/// Writes another seat down and acts by it. The caller holds the admission lock.
///
/// # Errors
/// What the store says; nothing has changed then.
pub async fn take(shared: &Shared, fleet: &Fleet, seat: Seat) -> Result<(), StoreError> {
    let Seat { epoch, host } = seat;
    tracing::warn!(seat = %host, epoch, "another host decides from now on");
    let next = Fleet { seat: host, epoch, ..Fleet::clone(fleet) };
    members::save(shared.store.as_ref(), &fleet.own, &next).await?;
    shared.set_fleet(next);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fleet::members::HostRecord;

    fn name(name: &str) -> HostName {
        HostName::new(name).expect("a name")
    }

    /// `b: c 2` says that `b` holds `c` to be the seat of epoch 2. This host is `a` of `hosts`, at epoch 1.
    #[track_caller]
    fn check(hosts: &[&str], claims: &[&str], expected: Option<&str>) {
        let mut fleet = Fleet { cluster: Some("x".to_owned()), epoch: 1, ..Fleet::alone(name("a")) };
        for (index, host) in hosts.iter().enumerate() {
            let record = HostRecord {
                ssh: String::new(),
                address: "10.0.0.1:1".parse().expect("an address"),
                labels: BTreeMap::new(),
                index: u32::try_from(index).expect("few"),
                draining: false,
            };
            fleet.hosts.insert(name(host), record);
        }
        let claim = |text: &&str| {
            let (who, seat) = text.split_once(": ").expect("who: seat epoch");
            let (host, epoch) = seat.split_once(' ').expect("seat epoch");
            (name(who), Seat { epoch: epoch.parse().expect("a number"), host: name(host) })
        };
        let seat = verdict(&fleet, &claims.iter().map(claim).collect());
        assert_eq!(seat.map(|seat| seat.host.to_string()).as_deref(), expected, "{claims:?}");
    }

    #[test]
    fn a_seat_is_obeyed_that_more_than_half_of_the_others_obey() {
        check(&["a", "b", "c"], &["b: b 2", "c: b 2"], Some("b"));
        check(&["a", "b", "c"], &["b: b 2"], None);
        check(&["a", "b", "c"], &["b: b 2", "c: a 1"], None);
        check(&["a", "b", "c"], &["b: b 1", "c: b 1"], None);
        check(&["a", "b", "c"], &["b: b 3", "c: c 2"], None);
        check(&["a", "b"], &["b: b 2"], Some("b"));
        check(&["a", "b", "c", "d", "e"], &["b: c 2", "c: c 2"], None);
        check(&["a", "b", "c", "d", "e"], &["b: c 2", "c: c 2", "d: c 2"], Some("c"));
        // Whom the cluster does not know has no voice and no seat.
        check(&["a", "b", "c"], &["b: b 2", "x: b 2"], None);
        check(&["a", "b", "c"], &["b: x 2", "c: x 2"], None);
    }
}

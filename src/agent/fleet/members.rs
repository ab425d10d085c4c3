//! Who belongs to the cluster, as this agent knows it: kept in its own store, so that it starts without the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::api::types::HostRecord;
use crate::ids::{HostName, ProjectName};
use crate::store::{Store, StoreError, Write};

use super::super::shared::{Record, project_key};

/// The store's key of an agent's own membership.
pub const SELF_KEY: &str = "member";

/// Prefix of the store's keys of the hosts of the cluster.
pub const HOSTS: &str = "hosts/";

/// What an agent is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Id of the cluster.
    pub cluster: String,
    /// Name of this host in it.
    pub host: HostName,
    /// The host whose agent holds the store and decides.
    pub seat: HostName,
    /// How often the seat has moved.
    #[serde(default)]
    pub epoch: u64,
}

/// The cluster as one agent knows it. An agent that was never added to one is alone in its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Name of this host.
    pub own: HostName,
    /// Name of the seat.
    pub seat: HostName,
    /// How often the seat has moved: of two that say they are the seat the one with the higher number is.
    pub epoch: u64,
    /// Id of the cluster; `None`: alone.
    pub cluster: Option<String>,
    /// All hosts, this one too, once there is a cluster.
    pub hosts: BTreeMap<HostName, HostRecord>,
}

impl Fleet {
    /// Returns the fleet of a host that is alone.
    pub fn alone(own: HostName) -> Self {
        Self { seat: own.clone(), epoch: 0, own, cluster: None, hosts: BTreeMap::new() }
    }

    /// Returns whether this agent decides.
    pub fn is_seat(&self) -> bool {
        self.own == self.seat
    }

    /// Returns the slice of each network that is this host's.
    pub fn index(&self) -> u32 {
        self.hosts.get(&self.own).map_or(0, |record| record.index)
    }

    /// Returns the highest slice in use.
    pub fn last_index(&self) -> u32 {
        self.hosts.values().map(|record| record.index).max().unwrap_or_default()
    }

    /// Returns the slice that a new host gets.
    pub fn free_index(&self) -> u32 {
        let taken = |index: u32| self.hosts.values().any(|record| record.index == index);
        (0..=u32::MAX).find(|index| !taken(*index)).unwrap_or_default()
    }

    /// Returns the other hosts.
    pub fn others(&self) -> impl Iterator<Item = (&HostName, &HostRecord)> {
        self.hosts.iter().filter(|(name, _)| **name != self.own)
    }
}

/// Reads what this agent is, as it was written down; without that it is alone as `own`.
///
/// # Errors
/// What the store says.
pub async fn load(store: &dyn Store, own: &HostName) -> Result<Fleet, StoreError> {
    let Some(entry) = store.get(SELF_KEY).await? else { return Ok(Fleet::alone(own.clone())) };
    let Membership { cluster, host, seat, epoch } = serde_json::from_slice(&entry.value).map_err(unreadable)?;
    let mut hosts = BTreeMap::new();
    for entry in store.list(HOSTS).await?.0 {
        match HostName::new(entry.key.trim_start_matches(HOSTS)) {
            Ok(name) => drop(hosts.insert(name, serde_json::from_slice(&entry.value).map_err(unreadable)?)),
            Err(error) => tracing::error!(key = entry.key, %error, "the store holds a host without a valid name"),
        }
    }
    Ok(Fleet { own: host, seat, epoch, cluster: Some(cluster), hosts })
}

/// Writes down what this agent is from its next start on. Pods that were placed on it by its earlier name move along.
///
/// # Errors
/// What the store says.
pub async fn save(store: &dyn Store, earlier: &HostName, fleet: &Fleet) -> Result<(), StoreError> {
    let Some(cluster) = fleet.cluster.clone() else { return Ok(()) };
    let membership = Membership { cluster, host: fleet.own.clone(), seat: fleet.seat.clone(), epoch: fleet.epoch };
    let mut writes = vec![put(SELF_KEY.to_owned(), &membership)?, Write::DeletePrefix(HOSTS.to_owned())];
    for (name, record) in &fleet.hosts {
        writes.push(put(host_key(name), record)?);
    }
    if *earlier != fleet.own {
        for entry in store.list("projects/").await?.0 {
            let Ok(project) = ProjectName::new(entry.key.trim_start_matches("projects/")) else { continue };
            let mut record: Record = serde_json::from_slice(&entry.value).map_err(unreadable)?;
            for host in record.desired.iter_mut().flat_map(|desired| desired.assignments.pods.values_mut()) {
                if host == earlier {
                    host.clone_from(&fleet.own);
                }
            }
            writes.push(put(project_key(&project), &record)?);
        }
    }
    store.transact(&[], &writes).await.map(drop)
}

/// Forgets the cluster: alone again from the next start on.
///
/// # Errors
/// What the store says.
pub async fn leave(store: &dyn Store) -> Result<(), StoreError> {
    let writes = [Write::Delete(SELF_KEY.to_owned()), Write::DeletePrefix(HOSTS.to_owned())];
    store.transact(&[], &writes).await.map(drop)
}

fn put(key: String, value: &impl Serialize) -> Result<Write, StoreError> {
    Ok(Write::Put { key, value: serde_json::to_vec(value).map_err(unreadable)?, lease: None })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Failed { message: error.to_string() }
}

/// Returns the store's key of a host.
pub fn host_key(name: &HostName) -> String {
    format!("{HOSTS}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(index: u32) -> HostRecord {
        HostRecord {
            ssh: "ssh://a".to_owned(),
            address: "10.0.0.1:7946".parse().expect("an address"),
            labels: BTreeMap::new(),
            index,
            draining: false,
        }
    }

    #[test]
    fn a_new_host_gets_the_lowest_free_slice() {
        let name = |name: &str| HostName::new(name).expect("a name");
        let mut fleet = Fleet::alone(name("a"));
        assert_eq!((fleet.index(), fleet.free_index(), fleet.last_index()), (0, 0, 0));
        fleet.hosts = [("a", 1), ("b", 0), ("c", 3)].map(|(at, index)| (name(at), host(index))).into();
        assert_eq!((fleet.index(), fleet.free_index(), fleet.last_index()), (1, 2, 3));
        assert_eq!(fleet.others().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    }
}

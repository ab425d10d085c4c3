//! Ambassadors' listeners inside the pods of this host: there before the main container starts, gone with their pod's network.
//!
//! A listener belongs to one run of a pod's holder: when that ends, what listened in its network is closed, and opened anew in
//! the next. Level-triggered: compared with what runs whenever the engine's picture changes, and before a main container starts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::graph::Role;
use crate::host::inside::Network;
use crate::ids::{PodId, ProjectName};
use crate::lb::table::AmbassadorKey;
use crate::model::Ambassador;
use crate::plan::{Desired, Observed, ObservedContainer};

use super::shared::Shared;

/// What listens inside pods.
#[derive(Debug, Default)]
pub(super) struct Ambassadors {
    open: tokio::sync::Mutex<BTreeMap<AmbassadorKey, Place>>,
    problems: std::sync::Mutex<BTreeMap<AmbassadorKey, String>>,
}

/// Where an ambassador listens: in one run of a container, at an address in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    container: String,
    started_at: String,
    address: Ipv4Addr,
    port: u16,
}

impl Place {
    fn of(ambassador: &Ambassador, holder: &ObservedContainer) -> Self {
        Self {
            container: holder.id.clone(),
            started_at: holder.started_at.clone(),
            address: ambassador.address,
            port: ambassador.port,
        }
    }
}

impl Ambassadors {
    /// Opens what is missing and closes what is over, in all pods of this host.
    pub(super) async fn ensure_all(&self, shared: &Shared) {
        let mut wanted = BTreeMap::new();
        for record in shared.desired() {
            let Some(desired) = record.running() else { continue };
            wanted.extend(places(shared, desired));
        }
        let mut open = self.open.lock().await;
        if wanted.is_empty() && open.is_empty() {
            return;
        }
        let over: BTreeSet<AmbassadorKey> =
            open.iter().filter(|(key, place)| wanted.get(*key) != Some(*place)).map(|(key, _)| key.clone()).collect();
        for key in over {
            open.remove(&key);
            shared.dataplane.close_ambassador(&key);
        }
        self.lock_problems().retain(|key, _| wanted.contains_key(key));
        for (key, place) in wanted {
            if open.contains_key(&key) {
                continue;
            }
            // Its pod may just have ended; what comes then looks again.
            self.note(&key, listen(shared, &key, &place).await.map(|()| drop(open.insert(key.clone(), place))));
        }
    }

    /// Opens those of one pod.
    ///
    /// # Errors
    /// What keeps one from listening, for the reader.
    pub(super) async fn ensure(&self, shared: &Shared, desired: &Desired, pod: &PodId) -> Result<(), String> {
        let mut wanted = places(shared, desired);
        wanted.retain(|key, _| key.pod == *pod);
        self.open(shared, wanted).await
    }

    /// Opens those in the pod of a one-off, by its holder.
    ///
    /// # Errors
    /// What keeps one from listening, for the reader.
    pub(super) async fn ensure_oneoff(&self, shared: &Shared, holder: &ObservedContainer) -> Result<(), String> {
        let Some(project) = &holder.project else { return Ok(()) };
        self.open(shared, places_of_oneoff(project, holder)).await
    }

    async fn open(&self, shared: &Shared, wanted: BTreeMap<AmbassadorKey, Place>) -> Result<(), String> {
        let mut open = self.open.lock().await;
        for (key, place) in wanted {
            if open.get(&key) == Some(&place) {
                continue;
            }
            let result = listen(shared, &key, &place).await;
            self.note(&key, result.clone());
            result?;
            open.insert(key, place);
        }
        Ok(())
    }

    /// Returns what keeps ambassadors from listening.
    pub(super) fn problems(&self) -> Vec<String> {
        self.lock_problems().values().cloned().collect()
    }

    fn note(&self, key: &AmbassadorKey, result: Result<(), String>) {
        match result {
            Ok(()) => drop(self.lock_problems().remove(key)),
            Err(problem) => drop(self.lock_problems().insert(key.clone(), problem)),
        }
    }

    fn lock_problems(&self) -> std::sync::MutexGuard<'_, BTreeMap<AmbassadorKey, String>> {
        self.problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Returns where the ambassadors of a project's pods shall listen on this host: in those whose holder runs.
fn places(shared: &Shared, desired: &Desired) -> BTreeMap<AmbassadorKey, Place> {
    let observed: Observed = shared.observed(Some(&desired.graph.project));
    let Some(here) = observed.hosts.get(shared.host()) else { return BTreeMap::new() };
    let mut places = BTreeMap::new();
    for holder in here.containers.values().filter(|container| container.is_running()) {
        let Some(part) = holder.part().filter(|part| part.role == Role::Holder) else { continue };
        places.extend(places_of_oneoff(&desired.graph.project, holder));
        let Some(number) = holder.number else { continue };
        let Some(service) = desired.graph.services.get(&part.of) else { continue };
        for ambassador in &service.ambassadors {
            let key = AmbassadorKey {
                project: desired.graph.project.clone(),
                pod: PodId::new(part.of.clone(), number),
                name: ambassador.name.clone(),
            };
            places.insert(key, Place::of(ambassador, holder));
        }
    }
    places
}

/// Returns where the ambassadors in the pod of a one-off shall listen.
fn places_of_oneoff(project: &ProjectName, holder: &ObservedContainer) -> BTreeMap<AmbassadorKey, Place> {
    let ambassadors = AmbassadorKey::of_oneoff(project, holder).into_iter().flat_map(|(_, ambassadors)| ambassadors);
    ambassadors.map(|(key, ambassador)| (key, Place::of(&ambassador, holder))).collect()
}

/// Listens in the network of a container's run.
async fn listen(shared: &Shared, key: &AmbassadorKey, place: &Place) -> Result<(), String> {
    let address = SocketAddr::from((place.address, place.port));
    let failed =
        |reason: String| format!("ambassador `{}` of `{}` cannot listen at {address}: {reason}", key.name, key.pod);
    let pid = async || {
        let pid = shared.engine.container_pid(&place.container).await.map_err(|error| failed(error.to_string()))?;
        pid.ok_or_else(|| failed("its pod does not run".to_owned()))
    };
    let before = pid().await?;
    let network = Network::of_process(before).map_err(|error| failed(error.to_string()))?;
    // The number may have been given to another process meanwhile.
    if pid().await? != before {
        return Err(failed("its pod was started anew".to_owned()));
    }
    let count = shared.dataplane.sockets_per_listener();
    let sockets = tokio::task::spawn_blocking(move || network.listen(address, count)).await;
    let sockets = sockets.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    shared.dataplane.open_ambassador(key.clone(), sockets).map_err(|error| failed(error.to_string()))
}

/// Follows the picture of the engine until stopped. Started by `wire` only.
pub(super) async fn run(shared: Arc<Shared>, stop: tokio_util::sync::CancellationToken) {
    let mut pictures = shared.informer.subscribe();
    let mut check = tokio::time::interval(super::dataplane::CHECK);
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = pictures.changed() => if changed.is_err() { return },
            _ = check.tick() => {}
        }
        shared.ambassadors.ensure_all(&shared).await;
    }
}

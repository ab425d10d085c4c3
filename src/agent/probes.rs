//! Asks the containers of this host whether they are ready (`x-probe`), each from its own host, at its own address.
//!
//! Which are asked follows from the records and the picture of the engine, level-triggered; verdicts go into that picture
//! ([`Informer::set_probe`](super::informer::Informer::set_probe)), and from there to tables, conditions and the other
//! hosts like everything else that is seen. A bad verdict takes a container out of the tables, and does nothing else to it.
//!
//! The task is started by `wire`, reads records and the picture, writes verdicts, and ends with the agent.

mod known;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::graph::Graph;
use crate::host::asking::{Asker, Heard, Question};
use crate::ids::ServiceName;
use crate::model::Probe;
use crate::plan::{Health, ObservedContainer, ObservedHost, Probed};

use super::shared::Shared;
use tally::Tally;

pub(super) use known::Probing;

/// Time that everything which runs as the agent starts has for its first good answer. Names and addresses wait for it.
const AT_START: Duration = Duration::from_millis(1500);

/// Pause between two questions to one that answered badly as the agent starts.
const AT_START_PAUSE: Duration = Duration::from_millis(100);

/// Longest time between two questions to one that starts: who waits for it waits for that, too.
const EAGER: Duration = Duration::from_millis(250);

/// Namespaces that are followed to the one that has an address.
const MAX_SHARING: usize = 8;

/// Pods that are asked at a time; the others wait for their turn.
const AT_A_TIME: usize = 64;

/// Who is asked, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    started_at: String,
    /// `None`: it has no address that this host could reach.
    address: Option<IpAddr>,
    probe: Probe,
}

/// How far it is with one of them.
#[derive(Debug)]
struct Asked {
    target: Target,
    tally: Tally,
    next: Instant,
    is_under_way: bool,
}

/// A container's id with the question's target and the answer.
type Answer = (String, Target, Heard);

/// Returns the services of a graph whose containers are asked.
pub(super) fn probed(graph: &Graph) -> BTreeSet<ServiceName> {
    let with = graph.services.iter().filter(|(_, service)| service.serving.probe.is_some());
    with.map(|(name, _)| name.clone()).collect()
}

/// Asks all that run, once or until they answer well: an agent that starts anew finds ready what was ready before.
pub(super) async fn ask_at_start(shared: &Shared) {
    let wanted = wanted(shared, &BTreeMap::new());
    let all: FuturesUnordered<_> =
        wanted.into_iter().map(|(id, target)| until_good(shared.asker.as_ref(), id, target)).collect();
    // What has not answered by then is not ready until it has.
    let heard = async {
        let mut all = all;
        while let Some((id, target, heard)) = all.next().await {
            let health = if heard.is_good { Health::Healthy } else { Health::Starting };
            shared.informer.set_probe(&id, &target.started_at, Probed { health, said: heard.said });
        }
    };
    let _in_time = tokio::time::timeout(AT_START, heard).await;
    shared.informer.set_probing();
}

async fn until_good(asker: &dyn Asker, id: String, target: Target) -> Answer {
    let mut left = target.probe.failures;
    loop {
        let (_, _, heard) = ask(asker, id.clone(), target.clone()).await;
        left = left.saturating_sub(1);
        if heard.is_good || left == 0 {
            return (id, target, heard);
        }
        tokio::time::sleep(AT_START_PAUSE).await;
    }
}

/// Asks until stopped.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut pictures = shared.informer.subscribe();
    let mut records = shared.records_changed();
    let mut all: BTreeMap<String, Asked> = BTreeMap::new();
    let mut questions: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
    let start = Instant::now();
    loop {
        agree(&shared, &mut all, start);
        let now = Instant::now();
        for (id, asked) in all.iter_mut().filter(|(_, asked)| !asked.is_under_way && asked.next <= now) {
            if questions.len() >= AT_A_TIME {
                break;
            }
            let interval = asked.target.probe.interval;
            let interval = if asked.tally.is_starting() { interval.min(EAGER) } else { interval };
            (asked.is_under_way, asked.next) = (true, now + interval);
            let (asker, id, target) = (Arc::clone(&shared.asker), id.clone(), asked.target.clone());
            questions.push(Box::pin(async move { ask(asker.as_ref(), id, target).await }));
        }
        let next = all.values().filter(|asked| !asked.is_under_way).map(|asked| asked.next).min();
        let due = async {
            match next {
                // One that is due already waits for its turn.
                Some(next) if next > now => tokio::time::sleep_until(next).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pictures.changed() => {}
            _ = records.changed() => {}
            Some(answer) = questions.next() => take(&shared, &mut all, answer, start),
            () = due => {}
        }
    }
}

/// Agrees who is asked with who runs.
fn agree(shared: &Shared, all: &mut BTreeMap<String, Asked>, start: Instant) {
    let wanted = wanted(shared, all);
    all.retain(|id, _| wanted.contains_key(id));
    let seen = shared.informer.everything();
    let known = |id: &String| {
        let container = seen.hosts.get(shared.host())?.containers.get(id)?;
        container.probe.as_ref().map(|probed| probed.health)
    };
    for (id, target) in wanted {
        if all.get(&id).is_some_and(|asked| asked.target == target) {
            continue;
        }
        let health = known(&id).unwrap_or(Health::Starting);
        let tally = Tally::new(health, start.elapsed());
        // At once: what is known of it may be of another question, or of nobody's.
        all.insert(id, Asked { target, tally, next: Instant::now(), is_under_way: false });
    }
}

fn take(shared: &Shared, all: &mut BTreeMap<String, Asked>, (id, target, heard): Answer, start: Instant) {
    let Some(asked) = all.get_mut(&id).filter(|asked| asked.target == target) else { return };
    asked.is_under_way = false;
    let health = asked.tally.note(&target.probe, heard.is_good, start.elapsed());
    shared.informer.set_probe(&id, &target.started_at, Probed { health, said: heard.said });
}

async fn ask(asker: &dyn Asker, id: String, target: Target) -> Answer {
    let Probe { kind, port, timeout, .. } = &target.probe;
    let heard = match target.address {
        Some(address) => {
            let address = SocketAddr::new(address, *port);
            asker.ask(&Question { address, kind: kind.clone(), timeout: *timeout }).await
        }
        None => Heard { is_good: false, said: "it has no address that its host could ask at".to_owned() },
    };
    (id, target, heard)
}

/// Returns who is to be asked what on this host.
///
/// A container whose specification is no longer the desired one goes on being asked what it was asked so far: the new
/// question may be for what only the new one answers.
fn wanted(shared: &Shared, before: &BTreeMap<String, Asked>) -> BTreeMap<String, Target> {
    let seen = shared.informer.everything();
    let Some(here) = seen.hosts.get(shared.host()) else { return BTreeMap::new() };
    let mut wanted = BTreeMap::new();
    for record in shared.desired() {
        let Some(graph) = record.desired.as_ref().map(|desired| &desired.graph) else { continue };
        if graph.services.values().all(|service| service.serving.probe.is_none()) {
            continue;
        }
        for container in here.containers.values().filter(|one| one.project.as_ref() == Some(&graph.project)) {
            if let Some(target) = target(graph, here, container, before.get(&container.id)) {
                wanted.insert(container.id.clone(), target);
            }
        }
    }
    wanted
}

fn target(graph: &Graph, here: &ObservedHost, container: &ObservedContainer, before: Option<&Asked>) -> Option<Target> {
    let known = container.probe.as_ref()?;
    let service = graph.services.get(&container.pod()?.service)?;
    let probe = service.serving.probe.as_ref()?;
    // What Docker Compose made for something else is replaced at once: nothing tells it from what stays.
    let is_current =
        container.is_of_docker_compose() || container.spec_hash.as_deref() == Some(service.spec_hash.as_str());
    let probe = match before.filter(|before| before.target.started_at == container.started_at) {
        Some(before) if !is_current => &before.target.probe,
        // It runs since before there was anything to ask it, and goes soon.
        None if !is_current && known.health == Health::Healthy && known.said.is_empty() => return None,
        _ => probe,
    };
    let address = address(here, container, MAX_SHARING);
    Some(Target { started_at: container.started_at.clone(), address, probe: probe.clone() })
}

/// Returns where a container is reached from its host: its first address, or that of the container whose network it has.
fn address(here: &ObservedHost, container: &ObservedContainer, hops: usize) -> Option<IpAddr> {
    if let Some(owner) = container.network_mode.strip_prefix("container:") {
        return address(here, here.containers.get(owner)?, hops.checked_sub(1)?);
    }
    if container.network_mode == "host" {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    container.networks.values().flatten().next().map(|address| IpAddr::V4(*address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_container_is_asked_at_the_address_of_its_network() {
        let mut here = ObservedHost::default();
        let mut holder = testing::container("shop", "web.pod", 1);
        holder.networks.insert("shop_default".to_owned(), Some(Ipv4Addr::new(10, 192, 0, 5)));
        let mut main = testing::container("shop", "web", 1);
        main.network_mode = format!("container:{}", holder.id);
        let of = |here: &ObservedHost, container: &ObservedContainer| {
            address(here, container, MAX_SHARING).map(|address| address.to_string())
        };
        assert_eq!(of(&here, &main), None, "its owner is gone");
        assert_eq!(of(&here, &holder).as_deref(), Some("10.192.0.5"));
        here.containers.insert(holder.id.clone(), holder);
        assert_eq!(of(&here, &main).as_deref(), Some("10.192.0.5"));
        main.network_mode = "host".to_owned();
        assert_eq!(of(&here, &main).as_deref(), Some("127.0.0.1"));
        let mut itself = testing::container("shop", "loop", 1);
        itself.network_mode = format!("container:{}", itself.id);
        here.containers.insert(itself.id.clone(), itself.clone());
        assert_eq!(of(&here, &itself), None);
    }
}

//! Looks at the machine now and then: what the other hosts must know of it beyond its engine.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::diag::chain;
use crate::graph::PortMode;
use crate::host::{self, disk};
use crate::place::Listening;

use super::super::shared::Shared;
use super::picture::Machine;

/// How often ports are looked at: who frees one wants to use it soon.
const EVERY: Duration = Duration::from_secs(1);

/// The rest of the machine is looked at once in so many times.
const WHOLE: u32 = 5;

/// A disk with less room is said to be full: an image or the log of a busy container takes as much within minutes.
const LITTLE_ROOM: u64 = 32 << 20;

/// Keeps what is told of the machine current. Started by `wire` only.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut times = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        // A host that is alone has nobody to tell.
        let alone = shared.fleet().hosts.is_empty();
        if times == 0 || !alone && times.is_multiple_of(WHOLE) {
            shared.set_machine(look(&shared).await);
            shared.refresh_own_picture();
        } else if !alone {
            let listening = listening(&shared);
            let machine = shared.machine();
            if machine.listening != listening {
                shared.set_machine(Machine { listening, ..machine });
                shared.refresh_own_picture();
            }
        }
        times = times.wrapping_add(1);
    }
}

/// Returns what is wrong on this host and no project's fault.
pub async fn problems(shared: &Shared) -> Vec<String> {
    let mut problems = shared.dataplane.problems().await;
    problems.extend(shared.ambassadors.problems());
    problems.extend(full_disks(shared));
    problems.extend(shared.unwritten_problem());
    problems.extend(shared.exposure.problem());
    problems
}

/// Disks without room: that of the store, and that of the engine's containers and images.
fn full_disks(shared: &Shared) -> Vec<String> {
    let (state, engine) = (&shared.options.state_dir, &shared.engine_info.root_dir);
    // The engine's directory is the host's.
    let of_host = Path::new("/proc/1/root").join(engine.trim_start_matches('/'));
    let mut disks = BTreeSet::new();
    let mut problems = Vec::new();
    for (name, path) in [(state.display().to_string(), state.as_path()), (engine.clone(), of_host.as_path())] {
        // Where there is no such directory, or it may not be looked at, there is nothing to say.
        let Ok((room, disk)) = disk::room(path) else { continue };
        if room < LITTLE_ROOM && disks.insert(disk) {
            problems.push(format!(
                "the disk of {name} has only {} left: free some space, for example `docker image prune`",
                megabytes(room)
            ));
        }
    }
    problems
}

/// `12.3 MB`.
fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// Looks at the machine now.
pub async fn look(shared: &Shared) -> Machine {
    let mut problems = problems(shared).await;
    let routes = shared.dataplane.routes().await.unwrap_or_else(|error| {
        problems.push(format!("routes cannot be read: {}", chain(&error)));
        Vec::new()
    });
    Machine {
        facts: shared.engine_info.facts.clone(),
        engine: shared.engine_info.version.clone(),
        routes,
        listening: if shared.fleet().hosts.is_empty() { BTreeSet::new() } else { listening(shared) },
        load: load(&std::fs::read_to_string("/proc/loadavg").unwrap_or_default()),
        problems,
    }
}

/// Returns the ports of this host that belong to nobody of orch's: neither to this agent nor to containers that shall be
/// here, which have theirs by `mode: host`.
pub fn listening(shared: &Shared) -> BTreeSet<Listening> {
    let mut found = host::listening::by_others().unwrap_or_else(|error| {
        tracing::warn!(%error, "it cannot be told which ports are in use");
        BTreeSet::new()
    });
    for record in shared.desired() {
        let Some(desired) = &record.desired else { continue };
        let here = desired.assignments.pods.iter().filter(|(_, host)| *host == shared.host());
        let services: BTreeSet<_> = here.map(|(pod, _)| &pod.service).collect();
        let ports = services.into_iter().filter_map(|name| desired.graph.services.get(name)).flat_map(|one| &one.ports);
        for port in ports.filter(|port| port.mode == PortMode::Host) {
            let Some((first, last)) = port.published else { continue };
            found.retain(|one| one.protocol != port.protocol || !(first..=last).contains(&one.port));
        }
    }
    found
}

/// The first of the numbers in `/proc/loadavg`, in hundredths; 0 where it is not to be read.
fn load(text: &str) -> u32 {
    let (whole, part) = text.split_whitespace().next().and_then(|load| load.split_once('.')).unwrap_or_default();
    let number = |text: &str| text.parse::<u32>().unwrap_or_default();
    number(whole).saturating_mul(100).saturating_add(number(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_read_in_hundredths() {
        assert_eq!(load("1.25 0.50 0.10 1/123 4567\n"), 125);
        assert_eq!(load(""), 0);
    }

    #[test]
    fn room_is_said_in_megabytes() {
        assert_eq!([0, 99_999, 12_345_678].map(megabytes), ["0.0 MB", "0.0 MB", "12.3 MB"]);
    }
}

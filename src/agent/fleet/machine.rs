//! Looks at the machine now and then: what the other hosts must know of it beyond its engine.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::shared::Shared;
use super::picture::Machine;

/// How often the machine is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps what is told of the machine current. Started by `wire` only.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looked = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        // A host that is alone has nobody to tell.
        if !looked || !shared.fleet().hosts.is_empty() {
            shared.set_machine(look(&shared).await);
            shared.refresh_own_picture();
            looked = true;
        }
    }
}

/// Looks at the machine now.
pub async fn look(shared: &Shared) -> Machine {
    let mut problems = shared.dataplane.problems().await;
    let routes = shared.dataplane.routes().await.unwrap_or_else(|error| {
        problems.push(format!("routes cannot be read: {error}"));
        Vec::new()
    });
    Machine {
        facts: shared.engine_info.facts.clone(),
        engine: shared.engine_info.version.clone(),
        routes,
        load: load(&std::fs::read_to_string("/proc/loadavg").unwrap_or_default()),
        problems,
    }
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
}

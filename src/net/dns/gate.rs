//! Bounds: how much may be open at once, in all and for one source.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets a bounded number of things be open.
#[derive(Debug)]
pub(super) struct Gate {
    most: usize,
    most_of_one: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_source: HashMap<Ipv4Addr, usize>,
}

/// One open thing; gives its place back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    source: Ipv4Addr,
}

impl Gate {
    /// Returns a gate for `most` things, of which one source may have a quarter.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_one: (most / 4).max(1), open: Mutex::default() })
    }

    /// Opens one more, or not.
    pub(super) fn enter(self: &Arc<Self>, source: Ipv4Addr) -> Option<Pass> {
        let mut open = self.lock();
        let mine = open.by_source.get(&source).copied().unwrap_or(0);
        if open.all >= self.most || mine >= self.most_of_one {
            return None;
        }
        open.all += 1;
        open.by_source.insert(source, mine + 1);
        Some(Pass { gate: Arc::clone(self), source })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut open = self.gate.lock();
        open.all -= 1;
        if let Some(mine) = open.by_source.get_mut(&self.source) {
            *mine -= 1;
            if *mine == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

/// Sources in a project's network that were waited for and stayed unknown: containers attached by hand.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<HashMap<Ipv4Addr, Instant>>);

impl Strangers {
    /// How long a source counts as a stranger: its address may be a new container's after that.
    const REMEMBERED: Duration = Duration::from_secs(30);
    const MOST: usize = 1024;

    pub(super) fn contains(&self, source: Ipv4Addr) -> bool {
        self.lock().get(&source).is_some_and(|since| since.elapsed() < Self::REMEMBERED)
    }

    pub(super) fn insert(&self, source: Ipv4Addr) {
        let mut known = self.lock();
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert(source, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_bounds_the_whole_and_each_source() {
        let gate = Gate::new(8);
        let source = |n| Ipv4Addr::new(10, 0, 0, n);
        let one: Vec<Pass> = std::iter::from_fn(|| gate.enter(source(1))).take(20).collect();
        assert_eq!(one.len(), 2);
        let many: Vec<Pass> = (2..20).filter_map(|n| gate.enter(source(n))).collect();
        assert_eq!(many.len(), 6);
        drop(one);
        assert!(gate.enter(source(1)).is_some());
        drop(many);
        assert!(gate.lock().by_source.is_empty());
    }
}

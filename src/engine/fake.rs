//! A container engine in memory, stricter than the real one: unknown things are errors, names are unique, networks and
//! images must exist, states follow one another. Tests make containers crash, turn unhealthy or vanish, and make
//! calls fail before or after they had their effect.
//!
//! Containers obey the [`script`](super::contract::script) in their last word; other commands run until they are
//! stopped. Time is a counter: it moves by a second with every change.

mod build;
mod calls;
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::state::State;
use super::{EngineError, EngineEvent, Result};
use crate::observed::{ContainerState, Health};

/// When a call that is made to fail does so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens.
    Before,
    /// It happens, but the answer is lost.
    After,
}

/// A fake engine; clones share their state.
#[derive(Debug, Clone)]
pub struct FakeEngine {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Default for FakeEngine {
    fn default() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl FakeEngine {
    /// Returns an engine with nothing but Docker's own networks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an image there.
    pub fn add_image(&self, reference: &str) {
        self.lock().add_image(reference);
    }

    /// Moves a tag to a new image, as `docker build -t` does; the old image stays, without a name.
    pub fn move_tag(&self, reference: &str) {
        self.lock().move_tag(reference);
    }

    /// Removes the images that no tag names and no container uses, as `docker image prune` does.
    pub fn prune_images(&self) {
        self.lock().prune_images();
    }

    /// Makes the next `times` calls of a method of [`super::Engine`] fail with `Failed`.
    pub fn fail(&self, method: &'static str, fault: Fault, times: usize) {
        self.lock().faults.insert(method, (fault, times));
    }

    /// Makes every call fail with `Unreachable` from now on, or no more.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.lock().unreachable = unreachable;
    }

    /// Returns how often each method was called.
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.lock().calls.clone()
    }

    /// Forgets the calls so far.
    pub fn reset_calls(&self) {
        self.lock().calls.clear();
    }

    /// Returns everything that happened.
    pub fn history(&self) -> Vec<EngineEvent> {
        self.lock().events.clone()
    }

    /// Lets a running container end by itself.
    ///
    /// # Panics
    /// When there is no such container, or it does not run.
    pub fn crash(&self, id_or_name: &str, code: i32) {
        self.change(|state| {
            let id = state.id(id_or_name).expect("the container is there");
            assert!(state.containers[&id].is_up(), "`{id_or_name}` does not run");
            state.end(&id, code);
        });
    }

    /// Tells of something that happened to a container.
    ///
    /// # Panics
    /// When there is no such container.
    pub fn tell(&self, id_or_name: &str, action: &str) {
        self.change(|state| {
            let id = state.id(id_or_name).expect("the container is there");
            state.tell(&id, action, &[]);
        });
    }

    /// Gives a running container's health check a verdict.
    ///
    /// # Panics
    /// When there is no such container, or it does not run, or it has no health check.
    pub fn set_health(&self, id_or_name: &str, health: Health) {
        self.change(|state| {
            let id = state.id(id_or_name).expect("the container is there");
            let container = state.containers.get_mut(&id).expect("its id was found");
            let ContainerState::Running { health: old } = container.observed.state else {
                panic!("`{id_or_name}` does not run")
            };
            assert_ne!(old, Health::None, "`{id_or_name}` has no health check");
            container.observed.state = ContainerState::Running { health };
            let word = match health {
                Health::Healthy => "healthy",
                Health::Unhealthy => "unhealthy",
                Health::Starting | Health::None => "starting",
            };
            state.tell(&id, &format!("health_status: {word}"), &[]);
        });
    }

    /// Freezes a running container, as `docker pause` does.
    ///
    /// # Panics
    /// When there is no such container, or it does not run.
    pub fn pause(&self, id_or_name: &str) {
        self.change(|state| {
            let id = state.id(id_or_name).expect("the container is there");
            let container = state.containers.get_mut(&id).expect("its id was found");
            assert!(container.observed.is_running(), "`{id_or_name}` does not run");
            container.observed.state = ContainerState::Paused;
            state.tell(&id, "pause", &[]);
        });
    }

    /// Lets a container ignore its stop signal, so that only the kill at the end of its grace ends it.
    pub fn ignore_stop_signal(&self, name: &str) {
        self.lock().stubborn.insert(name.to_owned());
    }

    /// Refuses to remove a network for so many times, as the engine does while it still takes containers off it.
    pub fn let_endpoints_linger(&self, network: &str, times: usize) {
        self.lock().lingering.insert(network.to_owned(), times);
    }

    /// Ends every running container, as the engine's own shutdown does, and starts those that it restarts itself.
    pub fn restart_engine(&self) {
        self.change(State::restart);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes those who wait for events, exits or logs.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// One call of the trait: counted, failed if a test asked for it, else done.
    fn call<T>(&self, method: &'static str, act: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.change(|state| {
            *state.calls.entry(method).or_default() += 1;
            if state.unreachable {
                let source = Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                return Err(EngineError::Unreachable { address: "fake".to_owned(), source });
            }
            let fault = state.fault(method);
            let failure = || EngineError::Failed { action: method.to_owned(), message: "a test wants it".to_owned() };
            match fault {
                None => act(state),
                Some(Fault::Before) => Err(failure()),
                Some(Fault::After) => act(state).and(Err(failure())),
            }
        })
    }
}

#[cfg(test)]
mod tests;

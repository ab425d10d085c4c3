//! Limits of time without a timer for each: a slot for every wait, looked at four times a second by one task a thread.
//!
//! A slot also says which endpoint a wait depends on, so that it ends when that is dead, and whether it is between two
//! requests, so that it ends when the balancer does. A connection stays on its thread for life (see `listeners`), and so
//! does its slot; nothing here is shared. The task ends when there is nothing left to look at.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::{buffer, link, pool};
use crate::lb::endpoint::EndpointState;

/// Time between two looks. A wait may take so much longer than its limit, never less.
const TICK: Duration = Duration::from_millis(250);

/// Why a wait ended without what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Its time was over.
    Time,
    /// The endpoint is dead.
    Endpoint,
    /// The balancer stops.
    Stop,
}

/// What a wait depends on beside its time.
#[derive(Debug, Clone, Copy)]
pub(super) enum On<'a> {
    /// Nothing.
    Nothing,
    /// That the balancer goes on: between two requests.
    Balancer,
    /// That an endpoint lives.
    Endpoint(&'a Arc<EndpointState>),
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
    /// Whether somebody looks.
    is_watched: bool,
    now: Option<Instant>,
}

#[derive(Default)]
struct Slot {
    waker: Option<Waker>,
    until: Option<Instant>,
    endpoint: Option<Arc<EndpointState>>,
    /// Set when the balancer stops, which counts if the wait depends on that.
    stop: Option<Arc<AtomicBool>>,
    is_until_stop: bool,
    over: Option<Over>,
}

thread_local!(static SLOTS: RefCell<Slots> = RefCell::default());

/// A slot of this thread. Waits one after the other may use the same.
#[derive(Debug)]
pub(super) struct Watch {
    index: usize,
    is_armed: bool,
}

impl Watch {
    /// Takes a slot. `stop` says when the balancer stops. To be called on a thread that has a runtime.
    pub(super) fn new(stop: &Arc<AtomicBool>) -> Self {
        let index = SLOTS.with_borrow_mut(|slots| {
            slots.look();
            let slot = Slot { stop: Some(Arc::clone(stop)), ..Slot::default() };
            let free = slots.free.pop().and_then(|index| Some((index, slots.all.get_mut(index)?)));
            if let Some((index, free)) = free {
                *free = slot;
                return index;
            }
            slots.all.push(slot);
            slots.all.len() - 1
        });
        Self { index, is_armed: false }
    }

    /// Waits for `poll`, at most for `limit`.
    ///
    /// # Errors
    /// Why it was not waited any longer.
    pub(super) async fn wait<T>(
        &mut self,
        limit: Duration,
        on: On<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Over> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(value) = poll(cx) {
                self.disarm();
                return Poll::Ready(Ok(value));
            }
            self.poll_over(cx, limit, on).map(Err)
        })
        .await
    }

    /// To be called when what is waited for is not ready: ready when the wait is over.
    pub(super) fn poll_over(&mut self, cx: &Context<'_>, limit: Duration, on: On<'_>) -> Poll<Over> {
        SLOTS.with_borrow_mut(|slots| {
            let now = slots.now();
            let Some(slot) = slots.all.get_mut(self.index) else { return Poll::Pending };
            if !std::mem::replace(&mut self.is_armed, true) {
                (slot.until, slot.over) = (now.checked_add(limit + TICK), None);
                match on {
                    On::Nothing => {}
                    On::Balancer => slot.is_until_stop = true,
                    On::Endpoint(endpoint) => slot.endpoint = Some(Arc::clone(endpoint)),
                }
            }
            if let Some(over) = slot.over.take() {
                slot.clear();
                self.is_armed = false;
                return Poll::Ready(over);
            }
            if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                slot.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// To be called when a wait has ended well: the next one has its own time.
    pub(super) fn disarm(&mut self) {
        if std::mem::take(&mut self.is_armed) {
            SLOTS.with_borrow_mut(|slots| slots.all.get_mut(self.index).map(Slot::clear));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // At the end of the thread there may be no slots any more.
        let _freed = SLOTS.try_with(|slots| {
            let mut slots = slots.borrow_mut();
            if let Some(slot) = slots.all.get_mut(self.index) {
                *slot = Slot::default();
                slots.free.push(self.index);
            }
        });
    }
}

impl Slot {
    /// The waker stays: it is the same for all waits of a task.
    fn clear(&mut self) {
        (self.until, self.endpoint, self.is_until_stop, self.over) = (None, None, false, None);
    }

    fn look(&mut self, now: Instant) {
        let Some(until) = self.until else { return };
        let over = if until <= now {
            Over::Time
        } else if self.endpoint.as_ref().is_some_and(|endpoint| endpoint.is_closed()) {
            Over::Endpoint
        } else if self.is_until_stop && self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            Over::Stop
        } else {
            return;
        };
        (self.until, self.over) = (None, Some(over));
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl Slots {
    /// The time of the last look: near enough, and free.
    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// Sees to it that somebody looks.
    fn look(&mut self) {
        if !std::mem::replace(&mut self.is_watched, true) {
            self.now = Some(Instant::now());
            tokio::spawn(look_on());
        }
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.all.len()
    }
}

/// Returns the time of the last look on this thread: near enough for what counts in seconds, and free.
pub(super) fn now() -> Instant {
    SLOTS.with_borrow_mut(Slots::now)
}

/// Sees to it that connections that are kept are looked at, too.
pub(super) fn look() {
    SLOTS.with_borrow_mut(Slots::look);
}

async fn look_on() {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let now = interval.tick().await;
        let kept = pool::tidy(now) + link::tidy(now);
        let is_over = SLOTS.with_borrow_mut(|slots| {
            slots.now = Some(now);
            slots.all.iter_mut().for_each(|slot| slot.look(now));
            slots.is_watched = kept > 0 || !slots.is_empty();
            if !slots.is_watched {
                // What a rush of connections needed is given back.
                *slots = Slots::default();
                buffer::give_back();
            }
            !slots.is_watched
        });
        if is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn stop() -> Arc<AtomicBool> {
        Arc::default()
    }

    async fn never(watch: &mut Watch, limit: Duration, on: On<'_>) -> Over {
        let mut future = Box::pin(pending::<()>());
        watch.wait(limit, on, |cx| future.as_mut().poll(cx)).await.expect_err("it never comes")
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_its_time_and_not_before() {
        let start = Instant::now();
        let mut watch = Watch::new(&stop());
        for _ in 0..3 {
            let before = Instant::now();
            assert_eq!(never(&mut watch, Duration::from_secs(1), On::Nothing).await, Over::Time);
            assert!((Duration::from_secs(1)..Duration::from_secs(2)).contains(&before.elapsed()));
        }
        let slow = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            7
        };
        let mut slow = Box::pin(slow);
        assert_eq!(watch.wait(Duration::from_secs(9), On::Nothing, |cx| slow.as_mut().poll(cx)).await, Ok(7));
        assert!(start.elapsed() < Duration::from_secs(12));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_what_it_depends_on() {
        let stop = stop();
        let (mut idle, mut busy, mut other) = (Watch::new(&stop), Watch::new(&stop), Watch::new(&stop));
        let endpoint = EndpointState::new("c".to_owned(), Duration::ZERO);
        let ends = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            endpoint.close_connections();
        };
        let hour = Duration::from_hours(1);
        let (idle, busy, other, ()) = tokio::join!(
            never(&mut idle, hour, On::Balancer),
            never(&mut busy, hour, On::Endpoint(&endpoint)),
            never(&mut other, hour, On::Nothing),
            ends
        );
        assert_eq!((idle, busy, other), (Over::Stop, Over::Endpoint, Over::Time));
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_used_again_and_nobody_looks_at_nothing() {
        let stop = stop();
        for _ in 0..100 {
            let _watch = Watch::new(&stop);
        }
        let watches: Vec<Watch> = (0..3).map(|_| Watch::new(&stop)).collect();
        assert_eq!(SLOTS.with_borrow(|slots| slots.all.len()), 3);
        drop(watches);
        tokio::time::sleep(TICK * 3).await;
        assert_eq!(SLOTS.with_borrow(|slots| (slots.all.len(), slots.is_watched)), (0, false));
    }
}

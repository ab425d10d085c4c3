//! What is known of an endpoint while it serves: its open connections, recent failures and counters.
//!
//! Lives from the table that brings a container to the last connection after the table that drops it. A container that
//! comes back gets a new one, so that `retired` never has to be taken back.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::http::Tally;
use super::outlier::{Others, Outlier};
use super::pick::Failures;
use super::stats::Whose;
use super::trouble::Troubles;
use crate::model::Ejection;

/// Ports of an endpoint that are remembered as having served. More are not needed to tell a dead program from a port
/// that nobody listens on: containers with more open ports are rare, and forgetting one only ends a connection sooner.
const SERVED_PORTS: usize = 8;

/// Ports of an endpoint whose failures are remembered at a time; a port scan must not grow this.
const FAILED_PORTS: usize = 16;

/// A port of a container, and whether it takes connections or datagrams there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortKey(u32);

impl PortKey {
    /// Returns the key of a port that takes datagrams.
    pub(super) fn datagrams(port: u16) -> Self {
        Self(1 << 16 | u32::from(port))
    }
}

impl PortKey {
    fn number(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl From<u16> for PortKey {
    /// Returns the key of a port that takes connections.
    fn from(port: u16) -> Self {
        Self(u32::from(port))
    }
}

/// A ready container, or one that was and still has connections.
#[derive(Debug)]
pub(super) struct EndpointState {
    /// No other one has this, also when both are the same container's at different times.
    pub(super) number: u64,
    /// Engine id.
    pub(super) container: String,
    /// When a table first named it, since the balancer's start.
    pub(super) since: Duration,
    /// Connections made to it.
    pub(super) connected: AtomicU64,
    /// Connects that failed.
    pub(super) failed: AtomicU64,
    /// Bytes sent to it.
    pub(super) sent: AtomicU64,
    /// Bytes received from it.
    pub(super) received: AtomicU64,
    /// Requests that went to it.
    pub(super) tally: Arc<Tally>,
    /// Whose it is, once it is behind an address.
    pub(super) whose: OnceLock<Whose>,
    /// What went wrong with it.
    pub(super) troubles: Troubles,
    open: AtomicUsize,
    idle: Notify,
    retired: AtomicBool,
    ended: AtomicBool,
    closed: AtomicBool,
    closing: Notify,
    served: [AtomicU32; SERVED_PORTS],
    /// The latest `until` of `failures`, in milliseconds: spares the lock where nothing failed lately.
    failed_until_ms: AtomicU64,
    failures: Mutex<Vec<(PortKey, Failures)>>,
    /// The latest `until` of `outliers`, in milliseconds, and whether there is any: for the same reason.
    passed_over_until_ms: AtomicU64,
    has_outliers: AtomicBool,
    outliers: Mutex<Vec<(PortKey, Outlier)>>,
}

impl EndpointState {
    pub(super) fn new(container: String, since: Duration) -> Arc<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            container,
            since,
            connected: AtomicU64::default(),
            failed: AtomicU64::default(),
            sent: AtomicU64::default(),
            received: AtomicU64::default(),
            tally: Arc::default(),
            whose: OnceLock::new(),
            troubles: Troubles::default(),
            open: AtomicUsize::default(),
            idle: Notify::new(),
            retired: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            served: Default::default(),
            failed_until_ms: AtomicU64::default(),
            failures: Mutex::default(),
            passed_over_until_ms: AtomicU64::default(),
            has_outliers: AtomicBool::default(),
            outliers: Mutex::default(),
        })
    }

    /// Returns how many connections to it are open or being opened.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Counts a connection for as long as the lease lives; `None` if it takes no more.
    ///
    /// Counted first and checked after, as [`Self::retire`] marks first and its caller counts after: in whichever
    /// order the two run, either the connection sees the mark or the caller sees the connection.
    pub(super) fn lease(self: &Arc<Self>) -> Option<Lease> {
        self.open.fetch_add(1, Ordering::SeqCst);
        let lease = Lease(Arc::clone(self));
        (!self.is_retired()).then_some(lease)
    }

    /// Takes no more connections, for good.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }

    /// Returns whether it takes no more connections.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Takes note that its container does not run any more. Connections end by themselves then, or are reset later.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Returns whether nobody is there any more: what is sent to it is lost.
    pub(super) fn is_gone(&self) -> bool {
        self.ended.load(Ordering::SeqCst) || self.is_closed()
    }

    /// Resets every connection to it.
    pub(super) fn close_connections(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.closing.notify_waiters();
    }

    /// Returns whether connections to it are to be reset.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// What wakes a connection when [`Self::is_closed`] turns true.
    pub(super) fn closing(&self) -> &Notify {
        &self.closing
    }

    /// Resolves when no connection to it is open.
    pub(super) async fn wait_idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Notes a connect to `port` that succeeded.
    pub(super) fn note_success(&self, port: impl Into<PortKey>) {
        self.connected.fetch_add(1, Ordering::Relaxed);
        self.note_served(port.into());
    }

    /// Notes that there is somebody at `port`.
    pub(super) fn note_served(&self, port: PortKey) {
        if !self.served_before(port)
            && let Some(free) = self.served.iter().find(|slot| slot.load(Ordering::Relaxed) == 0)
        {
            free.store(port.0, Ordering::Relaxed);
        }
        if self.failed_until_ms.load(Ordering::Relaxed) > 0 {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.retain(|(failed, _)| *failed != port);
            self.troubles.connected(port.number());
            self.failed_until_ms.store(latest_ms(&failures), Ordering::Relaxed);
        }
    }

    /// Notes a connect to `port` that failed at `now`.
    pub(super) fn note_failure(&self, port: impl Into<PortKey>, now: Duration) {
        let port = port.into();
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failures.iter().position(|(failed, _)| *failed == port).map(|index| failures.swap_remove(index).1);
        if failures.len() >= FAILED_PORTS {
            failures.remove(0);
        }
        failures.push((port, before.unwrap_or_default().another(now)));
        self.failed_until_ms.store(latest_ms(&failures), Ordering::Relaxed);
    }

    /// Returns whether connects to `port` failed so recently that another endpoint is to be preferred at `now`.
    pub(super) fn is_marked_down(&self, port: impl Into<PortKey>, now: Duration) -> bool {
        let port = port.into();
        if u128::from(self.failed_until_ms.load(Ordering::Relaxed)) <= now.as_millis() {
            return false;
        }
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().any(|(failed, state)| *failed == port && state.is_down(now))
    }

    /// Returns whether connects to any port failed so recently that others are preferred at `now`.
    pub(super) fn is_avoided(&self, now: Duration) -> bool {
        u128::from(self.failed_until_ms.load(Ordering::Relaxed)) > now.as_millis()
    }

    /// Notes that `port` did what it is for: took a connection or answered a request well.
    pub(super) fn note_well(&self, port: impl Into<PortKey>) {
        if !self.has_outliers.load(Ordering::Relaxed) {
            return;
        }
        let port = port.into();
        let mut outliers = self.outliers.lock().unwrap_or_else(PoisonError::into_inner);
        outliers.retain(|(failed, _)| *failed != port);
        self.store_outliers(&outliers);
    }

    /// Notes that `port` did not do what it is for, which may have the endpoint passed over by `rule`. `others` looks at
    /// the endpoints of the same service, and takes no lock.
    pub(super) fn note_ill(&self, port: PortKey, rule: &Ejection, now: Duration, others: impl FnOnce() -> Others) {
        let mut outliers = self.outliers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = outliers.iter().position(|(failed, _)| *failed == port).map(|index| outliers.swap_remove(index).1);
        let after = before.unwrap_or_default().failed(rule, now, others);
        if outliers.len() >= FAILED_PORTS {
            outliers.remove(0);
        }
        outliers.push((port, after));
        self.store_outliers(&outliers);
    }

    fn store_outliers(&self, outliers: &[(PortKey, Outlier)]) {
        let latest = outliers.iter().map(|(_, outlier)| outlier.until).max().unwrap_or_default();
        self.passed_over_until_ms.store(millis(latest), Ordering::Relaxed);
        self.has_outliers.store(!outliers.is_empty(), Ordering::Relaxed);
    }

    /// Returns whether `port` failed so often that another endpoint is to be preferred at `now`.
    pub(super) fn is_passed_over(&self, port: PortKey, now: Duration) -> bool {
        if !self.is_ejected(now) {
            return false;
        }
        let outliers = self.outliers.lock().unwrap_or_else(PoisonError::into_inner);
        outliers.iter().any(|(failed, outlier)| *failed == port && outlier.is_passed_over(now))
    }

    /// Returns whether any port failed so often that others are preferred at `now`.
    pub(super) fn is_ejected(&self, now: Duration) -> bool {
        u128::from(self.passed_over_until_ms.load(Ordering::Relaxed)) > now.as_millis()
    }

    /// Returns whether a connect to `port` ever succeeded.
    pub(super) fn served_before(&self, port: impl Into<PortKey>) -> bool {
        let PortKey(port) = port.into();
        self.served.iter().any(|slot| slot.load(Ordering::Relaxed) == port)
    }
}

fn latest_ms(failures: &[(PortKey, Failures)]) -> u64 {
    millis(failures.iter().map(|(_, state)| state.until).max().unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// One connection's share of an endpoint's count.
#[derive(Debug)]
pub(super) struct Lease(Arc<EndpointState>);

impl Lease {
    /// Returns whose share it is.
    pub(super) fn endpoint(&self) -> Arc<EndpointState> {
        Arc::clone(&self.0)
    }

    /// The same for who looks only.
    pub(super) fn state(&self) -> &Arc<EndpointState> {
        &self.0
    }
}

impl std::ops::Deref for Lease {
    type Target = EndpointState;

    fn deref(&self) -> &EndpointState {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<EndpointState> {
        EndpointState::new("c".to_owned(), Duration::ZERO)
    }

    #[test]
    fn a_retired_endpoint_gives_no_lease_and_keeps_those_given() {
        let endpoint = endpoint();
        let kept = endpoint.lease().expect("not retired");
        endpoint.retire();
        assert!(endpoint.lease().is_none());
        assert_eq!(endpoint.open(), 1);
        drop(kept);
        assert_eq!(endpoint.open(), 0);
    }

    #[test]
    fn a_mark_is_for_one_port_and_a_success_ends_it() {
        let (endpoint, now) = (endpoint(), Duration::from_secs(5));
        endpoint.note_failure(80, now);
        assert!(endpoint.is_marked_down(80, now));
        assert!(!endpoint.is_marked_down(81, now));
        assert!(!endpoint.is_marked_down(80, now + Duration::from_secs(1)));
        endpoint.note_success(80);
        assert!(!endpoint.is_marked_down(80, now));
        assert!(endpoint.served_before(80) && !endpoint.served_before(81));
        assert!(!endpoint.served_before(PortKey::datagrams(80)), "that is another program");
    }

    #[test]
    fn a_port_scan_grows_nothing() {
        let endpoint = endpoint();
        for port in 1..2000_u16 {
            endpoint.note_failure(port, Duration::ZERO);
            endpoint.note_success(port);
            endpoint.note_failure(port, Duration::ZERO);
        }
        assert!(endpoint.failures.lock().expect("not poisoned").len() <= FAILED_PORTS);
    }

    #[test]
    fn failures_of_one_port_have_it_passed_over_until_it_answers_well() {
        let (endpoint, now) = (endpoint(), Duration::from_secs(5));
        let rule = Ejection { failures: 2, pause: Duration::from_secs(10), at_most: 50 };
        let [web, other] = [80, 81].map(PortKey::from);
        let fail = |port| endpoint.note_ill(port, &rule, now, || Others { all: 3, passed_over: 0 });
        fail(web);
        endpoint.note_well(80);
        fail(web);
        assert!(!endpoint.is_ejected(now), "not in a row");
        fail(web);
        assert!(endpoint.is_ejected(now) && endpoint.is_passed_over(web, now));
        assert!(!endpoint.is_passed_over(other, now));
        assert!(!endpoint.is_passed_over(web, now + rule.pause));
        endpoint.note_well(80);
        assert!(!endpoint.is_ejected(now));
        for port in 1..2000_u16 {
            fail(port.into());
        }
        assert!(endpoint.outliers.lock().expect("not poisoned").len() <= FAILED_PORTS);
    }

    #[tokio::test]
    async fn waiting_for_idle_ends_with_the_last_lease() {
        let endpoint = endpoint();
        let leases = [endpoint.lease(), endpoint.lease()];
        let mut waiting = tokio_test_poll(endpoint.wait_idle());
        assert!(!waiting.is_done().await);
        drop(leases);
        waiting.done().await;
    }

    /// A future that is looked at once, then awaited.
    struct Looked<F>(std::pin::Pin<Box<F>>);

    fn tokio_test_poll<F: Future<Output = ()>>(future: F) -> Looked<F> {
        Looked(Box::pin(future))
    }

    impl<F: Future<Output = ()>> Looked<F> {
        async fn is_done(&mut self) -> bool {
            std::future::poll_fn(|cx| std::task::Poll::Ready(self.0.as_mut().poll(cx).is_ready())).await
        }

        async fn done(self) {
            tokio::time::timeout(Duration::from_secs(5), self.0).await.expect("the last lease is gone");
        }
    }
}

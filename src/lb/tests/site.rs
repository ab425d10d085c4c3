//! Pods and clients for tests: listeners on loopback addresses that play the containers' part.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::graph::Protocol;
use crate::ids::{HostName, PodId, ProjectName, ResourceKey, ServiceName};
use crate::lb::table::{Backend, Endpoint, LbTable, NetworkId, PodAddress, Published, PublishedKey};
use crate::lb::{Balancer, BalancerOptions, EndpointStats};
use crate::model::Balance;

/// Nothing in these tests takes this long; a test that waits so long has failed.
pub(in crate::lb::tests) const DEADLINE: Duration = Duration::from_secs(20);

/// A /24 of loopback, a published port in it, and a balancer that serves it.
pub(in crate::lb::tests) struct Site {
    net: [u8; 3],
    version: AtomicU64,
    pub(in crate::lb::tests) balancer: Balancer,
    /// Where clients connect.
    pub(in crate::lb::tests) front: SocketAddr,
    /// Where pods listen, each on its own address.
    pub(in crate::lb::tests) target: u16,
}

impl Site {
    pub(in crate::lb::tests) async fn new(options: BalancerOptions) -> Self {
        let net = own_net();
        let free = |last| async move {
            let probe = TcpListener::bind((Ipv4Addr::new(net[0], net[1], net[2], last), 0)).await.expect("loopback");
            probe.local_addr().expect("bound")
        };
        let (front, target) = (free(254).await, free(253).await.port());
        let balancer = Balancer::start(BalancerOptions { threads: 2, ..options }).expect("threads");
        Self { net, version: AtomicU64::default(), balancer, front, target }
    }

    /// A site that holds connections for as long as a test may take.
    pub(in crate::lb::tests) async fn patient() -> Self {
        Self::new(BalancerOptions { hold: DEADLINE, ..BalancerOptions::default() }).await
    }

    pub(in crate::lb::tests) fn pod_address(&self, number: u8) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(self.net[0], self.net[1], self.net[2], number), self.target))
    }

    pub(in crate::lb::tests) fn key(&self) -> PublishedKey {
        PublishedKey { host_ip: Some(self.front.ip()), port: self.front.port(), protocol: Protocol::Tcp }
    }

    /// The published port, for connections and for datagrams.
    pub(super) fn keys(&self) -> [PublishedKey; 2] {
        [self.key(), PublishedKey { protocol: Protocol::Udp, ..self.key() }]
    }

    /// A table whose published port leads to these pods.
    pub(in crate::lb::tests) fn table(&self, pods: &[u8]) -> LbTable {
        let published = Published { target: self.target, backend: Arc::new(self.backend(pods)) };
        LbTable {
            version: self.version.fetch_add(1, Ordering::Relaxed) + 1,
            published: self.keys().map(|key| (key, published.clone())).into(),
            pods: (1..=9).map(|number| self.running(number)).collect(),
            ..LbTable::default()
        }
    }

    fn endpoint(&self, number: u8) -> Endpoint {
        let IpAddr::V4(address) = self.pod_address(number).ip() else { unreachable!("made of four bytes") };
        let pod = PodId::new(ServiceName::new("web").expect("valid"), u32::from(number));
        Endpoint { pod, container: container(number), host: HostName::local(), address }
    }

    /// A pod that runs, whether it is ready or not.
    fn running(&self, number: u8) -> (Ipv4Addr, PodAddress) {
        let endpoint = self.endpoint(number);
        let project = ProjectName::new("demo").expect("valid");
        let network = NetworkId { project, network: ResourceKey::new("back").expect("valid") };
        (endpoint.address, PodAddress { network, endpoint })
    }

    fn backend(&self, pods: &[u8]) -> Backend {
        Backend {
            project: ProjectName::new("demo").expect("valid"),
            service: ServiceName::new("web").expect("valid"),
            http: BTreeMap::new(),
            balance: Balance::default(),
            endpoints: pods.iter().map(|number| self.endpoint(*number)).collect(),
        }
    }

    #[track_caller]
    pub(in crate::lb::tests) fn set(&self, pods: &[u8]) {
        let errors = self.balancer.set_table(&self.table(pods));
        assert!(errors.is_empty(), "{errors:?}");
    }

    pub(in crate::lb::tests) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.front).await.expect("the published port listens")
    }

    /// Starts a pod that runs `talk` for each connection.
    pub(in crate::lb::tests) async fn pod<F>(&self, number: u8, talk: impl Fn(TcpStream) -> F + Send + 'static) -> Pod
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Pod::start(self.pod_address(number), talk).await
    }

    /// Starts a pod that sends back what it gets.
    pub(in crate::lb::tests) async fn echo(&self, number: u8) -> Pod {
        self.pod(number, echo).await
    }

    pub(in crate::lb::tests) fn stats(&self, number: u8) -> EndpointStats {
        let stats = self.balancer.stats();
        let found = stats.endpoints.iter().find(|endpoint| endpoint.container == container(number));
        found.unwrap_or_else(|| panic!("no pod {number} in {stats:?}")).clone()
    }
}

/// A listener that plays a pod; dropping it ends the listener, not its connections.
pub(in crate::lb::tests) struct Pod(JoinHandle<()>);

impl Pod {
    pub(in crate::lb::tests) async fn start<F>(
        address: SocketAddr,
        talk: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("the address is this test's own");
        Self(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream));
            }
        }))
    }

    /// Ends the listener and waits until its port refuses.
    pub(in crate::lb::tests) async fn stop(mut self) {
        self.0.abort();
        let _aborted = (&mut self.0).await;
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(in crate::lb::tests) fn container(number: u8) -> String {
    format!("container-{number}")
}

pub(in crate::lb::tests) async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    // A client that resets is the other side's matter.
    let _ended = tokio::io::copy(&mut read, &mut write).await;
}

/// Sends `word` and reads as many bytes back.
pub(in crate::lb::tests) async fn ask(stream: &mut TcpStream, word: &str) -> std::io::Result<String> {
    stream.write_all(word.as_bytes()).await?;
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Connects and reads; returns the error. A reset may come so soon that it is the answer to the connect.
pub(in crate::lb::tests) async fn refusal(address: SocketAddr) -> std::io::ErrorKind {
    let outcome = match TcpStream::connect(address).await {
        Ok(mut client) => in_time(client.read_u8()).await,
        Err(error) => Err(error),
    };
    outcome.expect_err("not served").kind()
}

/// Reads to the end.
pub(in crate::lb::tests) async fn rest(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// Waits until `condition` holds; fails with what was last seen.
pub(in crate::lb::tests) async fn until<T: std::fmt::Debug>(
    mut look: impl FnMut() -> T,
    condition: impl Fn(&T) -> bool,
) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let seen = look();
        if condition(&seen) {
            return seen;
        }
        assert!(tokio::time::Instant::now() < deadline, "last seen: {seen:?}");
        tokio::task::yield_now().await;
    }
}

/// Runs to the end, or fails.
pub(in crate::lb::tests) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("done in time")
}

/// A /24 of loopback that no other test of this or another process uses, unless two processes are 16,000 pids apart.
fn own_net() -> [u8; 3] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let slot = std::process::id().wrapping_mul(4).wrapping_add(u32::from(NEXT.fetch_add(1, Ordering::Relaxed)));
    let [_, _, high, low] = slot.to_be_bytes();
    [127, high.max(1), low]
}

//! Connections that a packet filter redirects, in a network namespace with a client in another one.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use super::site::{DEADLINE, Pod, container, echo};
use crate::host::namespace::{enter_new_network, in_new_network, thread_id, tool};
use crate::ids::{HostName, PodId, ProjectName, ResourceKey, ServiceName};
use crate::lb::table::{Backend, Endpoint, LbTable, NetworkId, Vip};
use crate::lb::{Balancer, BalancerOptions};
use crate::model::Balance;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const OWN_VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 193);
const FOREIGN_VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 194);

fn network(key: &str) -> NetworkId {
    NetworkId { project: ProjectName::new("demo").expect("valid"), network: ResourceKey::new(key).expect("valid") }
}

fn vip(network_key: &str) -> Vip {
    let service = ServiceName::new("web").expect("valid");
    let pod = PodId::new(service.clone(), 1);
    let endpoint = Endpoint { pod, container: container(1), host: HostName::local(), address: Ipv4Addr::LOCALHOST };
    let backend = Backend {
        project: network(network_key).project,
        service,
        http: BTreeMap::new(),
        balance: Balance::default(),
        endpoints: vec![endpoint],
    };
    Vip { network: network(network_key), backend: Arc::new(backend) }
}

/// A client in a network of its own, behind the interface `orch0`: sends what it is told, says what comes back.
struct Client {
    orders: mpsc::Sender<SocketAddr>,
    answers: mpsc::Receiver<Result<String, ErrorKind>>,
}

impl Client {
    fn start() -> Self {
        let (orders, order) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (tell, thread) = mpsc::channel();
        std::thread::spawn(move || {
            enter_new_network().expect("as its parent did");
            tell.send(thread_id()).expect("the test waits");
            for address in order {
                let outcome = ask(address).map_err(|error| error.kind());
                answer.send(outcome).expect("the test waits");
            }
        });
        let thread = thread.recv().expect("the client has a network");
        tool("ip link add orch0 type veth peer name eth0");
        tool(&format!("ip link set eth0 netns {thread}"));
        // A task of this process, whichever thread asks.
        let inside = format!("nsenter --net=/proc/{}/task/{thread}/ns/net", std::process::id());
        tool(&format!("{inside} ip addr add 10.9.0.2/24 dev eth0"));
        tool(&format!("{inside} ip link set eth0 up"));
        Self { orders, answers }
    }

    fn ask(&self, address: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
        self.orders.send(SocketAddr::from((address, port))).expect("the client runs");
        self.answers.recv_timeout(DEADLINE).expect("in time")
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn redirected_connections_reach_what_their_network_may_reach() {
    in_new_network(|| {
        let client = Client::start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let pod = |port, talk: fn(tokio::net::TcpStream) -> _| {
            runtime.block_on(Pod::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), talk))
        };
        let _pods = [pod(8080, echo_boxed), pod(9999, shout)];

        let options = BalancerOptions { threads: 2, hold: Duration::from_millis(100), ..BalancerOptions::default() };
        let balancer = Balancer::start(options).expect("threads");
        // Before the address exists: the bridge may come later.
        let port = balancer.add_vip_listener(network("default"), GATEWAY, None).expect("any port");
        for address in [format!("{GATEWAY}/24"), format!("{OWN_VIP}/32"), format!("{FOREIGN_VIP}/32")] {
            tool(&format!("ip addr add {address} dev orch0"));
        }
        tool("ip link set orch0 up");
        let redirect = format!("-i orch0 -p tcp -d 10.9.0.192/26 -j REDIRECT --to-ports {port}");
        tool(&format!("iptables -w -t nat -A PREROUTING {redirect}"));
        let errors = balancer.set_table(&LbTable {
            version: 1,
            vips: BTreeMap::from([(OWN_VIP, vip("default")), (FOREIGN_VIP, vip("other"))]),
            ..LbTable::default()
        });
        assert!(errors.is_empty());

        assert_eq!(client.ask(OWN_VIP, 8080).as_deref(), Ok("hello"));
        assert_eq!(client.ask(OWN_VIP, 9999).as_deref(), Ok("HELLO"), "every port, also an undeclared one");
        assert_eq!(client.ask(OWN_VIP, 7), Err(ErrorKind::ConnectionReset), "nothing listens there");
        assert_eq!(client.ask(FOREIGN_VIP, 8080), Err(ErrorKind::ConnectionReset), "another network's address");
        assert_eq!(client.ask(GATEWAY, port), Err(ErrorKind::ConnectionReset), "not redirected");
        balancer.set_table(&LbTable { version: 2, ..LbTable::default() });
        assert_eq!(client.ask(OWN_VIP, 8080), Err(ErrorKind::ConnectionReset), "the service is gone");
    });
}

type Talk = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn echo_boxed(stream: tokio::net::TcpStream) -> Talk {
    Box::pin(echo(stream))
}

/// Sends what it gets in capitals.
fn shout(mut stream: tokio::net::TcpStream) -> Talk {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    Box::pin(async move {
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.expect("sent");
        stream.write_all(&word.to_ascii_uppercase()).await.expect("open");
    })
}

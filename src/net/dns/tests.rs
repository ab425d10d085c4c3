//! A real server on loopback, clients that bind to the containers' addresses, and a resolver that does what is asked.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::net::fixtures::{Project, graph};

use super::*;

mod forwarding;
mod hostile;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);
const WEB: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 2);
const DB: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 3);
const NEWCOMER: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 99);

const SERVICES: &str = "web n +link=db:database +port=http:80\ndb n +expose=5432\nmany n +x60 +dnsrr";

/// Nothing here takes longer, unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

fn project(services: &str, containers: &str) -> Project {
    Project::new(graph("p", "n 127.9.0.0/16", services), containers, &[])
}

fn table(services: &str, containers: &str) -> NameTable {
    NameTable::build(1, &[project(services, containers).view()])
}

/// A server with a listener.
struct Fixture {
    server: DnsServer,
    listener: DnsListener,
    table: Arc<ArcSwap<NameTable>>,
}

impl Fixture {
    fn new() -> Self {
        let mut containers = "web.1 n=127.9.0.2\ndb.1 n=127.9.0.3\n".to_owned();
        for n in 1..=60 {
            writeln!(containers, "many.{n} n=127.9.1.{n}").expect("text");
        }
        Self::of(table(SERVICES, &containers))
    }

    fn of(table: NameTable) -> Self {
        let table = Arc::new(ArcSwap::from_pointee(table));
        let server = DnsServer::new(Handle::current(), Arc::clone(&table));
        let listener = server.listen(GATEWAY, None).expect("a port on loopback");
        Self { server, listener, table }
    }

    fn address(&self) -> SocketAddr {
        self.listener.address().into()
    }

    async fn ask(&self, from: Ipv4Addr, name: &str, kind: RecordType) -> Message {
        udp(self.address(), from, &question(name, kind)).await
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

async fn udp(server: SocketAddr, from: Ipv4Addr, question: &Message) -> Message {
    let reply = udp_raw(server, from, &question.to_vec().expect("a message")).await;
    Message::from_vec(&reply).expect("a message")
}

async fn udp_raw(server: SocketAddr, from: Ipv4Addr, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((from, 0)).await.expect("a socket");
    socket.connect(server).await.expect("connected");
    socket.send(packet).await.expect("sent");
    let mut buffer = vec![0; 65535];
    let length = timeout(DEADLINE, socket.recv(&mut buffer)).await.expect("an answer in time").expect("an answer");
    buffer.truncate(length);
    buffer
}

async fn connect(server: SocketAddr, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("bound");
    timeout(DEADLINE, socket.connect(server)).await.expect("in time").expect("connected")
}

async fn tcp(stream: &mut TcpStream, question: &Message) -> Message {
    let bytes = question.to_vec().expect("a message");
    stream.write_u16(bytes.len().try_into().expect("short")).await.expect("sent");
    stream.write_all(&bytes).await.expect("sent");
    let exchange = async {
        let mut reply = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await.map(|_| reply)
    };
    let reply = timeout(DEADLINE, exchange).await.expect("an answer in time").expect("an answer");
    Message::from_vec(&reply).expect("a message")
}

/// Writes an answer as short text: code, flags, records.
fn show(message: &Message) -> String {
    let mut text = message.metadata.response_code.to_string();
    for (flag, word) in [(message.metadata.authoritative, " aa"), (message.metadata.truncation, " tc")] {
        text += if flag { word } else { "" };
    }
    for record in message.all_sections() {
        let (name, ttl, kind) = (&record.name, record.ttl, record.record_type());
        write!(text, "; {name} {ttl} {kind} {}", record.data).expect("text");
    }
    text
}

#[tokio::test]
async fn names_are_answered_over_udp_and_tcp_alike() {
    let fixture = Fixture::new();
    let mut stream = connect(fixture.address(), WEB).await;
    let soa = "SOA orch.internal. orch.internal. 1";
    let cases = [
        ("db.", RecordType::A, "No Error aa; db. 30 A 127.9.255.0".to_owned()),
        ("DB.", RecordType::A, "No Error aa; DB. 30 A 127.9.255.0".to_owned()),
        ("DataBase.", RecordType::A, "No Error aa; DataBase. 30 A 127.9.255.0".to_owned()),
        ("db.", RecordType::AAAA, format!("No Error aa; db. 30 {soa} 30 30 30 30")),
        ("1.db.p.orch.internal.", RecordType::A, "No Error aa; 1.db.p.orch.internal. 2 A 127.9.0.3".to_owned()),
        ("x.orch.internal.", RecordType::A, format!("Non-Existent Domain aa; orch.internal. 2 {soa} 2 2 2 2")),
        (
            "3.0.9.127.in-addr.arpa.",
            RecordType::PTR,
            "No Error aa; 3.0.9.127.in-addr.arpa. 2 PTR 1.db.p.orch.internal.".to_owned(),
        ),
        (
            "_http._tcp.web.",
            RecordType::SRV,
            "No Error aa; _http._tcp.web. 30 SRV 0 0 80 web.p.orch.internal.; web.p.orch.internal. 30 A 127.9.255.2"
                .to_owned(),
        ),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(show(&fixture.ask(WEB, name, kind).await), expected, "{name} {kind} over UDP");
        assert_eq!(show(&tcp(&mut stream, &question(name, kind)).await), expected, "{name} {kind} over TCP");
    }
}

#[tokio::test]
async fn the_source_address_decides() {
    let fixture = Fixture::new();
    assert_eq!(show(&fixture.ask(Ipv4Addr::LOCALHOST, "db.", RecordType::A).await), "Query Refused");
    assert_eq!(show(&fixture.ask(DB, "database.", RecordType::A).await), "Server Failure", "there is no resolver");
}

#[tokio::test]
async fn several_addresses_take_turns() {
    let fixture = Fixture::of(table(
        "a n +dnsrr +x3\nw n",
        "a.1 n=127.9.0.11\na.2 n=127.9.0.12\na.3 n=127.9.0.13\nw.1 n=127.9.0.2",
    ));
    let mut first = Vec::new();
    for _ in 0..3 {
        let message = fixture.ask(WEB, "a.", RecordType::A).await;
        assert_eq!(message.answers.len(), 3);
        first.push(message.answers[0].data.to_string());
    }
    first.sort();
    assert_eq!(first, ["127.9.0.11", "127.9.0.12", "127.9.0.13"]);
}

#[tokio::test]
async fn what_does_not_fit_is_truncated_and_complete_over_tcp() {
    let fixture = Fixture::new();
    let ask = question("many.", RecordType::A);
    for (message, limit) in
        [(ask.clone(), 512), (with_edns(ask.clone(), 1000), 1000), (with_edns(ask.clone(), 100), 512)]
    {
        let bytes = udp_raw(fixture.address(), WEB, &message.to_vec().expect("a message")).await;
        let reply = Message::from_vec(&bytes).expect("a message");
        assert!(bytes.len() <= limit && bytes.len() > limit - 100, "{} of {limit}", bytes.len());
        assert!(reply.metadata.truncation != (reply.answers.len() == 60), "{}", show(&reply));
        assert_eq!(reply.edns.is_some(), message.edns.is_some());
    }
    let all = udp(fixture.address(), WEB, &with_edns(ask.clone(), 4096)).await;
    assert!(!all.metadata.truncation && all.answers.len() == 60);
    let over_tcp = tcp(&mut connect(fixture.address(), WEB).await, &ask).await;
    assert!(!over_tcp.metadata.truncation && over_tcp.answers.len() == 60);
}

#[tokio::test]
async fn a_new_table_counts_at_once() {
    let fixture = Fixture::new();
    for _ in 0..3 {
        // From the second time on as it was said before.
        assert_eq!(show(&fixture.ask(WEB, "db.", RecordType::A).await), "No Error aa; db. 30 A 127.9.255.0");
        assert_eq!(fixture.ask(WEB, "db.", RecordType::AAAA).await.answers.len(), 0);
    }
    fixture.table.store(Arc::new(table("web n\nnew n\ndb n", "web.1 n=127.9.0.2")));
    assert_eq!(show(&fixture.ask(WEB, "new.", RecordType::A).await), "No Error aa; new. 30 A 127.9.255.1");
    assert_eq!(show(&fixture.ask(WEB, "db.", RecordType::A).await), "No Error aa; db. 30 A 127.9.255.0");
    fixture.table.store(Arc::new(table("web n\nnew n", "web.1 n=127.9.0.2")));
    assert_eq!(show(&fixture.ask(WEB, "new.", RecordType::A).await), "No Error aa; new. 30 A 127.9.255.0");
    assert_ne!(show(&fixture.ask(WEB, "db.", RecordType::A).await), "No Error aa; db. 30 A 127.9.255.0");
}

#[tokio::test]
async fn a_container_that_is_not_known_yet_waits_for_the_table_that_knows_it() {
    let fixture = Fixture::new();
    // Names of its network are answered at once, a link only when the table says who asks.
    assert_eq!(show(&fixture.ask(NEWCOMER, "db.", RecordType::A).await), "No Error aa; db. 30 A 127.9.255.0");
    let mut link = std::pin::pin!(fixture.ask(NEWCOMER, "database.", RecordType::A));
    timeout(Duration::from_millis(100), &mut link).await.expect_err("it must wait");
    fixture.table.store(Arc::new(table(SERVICES, "web.1 n=127.9.0.99")));
    assert_eq!(show(&link.await), "No Error aa; database. 30 A 127.9.255.0");
}

#[tokio::test]
async fn a_stranger_in_the_network_waits_once() {
    let fixture = Fixture::new();
    let begin = Instant::now();
    assert_eq!(show(&fixture.ask(NEWCOMER, "nope.", RecordType::A).await), "Server Failure");
    assert!(begin.elapsed() >= Duration::from_millis(900));
    let begin = Instant::now();
    fixture.ask(NEWCOMER, "nope.", RecordType::A).await;
    assert!(begin.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn listeners_come_and_go() {
    let fixture = Fixture::new();
    let address = fixture.listener.address();
    let second = fixture.server.listen(Ipv4Addr::new(127, 9, 0, 254), Some(address.port())).expect("another address");
    assert_eq!(second.address().port(), address.port(), "the hint was free");
    let third = fixture.server.listen(GATEWAY, Some(address.port())).expect("another port");
    assert_ne!(third.address().port(), address.port(), "the hint was taken");
    drop(second);
    third.stop().await;
    assert_eq!(fixture.ask(WEB, "db.", RecordType::A).await.answers.len(), 1, "the first goes on");
    fixture.listener.stop().await;
    let again = fixture.server.listen(GATEWAY, Some(address.port())).expect("free again");
    assert_eq!(again.address(), address);
    let missing = fixture.server.listen(Ipv4Addr::new(192, 0, 2, 1), None).expect_err("not an address of this host");
    assert_eq!(missing.kind(), io::ErrorKind::AddrNotAvailable);
}

#[tokio::test]
async fn a_port_that_only_tcp_has_taken_is_not_used() {
    let fixture = Fixture::new();
    let taken = TcpListener::bind((GATEWAY, 0)).await.expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let listener = fixture.server.listen(GATEWAY, Some(port)).expect("another port");
    assert_ne!(listener.address().port(), port);
}

//! Resolvers, the cache, and what happens when they fail.

use std::sync::atomic::AtomicUsize;

use super::*;

/// A resolver whose answers depend on the name's first label; counts the questions by UDP and TCP.
struct Upstream {
    address: SocketAddr,
    udp: Arc<AtomicUsize>,
    tcp: Arc<AtomicUsize>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Upstream {
    /// Starts one whose addresses end in `last`, to tell it from others.
    async fn start(last: u8) -> Self {
        let (socket, listener) = super::super::bind_any(Ipv4Addr::LOCALHOST).expect("a port");
        let (socket, listener) = (UdpSocket::from_std(socket.into()), TcpListener::from_std(listener.into()));
        let (socket, listener) = (socket.expect("a socket"), listener.expect("a listener"));
        let address = socket.local_addr().expect("an address");
        let (udp, tcp): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let tasks = [
            tokio::spawn(Self::serve_udp(socket, last, Arc::clone(&udp))),
            tokio::spawn(Self::serve_tcp(listener, last, Arc::clone(&tcp))),
        ];
        tokio::task::yield_now().await;
        Self { address, udp, tcp, tasks }
    }

    async fn serve_udp(socket: UdpSocket, last: u8, count: Arc<AtomicUsize>) {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::SeqCst);
            let question = Message::from_vec(&buffer[..length]).expect("a question");
            let name = question.queries[0].name().to_string().to_lowercase();
            if name.starts_with("silent") {
                continue;
            }
            let mut reply = reply(&question, &name, last);
            if name.starts_with("forged") {
                // What somebody who guesses would send before the answer.
                let mut forged = reply.clone();
                forged.metadata.id ^= 1;
                forged.answers[0].data = RData::A(A::new(6, 6, 6, 6));
                socket.send_to(&forged.to_vec().expect("a message"), client).await.expect("sent");
                forged.metadata.id ^= 1;
                forged.queries[0].set_name(Name::from_ascii("other.").expect("a name"));
                socket.send_to(&forged.to_vec().expect("a message"), client).await.expect("sent");
            }
            if name.starts_with("big") {
                reply.answers.clear();
                reply.metadata.truncation = true;
            }
            let mut bytes = reply.to_vec().expect("a message");
            if name.starts_with("odd") {
                let end = bytes.len();
                bytes[end - 5] = 9; // the length of an address record
            }
            socket.send_to(&bytes, client).await.expect("sent");
        }
    }

    async fn serve_tcp(listener: TcpListener, last: u8, count: Arc<AtomicUsize>) {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut bytes = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
            stream.read_exact(&mut bytes).await.expect("a question");
            let question = Message::from_vec(&bytes).expect("a question");
            let name = question.queries[0].name().to_string();
            let bytes = reply(&question, &name, last).to_vec().expect("a message");
            stream.write_u16(bytes.len().try_into().expect("short")).await.expect("sent");
            stream.write_all(&bytes).await.expect("sent");
        }
    }

    fn count(&self) -> (usize, usize) {
        (self.udp.load(Ordering::SeqCst), self.tcp.load(Ordering::SeqCst))
    }
}

fn reply(question: &Message, name: &str, last: u8) -> Message {
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    let owner = question.queries[0].name().clone();
    reply.add_query(question.queries[0].clone());
    let record = |n| {
        Record::from_rdata(
            owner.clone(),
            if name.starts_with("zero") { 0 } else { 60 },
            RData::A(A::new(192, 0, n, last)),
        )
    };
    let soa = || {
        let zone = Name::from_ascii("test.").expect("a name");
        Record::from_rdata(zone.clone(), 30, RData::SOA(SOA::new(zone.clone(), zone, 1, 2, 3, 4, 20)))
    };
    match name.split('.').next().expect("a label") {
        "nx" => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(soa());
        }
        "fail" => reply.metadata.response_code = ResponseCode::ServFail,
        "big" => reply.answers = (0..100).map(record).collect(),
        _ if question.queries[0].query_type() == RecordType::A => {
            reply.add_answer(record(2));
        }
        _ => {
            reply.add_authority(soa());
        }
    }
    reply
}

fn with(upstreams: &[&Upstream]) -> Fixture {
    let fixture = Fixture::new();
    fixture.server.set_upstreams(Upstreams::new(upstreams.iter().map(|upstream| upstream.address)));
    fixture
}

#[tokio::test]
async fn unknown_names_are_asked_for_once_and_remembered() {
    let upstream = Upstream::start(1).await;
    let fixture = with(&[&upstream]);
    for (round, name) in ["www.test.", "WWW.test.", "www.TEST."].into_iter().enumerate() {
        let message = fixture.ask(WEB, name, RecordType::A).await;
        assert!(show(&message).ends_with("60 A 192.0.2.1"), "{round}: {}", show(&message));
        assert!(!message.metadata.authoritative && message.metadata.recursion_available);
        assert_eq!(message.queries[0].name().to_string(), name, "the question comes back as it was written");
    }
    assert_eq!(upstream.count(), (1, 0));
    let expected = "No Error; test. 30 SOA test. test. 1 2 3 4 20";
    assert_eq!(show(&fixture.ask(WEB, "www.test.", RecordType::AAAA).await), expected);
    assert_eq!(upstream.count(), (2, 0), "another type is another question");
}

#[tokio::test]
async fn the_absence_of_a_name_is_remembered_with_its_authority() {
    let upstream = Upstream::start(1).await;
    let fixture = with(&[&upstream]);
    for _ in 0..2 {
        let message = fixture.ask(WEB, "nx.test.", RecordType::A).await;
        assert_eq!(show(&message), "Non-Existent Domain; test. 30 SOA test. test. 1 2 3 4 20");
    }
    assert_eq!(upstream.count(), (1, 0));
}

#[tokio::test]
async fn what_must_not_be_kept_is_asked_for_each_time() {
    let upstream = Upstream::start(1).await;
    let fixture = with(&[&upstream]);
    for name in ["zero.test.", "fail.test."] {
        let before = upstream.count().0;
        fixture.ask(WEB, name, RecordType::A).await;
        fixture.ask(WEB, name, RecordType::A).await;
        assert_eq!(upstream.count().0 - before, 2, "{name}");
    }
}

#[tokio::test]
async fn other_resolvers_have_other_answers() {
    let (one, two) = (Upstream::start(1).await, Upstream::start(2).await);
    let fixture = with(&[&one]);
    assert!(show(&fixture.ask(WEB, "www.test.", RecordType::A).await).ends_with("192.0.2.1"));
    fixture.server.set_upstreams(Upstreams::new([two.address]));
    assert!(show(&fixture.ask(WEB, "www.test.", RecordType::A).await).ends_with("192.0.2.2"));
    // The service's own `dns:` counts for its containers only.
    let services = format!("web n +dns={}\ndb n", one.address);
    fixture.table.store(Arc::new(table(&services, "web.1 n=127.9.0.2\ndb.1 n=127.9.0.3")));
    assert!(show(&fixture.ask(WEB, "www.test.", RecordType::A).await).ends_with("192.0.2.1"));
    assert!(show(&fixture.ask(DB, "www.test.", RecordType::A).await).ends_with("192.0.2.2"));
}

#[tokio::test]
async fn a_resolver_that_is_gone_or_fails_is_passed_over() {
    let (gone, good) = (Upstream::start(1).await, Upstream::start(2).await);
    let fixture = with(&[&gone, &good]);
    let begin = Instant::now();
    let gone_address = gone.address;
    drop(gone);
    assert!(show(&fixture.ask(WEB, "www.test.", RecordType::A).await).ends_with("192.0.2.2"));
    assert!(begin.elapsed() < DEADLINE, "{gone_address} refuses at once or costs one attempt");
    let failing = Upstream::start(3).await;
    fixture.server.set_upstreams(Upstreams::new([failing.address, good.address]));
    assert_eq!(show(&fixture.ask(WEB, "fail.test.", RecordType::A).await), "Server Failure");
    assert_eq!((failing.count().0, good.count().0), (1, 2), "each was asked, none twice");
}

#[tokio::test]
async fn a_silent_resolver_costs_its_time_once() {
    let (silent, good) = (UdpSocket::bind("127.0.0.1:0").await.expect("a socket"), Upstream::start(2).await);
    let fixture = Fixture::new();
    let address = silent.local_addr().expect("an address");
    fixture.server.set_upstreams(Upstreams::new([address, good.address]));
    assert!(show(&fixture.ask(WEB, "one.test.", RecordType::A).await).ends_with("192.0.2.2"));
    let begin = Instant::now();
    assert!(show(&fixture.ask(WEB, "two.test.", RecordType::A).await).ends_with("192.0.2.2"));
    assert!(begin.elapsed() < Duration::from_secs(1), "the one that answered is asked first now");
}

#[tokio::test]
async fn without_a_resolver_the_answer_is_a_failure_at_once() {
    let fixture = Fixture::new();
    let begin = Instant::now();
    assert_eq!(show(&fixture.ask(WEB, "www.test.", RecordType::A).await), "Server Failure");
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let upstream = Upstream::start(1).await;
    let fixture = with(&[&upstream]);
    let mut stream = connect(fixture.address(), WEB).await;
    assert_eq!(tcp(&mut stream, &question("big.test.", RecordType::A)).await.answers.len(), 100);
    let short = fixture.ask(WEB, "big.test.", RecordType::A).await;
    assert!(short.metadata.truncation && !short.answers.is_empty());
    assert_eq!(upstream.count(), (1, 1), "the second answer came from the cache");
}

#[tokio::test]
async fn answers_to_other_questions_are_not_believed() {
    let upstream = Upstream::start(1).await;
    let fixture = with(&[&upstream]);
    assert_eq!(show(&fixture.ask(WEB, "forged.test.", RecordType::A).await), "No Error; forged.test. 60 A 192.0.2.1");
}

#[tokio::test]
async fn an_answer_that_the_codec_cannot_read_is_passed_on() {
    let upstream = Upstream::start(1).await;
    let fixture = with(&[&upstream]);
    let packet = question("odd.test.", RecordType::A).to_vec().expect("a message");
    let reply = udp_raw(fixture.address(), WEB, &packet).await;
    assert_eq!(reply[..2], packet[..2], "with the client's id");
    Message::from_vec(&reply).expect_err("this is what the codec cannot read");
}

#[tokio::test]
async fn one_container_cannot_use_up_the_forwarder() {
    let upstream = Upstream::start(1).await;
    let fixture = with(&[&upstream]);
    let flood = UdpSocket::bind((WEB, 0)).await.expect("a socket");
    flood.connect(fixture.address()).await.expect("connected");
    for n in 0..FORWARDS {
        let packet = question(&format!("silent{n}.test."), RecordType::A).to_vec().expect("a message");
        flood.send(&packet).await.expect("sent");
    }
    // It gets failures for what is above its quarter, at once.
    let mut buffer = [0; 512];
    let length = timeout(Duration::from_secs(1), flood.recv(&mut buffer)).await.expect("in time").expect("an answer");
    let message = Message::from_vec(&buffer[..length]).expect("a message");
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert!(show(&fixture.ask(DB, "www.test.", RecordType::A).await).ends_with("192.0.2.1"), "others are served");
}

#[tokio::test(start_paused = true)]
async fn the_cache_counts_time_down_and_is_bounded() {
    use super::super::cache::{Cache, Key};
    use super::super::message::{Parsed, Protocol, parse};

    let cache = Cache::default();
    let resolvers: Arc<[SocketAddr]> = Arc::default();
    let entry = |name: &str| {
        let question = question(name, RecordType::A);
        let Parsed::Request(request) = parse(&question.to_vec().expect("a message"), Protocol::Udp) else {
            panic!("a request");
        };
        (Key::new(&request, &resolvers), reply(&question, name, 1))
    };
    let put = |name: &str| {
        let (key, reply) = entry(name);
        cache.put(key.clone(), &reply.to_vec().expect("a message"), &reply);
        key
    };
    let (www, nx) = (put("www.test."), put("nx.test."));
    tokio::time::advance(Duration::from_secs(19)).await;
    assert_eq!(cache.get(&www).expect("kept").answers[0].ttl, 41);
    assert_eq!(cache.get(&nx).expect("kept").authorities[0].ttl, 11);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(cache.get(&nx).is_none(), "the zone says 20 seconds");
    tokio::time::advance(Duration::from_secs(40)).await;
    assert!(cache.get(&www).is_none());
    for n in 0..5000 {
        put(&format!("n{n}.test."));
    }
    let (answers, bytes) = cache.size();
    assert!(answers == 4096 && bytes <= 4 << 20, "{answers} {bytes}");
    assert!(cache.get(&entry("n4999.test.").0).is_some() && cache.get(&entry("n1.test.").0).is_none());
    for _ in 0..5000 {
        put("same.test.");
    }
    assert!(cache.get(&entry("same.test.").0).is_some());
    cache.clear();
    assert_eq!(cache.size(), (0, 0));
}

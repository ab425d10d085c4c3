//! Packets that are no questions, and clients that misbehave.

use hickory_proto::op::ResponseCode;
use proptest::prelude::*;

use super::super::message::{Parsed, Protocol, parse};
use super::*;

/// Returns the code of the refusal, or what else becomes of a packet.
fn fate(packet: &[u8]) -> String {
    match parse(packet, Protocol::Udp) {
        Parsed::Request(request) => format!("question {:?}", request.name),
        Parsed::Refuse(reply) => {
            assert!(reply.len() <= packet.len(), "a refusal must not be longer than the packet");
            assert_eq!(reply[..2], packet[..2]);
            Message::from_vec(&reply).expect("a message").metadata.response_code.to_string()
        }
        Parsed::Ignore => "ignored".into(),
    }
}

/// A good question with some bytes changed.
fn changed(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut packet = with_edns(question("www.example.", RecordType::A), 1232).to_vec().expect("a message");
    for (at, byte) in changes {
        packet[*at] = *byte;
    }
    packet
}

#[test]
fn what_is_no_question_is_refused_or_ignored() {
    let end = changed(&[]).len();
    let cases = [
        (changed(&[]), "question \"www.example\""),
        (changed(&[])[..11].to_vec(), "ignored"),
        (Vec::new(), "ignored"),
        (changed(&[(2, 0x81)]), "ignored"), // a response: answering it could go on for ever
        (changed(&[(2, 0x28)]), "Not Implemented"), // an update
        (changed(&[(5, 0)]), "Form Error"),
        (changed(&[(5, 2)]), "Form Error"),
        (changed(&[(4, 0xff), (5, 0xff)]), "Form Error"),
        (changed(&[(7, 1)]), "Form Error"),
        (changed(&[(9, 1)]), "Form Error"),
        (changed(&[(11, 9)]), "Form Error"),
        (changed(&[(12, 0xc0), (13, 0x0c)]), "Form Error"), // a name that points to itself
        (changed(&[])[..20].to_vec(), "Form Error"),
        (changed(&[(28, 3)]), "Query Refused"),     // class CH
        (changed(&[(26, 252)]), "Query Refused"),   // AXFR
        (changed(&[(end - 5, 1)]), "TSIG Failure"), // 16 is BADVERS too
        (changed(&[(13, b'.'), (14, 0), (15, 0xff)]), "question \"\\\\\\\\\\\\.example\""),
    ];
    for (packet, expected) in cases {
        assert_eq!(fate(&packet), expected, "{packet:02x?}");
    }
}

proptest! {
    #[test]
    fn no_packet_panics_or_is_amplified(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        fate(&packet);
    }

    #[test]
    fn no_damaged_question_panics_or_is_amplified(
        changes in prop::collection::vec((0_usize..40, any::<u8>()), 1..6),
        cut in 0_usize..41,
    ) {
        let packet = changed(&changes);
        fate(&packet);
        fate(&packet[..cut.min(packet.len())]);
    }

    #[test]
    fn every_answer_fits_its_limit(count in 0_usize..300, payload in any::<u16>(), edns: bool, tcp: bool, long: bool) {
        use crate::net::names::Answer;
        let name = if long { format!("{0}.{0}.{0}.{1}.", "a".repeat(63), "b".repeat(61)) } else { "x.".to_owned() };
        let mut packet = question(&name, RecordType::A);
        if edns {
            packet = with_edns(packet, payload);
        }
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let Parsed::Request(request) = parse(&packet.to_vec().expect("a message"), protocol) else {
            return Err(TestCaseError::fail("a request"));
        };
        let addresses: Vec<Ipv4Addr> = (0..count).map(|n| Ipv4Addr::from_bits(u32::try_from(n).expect("small"))).collect();
        let reply = request.local(&Answer::Addresses { addresses: &addresses, ttl_secs: 1 }, 7);
        let bytes = super::super::message::encode(reply, &request);
        prop_assert!(bytes.len() <= request.limit());
        let message = Message::from_vec(&bytes).expect("a message");
        prop_assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        prop_assert_eq!(message.metadata.truncation, message.answers.len() < count);
        prop_assert_eq!(message.edns.is_some(), edns);
    }
}

#[tokio::test]
async fn the_server_goes_on_after_rubbish() {
    let fixture = Fixture::new();
    let socket = UdpSocket::bind((WEB, 0)).await.expect("a socket");
    socket.connect(fixture.address()).await.expect("connected");
    for length in 0..200 {
        socket.send(&vec![0x55; length]).await.expect("sent");
    }
    socket.send(&vec![0; 60_000]).await.expect("sent");
    assert_eq!(fixture.ask(WEB, "db.", RecordType::A).await.answers.len(), 1);
}

#[tokio::test]
async fn one_container_cannot_use_up_the_connections() {
    let fixture = Fixture::new();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(connect(fixture.address(), WEB).await);
    }
    assert_eq!(tcp(&mut connect(fixture.address(), DB).await, &question("db.", RecordType::A)).await.answers.len(), 1);
    // The last of the many was closed, the first is still served.
    let mut last = streams.pop().expect("one");
    assert_eq!(timeout(DEADLINE, last.read(&mut [0; 1])).await.expect("in time").unwrap_or(0), 0);
    assert_eq!(tcp(&mut streams[0], &question("db.", RecordType::A)).await.answers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_dropped() {
    let fixture = Fixture::new();
    let mut stream = connect(fixture.address(), WEB).await;
    stream.write_all(&[0, 40, 1]).await.expect("sent");
    assert_eq!(timeout(Duration::from_mins(1), stream.read(&mut [0; 1])).await.expect("in time").unwrap_or(0), 0);
}

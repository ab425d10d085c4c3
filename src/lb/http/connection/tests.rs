//! However the bytes of a request arrive, it is understood alike.

use proptest::prelude::*;

use super::*;
use crate::lb::http::transfer::Following;
use crate::lb::tests::tries;

/// What comes of a head, and how far the body goes that follows it.
fn text(bytes: &[u8]) -> Option<String> {
    match head::read(bytes, &mut head::room()) {
        Begins::Partial => None,
        Begins::Head(head) => {
            let (length, body) = (head.length, head.body);
            let fields: Vec<_> =
                head.fields().map(|(kind, field)| format!("{kind:?} {} {:?}", field.name, field.value)).collect();
            let RequestHead { method, target, keep_alive, is_simple, is_upgrade, .. } = head;
            Some(format!("{method} {target} {length} {body:?} {keep_alive} {is_simple} {is_upgrade} {fields:?}"))
        }
        other => Some(format!("{other:?}")),
    }
}

/// Reads pieces as [`Connection::read_head`] does; returns what was found, and after how many bytes.
fn read_in(pieces: &[&[u8]]) -> (Option<String>, usize) {
    let (mut unread, mut looked) = (Vec::new(), 0);
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        unread.extend_from_slice(piece);
        if looked == 0 || may_end(&unread, looked) {
            let found = text(&unread);
            if found.is_some() {
                return (found, unread.len());
            }
        }
        looked = unread.len();
    }
    // At the end it is looked at once more.
    (text(&unread), unread.len())
}

/// Lines that heads are made of, good and bad.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "Host: a.test",
        "host: b",
        "Content-Length: 3",
        "Content-Length: 03",
        "Content-Length: +3",
        "Transfer-Encoding: chunked",
        "transfer-encoding: CHUNKED",
        "Transfer-Encoding: gzip",
        "Connection: close",
        "Connection: x-own, keep-alive",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "X-Forwarded-For: 1.1.1.1",
        "X-Request-Id: abc",
        "A: b",
        "A : b",
        " folded",
        "no colon",
        ": no name",
        "A: \0",
        "A: b\rc",
        "A: b\nB: c",
        "",
    ];
    prop_oneof![
        8 => proptest::sample::select(known.to_vec()).prop_map(|line| line.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ]
}

fn start() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "GET / HTTP/1.1",
        "GET /a?b HTTP/1.1",
        "POST /a HTTP/1.1",
        "HEAD / HTTP/1.0",
        "GET http://a.test/ HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT a:1 HTTP/1.1",
        "GET / HTTP/2.0",
        "GET  / HTTP/1.1",
        "GET /",
        "PRI * HTTP/2.0",
        "",
    ])
}

fn ends() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\n"])
}

proptest! {
    #![proptest_config(tries(3000))]

    #[test]
    fn a_head_is_understood_alike_in_any_pieces(
        start in start(),
        lines in proptest::collection::vec((line(), ends()), 0..8),
        cuts in proptest::collection::vec(0_usize..400, 0..12),
        rest in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = format!("{start}\r\n").into_bytes();
        for (line, end) in &lines {
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(end.as_bytes());
        }
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(&rest);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let singles: Vec<&[u8]> = bytes.chunks(1).collect();
        let (whole, _) = read_in(&[&bytes]);
        prop_assert_eq!(&read_in(&pieces).0, &whole);
        prop_assert_eq!(&read_in(&singles).0, &whole);
    }

    #[test]
    fn a_body_ends_at_the_same_byte_in_any_pieces(
        body in prop_oneof![Just(Body::None), (1_u64..50).prop_map(Body::Length), Just(Body::Chunked), Just(Body::UntilClose)],
        bytes in proptest::collection::vec(prop_oneof![
            Just(b"\r\n".to_vec()), Just(b"0\r\n\r\n".to_vec()), Just(b"3\r\nabc\r\n".to_vec()), Just(b"1;x\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ], 0..12),
        size in 1_usize..9,
    ) {
        let bytes = bytes.concat();
        let follow = |size: usize| {
            let (mut following, mut used) = (Following::new(body), 0);
            for piece in bytes.chunks(size) {
                match following.follow(piece) {
                    Ok(within) => used += within,
                    Err(_) => return None,
                }
                if following.is_done() {
                    break;
                }
            }
            Some((used, following.is_done()))
        };
        prop_assert_eq!(follow(size), follow(bytes.len().max(1)));
    }
}

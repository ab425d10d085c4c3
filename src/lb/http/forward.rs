//! What a pod is told of the client: `X-Forwarded-*`, `X-Request-Id`, and the head of the request as it goes on. Pure.
//!
//! | field | from outside | from a container of the same network |
//! |---|---|---|
//! | `X-Forwarded-For` | the client's address after what is there | the same |
//! | `X-Forwarded-Proto`, `-Host`, `-Port` | what is so, whatever the client wrote | kept if there, else what is so |
//! | `X-Request-Id` | kept if it is a plain word, else made | the same |
//! | `Forwarded` | left alone | left alone |
//!
//! So only the last address of `X-Forwarded-For` is our word, and whoever is inside may be a proxy that knows better.

use std::hash::{BuildHasher, RandomState};

use super::answer::{push_field, push_number};
use super::head::{Kind, RequestHead};
use super::lines::Lines;
use crate::lb::pick::mix;

/// What is known of a client's connection.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Its address as text.
    pub(super) address: String,
    /// Whether it spoke TLS.
    pub(super) is_tls: bool,
    /// The port that it asked at.
    pub(super) port: u16,
    /// Whether it is a container that came by a virtual address.
    pub(super) is_inside: bool,
}

impl Client {
    /// Returns the scheme that it came by.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

/// Returns 128 bits as hexadecimal digits, different each time.
pub(super) fn request_id() -> [u8; 32] {
    use std::cell::Cell;
    thread_local!(static STATE: Cell<[u64; 2]> = {
        let random = || RandomState::new().hash_one(0);
        Cell::new([random(), random()])
    });
    let [high, low] = STATE.get();
    STATE.set([high.wrapping_add(1), low.wrapping_add(0x9E37_79B9_7F4A_7C15)]);
    let mut id = [0; 32];
    let bytes = [mix(high), mix(low)].map(u64::to_le_bytes);
    for (digits, byte) in id.as_chunks_mut::<2>().0.iter_mut().zip(bytes.as_flattened()) {
        *digits = [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
    }
    id
}

/// How a request goes on to a pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Onward<'a> {
    /// Path and query.
    pub(super) target: &'a str,
    /// Value of `Host`; `None`: as it is.
    pub(super) host: Option<&'a str>,
    /// A request id, where the client gave none.
    pub(super) id: Option<&'a [u8]>,
}

/// Writes the head of a simple request for a pod.
pub(super) fn write(head: &RequestHead<'_, '_>, client: &Client, onward: Onward<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(onward.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let (mut has_for, mut has_proto, mut has_host, mut has_port) = (false, false, false, false);
    let mut lines = Lines::of(head.bytes);
    for (kind, field) in head.fields() {
        let stays = match kind {
            Kind::Other => true,
            Kind::Hop | Kind::RequestId => false,
            Kind::Host => {
                if let Some(host) = onward.host {
                    lines.push(out, "Host", host.as_bytes());
                }
                onward.host.is_none()
            }
            Kind::ForwardedFor => {
                has_for = true;
                lines.flush(out);
                out.extend_from_slice(b"X-Forwarded-For: ");
                if !field.value.is_empty() {
                    out.extend_from_slice(field.value);
                    out.extend_from_slice(b", ");
                }
                out.extend_from_slice(client.address.as_bytes());
                out.extend_from_slice(b"\r\n");
                false
            }
            Kind::ForwardedProto => once(&mut has_proto, client.is_inside),
            Kind::ForwardedHost => once(&mut has_host, client.is_inside),
            Kind::ForwardedPort => once(&mut has_port, client.is_inside),
        };
        if stays {
            lines.push(out, field.name, field.value);
        }
    }
    lines.flush(out);
    if !has_for {
        push_field(out, "X-Forwarded-For", client.address.as_bytes());
    }
    if !has_proto {
        push_field(out, "X-Forwarded-Proto", client.scheme().as_bytes());
    }
    if !has_host && !head.host.is_empty() {
        push_field(out, "X-Forwarded-Host", head.host);
    }
    if !has_port {
        out.extend_from_slice(b"X-Forwarded-Port: ");
        push_number(out, client.port.into());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(id) = onward.id {
        push_field(out, "X-Request-Id", id);
    }
    out.extend_from_slice(b"\r\n");
}

/// Returns whether a field stays that may be there once, and notes that it is.
fn once(seen: &mut bool, is_kept: bool) -> bool {
    is_kept && !std::mem::replace(seen, true)
}

#[cfg(test)]
mod tests {
    use super::super::head::{self, Begins, room};
    use super::*;
    use proptest::prelude::*;

    const OUTSIDE: (bool, &str) = (false, "192.0.2.7");
    const INSIDE: (bool, &str) = (true, "10.192.0.5");

    fn client((is_inside, address): (bool, &str)) -> Client {
        Client { address: address.to_owned(), is_tls: !is_inside, port: 8443, is_inside }
    }

    /// What a pod gets, line by line, with the request id that was made as `ID`.
    fn sent(request: &str, from: (bool, &str), host: Option<&str>) -> String {
        let mut out = Vec::new();
        let mut room = room();
        let Begins::Head(head) = head::read(request.as_bytes(), &mut room) else { panic!("{request}: not served") };
        let made = request_id();
        let onward = Onward { target: head.target, host, id: head.request_id.is_empty().then_some(&made) };
        write(&head, &client(from), onward, &mut out);
        let text = String::from_utf8(out).expect("text");
        let lines = text.strip_suffix("\r\n\r\n").expect("an end").split("\r\n");
        let is_made = |id: &str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let line = |line: &str| match line.strip_prefix("X-Request-Id: ") {
            Some(id) if is_made(id) => "X-Request-Id: ID".to_owned(),
            _ => line.to_owned(),
        };
        lines.map(line).collect::<Vec<_>>().join("|")
    }

    #[track_caller]
    fn check(fields: &str, from: (bool, &str), expected: &str) {
        let request = format!("GET /a?b HTTP/1.1|Host: x.test|{fields}|").replace("||", "|").replace('|', "\r\n");
        let request = format!("{}\r\n\r\n", request.trim_end());
        assert_eq!(sent(&request, from, None), format!("GET /a?b HTTP/1.1|Host: x.test|{expected}"), "{fields}");
    }

    #[test]
    fn a_client_outside_is_not_believed() {
        let told = "X-Forwarded-For: 192.0.2.7|X-Forwarded-Proto: https|X-Forwarded-Host: x.test|X-Forwarded-Port: 8443|X-Request-Id: ID";
        check("A: b", OUTSIDE, &format!("A: b|{told}"));
        check("X-Forwarded-Proto: http|x-forwarded-host: evil|X-FORWARDED-PORT: 1", OUTSIDE, told);
        check(
            "x-forwarded-for: 1.2.3.4, 5.6.7.8|Forwarded: for=1.2.3.4",
            OUTSIDE,
            "X-Forwarded-For: 1.2.3.4, 5.6.7.8, 192.0.2.7|Forwarded: for=1.2.3.4|X-Forwarded-Proto: https|X-Forwarded-Host: x.test|X-Forwarded-Port: 8443|X-Request-Id: ID",
        );
    }

    #[test]
    fn a_proxy_inside_may_know_better() {
        check(
            "X-Forwarded-Proto: https|X-Forwarded-Host: shop.test|X-Forwarded-Port: 443|X-Forwarded-For: 192.0.2.7",
            INSIDE,
            "X-Forwarded-Proto: https|X-Forwarded-Host: shop.test|X-Forwarded-Port: 443|X-Forwarded-For: 192.0.2.7, 10.192.0.5|X-Request-Id: ID",
        );
        check(
            "X-Forwarded-Proto: https|X-Forwarded-Proto: http",
            INSIDE,
            "X-Forwarded-Proto: https|X-Forwarded-For: 10.192.0.5|X-Forwarded-Host: x.test|X-Forwarded-Port: 8443|X-Request-Id: ID",
        );
    }

    #[test]
    fn a_request_id_is_kept_if_it_is_a_word() {
        let told =
            "X-Forwarded-For: 192.0.2.7|X-Forwarded-Proto: https|X-Forwarded-Host: x.test|X-Forwarded-Port: 8443";
        check("X-Request-Id: a-1_b.c:2", OUTSIDE, &format!("X-Request-Id: a-1_b.c:2|{told}"));
        for bad in ["two words", "a\"b", "", &"x".repeat(129)] {
            check(&format!("X-Request-Id: {bad}"), OUTSIDE, &format!("{told}|X-Request-Id: ID"));
        }
        assert_ne!(request_id(), request_id());
    }

    #[test]
    fn what_is_for_one_connection_ends_here() {
        check(
            "Connection: keep-alive|Keep-Alive: 5|Proxy-Connection: x|TE: trailers|Proxy-Authorization: y|A: b",
            OUTSIDE,
            "A: b|X-Forwarded-For: 192.0.2.7|X-Forwarded-Proto: https|X-Forwarded-Host: x.test|X-Forwarded-Port: 8443|X-Request-Id: ID",
        );
    }

    #[test]
    fn a_rule_may_name_another_host() {
        let request = "GET / HTTP/1.1\r\nhost: x.test\r\nX-Request-Id: 1\r\n\r\n";
        assert_eq!(
            sent(request, OUTSIDE, Some("internal")),
            "GET / HTTP/1.1|Host: internal|X-Request-Id: 1|X-Forwarded-For: 192.0.2.7|X-Forwarded-Proto: https|X-Forwarded-Host: x.test|X-Forwarded-Port: 8443"
        );
    }

    proptest! {
        #[test]
        fn what_goes_on_is_a_request_that_reads_the_same(
            lines in proptest::collection::vec(prop_oneof![
                Just("Content-Length: 3".to_owned()), Just("X-Forwarded-For: 1.1.1.1".to_owned()),
                Just("Connection: close".to_owned()), Just("X-Request-Id: 9".to_owned()),
                "[A-Za-z-]{1,12}: [ -~]{0,20}",
            ], 0..10),
            inside: bool,
        ) {
            let request = format!("POST /x HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", lines.join("\r\n"));
            let mut first_room = room();
            if let Begins::Head(head) = head::read(request.as_bytes(), &mut first_room) {
                prop_assume!(head.is_simple);
                let mut out = Vec::new();
                write(&head, &client((inside, "192.0.2.7")), Onward { target: head.target, host: None, id: None }, &mut out);
                let mut second_room = room();
                let Begins::Head(second) = head::read(&out, &mut second_room) else {
                    return Err(TestCaseError::fail(format!("{}", out.escape_ascii())));
                };
                prop_assert_eq!(second.length, out.len());
                prop_assert_eq!((head.method, head.target, head.host, head.body), (second.method, second.target, second.host, second.body));
            }
        }
    }
}

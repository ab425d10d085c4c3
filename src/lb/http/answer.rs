//! Heads of answers over HTTP/1 from pods: read, checked, and written anew for the client. Pure.
//!
//! Where the end of an answer can be read in more than one way the client gets an error instead. Source: RFC 9112,
//! section 6.3.

use super::head::{Body, MAX_HEAD, Room, is_framing, number};
use super::lines::Lines;
use crate::lb::Trouble;

/// What the bytes of a pod begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// A part of a head.
    Partial,
    /// What cannot be passed on.
    Wrong(Fault),
    /// A whole head, written to the client's buffer.
    Head(AnswerHead),
}

/// Why an answer is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its head is longer than [`MAX_HEAD`], or has more than [`MAX_FIELDS`](super::head::MAX_FIELDS).
    Large,
    /// Its head says in more than one way where it ends, or in none that is known here, or changes the protocol unasked.
    Unclear,
    /// It is none of the protocol that was asked in.
    NoHttp,
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Large => Self::LargeHead,
            Fault::Unclear => Self::UnclearHead,
            Fault::NoHttp => Self::NoHttp,
        }
    }
}

/// A head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnswerHead {
    /// Bytes of it, as the pod wrote it.
    pub(super) length: usize,
    /// Status.
    pub(super) status: u16,
    /// Body.
    pub(super) body: Body,
    /// Whether the pod takes another request on its connection.
    pub(super) keep_alive: bool,
}

/// How the answer goes on to the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Towards<'a> {
    /// Whether it is to a HEAD request: then there is no body whatever it says.
    pub(super) is_head: bool,
    /// Whether another request may follow on the client's connection.
    pub(super) keep_alive: bool,
    /// A cookie that the client gets with it, as `Set-Cookie` says it.
    pub(super) cookie: Option<&'a str>,
}

/// Reads what `bytes` begin with, and writes its head for the client to `out`.
pub(super) fn read<'b>(bytes: &'b [u8], room: &mut Room<'b>, towards: Towards<'_>, out: &mut Vec<u8>) -> Answers {
    let mut answer = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    // As the general path does.
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    let length = match parser.parse_response_with_uninit_headers(&mut answer, bytes, room) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Answers::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Answers::Wrong(Fault::Large),
        Err(_) => return Answers::Wrong(Fault::NoHttp),
    };
    let facts = match Facts::of(&answer, towards) {
        Ok(facts) => facts,
        Err(fault) => return Answers::Wrong(fault),
    };
    // Nobody asked for another protocol on this path.
    if facts.status == 101 {
        return Answers::Wrong(Fault::Unclear);
    }
    write(&answer, &bytes[..length], &facts, towards, out);
    let Facts { status, body, keep_alive, .. } = facts;
    Answers::Head(AnswerHead { length, status, body, keep_alive })
}

struct Facts {
    status: u16,
    body: Body,
    keep_alive: bool,
    has_coding: bool,
    /// Whether its status says that it has no body, so that it must not say where that would end.
    is_bare: bool,
    /// Whether `Connection` names fields that end here too.
    has_options: bool,
}

impl Facts {
    /// Returns what an answer says.
    ///
    /// # Errors
    /// It contradicts itself, or its status is none.
    fn of(answer: &httparse::Response<'_, '_>, towards: Towards<'_>) -> Result<Self, Fault> {
        let status = answer.code.filter(|status| (100..=999).contains(status)).ok_or(Fault::NoHttp)?;
        let is_http_11 = answer.version == Some(1);
        let (mut length, mut coding, mut close, mut keep_alive, mut has_options) = (None, false, false, false, false);
        for field in &*answer.headers {
            if field.name.eq_ignore_ascii_case("content-length") {
                let one = number(field.value).ok_or(Fault::Unclear)?;
                if length.is_some_and(|other| other != one) {
                    return Err(Fault::Unclear);
                }
                length = Some(one);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                if coding || !is_http_11 || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Unclear);
                }
                coding = true;
            } else if field.name.eq_ignore_ascii_case("connection") {
                for option in options(field.value) {
                    match option {
                        _ if option.eq_ignore_ascii_case(b"close") => close = true,
                        _ if option.eq_ignore_ascii_case(b"keep-alive") => keep_alive = true,
                        _ => has_options = true,
                    }
                }
            }
        }
        let is_bare = is_bare(status);
        let body = if is_bare || status == 304 || towards.is_head {
            Body::None
        } else if coding {
            Body::Chunked
        } else {
            match length {
                Some(0) => Body::None,
                Some(length) => Body::Length(length),
                None => Body::UntilClose,
            }
        };
        // One that says both is believed in its coding, and not used again: what follows may be something else. So is one that
        // says that it has a body which it cannot have.
        let is_odd = (coding && length.is_some()) || (is_bare && (coding || length.is_some_and(|length| length > 0)));
        let keep_alive = !close && (is_http_11 || keep_alive) && !is_odd;
        Ok(Self { status, body, keep_alive, has_coding: coding, is_bare, has_options })
    }
}

/// Returns whether an answer with this status has no body whatever was asked, and must not have a length. Clients that believe
/// one wait for it. Source: RFC 9110, section 8.6; RFC 9112, section 6.1.
pub(super) fn is_bare(status: u16) -> bool {
    (100..200).contains(&status) || status == 204
}

/// The options of a `Connection` field.
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

fn write(answer: &httparse::Response<'_, '_>, head: &[u8], facts: &Facts, towards: Towards<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(out, facts.status.into());
    out.push(b' ');
    out.extend_from_slice(answer.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_length = false;
    let mut lines = Lines::of(head);
    for field in &*answer.headers {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let ends_here = match field.name.len() {
            7 => is("upgrade"),
            10 => is("connection") || is("keep-alive"),
            // The same number twice is written once.
            14 => {
                is("content-length") && (facts.has_coding || facts.is_bare || std::mem::replace(&mut has_length, true))
            }
            16 => is("proxy-connection"),
            17 => facts.is_bare && is("transfer-encoding"),
            _ => false,
        };
        if ends_here || (facts.has_options && is_named(answer, field.name)) {
            continue;
        }
        match unfolded(field.value) {
            None => lines.push(out, field.name, field.value),
            Some(value) => lines.push(out, field.name, &value),
        }
    }
    lines.flush(out);
    if let Some(cookie) = towards.cookie.filter(|_| facts.status >= 200) {
        push_field(out, "Set-Cookie", cookie.as_bytes());
    }
    if facts.status >= 200 && (!towards.keep_alive || facts.body == Body::UntilClose) {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Puts a value that was folded over several lines on one; `None`: it was not. Source: RFC 9112, section 5.2.
fn unfolded(value: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr2(b'\r', b'\n', value)?;
    let lines = value.split(|byte| matches!(byte, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
    Some(lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(&b' '))
}

/// Returns whether a field is for the connection to the pod only. What says where the answer ends never is, whatever
/// `Connection` names: the client would take the next answer for a part of this one.
fn is_named(answer: &httparse::Response<'_, '_>, name: &str) -> bool {
    if is_framing(name.as_bytes()) {
        return false;
    }
    let connection = answer.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("connection"));
    connection.flat_map(|field| options(field.value)).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
}

/// Appends a header field.
pub(super) fn push_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
pub(super) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::super::head::room;
    use super::*;
    use proptest::prelude::*;

    const GET: Towards<'_> = Towards { is_head: false, keep_alive: true, cookie: None };

    /// What an answer is, then what the client gets of its head, line by line.
    fn text(answer: &str, towards: Towards<'_>) -> String {
        let mut out = Vec::new();
        match read(answer.as_bytes(), &mut room(), towards, &mut out) {
            Answers::Head(head) => {
                let out = String::from_utf8(out).expect("text");
                assert_eq!(&answer[head.length - 4..head.length], "\r\n\r\n");
                let kept = if head.keep_alive { "kept" } else { "closed" };
                format!("{} {:?} {kept} | {}", head.status, head.body, out.trim_end().replace("\r\n", " | "))
            }
            other => format!("{other:?}"),
        }
    }

    #[track_caller]
    fn check(answer: &str, expected: &str) {
        assert_eq!(text(&answer.replace('|', "\r\n"), GET), expected, "{answer}");
    }

    #[test]
    fn the_end_of_an_answer_is_known() {
        check("HTTP/1.1 200 OK|Content-Length: 5||", "200 Length(5) kept | HTTP/1.1 200 OK | Content-Length: 5");
        check("HTTP/1.1 200 OK|Content-Length: 0||", "200 None kept | HTTP/1.1 200 OK | Content-Length: 0");
        check(
            "HTTP/1.1 200 OK|transfer-encoding: Chunked||",
            "200 Chunked kept | HTTP/1.1 200 OK | transfer-encoding: Chunked",
        );
        check("HTTP/1.1 200 OK||", "200 UntilClose kept | HTTP/1.1 200 OK | Connection: close");
        check("HTTP/1.0 200 OK|Content-Length: 5||", "200 Length(5) closed | HTTP/1.1 200 OK | Content-Length: 5");
        check(
            "HTTP/1.0 200 OK|Connection: keep-alive|Content-Length: 5||",
            "200 Length(5) kept | HTTP/1.1 200 OK | Content-Length: 5",
        );
        check("HTTP/1.1 204 No Content||", "204 None kept | HTTP/1.1 204 No Content");
        check("HTTP/1.1 204 No Content|Content-Length: 0|A: b||", "204 None kept | HTTP/1.1 204 No Content | A: b");
        check("HTTP/1.1 204 No Content|Content-Length: 5||", "204 None closed | HTTP/1.1 204 No Content");
        check("HTTP/1.1 204 No Content|Transfer-Encoding: chunked||", "204 None closed | HTTP/1.1 204 No Content");
        check("HTTP/1.1 103 Early Hints|Content-Length: 0|A: b||", "103 None kept | HTTP/1.1 103 Early Hints | A: b");
        check(
            "HTTP/1.1 304 Not Modified|Content-Length: 9||",
            "304 None kept | HTTP/1.1 304 Not Modified | Content-Length: 9",
        );
        check("HTTP/1.1 100 Continue||", "100 None kept | HTTP/1.1 100 Continue");
        check("HTTP/1.1 200||", "200 UntilClose kept | HTTP/1.1 200  | Connection: close");
    }

    #[test]
    fn to_a_head_request_there_is_no_body() {
        let towards = Towards { is_head: true, keep_alive: true, cookie: None };
        assert_eq!(
            text("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", towards),
            "200 None kept | HTTP/1.1 200 OK | Content-Length: 9"
        );
    }

    #[test]
    fn what_is_for_one_connection_ends_here() {
        check(
            "HTTP/1.1 200 OK|Connection: close, x-own|Keep-Alive: timeout=5|X-Own: 1|Proxy-Connection: x|A: b|Content-Length: 1||",
            "200 Length(1) closed | HTTP/1.1 200 OK | A: b | Content-Length: 1",
        );
        check(
            "HTTP/1.1 200 OK|Connection: content-length, a|Content-Length: 2|A: b||",
            "200 Length(2) kept | HTTP/1.1 200 OK | Content-Length: 2",
        );
        check(
            "HTTP/1.1 200 OK|Connection: Transfer-Encoding|Transfer-Encoding: chunked||",
            "200 Chunked kept | HTTP/1.1 200 OK | Transfer-Encoding: chunked",
        );
        check("HTTP/1.1 204 No|A: b|  c|\td||", "204 None kept | HTTP/1.1 204 No | A: b c d");
        let towards = Towards { keep_alive: false, ..GET };
        assert_eq!(
            text("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", towards),
            "200 Length(1) kept | HTTP/1.1 200 OK | Content-Length: 1 | Connection: close"
        );
    }

    #[test]
    fn what_contradicts_itself_is_not_passed_on() {
        for answer in ["HTTP/1.1 099 OK||", "HTTP/2 200 OK||", "HTTP/1.1 200 OK|A b: c||", "hello||"] {
            check(answer, "Wrong(NoHttp)");
        }
        let fields = |count: usize| "A: b|".repeat(count);
        check(&format!("HTTP/1.1 200 OK|{}|", fields(101)), "Wrong(Large)");
        check(&format!("HTTP/1.1 200 OK|{}A: {}||", fields(2), "x".repeat(MAX_HEAD)), "Wrong(Large)");
        for answer in [
            "HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 6||",
            "HTTP/1.1 200 OK|Content-Length: +5||",
            "HTTP/1.1 200 OK|Content-Length: 5, 5||",
            "HTTP/1.1 200 OK|Content-Length:||",
            "HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked||",
            "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Transfer-Encoding: chunked||",
            "HTTP/1.0 200 OK|Transfer-Encoding: chunked||",
            "HTTP/1.1 101 Switching Protocols|Upgrade: x||",
        ] {
            check(answer, "Wrong(Unclear)");
        }
        check(
            "HTTP/1.1 200 OK|Content-Length: 5|Transfer-Encoding: chunked||",
            "200 Chunked closed | HTTP/1.1 200 OK | Transfer-Encoding: chunked",
        );
        check(
            "HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 5||",
            "200 Length(5) kept | HTTP/1.1 200 OK | Content-Length: 5",
        );
    }

    #[test]
    fn a_part_is_not_a_head() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(text(&whole[..cut], GET), "Partial", "{cut}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
        assert_eq!(text(&endless, GET), "Wrong(Large)");
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 65_535, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out).expect("digits"), number.to_string());
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_written_reads_the_same(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b"\r\n".to_vec()), Just(b"Content-Length: 3".to_vec()), Just(b"Connection: a".to_vec()),
                Just(b"Transfer-Encoding: chunked".to_vec()), Just(b"A: b".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..4),
            ], 0..12),
        ) {
            let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
            answer.extend(bytes.concat());
            let mut out = Vec::new();
            if let Answers::Head(head) = read(&answer, &mut room(), GET, &mut out) {
                let mut again = Vec::new();
                let Answers::Head(second) = read(&out, &mut room(), GET, &mut again) else {
                    return Err(TestCaseError::fail(format!("{}", out.escape_ascii())));
                };
                prop_assert_eq!((head.status, head.body), (second.status, second.body));
            }
        }

        #[test]
        fn however_it_arrives_it_is_the_same(
            lines in proptest::collection::vec(prop_oneof![
                Just("Content-Length: 3"), Just("Connection: a, close"), Just("Transfer-Encoding: chunked"), Just("A: b"),
                Just("A: b\r\n c"), Just("A : b"), Just("nonsense"), Just("A:\tb\u{e9}"), Just(""), Just("\n"),
            ], 0..8),
            start in prop_oneof![Just("HTTP/1.1 200 OK"), Just("HTTP/1.0 204"), Just("HTTP/1.1 100 Go"), Just("no")],
        ) {
            let mut answer = format!("{start}\r\n{}\r\n\r\n", lines.join("\r\n")).into_bytes();
            answer.extend_from_slice(b"abc");
            let mut whole = Vec::new();
            let expected = read(&answer, &mut room(), GET, &mut whole);
            // All that is read before the end is a part of it, or what is wrong already.
            for end in 1..=answer.len() {
                let mut out = Vec::new();
                let found = read(&answer[..end], &mut room(), GET, &mut out);
                if found != Answers::Partial {
                    prop_assert_eq!((&found, &out), (&expected, &whole), "{} bytes", end);
                }
            }
        }
    }
}

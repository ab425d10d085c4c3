use super::*;
use proptest::prelude::*;

/// What a head is, as text: path, body, whether the connection is kept, and what the fast path leaves to the general one.
fn text(bytes: &[u8]) -> String {
    match read(bytes, &mut room()) {
        Begins::Head(head) => {
            let kept = if head.keep_alive { "kept" } else { "closed" };
            let by = match (head.is_simple, head.is_upgrade) {
                (true, _) => "simple",
                (false, true) => "upgrade",
                (false, false) => "general",
            };
            format!("{} {} {:?} {kept} {by}", head.method, head.target, head.body)
        }
        Begins::Wrong(wrong) => format!("{wrong:?}"),
        Begins::Partial => "Partial".to_owned(),
        Begins::Http2 => "Http2".to_owned(),
    }
}

/// `|` is a line end.
#[track_caller]
fn check(head: &str, expected: &str) {
    assert_eq!(text(head.replace('|', "\r\n").as_bytes()), expected, "{head}");
}

#[test]
fn plain_requests_are_simple() {
    check("GET / HTTP/1.1|Host: a||", "GET / None kept simple");
    check("GET /a?b=c HTTP/1.1|host:a|Connection: close||", "GET /a?b=c None closed simple");
    check("POST / HTTP/1.1|Host: a:80|Content-Length: 5||hello", "POST / Length(5) kept simple");
    check("POST / HTTP/1.1|Host: a|Content-Length: 0||", "POST / None kept simple");
    check("HEAD / HTTP/1.1|Host: a|Connection: Keep-Alive|X-Forwarded-For: b||", "HEAD / None kept simple");
    check("PURGE / HTTP/1.1|Host:||", "PURGE / None kept simple");
    check("||GET / HTTP/1.1|Host: a||", "GET / None kept simple");
}

#[test]
fn what_needs_more_goes_the_general_way() {
    check("GET / HTTP/1.0||", "GET / None closed general");
    check("GET / HTTP/1.0|Connection: keep-alive||", "GET / None kept general");
    check("GET http://a/x HTTP/1.1|Host: a||", "GET http://a/x None kept general");
    check("GET http://[::1]:80?x HTTP/1.0||", "GET http://[::1]:80?x None closed general");
    check("OPTIONS * HTTP/1.1|Host: a||", "OPTIONS * None kept general");
    check("POST / HTTP/1.1|Host: a|Transfer-Encoding: Chunked||", "POST / Chunked kept general");
    check("POST / HTTP/1.1|Host: a|Content-Length: 65536||", "POST / Length(65536) kept simple");
    check("POST / HTTP/1.1|Host: a|Content-Length: 65537||", "POST / Length(65537) kept general");
    check("POST / HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 1||", "POST / Length(1) kept general");
    check("GET / HTTP/1.1|Host: a|Upgrade: websocket|Connection: Upgrade||", "GET / None kept upgrade");
    check("GET / HTTP/1.1|Host: a|Connection: x-own||", "GET / None kept general");
    check("GET / HTTP/1.1|Host: a|Trailer: x||", "GET / None kept general");
    check("GET / HTTP/1.1|Host: a|X-Forwarded-For: b|X-Forwarded-For: c||", "GET / None kept general");
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for head in [
        "GET / HTTP/1.1||",
        "GET / HTTP/1.1|Host: a|Host: a||",
        "GET / HTTP/1.1|Host: a|Connection: close, Content-Length||",
        "POST / HTTP/1.1|Host: a|Connection: transfer-encoding|Transfer-Encoding: chunked||",
        "GET / HTTP/1.1|Host: a b||",
        "GET / HTTP/1.1|Host: a,b||",
        "GET / HTTP/1.1|Host: a@b||",
        "GET / HTTP/1.1|Host: a/b||",
        "GET / HTTP/1.1|Host: a:b||",
        "GET / HTTP/1.1|Host: :80||",
        "GET / HTTP/1.1|Host: a:123456||",
        "GET / HTTP/1.1|Host: [::1||",
        "GET / HTTP/1.1|Host: [x]||",
        "GET / HTTP/1.1|Host : a||",
        "GET / HTTP/1.1|Host: a| folded||",
        "GET / HTTP/1.1| Host: a||",
        "POST / HTTP/1.1|Host: a|Content-Length: 5|Content-Length: 5||",
        "POST / HTTP/1.1|Host: a|Content-Length: 5|Content-Length: 6||",
        "POST / HTTP/1.1|Host: a|Content-Length: 5, 5||",
        "POST / HTTP/1.1|Host: a|Content-Length: +5||",
        "POST / HTTP/1.1|Host: a|Content-Length: -5||",
        "POST / HTTP/1.1|Host: a|Content-Length: 0x5||",
        "POST / HTTP/1.1|Host: a|Content-Length:||",
        "POST / HTTP/1.1|Host: a|Content-Length: 99999999999999999999||",
        "POST / HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding: chunked||",
        "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Content-Length: 5||",
        "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Transfer-Encoding: chunked||",
        "POST / HTTP/1.0|Transfer-Encoding: chunked||",
        "GET /a b HTTP/1.1|Host: a||",
        "GET HTTP/1.1|Host: a||",
        "GET x HTTP/1.1|Host: a||",
        "GET * HTTP/1.1|Host: a||",
        "GET ftp://a/ HTTP/1.1|Host: a||",
        "GET http:///abs HTTP/1.1|Host:||",
        "GET http:///abs HTTP/1.0||",
        "GET http://?a HTTP/1.1|Host:||",
        "GET http://A/ HTTP/1.1|Host: a||",
        "GET http://a:b/ HTTP/1.0||",
        "GET http://a@b/ HTTP/1.0||",
        "GET http://a%2fb/ HTTP/1.1|Host: a%2fb||",
        "GET http://a\\b/ HTTP/1.0||",
        "GET http://:80/ HTTP/1.0||",
        "G\u{0}T / HTTP/1.1|Host: a||",
        "GET /\u{1} HTTP/1.1|Host: a||",
        "GET / HTTP/1.1|Host: a|X: a\u{0}b||",
        "GET / HTTP/1.1|Host: a|X(: b||",
        "GET / HTTP/1.1|Host: a|: b||",
        "\u{16}\u{3}\u{1}||",
    ] {
        check(head, "Malformed");
    }
    for lines in
        ["GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"]
    {
        check(lines, "Malformed");
    }
    check("GET / HTTP/1.1|Host: a|X: a\rb||", "Malformed");
}

#[test]
fn other_refusals_have_their_own_reasons() {
    check("CONNECT a:443 HTTP/1.1|Host: a||", "Method");
    check("POST / HTTP/1.1|Host: a|Transfer-Encoding: xchunked||", "Coding");
    check("POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip, chunked||", "Coding");
    check("GET / HTTP/1.2|Host: a||", "Version");
    check("GET / HTTP/2.0|Host: a||", "Version");
}

#[test]
fn sizes_are_bounded() {
    let long = |count| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(count));
    assert_eq!(text(long(60_000).as_bytes()), "GET / None kept simple");
    assert_eq!(text(long(MAX_HEAD).as_bytes()), "Large");
    assert_eq!(text(&long(MAX_HEAD).as_bytes()[..MAX_HEAD]), "Large");
    assert_eq!(text(&long(MAX_HEAD).as_bytes()[..MAX_HEAD - 1]), "Partial");
    let line = format!("GET /{}", "x".repeat(MAX_HEAD));
    for line in [line.clone(), format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"), format!("\r\n{line}")] {
        assert_eq!(text(line.as_bytes()), "LongTarget");
    }
    let fields = |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(text(fields(MAX_FIELDS - 1).as_bytes()), "GET / None kept simple");
    assert_eq!(text(fields(MAX_FIELDS).as_bytes()), "Large");
}

#[test]
fn a_part_of_a_head_is_waited_for() {
    for whole in [&b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"[..], HTTP2_PREFACE] {
        for cut in 0..whole.len() {
            assert_eq!(text(&whole[..cut]), "Partial", "{cut} of {}", whole.escape_ascii());
        }
    }
    assert_eq!(text(HTTP2_PREFACE), "Http2");
    assert_eq!(text(b"PRI * HTTP/2.0\r\n\r\nXX"), "Version");
    // Another method with the same letters.
    check("PRINT / HTTP/1.1|Host: a||", "PRINT / None kept simple");
}

#[test]
fn hosts_are_names_or_addresses() {
    for good in ["", "a", "a.b:80", "A-b_c.~d", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:443", "a:"] {
        assert!(is_host(good.as_bytes()), "{good}");
    }
    for bad in [":", "a b", "a,b", "a;b", "[::1]x", "[::1]:x", "a:b:c", "a\u{e9}", "(a)", "a\"", "http://a"] {
        assert!(!is_host(bad.as_bytes()), "{bad}");
    }
}

proptest! {
    #![proptest_config(crate::lb::tests::tries(3000))]

    #[test]
    fn nothing_panics_and_a_head_is_the_same_with_more_behind_it(
        parts in proptest::collection::vec(prop_oneof![
            Just(b"GET / HTTP/1.1\r\n".to_vec()), Just(b"Host: a\r\n".to_vec()), Just(b"\r\n".to_vec()),
            Just(b"Content-Length: 3\r\n".to_vec()), Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            Just(b"Connection: upgrade\r\n".to_vec()), Just(b"\n".to_vec()), Just(b"PRI * HT".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ], 0..12),
        more in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let bytes = parts.concat();
        let alone = text(&bytes);
        let with_more = text(&[bytes, more].concat());
        prop_assert!(alone == "Partial" || alone == with_more, "{} then {}", alone, with_more);
    }
}

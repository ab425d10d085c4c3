//! The fast path and the general one once more: conversations made up by a grammar, through both.
//!
//! The tables of `both` say what is right; here only that both paths come to the same. `PROPTEST_CASES=20000` tries for
//! longer.

use proptest::prelude::*;
use proptest::sample::select;

use super::both::{Case, run};
use super::site::{Answer, Then};
use crate::lb::tests::tries;
use crate::model::Balance;

/// A request as it is sent, with its method and whether the connection may go on after it.
#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    text: String,
}

fn fields() -> impl Strategy<Value = String> {
    let known = [
        "Accept: */*",
        "A: b",
        "a:c",
        "Cookie: a=b; c=d",
        "Cookie: e=f",
        "Connection: keep-alive",
        "Connection: x-own",
        "X-Own: 1",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: X-Sum",
        "X-Forwarded-For: 1.1.1.1",
        "X-Forwarded-For: 2.2.2.2, 3.3.3.3",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: c.test",
        "X-Request-Id: own.1",
        "X-Request-Id: two words",
        "Proxy-Authorization: x",
        "Proxy-Connection: close",
        "Forwarded: for=1.1.1.1",
        "Range: bytes=0-1",
        "If-None-Match: \"x\"",
        "Content-Type: text/plain",
        "X-Empty:",
        "X-Blank: \t b \t ",
        "HTTP2-Settings: AAAA",
    ];
    let rare = ["Connection: close", "Connection: Keep-Alive, close"];
    let one = prop_oneof![
        30 => select(known.to_vec()).prop_map(str::to_owned),
        1 => select(rare.to_vec()).prop_map(str::to_owned),
        // All that is printed but `|`, which is a line end here.
        4 => "X-[A-Za-z0-9]{1,8}: [!-{}~]{1,20}",
    ];
    proptest::collection::vec(one, 0..6).prop_map(|lines| lines.join("|") + if lines.is_empty() { "" } else { "|" })
}

/// The fields of a body, and the body.
fn body() -> impl Strategy<Value = (String, String)> {
    let text = "[a-z]{1,40}";
    let chunks = (proptest::collection::vec(text, 0..4), select(vec!["", ";a=b", ";a=\"b c\""]), any::<bool>());
    let chunked = chunks.prop_map(|(chunks, extension, has_trailer)| {
        let chunks =
            chunks.iter().map(|chunk| format!("{:x}{extension}|{chunk}|", chunk.len())).collect::<Vec<_>>().concat();
        let trailer = if has_trailer { "X-Sum: 1|" } else { "" };
        ("Transfer-Encoding: chunked|".to_owned(), format!("{chunks}0|{trailer}|"))
    });
    let length = text.prop_map(|text| (format!("Content-Length: {}|", text.len()), text));
    let long = (60_000_usize..70_000).prop_map(|length| (format!("Content-Length: {length}|"), "x".repeat(length)));
    let expected = text.prop_map(|text| (format!("Expect: 100-continue|Content-Length: {}|", text.len()), text));
    let wrong = select(vec![
        ("Content-Length: 3|Content-Length: 3|", "abc"),
        ("Content-Length: 3|Transfer-Encoding: chunked|", "0||"),
        ("Transfer-Encoding: gzip|", ""),
        ("Transfer-Encoding: chunked|", "3|abcd|0||"),
        ("Content-Length: -1|", ""),
        ("Content-Length: 9|", "short"),
    ]);
    prop_oneof![
        8 => Just((String::new(), String::new())),
        2 => Just(("Content-Length: 0|".to_owned(), String::new())),
        5 => length,
        5 => chunked,
        1 => long,
        2 => expected,
        1 => wrong.prop_map(|(fields, body)| (fields.to_owned(), body.to_owned())),
    ]
}

fn request() -> impl Strategy<Value = Asked> {
    let methods = select(vec!["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE"]);
    let targets = select(vec!["/", "/a?b=c", "/x%20y;z", "//a", "/?", "http://a.test/b?c", "/a/../b"]);
    let versions = select(vec!["1.1", "1.1", "1.1", "1.1", "1.1", "1.1", "1.1", "1.0"]);
    let hosts = select(vec!["a.test", "a.test", "a.test", "A.test:80"]);
    (methods, targets, versions, hosts, fields(), body()).prop_map(|(method, target, version, host, fields, body)| {
        // The address names the host as well.
        let host = if target.starts_with("http") { "a.test" } else { host };
        let (of_body, body) = body;
        let text = format!("{method} {target} HTTP/{version}|Host: {host}|{fields}{of_body}|{body}");
        Asked { method, text }
    })
}

/// An answer, to HEAD without a body.
fn answer() -> impl Strategy<Value = (String, String)> {
    let interim = select(vec!["", "", "", "", "", "HTTP/1.1 103 Early Hints|Link: x||", "HTTP/1.1 102 Go on||"]);
    let status = select(vec!["200 OK", "200 OK", "201 Made", "206 Part", "404 No", "500 Oops", "204 None", "304 Same"]);
    let fields = select(vec![
        "",
        "A: b|",
        "Set-Cookie: a=b|Set-Cookie: c=d|",
        "Connection: keep-alive|Keep-Alive: t|",
        "Connection: x-own|X-Own: 1|",
        "Server: x|Date: Sat, 28 Nov 2026 00:00:00 GMT|",
        "X-A: a|  b|",
        "Upgrade: h2c|",
    ]);
    let body = ("[a-z]{0,60}", any::<bool>()).prop_map(|(text, is_chunked)| {
        if is_chunked {
            let chunk = if text.is_empty() { String::new() } else { format!("{:x}|{text}|", text.len()) };
            ("Transfer-Encoding: chunked|".to_owned(), format!("{chunk}0||"))
        } else {
            (format!("Content-Length: {}|", text.len()), text)
        }
    });
    (interim, status, fields, body).prop_map(|(interim, status, fields, (of_body, body))| {
        let has_none = status.starts_with("204") || status.starts_with("304");
        let (of_body, body) = match (has_none, status.starts_with("204")) {
            (true, true) => (String::new(), String::new()),
            (true, false) => (of_body, String::new()),
            (false, _) => (of_body, body),
        };
        (format!("{interim}HTTP/1.1 {status}|{fields}{of_body}|"), body)
    })
}

/// An answer after which the pod's connection ends, whole or not.
fn last() -> impl Strategy<Value = Answer> {
    let close = |text: &str| Answer::new(text).then(Then::Close);
    select(vec![
        close("HTTP/1.1 200 OK||until the end"),
        close("HTTP/1.0 200 OK||until the end"),
        close("HTTP/1.1 200 OK|Connection: close|Content-Length: 2||ok"),
        close("HTTP/1.1 200 OK|Content-Length: 20||less"),
        close("HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|"),
        close("HTTP/1.1 200 OK|Content-Length: 1|Content-Length: 2||ok"),
        close("nonsense||"),
        close(""),
    ])
}

prop_compose! {
    fn conversation()(
        requests in proptest::collection::vec(request(), 1..5),
        answers in proptest::collection::vec(answer(), 4),
        last in proptest::option::weighted(0.3, last()),
    ) -> Case {
        let methods: Vec<&'static str> = requests.iter().map(|request| request.method).collect();
        let whole = |(method, (head, body)): (&&str, &(String, String))| {
            Answer::new(&if *method == "HEAD" { head.clone() } else { format!("{head}{body}") })
        };
        let mut script: Vec<Answer> = methods.iter().zip(&answers).map(whole).collect();
        if let Some(last) = last {
            // Nothing comes after it, so that it is the same whether it is asked for once or again.
            let at = script.len() - 1;
            script[at] = last;
        }
        let requests = requests.iter().map(|request| request.text.as_str()).collect::<String>().replace('|', "\r\n");
        Case { name: "generated", expected: String::new(), requests, methods, script, balance: Balance::default() }
    }
}

proptest! {
    #![proptest_config(tries(150))]

    #[test]
    fn both_paths_come_to_the_same(case in conversation()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (mut fast, mut general) = runtime.block_on(async { tokio::join!(run(&case, true), run(&case, false)) });
        prop_assert!(!fast.is_open, "still open");
        // One that breaks off is asked again, and once more where that was on a connection that had been used before: which
        // connections there are is each path's own.
        if case.script.iter().any(|answer| answer.then != Then::Go) {
            fast.requests.dedup();
            general.requests.dedup();
        }
        prop_assert_eq!(fast, general);
    }
}

//! The fast path and the general one: the same bytes of client and pod through both must come to the same.

use std::time::Duration;

use super::script::{Message, answers};
use super::site::{Answer, End, HttpSite, Reply, Then};
use crate::lb::balance::Token;
use crate::lb::tests::site::container;
use crate::model::{Balance, Sticky};

/// What came of a case on one path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Requests that the pod got.
    pub(super) requests: Vec<Message>,
    /// Answers that the client got.
    answers: Vec<Message>,
    /// Whether the client could tell that the last one was cut off.
    is_cut: bool,
    /// Whether its connection was still open when the time was over.
    pub(super) is_open: bool,
}

/// A case: what the client sends, what the pod answers to each request, and what comes of it: the methods and paths that the
/// pod gets, and the statuses that the client gets.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) expected: String,
    pub(super) requests: String,
    pub(super) methods: Vec<&'static str>,
    pub(super) script: Vec<Answer>,
    pub(super) balance: Balance,
}

/// `|` is a line end.
fn case(name: &'static str, expected: &str, requests: &str, script: &[Answer]) -> Case {
    let requests = requests.replace('|', "\r\n");
    let methods = if requests.starts_with("HEAD") { vec!["HEAD"] } else { vec![] };
    let expected = expected.to_owned();
    Case { name, expected, requests, methods, script: script.to_vec(), balance: Balance::default() }
}

impl Case {
    /// The same where clients keep their pod by a cookie.
    fn sticky(self) -> Self {
        let sticky = Some(Sticky { cookie: "pod".to_owned(), ttl: Some(Duration::from_hours(1)) });
        Self { balance: Balance { sticky, ..Balance::default() }, ..self }
    }
}

fn ok() -> Answer {
    Answer::new("HTTP/1.1 200 OK|Content-Length: 2||ok")
}

/// Runs a case on one path.
pub(super) async fn run(case: &Case, is_fast: bool) -> Outcome {
    let site = HttpSite::balanced(is_fast, case.balance.clone()).await;
    let pod = site.scripted(1, &case.script).await;
    site.set(&[1]);
    let Reply { bytes, end } = site.send(case.requests.as_bytes()).await;
    // What time and luck decide, and what is for one connection only.
    let request = |message: Message| {
        let id = message.field("x-request-id").map(|id| id.len() == 32);
        let mut message = message.without(&["x-request-id", "connection", "x-forwarded-port"]);
        message.fields.push(("request id was made".to_owned(), format!("{id:?}")));
        message
    };
    let answer = |mut message: Message| {
        // The general path puts its own framing around what ends with its connection.
        // Whether it was cut off is looked at apart: it shows in different ways.
        if message.framing != "length" {
            (message.framing, message.is_whole) = ("open", true);
        }
        message.without(&["date", "connection", "transfer-encoding"])
    };
    let answers = answers(&bytes, &case.methods);
    let is_cut = end != End::Closed || answers.last().is_some_and(|last| !last.is_whole);
    let answers = answers.into_iter().map(answer).collect();
    let is_open = end == End::Open;
    Outcome { is_open, requests: pod.heard().into_iter().map(request).collect(), answers, is_cut }
}

/// Some words of a line; long ones are cut.
fn words(line: &str, skip: usize, count: usize) -> String {
    let word = |word: &str| word.chars().take(40).collect::<String>();
    line.split(' ').skip(skip).take(count).map(word).collect::<Vec<_>>().join(" ")
}

/// What came of a case in short.
fn summary(outcome: &Outcome) -> String {
    let requests: Vec<String> = outcome.requests.iter().map(|request| words(&request.start, 0, 2)).collect();
    let statuses: Vec<String> = outcome.answers.iter().map(|answer| words(&answer.start, 1, 1)).collect();
    let cut = if outcome.is_cut { " cut" } else { "" };
    format!("{} -> {}{cut}", requests.join(", "), statuses.join(" ")).trim().to_owned()
}

/// Runs cases on both paths, and compares.
async fn compare(cases: Vec<Case>) {
    let outcomes = cases.into_iter().map(|case| async move {
        let (fast, general) = tokio::join!(run(&case, true), run(&case, false));
        (case, fast, general)
    });
    let mut wrong = Vec::new();
    for (Case { name, expected, .. }, fast, general) in futures_util::future::join_all(outcomes).await {
        let summary = summary(&fast);
        if summary != expected || fast.is_open {
            wrong.push(format!("{name}: {summary} instead of {expected}"));
        }
        if fast != general {
            wrong.push(format!("{name}:\n  fast    {fast:?}\n  general {general:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

const GET: &str = "GET /a?b=c HTTP/1.1|Host: x.test||";

fn long(count: usize) -> String {
    "x".repeat(count)
}

#[tokio::test]
async fn answers_of_every_kind() {
    let answered = |then| {
        move |name, statuses: &str, answer: &str| {
            case(name, &format!("GET /a?b=c -> {statuses}"), GET, &[Answer::new(answer).then(then)])
        }
    };
    let (one, closing, reset) = (answered(Then::Go), answered(Then::Close), answered(Then::Reset));
    // Asked once more: twice is as good.
    let again =
        |name, answer: &str| case(name, "GET /a?b=c, GET /a?b=c -> 502", GET, &[Answer::new(answer).then(Then::Close)]);
    compare(vec![
        one("length", "200", "HTTP/1.1 200 OK|Content-Length: 5|X-A: 1||hello"),
        one("no length, no body", "200", "HTTP/1.1 200 OK|Content-Length: 0||"),
        one("chunks", "200", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|0||"),
        one("chunks in capitals", "200", "HTTP/1.1 200 OK|transfer-encoding: CHUNKED||A|0123456789|0||"),
        one("no chunk", "200", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||0||"),
        one("chunk extensions", "200", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5;a=b|hello|0||"),
        one("trailers", "200", "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Trailer: X||5|hello|0|X: y||"),
        closing("until close", "200", "HTTP/1.1 200 OK|X-A: 1||hello"),
        closing("until close of HTTP/1.0", "200", "HTTP/1.0 200 OK||hello"),
        closing("length and close", "200", "HTTP/1.1 200 OK|Connection: close|Content-Length: 5||hello"),
        one("HTTP/1.0 with length", "200", "HTTP/1.0 200 OK|Content-Length: 5||hello"),
        one("HTTP/1.0 kept", "200", "HTTP/1.0 200 OK|Connection: keep-alive|Content-Length: 5||hello"),
        one("204", "204", "HTTP/1.1 204 No Content||"),
        one("204 with length", "204", "HTTP/1.1 204 No Content|Content-Length: 5||"),
        one("204 with a body", "204", "HTTP/1.1 204 No Content|Content-Length: 5||hello"),
        one("204 with chunks", "204", "HTTP/1.1 204 No Content|Transfer-Encoding: chunked||5|hello|0||"),
        one("204 with no length at all", "204", "HTTP/1.1 204 No Content|Content-Length: 0||"),
        one("304 with length", "304", "HTTP/1.1 304 Not Modified|Content-Length: 5|ETag: x||"),
        one("error", "500", "HTTP/1.1 500 Oops|Content-Length: 2||no"),
        one("a status nobody knows", "299", "HTTP/1.1 299 Own|Content-Length: 2||ok"),
        one("no reason", "200", "HTTP/1.1 200|Content-Length: 2||ok"),
        one("redirect", "302", "HTTP/1.1 302 Found|Location: /x|Content-Length: 0||"),
        one("several cookies", "200", "HTTP/1.1 200 OK|Set-Cookie: a=1|Set-Cookie: b=2|Content-Length: 0||"),
        one(
            "fields for one connection",
            "200",
            "HTTP/1.1 200 OK|Connection: x-own, keep-alive|X-Own: 1|Keep-Alive: t|Content-Length: 2||ok",
        ),
        one(
            "an upgrade that nobody asked for",
            "426",
            "HTTP/1.1 426 Upgrade|Upgrade: h2c|Connection: Upgrade|Content-Length: 0||",
        ),
        one("early hints", "103 200", "HTTP/1.1 103 Early Hints|Link: x||HTTP/1.1 200 OK|Content-Length: 2||ok"),
        one(
            "continue that nobody asked for",
            "100 200",
            "HTTP/1.1 100 Continue||HTTP/1.1 200 OK|Content-Length: 2||ok",
        ),
        one("the same length twice", "200", "HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 2||ok"),
        one("folded field", "200", "HTTP/1.1 200 OK|X-A: a|  b|Content-Length: 2||ok"),
        one("space before the colon", "200", "HTTP/1.1 200 OK|X-A : a|Content-Length: 2||ok"),
        one("bytes beyond ASCII", "200", "HTTP/1.1 200 OK|X-A: \u{fc}|Content-Length: 2||ok"),
        one("lengths that differ", "502", "HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 3||ok"),
        one("a length that is none", "502", "HTTP/1.1 200 OK|Content-Length: x||ok"),
        one("length and chunks", "200", "HTTP/1.1 200 OK|Content-Length: 2|Transfer-Encoding: chunked||5|hello|0||"),
        one(
            "chunks said twice",
            "502",
            "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Transfer-Encoding: chunked||5|hello|0||",
        ),
        one(
            "a length that ends here",
            "200",
            "HTTP/1.1 200 OK|Connection: content-length, x-a|Content-Length: 2|X-A: a||ok",
        ),
        one(
            "a coding that ends here",
            "200",
            "HTTP/1.1 200 OK|Connection: transfer-encoding|Transfer-Encoding: chunked||5|hello|0||",
        ),
        one("protocols switched unasked", "502", "HTTP/1.1 101 Switching|Upgrade: x|Connection: Upgrade||"),
        one("no HTTP", "502", "hello||"),
        again("nothing", ""),
        again("half a head", "HTTP/1.1 200 OK|X: "),
        closing("half a body", "200 cut", "HTTP/1.1 200 OK|Content-Length: 9||hello"),
        closing("half of the chunks", "200 cut", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|"),
        reset("reset in a body until close", "200 cut", "HTTP/1.1 200 OK||hello"),
        one("chunks that are none", "200 cut", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||x|hello|"),
        one("more than its length", "200", "HTTP/1.1 200 OK|Content-Length: 2||okmore"),
        one("many fields", "200", &format!("HTTP/1.1 200 OK|{}Content-Length: 2||ok", "A: b|".repeat(90))),
        one("too many fields", "502", &format!("HTTP/1.1 200 OK|{}Content-Length: 2||ok", "A: b|".repeat(120))),
        one("a long field", "200", &format!("HTTP/1.1 200 OK|A: {}|Content-Length: 2||ok", long(30_000))),
        one("too long a head", "502", &format!("HTTP/1.1 200 OK|A: {}|Content-Length: 2||ok", long(70_000))),
        case(
            "HEAD",
            "HEAD / -> 200",
            "HEAD / HTTP/1.1|Host: a||",
            &[Answer::new("HTTP/1.1 200 OK|Content-Length: 5||")],
        ),
        case("HEAD without length", "HEAD / -> 200", "HEAD / HTTP/1.1|Host: a||", &[Answer::new("HTTP/1.1 200 OK||")]),
        case(
            "HEAD with chunks",
            "HEAD / -> 200",
            "HEAD / HTTP/1.1|Host: a||",
            &[Answer::new("HTTP/1.1 200 OK|Transfer-Encoding: chunked||")],
        ),
    ])
    .await;
}

#[tokio::test]
async fn requests_of_every_kind() {
    let one = |name, expected: &str, request: &str| case(name, expected, request, &[ok()]);
    // The pod gets what is asked for.
    let same = |name, request: &str| one(name, &format!("{} -> 200", words(request, 0, 2)), request);
    compare(vec![
        same("plain", GET),
        same("fields in any case", "GET / HTTP/1.1|hOsT: a|ACCEPT: x|aCCePT: y||"),
        same("a field twice", "GET / HTTP/1.1|Host: a|X-A: 1|X-A: 2||"),
        same("an empty field", "GET / HTTP/1.1|Host: a|X-A:||"),
        same("blanks around values", "GET / HTTP/1.1|Host:   a  |X-A: \t b \t||"),
        same("bytes beyond ASCII in a field", "GET / HTTP/1.1|Host: a|X-A: \u{fc}||"),
        same("bytes beyond ASCII in the path", "GET /\u{fc} HTTP/1.1|Host: a||"),
        same("odd characters in the path", "GET /a%20b;c=d/../e//f?g={h}^i HTTP/1.1|Host: a||"),
        same("only a query", "GET /?a HTTP/1.1|Host: a||"),
        same("two slashes", "GET //a HTTP/1.1|Host: a||"),
        same("host with port", "GET / HTTP/1.1|Host: a.test:8080||"),
        same("host is an address", "GET / HTTP/1.1|Host: 127.0.0.1||"),
        same("host is an address of IPv6", "GET / HTTP/1.1|Host: [::1]:80||"),
        same("another method", "PURGE /a HTTP/1.1|Host: a||"),
        same("DELETE with a body", "DELETE /a HTTP/1.1|Host: a|Content-Length: 5||hello"),
        same("GET with a body", "GET /a HTTP/1.1|Host: a|Content-Length: 5||hello"),
        same("POST", "POST /a HTTP/1.1|Host: a|Content-Length: 5|Content-Type: x||hello"),
        same("POST without a body", "POST /a HTTP/1.1|Host: a|Content-Length: 0||"),
        same("POST without length", "POST /a HTTP/1.1|Host: a||"),
        same("POST of bytes", &format!("POST /a HTTP/1.1|Host: a|Content-Length: 20000||{}", long(20_000))),
        same(
            "POST of as many bytes as are held",
            &format!("POST /a HTTP/1.1|Host: a|Content-Length: 65536||{}", long(65_536)),
        ),
        same("POST of one byte more", &format!("POST /a HTTP/1.1|Host: a|Content-Length: 65537||{}", long(65_537))),
        same("POST of many bytes", &format!("POST /a HTTP/1.1|Host: a|Content-Length: 200000||{}", long(200_000))),
        same("OPTIONS", "OPTIONS /a HTTP/1.1|Host: a||"),
        same("close", "GET / HTTP/1.1|Host: a|Connection: close||"),
        same("keep-alive", "GET / HTTP/1.1|Host: a|Connection: Keep-Alive|Keep-Alive: timeout=5||"),
        same("a trailer that is named", "GET / HTTP/1.1|Host: a|Trailer: X-Sum||"),
        same("settings of HTTP/2", "GET / HTTP/1.1|Host: a|HTTP2-Settings: AAMAAABk||"),
        same("TE", "GET / HTTP/1.1|Host: a|TE: trailers||"),
        same("a field for one connection", "GET / HTTP/1.1|Host: a|Connection: x-own|X-Own: 1||"),
        same("proxy's own", "GET / HTTP/1.1|Host: a|Proxy-Connection: keep-alive|Proxy-Authorization: x||"),
        same("forwarded for", "GET / HTTP/1.1|Host: a|X-Forwarded-For: 1.1.1.1, 2.2.2.2||"),
        same("forwarded for twice", "GET / HTTP/1.1|Host: a|X-Forwarded-For: 1.1.1.1|x-forwarded-for: 2.2.2.2||"),
        same("forwarded for nobody", "GET / HTTP/1.1|Host: a|X-Forwarded-For:||"),
        same(
            "forwarded as somebody",
            "GET / HTTP/1.1|Host: a|X-Forwarded-Proto: https|X-Forwarded-Host: b|Forwarded: for=x||",
        ),
        same("request id", "GET / HTTP/1.1|Host: a|X-Request-Id: my-own.1||"),
        same("request id that is none", "GET / HTTP/1.1|Host: a|X-Request-Id: a b||"),
        same("request id twice", "GET / HTTP/1.1|Host: a|X-Request-Id: one|X-Request-Id: two||"),
        same("chunks", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|6| world|0||"),
        same("HTTP/1.0", "GET / HTTP/1.0||"),
        same("HTTP/1.0 with host", "GET / HTTP/1.0|Host: a||"),
        one("the whole address", "GET /b?c -> 200", "GET http://a.test/b?c HTTP/1.1|Host: a.test||"),
        same("cookies", "GET / HTTP/1.1|Host: a|Cookie: a=b; c=d|Cookie: e=f||"),
        same("authorization", "GET / HTTP/1.1|Host: a|Authorization: Basic x||"),
        same("expectation", "POST / HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 5||hello"),
        same("many fields", &format!("GET / HTTP/1.1|Host: a|{}|", "A: b|".repeat(90))),
        same("a long field", &format!("GET / HTTP/1.1|Host: a|A: {}||", long(30_000))),
        same("a long path", &format!("GET /{} HTTP/1.1|Host: a||", long(30_000))),
        one("empty lines first", "GET /a?b=c -> 200", &format!("||{GET}")),
        same("a HEAD with a body", "HEAD / HTTP/1.1|Host: a|Content-Length: 2||ok"),
    ])
    .await;
}

/// Answers with these bodies.
fn texts(texts: &[&str]) -> Vec<Answer> {
    let answer = |text: &&str| Answer::new(&format!("HTTP/1.1 200 OK|Content-Length: {}||{text}", text.len()));
    texts.iter().map(answer).collect()
}

#[tokio::test]
async fn cookies_that_keep_a_pod() {
    let own = Token::of(&container(1)).to_string();
    let with = |cookie: &str| format!("GET /a?b=c HTTP/1.1|Host: x.test|Cookie: {cookie}||");
    let one = |name, expected, request: &str, answer: &str| {
        case(name, expected, request, &[Answer::new(answer).then(Then::Close)]).sticky()
    };
    let ok = "HTTP/1.1 200 OK|Content-Length: 2||ok";
    let get = "GET /a?b=c -> 200";
    compare(vec![
        one("none", get, GET, ok),
        one("the pod's", get, &with(&format!("pod={own}")), ok),
        one("the pod's among others", get, &with(&format!("a=b; pod={own}; c=d")), ok),
        one("the pod's in another field", get, &with(&format!("a=b|cookie: pod={own}")), ok),
        one("of a pod that is gone", get, &with(&format!("pod={}", "0".repeat(32))), ok),
        one("of nobody", get, &with("pod=web.1"), ok),
        one("an empty one", get, &with("pod="), ok),
        one("bytes beyond ASCII", get, &with("pod=\u{fc}"), ok),
        one("beside the pod's own", get, GET, "HTTP/1.1 200 OK|Set-Cookie: a=b|Content-Length: 2||ok"),
        one("with an error", "GET /a?b=c -> 500", GET, "HTTP/1.1 500 Oops|Content-Length: 2||no"),
        one("without a body", "GET /a?b=c -> 204", GET, "HTTP/1.1 204 No Content||"),
        one("until close", get, GET, "HTTP/1.1 200 OK||hello"),
        one("chunks", get, GET, "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|0||"),
        one(
            "after early hints",
            "GET /a?b=c -> 103 200",
            GET,
            "HTTP/1.1 103 Early Hints|Link: x||HTTP/1.1 200 OK|Content-Length: 2||ok",
        ),
        one("none of ours", "GET /a?b=c -> 502", GET, "HTTP/1.1 200 OK|Content-Length: x||ok"),
        case(
            "chunks of the client",
            "POST / -> 200",
            "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||",
            &[Answer::new(ok)],
        )
        .sticky(),
        case("twice", "GET /a?b=c, GET /a?b=c -> 200 200", &GET.repeat(2), &[Answer::new(ok)]).sticky(),
    ])
    .await;
}

#[tokio::test]
async fn requests_that_follow_one_another() {
    let post = |body: &str| format!("POST /p HTTP/1.1|Host: a|Content-Length: {}||{body}", body.len());
    let chunked = "POST /c HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||";
    let numbered = texts(&["one", "two", "three", "four"]);
    compare(vec![
        case("two", "GET /a?b=c, GET /a?b=c -> 200 200", &GET.repeat(2), &numbered),
        case(
            "four in one packet",
            "GET /a?b=c, GET /a?b=c, GET /a?b=c, GET /a?b=c -> 200 200 200 200",
            &GET.repeat(4),
            &numbered,
        ),
        case(
            "with bodies",
            "POST /p, POST /p, GET /a?b=c -> 200 200 200",
            &format!("{}{}{GET}", post("hello"), post("world")),
            &numbered,
        ),
        case("chunks, then a plain one", "POST /c, GET /a?b=c -> 200 200", &format!("{chunked}{GET}"), &numbered),
        case("a plain one, then chunks", "GET /a?b=c, POST /c -> 200 200", &format!("{GET}{chunked}"), &numbered),
        case("chunks twice", "POST /c, POST /c -> 200 200", &chunked.repeat(2), &numbered),
        case(
            "after a long one",
            "POST /p, GET /a?b=c -> 200 200",
            &format!("{}{GET}", post(&"x".repeat(100_000))),
            &numbered,
        ),
        case(
            "by turns",
            "GET /a?b=c, POST /c, GET /a?b=c, POST /c -> 200 200 200 200",
            &format!("{GET}{chunked}{GET}{chunked}"),
            &numbered,
        ),
        case(
            "after close nothing counts",
            "GET / -> 200",
            &format!("GET / HTTP/1.1|Host: a|Connection: close||{GET}"),
            &numbered,
        ),
        case(
            "close in another line counts as well",
            "GET / -> 200",
            &format!("GET / HTTP/1.1|Host: a|Connection: keep-alive|Connection: close||{GET}"),
            &numbered,
        ),
        case(
            "close counts more than keep-alive",
            "GET / -> 200",
            &format!("GET / HTTP/1.1|Host: a|Connection: keep-alive, close||{GET}"),
            &numbered,
        ),
        case("HTTP/1.0 closes", "GET / -> 200", &format!("GET / HTTP/1.0||{GET}"), &numbered),
        case(
            "HTTP/1.0 keeps",
            "GET /, GET /a?b=c -> 200 200",
            &format!("GET / HTTP/1.0|Connection: keep-alive||{GET}"),
            &numbered,
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_follows_an_answer_is_another_one() {
    let numbered = texts(&["one", "two", "three", "four"]);
    compare(vec![
        case(
            "after HEAD",
            "HEAD /, GET /a?b=c -> 200 200",
            &format!("HEAD / HTTP/1.1|Host: a||{GET}"),
            &[Answer::new("HTTP/1.1 200 OK|Content-Length: 5||"), ok()],
        ),
        case(
            "after 204 with a body",
            "GET /a?b=c, GET /a?b=c -> 204 200",
            &GET.repeat(2),
            &[Answer::new("HTTP/1.1 204 No|Content-Length: 47||HTTP/1.1 200 OK|Content-Length: 4||evil"), ok()],
        ),
        case(
            "after early hints with a length",
            "GET /a?b=c, GET /a?b=c -> 103 200 200",
            &GET.repeat(2),
            &[Answer::new("HTTP/1.1 103 Go|Content-Length: 5||HTTP/1.1 200 OK|Content-Length: 2||ok"), ok()],
        ),
        case(
            "after 304",
            "GET /a?b=c, GET /a?b=c -> 304 200",
            &GET.repeat(2),
            &[Answer::new("HTTP/1.1 304 Not|Content-Length: 5||"), ok()],
        ),
        case(
            "after chunks",
            "GET /a?b=c, GET /a?b=c -> 200 200",
            &GET.repeat(2),
            &[Answer::new("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||"), ok()],
        ),
        case(
            "after an answer until close",
            "GET /a?b=c, GET /a?b=c -> 204 200",
            &GET.repeat(2),
            &[Answer::new("HTTP/1.1 204 No||"), ok().then(Then::Close)],
        ),
        case(
            "after a closed one",
            "GET /a?b=c, GET /a?b=c -> 200 200",
            &GET.repeat(2),
            &[ok().then(Then::Close), ok()],
        ),
        case("after a reset one", "GET /a?b=c, GET /a?b=c -> 200 200", &GET.repeat(2), &[ok().then(Then::Reset), ok()]),
        case(
            "what follows an answer is nobody's",
            "GET /a?b=c, GET /a?b=c -> 200 200",
            &GET.repeat(2),
            &[Answer::new("HTTP/1.1 200 OK|Content-Length: 2||okHTTP/1.1 200 OK|Content-Length: 4||evil"), ok()],
        ),
        case(
            "what follows chunks is nobody's",
            "GET /a?b=c, GET /a?b=c -> 200 200",
            &GET.repeat(2),
            &[
                Answer::new(
                    "HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||HTTP/1.1 200 OK|Content-Length: 4||evil",
                ),
                ok(),
            ],
        ),
        case(
            "what follows HEAD is nobody's",
            "HEAD /, GET /a?b=c -> 200 200",
            &format!("HEAD / HTTP/1.1|Host: a||{GET}"),
            &[Answer::new("HTTP/1.1 200 OK|Content-Length: 4||evil"), ok()],
        ),
        case("then nonsense", "GET /a?b=c -> 200 400", &format!("{GET}nonsense||"), &numbered),
        case("then half a head", "GET /a?b=c -> 200", &format!("{GET}GET / HT"), &numbered),
        case(
            "then half a body",
            "GET /a?b=c -> 200",
            &format!("{GET}POST / HTTP/1.1|Host: a|Content-Length: 9||half"),
            &numbered,
        ),
    ])
    .await;
}

#[tokio::test]
async fn requests_that_can_be_read_in_two_ways() {
    let one = |name, expected: &str, request: &str| case(name, expected, request, &[ok()]);
    let bad = |name, request: &str| one(name, "-> 400", request);
    let hidden = "GET /hidden HTTP/1.1|Host: a||";
    compare(vec![
        bad("no host", "GET / HTTP/1.1||"),
        bad("two hosts", "GET / HTTP/1.1|Host: a|Host: b||"),
        bad("a host with a blank", "GET / HTTP/1.1|Host: a b||"),
        bad("a host with a slash", "GET / HTTP/1.1|Host: a/b||"),
        bad("a host with a user", "GET / HTTP/1.1|Host: a@b||"),
        bad("another host in the address", "GET http://b/ HTTP/1.1|Host: a||"),
        bad("no host in the address", "GET http:///a HTTP/1.1|Host:||"),
        bad("no host in the address of HTTP/1.0", "GET http:///a HTTP/1.0||"),
        bad("the host of the address in other letters", "GET http://A/ HTTP/1.1|Host: a||"),
        bad("an odd host in the address", "GET http://a%2fb/ HTTP/1.1|Host: a%2fb||"),
        bad(
            "length twice",
            &format!("POST / HTTP/1.1|Host: a|Content-Length: 0|Content-Length: {}||{hidden}", hidden.len()),
        ),
        bad("length in a list", "POST / HTTP/1.1|Host: a|Content-Length: 5, 5||hello"),
        bad("length with a sign", "POST / HTTP/1.1|Host: a|Content-Length: +5||hello"),
        bad("length in hexadecimal", "POST / HTTP/1.1|Host: a|Content-Length: 0x5||hello"),
        bad("length beyond all", "POST / HTTP/1.1|Host: a|Content-Length: 18446744073709551616||"),
        bad(
            "length and chunks",
            &format!("POST / HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding: chunked||0||{hidden}"),
        ),
        bad(
            "chunks and length",
            &format!("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Content-Length: 5||0||{hidden}"),
        ),
        bad("chunks twice", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||"),
        one("almost chunked", "-> 501", "POST / HTTP/1.1|Host: a|Transfer-Encoding: xchunked||0||"),
        one("chunked in a list", "-> 501", "POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip, chunked||0||"),
        one("chunked after a tab", "POST / -> 200", "POST / HTTP/1.1|Host: a|Transfer-Encoding:\tchunked||0||"),
        one("chunked with a comma", "-> 501", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked,||0||"),
        bad("chunked behind a blank", "POST / HTTP/1.1|Host: a|Transfer-Encoding : chunked||0||"),
        bad("chunked of HTTP/1.0", "POST / HTTP/1.0|Host: a|Transfer-Encoding: chunked||0||"),
        one("identity", "-> 501", "POST / HTTP/1.1|Host: a|Transfer-Encoding: identity|Content-Length: 5||hello"),
        bad("a bare LF", &format!("GET / HTTP/1.1\nHost: a\n\n{hidden}")),
        bad("a bare LF in a field", "GET / HTTP/1.1|Host: a|X: y\nZ: w||"),
        bad("a bare CR in a field", "GET / HTTP/1.1|Host: a|X: y\rZ: w||"),
        bad("a NUL in a field", "GET / HTTP/1.1|Host: a|X: \0||"),
        bad("a folded field", "GET / HTTP/1.1|Host: a|X: y| z||"),
        bad("a field without name", "GET / HTTP/1.1|Host: a|: y||"),
        bad("a field without colon", "GET / HTTP/1.1|Host: a|y||"),
        bad("a blank before the first field", "GET / HTTP/1.1| Host: a||"),
        bad("a blank before a colon", "GET / HTTP/1.1|Host : a||"),
        bad("two blanks in the line", "GET  / HTTP/1.1|Host: a||"),
        bad("a blank in the path", "GET /a b HTTP/1.1|Host: a||"),
        bad("no path", "GET HTTP/1.1|Host: a||"),
        bad("a path without slash", "GET a HTTP/1.1|Host: a||"),
        bad("no version", "GET /|Host: a||"),
        bad("HTTP/0.9", "GET /|"),
        one("HTTP/2.0 by name", "-> 505", "GET / HTTP/2.0|Host: a||"),
        one("HTTP/1.2", "-> 505", "GET / HTTP/1.2|Host: a||"),
        one("CONNECT", "-> 405", "CONNECT a:443 HTTP/1.1|Host: a:443||"),
        bad("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}||"),
        one("nothing but lines", "->", "||||||"),
        bad("chunks with a bare LF", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||5\nhello|0||"),
        bad("chunks that lie", &format!("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||2|hello|0||{hidden}")),
        bad("chunks with a sign", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||+5|hello|0||"),
        one("chunks without end", "->", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|"),
        bad("a chunk beyond all", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||ffffffffffffffff|hello|0||"),
        bad("a chunk of nothing with more", &format!("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||0|{hidden}")),
        one("too many fields", "-> 431", &format!("GET / HTTP/1.1|Host: a|{}|", "A: b|".repeat(101))),
        one("too large a head", "-> 431", &format!("GET / HTTP/1.1|Host: a|A: {}||", "x".repeat(70_000))),
        one("too long a path", "-> 414", &format!("GET /{} HTTP/1.1|Host: a||", "x".repeat(70_000))),
        bad("a protected field named", "GET / HTTP/1.1|Host: a|Connection: Host||"),
        bad("a forwarded field named", "GET / HTTP/1.1|Host: a|Connection: X-Forwarded-For||"),
    ])
    .await;
}

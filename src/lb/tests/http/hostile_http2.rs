//! Requests over HTTP/2 that mean harm: put into HTTP/1.1 for a pod they would be another one, or several. Frames are written
//! byte by byte, because no client library would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::hostile::mirror;
use super::site::{Dialog, HttpSite};
use crate::lb::tests::site::in_time;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Field<'a> = (&'a str, &'a str);

/// A request: its fields in their order, and its body; `None`: it ends with its head.
struct Case<'a>(Vec<Field<'a>>, Option<&'a str>);

/// A request that somebody may try to hide in another one.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Fields as they are, without a table or Huffman's code. Source: RFC 7541, section 6.2.2.
fn fields(all: &[Field<'_>]) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short");
        [&[length], text.as_bytes()].concat()
    };
    all.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The frames of a request.
fn frames(Case(all, body): &Case<'_>) -> Vec<u8> {
    let end = if body.is_some() { 0 } else { END_STREAM };
    let mut bytes = frame(HEADERS, END_HEADERS | end, 1, &fields(all));
    if let Some(body) = body {
        bytes.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
    }
    bytes
}

/// Sends a request on a connection of its own; returns which frames came back for it, up to an answer, a refusal, or an end, and
/// what else came by then.
async fn exchange(site: &HttpSite, request: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(request);
    let mut stream = site.connect().await;
    stream.write_all(&bytes).await.expect("open");
    let (mut got, mut at, mut kinds, mut is_over) = (Vec::new(), 0, Vec::new(), false);
    let reading = async {
        while !is_over {
            while let Some(head) = got.get(at..at + 9).map(<[u8]>::to_vec) {
                let end = at + 9 + usize::from(head[0]) * 65_536 + usize::from(head[1]) * 256 + usize::from(head[2]);
                if got.len() < end {
                    break;
                }
                at = end;
                if matches!(head[3], DATA | HEADERS | RESET | GO_AWAY) {
                    kinds.push(head[3]);
                    is_over |= head[3] > HEADERS || head[4] & END_STREAM > 0;
                }
            }
            if !is_over && !matches!(stream.read_buf(&mut got).await, Ok(1..)) {
                return;
            }
        }
    };
    in_time(reading).await;
    (kinds, got)
}

/// Sends a request; returns which frames came back.
async fn send(site: &HttpSite, case: &Case<'_>) -> Vec<u8> {
    exchange(site, &frames(case)).await.0
}

/// The fields that every request has, then these.
fn with<'a>(more: &[Field<'a>]) -> Vec<Field<'a>> {
    [&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/g")], more].concat()
}

/// The same with other values of these.
fn but<'a>(others: &[Field<'a>]) -> Vec<Field<'a>> {
    let other = |name: &str| others.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    with(&[]).into_iter().map(|(name, value)| (name, other(name).unwrap_or(value))).collect()
}

#[tokio::test]
async fn none_reaches_a_pod() {
    let site = HttpSite::new(true).await;
    let (_pod, heard) = mirror(&site).await;
    site.set(&[1]);
    // What it is made of is right: this one arrives.
    let right = Case(with(&[("x", "y"), ("content-length", "5")]), Some("hello"));
    assert_eq!(send(&site, &right).await, [HEADERS, DATA]);
    assert_eq!(std::mem::take(&mut *heard.lock().expect("not poisoned")), ["/g hello"]);
    let head = |all| Case(all, None);
    let cases = vec![
        // What is no word becomes several.
        head(but(&[(":path", "/g HTTP/1.1\r\nHost: a\r\n\r\nGET /hidden")])),
        head(but(&[(":path", "/g /hidden")])),
        head(but(&[(":path", "/g\t")])),
        head(but(&[(":path", "/g\u{0}")])),
        head(but(&[(":method", "GET /hidden HTTP/1.1\r\nX:")])),
        head(but(&[(":method", "GET /hidden")])),
        head(but(&[(":method", "")])),
        head(but(&[(":authority", "a\r\nX: y")])),
        head(with(&[("x", "y\r\nZ: w")])),
        head(with(&[("x", "y\nZ: w")])),
        head(with(&[("x", "y\u{0}")])),
        head(with(&[("x\r\nz", "w")])),
        head(with(&[("x: y\r\nz", "w")])),
        head(with(&[("x y", "w")])),
        head(with(&[("", "w")])),
        head(with(&[("X", "w")])),
        // Where it ends.
        Case(with(&[("transfer-encoding", "chunked")]), Some("0\r\n\r\nGET /hidden")),
        Case(with(&[("content-length", "5"), ("content-length", "6")]), Some("hello")),
        Case(with(&[("content-length", "5"), ("content-length", "5")]), Some("hello")),
        Case(with(&[("content-length", "+5")]), Some("hello")),
        Case(with(&[("content-length", "6")]), Some("hello")),
        Case(with(&[("content-length", "5, 5")]), Some("hello")),
        head(with(&[("content-length", "33")])),
        head(with(&[("connection", "close")])),
        head(with(&[("connection", "x"), ("x", "y")])),
        head(with(&[("upgrade", "websocket")])),
        head(with(&[("keep-alive", "1")])),
        head(with(&[("proxy-connection", "keep-alive")])),
        head(with(&[("te", "gzip, chunked")])),
        // Who is meant, and by which path.
        head(but(&[(":authority", "a@b")])),
        head(but(&[(":authority", "a/b")])),
        head(but(&[(":authority", "a,b")])),
        head(with(&[("host", "b")])),
        head(with(&[("host", "a"), ("host", "b")])),
        head(but(&[(":path", "")])),
        head(but(&[(":path", "hidden")])),
        head(but(&[(":path", "*")])),
        head(but(&[(":path", "http://b/hidden")])),
        head(but(&[(":path", "@b/hidden")])),
        head(but(&[(":path", "?hidden")])),
        head(but(&[(":scheme", "http://b/hidden?")])),
        // Fields that lead, and must do so once.
        head(with(&[(":path", "/hidden")])),
        head(with(&[("x", "y"), (":authority", "b")])),
        head(with(&[(":status", "200")])),
        head(with(&[(":protocol", "websocket")])),
        head(vec![(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
        head(vec![(":scheme", "http"), (":authority", "a"), (":path", "/g")]),
        head(vec![(":method", "GET"), (":scheme", "http"), (":path", "/g")]),
    ];
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let came = send(&site, case).await;
        let own = Dialog::new(&site).await.ask(&format!("GET /own-{number} HTTP/1.1|Host: a||")).await;
        let asked = std::mem::take(&mut *heard.lock().expect("not poisoned"));
        if asked != [format!("/own-{number}")] || own.body != format!("/own-{number} ").as_bytes() {
            wrong.push(format!("{:?} {:?}: {came:?}, the pod heard {asked:?}", case.0, case.1));
        }
    }
    // What says that it has no body may arrive, and without one.
    send(&site, &Case(with(&[("content-length", "0")]), Some(HIDDEN))).await;
    Dialog::new(&site).await.ask("GET /own HTTP/1.1|Host: a||").await;
    let asked = std::mem::take(&mut *heard.lock().expect("not poisoned"));
    assert!(asked.iter().all(|asked| asked == "/g" || asked == "/own"), "{asked:?}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn what_the_library_takes_out_is_seen_by_nobody() {
    let site = HttpSite::new(true).await;
    let (_pod, heard) = mirror(&site).await;
    site.set(&[1]);
    // A part of a page is no part of a request: what the pod gets is what rules look at.
    assert_eq!(send(&site, &Case(but(&[(":path", "/g#/hidden")]), None)).await, [HEADERS, DATA]);
    assert_eq!(std::mem::take(&mut *heard.lock().expect("not poisoned")), ["/g"]);
    // Fields that lead a request mean nothing behind it.
    let mut request = frame(HEADERS, END_HEADERS, 1, &fields(&with(&[])));
    request.extend(frame(DATA, 0, 1, b"hello"));
    request.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":path", "/hidden"), ("x-sum", "1")])));
    exchange(&site, &request).await;
    Dialog::new(&site).await.ask("GET /own HTTP/1.1|Host: a||").await;
    let asked = std::mem::take(&mut *heard.lock().expect("not poisoned"));
    assert!(asked == ["/g hello", "/own"] || asked == ["/own"], "{asked:?}");
}

#[tokio::test]
async fn who_asks_for_an_odd_host_is_told_why_it_is_refused() {
    let site = HttpSite::new(true).await;
    let (_pod, _heard) = mirror(&site).await;
    site.set(&[1]);
    let mut wrong = Vec::new();
    for (case, is_told) in [
        (but(&[(":authority", "a,b")]), true),
        (but(&[(":authority", "a:b")]), true),
        (but(&[(":authority", "a:123456")]), true),
        (but(&[(":authority", "[x]")]), true),
        (but(&[(":authority", ":80")]), true),
        (but(&[(":authority", "a!b")]), true),
        (but(&[(":path", "*")]), true),
        // The library refuses them before anybody sees them: by a status alone, or by the end of the stream.
        (but(&[(":authority", "a@b")]), false),
        (with(&[("host", "b")]), false),
        (with(&[("host", "A")]), false),
        (but(&[(":path", "http://b/hidden")]), false),
        (but(&[(":authority", "")]), false),
        (but(&[(":authority", "a/b")]), false),
        (but(&[(":authority", "a%2fb")]), false),
    ] {
        let (kinds, got) = exchange(&site, &frames(&Case(case.clone(), None))).await;
        let told = String::from_utf8_lossy(&got).contains("400 Bad Request: the request is malformed\n");
        if told != is_told || (!told && kinds != [HEADERS] && kinds != [RESET]) {
            wrong.push((case, kinds));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

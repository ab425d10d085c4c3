//! Whatever clients write into `Cookie`: no pod but the one that is named by the first cookie of the name is found by it,
//! and all that was written goes on to the pod byte by byte, on both paths.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::site::{HttpSite, exchange};
use crate::lb::balance::Token;
use crate::lb::tests::site::{Pod, container};
use crate::lb::tests::tries;
use crate::model::{Balance, Sticky};

/// The pods of each site.
const PODS: [u8; 3] = [1, 2, 3];

/// What a piece of a `Cookie` field, between semicolons, says of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// It is not the cookie.
    Nothing,
    /// It is, and names nobody.
    Nobody,
    /// It is, and names this pod.
    Pod(u8),
}

type Piece = (Vec<u8>, Says);

/// Bytes that may stand in a value of a field, but for those that divide a cookie.
fn byte() -> impl Strategy<Value = u8> {
    let may = |byte: &u8| !matches!(byte, b';' | b'=');
    prop_oneof![8 => (0x20..=0x7e_u8).prop_filter("divides", may), 1 => Just(b'\t'), 2 => 0x80..=0xff_u8]
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(byte(), 0..most)
}

fn token(number: u8) -> String {
    Token::of(&container(number)).to_string()
}

/// A piece that is the cookie of a pod that is there or not, or nearly so.
fn near() -> impl Strategy<Value = Piece> {
    let (number, blank) = (select(PODS.to_vec()), || select(vec!["", " ", "  ", "\t"]));
    (number, blank(), blank(), 0_usize..16).prop_map(|(number, before, after, kind)| {
        let own = token(number);
        let (text, says) = match kind {
            0..=3 => (format!("{before}pod={own}{after}"), Says::Pod(number)),
            4 => (format!("pod{before}={after}{own}"), Says::Pod(number)),
            5 => (format!("pod=\"{own}\""), Says::Nobody),
            6 => (format!("pod={}", own.to_ascii_uppercase()), Says::Nobody),
            7 => (format!("pod={own}0"), Says::Nobody),
            8 => (format!("pod={}", &own[..31]), Says::Nobody),
            9 => (format!("pod={}", token(9)), Says::Nobody),
            10 => ("pod=".to_owned(), Says::Nobody),
            11 => (format!("pod=pod={own}"), Says::Nobody),
            12 => (format!("POD={own}"), Says::Nothing),
            13 => (format!("xpod={own}"), Says::Nothing),
            14 => (format!("a=b,pod={own}"), Says::Nothing),
            _ => (format!("a=b{before} pod={own}"), Says::Nothing),
        };
        (text.into_bytes(), says)
    })
}

/// A piece that is somebody else's, or none at all.
fn other() -> impl Strategy<Value = Piece> {
    let pair = (bytes(12), bytes(30)).prop_map(|(name, value)| [&name[..], b"=", &value].concat());
    let huge = (5_000_usize..15_000).prop_map(|size| [&b"huge="[..], &vec![b'x'; size]].concat());
    let piece = prop_oneof![6 => pair, 3 => bytes(20), 1 => Just(Vec::new()), 1 => huge];
    piece.prop_map(|bytes| {
        let name = bytes.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        let is_meant = name == b"pod" && bytes.contains(&b'=');
        (bytes, if is_meant { Says::Nobody } else { Says::Nothing })
    })
}

/// Fields, each of several pieces. All of them fit into one head.
fn fields() -> impl Strategy<Value = Vec<Vec<Piece>>> {
    let piece = prop_oneof![2 => near(), 3 => other()];
    let fields = proptest::collection::vec(proptest::collection::vec(piece, 0..4), 0..4);
    fields.prop_filter("too large", |fields| {
        fields.iter().flatten().map(|(bytes, _)| bytes.len() + 1).sum::<usize>() < 60_000
    })
}

type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// A pod that answers with its number, and keeps the `Cookie` fields that it got.
async fn pod(site: &HttpSite, number: u8, heard: &Heard) -> Pod {
    let heard = Arc::clone(heard);
    let talk = move |mut stream: tokio::net::TcpStream| {
        let heard = Arc::clone(&heard);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut head).await, Ok(read) if read > 0) {
                    return;
                }
            }
            let cookie = |line: &[u8]| {
                let at = line.iter().position(|byte| *byte == b':')?;
                line[..at].eq_ignore_ascii_case(b"cookie").then(|| line[at + 1..].trim_ascii().to_vec())
            };
            let cookies = head.split(|byte| *byte == b'\n').filter_map(cookie);
            heard.lock().expect("not poisoned").extend(cookies);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{number}");
            // Who does not get it fails the test.
            let _sent = stream.write_all(answer.as_bytes()).await;
        }
    };
    site.pod(number, talk).await
}

/// Sends the fields; returns the answer, and the fields that the pod got.
async fn ask(is_fast: bool, fields: &[Vec<u8>]) -> (String, Vec<Vec<u8>>) {
    let sticky = Some(Sticky { cookie: "pod".to_owned(), ttl: None });
    let site = HttpSite::balanced(is_fast, Balance { sticky, ..Balance::default() }).await;
    let heard = Heard::default();
    let mut pods = Vec::new();
    for number in PODS {
        pods.push(pod(&site, number, &heard).await);
    }
    site.set(&PODS);
    let mut request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".to_vec();
    for field in fields {
        request.extend_from_slice(&[b"Cookie: ", &field[..], b"\r\n"].concat());
    }
    request.extend_from_slice(b"\r\n");
    let reply = exchange(site.connect().await, &request).await;
    let heard = std::mem::take(&mut *heard.lock().expect("not poisoned"));
    (String::from_utf8_lossy(&reply.bytes).into_owned(), heard)
}

proptest! {
    #![proptest_config(tries(60))]

    #[test]
    fn a_cookie_finds_the_pod_that_it_names_or_none_and_all_cookies_go_on(fields in fields()) {
        let said = fields.iter().flatten().map(|(_, says)| *says).find(|says| *says != Says::Nothing);
        let written: Vec<Vec<u8>> = fields
            .iter()
            .map(|pieces| pieces.iter().map(|(bytes, _)| &bytes[..]).collect::<Vec<_>>().join(&b';'))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for is_fast in [true, false] {
            let (text, heard) = runtime.block_on(ask(is_fast, &written));
            prop_assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{}", text);
            let expected: Vec<&[u8]> = written.iter().map(|field| field.trim_ascii()).collect();
            prop_assert_eq!(&heard, &expected, "fast: {}", is_fast);
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            let head = head.to_ascii_lowercase();
            let set = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).map(str::to_owned);
            let answered: u8 = body.parse().expect("a number");
            if let Some(Says::Pod(named)) = said {
                prop_assert_eq!((answered, set), (named, None));
            } else {
                let own = format!("pod={}; path=/; httponly; samesite=lax", token(answered));
                prop_assert_eq!(set, Some(own));
            }
        }
    }
}

//! How pods are chosen for requests, on both paths: by turns, by keys, by cookies, and without those that answer badly.

use std::collections::BTreeSet;
use std::time::Duration;

use super::script::Message;
use super::site::{Answer, Dialog, HttpSite, Then};
use crate::lb::tests::site::until;
use crate::model::{Algorithm, Balance, Ejection, HashKey, Sticky};

const GET: &str = "GET / HTTP/1.1|Host: a||";

fn text(text: &str) -> Answer {
    Answer::new(&format!("HTTP/1.1 200 OK|Content-Length: {}||{text}", text.len()))
}

fn failing() -> Answer {
    Answer::new("HTTP/1.1 503 Oops|Content-Length: 0||")
}

fn by(algorithm: Algorithm) -> Balance {
    Balance { algorithm, ..Balance::default() }
}

fn sticky(ttl: Option<Duration>) -> Balance {
    Balance { sticky: Some(Sticky { cookie: "pod".to_owned(), ttl }), ..Balance::default() }
}

fn ejecting(failures: u32, pause: Duration) -> Balance {
    Balance { eject: Some(Ejection { failures, pause, at_most: 50 }), ..Balance::default() }
}

fn body(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

fn get_with(field: &str) -> String {
    format!("GET / HTTP/1.1|Host: a|{field}||")
}

#[tokio::test]
async fn turns_are_exact() {
    for is_fast in [true, false] {
        let site = HttpSite::balanced(is_fast, by(Algorithm::RoundRobin)).await;
        let pods = [
            site.scripted(1, &[text("1")]).await,
            site.scripted(2, &[text("2")]).await,
            site.scripted(3, &[text("3")]).await,
        ];
        site.set(&[1, 2, 3]);
        let mut client = Dialog::new(&site).await;
        for _ in 0..15 {
            client.ask(GET).await;
            // Another table changes nothing about whose turn it is.
            site.set(&[1, 2, 3]);
        }
        assert_eq!(pods.each_ref().map(|pod| pod.heard().len()), [5, 5, 5]);
    }
}

#[tokio::test]
async fn keys_find_the_same_pod_on_both_paths_and_stay_when_another_goes() {
    let mut found: Vec<Vec<String>> = Vec::new();
    for (is_fast, key) in [(true, HashKey::Header("x-user".to_owned())), (false, HashKey::Cookie("user".to_owned()))] {
        let site = HttpSite::balanced(is_fast, by(Algorithm::Hash(key))).await;
        let mut pods = Vec::new();
        for number in 1..=4 {
            pods.push(site.scripted(number, &[text(&number.to_string())]).await);
        }
        site.set(&[1, 2, 3, 4]);
        let mut client = Dialog::new(&site).await;
        let mut ask =
            async |user: u8| body(&client.ask(&get_with(&format!("X-User: u{user}|Cookie: a=b; user=u{user}"))).await);
        let mut whole = Vec::new();
        for user in 0..40 {
            whole.push(ask(user).await);
            assert_eq!(ask(user).await, whole[usize::from(user)], "the same again");
        }
        assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), 4, "spread: {whole:?}");
        site.set(&[1, 2, 4]);
        for user in 0..40 {
            let (now, before) = (ask(user).await, &whole[usize::from(user)]);
            assert!(now == *before || before == "3", "{user} moved from {before} to {now}");
        }
        found.push(whole);
    }
    assert_eq!(found[0], found[1], "whatever was hashed and by whichever path");
}

#[tokio::test]
async fn a_cookie_keeps_a_client_at_its_pod_until_that_is_gone() {
    for is_fast in [true, false] {
        let site = HttpSite::balanced(is_fast, sticky(None)).await;
        let _pods = [
            site.scripted(1, &[text("1")]).await,
            site.scripted(2, &[text("2")]).await,
            site.scripted(3, &[text("3")]).await,
        ];
        site.set(&[1, 2, 3]);
        let mut client = Dialog::new(&site).await;
        let first = client.ask(GET).await;
        let set = first.field("set-cookie").expect("one is set").to_owned();
        let (cookie, attributes) = set.split_once("; ").expect("attributes");
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        let token = cookie.strip_prefix("pod=").expect("its name");
        assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
        let request = get_with(&format!("Cookie: {cookie}"));
        for _ in 0..20 {
            let next = client.ask(&request).await;
            assert_eq!((body(&next), next.field("set-cookie")), (body(&first), None));
        }
        let left: Vec<u8> = (1..=3).filter(|number| number.to_string() != body(&first)).collect();
        site.set(&left);
        let moved = client.ask(&request).await;
        assert_ne!(body(&moved), body(&first));
        assert_ne!(moved.field("set-cookie"), Some(set.as_str()));
        assert!(moved.field("set-cookie").is_some());
        // Who is back finds nobody there who knows its cookie as its own, but the pod it is.
        site.set(&[1, 2, 3]);
        let back = client.ask(&request).await;
        assert_eq!((body(&back), back.field("set-cookie")), (body(&first), None));
    }
}

#[tokio::test]
async fn a_cookie_of_a_pod_that_takes_no_connection_is_replaced() {
    for is_fast in [true, false] {
        let site = HttpSite::balanced(is_fast, sticky(Some(Duration::from_mins(2)))).await;
        let pod = site.pod(1, |stream| async { drop(stream) }).await;
        site.set(&[1]);
        pod.stop().await;
        let _other = site.scripted(2, &[text("2")]).await;
        site.set(&[1, 2]);
        let token = crate::lb::balance::Token::of(&crate::lb::tests::site::container(1));
        let mut client = Dialog::new(&site).await;
        let answer = client.ask(&get_with(&format!("Cookie: pod={token}"))).await;
        assert_eq!(body(&answer), "2");
        assert!(answer.field("set-cookie").is_some_and(|set| set.ends_with("; Max-Age=120")), "{answer:?}");
    }
}

#[tokio::test]
async fn a_pod_that_answers_badly_is_passed_over_and_comes_back() {
    let ways = [
        failing(),
        Answer::new("HTTP/1.1 200 OK|Content-Length: x||"),
        Answer::new("HTTP/1.1 200 OK|Content-Length: 9||part").then(Then::Close),
    ];
    let all = [true, false].into_iter().flat_map(|is_fast| ways.clone().map(|bad| passed_over(is_fast, bad)));
    futures_util::future::join_all(all).await;
}

async fn passed_over(is_fast: bool, bad: Answer) {
    let site = HttpSite::balanced(is_fast, ejecting(3, Duration::from_secs(4))).await;
    let failing = site.scripted(1, &[bad.clone(), bad.clone(), bad, text("1")]).await;
    let good = site.scripted(2, &[text("2")]).await;
    site.set(&[1, 2]);
    while failing.heard().len() < 3 {
        site.send(GET.replace('|', "\r\n").as_bytes()).await;
    }
    until(|| site.stats(1), |stats| stats.ejected).await;
    let before = good.heard().len();
    let mut client = Dialog::new(&site).await;
    for _ in 0..10 {
        assert_eq!(body(&client.ask(GET).await), "2");
    }
    assert_eq!((failing.heard().len(), good.heard().len()), (3, before + 10));
    until(|| site.stats(1), |stats| !stats.ejected).await;
    while failing.heard().len() < 4 {
        client.ask(GET).await;
    }
    assert!(!site.stats(1).ejected, "it answers well again");
}

#[tokio::test]
async fn never_all_pods_are_passed_over_nor_any_where_nothing_says_so() {
    for is_fast in [true, false] {
        let site = HttpSite::balanced(is_fast, ejecting(1, Duration::from_mins(1))).await;
        let pods = [site.scripted(1, &[failing()]).await, site.scripted(2, &[failing()]).await];
        site.set(&[1, 2]);
        let mut client = Dialog::new(&site).await;
        for _ in 0..20 {
            assert_eq!(client.ask(GET).await.start, "HTTP/1.1 503 Oops", "the pod's own answer");
        }
        let ejected = [1, 2].map(|number| site.stats(number).ejected);
        assert_eq!(ejected.iter().filter(|ejected| **ejected).count(), 1);
        let heard: usize = pods.iter().map(|pod| pod.heard().len()).sum();
        assert_eq!(heard, 20);
        let plain = HttpSite::new(is_fast).await;
        let _pods = [plain.scripted(1, &[failing()]).await, plain.scripted(2, &[failing()]).await];
        plain.set(&[1, 2]);
        for _ in 0..20 {
            plain.get(GET).await;
        }
        assert!(!plain.stats(1).ejected && !plain.stats(2).ejected);
    }
}

#[tokio::test]
async fn a_passed_over_pod_loses_the_clients_that_its_cookie_names() {
    for is_fast in [true, false] {
        let balance = Balance { eject: ejecting(2, Duration::from_mins(1)).eject, ..sticky(None) };
        let site = HttpSite::balanced(is_fast, balance).await;
        let failing = site.scripted(1, &[failing()]).await;
        site.set(&[1]);
        let mut client = Dialog::new(&site).await;
        let set = client.ask(GET).await.field("set-cookie").expect("one is set").to_owned();
        let request = get_with(&format!("Cookie: {}", set.split(';').next().expect("a cookie")));
        let _other = site.scripted(2, &[text("2")]).await;
        site.set(&[1, 2]);
        client.ask(&request).await;
        until(|| site.stats(1), |stats| stats.ejected).await;
        let moved = client.ask(&request).await;
        assert_eq!(body(&moved), "2");
        assert!(moved.field("set-cookie").is_some());
        assert_eq!(failing.heard().len(), 2);
    }
}

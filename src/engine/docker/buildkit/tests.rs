use std::collections::BTreeMap;

use super::*;

fn names(bytes: &[u8], field: u32) -> Vec<String> {
    let all: Vec<_> = proto::fields(bytes).collect::<std::result::Result<_, _>>().expect("a message");
    all.into_iter().filter(|(number, _)| *number == field).map(|(_, value)| value.text()).collect()
}

fn map(bytes: &[u8], field: u32) -> Vec<String> {
    let all: Vec<_> = proto::fields(bytes).collect::<std::result::Result<_, _>>().expect("a message");
    let entries = all.into_iter().filter(|(number, _)| *number == field).map(|(_, value)| value.bytes());
    let text = |entry: &[u8], number| proto::text(entry, number).expect("text");
    entries.map(|entry| format!("{}={}", text(entry, 1), text(entry, 2))).collect()
}

#[test]
fn requests_say_what_the_frontend_and_the_exporter_read() {
    let word = |text: &str| text.to_owned();
    let spec = BuildSpec {
        dockerfile: word("Dockerfile"),
        names: vec![word("shop-web"), word("other:1")],
        args: BTreeMap::from([(word("A"), word("b c"))]),
        labels: BTreeMap::from([(word("l"), word("m"))]),
        target: Some(word("wanted")),
        network: Some(word("host")),
        extra_hosts: vec![word("a:1.2.3.4"), word("b:::1")],
        shm_size: Some(64),
        ulimits: BTreeMap::from([(word("nofile"), (1, 2))]),
        platform: Some(word("Linux/amd64")),
        ..BuildSpec::default()
    };
    let entry = |kind: &str, reference: &str| CacheEntry {
        kind: word(kind),
        attributes: BTreeMap::from([(word("ref"), word(reference))]),
    };
    let kit = Kit {
        contexts: BTreeMap::from([(word("base"), word("docker-image://x"))]),
        no_cache_filter: vec![word("one"), word("two")],
        cache_from: vec![entry("registry", "a/b")],
        cache_to: vec![CacheEntry { kind: word("inline"), ..CacheEntry::default() }],
        entitlements: vec![word("security.insecure")],
        ..Kit::default()
    };
    let bytes = request("id", "session", &spec, &kit).into_bytes();
    let one = |field| names(&bytes, field);
    assert_eq!(
        (one(1), one(3), one(5), one(6)),
        (vec![word("id")], vec![word("moby")], vec![word("session")], vec![word("dockerfile.v0")])
    );
    assert_eq!(map(&bytes, 4), ["name=shop-web,other:1"]);
    assert_eq!(one(9), ["security.insecure", "network.host"]);
    assert_eq!(
        map(&bytes, 7),
        [
            "add-hosts=a=1.2.3.4,b=::1",
            "build-arg:A=b c",
            "context:base=docker-image://x",
            "filename=Dockerfile",
            "force-network-mode=host",
            "image-resolve-mode=default",
            "label:l=m",
            "no-cache=one,two",
            "platform=linux/amd64",
            "shm-size=64",
            "target=wanted",
            "ulimit=nofile=1:2",
        ]
    );
    let (_, cache) =
        proto::fields(&bytes).filter_map(std::result::Result::ok).find(|(number, _)| *number == 8).expect("a cache");
    let (to, from) = (names(cache.bytes(), 4), names(cache.bytes(), 5));
    assert_eq!((to.len(), from.len()), (1, 1));
    assert_eq!(proto::text(to[0].as_bytes(), 1), Ok(word("inline")));
    assert_eq!(map(from[0].as_bytes(), 2), ["ref=a/b"]);
    let all = attributes(&BuildSpec { no_cache: true, pull: true, ..BuildSpec::default() }, &kit);
    assert_eq!((all["no-cache"].as_str(), all["image-resolve-mode"].as_str()), ("", "pull"));
}

#[test]
fn answers_name_the_image() {
    let answer = Message::default().entry(1, "containerimage.digest", "sha256:1");
    assert_eq!(made(&answer.clone().into_bytes()), Ok("sha256:1".to_owned()));
    let answer = answer.entry(1, "containerimage.config.digest", "sha256:2");
    assert_eq!(made(&answer.into_bytes()), Ok("sha256:2".to_owned()));
}

#[test]
fn words_of_errors_and_versions() {
    let said = "failed to solve: rpc error: code = Unknown desc = failed to solve with frontend dockerfile.v0: \
                failed to build LLB: executor failed running [/bin/sh -c false]: exit code: 1";
    assert_eq!(plain_words(said), "executor failed running [/bin/sh -c false]: exit code: 1");
    assert_eq!(plain_words("rpc error: odd"), "rpc error: odd");
    assert_eq!(major_and_minor("20.10.24+dfsg1"), (20, 10));
    assert_eq!(major_and_minor("28.5-rc1"), (28, 5));
    assert_eq!(major_and_minor("dev"), (0, 0));
}

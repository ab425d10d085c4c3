//! What every store promises, as functions that panic where one breaks it. Each uses its own keys, so that all can run
//! against one store, one after the other. Waits have deadlines and leases last seconds, which suits a
//! paused clock and a real etcd alike.

#![expect(clippy::missing_panics_doc, reason = "a test's assertions are what it is for")]

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Change, Compare, Entry, LeaseId, Outcome, Store, StoreError, StoreRevision, Write};

/// Longest wait for something that must happen.
const DEADLINE: Duration = Duration::from_secs(30);
/// The shortest lease that every engine grants.
const TTL: Duration = Duration::from_secs(2);

/// Returns a write of text without a lease.
pub fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease: None }
}

fn put_under(key: &str, lease: LeaseId) -> Write {
    Write::Put { key: key.to_owned(), value: b"leased".to_vec(), lease: Some(lease) }
}

async fn done(store: &dyn Store, writes: &[Write]) -> StoreRevision {
    match store.transact(&[], writes).await.expect("a transaction") {
        Outcome::Done(revision) => revision,
        Outcome::Conflict => panic!("a transaction without conditions has no conflicts"),
    }
}

async fn get(store: &dyn Store, key: &str) -> Option<Entry> {
    store.get(key).await.expect("a read")
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.expect("a list").0.into_iter().map(|entry| entry.key).collect()
}

async fn next(changes: &mut mpsc::Receiver<Change>) -> Change {
    timeout(DEADLINE, changes.recv()).await.expect("a change in time").expect("the watch goes on")
}

fn brief(change: &Change) -> (String, Option<String>, StoreRevision) {
    match change {
        Change::Put(entry) => {
            (entry.key.clone(), Some(String::from_utf8_lossy(&entry.value).into_owned()), entry.modified)
        }
        Change::Deleted(key, revision) => (key.clone(), None, *revision),
    }
}

/// Revisions grow with what writes and with nothing else; entries know theirs.
pub async fn writes_have_revisions(store: &dyn Store) {
    assert_eq!(get(store, "rev/a").await, None);
    let first = done(store, &[put("rev/a", "1"), put("rev/b", "")]).await;
    let second = done(store, &[put("rev/a", "2")]).await;
    assert!(second > first);
    let entry = |key: &str, value: &str, created, modified| {
        Some(Entry { key: key.to_owned(), value: value.into(), created, modified, lease: None })
    };
    assert_eq!(get(store, "rev/a").await, entry("rev/a", "2", first, second));
    assert_eq!(get(store, "rev/b").await, entry("rev/b", "", first, first), "an empty value is a value");
    let same = done(store, &[put("rev/a", "2")]).await;
    assert!(same > second, "writing what is there is a write");

    done(store, &[Write::Delete("rev/a".to_owned())]).await;
    assert_eq!(get(store, "rev/a").await, None);
    let again = done(store, &[put("rev/a", "3")]).await;
    assert_eq!(get(store, "rev/a").await, entry("rev/a", "3", again, again), "a key made again starts anew");
}

/// After a compaction what is there is there, and what was before is gone.
pub async fn compaction_forgets_what_was(store: &dyn Store) {
    let first = done(store, &[put("past/a", "1"), put("past/b", "1")]).await;
    done(store, &[put("past/a", "2")]).await;
    let last = done(store, &[Write::Delete("past/b".to_owned())]).await;
    let mut going_on = store.watch("past/", last).await.expect("a watch from now");
    store.compact().await.expect("a compaction");
    assert_eq!(keys(store, "past/").await, ["past/a"]);
    assert_eq!(get(store, "past/a").await.map(|entry| (entry.value, entry.created)), Some((b"2".to_vec(), first)));
    let refused = store.watch("past/", first).await;
    assert!(matches!(refused, Err(StoreError::Compacted { .. })), "{refused:?}");
    let after = done(store, &[put("past/c", "3")]).await;
    assert_eq!(brief(&next(&mut going_on).await), ("past/c".to_owned(), Some("3".to_owned()), after));
}

/// A transaction that changes nothing leaves the revision as it is.
pub async fn nothing_written_is_no_revision(store: &dyn Store) {
    let (_, before) = store.list("none/").await.expect("a list");
    let nothing = [Write::Delete("none/a".to_owned()), Write::DeletePrefix("none/".to_owned())];
    assert_eq!(done(store, &[]).await, before);
    assert_eq!(done(store, &nothing).await, before);
    assert_eq!(store.list("none/").await.expect("a list").1, before);
}

/// All conditions hold, or nothing is written.
pub async fn conditions_hold_or_nothing_happens(store: &dyn Store) {
    let made = done(store, &[put("cas/a", "1")]).await;
    let absent = |key: &str| Compare::Absent(key.to_owned());
    let modified = |key: &str, revision| Compare::Modified(key.to_owned(), revision);
    for compares in [
        vec![absent("cas/a")],
        vec![modified("cas/a", made + 1)],
        vec![modified("cas/a", 0)],
        vec![modified("cas/none", made)],
        vec![modified("cas/a", u64::MAX)],
        vec![modified("cas/a", made), absent("cas/a")],
    ] {
        let writes = [put("cas/a", "2"), put("cas/b", "2"), Write::DeletePrefix("cas/".to_owned())];
        let outcome = store.transact(&compares, &writes).await.expect("a transaction");
        assert_eq!(outcome, Outcome::Conflict, "{compares:?}");
        assert_eq!(keys(store, "cas/").await, ["cas/a"], "{compares:?}");
    }
    let compares = [modified("cas/a", made), absent("cas/b")];
    let outcome = store.transact(&compares, &[put("cas/b", "2")]).await.expect("a transaction");
    assert!(matches!(outcome, Outcome::Done(revision) if revision > made));
}

/// Prefixes are plain text, keys are ordered by their bytes.
pub async fn prefixes_are_plain_text(store: &dyn Store) {
    let all = ["pre/", "pre/%", "pre/A", "pre/_", "pre/a", "pre/a/b", "pre/ab", "pre/é", "pre/\u{10ffff}"];
    let writes: Vec<Write> = all.iter().rev().map(|key| put(key, "x")).collect();
    let revision = done(store, &writes).await;
    assert_eq!(keys(store, "pre/").await, all);
    assert_eq!(keys(store, "pre/a").await, ["pre/a", "pre/a/b", "pre/ab"]);
    assert_eq!(keys(store, "pre/a/").await, ["pre/a/b"]);
    assert_eq!(keys(store, "pre/_").await, ["pre/_"]);
    assert_eq!(keys(store, "pre/\u{10ffff}").await, ["pre/\u{10ffff}"]);
    assert!(store.list("pre/").await.expect("a list").1 >= revision, "a list knows its revision");
    done(store, &[Write::DeletePrefix("pre/a".to_owned())]).await;
    assert_eq!(keys(store, "pre/").await.len(), all.len() - 3);
}

/// Of several writes to one key in a transaction the last counts, and it is one change.
pub async fn the_last_write_of_a_key_counts(store: &dyn Store) {
    let made = done(store, &[put("last/a", "1"), put("last/b", "1"), put("last/c", "1")]).await;
    let mut changes = store.watch("last/", made).await.expect("a watch");
    let revision = done(
        store,
        &[
            put("last/d", "gone"),
            Write::DeletePrefix("last/".to_owned()),
            put("last/b", "2"),
            put("last/a", "no"),
            Write::Delete("last/a".to_owned()),
        ],
    )
    .await;
    let expected = [("last/a", None), ("last/b", Some("2")), ("last/c", None)]
        .map(|(k, v)| (k.into(), v.map(Into::into), revision));
    for change in expected {
        assert_eq!(brief(&next(&mut changes).await), change);
    }
    assert_eq!(keys(store, "last/").await, ["last/b"]);
    let kept = get(store, "last/b").await.expect("it is there");
    assert_eq!((kept.created, kept.modified), (made, revision), "it was there all the time");
}

/// A watch replays what it missed and goes on with what happens, without gap or repeat, while others write.
pub async fn watches_have_no_gap_and_no_repeat(store: &dyn Store) {
    const WRITERS: usize = 4;
    const EACH: usize = 40;
    let start = store.list("watch/").await.expect("a list").1;
    let writers = (0..WRITERS).map(|writer| async move {
        for n in 0..EACH {
            done(store, &[put(&format!("watch/{writer}"), &n.to_string()), put("unwatched", "x")]).await;
        }
    });
    let watchers = (0..3).map(|_| async move {
        // Each begins when some of the writes are done and others are not.
        let mut changes = store.watch("watch/", start).await.expect("a watch");
        let mut last = start;
        let mut seen = [0; WRITERS];
        for _ in 0..WRITERS * EACH {
            let (key, value, revision) = brief(&next(&mut changes).await);
            assert!(revision > last, "revision {revision} after {last}");
            last = revision;
            let writer: usize = key.strip_prefix("watch/").expect("only what is watched").parse().expect("ours");
            assert_eq!(value, Some(seen[writer].to_string()), "writer {writer}");
            seen[writer] += 1;
        }
        // Beginning from any revision continues there.
        let mut rest = store.watch("watch/", last - 1).await.expect("a watch");
        assert_eq!(brief(&next(&mut rest).await).2, last);
    });
    tokio::join!(futures_util::future::join_all(writers), futures_util::future::join_all(watchers));
}

/// Whoever does not read is cut off instead of missing something, and hears of all up to there.
pub async fn a_slow_watcher_is_cut_off(store: &dyn Store) {
    const WRITES: usize = 1500;
    let start = store.list("slow/").await.expect("a list").1;
    let mut changes = store.watch("slow/", start).await.expect("a watch");
    for batch in 0..WRITES / 100 {
        let writes: Vec<Write> = (0..100).map(|n| put(&format!("slow/{:04}", batch * 100 + n), "x")).collect();
        done(store, &writes).await;
    }
    let mut seen = 0;
    while let Some(change) = timeout(DEADLINE, changes.recv()).await.expect("an end in time") {
        assert_eq!(brief(&change).0, format!("slow/{seen:04}"));
        seen += 1;
    }
    assert!((1000..WRITES).contains(&seen), "cut off after {seen}");
    assert_eq!(keys(store, "slow/").await.len(), WRITES, "a list tells the rest");
}

/// Many who count up by compare-and-swap lose no step.
pub async fn concurrent_swaps_lose_nothing(store: &dyn Store) {
    const TASKS: usize = 6;
    const EACH: usize = 20;
    let key = "counter/n";
    let count = |_| async move {
        let mut left = EACH;
        while left > 0 {
            let entry = get(store, key).await;
            let (compare, value) = match &entry {
                None => (Compare::Absent(key.to_owned()), 0),
                Some(entry) => (
                    Compare::Modified(key.to_owned(), entry.modified),
                    String::from_utf8_lossy(&entry.value).parse::<usize>().expect("a number"),
                ),
            };
            let write = put(key, &(value + 1).to_string());
            if store.transact(&[compare], &[write]).await.expect("a transaction") != Outcome::Conflict {
                left -= 1;
            }
        }
    };
    futures_util::future::join_all((0..TASKS).map(count)).await;
    assert_eq!(get(store, key).await.expect("it is there").value, (TASKS * EACH).to_string().into_bytes());
}

/// A lease that nobody renews takes its keys along, and watchers hear of it.
pub async fn leases_end_with_their_keys(store: &dyn Store) {
    let lease = store.grant(TTL).await.expect("a lease");
    let revision = done(store, &[put_under("lease/a", lease), put_under("lease/b", lease), put("lease/c", "x")]).await;
    assert_eq!(get(store, "lease/a").await.expect("it is there").lease, Some(lease));
    // Written again without the lease, a key no longer goes with it.
    let freed = done(store, &[put("lease/b", "free")]).await;
    assert!(freed > revision);
    let mut changes = store.watch("lease/", freed).await.expect("a watch");
    let (key, value, ended) = brief(&next(&mut changes).await);
    assert_eq!((key.as_str(), value), ("lease/a", None));
    assert!(ended > freed, "the end of a lease with keys has a revision");
    assert_eq!(keys(store, "lease/").await, ["lease/b", "lease/c"]);
    let gone = |result: Result<(), StoreError>| matches!(result, Err(StoreError::LeaseGone(id)) if id == lease);
    assert!(gone(store.keep_alive(lease).await));
    assert!(gone(store.transact(&[], &[put_under("lease/d", lease), put("lease/e", "x")]).await.map(drop)));
    assert_eq!(keys(store, "lease/").await, ["lease/b", "lease/c"], "nothing of it was written");
    store.revoke(lease).await.expect("ending what has ended is no error");
}

/// A lease that is renewed lives.
pub async fn renewed_leases_live(store: &dyn Store) {
    let lease = store.grant(TTL).await.expect("a lease");
    done(store, &[put_under("alive/a", lease)]).await;
    for _ in 0..6 {
        tokio::time::sleep(TTL / 2).await;
        store.keep_alive(lease).await.expect("it lives");
        assert!(get(store, "alive/a").await.is_some());
    }
}

/// A lease can be given back, and its keys go at once.
pub async fn revoked_leases_are_gone_at_once(store: &dyn Store) {
    let lease = store.grant(Duration::from_mins(10)).await.expect("a lease");
    let other = store.grant(Duration::from_mins(10)).await.expect("a lease");
    assert_ne!(lease, other);
    let revision = done(store, &[put_under("revoke/a", lease), put_under("revoke/b", other)]).await;
    let mut changes = store.watch("revoke/", revision).await.expect("a watch");
    store.revoke(lease).await.expect("revoked");
    assert_eq!(keys(store, "revoke/").await, ["revoke/b"]);
    assert!(matches!(next(&mut changes).await, Change::Deleted(key, _) if key == "revoke/a"));
    assert!(matches!(store.keep_alive(lease).await, Err(StoreError::LeaseGone(_))));
}

/// A watch from a revision that is not reached cannot be one of this store's: list again.
pub async fn revisions_of_another_store_are_refused(store: &dyn Store) {
    let refused = store.watch("", u64::MAX).await;
    assert!(matches!(refused, Err(StoreError::Compacted { .. })), "{refused:?}");
}

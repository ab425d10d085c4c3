//! The contract, a model, and what only a file can suffer: crashes, full disks, foreign files, compaction.

mod crash;
mod model;

use super::*;
use crate::store::contract::{self, put};

/// Fast: what is not about crashes needs no waiting for the disk.
const QUICK: Options = Options { changes: 10_000, bytes: 16 << 20, durable: false };

async fn quick(dir: &tempfile::TempDir) -> Embedded {
    Embedded::open_with(dir.path().join("store.db"), QUICK).await.expect("a store")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

async fn done(store: &Embedded, writes: &[Write]) -> StoreRevision {
    match store.transact(&[], writes).await.expect("a transaction") {
        Outcome::Done(revision) => revision,
        Outcome::Conflict => panic!("no conditions"),
    }
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            let dir = directory();
            contract::$name(&quick(&dir).await).await;
            // Once more over a file with history, opened again.
            let other = directory();
            let store = quick(&other).await;
            done(&store, &[put("before", "x")]).await;
            drop(store);
            contract::$name(&quick(&other).await).await;
        }
    )*};
}

contract!(
    writes_have_revisions,
    compaction_forgets_what_was,
    nothing_written_is_no_revision,
    conditions_hold_or_nothing_happens,
    prefixes_are_plain_text,
    the_last_write_of_a_key_counts,
    watches_have_no_gap_and_no_repeat,
    a_slow_watcher_is_cut_off,
    concurrent_swaps_lose_nothing,
    leases_end_with_their_keys,
    renewed_leases_live,
    revoked_leases_are_gone_at_once,
    revisions_of_another_store_are_refused,
);

#[tokio::test(start_paused = true)]
async fn a_restart_gives_leases_their_full_time_again() {
    let dir = directory();
    let store = quick(&dir).await;
    let ttl = Duration::from_secs(10);
    let lease = store.grant(ttl).await.expect("a lease");
    let write = Write::Put { key: "a".to_owned(), value: vec![], lease: Some(lease) };
    let revision = done(&store, &[write]).await;
    tokio::time::sleep(Duration::from_millis(9_999)).await;
    drop(store);

    let store = quick(&dir).await;
    let opened = Instant::now();
    let mut changes = store.watch("", revision).await.expect("a watch");
    assert_eq!(changes.recv().await, Some(Change::Deleted("a".to_owned(), revision + 1)));
    assert!(opened.elapsed() >= ttl, "ended after {:?}", opened.elapsed());
    let next = store.grant(ttl).await.expect("a lease");
    assert!(next > lease, "ids are not used again");
}

#[tokio::test]
async fn history_is_bounded_and_says_so() {
    let dir = directory();
    let options = Options { changes: 20, bytes: 1000, durable: false };
    let store = Embedded::open_with(dir.path().join("store.db"), options).await.expect("a store");
    done(&store, &[put("kept", "old")]).await;
    for n in 0..30 {
        done(&store, &[put("a", &n.to_string())]).await;
    }
    let Err(StoreError::Compacted { oldest }) = store.watch("", 1).await else { panic!("history of all revisions") };
    assert!((11..=16).contains(&oldest), "{oldest}");
    assert!(matches!(store.watch("", oldest - 1).await, Err(StoreError::Compacted { .. })));
    let check = async |store: &Embedded| {
        let mut changes = store.watch("", oldest).await.expect("a watch");
        for revision in oldest + 1..=31 {
            let Some(Change::Put(entry)) = changes.recv().await else { panic!("revision {revision}") };
            assert_eq!((entry.modified, entry.value), (revision, (revision - 2).to_string().into_bytes()));
        }
        assert_eq!(store.get("kept").await.expect("a read").expect("never lost").value, b"old");
    };
    check(&store).await;
    drop(store);
    let store = Embedded::open_with(dir.path().join("store.db"), options).await.expect("a store");
    check(&store).await;
    // By bytes: one value over the bound leaves only itself.
    let revision = done(&store, &[put("large", &"x".repeat(2000))]).await;
    assert!(matches!(store.watch("", revision - 2).await, Err(StoreError::Compacted { .. })));
    store.watch("", revision - 1).await.expect("the last change is never compacted");
    let rows: i64 = store.shared.run(|state, _| Ok(state.db.count_changes()?)).await.expect("a count");
    assert_eq!(rows, 3, "kept, a, large");
}

#[tokio::test]
async fn other_files_are_refused_and_not_touched() {
    let dir = directory();
    let path = dir.path().join("store.db");
    let foreign = dir.path().join("foreign.db");
    let other = rusqlite::Connection::open(&foreign).expect("made");
    other.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").expect("filled");
    drop(other);
    let newer = dir.path().join("newer.db");
    drop(Embedded::open(&newer).await.expect("a store"));
    let conn = rusqlite::Connection::open(&newer).expect("opened");
    conn.pragma_update(None, "user_version", 2).expect("set");
    drop(conn);
    let cut = dir.path().join("cut.db");
    let store = Embedded::open(&cut).await.expect("a store");
    done(&store, &[put("a", &"x".repeat(100_000))]).await;
    drop(store);
    let bytes = std::fs::read(&cut).expect("readable");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("cut");
    std::fs::write(&path, "not a database, but longer than a hundred bytes".repeat(10)).expect("written");
    for (path, reason) in [
        (&path, "it is not a database"),
        (&foreign, "another program"),
        (&newer, "format 2"),
        (&cut, "damaged"),
        (&dir.path().to_owned(), "directory"),
        (&dir.path().join("no/store.db"), "No such file"),
    ] {
        let before = std::fs::read(path).ok();
        let error = Embedded::open(path).await.expect_err("refused");
        assert!(matches!(&error, StoreError::Unusable { .. }), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(std::fs::read(path).ok(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn one_process_at_a_time_has_it_open() {
    let dir = directory();
    let store = quick(&dir).await;
    let error = Embedded::open(dir.path().join("store.db")).await.expect_err("in use");
    assert!(error.to_string().contains("another process has it open"), "{error}");
    drop(store);
    drop(quick(&dir).await);
}

#[tokio::test]
async fn only_its_owner_reads_it() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = directory();
    let store = Embedded::open(dir.path().join("store.db")).await.expect("a store");
    done(&store, &[put("a", "1")]).await;
    for file in std::fs::read_dir(dir.path()).expect("readable") {
        let file = file.expect("readable");
        assert_eq!(file.metadata().expect("there").mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let dir = directory();
    let store = quick(&dir).await;
    let first = done(&store, &[put("a", "1")]).await;
    store.shared.run(|state, _| Ok(state.db.limit_pages(40)?)).await.expect("limited");
    let error = store.transact(&[], &[put("a", "2"), put("b", &"x".repeat(1 << 20))]).await.expect_err("full");
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
    assert_eq!(store.get("a").await.expect("a read").expect("there").value, b"1");
    assert_eq!(store.list("").await.expect("a list").1, first, "a failed transaction has no revision");
    assert_eq!(done(&store, &[put("a", "2")]).await, first + 1, "what fits goes on");
}

//! The contract over a sealed store, and what is and is not in its files.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::store::contract::{self, put};
use crate::store::embedded::Embedded;

async fn sealed(dir: &Path) -> Sealed {
    let inner = Embedded::open(dir.join("store.db")).await.expect("a store");
    Sealed::open(Arc::new(inner), dir.join("secrets.key")).await.expect("it opens")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Returns the files that hold `text`.
fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("readable").path());
    files.filter(|path| memchr(&std::fs::read(path).expect("readable"), text.as_bytes())).collect()
}

fn memchr(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            let dir = directory();
            contract::$name(&sealed(dir.path()).await).await;
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

#[tokio::test]
async fn values_are_in_no_file_in_clear_and_come_back() {
    let dir = directory();
    let store = sealed(dir.path()).await;
    store.transact(&[], &[put("projects/shop", "correct horse")]).await.expect("written");
    assert!(!files_with(dir.path(), "projects/shop").is_empty(), "the search finds what is there");
    assert_eq!(files_with(dir.path(), "correct horse"), Vec::<PathBuf>::new());
    drop(store);
    let store = sealed(dir.path()).await;
    let entry = store.get("projects/shop").await.expect("a read").expect("it is there");
    assert_eq!(entry.value, b"correct horse");
    let mode = std::fs::metadata(dir.path().join("secrets.key")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_was_written_in_clear_is_sealed_and_forgotten() {
    let dir = directory();
    let plain = Embedded::open(dir.path().join("store.db")).await.expect("a store");
    plain.transact(&[], &[put("a", "correct horse")]).await.expect("written");
    plain.transact(&[], &[put("a", "battery staple")]).await.expect("written");
    drop(plain);
    let store = sealed(dir.path()).await;
    assert_eq!(store.get("a").await.expect("a read").expect("there").value, b"battery staple");
    for text in ["correct horse", "battery staple"] {
        assert_eq!(files_with(dir.path(), text), Vec::<PathBuf>::new(), "{text}");
    }
}

#[tokio::test]
async fn another_key_and_a_moved_value_are_refused() {
    let dir = directory();
    let store = sealed(dir.path()).await;
    store.transact(&[], &[put("a", "1")]).await.expect("written");
    let value = store.inner.get("a").await.expect("a read").expect("there").value;
    store.inner.transact(&[], &[Write::Put { key: "b".into(), value, lease: None }]).await.expect("written");
    let moved = store.get("b").await;
    assert!(matches!(moved, Err(StoreError::Unusable { .. })), "{moved:?}");
    drop(store);

    for key in [[7; KEY_LEN].as_slice(), b"short"] {
        std::fs::write(dir.path().join("secrets.key"), key).expect("written");
        let inner = Embedded::open(dir.path().join("store.db")).await.expect("a store");
        let refused = Sealed::open(Arc::new(inner), dir.path().join("secrets.key")).await.err();
        assert!(matches!(refused, Some(StoreError::Unusable { .. })), "{refused:?}");
    }
}

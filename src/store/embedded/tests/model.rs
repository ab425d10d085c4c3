//! Random transactions against a map that does the same the simple way.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The store as a reader of its documentation would write it.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, Entry>,
    revision: StoreRevision,
    changes: Vec<Change>,
}

impl Model {
    fn transact(&mut self, compares: &[Compare], writes: &[Write]) -> Outcome {
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Modified(key, revision) => self.entries.get(key).is_some_and(|entry| entry.modified == *revision),
        };
        if !compares.iter().all(holds) {
            return Outcome::Conflict;
        }
        let mut after: BTreeSet<String> = self.entries.keys().cloned().collect();
        let mut touched: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
        for write in writes {
            match write {
                Write::Put { key, value, .. } => {
                    after.insert(key.clone());
                    touched.insert(key.clone(), Some(value.clone()));
                }
                Write::Delete(key) => {
                    touched.insert(key.clone(), None);
                }
                Write::DeletePrefix(prefix) => {
                    let keys: Vec<String> = after.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
                    touched.extend(keys.into_iter().map(|key| (key, None)));
                }
            }
        }
        touched.retain(|key, value| value.is_some() || self.entries.contains_key(key));
        if touched.is_empty() {
            return Outcome::Done(self.revision);
        }
        self.revision += 1;
        for (key, value) in touched {
            self.changes.push(match value {
                None => {
                    self.entries.remove(&key);
                    Change::Deleted(key, self.revision)
                }
                Some(value) => {
                    let created = self.entries.get(&key).map_or(self.revision, |entry| entry.created);
                    let entry = Entry { key: key.clone(), value, created, modified: self.revision, lease: None };
                    self.entries.insert(key, entry.clone());
                    Change::Put(entry)
                }
            });
        }
        Outcome::Done(self.revision)
    }
}

/// Few keys, some of them prefixes of others, so that writes meet.
fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "a/", "a/b", "a/b/c", "ab", "b", "é"]).prop_map(str::to_owned)
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (key(), prop::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(key, value)| Write::Put { key, value, lease: None }),
        1 => key().prop_map(Write::Delete),
        1 => key().prop_map(Write::DeletePrefix),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    prop_oneof![key().prop_map(Compare::Absent), (key(), 0..12_u64).prop_map(|(key, at)| Compare::Modified(key, at))]
}

type Step = (Vec<Compare>, Vec<Write>);

fn step() -> impl Strategy<Value = Step> {
    (prop::collection::vec(compare(), 0..2), prop::collection::vec(write(), 0..5))
}

async fn agree(steps: &[Step], reopen: usize) {
    let dir = directory();
    let mut store = quick(&dir).await;
    let mut model = Model::default();
    for (index, (compares, writes)) in steps.iter().enumerate() {
        if index == reopen {
            drop(store);
            store = quick(&dir).await;
        }
        let outcome = store.transact(compares, writes).await.expect("a transaction");
        assert_eq!(outcome, model.transact(compares, writes), "{compares:?} {writes:?}");
        let expected: Vec<Entry> = model.entries.values().cloned().collect();
        assert_eq!(store.list("").await.expect("a list"), (expected, model.revision));
    }
    let mut changes = store.watch("", 0).await.expect("a watch");
    drop(store);
    for expected in model.changes {
        assert_eq!(changes.recv().await, Some(expected));
    }
    assert_eq!(changes.recv().await, None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 0..16), reopen in 0_usize..16) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(agree(&steps, reopen));
    }
}

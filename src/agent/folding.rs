//! Desired states with each pod as one, kept for as long as their records are the current ones: tables are made from them
//! with every event of the engine.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::ProjectName;
use crate::plan::Desired;

use super::shared::Record;

/// The desired states that were folded last.
#[derive(Debug, Default)]
pub(super) struct Folding(Mutex<BTreeMap<ProjectName, Kept>>);

/// A record, and what it is folded.
type Kept = (Arc<Record>, Arc<Desired>);

/// A desired state as tables see it.
#[derive(Debug, Clone)]
pub(super) enum Folded {
    /// No pod has several containers.
    AsItIs(Arc<Record>),
    /// Those of some are one.
    Folded(Arc<Desired>),
}

impl Folded {
    /// Returns it; `None`: the record wants nothing.
    pub(super) fn desired(&self) -> Option<&Desired> {
        match self {
            Self::AsItIs(record) => record.desired.as_ref(),
            Self::Folded(desired) => Some(desired),
        }
    }
}

impl Folding {
    /// Folds the desired states of all current records, and forgets those of others.
    pub(super) fn of(&self, records: &[Arc<Record>]) -> Vec<Folded> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = BTreeMap::new();
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            let Some(desired) = &record.desired else {
                all.push(Folded::AsItIs(record.clone()));
                continue;
            };
            let name = &desired.graph.project;
            let folded = match known.remove(name) {
                Some((of, folded)) if Arc::ptr_eq(&of, record) => Some(folded),
                _ => match desired.folded() {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(folded) => Some(Arc::new(folded)),
                },
            };
            all.push(folded.clone().map_or_else(|| Folded::AsItIs(record.clone()), Folded::Folded));
            kept.extend(folded.map(|folded| (name.clone(), (record.clone(), folded))));
        }
        *known = kept;
        all
    }
}

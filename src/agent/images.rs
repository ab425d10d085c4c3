//! What image references mean on this host: fixed by each `up`, kept in the store, so that a tag that somebody moves by
//! hand rolls out with the next `up` and not before, also not after the agent's own restart.
//!
//! The meaning is a host's own: the same tag may be another image on another host. It belongs to one generation of a
//! project's desired state; the first pass for a newer one looks all references up again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, EngineError};
use crate::graph::Graph;
use crate::ids::ProjectName;
use crate::plan::Desired;
use crate::store::{Store, StoreError, Write};

/// Prefix of the store's keys.
const PREFIX: &str = "images/";

/// What references meant when a generation of a project was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Meaning {
    generation: u64,
    /// Image ids by reference; those that were missing are absent.
    ids: BTreeMap<String, String>,
}

/// The meanings in force, by project.
#[derive(Debug, Default)]
pub struct Images(Mutex<BTreeMap<ProjectName, Meaning>>);

/// Returns what the references of a graph mean on the engine at this moment; those it does not have are absent.
///
/// # Errors
/// What the engine says.
pub async fn look_up(engine: &dyn Engine, graph: &Graph) -> Result<BTreeMap<String, String>, EngineError> {
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut references: Vec<&str> = graph.services.values().map(|service| service.container.image.as_str()).collect();
    references.sort_unstable();
    references.dedup();
    for reference in references {
        if let Some(id) = engine.image_id(reference).await? {
            ids.insert(reference.to_owned(), id);
        }
    }
    Ok(ids)
}

/// Returns the write that keeps a meaning; to be part of the transaction that writes the desired state.
///
/// # Errors
/// None that input can cause.
pub fn write(desired: &Desired, ids: &BTreeMap<String, String>) -> Result<Write, serde_json::Error> {
    let meaning = Meaning { generation: desired.generation, ids: ids.clone() };
    let key = format!("{PREFIX}{}", desired.graph.project);
    Ok(Write::Put { key, value: serde_json::to_vec(&meaning)?, lease: None })
}

/// Returns the write that forgets a project's meaning.
pub fn forget(project: &ProjectName) -> Write {
    Write::Delete(format!("{PREFIX}{project}"))
}

impl Images {
    /// Reads what the store has kept.
    ///
    /// # Errors
    /// What the store says.
    pub async fn load(&self, store: &dyn Store) -> Result<(), StoreError> {
        let (entries, _) = store.list(PREFIX).await?;
        for entry in entries {
            let project = ProjectName::new(entry.key.trim_start_matches(PREFIX));
            if let (Ok(project), Ok(meaning)) = (project, serde_json::from_slice(&entry.value)) {
                self.lock().insert(project, meaning);
            } else {
                tracing::warn!(key = entry.key, "unreadable record of what images mean");
            }
        }
        Ok(())
    }

    /// Takes over a meaning that was written to the store.
    pub fn put(&self, desired: &Desired, ids: BTreeMap<String, String>) {
        let meaning = Meaning { generation: desired.generation, ids };
        self.lock().insert(desired.graph.project.clone(), meaning);
    }

    /// Returns the meaning in force for a desired state. One that nobody has fixed here yet is looked up and kept.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn in_force(
        &self,
        engine: &dyn Engine,
        store: &dyn Store,
        desired: &Desired,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        if let Some(ids) = self.known(desired) {
            return Ok(ids);
        }
        let ids = look_up(engine, &desired.graph).await?;
        self.keep(store, desired, ids.clone()).await;
        Ok(ids)
    }

    /// Returns the id of the image to make a container from; `None`: the engine has none.
    ///
    /// That is the one that the reference means for this desired state, also when its tag was moved meanwhile. An image
    /// that is gone, or was missing, is given up for what the reference means now: better another than none.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn of(
        &self,
        engine: &dyn Engine,
        store: &dyn Store,
        desired: &Desired,
        reference: &str,
    ) -> Result<Option<String>, EngineError> {
        let mut ids = self.in_force(engine, store, desired).await?;
        if let Some(id) = ids.get(reference)
            && engine.image_id(id).await?.is_some()
        {
            return Ok(Some(id.clone()));
        }
        let Some(now) = engine.image_id(reference).await? else { return Ok(None) };
        ids.insert(reference.to_owned(), now.clone());
        self.keep(store, desired, ids).await;
        Ok(Some(now))
    }

    /// Forgets a project that is gone.
    pub fn remove(&self, project: &ProjectName) {
        self.lock().remove(project);
    }

    fn known(&self, desired: &Desired) -> Option<BTreeMap<String, String>> {
        let meanings = self.lock();
        let meaning = meanings.get(&desired.graph.project)?;
        (meaning.generation == desired.generation).then(|| meaning.ids.clone())
    }

    /// Keeps a meaning; healing goes on without the store, so that it may be known here only.
    async fn keep(&self, store: &dyn Store, desired: &Desired, ids: BTreeMap<String, String>) {
        if let Ok(write) = write(desired, &ids)
            && let Err(error) = store.transact(&[], &[write]).await
        {
            tracing::warn!(project = %desired.graph.project, %error, "cannot keep what images mean");
        }
        self.put(desired, ids);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProjectName, Meaning>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

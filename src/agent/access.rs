//! The access log of this host, where the user asked for it: lines of the load balancer, written to the agent's own log.
//!
//! Whether it is on is in the host's own store, as where metrics are told is: see [`super::metrics::expose`]. Lines that come
//! faster than the engine takes the log are counted, and their number is said; no request waits for them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lb::AccessLine;
use crate::store::{Store, StoreError, Write};

use super::shared::Shared;

/// Where the setting is in the store.
const KEY: &str = "settings/access-log";

/// The target of its events: what `grep` finds.
const TARGET: &str = "orch::access";

/// Lines that are written at a time.
const BATCH: usize = 256;

/// Pause between two words about lines that are missing.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What is in the store.
#[derive(Debug, Serialize, Deserialize)]
struct Setting {
    on: bool,
}

/// Turns it on if it was when the agent ended.
///
/// # Errors
/// What the store says.
pub(super) async fn load(shared: &Shared) -> Result<(), StoreError> {
    let Some(entry) = shared.store.get(KEY).await? else { return Ok(()) };
    match serde_json::from_slice::<Setting>(&entry.value) {
        Ok(Setting { on }) => shared.dataplane.access_log().turn(on),
        Err(error) => tracing::error!(%error, "the store holds a setting of the access log that cannot be read"),
    }
    Ok(())
}

/// Turns it on or off, from now on and over restarts.
///
/// # Errors
/// It cannot be written down; then all is as before.
pub(super) async fn set(shared: &Shared, on: bool) -> Result<(), StoreError> {
    let write = if on {
        let value =
            serde_json::to_vec(&Setting { on }).map_err(|error| StoreError::Failed { message: error.to_string() })?;
        Write::Put { key: KEY.to_owned(), value, lease: None }
    } else {
        Write::Delete(KEY.to_owned())
    };
    write_down(shared.store.as_ref(), write).await?;
    shared.dataplane.access_log().turn(on);
    Ok(())
}

async fn write_down(store: &dyn Store, write: Write) -> Result<(), StoreError> {
    store.transact(&[], &[write]).await.map(drop)
}

/// Writes lines as they come, until stopped. Started by `wire` only.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let log = shared.dataplane.access_log();
    let (mut told, mut at) = (0, None::<Instant>);
    loop {
        let mut lines = Vec::new();
        tokio::select! {
            () = stop.cancelled() => return,
            () = log.receive(&mut lines, BATCH) => {}
        }
        // The engine may take its time; a thread of the runtime's must not wait for it.
        if tokio::task::spawn_blocking(move || lines.iter().for_each(write)).await.is_err() {
            return;
        }
        let dropped = log.dropped();
        if dropped > told && at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            tracing::warn!(target: TARGET, requests = dropped - told, "no lines: they came faster than they are written");
            (told, at) = (dropped, Some(Instant::now()));
        }
    }
}

fn write(line: &AccessLine) {
    tracing::info!(target: TARGET, "{line}");
}

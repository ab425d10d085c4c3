//! Metrics at an address of the host, where the user asked for that: never by itself.
//!
//! The address is in the host's own store rather than an option of the agent's container: that is made anew by whatever command
//! line brings the next version, which would not know of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::shared::Shared;
use crate::api::server::{Handler, serve_metrics};
use crate::store::{Store, StoreError, Write};

/// Where the address is in the store.
const KEY: &str = "settings/metrics";

/// Pause before an address that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What is in the store.
#[derive(Debug, Serialize, Deserialize)]
struct Setting {
    listen: SocketAddr,
}

/// Where metrics are told over TCP.
#[derive(Debug, Default)]
pub(in crate::agent) struct Exposure {
    wanted: watch::Sender<Option<SocketAddr>>,
    /// A listener at the address that is wanted, to be taken over.
    opened: Mutex<Option<TcpListener>>,
    problem: Mutex<Option<String>>,
}

impl Exposure {
    /// Reads what was asked for last.
    ///
    /// # Errors
    /// What the store says.
    pub(in crate::agent) async fn load(&self, store: &dyn Store) -> Result<(), StoreError> {
        let Some(entry) = store.get(KEY).await? else { return Ok(()) };
        match serde_json::from_slice::<Setting>(&entry.value) {
            Ok(Setting { listen }) => drop(self.wanted.send_replace(Some(listen))),
            Err(error) => tracing::error!(%error, "the store holds an address for metrics that cannot be read"),
        }
        Ok(())
    }

    /// Tells metrics at `address` from now on, over restarts; `None`: nowhere.
    ///
    /// # Errors
    /// Why it cannot be listened there, or be written down; then all is as before.
    pub(in crate::agent) async fn set(&self, store: &dyn Store, address: Option<SocketAddr>) -> Result<(), SetError> {
        if *self.wanted.borrow() == address && self.problem().is_none() {
            return Ok(());
        }
        let opened = match address {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| SetError::Bind { address, source })?)
            }
            None => None,
        };
        let write = match address {
            Some(listen) => {
                let value = serde_json::to_vec(&Setting { listen })
                    .map_err(|error| StoreError::Failed { message: error.to_string() })?;
                Write::Put { key: KEY.to_owned(), value, lease: None }
            }
            None => Write::Delete(KEY.to_owned()),
        };
        store.transact(&[], &[write]).await?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = opened;
        self.note(None);
        self.wanted.send_replace(address);
        Ok(())
    }

    /// Returns where they are told, or shall be.
    pub(in crate::agent) fn address(&self) -> Option<SocketAddr> {
        *self.wanted.borrow()
    }

    /// Returns why they are not told where they shall be.
    pub(in crate::agent) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Listens at `address`; tries for as long as it takes.
    async fn listener(&self, address: SocketAddr) -> TcpListener {
        if let Some(opened) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return opened;
        }
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    self.note(None);
                    return listener;
                }
                Err(error) => self.note(Some(format!("metrics cannot be told at {address}: {error}"))),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Why metrics are not told where they should be.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent) enum SetError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Tells metrics where it is asked for, until stopped. Started by `wire` only.
pub(in crate::agent) async fn run(shared: Arc<Shared>, handler: Arc<dyn Handler>, stop: CancellationToken) {
    let mut wanted = shared.exposure.wanted.subscribe();
    loop {
        let address = *wanted.borrow_and_update();
        let serving = async {
            match address {
                Some(address) => serve_metrics(shared.exposure.listener(address).await, Arc::clone(&handler)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = serving => {}
        }
    }
}

//! A store whose values are sealed before they reach another store, so that contents of secrets are in no file, log or
//! copy of it in clear.
//!
//! Sealed are whole values, with AES-256-GCM: what is a secret in a value is not for a store to know. Keys stay readable,
//! and a value opens under its own key only. The sealing key is in a file of its own, made once. That protects copies of
//! the store (backups, disks sent back) as long as the file is not beside them; it does not protect against root on the
//! host, who can read both, as with Docker Swarm's log and its key.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::mpsc;

use super::{Change, Compare, Entry, LeaseId, Outcome, Result, Store, StoreError, StoreRevision, Write};

/// First byte of a sealed value. JSON never begins so: what does not was written by an orch that did not seal.
const SEALED: u8 = 1;

/// Bytes of the key.
const KEY_LEN: usize = 32;

/// Seals the values of another store.
pub struct Sealed {
    inner: Arc<dyn Store>,
    seal: Arc<Seal>,
}

struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
    path: PathBuf,
}

impl Sealed {
    /// Seals values of `inner` under the key in the file at `path`, which is made if it is not there, readable by its owner
    /// only. Values that an earlier orch wrote in clear are sealed now.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the file is not a key, or not the one that `inner` was sealed with.
    pub async fn open(inner: Arc<dyn Store>, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let key = tokio::task::spawn_blocking({
            let path = path.clone();
            move || key_of(&path)
        });
        let key = key.await.map_err(|error| StoreError::Failed { message: error.to_string() })??;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| unusable(&path, "it is not a key"))?;
        let seal = Arc::new(Seal { key: LessSafeKey::new(key), random: SystemRandom::new(), path });
        let store = Self { inner, seal };
        store.seal_the_rest().await?;
        Ok(store)
    }

    async fn seal_the_rest(&self) -> Result<()> {
        let (entries, _) = self.inner.list("").await?;
        let mut rest = Vec::new();
        for entry in entries {
            if entry.value.first() == Some(&SEALED) {
                // One that does not open must be found before anything is written.
                self.seal.open(&entry.key, entry.value)?;
            } else {
                rest.push(Write::Put { key: entry.key, value: entry.value, lease: entry.lease });
            }
        }
        if !rest.is_empty() {
            self.transact(&[], &rest).await?;
            self.inner.compact().await?;
        }
        Ok(())
    }
}

impl Seal {
    fn close(&self, key: &str, value: &[u8]) -> Result<Vec<u8>> {
        let failed = |_| StoreError::Failed { message: format!("cannot seal `{key}`") };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(failed)?;
        let mut body = value.to_vec();
        let aad = Aad::from(key.as_bytes());
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body).map_err(failed)?;
        Ok([&[SEALED], nonce.as_slice(), &body].concat())
    }

    /// What is not sealed is returned as it is.
    fn open(&self, key: &str, mut value: Vec<u8>) -> Result<Vec<u8>> {
        if value.first() != Some(&SEALED) {
            return Ok(value);
        }
        let foreign = || unusable(&self.path, format!("`{key}` was not sealed with this key, or is damaged"));
        let (nonce, body) = value[1..].split_at_mut_checked(NONCE_LEN).ok_or_else(foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| foreign())?;
        let opened = self.key.open_in_place(nonce, Aad::from(key.as_bytes()), body).map_err(|_| foreign())?;
        Ok(opened.to_vec())
    }

    fn open_entry(&self, entry: Entry) -> Result<Entry> {
        let value = self.open(&entry.key, entry.value)?;
        Ok(Entry { value, ..entry })
    }
}

#[async_trait]
impl Store for Sealed {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.inner.get(key).await?.map(|entry| self.seal.open_entry(entry)).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<Entry>, StoreRevision)> {
        let (entries, revision) = self.inner.list(prefix).await?;
        let opened: Result<Vec<Entry>> = entries.into_iter().map(|entry| self.seal.open_entry(entry)).collect();
        Ok((opened?, revision))
    }

    async fn transact(&self, compares: &[Compare], writes: &[Write]) -> Result<Outcome> {
        let sealed = writes.iter().map(|write| match write {
            Write::Put { key, value, lease } => {
                Ok(Write::Put { key: key.clone(), value: self.seal.close(key, value)?, lease: *lease })
            }
            other => Ok(other.clone()),
        });
        let sealed: Result<Vec<Write>> = sealed.collect();
        self.inner.transact(compares, &sealed?).await
    }

    async fn compact(&self) -> Result<()> {
        self.inner.compact().await
    }

    async fn watch(&self, prefix: &str, after: StoreRevision) -> Result<mpsc::Receiver<Change>> {
        let mut changes = self.inner.watch(prefix, after).await?;
        // What the receiver is behind waits in the inner store's channel, which has the bound.
        let (sender, receiver) = mpsc::channel(1);
        let seal = self.seal.clone();
        tokio::spawn(async move {
            loop {
                let change = tokio::select! {
                    change = changes.recv() => change,
                    () = sender.closed() => return,
                };
                let opened = match change {
                    Some(Change::Put(entry)) => seal.open_entry(entry).map(Change::Put),
                    Some(deleted) => Ok(deleted),
                    None => return,
                };
                match opened {
                    Ok(change) => {
                        if sender.send(change).await.is_err() {
                            return;
                        }
                    }
                    // Who watches lists again and is told the same.
                    Err(error) => return tracing::error!(%error, "a watch of the store ends"),
                }
            }
        });
        Ok(receiver)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.inner.revoke(lease).await
    }
}

/// Reads the key, or makes one. A cut in the middle leaves no half of a key: it gets its name when it is whole.
fn key_of(path: &Path) -> Result<[u8; KEY_LEN]> {
    match read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(unusable(path, "it is not a key")),
        read => return read.map_err(|error| unusable(path, error.to_string())),
    }
    let mut key = [0; KEY_LEN];
    let random = SystemRandom::new();
    random.fill(&mut key).map_err(|_| StoreError::Failed { message: "no random numbers".to_owned() })?;
    write(path, &key).map_err(|error| unusable(path, error.to_string()))?;
    Ok(key)
}

fn read(path: &Path) -> std::io::Result<[u8; KEY_LEN]> {
    let mut key = [0; KEY_LEN];
    File::open(path)?.read_exact(&mut key)?;
    Ok(key)
}

fn write(path: &Path, key: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(key)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn unusable(path: &Path, message: impl Into<String>) -> StoreError {
    StoreError::Unusable { path: path.display().to_string(), message: message.into() }
}

#[cfg(test)]
mod tests;

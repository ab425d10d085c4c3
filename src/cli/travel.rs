//! What lies beside the compose file and is mounted by pods: on other hosts it is there as a snapshot.
//!
//! A snapshot is a copy, so it is mounted read-only or not at all: what a container wrote to its host's copy would be on
//! that host only, and lost with the next change. On the local engine alone a bind stays what it is, live and writable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;

use crate::api::client::Client;
use crate::api::types::ObjectState;
use crate::diag::{Diagnostic, Diagnostics};
use crate::expand::Snapshots;
use crate::graph::member_name;
use crate::ids::{HostName, ServiceName, SnapshotHash};
use crate::load::Loaded;
use crate::model::quantity::parse_bytes;
use crate::model::{MountType, Service, ServiceVolume};
use crate::snapshot::{self, DEFAULT_LIMIT, Tree};

use super::board::Event;
use super::error::CliError;
use super::progress::while_shown;
use super::project::{place, steps};
use super::ui::Ui;

/// Key of a mount's long form: the largest that it may be.
const LIMIT_KEY: &str = "x-max-size";

/// The snapshots that a project's pods mount.
#[derive(Debug, Clone, Default)]
pub(crate) struct Luggage {
    /// Which mounts show them.
    pub snapshots: Snapshots,
    parcels: BTreeMap<SnapshotHash, Parcel>,
}

/// One snapshot, still where it comes from.
#[derive(Debug, Clone)]
struct Parcel {
    /// As messages call it.
    name: String,
    root: PathBuf,
    tree: Tree,
}

/// Makes snapshots of everything beside the compose files that is mounted. A path elsewhere (`/var/run`,
/// `/etc/localtime`) is one of the host that the pod runs on.
///
/// # Errors
/// All that cannot travel, each at its place.
pub(crate) fn gather(loaded: &Loaded) -> Result<Luggage, CliError> {
    let mut gathering = Gathering { loaded, luggage: Luggage::default(), problems: Vec::new(), seen: BTreeMap::new() };
    for (name, service) in &loaded.model.services {
        let path = format!("services.{name}");
        gathering.mounts(name, &path, service);
        for (key, helper, container) in service.keys.helpers() {
            let Ok(full) = member_name(name, helper) else { continue };
            gathering.mounts(&full, &format!("{path}.{key}.{helper}"), container);
        }
    }
    gathering.volumes();
    let problems = Diagnostics::new(gathering.problems, Arc::new(loaded.warnings.sources().clone()));
    if problems.is_empty() { Ok(gathering.luggage) } else { Err(CliError::Files(problems)) }
}

struct Gathering<'a> {
    loaded: &'a Loaded,
    luggage: Luggage,
    problems: Vec<Diagnostic>,
    /// What was looked at, with the limit: several services may mount the same.
    seen: BTreeMap<(&'a str, u64), SnapshotHash>,
}

impl<'a> Gathering<'a> {
    fn mounts(&mut self, name: &ServiceName, path: &str, service: &'a Service) {
        for (at, volume) in service.volumes.iter().enumerate() {
            self.mount(name, at, volume, &format!("{path}.volumes[{at}]"));
        }
    }

    fn mount(&mut self, service: &ServiceName, at: usize, volume: &'a ServiceVolume, list: &str) {
        let Some(path) = volume.source.as_deref().filter(|_| volume.kind == MountType::Bind) else { return };
        if !self.is_beside(path, &[list.to_owned(), format!("{list}.source")]) {
            return;
        }
        match self.snapshot(path, volume) {
            Ok(hash) => drop(self.luggage.snapshots.insert((service.clone(), at), hash)),
            Err((text, help)) => {
                self.problems.push(place(self.loaded, list, Diagnostic::error(text).help(help)));
            }
        }
    }

    fn snapshot(&mut self, path: &'a str, volume: &ServiceVolume) -> Result<SnapshotHash, (String, String)> {
        let copy = "the pods run on other hosts, where it is a copy";
        if !volume.read_only {
            let help = "mount it read-only (`:ro`), or use a volume for what containers write";
            return Err((
                format!("`{path}` is mounted writable, and {copy} that is never written to"),
                help.to_owned(),
            ));
        }
        if let Some(propagation) = volume.bind.as_ref().and_then(|bind| bind.propagation.as_deref()) {
            let text = format!("`{path}` has mount propagation `{propagation}`, and {copy} without mounts below");
            return Err((text, "leave the propagation out".to_owned()));
        }
        let limit = limit(volume)?;
        if let Some(hash) = self.seen.get(&(path, limit)) {
            return Ok(hash.clone());
        }
        let root = Path::new(path);
        let tree = snapshot::scan(root, limit).map_err(|error| (error.to_string(), error.help()))?;
        let hash = tree.hash();
        let name = root.strip_prefix(&self.loaded.working_dir).unwrap_or(root);
        let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
        let parcel = Parcel { name: name.display().to_string(), root: root.to_owned(), tree };
        self.luggage.parcels.insert(hash.clone(), parcel);
        self.seen.insert((path, limit), hash.clone());
        Ok(hash)
    }

    /// Volumes that the `local` driver binds to a directory are a host's own; one of this machine would not be there.
    fn volumes(&mut self) {
        for (key, volume) in &self.loaded.model.volumes {
            let local = volume.driver.as_deref().is_none_or(|driver| driver == "local");
            let binds = volume.driver_opts.get("o").is_some_and(|o| o.split(',').any(|option| option == "bind"));
            let Some(device) = volume.driver_opts.get("device").filter(|_| local && binds) else { continue };
            let at = format!("volumes.{key}.driver_opts.device");
            if self.is_beside(device, std::slice::from_ref(&at)) {
                let text = format!("`{device}` is a path of this machine, and the pods run on other hosts");
                let help = "name a directory of the hosts by a path outside of the project's directory, or mount this one \
                            read-only as a bind, which travels";
                self.problems.push(place(self.loaded, &at, Diagnostic::error(text).help(help)));
            }
        }
    }

    /// Returns whether a path belongs to the project, or was written at one of `places` relative to it or to the user's
    /// home.
    fn is_beside(&self, path: &str, places: &[String]) -> bool {
        let written = |place: &String| {
            let steps = steps(place, self.loaded.model.services.keys().map(ServiceName::as_str));
            let span = self.loaded.place(&steps.iter().map(String::as_str).collect::<Vec<_>>())?;
            let text = self.loaded.warnings.sources().slice(span);
            Some(text.trim_start_matches(['"', '\'']).starts_with(['.', '~']))
        };
        Path::new(path).starts_with(&self.loaded.working_dir)
            || places.iter().any(|place| written(place).unwrap_or(false))
    }
}

fn limit(volume: &ServiceVolume) -> Result<u64, (String, String)> {
    let Some(value) = volume.extensions.get(LIMIT_KEY) else { return Ok(DEFAULT_LIMIT) };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let bytes = parse_bytes(&text).ok().and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| (format!("`{text}` is not a size for `{LIMIT_KEY}`"), "write it as `256m` or `1g`".to_owned()))
}

/// Sends the seat what it lacks; the other hosts get it from there.
///
/// # Errors
/// [`CliError::NotSent`] with the path and why; nothing of it stays there then.
pub(crate) async fn send(ui: &mut Ui, seat: &Client, name: &HostName, luggage: &Luggage) -> Result<(), CliError> {
    if luggage.parcels.is_empty() {
        return Ok(());
    }
    let missing = seat.missing_snapshots(luggage.parcels.keys().cloned().collect()).await;
    let missing = missing.map_err(|error| CliError::on_host(name, error))?;
    let parcels: Vec<_> = missing.iter().filter_map(|hash| Some((hash, luggage.parcels.get(hash)?))).collect();
    if parcels.is_empty() {
        return Ok(());
    }
    let sending = while_shown(ui, "Files", async |show| {
        for (hash, parcel) in parcels {
            let event = |status: &str, state| {
                let id = format!("Files {}", parcel.name);
                show(Event { id, status: status.to_owned(), state, detail: None });
            };
            event("Sending", ObjectState::Working);
            if let Err(cause) = send_one(seat, name, hash, parcel).await {
                event("Error", ObjectState::Error);
                return Err(CliError::NotSent { path: parcel.name.clone(), cause: Box::new(cause) });
            }
            event("Sent", ObjectState::Done);
        }
        Ok(())
    });
    sending.await
}

async fn send_one(seat: &Client, name: &HostName, hash: &SnapshotHash, parcel: &Parcel) -> Result<(), CliError> {
    let Parcel { name: path, root, tree } = parcel;
    // A file that cannot be read any more ends the request in the middle, of which the agent cannot say why.
    let unread: Arc<Mutex<Option<io::Error>>> = Arc::default();
    let note = unread.clone();
    let archive = snapshot::packed(root.clone(), tree.clone()).map(move |piece| {
        piece.map_err(|error| {
            let kind = error.kind();
            note.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
            kind.into()
        })
    });
    let sent = seat.send_snapshot(hash, tree.size(), Box::pin(archive)).await;
    let unread = unread.lock().unwrap_or_else(PoisonError::into_inner).take();
    match unread {
        Some(source) => Err(CliError::Read { path: path.clone(), source }),
        None => sent.map_err(|error| CliError::on_host(name, error)),
    }
}

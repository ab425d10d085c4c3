//! Brings a container what it lacks: removals by `rm` in it, files as one archive, then what is run there.
//!
//! Owners are the container's user, or those of the files where it has none; `rm` runs as root, as the archive is unpacked.
//! Source: Docker Compose 2.40, internal/sync/tar.go.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use crate::cli::carry::{CarryError, Owner, pack_each};
use crate::diag::chain;
use crate::engine::by_hand::Unpack;
use crate::engine::{BoxStream, Engine, EngineError, ExecSpec};
use crate::model::Hook;
use crate::snapshot::pipe::{PIECES, Piece, PipeWriter};

use super::lacks::{Parcel, Put};

/// Bytes of paths that one `rm` gets at most: far below what a kernel takes.
const ARGUMENTS: usize = 64 << 10;

/// How much of what a failed `rm` said is told.
const TOLD: usize = 300;

/// What a command in a container wrote.
pub(crate) type Output = (bool, Bytes);

/// How it went.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The container has it.
    Done,
    /// The rest only goes into one that runs.
    Later,
    /// The container is not there any more, or has ended meanwhile.
    Gone,
    /// It has not.
    Failed {
        /// Why.
        message: String,
        /// Whether it may work next time without a change.
        again: bool,
    },
}

/// Brings a container a parcel. What commands write goes to `said`. Returns what went wrong on the way, too.
pub(crate) async fn deliver(
    engine: &dyn Engine,
    id: &str,
    is_running: bool,
    parcel: &Parcel,
    said: &mpsc::Sender<Output>,
) -> (Outcome, Vec<String>) {
    let mut troubles = Vec::new();
    let outcome = match steps(engine, id, is_running, parcel, said, &mut troubles).await {
        Ok(outcome) => outcome,
        Err(EngineError::NotFound { .. } | EngineError::Conflict { .. }) => Outcome::Gone,
        Err(error) => Outcome::Failed { message: words(&error), again: error.is_transient() },
    };
    (outcome, troubles)
}

/// The engine's words; which container it is about is said by the caller.
fn words(error: &EngineError) -> String {
    match error {
        EngineError::Refused { message, .. } | EngineError::Failed { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

async fn steps(
    engine: &dyn Engine,
    id: &str,
    is_running: bool,
    parcel: &Parcel,
    said: &mpsc::Sender<Output>,
    troubles: &mut Vec<String>,
) -> Result<Outcome, EngineError> {
    if is_running {
        for paths in portions(&parcel.remove) {
            troubles.extend(remove(engine, id, paths).await?);
        }
    }
    if !parcel.put.is_empty()
        && let Some(outcome) = put(engine, id, parcel).await?
    {
        return Ok(outcome);
    }
    if !is_running {
        let rest = !(parcel.remove.is_empty() && parcel.execs.is_empty());
        return Ok(if rest { Outcome::Later } else { Outcome::Done });
    }
    for exec in &parcel.execs {
        troubles.extend(run(engine, id, exec, said).await?);
    }
    Ok(Outcome::Done)
}

/// Takes a list of paths apart, so that each part is short enough for a command.
fn portions(paths: &[PathBuf]) -> Vec<Vec<String>> {
    let mut portions: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for path in paths {
        let path = path.to_string_lossy().into_owned();
        if let Some(portion) = portions.last_mut().filter(|_| path.len() < room) {
            room -= path.len() + 1;
            portion.push(path);
        } else {
            room = ARGUMENTS.saturating_sub(path.len() + 1);
            portions.push(vec![path]);
        }
    }
    portions
}

/// Removes paths in a container. Returns why they are still there.
async fn remove(engine: &dyn Engine, id: &str, paths: Vec<String>) -> Result<Option<String>, EngineError> {
    let count = paths.len();
    let first = paths.first().cloned().unwrap_or_default();
    let command = ["rm", "-rf"].map(str::to_owned).into_iter().chain(paths).collect();
    let spec = ExecSpec { command, user: Some("0".to_owned()), ..ExecSpec::default() };
    let (ended, text) = ask(engine, id, &spec).await?;
    let what = if count == 1 { first } else { format!("{first} and {} more", count - 1) };
    Ok(match ended {
        Ended::Code(0) => None,
        Ended::Code(126 | 127) | Ended::NoProgram => {
            Some(format!("{what} cannot be removed there: its image has no `rm`; rebuild the service instead"))
        }
        Ended::Code(_) => Some(format!("{what} could not be removed there: {text}")),
    })
}

/// Runs a command in a container. Returns how it ended, and the beginning of what it wrote.
async fn ask(engine: &dyn Engine, id: &str, spec: &ExecSpec) -> Result<(Ended, String), EngineError> {
    let (sender, mut receiver) = mpsc::channel::<Output>(PIECES);
    let listening = async {
        let mut text = Vec::new();
        while let Some((_, bytes)) = receiver.recv().await {
            text.extend_from_slice(&bytes);
            text.truncate(TOLD);
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    };
    let running = async {
        let ended = run_to_end(engine, id, spec, &sender).await;
        drop(sender);
        ended
    };
    let (ended, text) = tokio::join!(running, listening);
    Ok((ended?, text))
}

/// Returns the numbers of a container's user and group, as it sees them itself; `None`: it cannot say.
async fn user(engine: &dyn Engine, id: &str) -> Result<Option<Owner>, EngineError> {
    let mut numbers = [0; 2];
    for (number, flag) in numbers.iter_mut().zip(["-u", "-g"]) {
        let spec = ExecSpec { command: vec!["id".to_owned(), flag.to_owned()], ..ExecSpec::default() };
        match ask(engine, id, &spec).await? {
            (Ended::Code(0), text) if let Ok(found) = text.parse() => *number = found,
            _ => return Ok(None),
        }
    }
    Ok(Some(Owner { user: numbers[0], group: numbers[1] }))
}

/// Runs a command in a container. Returns why it failed.
async fn run(
    engine: &dyn Engine,
    id: &str,
    hook: &Hook,
    said: &mpsc::Sender<Output>,
) -> Result<Option<String>, EngineError> {
    let Hook { command, environment, image: _, per_replica: _, privileged, user, working_dir, extensions: _ } = hook;
    let spec = ExecSpec {
        command: command.clone().unwrap_or_default(),
        // A name alone takes the variable away.
        env: environment
            .iter()
            .map(|(name, value)| value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")))
            .collect(),
        user: user.clone(),
        working_dir: working_dir.clone(),
        privileged: *privileged,
        ..ExecSpec::default()
    };
    let text = spec.command.join(" ");
    Ok(match run_to_end(engine, id, &spec, said).await? {
        Ended::Code(0) => None,
        Ended::Code(code) => Some(format!("`{text}` ended with {code}")),
        Ended::NoProgram => Some(format!("`{text}` cannot be run: there is no such program")),
    })
}

/// How a command ended.
enum Ended {
    Code(i64),
    NoProgram,
}

async fn run_to_end(
    engine: &dyn Engine,
    id: &str,
    spec: &ExecSpec,
    said: &mpsc::Sender<Output>,
) -> Result<Ended, EngineError> {
    let ran = async {
        let mut session = engine.exec(id, spec).await?;
        while let Some(chunk) = session.output.next().await {
            let chunk = chunk?;
            said.send((chunk.stderr, chunk.bytes)).await.ok();
        }
        engine.exec_exit_code(&session.id).await
    };
    match ran.await {
        Ok(code) => Ok(Ended::Code(code)),
        // The engine says that a program is not there as if something of its own was wrong.
        Err(EngineError::Failed { message, .. }) if message.contains("exec failed") => Ok(Ended::NoProgram),
        Err(error) => Err(error),
    }
}

/// How files are sent.
#[derive(Debug, Clone, Copy, Default)]
struct How {
    /// Nothing is said of directories but of those with nothing in them.
    without_directories: bool,
    /// Whose they are; `None`: the engine knows who the container's user is.
    owner: Option<Owner>,
}

/// Unpacks files in a container; `Some`: why not.
async fn put(engine: &dyn Engine, id: &str, parcel: &Parcel) -> Result<Option<Outcome>, EngineError> {
    let mut how = How::default();
    loop {
        match send(engine, id, parcel, how).await {
            // A directory of ours is a link to one there, which stays.
            Err(error) if !how.without_directories && words(&error).contains("cannot overwrite non-directory") => {
                how.without_directories = true;
            }
            // Engines before 25 look for the container's user among those of the host.
            Err(error) if how.owner.is_none() && words(&error).contains("passwd") => match user(engine, id).await? {
                None => return Err(error),
                owner => how.owner = owner,
            },
            sent => return sent,
        }
    }
}

async fn send(engine: &dyn Engine, id: &str, parcel: &Parcel, how: How) -> Result<Option<Outcome>, EngineError> {
    let is_empty = |path: &Path| !parcel.put.keys().any(|other| other.parent() == Some(path));
    let is_meant = |path: &Path, put: &Put| !(how.without_directories && put.is_directory) || is_empty(path);
    let meant = parcel.put.iter().filter(|(path, put)| is_meant(path, put));
    let list: Vec<(PathBuf, PathBuf)> =
        meant.map(|(inside, put)| (put.from.clone(), inside.strip_prefix("/").unwrap_or(inside).to_owned())).collect();
    let (pieces, taken) = mpsc::channel::<Piece>(PIECES);
    let packing = tokio::task::spawn_blocking(move || {
        let each = list.iter().map(|(from, name)| (from.as_path(), name.as_path()));
        let packed = pack_each(each, how.owner, PipeWriter::new(pieces.clone()));
        if packed.is_err() {
            // Nothing half is taken for whole.
            pieces.blocking_send(Err(std::io::Error::other("the files could not be read"))).ok();
        }
        packed
    });
    let archive: BoxStream<'static, Piece> =
        stream::unfold(taken, |mut taken| async move { taken.recv().await.map(|piece| (piece, taken)) }).boxed();
    let written = engine.write_archive(id, "/", archive, Unpack { owners: how.owner.is_none() }).await;
    match packing.await {
        // Where nobody takes what is packed, who does not take it says why.
        Ok(Ok(()) | Err(CarryError::Archive(_))) => written.map(|()| None),
        Ok(Err(error)) => Ok(Some(Outcome::Failed { message: chain(&error), again: false })),
        Err(error) => Ok(Some(Outcome::Failed { message: error.to_string(), again: true })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_kept_short() {
        let long = |count: usize| (0..count).map(|at| PathBuf::from(format!("/{at:0>99}"))).collect::<Vec<_>>();
        for (count, portions_of) in [(0, &[][..]), (1, &[1]), (600, &[600]), (1400, &[648, 648, 104])] {
            let sizes: Vec<usize> = portions(&long(count)).iter().map(Vec::len).collect();
            assert_eq!(sizes, portions_of, "{count}");
        }
        assert_eq!(portions(&[PathBuf::from("/a".repeat(ARGUMENTS)), PathBuf::from("/b")]).len(), 2);
    }
}

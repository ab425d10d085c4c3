//! `orch cp`: files into containers and out of them, on whichever hosts they are; streamed, a few pieces in memory.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use crate::api::types::ObjectState;
use crate::cli::among::{self, Among, Which};
use crate::cli::args::CpArgs;
use crate::cli::board::Event;
use crate::cli::carry::{CarryError, There, Written, landing, look, pack, split, unpack};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::progress::Live;
use crate::cli::source::Source;
use crate::cli::ui::Ui;
use crate::engine::by_hand::{PathStat, Unpack};
use crate::engine::{BoxStream, EngineError};
use crate::ids::ServiceName;
use crate::observed::ObservedContainer;
use crate::snapshot::pipe::{PIECES, Piece, PipeReader, PipeWriter};

/// Standard input or output.
const STANDARD: &str = "-";
/// Piece of standard input that is passed on at once.
const PIECE: usize = 64 << 10;

/// Copies files between a service's containers and this machine.
///
/// # Errors
/// When there is no such container, or what `docker cp` refuses too.
pub(crate) async fn run(context: &mut Context<'_>, args: &CpArgs) -> Result<(), CliError> {
    match (side(&args.from)?, side(&args.to)?) {
        (Side::Container(service, path), Side::Here(to)) => out_of(context, args, &service, &path, &to).await,
        (Side::Here(from), Side::Container(service, path)) => into(context, args, &from, &service, &path).await,
        (Side::Container(..), Side::Container(..)) => Err(CarryError::BothRemote.into()),
        (Side::Here(_), Side::Here(_)) => Err(CarryError::NoneRemote.into()),
    }
}

/// One of the two paths.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Container(ServiceName, String),
    Here(String),
}

/// A path that begins with `/` or `.` is one of this machine, whatever follows. Source: docker/cli, `splitCpArg`.
fn side(text: &str) -> Result<Side, CliError> {
    match text.split_once(':') {
        Some((service, path)) if !text.starts_with(['/', '.']) => {
            Ok(Side::Container(ServiceName::new(service)?, path.to_owned()))
        }
        _ => Ok(Side::Here(text.to_owned())),
    }
}

/// Returns the containers that are meant: that of the number, else all of the service, those that do not run too.
async fn targets(
    context: &mut Context<'_>,
    args: &CpArgs,
    service: &ServiceName,
) -> Result<(Among, Vec<(usize, ObservedContainer)>), CliError> {
    let services = [service.clone()];
    let which = Which { services: &services, stopped: true, oneoffs: args.all };
    let among = match among::find(context, which).await {
        Err(CliError::NoSuchService { .. }) => return Err(CarryError::NoContainer(service.clone()).into()),
        found => found?,
    };
    let is_meant = |one: &ObservedContainer| {
        one.service.as_ref() == Some(service) && (args.index == 0 || one.number == Some(args.index) && !one.oneoff)
    };
    let mut targets: Vec<_> = among.containers.iter().filter(|(_, one)| is_meant(one)).cloned().collect();
    targets.sort_by_key(|(_, one)| (one.oneoff, one.number));
    match (targets.is_empty(), args.index) {
        (false, _) => Ok((among, targets)),
        (true, 0) => Err(CarryError::NoContainer(service.clone()).into()),
        (true, index) => {
            let away = context.left_out().to_vec();
            Err(CliError::NotRunning { name: service.clone(), index, away })
        }
    }
}

/// Says what would be copied.
fn preview(ui: &mut Ui, source: &Source, from: &str, to: &str) -> Result<(), CliError> {
    ui.line(&format!("copy {from} to {to}{}", source.on()))
}

/// Says what is copied, as Docker Compose does.
fn tell(live: &mut Live<'_>, container: &ObservedContainer, from: &str, to: &str, is_done: bool) {
    let (word, state) = if is_done { ("Copied", ObjectState::Done) } else { ("Copying", ObjectState::Working) };
    let status = format!("copy {from} to {to} {word}");
    live.event(Event { id: container.name.clone(), status, state, detail: None });
}

async fn out_of(
    context: &mut Context<'_>,
    args: &CpArgs,
    service: &ServiceName,
    path: &str,
    to: &str,
) -> Result<(), CliError> {
    let (among, targets) = targets(context, args, service).await?;
    let Some((at, container)) = targets.first() else { return Err(CarryError::NoContainer(service.clone()).into()) };
    let source = among.source(*at);
    let (from_text, to_text) = (format!("{}:{path}", container.name), to.to_owned());
    let failed = |error: EngineError| source.failed(error);
    let mut from = Written::new(path, "");
    let name = from.base().to_owned();
    let mut stat = stat(source, container, &from).await?;
    if args.follow_link && !stat.link.is_empty() {
        from = Written::new(&stat.link, split(&from.path).0);
        stat = self::stat(source, container, &from).await?;
    }
    let target = if to == STANDARD {
        None
    } else {
        let to = here(to)?;
        Some(PathBuf::from(landing(&to, look(&to)?, &name, stat.is_dir)?))
    };
    if context.global.dry_run {
        return preview(context.ui, source, &from_text, &to_text);
    }
    let mut archive = source.engine.read_archive(&container.id, &from.text());
    let Some(target) = target else {
        // What goes to standard output is all there is to say.
        while let Some(piece) = archive.next().await {
            context.ui.data(&piece.map_err(failed)?)?;
        }
        return Ok(());
    };
    let mut live = Live::new(context.ui, "Copying");
    tell(&mut live, container, &from_text, &to_text, false);
    let base = from.base().to_owned();
    let (pieces, taken) = mpsc::channel(PIECES);
    let unpacking = tokio::task::spawn_blocking(move || unpack(PipeReader::new(taken), &base, &target));
    let mut broken = None;
    while let Some(piece) = archive.next().await {
        let piece = match piece {
            Ok(piece) if piece.is_empty() => continue,
            Ok(piece) => piece,
            Err(error) => {
                broken = Some(error);
                break;
            }
        };
        // Who does not take any more says why.
        if pieces.send(Ok(piece)).await.is_err() {
            break;
        }
    }
    if broken.is_none() {
        pieces.send(Ok(Bytes::new())).await.ok();
    }
    drop(pieces);
    let unpacked = unpacking.await.map_err(|error| CliError::Runtime(error.into()))?;
    if let Some(error) = broken {
        return Err(failed(error));
    }
    unpacked?;
    tell(&mut live, container, &from_text, &to_text, true);
    Ok(())
}

fn here(text: &str) -> Result<Written, CliError> {
    let directory = std::env::current_dir().map_err(CliError::Directory)?;
    Ok(Written::new(text, &directory.to_string_lossy()))
}

async fn stat(source: &Source, container: &ObservedContainer, path: &Written) -> Result<PathStat, CliError> {
    let looked = source.engine.path_stat(&container.id, &path.text()).await;
    looked.map_err(|error| source.failed(error))
}

/// What goes into containers.
struct Load {
    /// The file or directory; `None`: standard input.
    from: Option<PathBuf>,
    /// Its last part; `.`: what is in it.
    base: String,
    is_directory: bool,
    follow: bool,
}

async fn into(
    context: &mut Context<'_>,
    args: &CpArgs,
    from: &str,
    service: &ServiceName,
    path: &str,
) -> Result<(), CliError> {
    let (among, targets) = targets(context, args, service).await?;
    let load = load(from, args.follow_link)?;
    let to_text = |container: &ObservedContainer| format!("{}:{path}", container.name);
    if context.global.dry_run {
        for (at, container) in &targets {
            place(among.source(*at), container, path, &load).await?;
            preview(context.ui, among.source(*at), from, &to_text(container))?;
        }
        return Ok(());
    }
    let mut live = Live::new(context.ui, "Copying");
    for (_, container) in &targets {
        tell(&mut live, container, from, &to_text(container), false);
    }
    let mut inputs = Vec::new();
    let mut copies = Vec::new();
    let how = Unpack { owners: args.archive };
    for (at, container) in &targets {
        let (directory, name) = place(among.source(*at), container, path, &load).await?;
        let (pieces, taken) = mpsc::channel(PIECES);
        let packing = if let Some(from) = load.from.clone() {
            Some(packing(from, name, load.follow, pieces))
        } else {
            inputs.push(pieces);
            None
        };
        copies.push(copy(among.source(*at), container, directory, taken, packing, how));
    }
    let copied = async {
        if load.from.is_none() {
            let (copied, read) = tokio::join!(join_all(copies), distribute(inputs));
            read.map(|()| copied)
        } else {
            Ok(join_all(copies).await)
        }
    };
    for (copied, (_, container)) in copied.await?.into_iter().zip(&targets) {
        copied?;
        tell(&mut live, container, from, &to_text(container), true);
    }
    Ok(())
}

fn load(from: &str, follow: bool) -> Result<Load, CliError> {
    if from == STANDARD {
        return Ok(Load { from: None, base: ".".to_owned(), is_directory: true, follow });
    }
    let written = here(from)?;
    let path = Path::new(&written.path);
    let follow = follow || written.asserts_directory;
    let found = if follow { path.metadata() } else { path.symlink_metadata() };
    let wrong = |source| CarryError::Io { action: "read", path: path.to_owned(), source };
    let found = found.map_err(wrong)?;
    if written.asserts_directory && !found.is_dir() {
        return Err(wrong(std::io::ErrorKind::NotADirectory.into()).into());
    }
    let base = written.base().to_owned();
    Ok(Load { from: Some(path.to_owned()), base, is_directory: found.is_dir(), follow })
}

/// Returns the directory in the container that an archive is unpacked in, and the name of the archive's root.
async fn place(
    source: &Source,
    container: &ObservedContainer,
    path: &str,
    load: &Load,
) -> Result<(String, String), CliError> {
    let mut to = Written::new(path, "");
    let mut found = source.engine.path_stat(&container.id, &to.text()).await;
    if let Ok(stat) = &found
        && !stat.link.is_empty()
    {
        let link = Written::new(&stat.link, split(&to.path).0);
        found = source.engine.path_stat(&container.id, &link.text()).await;
        to = link;
    }
    let there = match found {
        Ok(stat) if stat.is_dir => There::Directory,
        Ok(_) => There::File,
        // Whether the directory above is there shows in a moment.
        Err(EngineError::NotFound { what: "path", .. }) => There::Nothing,
        Err(error) => return Err(source.failed(error)),
    };
    if load.from.is_none() {
        return match there {
            There::Directory => Ok((to.path, ".".to_owned())),
            There::File | There::Nothing => Err(CarryError::NotADirectory(format!("{}:{path}", container.name)).into()),
        };
    }
    let landed = landing(&to, there, &load.base, load.is_directory)?;
    if there == There::Directory && load.base == "." {
        return Ok((landed, ".".to_owned()));
    }
    let (directory, name) = split(&landed);
    Ok((directory.to_owned(), name.to_owned()))
}

type Packing = tokio::task::JoinHandle<Result<(), CarryError>>;

/// Packs on a thread of its own; an error ends the stream too, so that nothing half is taken for whole.
fn packing(from: PathBuf, name: String, follow: bool, pieces: mpsc::Sender<Piece>) -> Packing {
    tokio::task::spawn_blocking(move || {
        let packed = pack(&from, &name, follow, PipeWriter::new(pieces.clone()));
        if packed.is_err() {
            let broken = std::io::Error::other("the files could not be read");
            pieces.blocking_send(Err(broken)).ok();
        }
        packed
    })
}

async fn copy(
    source: &Source,
    container: &ObservedContainer,
    directory: String,
    taken: mpsc::Receiver<Piece>,
    packing: Option<Packing>,
    how: Unpack,
) -> Result<(), CliError> {
    let archive: BoxStream<'static, Piece> =
        stream::unfold(taken, |mut taken| async move { taken.recv().await.map(|piece| (piece, taken)) }).boxed();
    let written = source.engine.write_archive(&container.id, &directory, archive, how).await;
    let packed = match packing {
        Some(packing) => packing.await.map_err(|error| CliError::Runtime(error.into()))?,
        None => Ok(()),
    };
    match (written, packed) {
        (Ok(()), Ok(())) => Ok(()),
        // Where nobody takes what is packed, who does not take it says why.
        (Err(error), Ok(()) | Err(CarryError::Archive(_))) => Err(source.failed(error)),
        (_, Err(error)) => Err(error.into()),
    }
}

/// Gives standard input to all; who has failed gets no more.
async fn distribute(mut to: Vec<mpsc::Sender<Piece>>) -> Result<(), CliError> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; PIECE];
    loop {
        let count = stdin.read(&mut buffer).await.map_err(|error| CliError::from(CarryError::Archive(error)))?;
        if count == 0 || to.is_empty() {
            return Ok(());
        }
        let piece = Bytes::copy_from_slice(&buffer[..count]);
        let sent = join_all(to.iter().map(|one| one.send(Ok(piece.clone())))).await;
        let mut sent = sent.into_iter();
        to.retain(|_| sent.next().is_some_and(|sent| sent.is_ok()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart_as_by_docker() {
        let container =
            |service: &str, path: &str| Side::Container(ServiceName::new(service).expect("valid"), path.to_owned());
        assert_eq!(side("web:/tmp").expect("a side"), container("web", "/tmp"));
        assert_eq!(side("web:x:y").expect("a side"), container("web", "x:y"));
        for here in ["-", "file", "./a:b", "/a:b", "../x"] {
            assert_eq!(side(here).expect("a side"), Side::Here(here.to_owned()));
        }
        assert!(side("we b:/x").is_err());
    }
}

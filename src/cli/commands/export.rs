//! `orch export`: all files of a container as a tar archive; streamed, a few pieces in memory.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;

use crate::api::types::ObjectState;
use crate::cli::among::{self, Which};
use crate::cli::args::ExportArgs;
use crate::cli::board::Event;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::progress::Live;

/// Writes the archive.
///
/// # Errors
/// When the service does not run, the file cannot be written, or standard output is a terminal.
pub(crate) async fn run(context: &mut Context<'_>, args: &ExportArgs) -> Result<(), CliError> {
    let ExportArgs { index, output, service } = args;
    let services = [service.clone()];
    let among = among::find(context, Which { services: &services, ..Which::default() }).await?;
    let (source, container) = among::replica(context, &among, service, *index)?;
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err(CliError::NoTerminalForArchive);
    }
    let to = output.as_deref().unwrap_or(Path::new("-")).display();
    if context.global.dry_run {
        return context.ui.line(&format!("export container {}{} to {to}", container.name, source.on()));
    }
    let mut archive = source.engine.export(&container.id);
    let Some(output) = output else {
        // What goes to standard output is all there is to say.
        while let Some(piece) = archive.next().await {
            context.ui.data(&piece.map_err(|error| source.failed(error))?)?;
        }
        return Ok(());
    };
    let mut live = Live::new(context.ui, "Exporting");
    let mut tell = |word: &str, state| {
        let status = format!("export {} to {to} {word}", container.name);
        live.event(Event { id: container.name.clone(), status, state, detail: None });
    };
    tell("Exporting", ObjectState::Working);
    let failed = |source| CliError::Write { path: output.display().to_string(), source };
    let mut draft = Draft::beside(output).map_err(failed)?;
    while let Some(piece) = archive.next().await {
        let piece = piece.map_err(|error| source.failed(error))?;
        draft.file.write_all(&piece).map_err(failed)?;
    }
    draft.finish(output).map_err(failed)?;
    tell("Exported", ObjectState::Done);
    Ok(())
}

/// A file that is not whole yet; it goes where it does not become so. Its owner alone reads it, as with Docker Compose.
struct Draft {
    file: std::fs::File,
    path: PathBuf,
}

impl Draft {
    fn beside(output: &Path) -> std::io::Result<Self> {
        if output.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        let mut name = output.file_name().ok_or(std::io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = output.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path })
    }

    fn finish(self, output: &Path) -> std::io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, output)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it is whole there is nothing of this name any more.
        std::fs::remove_file(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_becomes_the_file_or_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let output = directory.path().join("files.tar");
        let names = || std::fs::read_dir(directory.path()).expect("readable").count();
        let mut draft = Draft::beside(&output).expect("can be made");
        draft.file.write_all(b"half").expect("can be written");
        drop(draft);
        assert_eq!(names(), 0);
        let mut draft = Draft::beside(&output).expect("can be made");
        draft.file.write_all(b"whole").expect("can be written");
        draft.finish(&output).expect("can be finished");
        assert_eq!((names(), std::fs::read(&output).expect("readable")), (1, b"whole".to_vec()));
        assert!(Draft::beside(directory.path()).is_err(), "a directory is no file");
    }
}

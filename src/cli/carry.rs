//! Files of this machine as tar streams and back, and where they land: the rules of `docker cp`.
//!
//! Start at [`landing`]. Whole trees go through a few pieces of memory; see `pack` and `unpack`.
//!
//! Source: docker/cli, cli/command/container/cp.go, and moby, pkg/archive/copy.go `PrepareArchiveCopy`.

mod pack;
mod unpack;

use std::io;
use std::path::{Component, Path, PathBuf};

pub(crate) use pack::{Owner, pack, pack_each};
pub(crate) use unpack::unpack;

/// Why something cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// A directory is to become what a file is.
    #[error("cannot copy directory")]
    DirectoryOverFile,
    /// The destination is said to be a directory, and there is none.
    #[error("no such directory")]
    NoDirectory,
    /// What is to become the destination would lie in a directory that is not there.
    #[error("invalid output path: directory \"{}\" does not exist", .0.display())]
    NoOutput(PathBuf),
    /// An archive can only be unpacked in a directory.
    #[error("destination \"{0}\" must be a directory")]
    NotADirectory(String),
    /// Both sides are containers.
    #[error("copying between services is not supported")]
    BothRemote,
    /// No side is a container.
    #[error("unknown copy direction")]
    NoneRemote,
    /// There is neither a running nor a stopped container.
    #[error("no container found for service \"{0}\"")]
    NoContainer(crate::ids::ServiceName),
    /// A path cannot be read or written.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// `read`, `write`.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is neither file, directory nor link.
    #[error("{} is a device or a pipe, which is not copied", .0.display())]
    Special(PathBuf),
    /// An archive leads out of the destination.
    #[error("the archive leads outside of the destination: {}", .0.display())]
    Outside(PathBuf),
    /// A directory over a file or the other way round.
    #[error("cannot overwrite {}: one of both is a directory", .0.display())]
    Overwrite(PathBuf),
    /// The archive ended early, or is none.
    #[error("the archive cannot be read")]
    Archive(#[source] io::Error),
}

/// A path as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// Without `.` and `..`, absolute.
    pub path: String,
    /// Whether it ends in `/` or `/.`: then it is a directory.
    pub asserts_directory: bool,
    /// Whether it ends in `/.`: what is in it is meant, not itself.
    pub contents: bool,
}

impl Written {
    /// Reads a path, which is below `directory` where it is not absolute.
    pub(crate) fn new(text: &str, directory: &str) -> Self {
        let whole = if text.starts_with('/') { text.to_owned() } else { format!("{directory}/{text}") };
        let mut parts: Vec<&str> = Vec::new();
        for part in whole.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let contents = text == "." || text.ends_with("/.");
        Self { path: format!("/{}", parts.join("/")), asserts_directory: contents || text.ends_with('/'), contents }
    }

    /// Returns the last part; `.` where the contents are meant.
    pub(crate) fn base(&self) -> &str {
        match self.path.rsplit('/').next() {
            Some(name) if !self.contents && !name.is_empty() => name,
            _ => ".",
        }
    }

    /// Returns the path with what it says of itself.
    pub(crate) fn text(&self) -> String {
        match (self.contents, self.asserts_directory) {
            (true, _) => format!("{}/.", self.path.trim_end_matches('/')),
            (false, true) => format!("{}/", self.path.trim_end_matches('/')),
            (false, false) => self.path.clone(),
        }
    }
}

/// What is at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// Something else.
    File,
}

/// Returns the path that what is copied has in the end.
///
/// `base` is the last part of what is copied, `.` for the contents of a directory.
///
/// # Errors
/// Why it cannot be there.
pub(crate) fn landing(to: &Written, there: There, base: &str, is_directory: bool) -> Result<String, CarryError> {
    match there {
        There::Directory if base == "." => Ok(to.path.clone()),
        There::Directory => Ok(format!("{}/{base}", to.path.trim_end_matches('/'))),
        There::File if is_directory => Err(CarryError::DirectoryOverFile),
        There::Nothing if !is_directory && to.asserts_directory => Err(CarryError::NoDirectory),
        There::File | There::Nothing => Ok(to.path.clone()),
    }
}

/// Returns the directory above a path, and its last part.
pub(crate) fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", base)) => ("/", base),
        Some(parts) => parts,
        None => ("/", path),
    }
}

/// Looks at a destination on this machine.
///
/// # Errors
/// [`CarryError::NoOutput`] where the directory that it would be in is not there.
pub(crate) fn look(to: &Written) -> Result<There, CarryError> {
    let path = Path::new(&to.path);
    match path.metadata() {
        Ok(found) if found.is_dir() => Ok(There::Directory),
        Ok(_) => Ok(There::File),
        Err(_) => {
            let (above, _) = split(&to.path);
            if Path::new(above).is_dir() { Ok(There::Nothing) } else { Err(CarryError::NoOutput(above.into())) }
        }
    }
}

/// Returns the parts of a path in an archive, which must not lead upwards.
fn parts(path: &Path) -> Result<PathBuf, CarryError> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            // The root of a container is named `/`.
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(CarryError::Outside(path.to_owned()));
            }
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests;

//! What an image is built of: a directory as Docker's own client sends it to the builder, a tar archive that is written while
//! the directory is read. Nothing of it is kept, hashed or limited in size.
//!
//! Owners are root's, modes and links stay, sockets are left out. What the ignore file leaves out is never opened. Source:
//! docker/cli, cli/command/image/build/context.go, and moby, pkg/archive `TarWithOptions`.
//!
//! The file of instructions goes along also where it is left out: the builder removes it once it was read. Where it is not in
//! the directory, or its own ignore file (`Dockerfile.dockerignore`) says what is left out, it goes by a name that nobody else
//! has, which `.dockerignore` then leaves out for the builder.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use futures_util::stream;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::archive::{put, put_name};
use super::ignore::Rules;
use super::pipe::{PIECES, Piece, PipeWriter};
use super::scan::{names, open};
use super::store::Chunks;

/// Name of the ignore file.
const IGNORE_FILE: &str = ".dockerignore";

/// Name of the file of instructions where nobody says another.
const DOCKERFILE: &str = "Dockerfile";

/// Longest ignore file or file of instructions that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// Mode bits that stay.
const MODE: u32 = 0o7777;

/// Why a directory cannot be built of.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is no such directory.
    #[error("the build context `{}` does not exist", .0.display())]
    Missing(PathBuf),
    /// It is a file.
    #[error("the build context `{}` is not a directory", .0.display())]
    NoDirectory(PathBuf),
    /// There is no file of instructions.
    #[error("the Dockerfile `{}` does not exist", .0.display())]
    NoDockerfile(PathBuf),
    /// Something cannot be read.
    #[error("`{}` cannot be read: {source}", .path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An ignore file has a line that is no pattern.
    #[error("line {line} of `{}` is no pattern: {reason}", .path.display())]
    Ignore {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where the instructions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions<'a> {
    /// In a file: a path from the context's directory on, or an absolute one. Empty: `Dockerfile`.
    File(&'a str),
    /// Here.
    Text(&'a str),
}

/// A directory to build of, looked at so far that it can be sent.
#[derive(Debug)]
pub struct Context {
    root: PathBuf,
    rules: Rules,
    /// Path of the file of instructions in the archive.
    dockerfile: String,
    instructions: String,
    /// Files of the archive that are not read from the directory, or whatever the rules say.
    given: BTreeMap<PathBuf, Vec<u8>>,
}

impl Context {
    /// Looks at a directory, its instructions and its ignore file.
    ///
    /// # Errors
    /// What is not there or cannot be read.
    pub fn open(root: &Path, instructions: Instructions<'_>) -> Result<Self, ContextError> {
        let root = directory(root)?;
        let plain = text_if_there(&root.join(IGNORE_FILE))?;
        match instructions {
            Instructions::Text(text) => {
                Self::hidden(root, text.to_owned(), plain.as_deref(), plain.as_deref(), Path::new(IGNORE_FILE))
            }
            Instructions::File(name) => {
                let file = dockerfile(&root, name)?;
                let text = text_if_there(&file)?.ok_or_else(|| ContextError::NoDockerfile(file.clone()))?;
                let mut own = file.clone().into_os_string();
                own.push(IGNORE_FILE);
                let own = PathBuf::from(own);
                let of_its_own = text_if_there(&own)?;
                match (file.strip_prefix(&root), of_its_own) {
                    (Ok(inside), None) if inside.to_str().is_some() => {
                        let rules = rules(&root.join(IGNORE_FILE), plain.as_deref())?;
                        let dockerfile = inside.display().to_string();
                        let ignore = plain.map(|text| (PathBuf::from(IGNORE_FILE), text.into_bytes()));
                        let given = [(inside.to_owned(), text.clone().into_bytes())].into_iter().chain(ignore);
                        Ok(Self { rules, dockerfile, instructions: text, given: given.collect(), root })
                    }
                    (_, Some(own_text)) => Self::hidden(root, text, Some(&own_text), plain.as_deref(), &own),
                    (_, None) => Self::hidden(root, text, plain.as_deref(), plain.as_deref(), Path::new(IGNORE_FILE)),
                }
            }
        }
    }

    /// Looks at a directory that a build copies from besides: there are no instructions in it, but maybe an ignore file.
    ///
    /// # Errors
    /// What is not there or cannot be read.
    pub fn further(root: &Path) -> Result<Self, ContextError> {
        let root = directory(root)?;
        let ignore = root.join(IGNORE_FILE);
        let rules = rules(&ignore, text_if_there(&ignore)?.as_deref())?;
        Ok(Self { root, rules, dockerfile: String::new(), instructions: String::new(), given: BTreeMap::new() })
    }

    /// `in_force`: the text of the ignore file `from`. `plain`: that of `.dockerignore`, which the builder reads.
    fn hidden(
        root: PathBuf,
        instructions: String,
        in_force: Option<&str>,
        plain: Option<&str>,
        from: &Path,
    ) -> Result<Self, ContextError> {
        let rules = rules(&root.join(from), in_force)?;
        let dockerfile = format!(".dockerfile.{:.20}", format!("{:x}", Sha256::digest(&instructions)));
        // Where there was none, the builder removes it.
        let ignore = format!("{}\n{dockerfile}\n", plain.unwrap_or(IGNORE_FILE));
        let given = BTreeMap::from([
            (PathBuf::from(&dockerfile), instructions.clone().into_bytes()),
            (PathBuf::from(IGNORE_FILE), ignore.into_bytes()),
        ]);
        Ok(Self { root, rules, dockerfile, instructions, given })
    }

    /// Returns the path of the file of instructions in the archive.
    pub fn dockerfile(&self) -> &str {
        &self.dockerfile
    }

    /// Returns the instructions.
    pub fn instructions(&self) -> &str {
        &self.instructions
    }

    /// Returns the archive, written while it is read, and what keeps it from being written, should that happen.
    pub fn packed(self) -> (Chunks, Problem) {
        let (sender, receiver) = mpsc::channel::<Piece>(PIECES);
        let problem = Problem::default();
        let found = problem.clone();
        // Ends by itself when nobody reads any more.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = self.pack(PipeWriter::new(sender.clone())) {
                let broken = io::Error::other(error.to_string());
                drop(found.0.set(error));
                drop(sender.blocking_send(Err(broken)));
            }
        }));
        (Box::pin(stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })), problem)
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// What cannot be read, and what `to` says.
    pub fn pack(&self, to: impl Write) -> Result<(), ContextError> {
        let mut packing = Packing { context: self, builder: Builder::new(to), links: BTreeMap::new() };
        for (path, content) in &self.given {
            packing.given(path, content)?;
        }
        let mut add = |path: &Path, about: &Metadata| {
            if self.given.contains_key(path) { Ok(()) } else { packing.add(path, about) }
        };
        self.walk(Path::new(""), false, &mut Vec::new(), &mut add)?;
        let done = packing.builder.into_inner().and_then(|mut to| to.flush());
        done.map_err(|source| unreadable(&self.root, source))
    }
}

/// Returns what a build of a directory leaves out: by the ignore file of the instructions, else by the directory's. Nothing
/// where neither is there; whether the instructions are does not matter.
///
/// # Errors
/// An ignore file that cannot be read.
pub fn left_out(root: &Path, instructions: Instructions<'_>) -> Result<Rules, ContextError> {
    for file in ignore_files(root, instructions) {
        if let Some(text) = text_if_there(&file)? {
            return rules(&file, Some(&text));
        }
    }
    rules(&root.join(IGNORE_FILE), None)
}

/// Returns the ignore files that a build of a directory looks for; the first one that is there counts.
pub fn ignore_files(root: &Path, instructions: Instructions<'_>) -> Vec<PathBuf> {
    let own = match instructions {
        Instructions::File(name) => dockerfile(root, name).ok(),
        Instructions::Text(_) => None,
    };
    let own = own.map(|file| {
        let mut own = file.into_os_string();
        own.push(IGNORE_FILE);
        PathBuf::from(own)
    });
    own.into_iter().chain([root.join(IGNORE_FILE)]).collect()
}

/// What visits a directory that is built of.
type Visit<'a> = &'a mut dyn FnMut(&Path, &Metadata) -> io::Result<()>;
/// The same that also gets the first name of a file that has several.
type VisitNames<'a> = &'a mut dyn FnMut(&Path, &Metadata, Option<&Path>) -> io::Result<()>;

impl Context {
    /// Visits all that is built of, for a builder that takes files one by one: what the ignore file leaves out is not there,
    /// neither are the instructions if it leaves them out. Directories come before what is in them, also those that are left
    /// out themselves. Of a file with several names, `visit` gets the one that came first with the others.
    ///
    /// # Errors
    /// What cannot be read, and what `visit` says.
    pub fn visit(&self, visit: VisitNames<'_>) -> Result<(), ContextError> {
        let mut first_names: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
        self.walk(Path::new(""), true, &mut Vec::new(), &mut |path, about| {
            if about.file_type().is_socket() {
                return Ok(());
            }
            let number = (about.dev(), about.ino());
            let first = (about.is_file() && about.nlink() > 1).then(|| first_names.get(&number).cloned()).flatten();
            visit(path, about, first.as_deref())?;
            if about.is_file() && about.nlink() > 1 && first.is_none() {
                first_names.insert(number, path.to_owned());
            }
            Ok(())
        })
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens a file of the directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        open(&self.root.join(path))
    }

    /// Visits what is in a directory, in order of the names. `above`: directories on the way that are left out, and were not
    /// visited yet; they are where something in them is not, if that is wanted.
    fn walk(
        &self,
        directory: &Path,
        with_parents: bool,
        above: &mut Vec<(PathBuf, Metadata)>,
        visit: Visit<'_>,
    ) -> Result<(), ContextError> {
        let at = self.root.join(directory);
        for name in names(&at).map_err(|source| unreadable(&at, source))? {
            let path = directory.join(name);
            let at = self.root.join(&path);
            let left_out = self.rules.leave_out(&path);
            if left_out && !self.rules.take_back() {
                continue;
            }
            let about = at.symlink_metadata().map_err(|source| unreadable(&at, source))?;
            if !left_out {
                for (path, about) in above.drain(..) {
                    visit(&path, &about).map_err(|source| unreadable(&self.root.join(path), source))?;
                }
                visit(&path, &about).map_err(|source| unreadable(&at, source))?;
            }
            if about.is_dir() {
                if left_out && with_parents {
                    above.push((path.clone(), about));
                }
                self.walk(&path, with_parents, above, visit)?;
                if above.last().is_some_and(|(last, _)| *last == path) {
                    above.pop();
                }
            }
        }
        Ok(())
    }
}

/// Why an archive broke off.
#[derive(Debug, Clone, Default)]
pub struct Problem(Arc<OnceLock<ContextError>>);

impl Problem {
    /// Returns it.
    pub fn get(&self) -> Option<&ContextError> {
        // A reader that has gone is no fault of the directory.
        self.0.get().filter(|error| {
            !matches!(error, ContextError::Unreadable { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
        })
    }
}

fn unreadable(path: &Path, source: io::Error) -> ContextError {
    ContextError::Unreadable { path: path.to_owned(), source }
}

/// Returns a directory without links on the way to it.
fn directory(root: &Path) -> Result<PathBuf, ContextError> {
    let about = root.metadata().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ContextError::Missing(root.to_owned()),
        _ => unreadable(root, source),
    })?;
    if !about.is_dir() {
        return Err(ContextError::NoDirectory(root.to_owned()));
    }
    root.canonicalize().map_err(|source| unreadable(root, source))
}

/// Returns the file of instructions, whatever links lead to it.
fn dockerfile(root: &Path, name: &str) -> Result<PathBuf, ContextError> {
    let named = root.join(if name.is_empty() { DOCKERFILE } else { name });
    let found = match named.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && named == root.join(DOCKERFILE) => {
            // As Docker's client does for who wrote it so.
            root.join(DOCKERFILE.to_lowercase()).canonicalize()
        }
        found => found,
    };
    found.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ContextError::NoDockerfile(named),
        _ => unreadable(&named, source),
    })
}

fn text_if_there(path: &Path) -> Result<Option<String>, ContextError> {
    let mut text = Vec::new();
    match open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(unreadable(path, source)),
    }
}

fn rules(path: &Path, text: Option<&str>) -> Result<Rules, ContextError> {
    Rules::parse(text.unwrap_or_default()).map_err(|error| ContextError::Ignore {
        path: path.to_owned(),
        line: error.line,
        reason: error.reason,
    })
}

struct Packing<'a, W: Write> {
    context: &'a Context,
    builder: Builder<W>,
    /// Files with several names, by device and number: the name that went first.
    links: BTreeMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packing<'_, W> {
    fn given(&mut self, path: &Path, content: &[u8]) -> Result<(), ContextError> {
        let at = self.context.root.join(path);
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        // One that is not there is as old as can be, so that the same build makes the same archive.
        let about = fs::metadata(&at).ok();
        header.set_mode(about.as_ref().map_or(0o600, |about| about.mode() & MODE));
        header.set_mtime(about.as_ref().map_or(0, seconds));
        self.put(header, path, content.len() as u64, content).map_err(|source| unreadable(&at, source))
    }

    fn add(&mut self, path: &Path, about: &Metadata) -> io::Result<()> {
        let at = self.context.root.join(path);
        let mut header = Header::new_gnu();
        header.set_mode(about.mode() & MODE);
        header.set_mtime(seconds(about));
        let kind = about.file_type();
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            // The builder's cache goes by the name as it is written, and Docker's client ends it so.
            let mut name = path.as_os_str().to_owned();
            name.push("/");
            return self.put(header, Path::new(&name), 0, io::empty());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self.link(header, path, &at.read_link()?);
        }
        if kind.is_socket() {
            tracing::debug!(path = %at.display(), "a socket is not part of a build");
            return Ok(());
        }
        if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
            return self.put(header, path, 0, io::empty());
        }
        if kind.is_char_device() || kind.is_block_device() {
            header.set_entry_type(if kind.is_char_device() { EntryType::Char } else { EntryType::Block });
            header.set_device_major(rustix::fs::major(about.rdev()))?;
            header.set_device_minor(rustix::fs::minor(about.rdev()))?;
            return self.put(header, path, 0, io::empty());
        }
        if about.nlink() > 1 {
            if let Some(first) = self.links.get(&(about.dev(), about.ino())).cloned() {
                header.set_entry_type(EntryType::Link);
                return self.link(header, path, &first);
            }
            self.links.insert((about.dev(), about.ino()), path.to_owned());
        }
        header.set_entry_type(EntryType::Regular);
        let file: File = open(&at)?;
        self.put(header, path, about.len(), file)
    }

    fn link(&mut self, mut header: Header, path: &Path, target: &Path) -> io::Result<()> {
        put_name(&mut self.builder, EntryType::GNULongLink, target.as_os_str().as_bytes(), |field| {
            header.as_old_mut().linkname[..field.len()].copy_from_slice(field);
        })?;
        self.put(header, path, 0, io::empty())
    }

    fn put(&mut self, mut header: Header, path: &Path, size: u64, content: impl Read) -> io::Result<()> {
        header.set_uid(0);
        header.set_gid(0);
        put_name(&mut self.builder, EntryType::GNULongName, path.as_os_str().as_bytes(), |field| {
            header.as_old_mut().name[..field.len()].copy_from_slice(field);
        })?;
        put(&mut self.builder, header, size, content)
    }
}

fn seconds(about: &Metadata) -> u64 {
    u64::try_from(about.mtime()).unwrap_or_default()
}

#[cfg(test)]
mod tests;

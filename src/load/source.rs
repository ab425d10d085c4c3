//! Where `load` reads files: the only way out of the pure phases.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

/// Largest file that is read, in bytes. A compose file of a thousand services has about 0.2 MB.
pub const MAX_FILE: u64 = 4 << 20;

/// Reads files. [`OsFiles`] reads the disk; [`MemoryFiles`] is for tests and for files that came over the network.
pub trait Files {
    /// Returns the content of the file at an absolute `path`.
    ///
    /// # Errors
    /// What the system says; a file above [`MAX_FILE`] is an error of kind `FileTooLarge`.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Returns whether there is a file (not a directory) at an absolute `path`.
    fn is_file(&self, path: &Path) -> bool;

    /// Returns what standard input holds, for `-f -`.
    ///
    /// # Errors
    /// As [`Files::read`].
    fn read_stdin(&self) -> io::Result<Vec<u8>>;
}

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFiles;

impl Files for OsFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        capped(std::fs::File::open(path)?)
    }

    fn is_file(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|metadata| !metadata.is_dir())
    }

    fn read_stdin(&self) -> io::Result<Vec<u8>> {
        capped(io::stdin().lock())
    }
}

/// Reads all, but never more than the limit: a device or a pipe has no length to look at first.
fn capped(reader: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE { Err(too_large()) } else { Ok(bytes) }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {} MiB", MAX_FILE >> 20))
}

/// Files in memory, by absolute path.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles {
    /// The files.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Standard input.
    pub stdin: Vec<u8>,
}

impl MemoryFiles {
    /// Returns the files given as pairs of path and text.
    pub fn new<P: Into<PathBuf>, T: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        let files = files.into_iter().map(|(path, text)| (path.into(), text.into())).collect();
        Self { files, stdin: Vec::new() }
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        if bytes.len() as u64 > MAX_FILE { Err(too_large()) } else { Ok(bytes.clone()) }
    }

    fn is_file(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    fn read_stdin(&self) -> io::Result<Vec<u8>> {
        Ok(self.stdin.clone())
    }
}

/// Returns `path` seen from `base`, with `.` and `..` taken out as text, as Docker Compose does; links are not followed.
/// Seen from an absolute base it is absolute, from a relative one relative.
pub(super) fn absolute(base: &Path, path: impl AsRef<Path>) -> PathBuf {
    let mut out = PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => drop(out.pop()),
                Some(Component::RootDir) => {}
                _ => out.push(component),
            },
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() { PathBuf::from(".") } else { out }
}

/// Returns how `directory` is called in `base`; both are absolute and have no `.` or `..`.
pub(super) fn relative(base: &Path, directory: &Path) -> PathBuf {
    let shared = base.components().zip(directory.components()).take_while(|(one, other)| one == other).count();
    let up = base.components().skip(shared).map(|_| Component::ParentDir);
    let path: PathBuf = up.chain(directory.components().skip(shared)).collect();
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_text() {
        for (base, path, expected) in [
            ("/a/b", "c", "/a/b/c"),
            ("/a/b", "./c/../d", "/a/b/d"),
            ("/a/b", "../../../x", "/x"),
            ("/a/b", "/c/", "/c"),
            ("/a/b", ".", "/a/b"),
            ("sub", "./x", "sub/x"),
            ("sub", "../x", "x"),
            ("sub", "..", "."),
            ("../sub", "../../x", "../../x"),
            (".", "./x", "x"),
            ("sub", "/x", "/x"),
        ] {
            assert_eq!(absolute(Path::new(base), path), Path::new(expected));
        }
    }

    #[test]
    fn directories_are_named_from_others() {
        for (base, directory, expected) in [
            ("/a/b", "/a/b", "."),
            ("/a/b", "/a/b/c/d", "c/d"),
            ("/a/b", "/a/c", "../c"),
            ("/a/b", "/x", "../../x"),
            ("/", "/x", "x"),
            ("/a", "/", ".."),
        ] {
            assert_eq!(relative(Path::new(base), Path::new(directory)), Path::new(expected));
        }
    }
}

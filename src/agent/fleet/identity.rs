//! The files by which a host proves who it is: its key, its certificate, and at the seat the authority's key.
//!
//! Each is written beside and renamed, readable by root only. A host's key never leaves it.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::mesh::{Authority, AuthorityPem, HostKey, Identity, IdentityError};

/// What went wrong with a host's identity.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The disk.
    #[error("cannot use {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What is in it.
    #[error("{} cannot be used", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: IdentityError,
    },
}

/// The directory of the files.
#[derive(Debug, Clone)]
pub struct IdentityFiles(PathBuf);

impl IdentityFiles {
    /// Returns the files below an agent's state directory; nothing is opened yet.
    pub fn below(state: &Path) -> Self {
        Self(state.join("identity"))
    }

    /// Returns this host's key; makes it if there is none.
    ///
    /// # Errors
    /// The disk, or a file that is no key.
    pub fn key(&self) -> Result<HostKey, FilesError> {
        let path = self.0.join("host.key");
        if let Some(text) = self.read("host.key")? {
            return HostKey::from_pem(&text).map_err(|source| FilesError::Content { path, source });
        }
        let key = HostKey::create().map_err(|source| FilesError::Content { path, source })?;
        self.write("host.key", &key.to_pem())?;
        Ok(key)
    }

    /// Returns what this host shows to others; `None`: it was given nothing yet.
    ///
    /// # Errors
    /// The disk, or files that do not belong together.
    pub fn identity(&self) -> Result<Option<Identity>, FilesError> {
        let (Some(authority), Some(certificate)) = (self.read("authority.crt")?, self.read("host.crt")?) else {
            return Ok(None);
        };
        Identity::from_pem(&authority, &certificate, &self.key()?).map(Some).map_err(|source| self.unusable(source))
    }

    /// Keeps the certificates that the seat gave.
    ///
    /// # Errors
    /// The disk.
    pub fn keep(&self, authority: &str, certificate: &str) -> Result<(), FilesError> {
        self.write("authority.crt", authority)?;
        self.write("host.crt", certificate)
    }

    /// Keeps this host's next certificate.
    ///
    /// # Errors
    /// The disk.
    pub fn keep_certificate(&self, certificate: &str) -> Result<(), FilesError> {
        self.write("host.crt", certificate)
    }

    /// Returns the authority of the cluster, where it is kept.
    ///
    /// # Errors
    /// The disk, or a file that is no authority.
    pub fn authority(&self) -> Result<Option<Authority>, FilesError> {
        let path = self.0.join("authority.key");
        let (Some(key), Some(certificate)) = (self.read("authority.key")?, self.read("authority.crt")?) else {
            return Ok(None);
        };
        let authority = Authority::from_pem(&AuthorityPem { certificate, key });
        authority.map(Some).map_err(|source| FilesError::Content { path, source })
    }

    /// Keeps a new authority.
    ///
    /// # Errors
    /// The disk.
    pub fn keep_authority(&self, authority: &Authority) -> Result<(), FilesError> {
        let AuthorityPem { certificate, key } = authority.to_pem();
        self.write("authority.crt", &certificate)?;
        self.write("authority.key", &key)
    }

    /// Says of the certificate why it cannot be used.
    pub(super) fn unusable(&self, source: IdentityError) -> FilesError {
        FilesError::Content { path: self.0.join("host.crt"), source }
    }

    /// Removes the authority's key: another host has it from now on.
    ///
    /// # Errors
    /// The disk.
    pub fn forget_authority(&self) -> Result<(), FilesError> {
        match std::fs::remove_file(self.0.join("authority.key")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io("authority.key", error)),
            _ => Ok(()),
        }
    }

    /// Removes all of them.
    ///
    /// # Errors
    /// The disk.
    pub fn remove(&self) -> Result<(), FilesError> {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io("", error)),
            _ => Ok(()),
        }
    }

    fn read(&self, name: &str) -> Result<Option<String>, FilesError> {
        match std::fs::read_to_string(self.0.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(name, error)),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), FilesError> {
        let write = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            let draft = self.0.join(format!("{name}.new"));
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(draft, self.0.join(name))
        };
        write().map_err(|error| self.io(name, error))
    }

    fn io(&self, name: &str, source: io::Error) -> FilesError {
        FilesError::Io { path: self.0.join(name), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;
    use crate::ids::HostName;

    #[test]
    fn an_identity_is_what_was_kept_and_only_root_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = IdentityFiles::below(folder.path());
        assert!(files.identity().expect("nothing yet").is_none() && files.authority().expect("nothing yet").is_none());
        let now = Duration::from_hours(500_000);
        let authority = Authority::create(now).expect("an authority");
        files.keep_authority(&authority).expect("kept");
        let request = files.key().expect("a key").request().expect("a request");
        assert_eq!(files.key().expect("the same key").to_pem(), files.key().expect("again").to_pem());
        let host = HostName::new("a").expect("a name");
        let signed = authority.sign(&request, &host, now, Duration::from_mins(1)).expect("signed");
        files.keep(authority.certificate(), &signed.certificate).expect("kept");
        let identity = files.identity().expect("it is good").expect("it is there");
        assert_eq!(identity.statement().host, host);
        assert_eq!(files.authority().expect("it is good").expect("it is there").cluster(), authority.cluster());
        for entry in std::fs::read_dir(folder.path().join("identity")).expect("a list") {
            let mode = entry.expect("an entry").metadata().expect("its mode").permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
        files.remove().expect("removed");
        files.remove().expect("removing nothing is no error");
    }
}

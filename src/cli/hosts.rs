//! The hosts that the user named: `--host`, `x-hosts`, and the user's hosts file, which commands change.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::hosts::{self, HostEntry, HostFlag, Sources};
use crate::load;

use super::error::CliError;

/// Variable that names another hosts file than the usual one.
const FILE_VARIABLE: &str = "ORCH_HOSTS_FILE";

/// The user's hosts file: a mapping like `x-hosts`, at `$XDG_CONFIG_HOME/orch/hosts.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserHosts {
    path: PathBuf,
}

impl UserHosts {
    /// Returns the file of this user; `variable` looks up the process environment. `None`: there is no home to look in.
    pub fn of_user(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // What is not absolute counts as unset. Source: XDG Base Directory Specification.
        let configuration = || set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let home = || set("HOME").map(|home| home.join(".config"));
        let usual = || configuration().or_else(home).map(|folder| folder.join("orch/hosts.yaml"));
        set(FILE_VARIABLE).or_else(usual).map(|path| Self { path })
    }

    /// Returns where it is, or would be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the hosts in it; none where there is no file.
    ///
    /// # Errors
    /// What is wrong with it, each at its place, or why it cannot be read.
    pub fn read(&self) -> Result<Vec<HostEntry>, CliError> {
        self.parse(&self.text()?)
    }

    /// Changes the hosts in it and returns what `change` returns. Where `change` fails, the file stays as it was.
    ///
    /// Two orchs at once do it one after the other, and a reader sees the file before or after, never half of it.
    ///
    /// # Errors
    /// As [`UserHosts::read`], that of `change`, or why it cannot be written.
    pub fn change<T>(&self, change: impl FnOnce(&mut Vec<HostEntry>) -> Result<T, CliError>) -> Result<T, CliError> {
        let _lock = self.lock().map_err(|error| self.unwritten(error))?;
        let before = self.text()?;
        let mut hosts = self.parse(&before)?;
        let result = change(&mut hosts)?;
        let after = load::edit_hosts(&before, &hosts);
        if after != before {
            self.replace(&after).map_err(|error| self.unwritten(error))?;
        }
        Ok(result)
    }

    fn text(&self) -> Result<String, CliError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(CliError::Read { path: self.path.display().to_string(), source }),
        }
    }

    fn parse(&self, text: &str) -> Result<Vec<HostEntry>, CliError> {
        load::parse_hosts(&self.path.display().to_string(), text).map_err(CliError::Files)
    }

    /// Beside the file, which is replaced and so cannot be locked itself.
    fn lock(&self) -> io::Result<File> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.beside("lock"))?;
        file.lock()?;
        Ok(file)
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        // A link is followed: people keep their configuration elsewhere.
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let draft = target.with_extension(format!("{}.new", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &target)
        })();
        if written.is_err() {
            fs::remove_file(&draft).ok();
        }
        written
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(extension);
        PathBuf::from(name)
    }

    fn unwritten(&self, source: io::Error) -> CliError {
        CliError::Write { path: self.path.display().to_string(), source }
    }
}

/// Returns the hosts that a command works on; empty: the local engine alone. `file` are those of the compose files.
///
/// # Errors
/// What is wrong with the user's hosts file, or with what the flags say.
pub fn inventory(flags: &[HostFlag], file: &[HostEntry], user: Option<&UserHosts>) -> Result<Vec<HostEntry>, CliError> {
    let user = user.map_or_else(|| Ok(Vec::new()), UserHosts::read)?;
    Ok(hosts::inventory(&Sources { flags, file, user: &user })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<PathBuf> {
        let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        UserHosts::of_user(&lookup).map(|file| file.path)
    }

    #[test]
    fn the_file_is_where_the_user_says() {
        for (variables, expected) in [
            (&[("HOME", "/h")][..], Some("/h/.config/orch/hosts.yaml")),
            (&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")], Some("/c/orch/hosts.yaml")),
            (&[("HOME", "/h"), ("XDG_CONFIG_HOME", "c")], Some("/h/.config/orch/hosts.yaml")),
            (&[("HOME", "/h"), ("ORCH_HOSTS_FILE", "x.yaml")], Some("x.yaml")),
            (&[("HOME", "/h"), ("ORCH_HOSTS_FILE", "")], Some("/h/.config/orch/hosts.yaml")),
            (&[], None),
        ] {
            assert_eq!(of(variables), expected.map(PathBuf::from), "{variables:?}");
        }
    }

    fn host(number: usize) -> HostEntry {
        let name = format!("h{number}").parse().expect("a name");
        HostEntry::new(name, format!("ssh://u@host{number}").parse().expect("an address"))
    }

    #[test]
    fn changes_of_many_at_once_are_all_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = UserHosts { path: folder.path().join("deep/hosts.yaml") };
        assert_eq!(file.read().expect("no file is no host"), []);
        std::thread::scope(|scope| {
            for number in 0..16 {
                let file = &file;
                scope.spawn(move || {
                    let add = |hosts: &mut Vec<HostEntry>| {
                        hosts.push(host(number));
                        Ok(())
                    };
                    file.change(add).expect("added");
                });
            }
        });
        assert_eq!(file.read().expect("hosts").len(), 16);
        let keep_one = |hosts: &mut Vec<HostEntry>| {
            hosts.retain(|known| known.name.as_str() == "h3");
            Ok(())
        };
        file.change(keep_one).expect("removed");
        assert_eq!(file.read().expect("hosts"), [host(3)]);
        let left: Vec<_> = fs::read_dir(folder.path().join("deep")).expect("a folder").flatten().collect();
        assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = UserHosts { path: folder.path().join("hosts.yaml") };
        fs::write(&file.path, "# mine\nh1: ssh://u@host1\n").expect("written");
        let refuse = |hosts: &mut Vec<HostEntry>| {
            hosts.clear();
            Err::<(), _>(CliError::NoService)
        };
        assert!(file.change(refuse).is_err());
        file.change(|_| Ok(())).expect("nothing to do");
        assert_eq!(fs::read_to_string(&file.path).expect("text"), "# mine\nh1: ssh://u@host1\n");
        fs::write(&file.path, "h1: [\n").expect("written");
        assert!(file.change(|_| Ok(())).is_err(), "what cannot be read is not overwritten");
    }

    #[test]
    fn the_users_hosts_are_used_where_nothing_else_names_any() {
        let folder = tempfile::tempdir().expect("a folder");
        let user = UserHosts { path: folder.path().join("hosts.yaml") };
        fs::write(&user.path, "h1: ssh://u@host1\n").expect("written");
        assert_eq!(inventory(&[], &[], Some(&user)).expect("hosts"), [host(1)]);
        assert_eq!(inventory(&[], &[host(2)], Some(&user)).expect("hosts"), [host(2)]);
        assert_eq!(inventory(&["h1".parse().expect("a flag")], &[host(2)], Some(&user)).expect("hosts"), [host(1)]);
        assert_eq!(inventory(&[], &[], None).expect("hosts"), []);
    }
}

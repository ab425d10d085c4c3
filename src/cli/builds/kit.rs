//! What a build by `BuildKit` may ask for: directories, secrets, agents.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::engine::{CacheEntry, Directory, DirectoryEntry, Kit};
use crate::model::Repository;
use crate::snapshot::context::Context;
use crate::transport::git::{self, Checkout};
use crate::transport::keys::KeyAgent;

use super::choice::parse_cache;
use super::{BuiltImage, MakeOptions};

/// Name of the file of instructions, as the builder sees it.
pub(super) const DOCKERFILE: &str = "Dockerfile";

/// What lasts as long as the build.
#[derive(Debug, Default)]
pub(super) struct Held {
    checkouts: Vec<Checkout>,
    agents: Vec<KeyAgent>,
}

/// Gets together what a build may ask for. `held` must live as long as the build.
///
/// # Errors
/// What is not there, as text for the user.
pub(super) async fn kit(
    build: &BuiltImage,
    options: &MakeOptions,
    context: Context,
    held: &mut Held,
    said: &dyn Fn(&str),
) -> Result<Kit, String> {
    let source = &build.source;
    let instructions = Instructions(context.instructions().as_bytes().to_vec());
    let mut key = Sha256::new();
    key.update(context.root().as_os_str().as_encoded_bytes());
    let mut kit = Kit { secrets: build.secrets.clone(), ..Kit::default() };
    kit.directories.insert("dockerfile".to_owned(), Arc::new(instructions));
    kit.directories.insert("context".to_owned(), Arc::new(Tree(context)));
    for (name, place) in &source.additional_contexts {
        let place = build
            .images
            .get(place.strip_prefix("service:").unwrap_or_default())
            .map_or(place.clone(), |image| format!("docker-image://{image}"));
        let directory = match Repository::parse(&place) {
            Some(repository) => {
                said(&format!("Fetching {place}"));
                let checkout = git::fetch(&repository).await.map_err(|error| error.to_string())?;
                let directory = checkout.directory().to_owned();
                held.checkouts.push(checkout);
                directory
            }
            None if place.contains("://") => {
                kit.contexts.insert(name.clone(), place);
                continue;
            }
            None => PathBuf::from(&place),
        };
        let further = Context::further(&directory).map_err(|error| error.to_string())?;
        key.update(further.root().as_os_str().as_encoded_bytes());
        kit.contexts.insert(name.clone(), format!("local:{name}"));
        kit.directories.insert(name.clone(), Arc::new(Tree(further)));
    }
    kit.shared_key = format!("{:x}", key.finalize());
    kit.agents = agents(&source.ssh, &options.ssh, &|name| std::env::var_os(name), held).await?;
    kit.cache_from = source.cache_from.iter().map(|entry| parse_cache(entry)).collect();
    kit.cache_to = source.cache_to.iter().map(|entry| parse_cache(entry)).collect();
    let inline = source.args.get("BUILDKIT_INLINE_CACHE").and_then(Option::as_deref);
    let inline = options.args.get("BUILDKIT_INLINE_CACHE").map(String::as_str).or(inline);
    if matches!(inline, Some("1" | "true")) && kit.cache_to.iter().all(|entry| entry.kind != "inline") {
        kit.cache_to.push(CacheEntry { kind: "inline".to_owned(), ..CacheEntry::default() });
    }
    kit.no_cache_filter.clone_from(&source.no_cache_filter);
    kit.entitlements.clone_from(&source.entitlements);
    if source.privileged && !kit.entitlements.iter().any(|right| right == "security.insecure") {
        kit.entitlements.push("security.insecure".to_owned());
    }
    if source.platforms.len() > 1 {
        kit.platforms.clone_from(&source.platforms);
    }
    let attestations = [
        ("provenance", options.provenance.as_ref().or(source.provenance.as_ref())),
        ("sbom", options.sbom.as_ref().or(source.sbom.as_ref())),
    ];
    kit.attestations = attestations.into_iter().filter_map(|(kind, value)| attestation(kind, value?)).collect();
    Ok(kit)
}

/// Source: docker/buildx, util/buildflags/attests.go `CanonicalizeAttest`.
fn attestation(kind: &str, value: &str) -> Option<(String, String)> {
    let said = match value {
        "" | "false" => return None,
        "true" => format!("type={kind},disabled=false"),
        parameters => format!("type={kind},{parameters}"),
    };
    Some((kind.to_owned(), said))
}

/// Returns the sockets of agents by id: `ID=PATH[,PATH…]` is a socket or keys, `ID` the user's own agent. `flags` come before
/// what the file says.
async fn agents(
    of_file: &[String],
    flags: &[String],
    variable: &dyn Fn(&str) -> Option<OsString>,
    held: &mut Held,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut agents = BTreeMap::new();
    for entry in of_file.iter().chain(flags) {
        let (id, paths) = entry.split_once('=').unwrap_or((entry, ""));
        let paths: Vec<PathBuf> = paths.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
        let is_socket = |path: &PathBuf| path.metadata().is_ok_and(|about| about.file_type().is_socket());
        let socket = match paths.as_slice() {
            [] => {
                let missing =
                    || format!("no SSH agent runs for `{id}`: SSH_AUTH_SOCK is not set (`ssh-agent`, `ssh-add`)");
                PathBuf::from(variable("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).ok_or_else(missing)?)
            }
            [socket] if is_socket(socket) => socket.clone(),
            keys => {
                let agent = KeyAgent::with(keys).await.map_err(|error| error.to_string())?;
                let socket = agent.socket().to_owned();
                held.agents.push(agent);
                socket
            }
        };
        agents.insert(id.to_owned(), socket);
    }
    Ok(agents)
}

/// A directory of this machine.
#[derive(Debug)]
struct Tree(Context);

impl Directory for Tree {
    fn walk(&self, visit: &mut dyn FnMut(DirectoryEntry) -> io::Result<()>) -> io::Result<()> {
        let walked = self.0.visit(&mut |path, about, first| {
            let link = if about.is_symlink() {
                Some(self.0.root().join(path).read_link()?)
            } else {
                first.map(Path::to_owned)
            };
            visit(entry(path, about, link))
        });
        walked.map_err(|error| io::Error::other(error.to_string()))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let file = self.0.file(path);
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("`{}` cannot be read: {error}", self.0.root().join(path).display()))
        };
        Ok(Box::new(file.map_err(named)?))
    }
}

fn entry(path: &Path, about: &Metadata, link: Option<PathBuf>) -> DirectoryEntry {
    let is_file = about.is_file() && link.is_none();
    DirectoryEntry {
        path: path.to_owned(),
        mode: about.mode(),
        size: if is_file { about.len() } else { 0 },
        modified_nanos: about.mtime().saturating_mul(1_000_000_000).saturating_add(about.mtime_nsec()),
        link,
        device: (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev())),
    }
}

/// A directory with the instructions alone, wherever they are.
#[derive(Debug)]
struct Instructions(Vec<u8>);

impl Directory for Instructions {
    fn walk(&self, visit: &mut dyn FnMut(DirectoryEntry) -> io::Result<()>) -> io::Result<()> {
        // Files are told apart by size and time; these have a time that is the same for the same text only.
        let digest = Sha256::digest(&self.0);
        let number = digest.iter().take(7).fold(0, |number, byte| number << 8 | i64::from(*byte));
        visit(DirectoryEntry {
            path: PathBuf::from(DOCKERFILE),
            mode: libc::S_IFREG | 0o644,
            size: self.0.len() as u64,
            modified_nanos: number,
            ..DirectoryEntry::default()
        })
    }

    fn open(&self, _: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.0.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attestations_are_as_the_builder_takes_them() {
        let said = |value| attestation("provenance", value).map(|(_, said)| said);
        assert_eq!(said("false"), None);
        assert_eq!(said("true").as_deref(), Some("type=provenance,disabled=false"));
        assert_eq!(said("mode=max").as_deref(), Some("type=provenance,mode=max"));
    }

    #[tokio::test]
    async fn agents_are_sockets_or_the_users_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("s");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let entries = ["default".to_owned(), format!("other={}", socket.display())];
        let own = |name: &str| (name == "SSH_AUTH_SOCK").then(|| "/own".into());
        let found = agents(&entries, &[], &own, &mut Held::default()).await.expect("agents");
        let expected = [("default".to_owned(), PathBuf::from("/own")), ("other".to_owned(), socket)];
        assert_eq!(found, BTreeMap::from(expected));
        let none = agents(&entries, &[], &|_| None, &mut Held::default()).await.expect_err("no agent");
        assert!(none.contains("SSH_AUTH_SOCK is not set"), "{none}");
        let missing = agents(&["k=/nonexistent/key".to_owned()], &[], &own, &mut Held::default()).await;
        assert!(missing.is_err_and(|error| error.contains("/nonexistent/key")));
    }

    #[test]
    fn entries_are_told_in_order_with_the_directories_on_their_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |path: &str| directory.path().join(path);
        std::fs::create_dir_all(at("a/deep")).expect("made");
        for (path, text) in [
            ("a/deep/in", "x"),
            ("a/out", "y"),
            ("a.txt", "zz"),
            (".dockerignore", "a\n!a/deep/in\nDockerfile"),
            ("Dockerfile", "FROM x"),
        ] {
            std::fs::write(at(path), text).expect("written");
        }
        std::fs::hard_link(at("a.txt"), at("same")).expect("linked");
        std::os::unix::fs::symlink("nowhere", at("link")).expect("linked");
        let context =
            Context::open(directory.path(), crate::snapshot::context::Instructions::File("")).expect("a context");
        let mut told = Vec::new();
        let tree = Tree(context);
        tree.walk(&mut |entry| {
            let link = entry.link.map(|link| format!(" -> {}", link.display())).unwrap_or_default();
            told.push(format!("{} {}{link}", entry.path.display(), entry.size));
            Ok(())
        })
        .expect("walked");
        let told: Vec<&str> = told.iter().map(|line| line.strip_suffix(" 0").unwrap_or(line)).collect();
        assert_eq!(
            told,
            [".dockerignore 23", "a", "a/deep", "a/deep/in 1", "a.txt 2", "link 0 -> nowhere", "same 0 -> a.txt"]
        );
        let mut content = String::new();
        tree.open(Path::new("a/deep/in")).expect("opened").read_to_string(&mut content).expect("read");
        assert_eq!(content, "x");
    }
}

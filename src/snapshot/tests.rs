//! Snapshots of real directories: there and back, what is left out, what is refused, and what is kept.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use proptest::prelude::*;
use tempfile::TempDir;

use super::archive::ROOT;
use super::ignore::Rules;
use super::*;

mod hostile;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Makes files of `(path, content)`; a path that ends with `/` is a directory, a content `-> X` a link.
fn fill(root: &Path, entries: &[(&str, &str)]) {
    for (path, content) in entries {
        let at = root.join(path);
        fs::create_dir_all(if path.ends_with('/') { &at } else { at.parent().expect("a parent") }).expect("made");
        match content.strip_prefix("-> ") {
            _ if path.ends_with('/') => {}
            Some(target) => symlink(target, &at).expect("linked"),
            None => fs::write(&at, content).expect("written"),
        }
    }
}

fn tree(root: &Path) -> Tree {
    scan(root, DEFAULT_LIMIT).unwrap_or_else(|error| panic!("{error}"))
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.entries.iter().skip(1).map(|entry| entry.path.display().to_string()).collect()
}

fn packed_bytes(root: &Path, tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(root, tree, &mut bytes).expect("packed");
    bytes
}

#[test]
fn the_hash_is_about_names_owners_modes_and_contents_and_nothing_else() {
    let base = [("a/b.txt", "one"), ("a/c", "two"), ("empty/", ""), ("link", "-> a/b.txt")];
    let hash = |change: &dyn Fn(&Path)| {
        let dir = directory();
        fill(dir.path(), &base);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("set");
        change(dir.path());
        tree(dir.path()).hash()
    };
    let same = hash(&|_| {});
    assert_eq!(hash(&|_| {}), same, "wherever and whenever it is made");
    let changes: [&dyn Fn(&Path); 8] = [
        &|root| fs::write(root.join("a/c"), "twe").expect("written"),
        &|root| fs::rename(root.join("a/c"), root.join("a/d")).expect("renamed"),
        &|root| fs::set_permissions(root.join("a/c"), fs::Permissions::from_mode(0o600)).expect("set"),
        &|root| fs::set_permissions(root, fs::Permissions::from_mode(0o700)).expect("set"),
        &|root| fs::remove_dir(root.join("empty")).expect("removed"),
        &|root| fill(root, &[("more", "")]),
        &|root| fs::remove_file(root.join("link")).and_then(|()| symlink("a/c", root.join("link"))).expect("linked"),
        &|root| {
            fs::remove_file(root.join("link")).and_then(|()| fs::write(root.join("link"), "a/b.txt")).expect("file");
        },
    ];
    let hashes: BTreeSet<_> = changes.iter().map(|change| hash(*change)).chain([same.clone()]).collect();
    assert_eq!(hashes.len(), changes.len() + 1);
    // Set-user-ID does not travel, and so does not count.
    let suid = |root: &Path| fs::set_permissions(root.join("a/c"), fs::Permissions::from_mode(0o4644)).expect("set");
    let plain = |root: &Path| fs::set_permissions(root.join("a/c"), fs::Permissions::from_mode(0o644)).expect("set");
    assert_eq!(hash(&suid), hash(&plain));
}

#[test]
fn patterns_are_those_of_dockerignore() {
    for (text, path, left_out) in [
        ("*.log", "a.log", true),
        ("*.log", "sub/a.log", false),
        ("**/*.log", "sub/deep/a.log", true),
        ("**/*.log", "a.log", true),
        ("*/temp*", "a/temporary", true),
        ("*/temp*", "a/b/temporary", false),
        ("temp?", "tempa", true),
        ("temp?", "temp", false),
        ("node_modules", "node_modules/x/y", true),
        ("/node_modules/", "node_modules/x", true),
        ("./a/../b", "b/c", true),
        ("# a\n\n  b  ", "b", true),
        ("# a", "# a", false),
        ("*.md\n!README*.md", "README-x.md", false),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
        ("!a\na", "a", true),
        ("docs\n!docs/keep", "docs/keep/x", false),
        ("docs\n!docs/keep", "docs/other", true),
        ("a[0-2]", "a1", true),
        ("a[^0-2]", "a1", false),
        ("a[^0-2]", "a3", true),
        ("{a,b}", "a", false),
        ("{a,b}", "{a,b}", true),
        (r"\#x", "#x", true),
        (r"a\*", "a*", true),
        (r"a\*", "ab", false),
        ("/", "a", false),
    ] {
        let rules = Rules::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(rules.leave_out(Path::new(path)), left_out, "{text:?} {path}");
    }
    let error = Rules::parse("a\n\nb[").expect_err("no pattern");
    assert_eq!(error.line, 3);
    assert!(Rules::parse("../x").expect_err("outside").to_string().contains("line 1 of .orchignore"));
}

#[test]
fn what_is_ignored_stays_behind_and_may_be_anything() {
    let dir = directory();
    let text = "*.log\ncache\n!cache/keep\nrun\nout\n";
    let entries = [
        (IGNORE_FILE, text),
        ("a.log", ""),
        ("b.txt", "x"),
        ("cache/drop", "x"),
        ("cache/keep/z", "x"),
        ("out", "-> /etc"),
        ("sub/.orchignore", "only the root's counts"),
        ("run/", ""),
    ];
    fill(dir.path(), &entries);
    let _socket = UnixListener::bind(dir.path().join("run/sock")).expect("bound");
    assert_eq!(paths(&tree(dir.path())), ["b.txt", "cache", "cache/keep", "cache/keep/z", "sub", "sub/.orchignore"]);
}

#[test]
fn what_cannot_travel_is_refused_with_its_path_and_what_to_do() {
    let dir = directory();
    let check = |name: &str, limit: u64, words: &[&str]| {
        let error = scan(&dir.path().join(name), limit).expect_err("refused");
        let text = format!("{error} / {}", error.help());
        for word in words {
            assert!(text.contains(word), "no `{word}` in: {text}");
        }
    };
    check("none", 1, &["none` does not exist", "create it"]);
    fill(
        dir.path(),
        &[("s/", ""), ("p/", ""), ("l/in/x", "-> ../../../y"), ("abs/x", "-> /etc/passwd"), ("up/..x", "")],
    );
    let _socket = UnixListener::bind(dir.path().join("s/sock")).expect("bound");
    check("s", 1 << 20, &["s/sock` is a socket", ".orchignore"]);
    check("s/sock", 1 << 20, &["s/sock` is a socket"]);
    rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("p/pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a pipe");
    check("p", 1 << 20, &["p/pipe` is a pipe"]);
    check("l", 1 << 20, &["l/in/x` leads outside, to `../../../y`"]);
    check("abs", 1 << 20, &["abs/x` leads outside, to `/etc/passwd`", "relative"]);
    assert!(scan(&dir.path().join("up"), 1 << 20).is_ok(), "two dots may begin a name");
    check("/dev/null", 1 << 20, &["is a device"]);
    fill(dir.path(), &[("big/a/x", &"x".repeat(3 << 20)), ("big/a/y", &"x".repeat(2 << 20)), ("big/b", "x")]);
    check("big", 4 << 20, &["big` holds 5.1 MiB, more than the 4 MiB", ": `a` 5.1 MiB, `b` 0.1 MiB", "x-max-size"]);
    check("big/a/x", 1 << 20, &["holds 3.1 MiB, more than the 1 MiB that may travel /"]);
    fill(dir.path(), &[("ign/.orchignore", "ok\n[")]);
    check("ign", 1 << 20, &["line 2 of .orchignore is no pattern", "ign`"]);
}

#[test]
fn a_file_alone_is_a_snapshot_too_also_through_a_link() {
    let (dir, into) = (directory(), directory());
    fill(dir.path(), &[("conf", "a=1"), ("link", "-> conf")]);
    let one = tree(&dir.path().join("link"));
    assert_eq!(one.hash(), tree(&dir.path().join("conf")).hash());
    unpack(&*packed_bytes(&dir.path().join("link"), &one), into.path(), &one.hash()).expect("unpacked");
    assert_eq!(fs::read_to_string(into.path().join(ROOT)).expect("a file"), "a=1");
}

#[test]
fn a_file_that_changes_on_the_way_is_noticed() {
    let (dir, into) = (directory(), directory());
    fill(dir.path(), &[("a", "1234")]);
    let before = tree(dir.path());
    fs::write(dir.path().join("a"), "12345678").expect("written");
    let longer = packed_bytes(dir.path(), &before);
    unpack(&*longer, into.path(), &before.hash()).expect("what was added later does not count");
    fs::write(dir.path().join("a"), "4321").expect("written");
    let other = unpack(&*packed_bytes(dir.path(), &before), directory().path(), &before.hash());
    assert!(matches!(other, Err(SnapshotError::Changed { .. })), "{other:?}");
    fs::write(dir.path().join("a"), "1").expect("written");
    let error = pack(dir.path(), &before, io::sink()).expect_err("shorter");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// What is made at a path of a few short names: a directory, a file of so many bytes, or a link to the first.
#[derive(Debug, Clone)]
enum Thing {
    Directory(u32),
    File(u32, Vec<u8>),
    Link,
}

fn things() -> impl Strategy<Value = Vec<(Vec<String>, Thing)>> {
    // Names that sort otherwise as text than as paths, that are no UTF-8 once made, and that are longer than a header's field.
    let name = prop_oneof![
        Just("a".to_owned()),
        Just("a-b".to_owned()),
        Just("a.b".to_owned()),
        Just("z z".to_owned()),
        Just("é".to_owned()),
        Just("n".repeat(120)),
    ];
    let mode = prop_oneof![Just(0o755_u32), Just(0o700), Just(0o777)];
    let content = proptest::collection::vec(any::<u8>(), 0..2000);
    let thing = prop_oneof![
        mode.clone().prop_map(Thing::Directory),
        (mode, content).prop_map(|(mode, content)| Thing::File(mode, content)),
        Just(Thing::Link),
    ];
    proptest::collection::vec((proptest::collection::vec(name, 1..4), thing), 0..12)
}

fn make(root: &Path, things: &[(Vec<String>, Thing)]) {
    for (names, thing) in things {
        let path = names.iter().fold(root.to_owned(), |path, name| path.join(name));
        let parent = path.parent().expect("a parent");
        // What is in the way of another stays.
        if parent.symlink_metadata().is_ok_and(|about| !about.is_dir())
            || parent.starts_with(root) && fs::create_dir_all(parent).is_err()
        {
            continue;
        }
        let mode = match thing {
            Thing::Directory(mode) => fs::create_dir(&path).ok().map(|()| *mode),
            Thing::File(mode, content) if path.symlink_metadata().is_err() => {
                fs::write(&path, content).ok().map(|()| *mode)
            }
            Thing::Link => symlink(&names[0], &path).ok().and(None),
            Thing::File(..) => None,
        };
        if let Some(mode) = mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_packed_comes_out_the_same(things in things()) {
        let (from, into) = (directory(), directory());
        make(from.path(), &things);
        let before = tree(from.path());
        unpack(&*packed_bytes(from.path(), &before), into.path(), &before.hash()).expect("unpacked");
        // Times too, but for fractions of a second.
        prop_assert_eq!(tree(&into.path().join(ROOT)), before);
    }
}

// -- kept on a host ----------------------------------------------------------------------

fn chunks(bytes: &[u8]) -> Chunks {
    let pieces: Vec<_> = bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Box::pin(stream::iter(pieces))
}

async fn gather(mut chunks: Chunks) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = chunks.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

fn kept(state: &Path) -> Vec<String> {
    let names = fs::read_dir(state.join("snapshots")).map(|list| list.map(|entry| entry.expect("one").file_name()));
    let mut names: Vec<String> = names.into_iter().flatten().map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A directory with a snapshot of it.
fn sample() -> (TempDir, Tree, Vec<u8>) {
    let dir = directory();
    fill(dir.path(), &[("a/b", &"content ".repeat(20_000)), ("c", "x")]);
    let tree = tree(dir.path());
    let bytes = packed_bytes(dir.path(), &tree);
    (dir, tree, bytes)
}

/// The same, of a few names.
fn small() -> (TempDir, Tree, Vec<u8>) {
    let dir = directory();
    fill(dir.path(), &[("a/b", "one"), ("c", "two"), ("d", "-> a/b")]);
    let tree = tree(dir.path());
    let bytes = packed_bytes(dir.path(), &tree);
    (dir, tree, bytes)
}

#[tokio::test]
async fn a_snapshot_is_taken_in_once_and_given_on() {
    let (state, (dir, tree, bytes)) = (directory(), sample());
    let (snapshots, hash) = (Snapshots::below(state.path()), tree.hash());
    assert!(!snapshots.has(&hash));
    assert_eq!(snapshots.missing(std::slice::from_ref(&hash)), std::slice::from_ref(&hash));
    assert!(matches!(snapshots.send(&hash).await, Err(SnapshotError::Missing)));
    snapshots.receive(&hash, packed(dir.path().to_owned(), tree.clone())).await.expect("taken in");
    assert_eq!(snapshots.missing(std::slice::from_ref(&hash)), []);
    assert_eq!(fs::read_to_string(snapshots.path(&hash).join("c")).expect("a file"), "x");
    snapshots.receive(&hash, Box::pin(stream::pending())).await.expect("here already: nothing is read");
    let given = gather(snapshots.send(&hash).await.expect("here")).await.expect("whole");
    assert!(given == bytes, "the same, wherever it comes from");
    assert_eq!(kept(state.path()), [hash.as_str()]);
}

#[tokio::test]
async fn nothing_stays_of_what_is_cut_off_or_wrong() {
    let (state, (_dir, tree, bytes)) = (directory(), sample());
    let (snapshots, hash) = (Snapshots::below(state.path()), tree.hash());
    for at in [0, 100, 512, 1024, 5000, bytes.len() - 2000] {
        let cut = snapshots.receive(&hash, chunks(&bytes[..at])).await.expect_err("cut");
        assert!(matches!(cut, SnapshotError::Cut(_) | SnapshotError::Changed { .. }), "{at}: {cut}");
    }
    let broken = stream::iter([Ok(Bytes::copy_from_slice(&bytes[..5000])), Err(io::ErrorKind::ConnectionReset.into())]);
    let broken = snapshots.receive(&hash, Box::pin(broken)).await.expect_err("broken");
    assert!(matches!(&broken, SnapshotError::Cut(cause) if cause.kind() == io::ErrorKind::ConnectionReset), "{broken}");
    let other = SnapshotHash::new("0".repeat(64)).expect("a hash");
    let wrong = snapshots.receive(&other, chunks(&bytes)).await.expect_err("another");
    assert!(matches!(wrong, SnapshotError::Changed { .. }), "{wrong}");
    assert!(kept(state.path()).is_empty());
    // A process that ended in the middle leaves something, which the next one removes.
    fill(state.path(), &[("snapshots/.new-7/content/a", "half")]);
    snapshots.receive(&hash, chunks(&bytes)).await.expect("taken in");
    snapshots.clean().expect("cleaned");
    assert_eq!(kept(state.path()), [hash.as_str()]);
}

#[tokio::test]
async fn two_that_bring_the_same_at_once_both_succeed() {
    let (state, (_dir, tree, bytes)) = (directory(), sample());
    let (snapshots, hash) = (Snapshots::below(state.path()), tree.hash());
    let (one, other) = tokio::join!(snapshots.receive(&hash, chunks(&bytes)), snapshots.receive(&hash, chunks(&bytes)));
    one.expect("taken in");
    other.expect("taken in");
    assert_eq!(kept(state.path()), [hash.as_str()]);
}

#[tokio::test]
async fn a_snapshot_stays_for_who_asked_and_lingers_after_its_last_use() {
    let (state, (_dir, tree, bytes)) = (directory(), sample());
    let (snapshots, hash) = (Snapshots::below(state.path()), tree.hash());
    snapshots.receive(&hash, chunks(&bytes)).await.expect("taken in");
    tokio::time::pause();
    let (nobody, somebody) = (BTreeSet::new(), BTreeSet::from([hash.clone()]));
    let look = |needed: &BTreeSet<SnapshotHash>| {
        let next = snapshots.sweep(needed).expect("swept");
        (snapshots.has(&hash), next.map(|next| next.duration_since(tokio::time::Instant::now())))
    };
    // The `up` that brought it has not asked for it yet.
    assert!(look(&nobody).0);
    snapshots.missing(std::slice::from_ref(&hash));
    assert_eq!(look(&nobody), (true, Some(Duration::from_mins(15))));
    tokio::time::advance(Duration::from_mins(10)).await;
    snapshots.missing(std::slice::from_ref(&hash));
    assert_eq!(look(&nobody), (true, Some(Duration::from_mins(15))));
    assert_eq!(look(&somebody), (true, None));
    assert_eq!(look(&nobody), (true, Some(Duration::from_secs(5))));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(look(&nobody), (false, None));
    assert!(kept(state.path()).is_empty());
    // After a restart nobody knows who waits.
    tokio::time::resume();
    snapshots.receive(&hash, chunks(&bytes)).await.expect("taken in");
    let next = Snapshots::below(state.path());
    next.sweep(&somebody).expect("swept");
    assert!(next.has(&hash));
    let next = Snapshots::below(state.path());
    next.sweep(&nobody).expect("swept");
    assert!(!next.has(&hash));
}

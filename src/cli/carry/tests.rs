use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

#[test]
fn paths_as_they_are_written() {
    for (text, path, base, asserts) in [
        ("/a/b", "/a/b", "b", false),
        ("b/", "/w/b", "b", true),
        ("b/.", "/w/b", ".", true),
        (".", "/w", ".", true),
        ("./x/../y", "/w/y", "y", false),
        ("../../../z", "/z", "z", false),
        ("/", "/", ".", true),
    ] {
        let written = Written::new(text, "/w");
        assert_eq!((written.path.as_str(), written.base(), written.asserts_directory), (path, base, asserts), "{text}");
    }
    assert_eq!(Written::new("a/.", "/w").text(), "/w/a/.");
    assert_eq!((split("/a/b"), split("/a"), split("/")), (("/a", "b"), ("/", "a"), ("/", "")));
}

#[test]
fn where_things_land_is_as_with_docker_cp() {
    let check = |to: &str, there, base: &str, is_directory, expected: &str| {
        let landed = landing(&Written::new(to, "/"), there, base, is_directory);
        let told = landed.unwrap_or_else(|error| error.to_string());
        assert_eq!(told, expected, "{base} to {to}");
    };
    check("/d", There::Directory, "f", false, "/d/f");
    check("/", There::Directory, "f", false, "/f");
    check("/d", There::Directory, "s", true, "/d/s");
    check("/d", There::Directory, ".", true, "/d");
    check("/g", There::File, "f", false, "/g");
    check("/g", There::File, "s", true, "cannot copy directory");
    check("/n", There::Nothing, "f", false, "/n");
    check("/n/", There::Nothing, "f", false, "no such directory");
    check("/n", There::Nothing, "s", true, "/n");
    check("/n/", There::Nothing, ".", true, "/n");
}

/// A tree with a bit of everything.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("sub/deep")).expect("a directory");
    fs::write(at.join("note"), "one").expect("a file");
    fs::write(at.join("sub/run"), "#!").expect("a file");
    fs::set_permissions(at.join("sub/run"), fs::Permissions::from_mode(0o4751)).expect("its mode");
    fs::set_permissions(at.join("sub/deep"), fs::Permissions::from_mode(0o500)).expect("its mode");
    symlink("../note", at.join("sub/link")).expect("a link");
    fs::write(at.join(format!("sub/{}", "long".repeat(40))), vec![b'x'; 200_000]).expect("a file");
}

/// Paths with modes and contents, in order.
fn listing(at: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut queue = vec![at.to_owned()];
    while let Some(path) = queue.pop() {
        let found = path.symlink_metadata().expect("is there");
        let name = path.strip_prefix(at).expect("below").display().to_string();
        let mode = found.permissions().mode() & 0o7777;
        if found.is_dir() {
            queue.extend(path.read_dir().expect("readable").map(|entry| entry.expect("an entry").path()));
            lines.push(format!("{name} {mode:o}/"));
        } else if found.is_symlink() {
            lines.push(format!("{name} -> {}", path.read_link().expect("a link").display()));
        } else {
            lines.push(format!("{name} {mode:o} {}", fs::read(&path).expect("readable").len()));
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    tree(&from);
    let mut archive = Vec::new();
    pack(&from, "renamed", false, &mut archive).expect("packed");
    unpack(archive.as_slice(), "renamed", &to).expect("unpacked");
    assert_eq!(listing(&to), listing(&from));
    // Once more over itself, and as contents of a directory that is there.
    unpack(archive.as_slice(), "renamed", &to).expect("unpacked again");
    let mut contents = Vec::new();
    pack(&from, ".", false, &mut contents).expect("packed");
    let other = folder.path().join("other");
    fs::create_dir(&other).expect("a directory");
    unpack(contents.as_slice(), ".", &other).expect("unpacked");
    assert_eq!(listing(&other), listing(&from));
}

#[test]
fn links_are_followed_where_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("note"), "one").expect("a file");
    symlink("note", folder.path().join("link")).expect("a link");
    let kind = |follow| {
        let mut archive = Vec::new();
        pack(&folder.path().join("link"), "link", follow, &mut archive).expect("packed");
        let mut archive = tar::Archive::new(archive.as_slice());
        let first = archive.entries().expect("entries").next().expect("one").expect("an entry");
        first.header().entry_type()
    };
    assert_eq!((kind(false), kind(true)), (tar::EntryType::Symlink, tar::EntryType::Regular));
    let missing = pack(&folder.path().join("nothing"), "x", false, Vec::new());
    assert!(matches!(missing, Err(CarryError::Io { action: "read", .. })), "{missing:?}");
}

/// An archive of such entries: name, kind, link or content.
fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        // As the names are: the library would refuse some of them.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let is_file = kind.is_file();
        if !is_file {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(if is_file { text.len() as u64 } else { 0 });
        header.set_cksum();
        builder.append(&header, if is_file { text.as_bytes() } else { b"" }).expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it")
}

#[test]
fn nothing_is_written_outside_of_the_destination() {
    use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("victim"), "safe").expect("a file");
    let hostile: &[&[(&str, tar::EntryType, &str)]] = &[
        &[("../victim", Regular, "gone")],
        &[("d/../../victim", Regular, "gone")],
        &[("/victim", Regular, "gone")],
        &[("other/x", Regular, "gone")],
        &[("d/", Directory, ""), ("d/out", Symlink, "../.."), ("d/out/victim", Regular, "gone")],
        &[("d/", Directory, ""), ("d/hard", Link, "d/../../victim")],
        &[("d/", Directory, ""), ("d/out", Symlink, ".."), ("d/hard", Link, "d/out/victim")],
        &[("d/", Directory, ""), ("d/pipe", Fifo, "")],
    ];
    for (number, entries) in hostile.iter().enumerate() {
        let target = folder.path().join(format!("to{number}"));
        let done = unpack(archive(entries).as_slice(), "d", &target);
        assert!(matches!(done, Err(CarryError::Outside(_) | CarryError::Special(_))), "{entries:?}: {done:?}");
        assert_eq!(fs::read_to_string(folder.path().join("victim")).expect("is there"), "safe");
        assert!(!target.join("hard").exists(), "{entries:?}");
    }
}

#[test]
fn files_give_way_to_files_and_directories_to_nothing() {
    use tar::EntryType::{Directory, Link, Regular};
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("to");
    fs::create_dir_all(target.join("d")).expect("a directory");
    fs::write(target.join("f"), "old").expect("a file");
    let file = archive(&[("x/", Directory, ""), ("x/f", Regular, "new"), ("x/g", Link, "x/f")]);
    unpack(file.as_slice(), "x", &target).expect("unpacked");
    assert_eq!(fs::read_to_string(target.join("g")).expect("the other name"), "new");
    for entries in [&[("x/", Directory, ""), ("x/d", Regular, "new")], &[("x/", Directory, ""), ("x/f", Directory, "")]]
    {
        let done = unpack(archive(entries).as_slice(), "x", &target);
        assert!(matches!(done, Err(CarryError::Overwrite(_))), "{done:?}");
    }
    let cut = unpack(&file[..700], "x", &target);
    assert!(cut.is_err(), "a cut archive");
}

//! Archives that nobody in his right mind makes.

use tar::{Builder, EntryType, Header};

use super::*;

/// An entry of a made-up archive: kind, path, link, content.
type Made<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

const DIR: EntryType = EntryType::Directory;
const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;

/// Writes entries as they are asked for, without a look at what they are.
fn archive(entries: &[Made<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, link, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_mtime(1);
        // As whoever runs the test: nothing is refused for its owner.
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).expect("appended");
    }
    builder.into_inner().expect("an archive")
}

/// Unpacks below a directory of its own. Returns what came of it, and what is outside of where it may write.
fn attempt(bytes: &[u8]) -> (Result<(), SnapshotError>, Vec<String>) {
    let outer = directory();
    let into = outer.path().join("a/b/into");
    fs::create_dir_all(&into).expect("made");
    let result = unpack(bytes, &into, &SnapshotHash::new("0".repeat(64)).expect("a hash"));
    let seen = scan(outer.path(), u64::MAX).map_or_else(|error| vec![error.to_string()], |tree| paths(&tree));
    let outside =
        |path: &String| !["a", "a/b", "a/b/into"].contains(&path.as_str()) && !path.starts_with("a/b/into/content");
    (result, seen.into_iter().filter(outside).collect())
}

#[test]
fn nothing_leads_outside_comes_twice_or_is_something_else() {
    let root: Made = (DIR, "content", "", b"");
    let cases: &[(&str, &str, &[Made])] = &[
        ("no root", "order", &[(FILE, "content/x", "", b"x")]),
        ("another root", "path leads outside", &[(DIR, "other", "", b"")]),
        ("root that only begins alike", "path leads outside", &[(DIR, "contents", "", b"")]),
        ("absolute", "path leads outside", &[root, (FILE, "/x", "", b"x")]),
        ("up", "path leads outside", &[root, (FILE, "../x", "", b"x")]),
        ("down and up", "path leads outside", &[root, (FILE, "content/../../x", "", b"x")]),
        ("dots", "path leads outside", &[root, (FILE, "content/./x", "", b"x")]),
        ("doubled slash", "path leads outside", &[root, (FILE, "content//x", "", b"x")]),
        ("slash at the end", "path leads outside", &[root, (DIR, "content/x/", "", b"")]),
        ("twice", "order", &[root, (FILE, "content/x", "", b"x"), (FILE, "content/x", "", b"y")]),
        ("root twice", "order", &[root, root]),
        ("wrong order", "order", &[root, (FILE, "content/y", "", b""), (FILE, "content/x", "", b"")]),
        ("below a file", "directory is missing", &[root, (FILE, "content/x", "", b""), (FILE, "content/x/y", "", b"")]),
        ("below nothing", "directory is missing", &[root, (FILE, "content/x/y", "", b"")]),
        (
            "below a link",
            "directory is missing",
            &[root, (LINK, "content/x", ".", b""), (FILE, "content/x/y", "", b"y")],
        ),
        (
            "back into a closed directory",
            "order",
            &[root, (DIR, "content/x", "", b""), (DIR, "content/y", "", b""), (FILE, "content/x/z", "", b"")],
        ),
        ("below a file alone", "directory is missing", &[(FILE, "content", "", b""), (FILE, "content/y", "", b"")]),
        ("link up", "link leads outside", &[root, (LINK, "content/x", "../..", b"")]),
        ("absolute link", "link leads outside", &[root, (LINK, "content/x", "/etc", b"")]),
        ("root is a link", "link leads outside", &[(LINK, "content", "a", b"")]),
        ("hard link", "neither", &[root, (EntryType::Link, "content/x", "/etc/passwd", b"")]),
        ("device", "neither", &[root, (EntryType::Char, "content/x", "", b"")]),
        ("pipe", "neither", &[root, (EntryType::Fifo, "content/x", "", b"")]),
        ("extended header", "neither", &[root, (EntryType::XHeader, "content/x", "", b"20 path=../../../x\n")]),
        ("sparse", "neither", &[root, (EntryType::GNUSparse, "content/x", "", b"")]),
        ("directory with content", "neither", &[root, (DIR, "content/x", "", b"x")]),
        (
            "long name that leads outside",
            "path leads outside",
            &[root, (EntryType::GNULongName, "x", "", b"../../../x"), (FILE, "content/x", "", b"x")],
        ),
        (
            "long name with a hidden end",
            "path leads outside",
            &[root, (EntryType::GNULongName, "x", "", b"content/x\0/y"), (FILE, "content/x", "", b"x")],
        ),
        (
            "endless name",
            "too long",
            &[root, (EntryType::GNULongName, "x", "", &[b'a'; 10_000]), (FILE, "content/x", "", b"x")],
        ),
        (
            "long link that leads outside",
            "link leads outside",
            &[root, (EntryType::GNULongLink, "x", "", b"../../../x"), (LINK, "content/x", "y", b"")],
        ),
    ];
    for (name, why, entries) in cases {
        let (result, outside) = attempt(&archive(entries));
        assert!(matches!(&result, Err(SnapshotError::Refused(text)) if text.contains(why)), "{name}: {result:?}");
        assert!(outside.is_empty(), "{name}: {outside:?}");
    }
    let (result, _) = attempt(&archive(&[]));
    assert!(matches!(result, Err(SnapshotError::Cut(_))), "{result:?}");
    let (result, _) = attempt(&archive(&[root, (FILE, "content/x", "", b"x")]));
    assert!(matches!(result, Err(SnapshotError::Changed { .. })), "all is well but the hash: {result:?}");
}

#[test]
fn a_size_that_is_not_there_costs_nothing() {
    let mut bytes = archive(&[(FILE, "content", "", b"x")]);
    let mut header = Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_size(u64::MAX >> 2);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    let (result, outside) = attempt(&bytes);
    assert!(matches!(result, Err(SnapshotError::Cut(_))), "{result:?}");
    assert!(outside.is_empty(), "{outside:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_change_of_an_archive_gets_through_or_out(at in 0_usize..4096, bits in 1_u8.., cut in 0_usize..5000) {
        let (_dir, tree, mut bytes) = super::small();
        let at = at % bytes.len();
        bytes[at] ^= bits;
        bytes.truncate(bytes.len().saturating_sub(cut % (bytes.len() * 2)).max(1));
        let outer = directory();
        let into = outer.path().join("into");
        fs::create_dir(&into).expect("made");
        if unpack(&*bytes, &into, &tree.hash()).is_ok() {
            // What does not count may differ: times, names of owners, what fills a block.
            prop_assert_eq!(super::tree(&into.join(ROOT)).hash(), tree.hash());
        }
        let seen = fs::read_dir(outer.path()).expect("listed").count();
        prop_assert_eq!(seen, 1, "nothing beside it");
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let (result, outside) = attempt(&bytes);
        prop_assert!(result.is_err());
        prop_assert!(outside.is_empty());
    }
}

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use tar::Archive;

use super::*;

/// Makes a directory of files with these contents; a name that ends with a slash is a directory.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (path, content) in files {
        let at = directory.path().join(path);
        if path.ends_with('/') {
            fs::create_dir_all(&at).expect("made");
        } else {
            fs::create_dir_all(at.parent().expect("a parent")).expect("made");
            fs::write(&at, content).expect("written");
        }
    }
    directory
}

/// The archive: path, and type, mode, owner and content.
fn packed(context: &Context) -> BTreeMap<String, String> {
    let mut bytes = Vec::new();
    context.pack(&mut bytes).expect("can be packed");
    let mut found = BTreeMap::new();
    for entry in Archive::new(bytes.as_slice()).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let (header, path) = (entry.header().clone(), entry.path().expect("a path").display().to_string());
        let link = entry.link_name().expect("a link").map(|link| format!(" -> {}", link.display())).unwrap_or_default();
        let mut content = String::new();
        entry.read_to_string(&mut content).expect("text");
        let (mode, owner) = (header.mode().expect("a mode"), header.uid().expect("a number"));
        found.insert(path, format!("{:?} {mode:o} {owner} {content}{link}", header.entry_type()));
    }
    found
}

fn names(files: &[(&str, &str)], instructions: Instructions<'_>) -> String {
    let directory = directory(files);
    let context = Context::open(directory.path(), instructions).expect("a context");
    packed(&context).into_keys().collect::<Vec<_>>().join(" ")
}

const FILE: Instructions<'_> = Instructions::File("");

#[test]
fn all_is_sent_but_what_is_left_out_and_the_instructions_always() {
    let files = [("Dockerfile", "FROM scratch"), ("a/b", ""), ("a/c", ""), ("d", "")];
    assert_eq!(names(&files, FILE), "Dockerfile a/ a/b a/c d");
    let with = |ignore| [&files[..], &[(".dockerignore", ignore)]].concat();
    assert_eq!(names(&with("# all\n*"), FILE), ".dockerignore Dockerfile");
    assert_eq!(names(&with("a\n!a/b\n"), FILE), ".dockerignore Dockerfile a/b d");
    assert_eq!(names(&with("**/c"), FILE), ".dockerignore Dockerfile a/ a/b d");
}

#[test]
fn instructions_from_elsewhere_go_by_a_name_that_the_builder_leaves_out() {
    let files = [("ctx/a", ""), ("ctx/Dockerfile", "in it"), ("other/File", "FROM scratch")];
    let directory = directory(&files);
    let open = |instructions| Context::open(&directory.path().join("ctx"), instructions).expect("a context");
    for context in [open(Instructions::File("../other/File")), open(Instructions::Text("FROM scratch"))] {
        assert_eq!(context.instructions(), "FROM scratch");
        let archive = packed(&context);
        let name = context.dockerfile();
        assert!(archive[name].contains("FROM scratch"), "{archive:?}");
        assert_eq!(archive[".dockerignore"], format!("Regular 600 0 .dockerignore\n{name}\n"));
        assert_eq!(archive.len(), 4, "{archive:?}");
    }
    // What the user's own file leaves out stays so.
    fs::write(directory.path().join("ctx/.dockerignore"), "a").expect("written");
    let context = open(Instructions::Text("FROM scratch"));
    let archive = packed(&context);
    assert!(
        !archive.contains_key("a") && archive[".dockerignore"].ends_with(&format!(" a\n{}\n", context.dockerfile()))
    );
}

#[test]
fn an_ignore_file_of_the_instructions_own_takes_the_place_of_the_other() {
    let files = [
        ("deep/My.File", "FROM scratch"),
        ("deep/My.File.dockerignore", "a\ndeep"),
        (".dockerignore", "b"),
        ("a", ""),
        ("b", ""),
    ];
    let directory = directory(&files);
    let context = Context::open(directory.path(), Instructions::File("deep/My.File")).expect("a context");
    let archive = packed(&context);
    assert_eq!(archive.len(), 3, "{archive:?}");
    assert!(archive.contains_key("b") && archive[context.dockerfile()].contains("FROM scratch"), "{archive:?}");
}

#[test]
fn modes_and_links_stay_and_sockets_do_not_come_along() {
    let long = "l".repeat(150);
    let directory = directory(&[("dockerfile", "FROM scratch"), ("run", "#!"), (&long, "long")]);
    let at = |name: &str| directory.path().join(name);
    fs::set_permissions(at("run"), fs::Permissions::from_mode(0o4751)).expect("set");
    fs::set_permissions(at(&long), fs::Permissions::from_mode(0o600)).expect("set");
    symlink("/anywhere/else", at("out")).expect("linked");
    fs::hard_link(at("run"), at("same")).expect("linked");
    let _socket = UnixListener::bind(at("socket")).expect("a socket");
    let context = Context::open(directory.path(), FILE).expect("a context");
    assert_eq!(context.dockerfile(), "dockerfile");
    let archive = packed(&context);
    assert_eq!(archive["run"], "Regular 4751 0 #!");
    assert_eq!(archive["same"], "Link 4751 0  -> run");
    assert_eq!(archive["out"], "Symlink 777 0  -> /anywhere/else");
    assert_eq!(archive[&long], "Regular 600 0 long");
    assert!(!archive.contains_key("socket"));
}

#[test]
fn what_is_wrong_with_a_context_is_said() {
    let check = |path: &Path, instructions, expected: &str| {
        let said = Context::open(path, instructions).expect_err("wrong").to_string();
        assert!(said.contains(expected), "{said}");
    };
    let directory =
        directory(&[("file", ""), ("bad/.dockerignore", "ok\n[a\n"), ("bad/Dockerfile", ""), ("none/", "")]);
    check(&directory.path().join("absent"), FILE, "absent` does not exist");
    check(&directory.path().join("file"), FILE, "file` is not a directory");
    check(&directory.path().join("none"), FILE, "none/Dockerfile` does not exist");
    check(&directory.path().join("none"), Instructions::File("x/y"), "none/x/y` does not exist");
    check(&directory.path().join("bad"), FILE, "line 2 of ");
}

#[tokio::test]
async fn what_changes_meanwhile_breaks_it_off_and_is_said() {
    use futures_util::TryStreamExt as _;

    let directory = directory(&[("Dockerfile", "FROM scratch"), ("a", "b")]);
    let context = Context::open(directory.path(), FILE).expect("a context");
    fs::remove_dir_all(directory.path()).expect("removed");
    let (pieces, problem) = context.packed();
    pieces.try_collect::<Vec<_>>().await.expect_err("broken off");
    assert!(problem.get().is_some_and(|problem| problem.to_string().contains("cannot be read")), "{problem:?}");
}

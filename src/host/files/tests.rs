//! In directories of the test's own; mounts in a namespace of the test's own, which needs root and says so.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::host::namespace::in_new_host;

fn shop() -> ProjectName {
    ProjectName::new("shop").expect("valid")
}

struct Fixture {
    files: HostFiles,
    root: tempfile::TempDir,
}

/// Directories on a disk, with the directory for secrets already on a tmpfs or not.
fn fixture() -> Fixture {
    let root = tempfile::tempdir().expect("a directory");
    let files = HostFiles::new(root.path().join("lib/orch"), root.path().join("run/orch"), HostTools::here());
    Fixture { files, root }
}

fn content(text: &str, secret: bool) -> FileContent {
    FileContent { bytes: text.into(), secret }
}

fn mount(text: &str, mode: u32) -> FileMount {
    FileMount {
        target: "/etc/app".to_owned(),
        hash: hex(text.as_bytes()),
        secret: false,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mode,
    }
}

/// Every file below a directory, with its mode.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("readable").path();
            let meta = path.symlink_metadata().expect("there");
            if meta.is_dir() {
                left.push(path);
            } else {
                let short = path.strip_prefix(root).expect("below").display().to_string();
                found.push(format!("{short} {:o}", meta.mode() & 0o7777));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn resolv_conf_names_the_gateway_and_the_users_words() {
    let Fixture { files, root: _root } = fixture();
    let mut resolv = Resolv { gateway: Ipv4Addr::new(10, 192, 0, 1), search: vec![], options: vec![] };
    let path = files.ensure_resolv(&shop(), &resolv).await.expect("written");
    insta::assert_snapshot!(std::fs::read_to_string(&path).expect("readable"), @r"
    # Written by orch, whose agent answers at this network's gateway.
    nameserver 10.192.0.1
    options ndots:0 timeout:1 attempts:5
    ");
    let made = path.metadata().expect("there");
    assert_eq!(made.mode() & 0o7777, 0o644);
    assert_eq!(files.ensure_resolv(&shop(), &resolv).await.expect("there"), path);
    let now = path.metadata().expect("there");
    assert_eq!((now.ino(), now.ctime_nsec()), (made.ino(), made.ctime_nsec()), "not touched again");

    resolv.search = vec!["a.example".to_owned(), "b.example\nnameserver 6.6.6.6".to_owned()];
    resolv.options = vec!["timeout:2".to_owned(), "ndots:3".to_owned()];
    let other = files.ensure_resolv(&shop(), &resolv).await.expect("written");
    assert_ne!(other, path);
    insta::assert_snapshot!(std::fs::read_to_string(&other).expect("readable"), @r"
    # Written by orch, whose agent answers at this network's gateway.
    search a.example b.example nameserver 6.6.6.6
    nameserver 10.192.0.1
    options ndots:0 timeout:1 attempts:5 timeout:2 ndots:3
    ");
}

#[tokio::test]
async fn files_are_mended_in_place() {
    let Fixture { files, root } = fixture();
    let ensure = async || files.ensure_file(&shop(), &mount("hello", 0o440), &content("hello", false)).await;
    let path = ensure().await.expect("written");
    let inode = || path.metadata().expect("there").ino();
    let first = inode();
    let breaks: [(&str, &dyn Fn()); 4] = [
        ("content", &|| std::fs::write(&path, "changed by hand").expect("written")),
        ("length", &|| std::fs::write(&path, "hello, and more").expect("written")),
        ("cut", &|| std::fs::write(&path, "").expect("written")),
        ("mode", &|| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("set")),
    ];
    for (what, broken) in breaks {
        broken();
        assert_eq!(ensure().await.expect("mended"), path);
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "hello", "{what}");
        assert_eq!(path.metadata().expect("there").mode() & 0o7777, 0o440, "{what}");
        assert_eq!(inode(), first, "{what}: a container binds this very file");
    }
    let outside = root.path().join("outside");
    std::fs::write(&outside, "not ours").expect("written");
    let replaced: [(&str, &dyn Fn()); 3] = [
        ("gone", &|| {}),
        ("the engine's directory", &|| std::fs::create_dir(&path).expect("made")),
        ("a link", &|| symlink(&outside, &path).expect("made")),
    ];
    for (what, broken) in replaced {
        write::remove_tree(&path).expect("removed");
        broken();
        ensure().await.expect("mended");
        assert!(path.symlink_metadata().expect("there").is_file(), "{what}");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "hello", "{what}");
    }
    assert_eq!(std::fs::read_to_string(&outside).expect("readable"), "not ours");
    assert_eq!(tree(&root.path().join("lib")).len(), 1, "nothing half-made is left");
}

#[tokio::test]
async fn a_content_must_be_what_its_name_says() {
    let Fixture { files, root } = fixture();
    for hash in [hex(b"other"), "../../etc/passwd".to_owned(), String::new(), hex(b"hello").to_uppercase()] {
        let wrong = FileMount { hash: hash.clone(), ..mount("hello", 0o444) };
        let error = files.ensure_file(&shop(), &wrong, &content("hello", false)).await.expect_err("refused");
        assert!(matches!(error, FilesError::WrongContent(told) if told == hash));
    }
    assert_eq!(tree(root.path()), [""; 0]);
}

#[test]
fn owners_are_given() {
    in_new_host(async || {
        let Fixture { files, root: _root } = fixture();
        let of_app = FileMount { uid: 999, gid: 998, ..mount("x", 0o400) };
        let path = files.ensure_file(&shop(), &of_app, &content("x", false)).await.expect("written");
        let found = path.metadata().expect("there");
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (999, 998, 0o400));
        // The same content for somebody else is another file.
        let other = files.ensure_file(&shop(), &mount("x", 0o400), &content("x", false)).await.expect("written");
        assert_ne!(other, path);
        std::os::unix::fs::chown(&path, Some(0), Some(0)).expect("root may");
        files.ensure_file(&shop(), &of_app, &content("x", false)).await.expect("mended");
        assert_eq!(path.metadata().expect("there").uid(), 999);
    });
}

#[test]
fn what_is_unused_is_swept_and_other_projects_stay() {
    in_new_host(async || {
        let Fixture { files, root } = fixture();
        let other = ProjectName::new("other").expect("valid");
        let mut kept = BTreeSet::new();
        for project in [&shop(), &other] {
            for text in ["a", "b"] {
                let config =
                    files.ensure_file(project, &mount(text, 0o444), &content(text, false)).await.expect("written");
                let secret =
                    files.ensure_file(project, &mount(text, 0o400), &content(text, true)).await.expect("written");
                if text == "a" {
                    kept.extend([config, secret]);
                }
            }
        }
        let left = root.path().join("lib/orch/projects/shop/files/.new-1-1");
        std::fs::write(&left, "left by a crash").expect("written");
        files.sweep(&shop(), &kept).await.expect("swept");
        assert!(kept.iter().all(|path| path.exists()));
        assert_eq!(tree(root.path()).len(), 2 + 4);
        files.remove_project(&shop()).await.expect("removed");
        files.remove_project(&shop()).await.expect("once more is no error");
        assert_eq!(tree(root.path()).len(), 4);
        assert!(tree(root.path()).iter().all(|path| path.contains("/other/")));
        files.sweep(&ProjectName::new("never").expect("valid"), &kept).await.expect("nothing to sweep");
    });
}

#[test]
fn secrets_are_in_memory_only_and_nothing_is_left_in_the_end() {
    in_new_host(async || {
        let Fixture { files, root } = fixture();
        let secret = FileMount { secret: true, ..mount("s3cret", 0o400) };
        // Either of both marks makes it one.
        for (mount, content) in
            [(&secret, content("s3cret", false)), (&mount("s3cret", 0o440), content("s3cret", true))]
        {
            let path = files.ensure_file(&shop(), mount, &content).await.expect("written");
            assert!(path.starts_with(root.path().join("run/orch/secrets/shop")), "{path:?}");
            assert!(in_memory(&path), "{path:?}");
        }
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").expect("readable");
        let ours: Vec<&str> = mounts.lines().filter(|line| line.starts_with("orch-secrets")).collect();
        assert_eq!(ours.len(), 1, "mounted once: {ours:?}");
        assert!(ours[0].contains("nosuid") && ours[0].contains("noexec") && ours[0].contains("mode=700"), "{ours:?}");
        assert_eq!(tree(&root.path().join("lib")), [""; 0]);

        files
            .ensure_resolv(&shop(), &Resolv { gateway: Ipv4Addr::LOCALHOST, search: vec![], options: vec![] })
            .await
            .expect("written");
        std::fs::write(root.path().join("lib/orch/store.db"), "").expect("written");
        files.remove_all().await.expect("removed");
        files.remove_all().await.expect("once more is no error");
        assert!(!root.path().join("lib/orch").exists() && !root.path().join("run/orch").exists());
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").expect("readable");
        assert!(!mounts.contains("orch-secrets"));
    });
}

#[test]
fn a_run_directory_in_memory_needs_no_mount() {
    in_new_host(async || {
        let Fixture { files, root } = fixture();
        let run = root.path().join("run");
        std::fs::create_dir(&run).expect("made");
        let text = run.display().to_string();
        HostTools::here().run("mount", &["-t", "tmpfs", "tmpfs", &text], "").await.expect("root may");
        let path = files.ensure_file(&shop(), &mount("s", 0o400), &content("s", true)).await.expect("written");
        assert!(in_memory(&path));
        assert!(!is_mount(&files.secrets()));
        files.remove_all().await.expect("removed");
        assert_eq!(tree(&run), [""; 0]);
        HostTools::here().run("umount", &[&text], "").await.expect("root may");
    });
}

#[tokio::test]
async fn the_run_directory_is_on_the_list_of_what_is_made_at_boot_until_all_is_removed() {
    let Fixture { files, root } = fixture();
    files.ensure_made_at_boot().await.expect("nothing to do");
    assert_eq!(tree(root.path()), [""; 0]);
    let list = root.path().join("etc/tmpfiles.d/orch.conf");
    let files = files.made_at_boot(&list);
    let error = files.ensure_made_at_boot().await.expect_err("no systemd").to_string();
    assert!(error.contains("run/orch made at each boot"), "{error}");
    std::fs::create_dir_all(list.parent().expect("a directory")).expect("made");
    for _ in 0..2 {
        files.ensure_made_at_boot().await.expect("written");
    }
    let text = std::fs::read_to_string(&list).expect("readable");
    let line = format!("d {}/run/orch 0755 root root -", root.path().display());
    assert_eq!(text.lines().filter(|text| !text.starts_with('#')).collect::<Vec<_>>(), [line.as_str()]);
    assert_eq!(tree(root.path()), ["etc/tmpfiles.d/orch.conf 644"]);
    files.remove_all().await.expect("removed");
    assert_eq!(tree(root.path()), [""; 0]);
}

/// The agent's container: its own mounts, in which the host's directories are bound, made before the host mounts a tmpfs.
#[test]
fn an_agent_that_cannot_see_the_mount_goes_through_the_hosts_root() {
    in_new_host(async || {
        let host = PathBuf::from(format!("/proc/self/task/{}", crate::host::namespace::thread_id()));
        let Fixture { files, root } = fixture();
        let (lib, run) = (root.path().join("lib/orch"), root.path().join("run/orch"));
        for directory in [&lib, &run] {
            std::fs::create_dir_all(directory).expect("made");
        }
        let seen = {
            let (lib, run) = (lib.clone(), run.clone());
            let agent = move || {
                in_new_host(async move || {
                    let aside = tempfile::tempdir().expect("a directory");
                    for path in [&lib, &run] {
                        bind_from_host(path, aside.path()).await;
                    }
                    let tools = HostTools::of(&host).expect("the host's thread lives");
                    let agent = HostFiles::new(&lib, &run, tools);
                    std::fs::write(run.join("agent.sock"), "").expect("written");
                    for _ in 0..2 {
                        let path = agent.ensure_file(&shop(), &mount("s", 0o400), &content("s", true)).await;
                        let path = path.expect("written");
                        assert!(!path.exists(), "not where this agent looks: {path:?}");
                    }
                    agent.ensure_file(&shop(), &mount("c", 0o444), &content("c", false)).await.expect("written");
                    // What the host has now, before it is removed.
                    let host = agent.tools.clone();
                    let list = host.run("find", &[&run.to_string_lossy(), "-type", "f"], "").await.expect("it runs");
                    let kind = host.run("stat", &["-f", "-c", "%T", &agent.secrets().to_string_lossy()], "").await;
                    assert_eq!(kind.expect("it runs").trim(), "tmpfs");
                    assert_eq!(
                        list.lines().count(),
                        2,
                        "the secret, and the socket that the mount does not hide: {list}"
                    );
                    agent.remove_all().await.expect("removed");
                });
            };
            std::thread::spawn(agent).join()
        };
        seen.expect("the agent's side holds");
        assert!(!lib.exists() && !run.exists(), "{:?}", tree(root.path()));
        assert!(!std::fs::read_to_string("/proc/thread-self/mounts").expect("readable").contains("orch-secrets"));
        drop(files);
    });
}

/// Binds the host's directory at its own path in a root of ours, as the engine does for a container.
async fn bind_from_host(path: &Path, aside: &Path) {
    let (path, aside, tools) = (path.to_string_lossy(), aside.to_string_lossy(), HostTools::here());
    let above = Path::new(&*path).parent().expect("it has one").to_string_lossy();
    let bind = async |from: &str, to: &str| tools.run("mount", &["--bind", from, to], "").await.expect("root may");
    bind(&path, &aside).await;
    tools.run("mount", &["-t", "tmpfs", "tmpfs", &above], "").await.expect("root may");
    std::fs::create_dir(&*path).expect("made");
    bind(&aside, &path).await;
    tools.run("umount", &[&aside], "").await.expect("root may");
}

#[tokio::test]
async fn what_cannot_be_ours_is_not_removed() {
    for (state, run) in
        [("/", "/run/orch"), ("/var", "/run/orch"), ("lib/orch/x", "/run/orch"), ("/a/b/../..", "/run/orch")]
    {
        let error = HostFiles::new(state, "/nonexistent/run", HostTools::here()).remove_all().await.expect_err(run);
        assert!(matches!(error, FilesError::NotOurs(path) if path == Path::new(state)));
    }
}

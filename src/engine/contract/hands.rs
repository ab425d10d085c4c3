//! Cases of what people do with containers by hand.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::super::by_hand::{AttachSpec, CommitSpec, Unpack, WaitFor};
use super::super::{HostPort, Result, SpecNetwork, VolumeSpec};
use super::{World, conflict, container, eventually, labels, member, name, network, not_found, observed, start};
use crate::engine::Engine;
use crate::graph::Protocol;

/// `docs/`, and `docs/note` with `text`.
fn archive(text: &str) -> Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content, kind) in
        [("docs/", None, tar::EntryType::Directory), ("docs/note", Some(text), tar::EntryType::Regular)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        let content = content.unwrap_or_default();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_bytes()).expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it").into()
}

async fn write(engine: &dyn Engine, id: &str, directory: &str, archive: &Bytes) -> Result<()> {
    // In pieces, as it comes over a line.
    let pieces: Vec<_> = archive.chunks(700).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    engine.write_archive(id, directory, stream::iter(pieces).boxed(), Unpack::default()).await
}

pub(super) async fn files_go_in_and_out(world: &dyn World) {
    let engine = world.engine();
    let stopped = engine.create_container(&container(world, "made", "sleep")).await.expect("can be made");
    let running = start(world, &container(world, "web", "sleep")).await.id;
    for id in [&stopped, &running] {
        not_found(&engine.path_stat(id, "/docs").await, "path");
        write(engine, id, "/", &archive("one")).await.expect("can be written");
        let stat = engine.path_stat(id, "/docs").await.expect("is there");
        assert_eq!((stat.name.as_str(), stat.is_dir, stat.link.as_str()), ("docs", true, ""));
        assert!(!engine.path_stat(id, "/docs/note").await.expect("is there").is_dir);
        write(engine, id, "/docs", &archive("two")).await.expect("can be written");
        write(engine, id, "/", &archive("three")).await.expect("can be overwritten");

        let read: Vec<Bytes> = engine.read_archive(id, "/docs").try_collect().await.expect("can be read");
        let read = read.concat();
        let mut names = Vec::new();
        for entry in tar::Archive::new(read.as_slice()).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            names.push(format!("{} {text}", path.trim_end_matches('/')));
        }
        names.sort();
        assert_eq!(names, ["docs ", "docs/docs ", "docs/docs/note two", "docs/note three"]);

        not_found(&write(engine, id, "/nowhere", &archive("x")).await, "path");
        let missing: Result<Vec<Bytes>> = engine.read_archive(id, "/nowhere").try_collect().await;
        not_found(&missing, "path");
    }
    not_found(&engine.path_stat(&name(world, "nobody"), "/").await, "container");
}

pub(super) async fn a_container_becomes_an_archive_and_an_image(world: &dyn World) {
    let engine = world.engine();
    let running = start(world, &container(world, "web", "sleep")).await.id;
    write(engine, &running, "/", &archive("one")).await.expect("can be written");
    let all: Vec<Bytes> = engine.export(&running).try_collect().await.expect("can be exported");
    let all = all.concat();
    let mut archive = tar::Archive::new(all.as_slice());
    let entries = archive.entries().expect("an archive").map(|entry| entry.expect("an entry"));
    let names: Vec<_> = entries.map(|entry| entry.path().expect("a path").display().to_string()).collect();
    assert!(names.iter().any(|name| name == "docs/note"), "{names:?}");

    let reference = format!("{}:1", name(world, "made"));
    let spec = CommitSpec {
        reference: Some(reference.clone()),
        author: Some("somebody".to_owned()),
        message: Some("what it is for".to_owned()),
        changes: vec!["ENV A=b".to_owned(), "LABEL c=d".to_owned()],
        pause: true,
    };
    let id = engine.commit(&running, &spec).await.expect("can be made an image");
    assert_eq!(engine.image_id(&reference).await.expect("can be looked for"), Some(id));
    engine.remove_image(&reference).await.expect("can be removed");
    assert!(observed(world, &running).await.is_some_and(|one| one.is_running()));

    let nobody = name(world, "nobody");
    not_found(&engine.commit(&nobody, &CommitSpec::default()).await, "container");
    let missing: Result<Vec<Bytes>> = engine.export(&nobody).try_collect().await;
    not_found(&missing, "container");
}

pub(super) async fn ends_are_waited_for_before_they_come(world: &dyn World) {
    let engine = world.engine();
    let kept =
        engine.create_container(&container(world, "kept", "out one; err two; exit 3")).await.expect("can be made");
    let exiting = engine.begin_wait(&kept, WaitFor::NextExit).await.expect("can be waited for");
    let mut attached = engine.attach(&kept, &AttachSpec::default()).await.expect("can be attached to");
    engine.start_container(&kept).await.expect("can be started");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = attached.output.next().await {
        let chunk = chunk.expect("the output goes on");
        if chunk.stderr { err.extend(chunk.bytes) } else { out.extend(chunk.bytes) }
    }
    assert_eq!((out.as_slice(), err.as_slice()), (&b"one\n"[..], &b"two\n"[..]), "from its first line on");
    assert_eq!(exiting.await.expect("it ends"), 3);
    assert!(observed(world, &kept).await.is_some(), "it stays");

    let mut passing = container(world, "passing", "exit 4");
    passing.auto_remove = true;
    let passing = engine.create_container(&passing).await.expect("can be made");
    let exiting = engine.begin_wait(&passing, WaitFor::Removed).await.expect("can be waited for");
    // It may be gone before it could be looked at.
    engine.start_container(&passing).await.ok();
    assert_eq!(exiting.await.expect("it ends"), 4);
    let gone = || async { observed(world, &passing).await.is_none().then_some(()) };
    eventually("the end of a container that removes itself", gone).await;
    not_found(&engine.begin_wait(&name(world, "nobody"), WaitFor::NextExit).await.map(drop), "container");
}

pub(super) async fn what_runs_is_looked_into(world: &dyn World) {
    let engine = world.engine();
    let net = network(world, "net", 0);
    engine.ensure_network(&net).await.expect("can be made");
    let port = world.free_port();
    let mut spec = container(world, "web", "sleep");
    spec.network = SpecNetwork::Networks(vec![member(&net)]);
    let host_ip = Some("127.0.0.1".parse().expect("an address"));
    spec.host_ports = vec![HostPort { host_ip, published: Some((port, port)), target: 80, protocol: Protocol::Tcp }];
    let running = start(world, &spec).await.id;
    let bound = engine.bound_ports(&running).await.expect("can be looked at");
    let bound: Vec<_> =
        bound.iter().map(|port| (port.target, port.protocol, port.host_ip.to_string(), port.published)).collect();
    assert_eq!(bound, [(80, Protocol::Tcp, "127.0.0.1".to_owned(), port)]);

    let listed = engine.processes(&running).await.expect("can be listed");
    assert!(listed.titles.iter().any(|title| title == "PID"), "{listed:?}");
    assert!(listed.rows.len() == 1 && listed.rows[0].len() == listed.titles.len(), "{listed:?}");
    let used = engine.usage(&running, true).next().await.expect("an answer").expect("can be seen");
    assert!(used.pids >= 1 && used.memory > 0, "{used:?}");

    engine.stop_container(&running, Duration::from_secs(5)).await.expect("can be stopped");
    assert!(engine.bound_ports(&running).await.expect("can be looked at").is_empty());
    conflict(&engine.processes(&running).await);
    not_found(&engine.bound_ports(&name(world, "nobody")).await, "container");
}

pub(super) async fn images_and_volumes_are_looked_at(world: &dyn World) {
    let engine = world.engine();
    let image = world.image();
    let details = engine.image_details(&image).await.expect("it answers").expect("is there");
    assert_eq!(Some(&details.id), engine.image_id(&image).await.expect("it answers").as_ref());
    assert!(details.tags.iter().any(|tag| tag.ends_with(&image)), "{details:?}");
    assert!(details.platform.starts_with("linux/") && details.size > 0, "{details:?}");
    assert_eq!(engine.image_details(&details.id).await.expect("it answers"), Some(details));
    assert_eq!(engine.image_details("nobody/has:this").await.expect("it answers"), None);

    let volume = VolumeSpec {
        name: name(world, "data"),
        driver: "local".to_owned(),
        driver_opts: std::collections::BTreeMap::new(),
        labels: labels(world),
    };
    engine.ensure_volume(&volume).await.expect("can be made");
    let seen = engine.volume_details(&volume.name).await.expect("it answers").expect("is there");
    assert!(seen.mountpoint.ends_with("/_data"), "{seen:?}");
    assert_eq!(engine.volume_details(&name(world, "nothing")).await.expect("it answers"), None);
}

pub(super) async fn one_attaches_to_what_runs(world: &dyn World) {
    let engine = world.engine();
    let running = start(world, &container(world, "web", "sleep")).await.id;
    assert!(!engine.has_terminal(&running).await.expect("can be looked at"));
    let mut terminal = container(world, "terminal", "sleep");
    terminal.container.tty = true;
    let terminal = engine.create_container(&terminal).await.expect("can be made");
    assert!(engine.has_terminal(&terminal).await.expect("can be looked at"));
    let mut attached = engine.attach(&running, &AttachSpec::default()).await.expect("can be attached to");
    engine.stop_container(&running, Duration::from_secs(5)).await.expect("can be stopped");
    assert!(attached.output.next().await.is_none(), "what was written before is not repeated, and its end ends it");
    not_found(&engine.attach(&name(world, "nobody"), &AttachSpec::default()).await.map(drop), "container");
}

//! Cases of images that are made and given away.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{World, name, not_found};
use crate::engine::{BuildSpec, BuildStep, EngineError, Result};

/// A context of these files, as a tar archive in two pieces.
fn context(files: &[(&str, &str)]) -> super::super::BoxStream<'static, std::io::Result<Bytes>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_bytes()).expect("memory takes it");
    }
    let mut archive = Bytes::from(builder.into_inner().expect("memory takes it"));
    let first = archive.split_to(512);
    stream::iter([Ok(first), Ok(archive)]).boxed()
}

async fn build(world: &dyn World, spec: &BuildSpec, files: &[(&str, &str)]) -> Result<Vec<BuildStep>> {
    world.engine().build(spec, context(files)).try_collect().await
}

fn made(steps: &[BuildStep]) -> String {
    let made = steps.iter().rev().find_map(|step| match step {
        BuildStep::Made(id) => Some(id.clone()),
        BuildStep::Said(_) | BuildStep::Pulling(_) | BuildStep::Failing(_) => None,
    });
    made.expect("the image's id is said")
}

const FILES: [(&str, &str); 2] =
    [("sub/File", "FROM scratch\nARG word\nENV said=$word\nCOPY note /note\n"), ("note", "hello\n")];

pub(super) async fn images_are_built_of_a_context(world: &dyn World) {
    let engine = world.engine();
    let names = [format!("orch-contract/{}:1", name(world, "one")), format!("orch-contract/{}:2", name(world, "two"))];
    let spec = BuildSpec {
        dockerfile: "sub/File".to_owned(),
        names: names.to_vec(),
        args: [("word".to_owned(), "a b".to_owned())].into(),
        labels: [("orch.contract".to_owned(), "yes".to_owned())].into(),
        ulimits: [("nofile".to_owned(), (100, 200))].into(),
        shm_size: Some(1 << 26),
        ..BuildSpec::default()
    };
    let steps = build(world, &spec, &FILES).await.expect("can be built");
    let said: String = steps
        .iter()
        .filter_map(|step| if let BuildStep::Said(text) = step { Some(text.as_str()) } else { None })
        .collect();
    assert!(said.to_lowercase().contains("step 1/") && said.contains("COPY note /note"), "{said}");
    let id = made(&steps);
    for name in &names {
        assert_eq!(engine.image_id(name).await.expect("the engine answers").as_deref(), Some(id.as_str()), "{name}");
    }
    let again = build(world, &spec, &FILES).await.expect("can be built again");
    assert_eq!(made(&again), id, "layers of earlier builds are taken");
    let other = build(world, &spec, &[FILES[0], ("note", "another\n")]).await.expect("can be built");
    assert_ne!(made(&other), id);
    assert_eq!(engine.image_id(&names[1]).await.expect("the engine answers"), Some(made(&other)), "names move");
    let fresh = BuildSpec { no_cache: true, ..spec.clone() };
    let fresh = build(world, &fresh, &FILES).await.expect("can be built");
    assert_ne!(made(&fresh), id, "no layer of earlier builds is taken");
    for name in &names {
        engine.remove_image(name).await.expect("can be removed");
    }
    for id in [id, made(&other)] {
        engine.remove_image(&id).await.expect("can be removed");
    }
}

pub(super) async fn a_step_that_fails_is_said_and_makes_nothing(world: &dyn World) {
    let reference = format!("orch-contract/{}:1", name(world, "bad"));
    let spec = BuildSpec { dockerfile: "File".to_owned(), names: vec![reference.clone()], ..BuildSpec::default() };
    let failed = build(world, &spec, &[("File", "FROM scratch\nCOPY absent /x\n")]).await;
    assert!(matches!(&failed, Err(EngineError::Refused { message, .. }) if message.contains("absent")), "{failed:?}");
    let failed = build(world, &spec, &[("Other", "FROM scratch\n")]).await;
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(world.engine().image_id(&reference).await.expect("the engine answers"), None);
}

pub(super) async fn what_is_not_there_is_not_pushed(world: &dyn World) {
    let pushed = world.engine().push("orch-contract.invalid/absent:1", None).try_collect::<Vec<_>>().await;
    not_found(&pushed, "image");
}

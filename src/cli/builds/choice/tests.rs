use super::*;

fn kit(version: (u32, u32), has_containerd_store: bool) -> BuildKit {
    let version_text = format!("{}.{}.1", version.0, version.1);
    BuildKit { version, version_text, has_containerd_store, is_preferred: true }
}

fn offered(kit: Option<BuildKit>, switch: &str) -> Offered {
    Offered::new(kit, Some(switch)).expect("a switch")
}

#[track_caller]
fn check(build: &str, offered: &Offered, expected: Result<Builder, &[&str]>) {
    let source: Build = serde_yaml::from_str(build).expect("a build");
    let service = "web".parse().expect("a name");
    let build = BuiltImage { source, ..BuiltImage::of_service(service) };
    let chosen = choose(&build, &MakeOptions::default(), offered);
    let chosen = chosen.map_err(|refusals| refusals.into_iter().map(|it| it.message).collect::<Vec<_>>());
    assert_eq!(
        chosen,
        expected.map_err(|messages| messages.iter().map(|text| (*text).to_owned()).collect()),
        "{build:?}"
    );
}

#[test]
fn buildkit_is_taken_where_it_is_and_is_not_turned_off() {
    let old = Some(kit((20, 10), false));
    check("{}", &offered(old.clone(), ""), Ok(Builder::Kit));
    check("{}", &offered(old.clone(), "0"), Ok(Builder::Classic));
    check("{}", &offered(None, "1"), Ok(Builder::Classic));
    let off = Some(BuildKit { is_preferred: false, ..kit((20, 10), false) });
    check("{}", &offered(off.clone(), ""), Ok(Builder::Classic));
    check("{}", &offered(off, "true"), Ok(Builder::Kit));
    assert!(Offered::new(old, Some("maybe")).is_err_and(|error| error.to_string().contains("`maybe`")));
}

#[test]
fn what_a_builder_cannot_do_is_refused_or_left_to_the_other_one() {
    let old = offered(Some(kit((20, 10), false)), "");
    let new = offered(Some(kit((28, 5), false)), "");
    let store = offered(Some(kit((28, 5), true)), "");
    let off = offered(Some(kit((28, 5), true)), "0");
    let none = offered(None, "");
    let secrets = "{secrets: [{source: a}]}";
    check(secrets, &old, Ok(Builder::Kit));
    check(secrets, &off, Err(&["`services.web.build.secrets` needs BuildKit, which DOCKER_BUILDKIT=0 turns off"]));
    check(secrets, &none, Err(&["`services.web.build.secrets` needs BuildKit, which this engine does not have"]));
    check("{shm_size: 9, ulimits: {nofile: 1}}", &old, Ok(Builder::Classic));
    check("{shm_size: 9, ulimits: {nofile: 1}}", &new, Ok(Builder::Kit));
    check("{shm_size: 9, ssh: [default]}", &new, Ok(Builder::Kit));
    check(
        "{shm_size: 9, ssh: [default]}",
        &old,
        Err(&[
            "`services.web.build.shm_size` needs Docker Engine 23.0 or the classic builder; this one is 20.10.1, and `ssh` needs \
         BuildKit",
        ]),
    );
    check("{network: mine}", &store, Ok(Builder::Classic));
    check("{network: host}", &store, Ok(Builder::Kit));
    check(
        "{network: mine, privileged: true}",
        &store,
        Err(&[
            "`services.web.build.network` with a network's name needs the classic builder, and `privileged` needs BuildKit",
        ]),
    );
    check("{additional_contexts: {a: /b}}", &new, Ok(Builder::Kit));
    check(
        "{additional_contexts: {a: /b}}",
        &old,
        Err(&["`services.web.build.additional_contexts` needs Docker Engine 23.0; this one is 20.10.1"]),
    );
    let needs_store = "needs an engine that keeps images in containerd's store, which this one does not";
    check(
        "{platforms: [linux/amd64, linux/arm64], provenance: 'true'}",
        &new,
        Err(&[
            &format!("`services.web.build.platforms` with more than one {needs_store}"),
            &format!("`services.web.build.provenance` {needs_store}"),
        ]),
    );
    check("{platforms: [linux/amd64, linux/arm64], sbom: 'true'}", &store, Ok(Builder::Kit));
    check("{platforms: [linux/amd64], sbom: 'false', provenance: 'false'}", &old, Ok(Builder::Kit));
    let flags = |value: &str| MakeOptions {
        provenance: Some(value.to_owned()),
        sbom: Some("false".to_owned()),
        ..MakeOptions::default()
    };
    let with = |value: &str, offered: &Offered| {
        let source = serde_yaml::from_str("{provenance: 'true', sbom: 'true'}").expect("a build");
        let build = BuiltImage { source, ..BuiltImage::of_service("web".parse().expect("a name")) };
        let chosen = choose(&build, &flags(value), offered);
        chosen.map_err(|refusals| refusals.into_iter().map(|refusal| refusal.message).collect::<Vec<_>>())
    };
    assert_eq!(with("false", &none), Ok(Builder::Classic), "a flag goes before the file");
    assert_eq!(with("mode=max", &store), Ok(Builder::Kit));
    assert_eq!(with("mode=max", &new), Err(vec![format!("`--provenance` {needs_store}")]));
    check("{cache_to: [type=inline]}", &old, Ok(Builder::Kit));
    check(
        "{cache_to: ['type=local,dest=x']}",
        &old,
        Err(&[&format!("`services.web.build.cache_to` with another type than `inline` {needs_store}")]),
    );
}

#[test]
fn places_of_layers() {
    let check = |entry: &str, kind: &str, pairs: &[(&str, &str)]| {
        let attributes = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(parse_cache(entry), CacheEntry { kind: kind.to_owned(), attributes }, "{entry}");
    };
    check("a.example/b:c", "registry", &[("ref", "a.example/b:c")]);
    check("type=registry,ref=a/b,mode=max", "registry", &[("mode", "max"), ("ref", "a/b")]);
    check("type=inline", "inline", &[]);
}

//! `orch config`: the files as orch understands them, in Docker Compose's canonical form.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::ManuallyDrop;

use serde::Serialize as _;

use crate::cli::args::{ConfigArgs, ConfigFormat};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::table;
use crate::engine::Engine;
use crate::ids::ServiceName;
use crate::load::{LoadOptions, Loaded, OwnKeys, Selection, render_json, render_yaml, schema, to_yaml, views};
use crate::model::{ComposeHash, ComposeHashes};

/// Prints the project, or a list of something in it.
///
/// # Errors
/// When the files are wrong, the engine does not know an image's digest, or the output cannot be written.
pub(crate) async fn run(context: &mut Context<'_>, args: &ConfigArgs) -> Result<(), CliError> {
    if args.quiet && args.format == ConfigFormat::Json {
        context.ui.tell_as_data();
    }
    let text = if args.schema {
        format!("{:#}\n", schema())
    } else if let Some(wanted) = &args.hash {
        // As Docker Compose does: files of variables go in by their names, and patterns are orch's own.
        let loaded = context
            .load(&[], &LoadOptions { resolve_environment: false, own_keys: OwnKeys::AsWritten, ..options(args) })?;
        hashes(&loaded.model.hashes, wanted)?
    } else {
        // The program ends with this: what a large project is made of need not be given back piece by piece.
        let mut loaded = ManuallyDrop::new(load(context, args)?);
        if args.quiet {
            return Ok(());
        }
        if args.resolve_image_digests || args.lock_image_digests {
            let pinned = pin_all(context, views::named_images(&loaded.model)).await?;
            views::pin(&mut loaded.model, &pinned);
        }
        render(&loaded, args)?
    };
    match &args.output {
        Some(path) => context.write(path, text),
        None => context.ui.data(text.as_bytes()),
    }
}

/// Loads the project as the flags say.
fn load(context: &mut Context<'_>, args: &ConfigArgs) -> Result<Loaded, CliError> {
    let options = options(args);
    if args.variables {
        return load_for_variables(context, args, &options);
    }
    let own_keys = if args.expanded { OwnKeys::Expanded } else { OwnKeys::Used };
    let loaded = context.load(&args.names, &LoadOptions { own_keys, ..options.clone() })?;
    if !loaded.with_patterns || args.expanded || args.quiet {
        return Ok(loaded);
    }
    // Docker Compose knows no patterns: what it prints is the file without them. That they are right is known by now.
    context.load_quietly(&args.names, &LoadOptions { own_keys: OwnKeys::AsWritten, ..options })
}

/// Loads the files for the variables that they ask for, some of which may not be set yet.
fn load_for_variables(context: &mut Context<'_>, args: &ConfigArgs, options: &LoadOptions) -> Result<Loaded, CliError> {
    context.load(&args.names, options).or_else(|error| {
        let as_written = LoadOptions { interpolate: false, ..options.clone() };
        context.load_quietly(&args.names, &as_written).map_err(|_| error)
    })
}

fn options(args: &ConfigArgs) -> LoadOptions {
    let ConfigArgs { services, volumes, networks, images, models, profiles, variables, .. } = args;
    let is_of_names = [services, volumes, networks, images, models, profiles, variables].into_iter().any(|list| *list);
    LoadOptions {
        interpolate: !args.no_interpolate,
        normalise: !args.no_normalize,
        resolve_paths: !args.no_path_resolution,
        consistency: !args.no_consistency,
        // Lists of names need no file of variables, as one that has not been written yet.
        resolve_environment: !args.no_env_resolution && !is_of_names,
        applied: false,
        contents: false,
        hashes: args.hash.is_some(),
        selection: if args.names.is_empty() { Selection::All } else { Selection::WithDependencies },
        ..LoadOptions::default()
    }
}

/// Returns what stands for each image. An engine is needed for those that have no digest only.
async fn pin_all(context: &mut Context<'_>, images: BTreeSet<String>) -> Result<BTreeMap<String, String>, CliError> {
    let (fixed, named): (BTreeSet<_>, BTreeSet<_>) = images.into_iter().partition(|image| image.contains('@'));
    let fixed = fixed.into_iter().filter_map(|image| views::pinned(&image, &[]).map(|pinned| (image, pinned)));
    let mut all: BTreeMap<_, _> = fixed.collect();
    if !named.is_empty() {
        let engine = context.engine().await?;
        all.extend(pin(&engine, named).await?);
    }
    Ok(all)
}

/// Asks the engine for the digests of images.
async fn pin(engine: &dyn Engine, images: BTreeSet<String>) -> Result<BTreeMap<String, String>, CliError> {
    let mut all = BTreeMap::new();
    for image in images {
        let digests = if image.contains('@') { Some(Vec::new()) } else { engine.image_digests(&image).await? };
        let Some(digests) = digests else { return Err(CliError::NoImageHere(image)) };
        let Some(pinned) = views::pinned(&image, &digests) else { return Err(CliError::NoDigest(image)) };
        all.insert(image, pinned);
    }
    Ok(all)
}

fn render(loaded: &Loaded, args: &ConfigArgs) -> Result<String, CliError> {
    let model = &loaded.model;
    Ok(if args.services {
        lines(views::services(model))
    } else if args.volumes {
        lines(views::volumes(model))
    } else if args.networks {
        lines(views::networks(model))
    } else if args.images {
        lines(views::images(model))
    } else if args.models {
        lines(views::models(loaded))
    } else if args.profiles {
        lines(&loaded.profiles)
    } else if args.environment {
        lines(loaded.environment.iter().map(|(name, value)| format!("{name}={value}")))
    } else if args.variables && args.format == ConfigFormat::Json {
        variables_json(loaded)?
    } else if args.variables {
        variables(loaded)
    } else {
        let lock = args.lock_image_digests.then(|| views::images_only(model));
        let mut text = match (args.format, lock) {
            (ConfigFormat::Yaml, Some(lock)) => to_yaml(&lock),
            (ConfigFormat::Json, Some(lock)) => format!("{lock:#}"),
            (ConfigFormat::Yaml, None) if args.expanded => loaded.render_expanded(),
            (ConfigFormat::Yaml, None) if args.no_interpolate => to_yaml(&loaded.as_written()),
            (ConfigFormat::Json, None) if args.no_interpolate => format!("{:#}", loaded.as_written()),
            (ConfigFormat::Yaml, None) => render_yaml(model),
            (ConfigFormat::Json, None) => render_json(model),
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    })
}

fn lines<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().fold(String::new(), |text, word| text + word.as_ref() + "\n")
}

/// The variables that the files ask for, as Docker Compose lists them.
fn variables(loaded: &Loaded) -> String {
    let rows = loaded.variables.iter().map(|variable| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        [variable.name.clone(), variable.required.to_string(), text(&variable.default), text(&variable.alternate)]
    });
    table::render(["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"], &rows.collect::<Vec<_>>())
}

/// The same as Docker Compose's JSON, by their names.
fn variables_json(loaded: &Loaded) -> Result<String, CliError> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let all: BTreeMap<&str, serde_json::Value> = loaded
        .variables
        .iter()
        .map(|variable| {
            let json = serde_json::json!({
                "Name": variable.name,
                "DefaultValue": text(&variable.default),
                "PresenceValue": text(&variable.alternate),
                "Required": variable.required,
            });
            (variable.name.as_str(), json)
        })
        .collect();
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    all.serialize(&mut serializer).map_err(|error| CliError::Output(error.into()))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|error| CliError::Output(std::io::Error::other(error)))
}

/// `SERVICE HASH` for the services named or, with `*`, for all: what Docker Compose makes of the file.
fn hashes(hashes: &ComposeHashes, wanted: &str) -> Result<String, CliError> {
    let line = |(name, hash): (&ServiceName, &ComposeHash)| format!("{name} {}\n", hash.of_file());
    if wanted == "*" {
        return Ok(hashes.services.iter().map(line).collect());
    }
    let mut names = wanted.split(',').map(ServiceName::new).collect::<Result<Vec<_>, _>>()?;
    names.sort();
    let mut text = String::new();
    for name in names {
        let Some(found) = hashes.services.get_key_value(&name) else {
            return Err(crate::cli::project::no_such_service(&name, hashes.services.keys()));
        };
        text += &line(found);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::FakeEngine;
    use crate::load::{LoadRequest, MemoryFiles, load};

    fn loaded(text: &str) -> Loaded {
        let request = LoadRequest { cwd: "/shop".into(), ..LoadRequest::default() };
        load(&MemoryFiles::new([("/shop/compose.yaml", text)]), &request)
            .unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// As Docker Compose 2.40 prints it.
    #[test]
    fn variables_are_listed_as_json() {
        let loaded = loaded("services: {a: {image: 'x:${TAG:-1}', hostname: '${H+h}'}}");
        insta::assert_snapshot!(variables_json(&loaded).expect("JSON"), @r#"
        {
            "H": {
                "Name": "H",
                "DefaultValue": "",
                "PresenceValue": "h",
                "Required": false
            },
            "TAG": {
                "Name": "TAG",
                "DefaultValue": "1",
                "PresenceValue": "",
                "Required": false
            }
        }
        "#);
    }

    #[tokio::test]
    async fn images_without_a_digest_are_refused() {
        let engine = FakeEngine::new();
        engine.add_image("here");
        let ask = async |image: &str| match pin(&engine, BTreeSet::from([image.to_owned()])).await {
            Ok(pinned) => pinned.into_values().collect(),
            Err(error) => error.to_string(),
        };
        assert_eq!(ask("away").await, "image `away` is not on this machine: its digest is not known");
        assert_eq!(ask("here").await, "image `here` has no digest: the engine has it from no registry of that name");
        assert_eq!(ask("x:1@sha256:2").await, "docker.io/library/x@sha256:2");
    }

    #[test]
    fn pinned_images_take_the_place_of_their_names() {
        let mut loaded =
            loaded("services: {a: {image: x, command: [c], x-sidecars: {s: {image: y, tty: true}}}, b: {image: x}}");
        assert_eq!(views::named_images(&loaded.model).into_iter().collect::<Vec<_>>(), ["x", "y"]);
        let pinned = ["x", "y"].map(|image| (image.to_owned(), format!("{image}@sha256:1")));
        views::pin(&mut loaded.model, &BTreeMap::from(pinned));
        insta::assert_snapshot!(to_yaml(&views::images_only(&loaded.model)), @"
        services:
          a:
            image: x@sha256:1
            x-sidecars:
              s:
                image: y@sha256:1
          b:
            image: x@sha256:1
        ");
    }
}

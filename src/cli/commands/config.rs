//! `orch config`: the files as orch understands them, in Docker Compose's canonical form.

use std::fmt::Write as _;

use crate::cli::args::{ConfigArgs, ConfigFormat};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::table;
use crate::load::{LoadOptions, Loaded, OwnKeys, Selection, render_json, render_yaml, views};

/// Prints the project, or a list of something in it.
///
/// # Errors
/// When the files are wrong or the output cannot be written.
pub(crate) fn run(context: &mut Context<'_>, args: &ConfigArgs) -> Result<(), CliError> {
    let options = LoadOptions {
        interpolate: !args.no_interpolate,
        normalise: !args.no_normalize,
        resolve_paths: !args.no_path_resolution,
        consistency: !args.no_consistency,
        resolve_environment: !args.no_env_resolution,
        applied: false,
        contents: false,
        selection: if args.names.is_empty() { Selection::All } else { Selection::WithDependencies },
        ..LoadOptions::default()
    };
    let own_keys = if args.expanded { OwnKeys::Expanded } else { OwnKeys::Used };
    let mut loaded = context.load(&args.names, &LoadOptions { own_keys, ..options.clone() })?;
    if args.quiet {
        return Ok(());
    }
    if loaded.with_patterns && !args.expanded && args.hash.is_none() {
        // Docker Compose knows no patterns: what it prints is the file without them. That they are right is known by now.
        let own_keys = OwnKeys::AsWritten;
        loaded = context.load_quietly(&args.names, &LoadOptions { own_keys, ..options })?;
    }
    let text = render(&loaded, args)?;
    match &args.output {
        Some(path) => {
            let failed = |source| CliError::Write { path: path.display().to_string(), source };
            std::fs::write(path, text).map_err(failed)
        }
        None => context.ui.data(text.as_bytes()),
    }
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
    } else if args.profiles {
        lines(&loaded.profiles)
    } else if args.environment {
        lines(loaded.environment.iter().map(|(name, value)| format!("{name}={value}")))
    } else if args.variables {
        variables(loaded)
    } else if let Some(service) = &args.hash {
        hashes(loaded, service)?
    } else {
        let mut text = match args.format {
            ConfigFormat::Yaml if args.expanded => loaded.render_expanded(),
            ConfigFormat::Yaml => render_yaml(model),
            ConfigFormat::Json => render_json(model),
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

/// `SERVICE HASH` for one service or, with `*`, for all.
fn hashes(loaded: &Loaded, wanted: &str) -> Result<String, CliError> {
    let mut text = String::new();
    for (name, service) in &loaded.model.services {
        if wanted == "*" || wanted.split(',').any(|one| one == name.as_str()) {
            writeln!(text, "{name} {}", views::hash(service)).expect("a string takes all");
        }
    }
    if text.is_empty() && wanted != "*" {
        let name = crate::ids::ServiceName::new(wanted)?;
        return Err(crate::cli::project::no_such_service(&name, loaded.model.services.keys()));
    }
    Ok(text)
}

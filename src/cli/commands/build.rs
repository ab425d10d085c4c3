//! `orch build`: images of what the compose file says, made by the engine of this machine, or of the first host where
//! this one has none.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::args::BuildArgs;
use crate::cli::builds::{self, BuiltImage, MakeOptions, PushOptions};
use crate::cli::context::{Context, logins};
use crate::cli::error::CliError;
use crate::cli::project::{self, no_such_service};
use crate::cli::signals::Interrupts;
use crate::ids::ServiceName;
use crate::load::LoadOptions;

/// Builds the images.
///
/// # Errors
/// When the files are wrong, there is no engine, or a build fails.
pub(crate) async fn run(context: &mut Context<'_>, args: &BuildArgs) -> Result<(), CliError> {
    let mut interrupts = Interrupts::listen()?;
    let builds = wanted(context, &args.services, args.with_dependencies)?;
    if builds.is_empty() {
        context.ui.warn("no service to build");
        return Ok(());
    }
    let engine = context.builder().await?;
    let environment = project::variables(&context.global)?;
    let options = MakeOptions {
        no_cache: args.no_cache,
        pull: args.pull,
        args: variables(&args.build_args, &|name| environment.get(name).cloned()),
        memory: args.memory,
        quiet: args.quiet,
        parallel: context.global.parallel,
        ssh: args.ssh.clone(),
        provenance: args.provenance.clone(),
        sbom: args.sbom.clone(),
        ..MakeOptions::of_environment()
    };
    if context.global.dry_run {
        builds::check(&engine, &builds, &options).await?;
        for build in &builds {
            context.ui.line(&format!("build image {} of service {}", build.image, build.service))?;
        }
        return Ok(());
    }
    let logins = logins();
    let pushed = if args.push { builds.clone() } else { Vec::new() };
    interrupts.unless(builds::make(context.ui, &engine, builds, &options, &logins)).await?;
    let options = PushOptions { ignore_failures: false, quiet: args.quiet, parallel: context.global.parallel };
    interrupts.unless(builds::push(context.ui, &engine, &pushed, options, &logins)).await
}

/// What the named services have built, with their dependencies on demand; all where none is named.
pub(super) fn wanted(
    context: &mut Context<'_>,
    services: &[ServiceName],
    with_dependencies: bool,
) -> Result<Vec<BuiltImage>, CliError> {
    // All of it: what an image is built of may be the image of a service that is not asked for.
    let loaded = context.load(services, &LoadOptions { contents: false, ..LoadOptions::default() })?;
    let model = &loaded.model;
    if let Some(unknown) = services.iter().find(|name| !model.services.contains_key(*name)) {
        return Err(no_such_service(unknown, model.services.keys()));
    }
    context.took(&loaded);
    let mut asked: BTreeSet<&ServiceName> = services.iter().collect();
    let mut more: Vec<&ServiceName> = if with_dependencies { services.iter().collect() } else { Vec::new() };
    while let Some(service) = more.pop().and_then(|name| model.services.get(name)) {
        more.extend(service.depends_on.keys().filter(|name| asked.insert(name)));
    }
    Ok(builds::with_contexts(builds::of(&loaded), |service| services.is_empty() || asked.contains(service)))
}

/// Variables of `--build-arg`; one without a value that the environment does not have either is none.
fn variables(flags: &[String], environment: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let variable = |flag: &String| match flag.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => environment(flag).map(|value| (flag.clone(), value)),
    };
    flags.iter().filter_map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_come_from_the_flag_or_the_environment() {
        let flags = ["A=1=2", "B", "C"].map(str::to_owned);
        let found = variables(&flags, &|name| (name == "B").then(|| "b".to_owned()));
        let expected = [("A", "1=2"), ("B", "b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
    }
}

//! `orch pull`: the images of services, on every host that would run them.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::types::UpRequest;
use crate::cli::args::{PullArgs, PullWhen, Selection};
use crate::cli::context::{Context, logins};
use crate::cli::error::CliError;
use crate::cli::fleet::Fleet;
use crate::cli::images::{self, PullOptions, Puller};
use crate::cli::project::{Project, with_dependencies};
use crate::cli::signals::Interrupts;
use crate::engine::Engine;
use crate::graph::PullPolicy;
use crate::ids::{HostName, ServiceName};
use crate::plan::{Step, UpOptions};

use super::plan;

/// Pulls the images.
///
/// # Errors
/// When the files are wrong, no engine answers, or an image cannot be pulled.
pub(crate) async fn run(context: &mut Context<'_>, args: &PullArgs) -> Result<(), CliError> {
    let mut interrupts = Interrupts::listen()?;
    let selection = Selection { services: args.services.clone(), ..Selection::default() };
    let project = context.load_graph(&selection)?;
    let wanted = wanted(&project, args);
    if context.global.dry_run {
        for name in &wanted {
            let image = &project.graph.services[name].container.image;
            context.ui.line(&format!("pull image {image} of service {name}"))?;
        }
        return Ok(());
    }
    let policy = args.policy.map(|when| match when {
        PullWhen::Always => PullPolicy::Always,
        PullWhen::Missing => PullPolicy::Missing,
    });
    let (parallel, platform) = (context.global.parallel, project.default_platform());
    let options = PullOptions { policy, quiet: args.quiet, parallel, platform };
    let failures = interrupts.unless(pull(context, &project, &wanted, options)).await?;
    let buildable: Vec<String> = project
        .builds()
        .into_iter()
        .filter(|build| wanted.contains(&build.service))
        .map(|build| build.service.to_string())
        .collect();
    if !failures.is_empty() && !buildable.is_empty() {
        context.ui.warn(&format!("what no registry has can be built: `orch build {}`", buildable.join(" ")));
    }
    if args.ignore_pull_failures {
        for failure in &failures {
            context.ui.warn(failure);
        }
        return Ok(());
    }
    if failures.is_empty() { Ok(()) } else { Err(CliError::Images(failures)) }
}

/// The services whose images are pulled: not those that are built and have no name of their own.
fn wanted(project: &Project, args: &PullArgs) -> BTreeSet<ServiceName> {
    let mut named = args.services.clone();
    if args.include_deps {
        named = with_dependencies(&project.graph, &named);
    }
    let builds = project.builds();
    let left_out = |name: &ServiceName| {
        let of = images::owner_of_image(&project.graph, name);
        let mut own = builds.iter().filter(|build| build.service == *of);
        own.any(|build| args.ignore_buildable || !build.named || build.policy.as_deref() == Some("build"))
    };
    let all = project.graph.services.keys().filter(|name| {
        // Containers of a pod beside its main one have its name before theirs.
        let of = |named: &ServiceName| *name == named || name.as_str().starts_with(&format!("{named}."));
        (named.is_empty() || named.iter().any(of)) && !left_out(name)
    });
    all.cloned().collect()
}

/// Returns what failed.
async fn pull(
    context: &mut Context<'_>,
    project: &Project,
    wanted: &BTreeSet<ServiceName>,
    options: PullOptions,
) -> Result<Vec<String>, CliError> {
    let logins = logins();
    let Some(fleet) = context.fleet()? else {
        let engine = context.engine().await?;
        let here = Puller { host: None, engine: &engine, services: wanted.clone() };
        return Ok(images::pull_on(context.ui, &[here], &project.graph, options, &logins).await);
    };
    let services = services_by_host(context, &fleet, project).await?;
    let hosts = match fleet.look().await {
        Ok(seen) => context.present(&fleet, &seen.status),
        Err(CliError::NoCluster) => fleet.hosts().to_vec(),
        Err(error) => return Err(error),
    };
    let mut engines = Vec::new();
    for (host, engine) in fleet.ask_all(&hosts, |host| async move { host.engine().await }).await {
        engines.push((host, engine?));
    }
    let pullers: Vec<_> = engines
        .iter()
        .map(|(host, engine)| {
            let runs = services.get(host.name()).into_iter().flatten().filter(|name| wanted.contains(*name));
            Puller { host: Some(host.name().clone()), engine: engine as &dyn Engine, services: runs.cloned().collect() }
        })
        .collect();
    Ok(images::pull_on(context.ui, &pullers, &project.graph, options, &logins).await)
}

/// Which services each host would run: those of a plan that makes all pods anew.
async fn services_by_host(
    context: &mut Context<'_>,
    fleet: &Fleet,
    project: &Project,
) -> Result<BTreeMap<HostName, BTreeSet<ServiceName>>, CliError> {
    let options = UpOptions { force_recreate: true, ..UpOptions::default() };
    let hosts = context.project_hosts();
    let request = UpRequest { options, hosts, ..UpRequest::new(project.graph.clone()) };
    let plan = plan::over_hosts(context, fleet, project, request).await?;
    let mut services: BTreeMap<HostName, BTreeSet<ServiceName>> = BTreeMap::new();
    for planned in plan.steps {
        if let Step::CreateContainer { pod, .. } = planned.step {
            services.entry(planned.host).or_default().insert(pod.service);
        }
    }
    Ok(services)
}

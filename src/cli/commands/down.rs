//! `orch down`: the agent takes away everything that carries the project's label.

use std::collections::BTreeMap;

use crate::api::types::{DownRequest, HostState, ObjectState};
use crate::cli::args::{DownArgs, TextFormat, seconds};
use crate::cli::consent::{self, Deed};
use crate::cli::context::{Context, if_there};
use crate::cli::error::CliError;
use crate::cli::life::{How, Life};
use crate::cli::progress::{self, follow};
use crate::cli::rmi;
use crate::cli::signals::Interrupts;
use crate::cli::source::{self, Source};
use crate::cli::tail::Choice;
use crate::engine::{Engine, EngineError, label};
use crate::ids::ProjectName;
use crate::observed::{Observed, ObservedHost};
use crate::plan::{Ask, Intent, Plan, plan, render};

/// Removes the project.
///
/// # Errors
/// When there is no project, or something of it cannot be removed.
pub(crate) async fn run(context: &mut Context<'_>, args: &DownArgs) -> Result<(), CliError> {
    let project = context.project_name()?;
    let dry_run = args.dry_run || context.global.dry_run;
    let images = match args.rmi {
        Some(which) => Some(rmi::find(context, &project, which, &args.services).await?),
        None => None,
    };
    if args.services.is_empty() {
        whole(context, project, args).await?;
    } else {
        some(context, args).await?;
    }
    match images {
        Some(images) if dry_run => images.preview(context).await,
        Some(images) => images.remove(context).await,
        None => Ok(()),
    }
}

/// Removes containers of some services, which stay away until the next `up`.
async fn some(context: &mut Context<'_>, args: &DownArgs) -> Result<(), CliError> {
    let ask = Ask::Remove { stop: true, volumes: args.volumes, timeout_secs: args.timeout };
    let json = args.format == TextFormat::Json;
    let how = How { dry_run: args.dry_run, json, ..How::default() };
    let life = Life::new(context, ask, &args.services).await?;
    if json && !args.dry_run && !context.global.dry_run {
        context.ui.tell_as_data();
    }
    if !life.run(context, how).await?.is_some_and(|ended| ended.moved) {
        warn_nothing(context, life.project());
    }
    if args.dry_run || context.global.dry_run { Ok(()) } else { unused_networks(context, life.project()).await }
}

/// Removes the project's networks that no container is on any more, as Docker Compose 2.40 does; an `up` makes them again.
async fn unused_networks(context: &mut Context<'_>, project: &ProjectName) -> Result<(), CliError> {
    let sources = context.sources().await?;
    let (hosts, errors) = source::observe(&sources, project).await.some()?;
    context.ui.warn_all(&errors);
    for (at, host) in hosts {
        let Source { name, engine, .. } = &sources[at];
        let is_used = |network: &str| host.containers.values().any(|one| one.networks.contains_key(network));
        let unused = host.networks.values().filter(|one| one.belongs_to(project) && !is_used(&one.name));
        for network in unused {
            if !engine.network_users(&network.name).await.map_err(|error| sources[at].failed(error))?.is_empty() {
                continue;
            }
            let mut tell = |status, state| {
                progress::show(context.ui, &progress::of_object("Network", &network.name, name, status, state));
            };
            tell("Removing", ObjectState::Working);
            match engine.remove_network(&network.name).await {
                Ok(()) => tell("Removed", ObjectState::Done),
                // Somebody has come meanwhile.
                Err(EngineError::Conflict { .. }) => tell("Resource is still in use", ObjectState::Warning),
                Err(error) => return Err(sources[at].failed(error)),
            }
        }
    }
    Ok(())
}

async fn whole(context: &mut Context<'_>, project: ProjectName, args: &DownArgs) -> Result<(), CliError> {
    if args.dry_run || context.global.dry_run {
        let choice = Choice { project: project.clone(), services: Vec::new(), but: Vec::new(), index: None };
        let sources = context.sources().await?;
        let (hosts, errors) = source::observe(&sources, &choice.project).await.some()?;
        context.ui.warn_all(&errors);
        let named = hosts.into_iter().map(|(at, host)| (sources[at].name.clone(), host));
        let plan = dry_run(&project, args, &Observed { hosts: named.collect() });
        return match args.format {
            TextFormat::Json => context.ui.json(&plan),
            TextFormat::Text => context.ui.data(render::render(&plan).as_bytes()),
        };
    }
    if args.format == TextFormat::Json {
        context.ui.tell_as_data();
    }
    let fleet = context.fleet()?;
    let mut caller = consent::caller(fleet.is_none(), args.yes);
    let request = DownRequest { volumes: args.volumes, timeout_secs: args.timeout, caller: caller.clone() };
    let (client, down): (_, Vec<_>) = match &fleet {
        Some(fleet) => {
            let seen = fleet.seat().await?;
            let down = seen.status.hosts.into_iter().filter(|host| host.state == HostState::Down);
            (seen.client, down.map(|host| host.name).collect())
        }
        None => (context.client().await?, Vec::new()),
    };
    let mut interrupts = Interrupts::listen()?;
    let asked = consent::ask(context.ui, &client, &project, Deed::TakeDown, &mut caller, async |caller| {
        let request = DownRequest { caller: caller.clone(), ..request.clone() };
        if_there(client.down(&project, &request).await)
    });
    let stream = if let Some(stream) = interrupts.unless(asked).await? {
        stream
    } else if fleet.is_some() {
        warn_nothing(context, &project);
        return Ok(());
    } else {
        let engine = context.engine().await?;
        if is_empty(&engine.observe(Some(&project)).await?, &project) {
            warn_nothing(context, &project);
            return Ok(());
        }
        // Something without an agent: it is started, to take it down in order and with what it made below the engine.
        context.agent_on(&engine).await?.down(&project, &request).await?
    };
    let ended = interrupts.unless(follow(context.ui, "Running", stream)).await;
    if matches!(ended, Err(CliError::Cancelled)) {
        context.ui.say("the agent goes on taking the project down; `orch ps -a` shows how far it is");
    }
    if !ended?.moved {
        warn_nothing(context, &project);
    }
    for host in down {
        context.ui.warn(&format!("host `{host}` is down: what it has of the project goes when it is back"));
    }
    Ok(())
}

fn warn_nothing(context: &mut Context<'_>, project: &ProjectName) {
    context.ui.warn(&format!("No resource found to remove for project \"{project}\"."));
}

/// Networks and volumes are listed of all projects.
fn is_empty(observed: &ObservedHost, project: &ProjectName) -> bool {
    let ours =
        |labels: &BTreeMap<String, String>| labels.get(label::PROJECT).is_some_and(|name| name == project.as_str());
    observed.containers.is_empty() && !observed.networks.values().any(|network| ours(&network.labels))
}

/// What `down` would do, as far as the engine alone tells: order and grace periods are the agent's.
fn dry_run(project: &ProjectName, args: &DownArgs, observed: &Observed) -> Plan {
    let timeout = seconds(args.timeout);
    plan(Intent::Down { project, last: None, volumes: args.volumes, timeout }, observed, &BTreeMap::new())
}

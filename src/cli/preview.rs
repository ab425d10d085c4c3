//! What `up` would plan on an engine that has no agent yet: with the same pure functions that the agent uses.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::types::UpRequest;
use crate::controller::{Request, revise};
use crate::engine::{Engine, label};
use crate::ids::HostName;
use crate::net::addr::Pool;
use crate::observed::{Observed, ObservedHost};
use crate::place::HostFacts;
use crate::plan::{Intent, Plan, plan as diff};

use super::error::CliError;

/// Plans `up`.
///
/// Which ports are free and which routes there are only the host knows: ports that are taken show at `up`.
///
/// # Errors
/// When the engine does not answer, or an address that the file asks for cannot be given.
pub(crate) async fn plan(
    engines: &BTreeMap<HostName, (&dyn Engine, BTreeMap<String, String>)>,
    request: UpRequest,
) -> Result<Plan, CliError> {
    let project = request.graph.project.clone();
    let (mut observed, mut facts, mut taken) = (Observed::default(), BTreeMap::new(), Vec::new());
    for (name, (engine, labels)) in engines {
        let mut host = engine.observe(Some(&project)).await?;
        for service in request.graph.services.values() {
            let reference = &service.container.image;
            if let Some(id) = engine.image_id(reference).await? {
                host.images.insert(reference.clone(), id);
            }
        }
        taken.extend(taken_by_others(&host, project.as_str()));
        facts.insert(name.clone(), HostFacts { labels: labels.clone(), ..engine.info().await?.facts });
        observed.hosts.insert(name.clone(), host);
    }
    let desired = revise(
        Request {
            graph: request.graph,
            options: &request.options,
            previous: None,
            observed: &observed,
            hosts: &facts,
            members: &BTreeSet::new(),
            among: request.hosts,
            taken: &taken,
            published_elsewhere: &[],
            routes_elsewhere: &[],
            pool: &Pool::default(),
            last_index: u32::try_from(engines.len().saturating_sub(1)).unwrap_or(u32::MAX),
        },
        &mut |_| Ok(()),
    );
    let desired = desired.map_err(|errors| CliError::Failed(errors.iter().map(ToString::to_string).collect()))?;
    Ok(diff(Intent::Up(&desired), &observed, &BTreeMap::new()))
}

/// Subnets of networks that are not the project's own.
fn taken_by_others(host: &ObservedHost, project: &str) -> Vec<ipnet::Ipv4Net> {
    let others =
        host.networks.values().filter(|network| network.labels.get(label::PROJECT).is_none_or(|of| of != project));
    others.filter_map(|network| network.subnet).collect()
}

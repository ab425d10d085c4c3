//! What an `up` would write and do, made of what was gathered before. Nothing here waits.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use crate::api::types::{ApiError, ErrorKind, Progress, UpRequest};
use crate::controller::{self, Request};
use crate::ids::{HostName, ProjectName};
use crate::net::addr::{PortCandidate, PortTrouble, Unavailable, explain};
use crate::place::HostFacts;
use crate::plan::{Observed, Plan, history};

use super::super::fleet::seat;
use super::super::reconcile::plan_for;
use super::super::shared::{Aim, Record, Shared};
use super::super::{admission, oneoff};
use super::elsewhere::Others;
use super::status::unmoved;
use super::{error, memory_for, next_history, next_serial, now};

/// What an `up` would write, and what that means.
pub(super) struct Prepared {
    pub(super) record: Record,
    pub(super) plan: Plan,
    /// Nothing would change and nothing is to do.
    pub(super) unchanged: bool,
    /// Revision of the store's key now.
    pub(super) stored: Option<u64>,
    /// What image references mean on this host now.
    pub(super) images: BTreeMap<String, String>,
    /// Containers that the plan leaves as they are.
    pub(super) unmoved: Vec<Progress>,
    /// What its services reach for in vain.
    pub(super) warnings: Vec<String>,
}

/// What the desired state and the plan are computed from, gathered before.
pub(super) struct Work {
    pub(super) project: ProjectName,
    pub(super) request: UpRequest,
    pub(super) record: Option<Record>,
    pub(super) stored: Option<u64>,
    pub(super) images: BTreeMap<String, String>,
    pub(super) observed: Observed,
    pub(super) inputs: admission::Inputs,
    pub(super) hosts: BTreeMap<HostName, HostFacts>,
}

impl Work {
    /// Makes the plan. For a thread that may take its time.
    ///
    /// # Errors
    /// What is asked for is not possible as things are.
    pub(super) fn run(self, shared: &Shared) -> Result<Prepared, ApiError> {
        let Self { project, mut request, record, stored, images, observed, inputs, hosts } = self;
        let previous = record.as_ref().and_then(|record| record.desired.as_ref());
        let for_oneoff = request.options.only_dependencies;
        let previous_of_oneoff = oneoff::prepare(&mut request, record.as_ref(), &observed, now(shared));
        let previous = previous_of_oneoff.as_ref().or(previous);
        let among = request.hosts.clone();
        // Others, as those of a profile that was enabled before, go on without a word.
        let asked = controller::selected(&request.graph, &request.options);
        let mut port_free = |candidate: &PortCandidate| {
            let available = seat::port_available(candidate, &hosts, shared.host(), &among);
            available.or_else(|taken| if is_for_adopted(candidate, &taken, &observed) { Ok(()) } else { Err(taken) })
        };
        let desired = controller::revise(
            Request {
                graph: request.graph,
                options: &request.options,
                previous,
                observed: &observed,
                hosts: &hosts,
                members: &shared.fleet().hosts.keys().cloned().collect(),
                among: request.hosts,
                taken: &inputs.taken,
                published_elsewhere: &inputs.published_elsewhere,
                routes_elsewhere: &inputs.routes_elsewhere(),
                pool: &inputs.pool,
                last_index: shared.fleet().last_index(),
            },
            &mut port_free,
        )
        .map_err(|errors| error(ErrorKind::User, explain(&errors, &networks_by_subnet(&observed))))?;
        let same = record.as_ref().is_some_and(|record| record.aim == Aim::Up)
            && previous.is_some_and(|previous| controller::same_but_for_counters(previous, &desired));
        let before = record.as_ref().map(|record| record.history.clone()).unwrap_or_default();
        // Who takes down what shall be up wants something else, whatever the files say.
        let stays = record.as_ref().is_some_and(|record| !matches!(record.aim, Aim::Down(_)))
            && previous.is_some_and(|previous| controller::is_same_project(previous, &desired));
        let what = (!stays).then(|| history::differences(previous, &desired));
        // A one-off alone changes nothing that anybody could want to be asked about.
        let history = match what {
            Some(what) if for_oneoff && what.is_empty() => before.clone(),
            what => next_history(&project, &before, &request.caller, what, now(shared))?,
        };
        let same = same && history == before;
        let serial = next_serial(record.as_ref());
        let record = Record { aim: Aim::Up, desired: Some(desired), serial, released: false, history };
        let memory = memory_for(shared, &record, &observed);
        let plan = plan_for(&project, &record, &observed, &memory);
        let unchanged = same && plan.steps.is_empty() && plan.failures.is_empty();
        let desired = record.desired.as_ref();
        let unmoved = desired.map(|desired| unmoved(desired, &asked, &plan, &observed)).unwrap_or_default();
        let warnings = desired.map(|desired| Others::of(shared, desired).warnings(&asked)).unwrap_or_default();
        Ok(Prepared { record, plan, unchanged, stored, images, unmoved, warnings })
    }
}

/// Returns whether a port is taken for containers of the project only that Docker Compose made.
fn is_for_adopted(candidate: &PortCandidate, taken: &Unavailable, observed: &Observed) -> bool {
    let PortCandidate { service: _, host_ip, port, protocol, held: _, for_routes: _ } = candidate;
    let by_engine = |host: &HostName| {
        let containers = observed.hosts.get(host).into_iter().flat_map(|here| here.containers.values());
        containers.into_iter().any(|one| one.is_of_docker_compose() && one.publishes(*host_ip, *port, *protocol))
    };
    taken.cause == PortTrouble::InUse && !taken.hosts.is_empty() && taken.hosts.iter().all(by_engine)
}

/// The names of networks that are there.
fn networks_by_subnet(observed: &Observed) -> BTreeMap<Ipv4Net, &str> {
    let networks = observed.hosts.values().flat_map(|host| host.networks.values());
    networks.filter_map(|network| Some((network.subnet?, network.name.as_str()))).collect()
}

//! `orch pull`: every host pulls the images of the services that it would run, all at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};

use crate::cli::board::Event;
use crate::cli::progress::while_shown;
use crate::cli::ui::Ui;
use crate::engine::Engine;
use crate::graph::{Graph, PullPolicy};
use crate::ids::{HostName, ServiceName};
use crate::transport::login::Logins;

use super::{Missing, PullOptions, Wanted, pull, wanted};

/// Most pulls at once where nobody says otherwise.
const AT_ONCE: usize = 64;

/// An engine that pulls.
pub(crate) struct Puller<'e> {
    /// Its host; `None`: the local engine, which goes without saying.
    pub host: Option<HostName>,
    /// The engine.
    pub engine: &'e dyn Engine,
    /// The services that run there.
    pub services: BTreeSet<ServiceName>,
}

/// Pulls images anew, or with `--policy missing` those that are not there; what is never to be pulled is left alone.
/// Returns what failed.
pub(crate) async fn pull_on(
    ui: &mut Ui,
    pullers: &[Puller<'_>],
    graph: &Graph,
    options: PullOptions,
    logins: &Logins,
) -> Vec<String> {
    let at_once = usize::try_from(options.parallel).ok().filter(|limit| *limit > 0).unwrap_or(AT_ONCE);
    let mut all = Vec::new();
    for puller in pullers {
        let may = |name: &ServiceName| puller.services.contains(name) && graph.services[name].pull != PullPolicy::Never;
        all.extend(
            wanted(graph, None, options.platform.as_ref(), &BTreeMap::new(), may)
                .into_iter()
                .map(|wanted| (puller, wanted)),
        );
    }
    let mut failures: Vec<String> = while_shown(ui, "Pulling", async |show| {
        let hidden = |_: Event| ();
        let show: &dyn Fn(Event) = if options.quiet { &hidden } else { show };
        let pulls = stream::iter(all).map(|(puller, wanted)| one(puller, wanted, options.policy, logins, show));
        pulls.buffer_unordered(at_once).collect::<Vec<_>>().await.into_iter().flatten().collect()
    })
    .await;
    logins.take_problems().iter().for_each(|problem| ui.warn(problem));
    failures.sort_unstable();
    failures
}

async fn one(
    puller: &Puller<'_>,
    wanted: Wanted,
    policy: Option<PullPolicy>,
    logins: &Logins,
    show: &dyn Fn(Event),
) -> Option<String> {
    let on = |event: Event| match &puller.host {
        Some(host) => show(Event { id: format!("{} on {host}", event.id), ..event }),
        None => show(event),
    };
    let here = match policy {
        Some(PullPolicy::Missing) => puller.engine.image_id(&wanted.reference).await.map(|id| id.is_some()),
        _ => Ok(false),
    };
    let pulled = match here {
        Ok(true) => Ok(()),
        Ok(false) => pull(puller.engine, wanted, logins, &on).await,
        Err(error) => Err(Missing::new(wanted, Some(error))),
    };
    let missing = pulled.err()?;
    Some(match &puller.host {
        Some(host) => format!("host `{host}`: {}", missing.message()),
        None => missing.message(),
    })
}

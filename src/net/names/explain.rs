//! Why a name means to a container what it does: by links, services, aliases, networks.

use std::collections::BTreeSet;

use crate::diag::did_you_mean;
use crate::graph::{EndpointMode, NetworkMode, Service};
use crate::ids::{HostName, PodId, ResourceKey, ServiceName};
use crate::model::ExternalLink;
use crate::plan::{ObservedContainer, ProjectView, Standing};

use super::build::ports_of;
use super::{APEX, NamedPort};

/// Returns what there is to say about `name` as asked by a container of `from`, a sentence each.
///
/// The view is one in which each pod is one service; `stands` says how a service of another project is.
pub fn explain(
    view: &ProjectView<'_>,
    from: Option<&ServiceName>,
    name: &str,
    stands: &dyn Fn(&ExternalLink) -> Standing,
) -> Vec<String> {
    let graph = &view.desired.graph;
    let name = name.trim_end_matches('.').to_lowercase();
    let suffix = format!(".{}.{APEX}", graph.project);
    let short = name.strip_suffix(&suffix).unwrap_or(&name);
    let asker = from.and_then(|from| graph.services.get(from));
    let mut said = Vec::new();
    if let Some((ports, host)) = of_ports(short) {
        said.extend(ports_told(view, ports, host));
        said.extend(explain(view, from, host, stands));
        return said;
    }
    if let Some(asker) = asker {
        said.extend(by_link(asker, short, stands));
        if !said.is_empty() {
            return said;
        }
    }
    let (head, bare) = short.split_once('.').filter(|(head, _)| is_of_pods(head)).unwrap_or(("", short));
    let service = graph.services.iter().find(|(service, _)| service.as_str().to_lowercase() == bare);
    match service {
        Some((service, what)) => {
            let pod = head.parse().ok().map(|number| PodId::new(service.clone(), number));
            if pod.as_ref().is_none_or(|pod| view.desired.assignments.pods.contains_key(pod)) {
                said.push(of_service(view, asker, from, service, what, short != bare));
            }
            said.extend(pod.map(|pod| of_pod(view, &pod)));
        }
        None => said.extend(by_alias(view, asker, bare)),
    }
    if said.is_empty() {
        said.extend(by_container(view, short));
    }
    if said.is_empty() {
        let known = graph.services.keys().map(ServiceName::as_str);
        let near = did_you_mean(bare, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        said.push(format!("`{bare}` is no service, alias or link of project `{}`{near}", graph.project));
        if short == name && !name.ends_with(APEX) {
            let networks = asker.map(networks_of).unwrap_or_default();
            let inside = |key: &&ResourceKey| graph.networks.get(*key).is_some_and(|network| network.internal);
            if !networks.is_empty() && networks.iter().all(inside) {
                said.push("it is on internal networks only, from where no other resolver is asked".to_owned());
            }
        }
    }
    said
}

/// Takes the ports off a name that asks for them: `_http._tcp.web`, `_tcp.web`.
fn of_ports(name: &str) -> Option<(&str, &str)> {
    let at = name.find("_tcp.").or_else(|| name.find("_udp.")).filter(|_| name.starts_with('_'))?;
    let end = at + "_tcp".len();
    Some((&name[..end], &name[end + 1..]))
}

/// Says which ports a service tells of, where a name asks for some.
fn ports_told(view: &ProjectView<'_>, ports: &str, host: &str) -> Option<String> {
    let bare = host.split_once('.').filter(|(head, _)| is_of_pods(head)).map_or(host, |(_, rest)| rest);
    let services = &view.desired.graph.services;
    let (name, service) = services.iter().find(|(name, _)| name.as_str().to_lowercase() == bare)?;
    let told = ports_of(service);
    let told = told.iter().map(|NamedPort { port, protocol, names }| match names.as_slice() {
        [] => format!("{port}/{protocol}"),
        names => format!("{port}/{protocol} (`{}`)", names.join("`, `")),
    });
    let told = told.collect::<Vec<_>>().join(", ");
    let asked = format!("it asks for ports (`{ports}`)");
    Some(match told.as_str() {
        "" => format!("{asked}, and the file tells of none of service `{name}`: `ports` and `expose` do"),
        told => format!("{asked}, of which the file tells for service `{name}`: {told}"),
    })
}

/// Says how one pod is.
fn of_pod(view: &ProjectView<'_>, pod: &PodId) -> String {
    let assigned = &view.desired.assignments.pods;
    let (name, number) = (&pod.service, pod.number);
    if !assigned.contains_key(pod) {
        let numbers: Vec<u32> = assigned.range(PodId::all_of(name)).map(|(one, _)| one.number).collect();
        return match numbers.as_slice() {
            [] => format!("service `{name}` has no pods"),
            [only] => format!("service `{name}` has no pod {number}: it has one, {only}"),
            [first, .., last] => format!("service `{name}` has no pod {number}: it has {first} to {last}"),
        };
    }
    match containers(view).find(|(_, one)| one.is_running() && one.pod().as_ref() == Some(pod)) {
        Some((host, one)) if one.is_ready() => format!("`{pod}` runs on host `{host}` and is ready"),
        Some((host, _)) => format!("`{pod}` runs on host `{host}`; its own name is answered although it is not ready"),
        None => format!("`{pod}` does not run now: its name is known, and has no address"),
    }
}

/// Says whose a name is that a container has as such.
fn by_container(view: &ProjectView<'_>, name: &str) -> Option<String> {
    let graph = &view.desired.graph;
    let is_hostname =
        |service: &Service| service.container.hostname.as_ref().is_some_and(|one| one.to_lowercase() == name);
    if let Some((service, _)) = graph.services.iter().find(|(_, service)| is_hostname(service)) {
        return Some(format!("it is the `hostname` of service `{service}`"));
    }
    let is_named = |one: &ObservedContainer| one.name.to_lowercase() == name || one.id.get(..12) == Some(name);
    if let Some((host, one)) = containers(view).find(|(_, one)| is_named(one)) {
        let what = one.pod().map_or_else(|| "a container".to_owned(), |pod| format!("the container of `{pod}`"));
        let state = if one.is_running() { "" } else { ", which does not run now" };
        return Some(format!("it is {what} on host `{host}`{state}"));
    }
    let mut pods = view.desired.assignments.pods.keys();
    let pod = pods.find(|pod| graph.container_name(pod).to_lowercase() == name)?;
    Some(format!("it is the container of `{pod}`, which is not there now"))
}

fn containers<'a>(view: &ProjectView<'a>) -> impl Iterator<Item = (&'a HostName, &'a ObservedContainer)> {
    view.observed.hosts.iter().flat_map(|(host, seen)| seen.containers.values().map(move |one| (host, one)))
}

fn is_of_pods(head: &str) -> bool {
    head == "tasks" || (!head.is_empty() && head.bytes().all(|byte| byte.is_ascii_digit()))
}

fn by_link(asker: &Service, name: &str, stands: &dyn Fn(&ExternalLink) -> Standing) -> Option<String> {
    let link = asker.links.iter().find(|link| link.alias.to_lowercase() == name);
    if let Some(link) = link.filter(|link| link.alias != link.service.as_str()) {
        return Some(format!("it is a link of this service to `{}`", link.service));
    }
    let external = asker.external_link(name, |link| stands(link).is_there())?;
    let ExternalLink { project, service, .. } = external;
    let standing = stands(external);
    let behind = match &standing {
        Standing::Ready(1) => "behind which 1 pod is ready".to_owned(),
        Standing::Ready(count) => format!("behind which {count} pods are ready"),
        _ => {
            let why = standing.why(project, service).into_iter().chain(standing.help(project, service, None));
            format!("behind which nothing stands: {}", why.collect::<Vec<_>>().join("; "))
        }
    };
    Some(format!("it is an external link of this service to `{project}/{service}`, {behind}"))
}

fn of_service(
    view: &ProjectView<'_>,
    asker: Option<&Service>,
    from: Option<&ServiceName>,
    name: &ServiceName,
    service: &Service,
    of_pods: bool,
) -> String {
    let (theirs, ours) = (networks_of(service), asker.map(networks_of));
    if theirs.is_empty() {
        return format!("`{name}` is a service without a network of its own, so that it has no name");
    }
    if let (Some(ours), Some(from)) = (&ours, from)
        && ours.is_disjoint(&theirs)
    {
        return format!(
            "`{name}` is a service, and shares no network with `{from}`: it is on {}, `{from}` on {}",
            list(&theirs),
            list(ours)
        );
    }
    let shared: BTreeSet<&ResourceKey> = match &ours {
        Some(ours) => ours.intersection(&theirs).copied().collect(),
        None => theirs,
    };
    let containers = view.observed.hosts.values().flat_map(|host| host.containers.values());
    let ready = containers.filter(|one| one.is_ready() && one.pod().is_some_and(|pod| pod.service == *name)).count();
    let pods = if ready == 1 { "1 pod is ready".to_owned() } else { format!("{ready} pods are ready") };
    if of_pods || service.endpoint_mode == EndpointMode::Dnsrr {
        return format!("it names pods of service `{name}` on {}: {pods}", list(&shared));
    }
    format!("it is the virtual address of service `{name}` on {}, behind which {pods}", list(&shared))
}

fn by_alias(view: &ProjectView<'_>, asker: Option<&Service>, name: &str) -> Vec<String> {
    let ours = asker.map(networks_of);
    let services = view.desired.graph.services.iter();
    let aliases = services.flat_map(|(service, what)| match &what.network {
        NetworkMode::Networks(attachments) => attachments.iter().map(|one| (service, one)).collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let named = aliases.filter(|(_, one)| one.aliases.iter().any(|alias| alias.to_lowercase() == name));
    named
        .map(|(service, one)| match &ours {
            Some(ours) if !ours.contains(&one.network) => format!(
                "it is an alias of `{service}` on network `{}`, which the asking service is not on",
                one.network
            ),
            _ => format!("it is an alias of service `{service}` on network `{}`", one.network),
        })
        .collect()
}

fn networks_of(service: &Service) -> BTreeSet<&ResourceKey> {
    match &service.network {
        NetworkMode::Networks(attachments) => attachments.iter().map(|one| &one.network).collect(),
        _ => BTreeSet::new(),
    }
}

fn list(networks: &BTreeSet<&ResourceKey>) -> String {
    let names: Vec<String> = networks.iter().map(|key| format!("`{key}`")).collect();
    match names.len() {
        0 => "no network".to_owned(),
        1 => format!("network {}", names[0]),
        _ => format!("networks {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Observed;
    use crate::plan::fixture::graph;
    use crate::testing;

    #[track_caller]
    fn check(project: &str, from: &str, name: &str, expected: &[&str]) {
        let mut desired = testing::desired(graph(project));
        for number in 1..=2 {
            let pods: Vec<PodId> = desired.graph.services.keys().map(|name| PodId::new(name.clone(), number)).collect();
            desired.assignments.pods.extend(pods.into_iter().map(|pod| (pod, HostName::local())));
        }
        let view = ProjectView { desired: &desired, observed: &Observed::default() };
        let from = (!from.is_empty()).then(|| from.parse().expect("a name"));
        assert_eq!(explain(&view, from.as_ref(), name, &|_| Standing::NoProject), expected, "{name} from {from:?}");
    }

    const TWO: &str = "networks: {front: {}, back: {internal: true}}\nservices: {web: {networks: {front: null}, links: ['api:backend']}, api: \
                       {networks: {front: null, back: {aliases: [store]}}}, db: {networks: {back: null}}}";

    #[test]
    fn services_links_and_aliases_say_where_they_come_from() {
        check(
            TWO,
            "web",
            "api",
            &["it is the virtual address of service `api` on network `front`, behind which 0 pods are ready"],
        );
        check(
            TWO,
            "web",
            "API.shop.orch.internal.",
            &["it is the virtual address of service `api` on network `front`, behind which 0 pods are ready"],
        );
        check(TWO, "web", "tasks.api", &["it names pods of service `api` on network `front`: 0 pods are ready"]);
        check(TWO, "web", "backend", &["it is a link of this service to `api`"]);
        check(TWO, "db", "store", &["it is an alias of service `api` on network `back`"]);
    }

    #[test]
    fn pods_containers_and_ports_are_explained() {
        let project =
            "services: {web: {scale: 2, hostname: front, ports: [{target: 80}], expose: ['9000/udp']}, one: {}}";
        let web = "it names pods of service `web` on network `default`: 0 pods are ready";
        check(project, "one", "2.web", &[web, "`web.2` does not run now: its name is known, and has no address"]);
        check(project, "one", "3.web", &["service `web` has no pod 3: it has 1 to 2"]);
        check(project, "one", "shop-web-2", &["it is the container of `web.2`, which is not there now"]);
        check(project, "one", "front", &["it is the `hostname` of service `web`"]);
        let ports = "it asks for ports (`_80._tcp`), of which the file tells for service `web`: 80/tcp, 9000/udp";
        let vip = "it is the virtual address of service `web` on network `default`, behind which 0 pods are ready";
        check(project, "web", "_80._tcp.web", &[ports, vip]);
        let none = "it asks for ports (`_tcp`), and the file tells of none of service `one`: `ports` and `expose` do";
        check(project, "web", "_tcp.one", &[none, &vip.replace("`web`", "`one`")]);
    }

    #[test]
    fn what_is_not_found_says_why() {
        check(
            TWO,
            "web",
            "db",
            &["`db` is a service, and shares no network with `web`: it is on network `back`, `web` on network `front`"],
        );
        check(TWO, "web", "store", &["it is an alias of `api` on network `back`, which the asking service is not on"]);
        check(TWO, "web", "appi", &["`appi` is no service, alias or link of project `shop`; did you mean `api`?"]);
        check(
            TWO,
            "db",
            "example.com",
            &[
                "`example.com` is no service, alias or link of project `shop`",
                "it is on internal networks only, from where no other resolver is asked",
            ],
        );
    }
}

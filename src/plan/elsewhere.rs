//! What stands behind a service of another project that somebody reaches for: by `external_links`, or by an ambassador. Pure.

use crate::diag::instead;
use crate::graph::{Off, Service};
use crate::ids::{ProjectName, ServiceName};
use crate::model::Export;

use super::ProjectView;

/// How a service is to those of other projects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No project of that name is up.
    NoProject,
    /// The project has no such service; what to say of those that it has.
    NoService(Option<String>),
    /// The project's file has it, and no active profile enables it.
    Off(Off),
    /// It lets nobody in.
    NotExported,
    /// It lets others in at these ports only.
    OtherPorts(Vec<u16>),
    /// No pod of it is ready.
    NoneReady,
    /// So many pods are ready.
    Ready(usize),
}

impl Standing {
    /// Returns how a service stands at `port` (`None`: any) to other projects. `view`: its project with each pod as one;
    /// `None`: it is not up.
    pub fn of(view: Option<&ProjectView<'_>>, service: &ServiceName, port: Option<u16>) -> Self {
        let Some(ProjectView { desired, observed }) = view else { return Self::NoProject };
        let services = &desired.graph.services;
        let Some(Service { export, .. }) = services.get(service) else {
            let none = || Self::NoService(instead(service.as_str(), services.keys().map(ServiceName::as_str)));
            return desired.graph.off(service).map_or_else(none, Self::Off);
        };
        match export {
            Export::Nothing => return Self::NotExported,
            Export::Ports(ports) if port.is_some_and(|port| !ports.contains(&port)) => {
                return Self::OtherPorts(ports.clone());
            }
            Export::Ports(_) | Export::All => {}
        }
        let containers = observed.hosts.values().flat_map(|host| host.containers.values());
        match containers.filter(|one| one.is_ready() && one.pod().is_some_and(|pod| pod.service == *service)).count() {
            0 => Self::NoneReady,
            count => Self::Ready(count),
        }
    }

    /// Returns whether there is such a service at all, as far as names go.
    pub fn is_there(&self) -> bool {
        !matches!(self, Self::NoProject | Self::NoService(_) | Self::Off(_))
    }

    /// Returns whether nothing can be reached there until somebody writes or brings up something else.
    pub fn is_nothing(&self) -> bool {
        !matches!(self, Self::NoneReady | Self::Ready(_))
    }

    /// Returns why nobody is reached there; `None`: pods are.
    pub fn why(&self, project: &ProjectName, service: &ServiceName) -> Option<String> {
        Some(match self {
            Self::NoProject => format!("no project `{project}` is up"),
            Self::NoService(_) => format!("project `{project}` has no service `{service}`"),
            Self::Off(off) => format!("service `{service}` of project `{project}` is {off}"),
            Self::NotExported => format!("service `{service}` of project `{project}` exports nothing"),
            Self::OtherPorts(ports) => {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                format!("service `{service}` of project `{project}` exports {} only", ports.join(", "))
            }
            Self::NoneReady => format!("no pod of service `{service}` of project `{project}` is ready"),
            Self::Ready(_) => return None,
        })
    }

    /// Returns what to do about it.
    pub fn help(&self, project: &ProjectName, service: &ServiceName, port: Option<u16>) -> Option<String> {
        let some = port.map_or_else(|| "PORT".to_owned(), |port| port.to_string());
        match self {
            Self::NoProject => Some(format!(
                "`{project}` is to be brought up with its own files; `orch ls` lists those that are there"
            )),
            Self::NoService(instead) => instead.clone(),
            Self::Off(off) => Some(format!("`{}` at the `up` of `{project}` switches it on", off.flag())),
            Self::NotExported => Some(format!("`x-export: {some}` at that service lets other projects reach it")),
            Self::OtherPorts(_) => {
                Some(format!("{some} under `x-export` of that service lets other projects reach it"))
            }
            Self::NoneReady => Some(format!("`orch -p {project} why {service}` says why")),
            Self::Ready(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ExternalLink;
    use crate::observed::ContainerState;
    use crate::plan::fixture::graph;
    use crate::plan::{Health, Observed, ObservedHost};
    use crate::testing;

    /// How `db` of project `shop` stands, whose `db` exports this.
    fn standing(export: Option<Export>, state: ContainerState, service: &str, port: Option<u16>) -> Standing {
        let service = service.parse().expect("a name");
        let Some(export) = export else { return Standing::of(None, &service, port) };
        let mut desired = testing::desired(graph("{db: {}, web: {}}"));
        desired.graph.services.get_mut("db").expect("it is there").export = export;
        let later: ServiceName = "later".parse().expect("a name");
        desired.graph.disabled.insert(later.clone());
        desired.graph.profiles.insert(later, vec!["night".to_owned()]);
        let db = crate::plan::ObservedContainer { state, ..testing::container("shop", "db", 1) };
        let host = ObservedHost { containers: [(db.id.clone(), db)].into(), ..ObservedHost::default() };
        let observed = Observed { hosts: [(crate::ids::HostName::local(), host)].into() };
        Standing::of(Some(&ProjectView { desired: &desired, observed: &observed }), &service, port)
    }

    #[test]
    fn what_is_not_there_or_lets_nobody_in_is_nothing() {
        let runs = ContainerState::Running { health: Health::None };
        let ended = ContainerState::Exited { code: 1, by_itself: true };
        let (project, db) = ("shop".parse().expect("a name"), "db".parse().expect("a name"));
        let check = |standing: Standing, why: &str, help: &str, nothing: bool| {
            let told = standing.why(&project, &db).unwrap_or_default();
            let helped = standing.help(&project, &db, Some(5432)).unwrap_or_default();
            assert_eq!((told.as_str(), helped.as_str(), standing.is_nothing()), (why, help, nothing), "{standing:?}");
        };
        let ports = || Some(Export::Ports(vec![80, 81]));
        check(
            standing(None, runs, "db", None),
            "no project `shop` is up",
            "`shop` is to be brought up with its own files; `orch ls` lists those that are there",
            true,
        );
        check(standing(ports(), runs, "dbb", None), "project `shop` has no service `db`", "did you mean `db`?", true);
        check(
            standing(Some(Export::Nothing), runs, "db", None),
            "service `db` of project `shop` exports nothing",
            "`x-export: 5432` at that service lets other projects reach it",
            true,
        );
        check(
            standing(ports(), runs, "db", Some(5432)),
            "service `db` of project `shop` exports 80, 81 only",
            "5432 under `x-export` of that service lets other projects reach it",
            true,
        );
        check(
            standing(ports(), ended, "db", Some(80)),
            "no pod of service `db` of project `shop` is ready",
            "`orch -p shop why db` says why",
            false,
        );
        check(
            standing(ports(), runs, "later", None),
            "service `db` of project `shop` is off by its profile `night`",
            "`--profile night` at the `up` of `shop` switches it on",
            true,
        );
        assert!(!standing(ports(), runs, "later", None).is_there(), "another service may be meant by the name");
        assert_eq!(standing(ports(), runs, "db", Some(81)), Standing::Ready(1));
        assert_eq!(standing(ports(), runs, "db", None), Standing::Ready(1));
        assert_eq!(standing(Some(Export::All), runs, "db", Some(5432)), Standing::Ready(1));
    }

    #[test]
    fn of_several_meanings_the_first_counts_that_is_there() {
        let link = |project: &str, service: &str| ExternalLink {
            project: project.parse().expect("a name"),
            service: service.parse().expect("a name"),
            alias: "DB".to_owned(),
            place: String::new(),
        };
        let mut graph = graph("{web: {}}");
        let web = graph.services.get_mut("web").expect("it is there");
        web.external_links = vec![link("my-shop", "db"), link("my", "shop-db")];
        let meant = |there: &str| {
            let link = web.external_link("db", |link| link.project.as_str() == there).expect("known");
            link.project.to_string()
        };
        assert_eq!([meant("my-shop"), meant("my"), meant("")], ["my-shop", "my", "my-shop"]);
        assert_eq!(web.external_link("other", |_| true), None);
    }
}

//! `orch ps`: asks the agent; where there is none, looks at the engine itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use crate::api::types::{PodStatus, ProjectStatus, PublishedStatus};
use crate::cli::args::{ListFormat, PsArgs, StateWord};
use crate::cli::board::fit;
use crate::cli::context::{Context, if_there, now};
use crate::cli::error::CliError;
use crate::cli::ui::Ui;
use crate::cli::{table, words};
use crate::engine::Engine;
use crate::graph::Role;
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::observed::{ContainerState, ObservedHost};

/// Length of a command in the table. Source: `docker ps`.
const COMMAND_LENGTH: usize = 20;
const HEADER: [&str; 8] = ["NAME", "HOST", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"];
/// The column of [`HEADER`] that may be long.
const STATUS: usize = 6;
/// What stays of a reason, however narrow the terminal is. Source: the column of errors of `docker stack ps`.
const LEAST_REASON: usize = 30;
/// Length of a container id in tables. Source: `docker ps`.
pub(super) const SHORT_ID: usize = 12;

/// Lists the project's containers.
///
/// # Errors
/// When there is no project, an unknown service is named, or neither agent nor engine answers.
pub(crate) async fn run(context: &mut Context<'_>, args: &PsArgs) -> Result<(), CliError> {
    let project = context.project_name()?;
    let (pods, published) = match context.fleet()? {
        Some(fleet) => {
            let seen = fleet.look().await?;
            context.present(&fleet, &seen.status);
            let status = if_there(seen.client.project(&project).await)?;
            status.map(listed).unwrap_or_default()
        }
        None => match if_there(context.client().await?.project(&project).await)? {
            Some(status) => listed(status),
            None => (seen(context.engine().await?.observe(Some(&project)).await?), Vec::new()),
        },
    };
    let known = |name: &ServiceName| pods.iter().any(|pod: &PodStatus| pod.pod.service == *name);
    context.check_services(&args.names, known)?;
    let mut pods = pods;
    if !args.orphans {
        let wanted: BTreeSet<ServiceName> =
            pods.iter().filter(|pod| pod.wanted).map(|pod| pod.pod.service.clone()).collect();
        pods.retain(|pod| wanted.contains(&pod.pod.service) || context.has_service(&pod.pod.service));
    }
    let listing = Listing { project, pods, published, now: now() };
    listing.print(context.ui, args)
}

/// What is listed of an agent's answer.
fn listed(status: ProjectStatus) -> (Vec<PodStatus>, Vec<PublishedStatus>) {
    let ProjectStatus { mut pods, oneoffs, published, .. } = status;
    pods.extend(oneoffs);
    (pods, published)
}

/// What the engine shows, in the agent's form.
fn seen(observed: ObservedHost) -> Vec<PodStatus> {
    let pods = observed.containers.into_values().filter_map(|container| {
        let part = container.part();
        if container.oneoff {
            return PodStatus::of_oneoff(&HostName::local(), &container);
        }
        Some(PodStatus {
            pod: container.pod()?,
            host: Some(HostName::local()),
            container: Some(container.id.clone()),
            ready: container.is_ready(),
            name: container.name,
            image: container.image_id,
            state: Some(container.state),
            created_at: container.created_at,
            started_at: container.started_at,
            finished_at: container.finished_at,
            command: container.command,
            reason: None,
            resting: false,
            wanted: true,
            part,
        })
    });
    pods.collect()
}

/// What is listed.
struct Listing {
    project: ProjectName,
    pods: Vec<PodStatus>,
    published: Vec<PublishedStatus>,
    now: Timestamp,
}

impl Listing {
    fn print(mut self, ui: &mut Ui, args: &PsArgs) -> Result<(), CliError> {
        self.pods.retain(|pod| is_listed(pod, args));
        self.pods.sort_by(|a, b| a.name.cmp(&b.name));
        if args.quiet {
            return self.pods.iter().filter_map(|pod| pod.container.as_ref()).try_for_each(|id| ui.line(id));
        }
        if args.services {
            let mut services: Vec<_> = self.pods.iter().map(|pod| &pod.pod.service).collect();
            services.sort_unstable();
            services.dedup();
            return services.into_iter().try_for_each(|service| ui.line(service.as_str()));
        }
        match &args.format {
            ListFormat::Template(template) => {
                let rows = self.pods.iter().map(|pod| self.value(pod)).collect::<Result<Vec<_>, _>>()?;
                template.print(ui, &rows)
            }
            ListFormat::Json => self.pods.iter().try_for_each(|pod| ui.json(&self.object(pod))),
            ListFormat::Table => {
                let mut rows: Vec<_> = self.pods.iter().map(|pod| self.row(pod, args.no_trunc)).collect();
                if let Some(width) = ui.columns().filter(|_| !args.no_trunc) {
                    self.cut_reasons(&mut rows, width);
                }
                ui.data(table::render(HEADER, &rows).as_bytes())
            }
        }
    }

    fn row(&self, pod: &PodStatus, whole: bool) -> [String; 8] {
        let host = pod.host.as_ref().map(ToString::to_string).unwrap_or_default();
        [
            pod.name.clone(),
            host,
            image(&pod.image, whole),
            command(&pod.command, whole),
            pod.pod.service.to_string(),
            words::ago(&pod.created_at, self.now),
            self.status(pod),
            self.ports(pod),
        ]
    }

    /// The engine's words; for a pod that is missing or held back, why.
    fn status(&self, pod: &PodStatus) -> String {
        let words = self.state(pod);
        match reason(pod) {
            Some(reason) => format!("{words}: {reason}"),
            None => words,
        }
    }

    fn state(&self, pod: &PodStatus) -> String {
        let words = pod.state.map(|state| words::status(state, &pod.started_at, &pod.finished_at, self.now));
        words.unwrap_or_else(|| "Missing".to_owned())
    }

    /// Cuts reasons so that rows fit a terminal where that is possible with something left of them: a row that wraps takes
    /// its columns out of line. Docker's tools cut theirs too; `--no-trunc` and JSON have them whole.
    fn cut_reasons(&self, rows: &mut [[String; 8]], width: usize) {
        let others = table::width_without(HEADER, rows, STATUS);
        for (row, pod) in rows.iter_mut().zip(&self.pods) {
            if reason(pod).is_some() {
                let least = self.state(pod).width() + LEAST_REASON;
                row[STATUS] = fit(&row[STATUS], width.saturating_sub(others).max(least));
            }
        }
    }

    fn publishers(&self, pod: &PodStatus) -> impl Iterator<Item = &PublishedStatus> {
        // A published port is the service's; a pod that cannot take a connection shows none, as in Docker Compose.
        let running = matches!(pod.state, Some(ContainerState::Running { .. }));
        // What nobody listens on is not published.
        let bound = |port: &&PublishedStatus| port.problem.is_none();
        let is_pod = pod.pod.number > 0;
        self.published.iter().filter(bound).filter(move |port| running && is_pod && port.service == pod.pod.service)
    }

    fn ports(&self, pod: &PodStatus) -> String {
        let ports = self.publishers(pod).flat_map(|port| {
            let to = format!("{}->{}/{}", port.published, port.target, port.protocol);
            hosts(port).into_iter().map(move |ip| match ip {
                IpAddr::V6(ip) => format!("[{ip}]:{to}"),
                IpAddr::V4(ip) => format!("{ip}:{to}"),
            })
        });
        ports.collect::<Vec<_>>().join(", ")
    }

    /// A row for templates: what JSON has, and the columns of the table that it lacks.
    fn value(&self, pod: &PodStatus) -> Result<serde_json::Value, CliError> {
        let mut value =
            serde_json::to_value(self.object(pod)).map_err(|error| CliError::Output(std::io::Error::other(error)))?;
        value["Ports"] = self.ports(pod).into();
        Ok(value)
    }

    fn object<'a>(&'a self, pod: &'a PodStatus) -> Object<'a> {
        let publishers = self.publishers(pod).flat_map(|port| {
            hosts(port).into_iter().map(|ip| Publisher {
                url: ip.to_string(),
                target_port: port.target,
                published_port: port.published,
                protocol: port.protocol.to_string(),
            })
        });
        Object {
            command: format!("{:?}", pod.command),
            created_at: pod.created_at.parse().map(compose_time).unwrap_or_default(),
            exit_code: match pod.state {
                Some(ContainerState::Exited { code, .. }) => code,
                _ => 0,
            },
            health: pod.state.map_or("", words::health),
            host: pod.host.as_ref().map(HostName::as_str),
            id: pod.container.as_deref().unwrap_or_default().get(..SHORT_ID).unwrap_or_default(),
            image: &pod.image,
            name: &pod.name,
            project: &self.project,
            publishers: publishers.collect(),
            ready: pod.ready,
            reason: pod.reason.as_deref(),
            running_for: words::ago(&pod.created_at, self.now),
            service: pod.pod.service.as_str(),
            state: pod.state.map_or("missing", ContainerState::word),
            status: self.status(pod),
        }
    }
}

/// Why a pod does not run, where it does not.
fn reason(pod: &PodStatus) -> Option<&str> {
    pod.reason.as_deref().filter(|_| !matches!(pod.state, Some(ContainerState::Running { .. })))
}

/// The addresses of the host that a published port is on: both kinds of "all" where the file names none.
fn hosts(port: &PublishedStatus) -> Vec<IpAddr> {
    let all = || vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    port.host_ip.map_or_else(all, |ip| vec![ip])
}

/// `-a` and `--status` decide; else what runs, and what shall run and cannot. A service brings the helpers of its pods along;
/// what only holds a pod together is shown by `-a`.
fn is_listed(pod: &PodStatus, args: &PsArgs) -> bool {
    let front = pod.part.as_ref().map(|part| &part.of);
    let named = |name: &ServiceName| *name == pod.pod.service || Some(name) == front;
    if !args.names.is_empty() && !args.names.iter().any(named) {
        return false;
    }
    if pod.part.as_ref().is_some_and(|part| part.role == Role::Holder) && !args.all {
        return false;
    }
    // What `run` made is nobody's pod.
    let mut states = args.statuses.iter().chain(&args.filters).peekable();
    if pod.pod.number == 0 && !args.all && states.peek().is_none() {
        return false;
    }
    if states.peek().is_some() {
        return pod.state.is_some_and(|state| states.any(|word| *word == state_word(state)));
    }
    let alive =
        matches!(pod.state, Some(ContainerState::Running { .. } | ContainerState::Paused | ContainerState::Restarting));
    args.all || alive || (pod.wanted && pod.reason.is_some() && !pod.resting)
}

fn state_word(state: ContainerState) -> StateWord {
    match state {
        ContainerState::Created => StateWord::Created,
        ContainerState::Running { .. } => StateWord::Running,
        ContainerState::Paused => StateWord::Paused,
        ContainerState::Restarting => StateWord::Restarting,
        ContainerState::Exited { .. } => StateWord::Exited,
        ContainerState::Dead => StateWord::Dead,
        ContainerState::Removing => StateWord::Removing,
    }
}

/// An id in place of a name (nobody knows the tag any more) is shortened.
fn image(image: &str, whole: bool) -> String {
    match image.strip_prefix("sha256:") {
        Some(id) if !whole => id.chars().take(SHORT_ID).collect(),
        _ => image.to_owned(),
    }
}

fn command(command: &str, whole: bool) -> String {
    if whole || command.chars().count() <= COMMAND_LENGTH {
        return format!("\"{command}\"");
    }
    let cut: String = command.chars().take(COMMAND_LENGTH - 1).collect();
    format!("\"{cut}…\"")
}

/// `2026-11-21 15:13:03 +0000 UTC`, as Docker Compose prints it.
fn compose_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// A container as JSON. Keys are Docker Compose's; `Host`, `Ready` and `Reason` are orch's.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Object<'a> {
    command: String,
    created_at: String,
    exit_code: i32,
    health: &'static str,
    host: Option<&'a str>,
    #[serde(rename = "ID")]
    id: &'a str,
    image: &'a str,
    name: &'a str,
    project: &'a ProjectName,
    publishers: Vec<Publisher>,
    ready: bool,
    reason: Option<&'a str>,
    running_for: String,
    service: &'a str,
    state: &'static str,
    status: String,
}

/// A published port as JSON.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Publisher {
    #[serde(rename = "URL")]
    url: String,
    target_port: u16,
    published_port: u16,
    protocol: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ui::Style;
    use crate::cli::ui::testing::ui;
    use crate::graph::Protocol;
    use crate::ids::PodId;
    use crate::observed::Health;

    fn pod(service: &str, number: u32, state: Option<ContainerState>) -> PodStatus {
        let service = ServiceName::new(service).expect("valid");
        let name = format!("shop-{service}-{number}");
        PodStatus {
            container: state.map(|_| format!("{number:0>64}")),
            pod: PodId::new(service, number),
            host: Some(HostName::local()),
            name,
            image: "shop:1".to_owned(),
            ready: matches!(state, Some(ContainerState::Running { .. })),
            state,
            created_at: "2026-11-21T15:00:00Z".to_owned(),
            started_at: "2026-11-21T15:00:01Z".to_owned(),
            finished_at: "2026-11-21T15:01:01Z".to_owned(),
            command: "sh -c 'echo hello; sleep 1000'".to_owned(),
            reason: None,
            resting: false,
            wanted: true,
            part: None,
        }
    }

    fn listing() -> Listing {
        let exited = |code| Some(ContainerState::Exited { code, by_itself: true });
        let running = |health| Some(ContainerState::Running { health });
        let held =
            PodStatus { reason: Some("crashed 3 times, next start in 4 s".to_owned()), ..pod("api", 1, exited(1)) };
        let missing = PodStatus { host: None, reason: Some("no host has room".to_owned()), ..pod("big", 1, None) };
        let port = |host_ip: Option<&str>, published| PublishedStatus {
            service: ServiceName::new("web").expect("valid"),
            host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
            published,
            target: 80,
            protocol: Protocol::Tcp,
            problem: None,
        };
        Listing {
            project: ProjectName::new("shop").expect("valid"),
            pods: vec![
                pod("web", 2, running(Health::Starting)),
                pod("web", 1, running(Health::Healthy)),
                pod("migrate", 1, exited(0)),
                held,
                missing,
            ],
            published: vec![
                port(None, 8080),
                port(Some("127.0.0.1"), 8081),
                PublishedStatus { problem: Some("taken".to_owned()), ..port(None, 8082) },
            ],
            now: "2026-11-21T15:02:03Z".parse().expect("a time"),
        }
    }

    fn show(args: &PsArgs) -> String {
        let (mut ui, out, err) = ui(Style::Plain);
        listing().print(&mut ui, args).expect("printed");
        assert_eq!(err.take(), "");
        out.take()
    }

    #[test]
    fn the_table_shows_what_runs_and_what_cannot() {
        insta::assert_snapshot!(show(&PsArgs::default()), @r#"
        NAME         HOST      IMAGE     COMMAND                  SERVICE   CREATED         STATUS                                                              PORTS
        shop-api-1   local     shop:1    "sh -c 'echo hello; …"   api       2 minutes ago   Exited (1) About a minute ago: crashed 3 times, next start in 4 s
        shop-big-1             shop:1    "sh -c 'echo hello; …"   big       2 minutes ago   Missing: no host has room
        shop-web-1   local     shop:1    "sh -c 'echo hello; …"   web       2 minutes ago   Up 2 minutes (healthy)                                              0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:8081->80/tcp
        shop-web-2   local     shop:1    "sh -c 'echo hello; …"   web       2 minutes ago   Up 2 minutes (health: starting)                                     0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:8081->80/tcp
        "#);
    }

    #[test]
    fn all_shows_finished_jobs_too() {
        insta::assert_snapshot!(show(&PsArgs { all: true, no_trunc: true, ..PsArgs::default() }), @r#"
        NAME             HOST      IMAGE     COMMAND                            SERVICE   CREATED         STATUS                                                              PORTS
        shop-api-1       local     shop:1    "sh -c 'echo hello; sleep 1000'"   api       2 minutes ago   Exited (1) About a minute ago: crashed 3 times, next start in 4 s
        shop-big-1                 shop:1    "sh -c 'echo hello; sleep 1000'"   big       2 minutes ago   Missing: no host has room
        shop-migrate-1   local     shop:1    "sh -c 'echo hello; sleep 1000'"   migrate   2 minutes ago   Exited (0) About a minute ago
        shop-web-1       local     shop:1    "sh -c 'echo hello; sleep 1000'"   web       2 minutes ago   Up 2 minutes (healthy)                                              0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:8081->80/tcp
        shop-web-2       local     shop:1    "sh -c 'echo hello; sleep 1000'"   web       2 minutes ago   Up 2 minutes (health: starting)                                     0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:8081->80/tcp
        "#);
    }

    #[test]
    fn long_reasons_are_cut_on_a_terminal() {
        let reason = "no host can take it: `a` lacks port 80, which a process there has; `b` does not answer";
        let missing = PodStatus { host: None, reason: Some(reason.to_owned()), ..pod("big", 1, None) };
        let show = |style, width, args: &PsArgs| {
            let (mut ui, out, _) = ui(style);
            ui.set_size(width, 24);
            let pods = vec![missing.clone(), pod("web", 1, Some(ContainerState::Running { health: Health::None }))];
            Listing { pods, published: Vec::new(), ..listing() }.print(&mut ui, args).expect("printed");
            out.take()
        };
        insta::assert_snapshot!(show(Style::Live, 150, &PsArgs::default()), @r#"
        NAME         HOST      IMAGE     COMMAND                  SERVICE   CREATED         STATUS                                                       PORTS
        shop-big-1             shop:1    "sh -c 'echo hello; …"   big       2 minutes ago   Missing: no host can take it: `a` lacks port 80, which a …
        shop-web-1   local     shop:1    "sh -c 'echo hello; …"   web       2 minutes ago   Up 2 minutes
        "#);
        insta::assert_snapshot!(show(Style::Live, 80, &PsArgs::default()), @r#"
        NAME         HOST      IMAGE     COMMAND                  SERVICE   CREATED         STATUS                                  PORTS
        shop-big-1             shop:1    "sh -c 'echo hello; …"   big       2 minutes ago   Missing: no host can take it: `a` la…
        shop-web-1   local     shop:1    "sh -c 'echo hello; …"   web       2 minutes ago   Up 2 minutes
        "#);
        for whole in [
            show(Style::Live, 80, &PsArgs { no_trunc: true, ..PsArgs::default() }),
            show(Style::Plain, 80, &PsArgs::default()),
        ] {
            assert!(whole.contains(reason), "{whole}");
        }
    }

    #[test]
    fn states_services_and_ids_can_be_asked_for() {
        let exited = PsArgs { statuses: vec![StateWord::Exited], services: true, ..PsArgs::default() };
        assert_eq!(show(&exited), "api\nmigrate\n");
        let web = PsArgs { names: vec![ServiceName::new("web").expect("valid")], quiet: true, ..PsArgs::default() };
        assert_eq!(show(&web), format!("{:0>64}\n{:0>64}\n", 1, 2));
    }

    #[test]
    fn what_run_made_is_shown_with_all_only() {
        let one = |args: &PsArgs| {
            let (mut ui, out, _) = ui(Style::Plain);
            let once = PodStatus {
                wanted: false,
                ready: false,
                ..pod("web", 0, Some(ContainerState::Running { health: Health::None }))
            };
            Listing { pods: vec![once], ..listing() }.print(&mut ui, args).expect("printed");
            out.take()
        };
        assert_eq!(one(&PsArgs { quiet: true, ..PsArgs::default() }), "");
        let row = one(&PsArgs { all: true, ..PsArgs::default() });
        assert!(row.lines().nth(1).is_some_and(|row| row.ends_with("Up 2 minutes")), "no ports: {row}");
        let filters = vec![StateWord::Running];
        assert_eq!(one(&PsArgs { quiet: true, filters, ..PsArgs::default() }).len(), 65);
    }

    #[test]
    fn json_is_an_object_a_line_with_docker_composes_keys() {
        insta::assert_snapshot!(show(&PsArgs { format: ListFormat::Json, ..PsArgs::default() }), @r#"
        {"Command":"\"sh -c 'echo hello; sleep 1000'\"","CreatedAt":"2026-11-21 15:00:00 +0000 UTC","ExitCode":1,"Health":"","Host":"local","ID":"000000000000","Image":"shop:1","Name":"shop-api-1","Project":"shop","Publishers":[],"Ready":false,"Reason":"crashed 3 times, next start in 4 s","RunningFor":"2 minutes ago","Service":"api","State":"exited","Status":"Exited (1) About a minute ago: crashed 3 times, next start in 4 s"}
        {"Command":"\"sh -c 'echo hello; sleep 1000'\"","CreatedAt":"2026-11-21 15:00:00 +0000 UTC","ExitCode":0,"Health":"","Host":null,"ID":"","Image":"shop:1","Name":"shop-big-1","Project":"shop","Publishers":[],"Ready":false,"Reason":"no host has room","RunningFor":"2 minutes ago","Service":"big","State":"missing","Status":"Missing: no host has room"}
        {"Command":"\"sh -c 'echo hello; sleep 1000'\"","CreatedAt":"2026-11-21 15:00:00 +0000 UTC","ExitCode":0,"Health":"healthy","Host":"local","ID":"000000000000","Image":"shop:1","Name":"shop-web-1","Project":"shop","Publishers":[{"URL":"0.0.0.0","TargetPort":80,"PublishedPort":8080,"Protocol":"tcp"},{"URL":"::","TargetPort":80,"PublishedPort":8080,"Protocol":"tcp"},{"URL":"127.0.0.1","TargetPort":80,"PublishedPort":8081,"Protocol":"tcp"}],"Ready":true,"Reason":null,"RunningFor":"2 minutes ago","Service":"web","State":"running","Status":"Up 2 minutes (healthy)"}
        {"Command":"\"sh -c 'echo hello; sleep 1000'\"","CreatedAt":"2026-11-21 15:00:00 +0000 UTC","ExitCode":0,"Health":"starting","Host":"local","ID":"000000000000","Image":"shop:1","Name":"shop-web-2","Project":"shop","Publishers":[{"URL":"0.0.0.0","TargetPort":80,"PublishedPort":8080,"Protocol":"tcp"},{"URL":"::","TargetPort":80,"PublishedPort":8080,"Protocol":"tcp"},{"URL":"127.0.0.1","TargetPort":80,"PublishedPort":8081,"Protocol":"tcp"}],"Ready":true,"Reason":null,"RunningFor":"2 minutes ago","Service":"web","State":"running","Status":"Up 2 minutes (health: starting)"}
        "#);
    }

    #[test]
    fn nothing_is_a_header_as_in_docker_compose() {
        let (mut ui, out, _) = ui(Style::Plain);
        let listing = Listing { pods: Vec::new(), ..listing() };
        listing.print(&mut ui, &PsArgs::default()).expect("printed");
        assert_eq!(out.take(), "NAME      HOST      IMAGE     COMMAND   SERVICE   CREATED   STATUS    PORTS\n");
    }
}

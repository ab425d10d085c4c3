//! What the flags of `run` make of a service. Pure but for the files that they name.

use std::collections::BTreeMap;

use crate::cli::args::RunArgs;
use crate::cli::error::CliError;
use crate::graph::{
    Container, ExposedPort, Graph, Mount, MountSource, NetworkMode, Port, PortMode, Protocol, Recursion, Restart, Role,
    Service, Volume,
};
use crate::ids::{ResourceKey, ServiceName};
use crate::load::flags;

/// What the process and the terminal say.
pub(super) struct Surroundings<'a> {
    /// Looks up a variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The current directory.
    pub directory: String,
    /// Whether standard input and output are a terminal.
    pub terminal: bool,
    /// Whether the container runs on this machine's engine, where relative paths mean something.
    pub local: bool,
}

/// Returns the part of the project that a one-off is made of: its service as the flags want it with the other containers
/// of its pod, and what they mount.
///
/// # Errors
/// What is wrong with a flag, and what a service cannot do by itself.
pub(super) fn graph_of(graph: &Graph, args: &RunArgs, around: &Surroundings<'_>) -> Result<Graph, CliError> {
    let name = &args.service;
    let no_service = || crate::cli::project::no_such_service(name, graph.services.keys());
    let mut service = graph.services.get(name).ok_or_else(no_service)?.clone();
    let refuse = |reason| CliError::NoOneoff { service: name.clone(), reason };
    if service.part.as_ref().is_some_and(|part| part.role != Role::Main) {
        return Err(refuse("it helps in the pods of another service, which is what can be run"));
    }
    let mut one = Graph { services: BTreeMap::new(), ..graph.clone() };
    for (part, _) in graph.parts(name).filter(|(part, _)| *part != name) {
        let Some(helper) = graph.services.get(part) else { continue };
        let mut helper = Service { restart: Restart::No, ..helper.clone() };
        helper.container.name = None;
        one.services.insert(part.clone(), helper);
    }
    change(&mut service.container, args, around)?;
    service.restart = Restart::No;
    // Where there are several containers the holder has the network, and its ports.
    let holder = graph.holders().get(name).copied().cloned();
    let owner = holder.and_then(|holder| one.services.get_mut(&holder)).unwrap_or(&mut service);
    owner.ports = ports(owner, args)?;
    owner.expose.extend(owner.ports.iter().map(|port| ExposedPort { port: port.target, protocol: port.protocol }));
    owner.expose.sort_by_key(|exposed| (exposed.protocol, exposed.port));
    owner.expose.dedup();
    if !owner.ports.is_empty() && !matches!(owner.network, NetworkMode::Networks(_) | NetworkMode::Engine(_)) {
        return Err(refuse("it has no network of its own, so that no ports of it can be published"));
    }
    for text in &args.volumes {
        let mount = mount(text, &mut one, around)?;
        service.container.mounts.retain(|other| other.target != mount.target);
        service.container.mounts.push(mount);
    }
    one.services.insert(name.clone(), service);
    // What is run before the service is not run before a one-off of it, as in Docker Compose.
    let is_step = |other: &ServiceName| graph.services.get(other).is_some_and(|one| one.prepares_service().is_some());
    for part in one.services.values_mut() {
        part.depends_on.retain(|dependency| !is_step(&dependency.service));
    }
    Ok(one)
}

fn change(container: &mut Container, args: &RunArgs, around: &Surroundings<'_>) -> Result<(), CliError> {
    container.name = None;
    container.tty = around.terminal && args.wants_terminal();
    container.stdin_open = args.interactive;
    if let Some(text) = &args.entrypoint {
        container.entrypoint = Some(flags::command(text).map_err(|_| CliError::Value {
            what: "entry point",
            value: text.clone(),
            expected: "a program and its arguments, as in a compose file",
        })?);
        // What the service or its image passes is for the other program.
        container.command = Some(Vec::new());
    }
    if !args.command.is_empty() {
        container.command = Some(args.command.clone());
    }
    container.user = args.user.clone().or(container.user.take());
    container.working_dir = args.workdir.clone().or(container.working_dir.take());
    for path in &args.env_files {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| CliError::Read { path: path.clone(), source })?;
        let pairs = flags::env_file(path, &text, around.variable).map_err(CliError::Files)?;
        for (name, value) in pairs {
            container.set_variable(name, value);
        }
    }
    for entry in &args.env {
        // A name without a value takes the caller's, and stays as it is where he has none, as in Docker Compose.
        let given = match entry.split_once('=') {
            Some((name, value)) => Some((name.to_owned(), value.to_owned())),
            None => (around.variable)(entry).map(|value| (entry.clone(), value)),
        };
        if let Some((name, value)) = given {
            container.set_variable(name, value);
        }
    }
    for label in &args.labels {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        container.labels.insert(key.to_owned(), value.to_owned());
    }
    move_to(&args.cap_add, &mut container.cap_add, &mut container.cap_drop);
    move_to(&args.cap_drop, &mut container.cap_drop, &mut container.cap_add);
    Ok(())
}

fn move_to(names: &[String], to: &mut Vec<String>, from: &mut Vec<String>) {
    from.retain(|name| !names.contains(name));
    to.extend(names.iter().filter(|name| !to.contains(name)).cloned().collect::<Vec<_>>());
}

/// The ports that the engine publishes on the host that the container runs on: the balancer leads to pods.
fn ports(service: &Service, args: &RunArgs) -> Result<Vec<Port>, CliError> {
    if args.service_ports {
        let on_host = |port: &Port| Port { mode: PortMode::Host, ..port.clone() };
        return Ok(service.ports.iter().map(on_host).collect());
    }
    let mut ports = Vec::new();
    for text in &args.publish {
        let wrong = |_| CliError::Value {
            what: "port",
            value: text.clone(),
            expected: "`[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`, such as `127.0.0.1:8080:80`",
        };
        ports.extend(flags::port(text).map_err(wrong)?.into_iter().map(|port| Port {
            name: None,
            host_ip: port.host_ip,
            published: port.published,
            target: port.target,
            protocol: match port.protocol.as_str() {
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            mode: PortMode::Host,
        }));
    }
    Ok(ports)
}

/// Reads `[SOURCE:]TARGET[:ro|rw|z|Z,…]`. A source with a `/` or `.` in front is a path, another one a volume: the
/// project's of that key, else the engine's of that name.
fn mount(text: &str, graph: &mut Graph, around: &Surroundings<'_>) -> Result<Mount, CliError> {
    let wrong = |expected| CliError::Value { what: "volume", value: text.to_owned(), expected };
    let form = "`SOURCE:TARGET[:ro]`, where TARGET is an absolute path";
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(wrong(form)),
    };
    if !target.starts_with('/') || source.is_some_and(str::is_empty) {
        return Err(wrong(form));
    }
    let (mut read_only, mut selinux) = (false, None);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "z" | "Z" => selinux = Some(option.to_owned()),
            _ => return Err(wrong("no other option than `ro`, `rw`, `z` and `Z`")),
        }
    }
    let source = match source {
        None => MountSource::anonymous(),
        Some(path) if path.starts_with(['/', '.', '~']) => {
            if !path.starts_with('/') && !around.local {
                return Err(wrong("an absolute path of the host that the container runs on"));
            }
            MountSource::Bind {
                path: absolute(path, around),
                create: true,
                propagation: None,
                selinux,
                recursion: Recursion::default(),
            }
        }
        Some(name) => {
            let key = ResourceKey::new(name)
                .map_err(|_| wrong("the name of a volume, or a path with `/` or `.` in front"))?;
            // One that the project does not have is the engine's, of that name.
            graph.volumes.entry(key.clone()).or_insert_with(|| Volume {
                name: name.to_owned(),
                external: true,
                driver: None,
                driver_opts: BTreeMap::new(),
                labels: BTreeMap::new(),
                spec_hash: String::new(),
                compose_hash: String::new(),
            });
            MountSource::Volume { volume: key, no_copy: false, subpath: None }
        }
    };
    Ok(Mount { target: target.to_owned(), read_only, source })
}

fn absolute(path: &str, around: &Surroundings<'_>) -> String {
    if let Some(rest) = path.strip_prefix('~') {
        let home = (around.variable)("HOME").unwrap_or_else(|| "/root".to_owned());
        return format!("{home}{rest}");
    }
    if path.starts_with('/') {
        return path.to_owned();
    }
    let whole = std::path::Path::new(&around.directory).join(path);
    let mut parts = std::path::PathBuf::new();
    for part in whole.components() {
        match part {
            std::path::Component::ParentDir => drop(parts.pop()),
            std::path::Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts.display().to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::ids::ServiceName;
    use crate::plan::fixture;

    fn args(line: &str) -> RunArgs {
        let words = ["orch", "run"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).expect("arguments");
        let Command::Run(args) = cli.command else { panic!("not run") };
        *args
    }

    const WEB: &str = "web: {command: [serve], entrypoint: [init], environment: {A: '1', B: '2', C: null, D: null}, container_name: one, \
                       cap_drop: [ALL], ports: [{target: 80, published: '8080', protocol: tcp, mode: ingress}], \
                       volumes: [{type: volume, source: data, target: /data}]}";

    fn graph() -> Graph {
        fixture::graph(&format!("services:\n  {WEB}\nvolumes: {{data: {{}}}}\n"))
    }

    fn made(line: &str, local: bool) -> Result<Service, CliError> {
        let variable = |name: &str| (name == "MINE").then(|| "me".to_owned());
        let around = Surroundings { variable: &variable, directory: "/desk".to_owned(), terminal: true, local };
        let graph = graph_of(&graph(), &args(line), &around)?;
        Ok(graph.services.into_values().next().expect("one"))
    }

    #[test]
    fn of_a_pod_of_several_containers_the_flags_are_for_the_main_one_and_ports_for_its_holder() {
        let graph = fixture::graph(
            "web: {image: w, restart: always, x-sidecars: {sync: {image: s}}, \
             ports: [{target: 80, published: '8080', protocol: tcp, mode: ingress}]}",
        );
        let around = Surroundings { variable: &|_| None, directory: "/desk".to_owned(), terminal: true, local: true };
        let one = graph_of(&graph, &args("-P -u 7 -v /x:/x web true"), &around).expect("can be run");
        let shown: Vec<String> = one
            .services
            .iter()
            .map(|(name, one)| {
                let container = &one.container;
                let user = container.user.as_deref().unwrap_or("-");
                format!("{name} {user} {} ports {} mounts {:?}", one.ports.len(), container.mounts.len(), one.restart)
            })
            .collect();
        let holder = &graph.services[&ServiceName::new("web.pod").expect("valid")].container;
        let holder = format!("web.pod {} 1 ports 0 mounts No", holder.user.as_deref().unwrap_or("-"));
        assert_eq!(
            shown,
            ["web 7 0 ports 1 mounts No".to_owned(), holder, "web.sync - 0 ports 0 mounts No".to_owned()]
        );
        assert!(graph_of(&graph, &args("web.sync"), &around).is_err(), "a helper is nothing by itself");
    }

    fn service(line: &str) -> Service {
        made(line, true).expect("can be run")
    }

    #[test]
    fn without_flags_it_is_the_service_without_name_and_ports() {
        let one = service("web");
        let container = &one.container;
        assert_eq!(container.command, Some(vec!["serve".to_owned()]));
        assert_eq!((container.name.as_ref(), one.ports.len()), (None, 0));
        assert_eq!((container.tty, container.stdin_open), (true, true));
        let one = service("-T -i=false web");
        assert_eq!((one.container.tty, one.container.stdin_open), (false, false));
    }

    #[test]
    fn flags_after_the_service_are_the_commands() {
        let one = service("-e X=1 web ls -e -T --rm");
        assert_eq!(one.container.command.expect("a command"), ["ls", "-e", "-T", "--rm"]);
        assert_eq!(one.container.entrypoint.expect("the service's"), ["init"]);
        let one = service("--entrypoint sh web");
        assert_eq!(one.container.entrypoint.expect("the flag's"), ["sh"]);
        assert_eq!(one.container.command, Some(Vec::new()), "what was for the other program");
    }

    #[test]
    fn variables_and_labels_are_those_of_the_flags() {
        let one = service(
            "-e A=9 -e MINE -e B -e X= -e C=3 -l a=b -l c -u 1 -w /x --cap-add SYS_TIME --cap-drop NET_RAW web",
        );
        assert_eq!(one.container.variables(), ["A=9", "B=2", "C=3", "MINE=me", "X=", "D"]);
        let labels: Vec<String> = one.container.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["a=b", "c="]);
        assert_eq!((one.container.user.as_deref(), one.container.working_dir.as_deref()), (Some("1"), Some("/x")));
        assert_eq!(
            (one.container.cap_add, one.container.cap_drop),
            (vec!["SYS_TIME".to_owned()], vec!["ALL".to_owned(), "NET_RAW".to_owned()])
        );
    }

    #[test]
    fn ports_are_published_by_the_engine() {
        let show = |line: &str| {
            let port = |port: &Port| format!("{:?} {:?} {} {}", port.mode, port.published, port.target, port.protocol);
            service(line).ports.iter().map(port).collect::<Vec<_>>()
        };
        assert_eq!(show("-P web"), ["Host Some((8080, 8080)) 80 tcp"]);
        assert_eq!(show("-p 9000:90/udp -p 91 web"), ["Host Some((9000, 9000)) 90 udp", "Host None 91 tcp"]);
        assert!(made("-p x web", true).is_err());
        assert!(Cli::try_parse_from(["orch", "run", "-P", "-p", "80", "web"]).is_err());
    }

    #[test]
    fn volumes_are_paths_the_projects_or_the_engines() {
        let show = |line: &str| {
            let mounts = service(line).container.mounts;
            let last = mounts.last().expect("a mount").clone();
            let source = match last.source {
                MountSource::Bind { path, .. } => path,
                MountSource::Volume { volume, .. } => format!("volume {volume}"),
                _ => "none".to_owned(),
            };
            format!("{} {source} {}{}", mounts.len(), last.target, if last.read_only { " ro" } else { "" })
        };
        assert_eq!(show("-v ./x/../y:/x:ro web"), "2 /desk/y /x ro");
        assert_eq!(show("-v /srv:/data web"), "1 /srv /data", "in place of the service's");
        assert_eq!(show("-v other:/o web"), "2 volume other /o");
        assert_eq!(show("-v /cache web"), "2 none /cache");
        for wrong in ["x:y", ":/x", "a:/b:rw,bad", "a:/b:ro:x", "we/b:/x"] {
            assert!(made(&format!("-v {wrong} web"), true).is_err(), "{wrong}");
        }
        assert!(made("-v ./x:/x web", false).is_err(), "a relative path means nothing on another host");
        assert!(made("-v /x:/x web", false).is_ok());
    }
}

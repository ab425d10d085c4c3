//! `orch host`: the hosts of the cluster.

pub(crate) mod list;
mod seat;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::api::client::ClientError;
use crate::api::types::{ErrorKind, HostChange, RemoveHost};
use crate::cli::args::{HostAddArgs, HostLabelArgs, HostNameArgs, HostRmArgs, HostVerb, LabelChange};
use crate::cli::context::{Context, user_hosts};
use crate::cli::error::CliError;
use crate::cli::fleet::{Fleet, Host};
use crate::cli::join::{self, Newcomer};
use crate::cli::signals::Interrupts;
use crate::engine::docker::DockerEngine;
use crate::engine::{Engine as _, EngineError, label};
use crate::hosts::{HostEntry, InventoryError, PeerAddress, SshAddress, host_name};
use crate::ids::{HostName, ProjectName};
use crate::mesh::DEFAULT_PORT;
use crate::transport::bootstrap::{self, AgentOptions, BootstrapError};
use crate::transport::image::Build;

/// Time for taking orch and what it made off a host.
const CLEANED_WITHIN: Duration = Duration::from_mins(1);
/// Time between stop signal and kill for pods of a host that leaves.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Adds, lists, changes or removes hosts.
///
/// # Errors
/// When a host or the seat cannot be reached, or refuses.
pub(crate) async fn run(context: &mut Context<'_>, verb: HostVerb) -> Result<(), CliError> {
    match verb {
        HostVerb::Add(args) => Box::pin(add(context, &args)).await,
        HostVerb::Ls(args) => list::list(context, &args).await,
        HostVerb::Inspect(args) => list::inspect(context, &args.name).await,
        HostVerb::Label(args) => label(context, args).await,
        HostVerb::Rm(args) => remove(context, &args).await,
        HostVerb::Seat(args) => seat::run(context, &args).await,
        HostVerb::Drain(args) => drain(context, &args, true).await,
        HostVerb::Uncordon(args) => drain(context, &args, false).await,
    }
}

async fn add(context: &mut Context<'_>, args: &HostAddArgs) -> Result<(), CliError> {
    let known = context.inventory()?;
    let named = named(&args.hosts, &known)?;
    if args.address.is_some() && named.len() > 1 {
        return Err(CliError::Flag { flag: "--address", command: "host add` of several hosts" });
    }
    let (address, port) = match args.address.as_deref().map(tunnel_address).transpose()? {
        Some((address, port)) => (Some(address), port),
        None => (None, DEFAULT_PORT),
    };
    let labels: BTreeMap<String, String> = args.labels.iter().cloned().collect();
    let entries = named.into_iter().map(|entry| HostEntry {
        address: address.clone().or(entry.address),
        labels: entry.labels.into_iter().chain(labels.clone()).collect(),
        ..entry
    });
    let entries: Vec<HostEntry> = entries.collect();
    if context.global.dry_run {
        // Whether it can be reached, and what its agent says, shows only then.
        let mut lines = entries.iter().map(|entry| format!("add host {} ({})", entry.name, entry.reach));
        return lines.try_for_each(|line| context.ui.line(&line));
    }
    let fleet = context.fleet()?.unwrap_or_else(|| Arc::new(Fleet::new(Vec::new())));
    let newcomer = |entry: &HostEntry| Newcomer { host: fleet.host(entry.clone()), entry: entry.clone(), port };
    let newcomers = entries.iter().map(newcomer).collect();
    let mut interrupts = Interrupts::listen()?;
    let adding = join::add(context.ui, &fleet, newcomers, args.allow_downgrade);
    let joined = Box::pin(interrupts.unless(async { Ok(adding.await) })).await?;
    let added: Vec<&HostEntry> = entries.iter().filter(|entry| joined.added.contains(&entry.name)).collect();
    remember(context, &added)?;
    joined.result(context.ui, "adding")
}

/// Writes hosts into the user's hosts file, but for those that the compose file names.
fn remember(context: &Context<'_>, entries: &[&HostEntry]) -> Result<(), CliError> {
    let entries: Vec<_> = entries.iter().filter(|entry| !context.is_in_file(&entry.name)).collect();
    let Some(file) = user_hosts().filter(|_| !entries.is_empty()) else { return Ok(()) };
    file.change(|hosts| {
        for entry in entries {
            match hosts.iter_mut().find(|known| known.name == entry.name) {
                Some(known) => known.clone_from(entry),
                None => hosts.push((*entry).clone()),
            }
        }
        Ok(())
    })
}

/// The hosts of `NAME ssh://…` pairs, `NAME=ssh://…`, and names that `known` has.
fn named(words: &[String], known: &[HostEntry]) -> Result<Vec<HostEntry>, CliError> {
    let mut hosts: Vec<HostEntry> = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let (name, reach) = match word.split_once('=') {
            Some((name, reach)) => (name, Some(reach.to_owned())),
            None => (word.as_str(), words.next_if(|next| next.contains("://") || next.contains('@')).cloned()),
        };
        let name = host_name(name)?;
        let earlier = known.iter().find(|entry| entry.name == name);
        let reach = reach.map(|reach| reach.parse::<SshAddress>()).transpose();
        let reach = reach.map_err(|error| CliError::Value {
            what: "address of a host",
            value: error.text,
            expected: "an address like `ssh://user@host:port`, where user and port may be left out",
        })?;
        let entry = match (reach, earlier) {
            (Some(reach), Some(earlier)) if earlier.reach == reach => earlier.clone(),
            (Some(reach), _) => HostEntry::new(name, reach),
            (None, Some(earlier)) => earlier.clone(),
            (None, None) => {
                let expected = "a name with an address: `orch host add NAME ssh://user@host`";
                return Err(CliError::Value { what: "host to add", value: word.clone(), expected });
            }
        };
        if hosts.iter().any(|other| other.name == entry.name) {
            return Err(InventoryError::Twice(entry.name).into());
        }
        if let Some(other) = hosts.iter().find(|other| other.reach == entry.reach) {
            let (first, second) = (other.name.clone(), entry.name);
            return Err(InventoryError::SameAddress { first, second, reach: Box::new(entry.reach) }.into());
        }
        hosts.push(entry);
    }
    Ok(hosts)
}

/// `10.0.0.1`, `10.0.0.1:7653`, `[fd00::1]:7653`, `name`, `name:7653`.
fn tunnel_address(text: &str) -> Result<(PeerAddress, u16), CliError> {
    let wrong = || CliError::Value {
        what: "address for other hosts",
        value: text.to_owned(),
        expected: "ADDRESS or ADDRESS:PORT, such as `10.0.0.5`",
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((PeerAddress::Ip(ip), DEFAULT_PORT));
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Ok((PeerAddress::Ip(socket.ip()), socket.port()));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
        None => (text, DEFAULT_PORT),
    };
    Ok((name.parse().map_err(|_| wrong())?, port))
}

/// Returns the hosts that were named; there must be some.
fn some_fleet(context: &mut Context<'_>) -> Result<Arc<Fleet>, CliError> {
    context.fleet()?.ok_or(CliError::NoHosts)
}

async fn label(context: &mut Context<'_>, args: HostLabelArgs) -> Result<(), CliError> {
    let mut change = HostChange::default();
    for one in args.changes {
        match one {
            LabelChange::Set(key, value) => drop(change.set_labels.insert(key, value)),
            LabelChange::Remove(key) => change.remove_labels.push(key),
        }
    }
    if !change_host(context, &args.name, &change).await? {
        let HostChange { set_labels, remove_labels, draining: _ } = change;
        let set = set_labels.iter().map(|(key, value)| format!("set label {key}={value} of host {}", args.name));
        let removed = remove_labels.iter().map(|key| format!("remove label {key} of host {}", args.name));
        return set.chain(removed).try_for_each(|line| context.ui.line(&line));
    }
    let mut labels = change.set_labels;
    if let Some(file) = user_hosts() {
        // A label that is only in the cluster would be lost when the host is added anew.
        file.change(|hosts| {
            if let Some(entry) = hosts.iter_mut().find(|entry| entry.name == args.name) {
                entry.labels.append(&mut labels);
                entry.labels.retain(|key, _| !change.remove_labels.contains(key));
            }
            Ok(())
        })?;
    }
    Ok(())
}

async fn drain(context: &mut Context<'_>, args: &HostNameArgs, draining: bool) -> Result<(), CliError> {
    let change = HostChange { draining: Some(draining), ..HostChange::default() };
    if !change_host(context, &args.name, &change).await? {
        let line = if draining { "let no new pods onto host" } else { "let pods onto host" };
        return context.ui.line(&format!("{line} {}", args.name));
    }
    context.ui.say(&if draining {
        format!("host {} takes no new pods; those that can run elsewhere move", args.name)
    } else {
        format!("host {} takes pods", args.name)
    });
    Ok(())
}

/// Has the seat change what it knows of a host, unless that is only to be told. Returns whether it was changed.
async fn change_host(context: &mut Context<'_>, name: &HostName, change: &HostChange) -> Result<bool, CliError> {
    let fleet = some_fleet(context)?;
    let seat = fleet.seat().await?;
    check_known(&fleet, &seat.status, name)?;
    if !context.global.dry_run {
        seat.client.change_host(name, change).await?;
    }
    Ok(!context.global.dry_run)
}

/// Refuses a name that the cluster does not have.
fn check_known(fleet: &Fleet, status: &crate::api::types::ClusterStatus, name: &HostName) -> Result<(), CliError> {
    if status.hosts.iter().any(|host| host.name == *name) {
        return Ok(());
    }
    let known = status.hosts.iter().map(|host| host.name.as_str());
    let similar = crate::diag::did_you_mean(name.as_str(), known).map(str::to_owned);
    if similar.is_none() && fleet.hosts().iter().any(|host| host.name() == name) {
        return Err(CliError::on_host(name, CliError::NoCluster));
    }
    Err(CliError::NoSuchHost { name: name.clone(), similar })
}

async fn remove(context: &mut Context<'_>, args: &HostRmArgs) -> Result<(), CliError> {
    let fleet = some_fleet(context)?;
    if context.global.dry_run {
        for name in &args.names {
            preview_removal(context, &fleet, name).await?;
        }
        return Ok(());
    }
    let mut failed = Vec::new();
    for name in &args.names {
        match remove_one(context, &fleet, name, args.force).await {
            Ok(()) => {
                forget(name)?;
                context.ui.say(&format!("host {name} is removed"));
            }
            Err(error) if args.names.len() == 1 => return Err(error),
            Err(error) => {
                context.ui.error(&CliError::on_host(name, error));
                failed.push(name.clone());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(CliError::SomeHosts { what: "removing", hosts: failed }) }
}

/// Says what would become of a host: whether its pods can run elsewhere shows only then.
async fn preview_removal(context: &mut Context<'_>, fleet: &Fleet, name: &HostName) -> Result<(), CliError> {
    match fleet.seat().await {
        Ok(seat) => {
            check_known(fleet, &seat.status, name)?;
            if seat.status.seat == *name && seat.status.hosts.len() > 1 {
                return Err(CliError::SeatStays(name.clone()));
            }
        }
        // As the removal itself: a host that was never added is cleaned up all the same.
        Err(CliError::NoCluster) if fleet.hosts().iter().any(|host| host.name() == name) => {}
        Err(error) => return Err(error),
    }
    context.ui.line(&format!("remove host {name}, its agent and what orch runs there"))
}

/// Takes a host out of the cluster first, then what orch made off the host: killed in between, the next run finishes.
async fn remove_one(context: &mut Context<'_>, fleet: &Fleet, name: &HostName, force: bool) -> Result<(), CliError> {
    let seat = match fleet.seat().await {
        Ok(seat) => seat,
        // The last host of a cluster whose agent is gone already, or one that was never added.
        Err(CliError::NoCluster) if fleet.hosts().iter().any(|host| host.name() == name) => {
            let host = fleet.hosts().iter().find(|host| host.name() == name).cloned();
            return match host {
                Some(host) => clean_up(&host, &BTreeSet::new()).await,
                None => Ok(()),
            };
        }
        Err(CliError::NoHostAnswers(errors)) if force => {
            context.ui.warn_all(&errors);
            context.ui.warn("no cluster could be asked: the host is only taken off your list");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let host = fleet.member(&seat.status, name)?;
    let is_member = seat.status.hosts.iter().any(|member| member.name == *name);
    if seat.status.seat == *name {
        if seat.status.hosts.len() > 1 {
            return Err(CliError::SeatStays(name.clone()));
        }
    } else if is_member {
        match seat.client.remove_host(name, &RemoveHost { force }).await {
            Err(ClientError::Api(error)) if error.kind == ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    let projects = seat.client.projects().await.unwrap_or_default().into_iter();
    let projects = projects.filter(|project| project.revision.is_some() && seat.status.seat != *name);
    let projects = projects.map(|project| project.name).collect();
    let cleaned = tokio::time::timeout(CLEANED_WITHIN, clean_up(&host, &projects)).await;
    let cleaned = cleaned.unwrap_or_else(|_| Err(CliError::HostSilent { host: name.clone() }));
    host.close().await;
    match cleaned {
        Err(error) if force => {
            context.ui.warn(&format!(
                "{error}; the cluster has forgotten it; should it come back, `orch agent uninstall` on it removes what \
                 orch left there"
            ));
            Ok(())
        }
        cleaned => cleaned,
    }
}

/// Removes the agent, and then what it had made of the cluster's projects: nobody starts that again. Volumes stay.
async fn clean_up(host: &Host, projects: &BTreeSet<ProjectName>) -> Result<(), CliError> {
    let (engine, client) = (host.engine().await?, host.agent().await?);
    let build = Build::own().map_err(BootstrapError::Binary)?;
    bootstrap::uninstall_agent(&engine, &client, &build, &AgentOptions::default())
        .await
        .map_err(|error| host.failed(error))?;
    take_away(&engine, projects).await.map_err(|error| host.failed(error))
}

async fn take_away(engine: &DockerEngine, projects: &BTreeSet<ProjectName>) -> Result<(), EngineError> {
    let observed = engine.observe(None).await?;
    let ours = observed.containers.values().filter(|container| {
        container.project.as_ref().is_some_and(|name| projects.contains(name))
            && container.labels.contains_key(label::SPEC_HASH)
    });
    let removed = ours.map(|container| async {
        engine.stop_container(&container.id, STOP_GRACE).await?;
        engine.remove_container(&container.id, false).await
    });
    try_join_all(removed).await?;
    let of_project = |labels: &BTreeMap<String, String>| {
        labels.get(label::PROJECT).is_some_and(|name| projects.iter().any(|project| project.as_str() == name))
    };
    for (name, network) in &observed.networks {
        if of_project(&network.labels) {
            match engine.remove_network(name).await {
                // Somebody else's container is in it.
                Ok(()) | Err(EngineError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn forget(name: &HostName) -> Result<(), CliError> {
    let Some(file) = user_hosts() else { return Ok(()) };
    file.change(|hosts| {
        hosts.retain(|entry| entry.name != *name);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &str, expected: Result<&str, &str>) {
        let known = [HostEntry::new(host_name("k").expect("a name"), "u@known".parse().expect("an address"))];
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let shown = named(&words, &known).map(|hosts| {
            let hosts = hosts.iter().map(|host| format!("{} {}", host.name, host.reach));
            hosts.collect::<Vec<_>>().join(", ")
        });
        match expected {
            Ok(expected) => assert_eq!(shown.expect("hosts"), expected),
            Err(part) => {
                let message = shown.expect_err("refused").to_string();
                assert!(message.contains(part), "{message}");
            }
        }
    }

    #[test]
    fn hosts_are_named_in_pairs_or_alone_where_they_are_known() {
        check("a ssh://h1 b u@h2:2222", Ok("a ssh://h1, b ssh://u@h2:2222"));
        check("a=h1 k", Ok("a ssh://h1, k ssh://u@known"));
        check("k ssh://other", Ok("k ssh://other"));
        check("a", Err("`a` is not a valid host to add"));
        check("a ssh://h1 a ssh://h2", Err("`a` is named twice"));
        check("a ssh://h1 b ssh://h1", Err("`a` and `b` are both ssh://h1"));
        check("local ssh://h1", Err("local"));
        check("a tcp://h1", Err("`tcp://h1` is not a valid address of a host"));
    }

    #[test]
    fn the_address_for_other_hosts_may_have_a_port() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1 7653"),
            ("10.0.0.1:99", "10.0.0.1 99"),
            ("fd00::1", "fd00::1 7653"),
            ("[fd00::1]:99", "fd00::1 99"),
            ("web.example", "web.example 7653"),
            ("web.example:99", "web.example 99"),
        ] {
            let (address, port) = tunnel_address(text).expect(text);
            assert_eq!(format!("{address} {port}"), expected);
        }
        for wrong in ["", "a:0", "a:b", "a b"] {
            assert!(tunnel_address(wrong).is_err(), "{wrong}");
        }
    }
}

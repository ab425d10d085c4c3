//! A plan as text: what `orch plan` prints. One line a step, grouped by host, with its reason, and a summary.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ids::HostName;

use super::{Plan, PlannedStep, Reason, Step};

/// Returns the plan for the reader, ending with a line feed.
///
/// Hosts are in order of their names, steps of a host in the order in which they can be run. Notes and failures follow.
pub fn render(plan: &Plan) -> String {
    let mut text = String::new();
    let mut hosts: BTreeMap<&HostName, Vec<&PlannedStep>> = BTreeMap::new();
    for step in &plan.steps {
        hosts.entry(&step.host).or_default().push(step);
    }
    for (host, steps) in hosts {
        push(&mut text, &format!("on {host}:"));
        for step in steps {
            push(&mut text, &format!("  {}", line(step)));
        }
    }
    for note in &plan.notes {
        push(&mut text, &format!("note: {note}"));
    }
    for failure in &plan.failures {
        push(&mut text, &format!("failure: {failure}"));
    }
    push(&mut text, &summary(plan));
    text
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// Returns one step and its reason: `create container shop-web-1 (missing)`.
pub fn line(step: &PlannedStep) -> String {
    let reason = reason(&step.reason);
    let mut text = format!("{} {}", sign(&step.step), action(&step.step));
    if !reason.is_empty() {
        // Writing to a String cannot fail.
        write!(text, " ({reason})").ok();
    }
    text
}

/// `+` makes, `-` takes away, `~` changes what is there.
fn sign(step: &Step) -> char {
    match step {
        Step::CreateNetwork { .. } | Step::CreateVolume { .. } | Step::CreateContainer { .. } => '+',
        Step::RemoveNetwork { .. } | Step::RemoveVolume { .. } | Step::RemoveContainer { .. } => '-',
        Step::StartContainer { .. } | Step::Drain { .. } | Step::StopContainer { .. } | Step::Unpause { .. } => '~',
    }
}

/// Returns what a step does: `create network front`.
pub fn action(step: &Step) -> String {
    match step {
        Step::CreateNetwork { network } => format!("create network {network}"),
        Step::RemoveNetwork { name } => format!("remove network {name}"),
        Step::CreateVolume { volume } => format!("create volume {volume}"),
        Step::RemoveVolume { name } => format!("remove volume {name} with its data"),
        Step::CreateContainer { name, .. } => format!("create container {name}"),
        Step::StartContainer { name, .. } => format!("start container {name}"),
        Step::Drain { pod, .. } => format!("drain {pod}"),
        Step::StopContainer { name, .. } => format!("stop container {name}"),
        Step::RemoveContainer { name, volumes: false, .. } => format!("remove container {name}"),
        Step::RemoveContainer { name, volumes: true, .. } => {
            format!("remove container {name} and its anonymous volumes")
        }
        Step::Unpause { name, .. } => format!("unpause container {name}"),
    }
}

/// Returns a reason for the reader; empty where the steps around it say enough.
pub fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Missing => "missing".to_owned(),
        Reason::NotRunning { state } => state.clone(),
        Reason::SpecChanged { what } if what.is_empty() => "configuration changed".to_owned(),
        Reason::SpecChanged { what } => format!("configuration changed: {}", what.join(", ")),
        Reason::ImageChanged => "image changed".to_owned(),
        Reason::Asked => "asked for".to_owned(),
        Reason::Unhealthy => "unhealthy".to_owned(),
        Reason::ScaledDown { to } => format!("scaled down to {to}"),
        Reason::Moved { to } => format!("moved to {to}"),
        Reason::OneoffOver => "a one-off that has ended".to_owned(),
        Reason::Orphan => "its service is not in the file any more".to_owned(),
        Reason::DependencyReplaced { service } => format!("goes with `{service}`"),
        Reason::NetworkChanged { network } => format!("network {network} changed"),
        Reason::HalfMade => "left over from an earlier run".to_owned(),
        Reason::Down => "going down".to_owned(),
        Reason::Part => String::new(),
        Reason::Paused => "paused by hand".to_owned(),
        Reason::MainEnded => "the main container has ended".to_owned(),
        Reason::NoPart { of } => format!("not part of `{of}` any more"),
    }
}

/// Returns the last line: how many containers are made, replaced, started and removed, and the like for the rest.
pub fn summary(plan: &Plan) -> String {
    if plan.steps.is_empty() {
        return "nothing to do".to_owned();
    }
    let count = |wanted: fn(&Step) -> bool| plan.steps.iter().filter(|step| wanted(&step.step)).count();
    let created = count(|step| matches!(step, Step::CreateContainer { replaces: None, .. }));
    let replaced = count(|step| matches!(step, Step::CreateContainer { replaces: Some(_), .. }));
    let started = count(|step| matches!(step, Step::StartContainer { .. }));
    let removed = count(|step| matches!(step, Step::RemoveContainer { .. }));
    let stopped = count(|step| matches!(step, Step::StopContainer { .. }));
    let resources = count(|step| {
        matches!(
            step,
            Step::CreateNetwork { .. }
                | Step::RemoveNetwork { .. }
                | Step::CreateVolume { .. }
                | Step::RemoveVolume { .. }
        )
    });
    let made = created + replaced;
    let parts = [
        (created, "to create"),
        (replaced, "to replace"),
        (started.saturating_sub(made), "to start"),
        (stopped.saturating_sub(removed), "to stop"),
        (removed.saturating_sub(replaced), "to remove"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let containers = parts.collect::<Vec<_>>().join(", ");
    let steps = if plan.steps.len() == 1 { "1 step".to_owned() } else { format!("{} steps", plan.steps.len()) };
    match (containers.is_empty(), resources) {
        (true, 0) => steps,
        (true, _) => format!("{steps}: networks and volumes {resources}"),
        (false, 0) => format!("{steps}: containers {containers}"),
        (false, _) => format!("{steps}: containers {containers}; networks and volumes {resources}"),
    }
}

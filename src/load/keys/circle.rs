//! Ambassadors of one project that lead to one another in a circle, in which nobody answers.
//!
//! A connection to a service comes to its pods at any port, so an ambassador that listens at all addresses of its pod takes those
//! to its port. One that listens at 127.0.0.1, as those do of which nothing is said, is reached by its own pod only and is in no
//! circle. What takes a connection is the first target whose pod is there, and an ambassador takes it at once: the targets behind
//! it are for when no pod is ready.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::{Diagnostic, Span};
use crate::load::report::Report;
use crate::model::{Ambassador, AmbassadorTarget, ServiceKeys};

use super::Project;

const SPEC: &str = "docs/patterns.md#x-ambassadors";

/// An ambassador of a service.
#[derive(Clone, Copy)]
struct Stand<'a> {
    service: &'a str,
    ambassador: &'a Ambassador,
}

impl std::fmt::Display for Stand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` of `{}`", self.ambassador.name, self.service)
    }
}

/// Reports circles: as errors where no connection can get out, as warnings where one gets out only while pods are away.
pub(super) fn check(project: &Project<'_>, services: &BTreeMap<String, ServiceKeys>, report: &mut Report) {
    let stands = services.iter().flat_map(|(service, keys)| {
        keys.ambassadors.iter().map(move |ambassador| Stand { service: service.as_str(), ambassador })
    });
    let stands: Vec<Stand<'_>> = stands.collect();
    let next = next(&stands);
    let lost = lost(&next);
    for circle in circles(&next) {
        let is_lost = circle.iter().all(|at| lost.contains(at));
        // A greeting of TLS that comes back is no answer, so that the next target is tried.
        if is_lost || circle.iter().all(|at| stands[*at].ambassador.tls.is_none()) {
            let circle: Vec<Stand<'_>> = circle.into_iter().map(|at| stands[at]).collect();
            report.push(told(project, &circle, is_lost));
        }
    }
}

/// Returns for each target of each ambassador which ambassador takes what comes there; `None`: somebody else does.
fn next(stands: &[Stand<'_>]) -> Vec<Vec<Option<usize>>> {
    let open = stands.iter().enumerate().filter(|(_, stand)| stand.ambassador.address.is_unspecified());
    let open: BTreeMap<(&str, u16), usize> =
        open.map(|(at, stand)| ((stand.service, stand.ambassador.port), at)).collect();
    let taken_by = |target: &AmbassadorTarget| match target {
        AmbassadorTarget::Service { service, port } => open.get(&(service.as_str(), *port)).copied(),
        AmbassadorTarget::Exported { .. } | AmbassadorTarget::Outside { .. } => None,
    };
    stands.iter().map(|stand| stand.ambassador.targets.iter().map(taken_by).collect()).collect()
}

/// Returns those from which every way leads only to others of them.
fn lost(next: &[Vec<Option<usize>>]) -> BTreeSet<usize> {
    let mut lost: BTreeSet<usize> = (0..next.len()).collect();
    loop {
        let is_lost = |at: &usize| next[*at].iter().all(|to| to.is_some_and(|to| lost.contains(&to)));
        let still: BTreeSet<usize> = lost.iter().copied().filter(is_lost).collect();
        if still.len() == lost.len() {
            return lost;
        }
        lost = still;
    }
}

/// Returns the circles that first targets make, each once.
fn circles(next: &[Vec<Option<usize>>]) -> Vec<Vec<usize>> {
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for start in 0..next.len() {
        let mut way = Vec::new();
        let mut at = Some(start);
        while let Some(here) = at.filter(|here| seen.insert(*here)) {
            way.push(here);
            at = next[here].first().copied().flatten();
        }
        let closes = at.and_then(|at| way.iter().position(|other| *other == at));
        circles.extend(closes.map(|begin| way.split_off(begin)));
    }
    circles
}

fn told(project: &Project<'_>, circle: &[Stand<'_>], is_lost: bool) -> Diagnostic {
    let after = |index: usize| circle[(index + 1) % circle.len()];
    let names: Vec<String> = circle.iter().chain(circle.first()).map(ToString::to_string).collect();
    let names = names.join(" -> ");
    let (mut problem, help) = if is_lost {
        let help =
            "nobody answers there: let one of them lead to who does, or listen at 127.0.0.1 only (`listen: PORT`)";
        (Diagnostic::error(format!("ambassadors lead in a circle: {names}")), help)
    } else {
        let message = format!("ambassadors lead in a circle by their first targets: {names}");
        let help = "the first target takes all connections while a pod of it is ready: name first who answers";
        (Diagnostic::warning(message), help)
    };
    for (index, stand) in circle.iter().enumerate() {
        let Some(span) = place(project, *stand) else { continue };
        let text = format!("leads to {}", after(index));
        problem = if index == 0 { problem.at(span, text) } else { problem.also(span, text) };
    }
    problem.help(help).spec(SPEC)
}

/// Returns where the first target is said.
fn place(project: &Project<'_>, stand: Stand<'_>) -> Option<Span> {
    let entry = project.service(stand.service)?.node.get("x-ambassadors")?.get(&stand.ambassador.name)?;
    entry.items("to").first().map(|target| target.span)
}

//! Two people with one project: what others changed meanwhile is shown and asked before it is overwritten.
//!
//! Who changed what is kept by the seat, with the project: nothing is remembered on this side. Whoever asked for the last
//! change, or for the same as is there, is asked nothing.

use std::ffi::OsString;
use std::fmt::Write as _;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::api::client::{Client, ClientError};
use crate::api::types::ErrorKind;
use crate::ids::ProjectName;
use crate::plan::{Caller, Change};

use super::context::{if_there, now};
use super::error::CliError;
use super::ui::Ui;
use super::words;

/// Variable that says who runs commands, where user and machine do not: pipelines that run on a new machine each time.
const WHO: &str = "ORCH_USER";

/// What is about to be done with what others changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// `up`.
    Overwrite,
    /// `down`.
    TakeDown,
}

impl Deed {
    fn question(self) -> &'static str {
        match self {
            Self::Overwrite => "Overwrite? [y/N] ",
            Self::TakeDown => "Take it down? [y/N] ",
        }
    }
}

/// Returns who runs this command. On the local engine that is the user: whoever uses it is on this machine. With `yes`
/// nothing is to be asked.
pub(crate) fn caller(local: bool, yes: bool) -> Caller {
    let machine = (!local).then(|| std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default());
    let name = name(&|variable| std::env::var_os(variable), rustix::process::getuid().as_raw(), machine.as_deref());
    if yes { Caller::regardless(name) } else { Caller { name, seen: 0 } }
}

/// `user@machine`, of the user who called `sudo` where that is how root came to be.
fn name(variable: &dyn Fn(&str) -> Option<OsString>, uid: u32, machine: Option<&str>) -> String {
    let set = |name| variable(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
    if let Some(who) = set(WHO) {
        return who;
    }
    let by_number = || if uid == 0 { "root".to_owned() } else { format!("user {uid}") };
    let user = set("SUDO_USER").or_else(|| set("USER")).or_else(|| set("LOGNAME")).unwrap_or_else(by_number);
    match machine.map(str::trim).filter(|machine| !machine.is_empty()) {
        Some(machine) => format!("{user}@{machine}"),
        None => user,
    }
}

/// Does what `call` does. Where others changed the project and the caller has not seen that, shows it, asks, and does it
/// again; what was shown counts as seen from then on.
///
/// # Errors
/// [`CliError::ChangedByOthers`] where nobody can be asked, [`CliError::Cancelled`] where the answer is no: nothing was
/// changed then.
pub(crate) async fn ask<T>(
    ui: &mut Ui,
    client: &Client,
    project: &ProjectName,
    deed: Deed,
    caller: &mut Caller,
    call: impl AsyncFn(&Caller) -> Result<T, CliError>,
) -> Result<T, CliError> {
    loop {
        let refused = match call(caller).await {
            Err(CliError::Agent(ClientError::Api(error))) if error.kind == ErrorKind::Unseen => error,
            other => return other,
        };
        // Gone meanwhile: nothing is overwritten any more.
        let Some(status) = if_there(client.project(project).await)? else { continue };
        let unseen = status.history.unseen(caller);
        let Some(last) = unseen.last() else { return Err(ClientError::Api(refused).into()) };
        let changes = tell(project, &unseen, now());
        if !ui.can_ask() {
            return Err(CliError::ChangedByOthers { changes });
        }
        ui.warn(&changes);
        ui.draw(deed.question());
        if !is_yes(&answer().await?) {
            ui.say("nothing was changed");
            return Err(CliError::Cancelled);
        }
        caller.seen = last.number;
    }
}

/// Says what others changed, where a command only looks.
pub(crate) async fn note(ui: &mut Ui, client: &Client, project: &ProjectName, caller: &Caller) {
    // What it is about was shown already.
    let Ok(status) = client.project(project).await else { return };
    let unseen = status.history.unseen(caller);
    if !unseen.is_empty() {
        ui.say(&tell(project, &unseen, now()));
    }
}

fn tell(project: &ProjectName, changes: &[&Change], now: Timestamp) -> String {
    let mut text = format!("`{project}` was changed by others since you last brought it up:");
    for change in changes {
        let ago = words::ago(&change.at.to_string(), now).to_lowercase();
        // A string takes all.
        write!(text, "\n  {}, {ago}: {}", change.by, change.what.join(", ")).ok();
    }
    text
}

/// Asks whether the user is sure, in Docker Compose's words. Where nobody can answer, he is not.
///
/// # Errors
/// When the terminal cannot be read.
pub(crate) async fn is_sure(ui: &mut Ui) -> Result<bool, CliError> {
    ui.draw("Are you sure? [yN] ");
    Ok(is_yes(&answer().await?))
}

async fn answer() -> Result<String, CliError> {
    let mut line = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut line).await.map_err(CliError::Terminal)?;
    Ok(line)
}

/// As Docker Compose reads answers.
fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::History;

    #[test]
    fn a_caller_is_a_user_and_where_there_are_several_machines_his() {
        let check = |variables: &[(&str, &str)], uid: u32, machine: Option<&str>, expected: &str| {
            let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            assert_eq!(name(&lookup, uid, machine), expected);
        };
        check(&[("USER", "ann")], 1000, Some("desk\n"), "ann@desk");
        check(&[("USER", "ann")], 1000, None, "ann");
        check(&[("USER", "root"), ("SUDO_USER", "ann")], 0, None, "ann");
        check(&[("LOGNAME", "ann")], 1000, Some(""), "ann");
        check(&[], 0, Some("desk"), "root@desk");
        check(&[("USER", "")], 1000, Some("desk"), "user 1000@desk");
        check(&[("USER", "ann"), ("ORCH_USER", "pipeline")], 1000, Some("desk"), "pipeline");
    }

    #[test]
    fn changes_of_others_are_told_with_who_and_when() {
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let history = History::default()
            .with("bob@b", time("2026-11-21T15:00:00Z"), vec!["web changed (image)".to_owned()])
            .with("eve@c", time("2026-11-21T15:58:00Z"), vec!["db added".to_owned(), "cache removed".to_owned()]);
        let changes: Vec<&Change> = history.changes().iter().collect();
        let project = ProjectName::new("shop").expect("valid");
        insta::assert_snapshot!(tell(&project, &changes, time("2026-11-21T16:00:00Z")), @r"
        `shop` was changed by others since you last brought it up:
          bob@b, about an hour ago: web changed (image)
          eve@c, 2 minutes ago: db added, cache removed
        ");
    }

    #[test]
    fn anything_but_yes_is_no() {
        assert!(is_yes("y\n") && is_yes("YES"));
        assert!(!is_yes("\n") && !is_yes("") && !is_yes("no") && !is_yes("yep"));
    }
}

//! `up` in the foreground: output until the containers end, one ends that counts, or the user presses Ctrl-C.

use futures_util::StreamExt as _;
use jiff::Timestamp;

use crate::api::client::{Client, ProgressStream};
use crate::api::types::StopRequest;
use crate::engine::LogQuery;
use crate::graph::Restart;
use crate::ids::{PodId, ServiceName};
use crate::observed::{ContainerState, ObservedContainer};

use super::attach::{Attachment, Happening};
use super::context::if_there;
use super::error::CliError;
use super::exit::Exit;
use super::progress::{self, Step};
use super::project::Project;
use super::signals::Interrupts;
use super::source;
use super::tail::Choice;
use super::ui::Ui;

/// What ends an `up` in the foreground, beside the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Until {
    /// No container runs, and the agent starts none again.
    AllEnd,
    /// Nothing: the next change may start what has ended.
    Nothing,
    /// One ended.
    OneEnds,
    /// One ended with another code than 0.
    OneFails,
    /// One of this service ended.
    ServiceEnds(ServiceName),
}

impl Until {
    /// Returns whether the end of a container ends it all.
    fn is_met(&self, pod: &PodId, code: i64) -> bool {
        match self {
            Self::AllEnd | Self::Nothing => false,
            Self::OneEnds => true,
            Self::OneFails => code != 0,
            Self::ServiceEnds(service) => pod.service == *service,
        }
    }
}

/// An `up` in the foreground.
pub(crate) struct Foreground<'a> {
    pub client: &'a Client,
    pub project: &'a Project,
    pub attachment: Attachment,
    pub choice: Choice,
    pub interrupts: &'a mut Interrupts,
    /// Seconds between stop signal and kill.
    pub timeout: Option<u64>,
}

impl Foreground<'_> {
    /// Shows what containers write since `begun`, until `until`, the end of all, or Ctrl-C, which stops them.
    pub(crate) async fn run(&mut self, ui: &mut Ui, begun: Timestamp, until: &Until) -> Result<Exit, CliError> {
        self.attach(ui, begun).await?;
        loop {
            let happening = tokio::select! {
                happening = self.attachment.next(ui) => happening?,
                () = self.interrupts.next() => return self.cancel(ui).await,
            };
            match happening {
                Happening::Exited { pod, code } if !self.is_step(&pod) && until.is_met(&pod, code) => {
                    ui.say("Aborting on container exit...");
                    self.stop(ui).await?;
                    return Ok(Exit::of_container(code));
                }
                Happening::Exited { .. } | Happening::Quiet if *until != Until::Nothing && self.is_over().await? => {
                    return Ok(Exit::Success);
                }
                Happening::Exited { .. } | Happening::Quiet => {}
            }
        }
    }

    async fn attach(&mut self, ui: &mut Ui, begun: Timestamp) -> Result<(), CliError> {
        let query = LogQuery { since: Some(begun.as_second()), ..LogQuery::default() };
        let (containers, errors) = source::containers(self.attachment.sources(), &self.choice).await?;
        ui.warn_all(&errors);
        let add = |(at, container): &(usize, _)| self.attachment.add(*at, container, &query);
        let names: Vec<_> = containers.iter().filter_map(add).collect();
        ui.say(&format!("Attaching to {}", names.join(", ")));
        Ok(())
    }

    /// Returns whether nothing of the project runs and the agent will start nothing again.
    async fn is_over(&self) -> Result<bool, CliError> {
        let found = source::observe(self.attachment.sources(), &self.choice.project).await;
        if found.errors.iter().any(|error| matches!(error, CliError::OnHost { .. })) {
            return Ok(false); // What runs there is not known: the agents go on.
        }
        let (hosts, _) = found.some()?;
        let pods = hosts.iter().flat_map(|(_, host)| host.containers.values()).filter(|one| one.pod().is_some());
        let going_on: Vec<&ObservedContainer> = pods.filter(|container| self.goes_on(container)).collect();
        if going_on.iter().any(|container| !matches!(container.state, ContainerState::Exited { .. })) {
            return Ok(false);
        }
        if going_on.is_empty() {
            return Ok(true);
        }
        // They would be started again, but for those that somebody stopped from elsewhere.
        let status = if_there(self.client.project(self.project.name()).await)?;
        let pods = status.map(|status| status.pods).unwrap_or_default();
        let rests = |pod: PodId| pods.iter().any(|one| one.resting && one.pod == pod);
        Ok(going_on.iter().filter_map(|container| container.pod()).all(rests))
    }

    /// Returns whether a container runs, or the agent starts it again.
    fn goes_on(&self, container: &ObservedContainer) -> bool {
        let service = container.service.as_ref();
        let restart = service.and_then(|name| self.project.graph.services.get(name)).map(|service| service.restart);
        let awaited = service.is_some_and(|name| self.project.graph.is_awaited_job(name));
        !is_finished(container.state, restart.unwrap_or(Restart::No), awaited)
    }

    /// Returns whether a pod is there to end before its service starts.
    fn is_step(&self, pod: &PodId) -> bool {
        self.project.graph.services.get(&pod.service).is_some_and(|service| service.prepares_service().is_some())
    }

    /// Answers Ctrl-C: stops the containers; the result is always an error, [`CliError::Cancelled`] if all went well.
    pub(crate) async fn cancel(&mut self, ui: &mut Ui) -> Result<Exit, CliError> {
        ui.footer().hide();
        ui.say("Gracefully Stopping... press Ctrl+C again to force");
        self.stop(ui).await.and(Err(CliError::Cancelled))
    }

    /// Stops the project's containers and shows it, beside what they still write. Ctrl-C on top kills them.
    async fn stop(&mut self, ui: &mut Ui) -> Result<(), CliError> {
        let mut stream = self.ask_to_stop(self.timeout).await?;
        let mut listening = true;
        loop {
            tokio::select! {
                progress = stream.next() => match progress::step(progress)? {
                    Step::Event(event) => progress::show(ui, &event),
                    Step::Say(text) => ui.say(&text),
                    Step::Warn(text) => ui.warn(&text),
                    Step::Done(_) => return Ok(()),
                    Step::Nothing => {}
                },
                // Output that cannot be shown any more must not keep the containers running.
                happening = self.attachment.next(ui), if listening => listening = happening.is_ok(),
                () = self.interrupts.next() => stream = self.ask_to_stop(Some(0)).await?,
            }
        }
    }

    async fn ask_to_stop(&self, timeout_secs: Option<u64>) -> Result<ProgressStream, CliError> {
        let request = StopRequest { timeout_secs };
        Ok(self.client.stop(self.project.name(), &request).await?)
    }
}

/// Returns whether a container has ended and the agent leaves it so: see [`Restart`].
fn is_finished(state: ContainerState, restart: Restart, awaited: bool) -> bool {
    let ContainerState::Exited { code, .. } = state else {
        return matches!(state, ContainerState::Dead | ContainerState::Removing);
    };
    match restart {
        Restart::No => true,
        Restart::Always | Restart::UnlessStopped => false,
        Restart::OnFailure { .. } => code == 0,
        Restart::Unset => code == 0 || awaited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> ContainerState {
        ContainerState::Exited { code, by_itself: true }
    }

    #[test]
    fn what_the_agent_starts_again_is_not_finished() {
        let on_failure = Restart::OnFailure { max_attempts: None };
        for (state, restart, awaited, finished) in [
            (ended(0), Restart::Unset, false, true),
            (ended(1), Restart::Unset, false, false),
            (ended(1), Restart::Unset, true, true),
            (ended(1), Restart::No, false, true),
            (ended(0), Restart::Always, false, false),
            (ended(0), Restart::UnlessStopped, false, false),
            (ended(0), on_failure, false, true),
            (ended(1), on_failure, false, false),
            (ContainerState::Created, Restart::No, false, false),
            (ContainerState::Running { health: crate::observed::Health::None }, Restart::No, false, false),
            (ContainerState::Removing, Restart::Always, false, true),
        ] {
            assert_eq!(is_finished(state, restart, awaited), finished, "{state:?} {restart:?} {awaited}");
        }
    }

    #[test]
    fn one_container_may_end_it_all() {
        let pod = |service: &str| PodId::new(ServiceName::new(service).expect("valid"), 1);
        let service = Until::ServiceEnds(ServiceName::new("test").expect("valid"));
        for (until, name, code, met) in [
            (&Until::AllEnd, "web", 1, false),
            (&Until::Nothing, "web", 1, false),
            (&Until::OneEnds, "web", 0, true),
            (&Until::OneFails, "web", 0, false),
            (&Until::OneFails, "web", 2, true),
            (&service, "web", 1, false),
            (&service, "test", 0, true),
        ] {
            assert_eq!(until.is_met(&pod(name), code), met, "{until:?} {name} {code}");
        }
    }
}

//! `orch events`: what happens to the project's containers on all hosts, in the order of its times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::cli::args::{EventsArgs, TextFormat};
use crate::cli::attach::happened_to;
use crate::cli::context::{Context, now};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::order::Waiting;
use crate::cli::signals::Interrupts;
use crate::cli::source::{self, Source};
use crate::cli::tail::Choice;
use crate::cli::time::time;
use crate::cli::ui::Ui;
use crate::cli::watch::{Heard, Watch};
use crate::engine::{EngineEvent, EventQuery};
use crate::ids::{ProjectName, ServiceName};

/// Longest that a host which is away is waited for when `--until` has passed.
const GRACE: Duration = Duration::from_secs(5);

/// Shows events until `--until`, or until the user has had enough.
///
/// # Errors
/// When there is no project, an unknown service is named, a time makes no sense, or no host answers.
pub(crate) async fn run(context: &mut Context<'_>, args: &EventsArgs) -> Result<Exit, CliError> {
    let project = context.project_name()?;
    let (since, until) = (time(args.since.as_deref())?, time(args.until.as_deref())?);
    if let (Some(since), Some(until), Some(value)) = (since, until, &args.until)
        && since > until
    {
        let expected = "a time after that of `--since`";
        return Err(CliError::Value { what: "end", value: value.clone(), expected });
    }
    let mut interrupts = Interrupts::listen()?;
    let sources = context.sources().await?;
    // Those that are gone are known to the file only.
    if context.knows_services() {
        let choice = Choice { project: project.clone(), services: Vec::new(), but: Vec::new(), index: None };
        let (containers, _) = source::containers(&sources, &choice).await?;
        let seen = |name: &ServiceName| containers.iter().any(|(_, one)| one.service.as_ref() == Some(name));
        context.check_services(&args.services, seen)?;
    }
    let is_json = args.json || args.format == TextFormat::Json;
    let show = Show { project, services: args.services.clone(), is_json, zone: TimeZone::system() };
    let times = Times { since, until, now: now() };
    interrupts.unless(follow(context.ui, &sources, &show, &times)).await.map(|()| Exit::Success)
}

/// What is shown, and how.
struct Show {
    project: ProjectName,
    /// Empty: all.
    services: Vec<ServiceName>,
    is_json: bool,
    /// The user's.
    zone: TimeZone,
}

/// Between which times.
struct Times {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    now: Timestamp,
}

async fn follow(ui: &mut Ui, sources: &[Source], show: &Show, times: &Times) -> Result<(), CliError> {
    let nanos = |time: Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    let (since, until) = (times.since.map(nanos), times.until.map(nanos));
    let query = EventQuery { since, until, project: Some(show.project.clone()) };
    let deadline = times.until.map(|until| {
        let ahead = Duration::try_from(until.duration_since(times.now)).unwrap_or_default();
        Instant::now() + ahead + GRACE
    });
    let mut watch = Watch::open(sources, &query);
    let mut following = Following::new(sources, show);
    while !following.open.is_empty() {
        let late = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = late, if !following.away.is_empty() => following.give_up(ui),
            heard = watch.next() => match heard {
                Some((at, heard)) => following.heard(ui, at, heard)?,
                None => break,
            },
            () = following.waiting.due(), if following.behind.is_empty() => following.show(ui)?,
        }
    }
    following.show(ui)
}

/// How far the engines are, by their places in the list.
struct Following<'s> {
    sources: &'s [Source],
    show: &'s Show,
    /// What waits for earlier events of other hosts.
    waiting: Waiting<i64, (usize, ServiceName, EngineEvent)>,
    /// Those that have more to say.
    open: BTreeSet<usize>,
    /// Those that have not said yet what happened before: nothing is shown before they have.
    behind: BTreeSet<usize>,
    /// Those that do not answer.
    away: BTreeSet<usize>,
}

impl<'s> Following<'s> {
    fn new(sources: &'s [Source], show: &'s Show) -> Self {
        let all: BTreeSet<usize> = (0..sources.len()).collect();
        Self { sources, show, waiting: Waiting::new(), open: all.clone(), behind: all, away: BTreeSet::new() }
    }

    fn heard(&mut self, ui: &mut Ui, at: usize, heard: Heard) -> Result<(), CliError> {
        match heard {
            Heard::Event(event) => {
                let chosen =
                    |service: &ServiceName| self.show.services.is_empty() || self.show.services.contains(service);
                if let Some(service) = happened_to(&event, &self.show.project).filter(chosen) {
                    self.waiting.push(event.time_nanos, (at, service, event));
                }
            }
            Heard::Current => drop(self.behind.remove(&at)),
            Heard::Interrupted(error) => {
                self.behind.remove(&at);
                self.away.insert(at);
                let why = error.map(|error| format!(": {error}")).unwrap_or_default();
                let name = self.name(at);
                ui.warn(&format!("the events of {name} are interrupted, and are shown once it answers again{why}"));
            }
            Heard::Back => {
                self.away.remove(&at);
                ui.say(&format!("{} answers again", self.name(at)));
            }
            Heard::Done => {
                self.open.remove(&at);
                self.behind.remove(&at);
            }
        }
        let alone = self.sources.len() == 1;
        let is_time = alone || self.waiting.is_due();
        if self.waiting.is_full() || (self.behind.is_empty() && is_time) {
            return self.show(ui);
        }
        Ok(())
    }

    /// Waits no longer for those that are away.
    fn give_up(&mut self, ui: &mut Ui) {
        for at in std::mem::take(&mut self.away) {
            ui.warn(&format!("not all events of {} are shown: it does not answer", self.name(at)));
            self.open.remove(&at);
        }
    }

    fn show(&mut self, ui: &mut Ui) -> Result<(), CliError> {
        for (at, service, event) in self.waiting.take() {
            self.show.event(ui, &self.sources[at], &service, &event)?;
        }
        Ok(())
    }

    fn name(&self, at: usize) -> String {
        let source = &self.sources[at];
        if source.is_remote() { format!("host `{}`", source.name) } else { "the engine".to_owned() }
    }
}

/// An event as JSON. Keys are Docker Compose's; `host` is orch's.
#[derive(Serialize)]
struct Object<'e> {
    action: &'e str,
    attributes: BTreeMap<&'e str, &'e str>,
    host: &'e str,
    id: &'e str,
    service: &'e str,
    time: String,
    #[serde(rename = "type")]
    kind: &'e str,
}

impl Show {
    fn event(&self, ui: &mut Ui, source: &Source, service: &ServiceName, event: &EngineEvent) -> Result<(), CliError> {
        let EngineEvent { kind, action, id, attributes, time_nanos } = event;
        let time = Timestamp::from_nanosecond(i128::from(*time_nanos)).unwrap_or_default();
        let time = time.to_zoned(self.zone.clone());
        let attributes = attributes.iter().filter(|(key, _)| !is_own(key));
        if self.is_json {
            return ui.json(&Object {
                action,
                attributes: attributes.map(|(key, value)| (key.as_str(), value.as_str())).collect(),
                host: source.name.as_str(),
                id,
                service: service.as_str(),
                time: rfc3339(&time),
                kind,
            });
        }
        let attributes: Vec<_> = attributes.map(|(key, value)| format!("{key}={value}")).collect();
        // `%6f` as Docker Compose has it, whatever the engine's precision.
        let time = time.strftime("%Y-%m-%d %H:%M:%S.%6f");
        let host = &source.name;
        ui.line(&format!("{time} {kind} {action} {id} (host={host}, {})", attributes.join(", ")))
    }
}

/// Labels that say how the container was made; nobody looks for them here. Docker Compose leaves its own out, too.
fn is_own(key: &str) -> bool {
    key.starts_with("com.docker.compose.") || key.starts_with("orch.")
}

/// With as many digits of the fraction as there are, and `Z` for no offset, as Docker Compose has it.
fn rfc3339(time: &Zoned) -> String {
    let zone = if time.offset().is_zero() { "Z".to_owned() } else { time.strftime("%:z").to_string() };
    time.strftime("%Y-%m-%dT%H:%M:%S%.f").to_string() + &zone
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cli::ui::Style;
    use crate::cli::ui::testing::ui;
    use crate::engine::fake::{FakeEngine, Fault};
    use crate::engine::{ContainerSpec, Engine as _, label};
    use crate::ids::HostName;

    async fn make(engine: &FakeEngine, service: &str, more: &[(&str, &str)]) {
        engine.add_image("app:1");
        let mut spec = ContainerSpec::new(format!("shop-{service}-1"), "app:1");
        let labels = [(label::PROJECT, "shop"), (label::SERVICE, service), (label::NUMBER, "1"), ("colour", "red")];
        let labels = labels.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        spec.labels.extend(labels);
        engine.create_container(&spec).await.expect("made");
        engine.start_container(&spec.name).await.expect("started");
    }

    fn source(name: &str, engine: &FakeEngine) -> Source {
        let mut source = Source::local(Arc::new(engine.clone()));
        source.name = HostName::new(name).expect("a name");
        source
    }

    fn show(is_json: bool, services: &[&str]) -> Show {
        let services = services.iter().map(|name| ServiceName::new(*name).expect("a name")).collect();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        Show { project: ProjectName::new("shop").expect("a name"), services, is_json, zone }
    }

    /// Lets an engine's clock, which moves with what happens, reach `time`.
    async fn pass(engine: &FakeEngine, time: i64) {
        let mut tick = engine.now_nanos().await.expect("its time");
        engine.create_container(&ContainerSpec::new(format!("clock-{tick}"), "app:1")).await.expect("made");
        while engine.now_nanos().await.expect("its time") < time {
            let renamed = engine.rename_container(&format!("clock-{tick}"), &format!("clock-{}", tick + 1)).await;
            renamed.expect("renamed");
            tick += 1;
        }
    }

    /// What is told from the beginning until now.
    async fn told(engines: [&FakeEngine; 2], sources: &[Source], show: &Show) -> (String, String) {
        let mut latest = 0;
        for engine in engines {
            latest = latest.max(engine.now_nanos().await.expect("its time"));
        }
        for engine in engines {
            pass(engine, latest).await;
        }
        let until = Timestamp::from_nanosecond(i128::from(latest)).ok();
        let times = Times { since: Some(Timestamp::UNIX_EPOCH), until, now: until.expect("a time") };
        let (mut ui, out, err) = ui(Style::Plain);
        follow(&mut ui, sources, show, &times).await.expect("told");
        (out.take(), err.take())
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_several_hosts_come_in_the_order_of_their_times_in_docker_composes_form() {
        let (a, b) = (FakeEngine::new(), FakeEngine::new());
        make(&a, "web", &[(label::SPEC_HASH, "not shown")]).await;
        make(&a, "once", &[(label::ONEOFF, "True")]).await;
        make(&b, "db", &[]).await;
        b.crash("shop-db-1", 3);
        make(&b, "late", &[]).await;
        let id = b.inspect_container("shop-db-1").await.expect("there").id;
        let sources = [source("a", &a), source("b", &b)];
        let (text, _) = told([&a, &b], &sources, &show(false, &[])).await;
        let lines: Vec<(&str, &str)> = text.lines().map(|line| line.split_at(26)).collect();
        assert!(lines.is_sorted_by_key(|(time, _)| *time), "{text}");
        let of = |host: &str| -> Vec<&str> {
            let mine = lines.iter().map(|(_, what)| *what).filter(|what| what.contains(&format!("(host={host}, ")));
            mine.filter_map(|what| what.split(' ').nth(2)).collect()
        };
        assert_eq!((of("a"), of("b")), (vec!["create", "start"], vec!["create", "start", "die", "create", "start"]));
        let made = format!(" container create {id} (host=b, colour=red, image=app:1, name=shop-db-1)");
        assert!(lines.iter().any(|(_, what)| *what == made), "{text}");
        assert!(
            text.contains(" container die ") && text.contains("exitCode=3") && !text.contains("not shown"),
            "{text}"
        );

        let (json, _) = told([&a, &b], &sources, &show(true, &["db"])).await;
        assert_eq!(json.lines().count(), 3, "{json}");
        let first = json.lines().next().expect("a line");
        let begins =
            r#"{"action":"create","attributes":{"colour":"red","image":"app:1","name":"shop-db-1"},"host":"b","id":""#;
        let ends = r#"+01:00","type":"container"}"#;
        assert!(
            first.starts_with(begins) && first.ends_with(ends) && first.contains(r#","service":"db","time":"#),
            "{first}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_interrupted_is_said_and_goes_on_where_it_was() {
        let (a, b) = (FakeEngine::new(), FakeEngine::new());
        make(&a, "web", &[]).await;
        make(&b, "db", &[]).await;
        b.fail("events", Fault::Before, 1);
        let sources = [source("a", &a), source("b", &b)];
        let (text, said) = told([&a, &b], &sources, &show(false, &["db"])).await;
        assert_eq!(text.matches("host=b").count(), 2, "{text}");
        assert!(said.starts_with("warning: the events of the engine are interrupted"), "{said}");
        assert!(said.contains("the engine answers again"), "{said}");
        b.set_unreachable(true);
        let (mut ui, out, err) = ui(Style::Plain);
        let until = Timestamp::from_nanosecond(i128::from(a.now_nanos().await.expect("its time"))).ok();
        let times = Times { since: Some(Timestamp::UNIX_EPOCH), until, now: until.expect("a time") };
        follow(&mut ui, &sources, &show(false, &[]), &times).await.expect("the rest is shown");
        assert_eq!(out.take().matches("host=a").count(), 2);
        assert!(err.take().contains("not all events of the engine are shown: it does not answer"));
    }
}

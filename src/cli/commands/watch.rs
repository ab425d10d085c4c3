//! `orch watch`: what changes here gets into containers on all hosts, or has them restarted or built anew, as `develop` says.
//!
//! Lines about the work are the command's output, in Docker Compose's words where it has some. A step that fails is said, and
//! the watch goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::cli::args::{Global, ProgressKind, Selection, UpArgs, WatchArgs};
use crate::cli::builds::{self, BuiltImage};
use crate::cli::context::Context;
use crate::cli::develop::files::Remembering;
use crate::cli::develop::hosts::{Happening, Hosts, Tally, Wanted};
use crate::cli::develop::lacks::Number;
use crate::cli::develop::rules::{self, Watched};
use crate::cli::develop::site::{Batch, Site};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::fleet::Host;
use crate::cli::life::{How, Life};
use crate::cli::menu::Footer;
use crate::cli::project;
use crate::cli::signals::Interrupts;
use crate::cli::source::Source;
use crate::cli::ui::Ui;
use crate::engine::Engine;
use crate::ids::ServiceName;
use crate::load::{LoadOptions, Loaded};
use crate::plan::Ask;

use super::up;

/// Before each line about the work, where lines of containers are between.
const BESIDE: &str = " ⦿ ";

/// A restart waits for hosts that are being brought files, but no longer than this for one that does not answer.
const RESTART_WITHIN: Duration = Duration::from_secs(10);

/// Watches until somebody ends it.
///
/// # Errors
/// When the files are wrong, nothing is watched, or the project cannot be brought up.
pub(crate) async fn run(context: &mut Context<'_>, args: &WatchArgs) -> Result<Exit, CliError> {
    let mut interrupts = Interrupts::listen()?;
    let prepared = prepare(context, args)?;
    if !args.no_up {
        let developed = |(_, service): &(&ServiceName, &crate::model::Service)| service.develop.is_some();
        let services = prepared.loaded.model.services.iter();
        let rebuilt = services.filter(developed).map(|(name, _)| name.clone()).collect();
        let up = UpArgs { rebuilt, ..apply(args) };
        bring_up(context, &up).await?;
    }
    if context.global.dry_run {
        return preview(context, &prepared).map(|()| Exit::Success);
    }
    interrupts.unless(watch(context, args, prepared, "")).await
}

/// A project that is watched from now on, whatever else is done first.
pub(super) struct Prepared {
    loaded: Loaded,
    site: Site,
}

/// Looks at what is to be watched.
///
/// # Errors
/// When the files are wrong, or nothing is to be watched.
pub(super) fn prepare(context: &mut Context<'_>, args: &WatchArgs) -> Result<Prepared, CliError> {
    let (loaded, mut files) = load(context, args);
    let loaded = loaded?;
    if loaded.config_files.iter().any(|path| path == Path::new("-")) {
        return Err(CliError::Flag { flag: "-f -", command: "watch" });
    }
    let watched = rules::read(&loaded, &args.services)?;
    watched.warnings.iter().for_each(|warning| context.ui.warn(warning));
    files.extend(watched.ignore_files);
    Ok(Prepared { site: Site::begin(watched.rules, files)?, loaded })
}

/// Says what would be watched.
///
/// # Errors
/// When it cannot be written.
pub(super) fn preview(context: &mut Context<'_>, prepared: &Prepared) -> Result<(), CliError> {
    for rule in prepared.site.all.iter().map(|tracked| &tracked.rule) {
        context.ui.line(&rule.to_string())?;
    }
    Ok(())
}

/// Watches beside something else that is shown, until it is dropped. What goes wrong is said.
pub(super) async fn beside(global: Global, args: &WatchArgs, prepared: Prepared, footer: Footer) -> Infallible {
    let shown = async |context: &mut Context<'_>| watch(context, args, prepared, BESIDE).await;
    say_beside(global, &footer, shown).await
}

/// As [`beside`], from the moment at which somebody wants it.
pub(super) async fn from_now_on(global: Global, args: WatchArgs, footer: Footer) -> Infallible {
    let shown = async |context: &mut Context<'_>| {
        let prepared = prepare(context, &args)?;
        watch(context, &args, prepared, BESIDE).await
    };
    say_beside(global, &footer, shown).await
}

/// Says what something does beside what else is shown, for ever.
async fn say_beside(
    global: Global,
    footer: &Footer,
    shown: impl AsyncFnOnce(&mut Context<'_>) -> Result<Exit, CliError>,
) -> Infallible {
    let progress = match global.progress {
        // Nothing is rewritten in place between lines of containers.
        ProgressKind::Auto | ProgressKind::Tty => ProgressKind::Plain,
        other => other,
    };
    let global = Global { progress, ..global };
    let mut ui = Ui::stdio(&global);
    ui.share(footer);
    let mut context = Context::new(global, &mut ui);
    if let Err(error) = shown(&mut context).await {
        context.ui.error(&error);
    }
    std::future::pending().await
}

async fn watch(
    context: &mut Context<'_>,
    args: &WatchArgs,
    prepared: Prepared,
    prefix: &'static str,
) -> Result<Exit, CliError> {
    let (sources, missing) = sources(context).await?;
    let Prepared { loaded, site } = prepared;
    let hosts = Hosts::open(loaded.model.name.clone(), sources, missing);
    let mut watching = Watching {
        args,
        prefix,
        loaded,
        site,
        hosts,
        built: BTreeMap::new(),
        restart: BTreeSet::new(),
        begun: Instant::now(),
        tally: Tally::default(),
    };
    watching.say(context, "Watch enabled")?;
    watching.run(context).await
}

/// Loads the project. Returns also the files that it is made of, which are known even where they are wrong.
fn load(context: &Context<'_>, args: &WatchArgs) -> (Result<Loaded, CliError>, BTreeSet<PathBuf>) {
    let files = Remembering::default();
    let loaded = project::load_from(&files, &context.global, &args.services, &LoadOptions::default());
    (loaded, files.files())
}

/// Brings the project up. By its own type an `up` that watches would hold itself.
fn bring_up<'a>(
    context: &'a mut Context<'_>,
    args: &'a UpArgs,
) -> Pin<Box<dyn Future<Output = Result<Exit, CliError>> + 'a>> {
    Box::pin(up::run(context, args))
}

/// What `up` is asked for to make the project as its files say.
fn apply(args: &WatchArgs) -> UpArgs {
    let selection = Selection { services: args.services.clone(), ..Selection::default() };
    UpArgs { selection, detach: true, quiet_build: args.quiet, quiet_pull: args.quiet, ..UpArgs::default() }
}

/// Returns the engines that answer, and the hosts of those that do not.
async fn sources(context: &mut Context<'_>) -> Result<(Vec<Source>, Vec<Arc<Host>>), CliError> {
    let sources = context.sources().await?;
    let Some(fleet) = context.fleet()? else { return Ok((sources, Vec::new())) };
    let members = fleet.members(&fleet.look().await?.status);
    let answers = |host: &Arc<Host>| sources.iter().any(|source| source.name == *host.name());
    let missing = members.into_iter().filter(|host| !answers(host)).collect();
    Ok((sources, missing))
}

/// `["a" "b"]`, as Docker Compose writes lists of services.
fn list<'a>(services: impl IntoIterator<Item = &'a ServiceName>) -> String {
    let quoted: Vec<String> = services.into_iter().map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", quoted.join(" "))
}

struct Watching<'a> {
    args: &'a WatchArgs,
    /// Before each line.
    prefix: &'static str,
    loaded: Loaded,
    site: Site,
    hosts: Hosts,
    /// By service: what its image has.
    built: BTreeMap<ServiceName, Number>,
    /// Services that are to be restarted once their containers have their files.
    restart: BTreeSet<ServiceName>,
    /// When that, or what is being brought, began.
    begun: Instant,
    tally: Tally,
}

impl Watching<'_> {
    fn say(&self, context: &mut Context<'_>, text: &str) -> Result<(), CliError> {
        context.ui.line(&format!("{}{text}", self.prefix))
    }

    /// Never ends by itself.
    async fn run(&mut self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        self.hosts.wake();
        loop {
            let late = self.begun + RESTART_WITHIN;
            tokio::select! {
                batch = self.site.batch() => self.act(context, batch?).await?,
                woke = self.hosts.next() => {
                    let Site { all, number, .. } = &self.site;
                    let wanted = Wanted { all, number: *number, built: &self.built };
                    for happening in self.hosts.take(woke, wanted) {
                        self.happened(context, happening)?;
                    }
                }
                () = sleep_until(late), if !self.restart.is_empty() => {}
            }
            if self.hosts.is_settled() {
                for line in self.tally.tell(self.begun.elapsed()) {
                    self.say(context, &line)?;
                }
            }
            if !self.restart.is_empty() && (self.hosts.is_settled() || late <= Instant::now()) {
                let services = std::mem::take(&mut self.restart);
                self.restart(context, &services).await?;
            }
        }
    }

    fn happened(&mut self, context: &mut Context<'_>, happening: Happening) -> Result<(), CliError> {
        match happening {
            Happening::Output((stderr, bytes)) => return context.ui.output(stderr, &bytes),
            Happening::Trouble(text) => context.ui.warn(&text),
            Happening::Brought { service, host, paths, restart } => {
                if restart {
                    self.restart.insert(service.clone());
                }
                self.tally.add(service, host, paths);
            }
        }
        Ok(())
    }

    /// What a batch of changes leads to, in Docker Compose's order: build, sync, restart.
    async fn act(&mut self, context: &mut Context<'_>, batch: Batch) -> Result<(), CliError> {
        let Batch { consequences, files, problems } = batch;
        for problem in &problems {
            context.ui.error(problem);
        }
        self.begun = Instant::now();
        if files {
            self.reload(context).await?;
        }
        if !consequences.rebuild.is_empty() {
            self.rebuild(context, &consequences.rebuild).await?;
            self.begun = Instant::now();
        }
        for (service, changes) in &consequences.sync {
            let changes = format!("Syncing service \"{service}\" after {changes} changes were detected");
            self.say(context, &changes)?;
        }
        // What was made anew has been started again just now.
        self.restart.extend(consequences.restart.difference(&consequences.rebuild).cloned());
        self.hosts.wake();
        Ok(())
    }

    async fn restart(&mut self, context: &mut Context<'_>, services: &BTreeSet<ServiceName>) -> Result<(), CliError> {
        let names: Vec<ServiceName> = services.iter().cloned().collect();
        let ask = Ask::Restart { timeout_secs: None, no_deps: false };
        let restarted = async {
            let life = Life::new(context, ask, &names).await?;
            life.run(context, How::default()).await
        };
        match restarted.await {
            Ok(_) => self.say(context, &format!("service(s) {} restarted", list(services))),
            Err(error) => go_on(context, error),
        }
    }

    async fn rebuild(&mut self, context: &mut Context<'_>, services: &BTreeSet<ServiceName>) -> Result<(), CliError> {
        let begun = Instant::now();
        self.say(context, &format!("Rebuilding service(s) {} after changes were detected...", list(services)))?;
        let number = self.site.number;
        let mut images = builds::of(&self.loaded);
        images.retain(|image| services.contains(&image.service));
        let before = self.images(context, &images).await;
        let selection = Selection {
            services: services.iter().cloned().collect(),
            no_deps: true,
            force_recreate: true,
            ..Selection::default()
        };
        let up = UpArgs { selection, build: true, ..apply(self.args) };
        match bring_up(context, &up).await {
            Ok(_) => {
                self.built.extend(services.iter().map(|name| (name.clone(), number)));
                let took = begun.elapsed().as_secs_f64();
                self.say(context, &format!("service(s) {} successfully built, {took:.1}s", list(services)))?;
            }
            Err(error) => return go_on(context, error),
        }
        if self.args.prune {
            self.prune(context, &images, before).await;
        }
        Ok(())
    }

    /// The engines that have images: those of the hosts, and the one that builds.
    async fn engines(&self, context: &mut Context<'_>) -> Vec<Arc<dyn Engine>> {
        let mut engines: Vec<Arc<dyn Engine>> = self.hosts.sources().map(|source| Arc::clone(&source.engine)).collect();
        if self.hosts.sources().any(Source::is_remote)
            && let Ok(builder) = context.builder().await
        {
            engines.push(Arc::new(builder));
        }
        engines
    }

    /// Returns which images there are, for each engine.
    async fn images(
        &self,
        context: &mut Context<'_>,
        images: &[BuiltImage],
    ) -> Vec<(Arc<dyn Engine>, BTreeSet<String>)> {
        let mut all = Vec::new();
        for engine in self.engines(context).await {
            let ids = futures_util::future::join_all(images.iter().map(|image| engine.image_id(&image.image))).await;
            let ids = ids.into_iter().flatten().flatten().collect();
            all.push((engine, ids));
        }
        all
    }

    /// Removes images that a build has taken the name of; one that is used, or has another name, stays.
    async fn prune(
        &self,
        context: &mut Context<'_>,
        images: &[BuiltImage],
        before: Vec<(Arc<dyn Engine>, BTreeSet<String>)>,
    ) {
        let after: BTreeSet<String> = self.images(context, images).await.into_iter().flat_map(|(_, ids)| ids).collect();
        for (engine, ids) in before {
            for id in ids.difference(&after) {
                if let Ok(Some(details)) = engine.image_details(id).await
                    && details.tags.is_empty()
                    && let Err(error) = engine.remove_image(id).await
                {
                    tracing::debug!(image = id, %error, "an image that was built before stays");
                }
            }
        }
    }

    /// The project's own files have changed.
    async fn reload(&mut self, context: &mut Context<'_>) -> Result<(), CliError> {
        let (loaded, mut files) = load(context, self.args);
        let read = loaded.and_then(|loaded| Ok((rules::read(&loaded, &self.args.services)?, loaded)));
        let (Watched { rules, warnings, ignore_files }, loaded) = match read {
            Ok(read) => read,
            Err(error) => {
                context.ui.error(&error);
                self.say(context, "The changed files cannot be used: going on with what they said before")?;
                return Ok(());
            }
        };
        let same = loaded.model == self.loaded.model && loaded.contents == self.loaded.contents;
        let rebuilt = changed_builds(&self.loaded, &loaded);
        self.loaded = loaded;
        files.extend(ignore_files);
        let problems = self.site.use_rules(rules, files);
        for problem in &problems {
            context.ui.error(problem);
        }
        if same {
            return Ok(());
        }
        for warning in &warnings {
            context.ui.warn(warning);
        }
        self.say(context, "Applying the changed files...")?;
        let up = UpArgs { rebuilt, ..apply(self.args) };
        match bring_up(context, &up).await {
            Ok(_) => self.say(context, "The changed files are applied")?,
            Err(error) => go_on(context, error)?,
        }
        match sources(context).await {
            Ok((sources, missing)) => self.hosts.reopen(sources, missing),
            Err(error) => go_on(context, error)?,
        }
        Ok(())
    }
}

/// Services whose images are built in another way than before.
fn changed_builds(old: &Loaded, new: &Loaded) -> Vec<ServiceName> {
    let changed = new.model.services.iter().filter(|(name, service)| {
        service.build.is_some() && old.model.services.get(*name).is_none_or(|before| before.build != service.build)
    });
    changed.map(|(name, _)| name.clone()).collect()
}

/// Says what failed, unless the user wanted it so.
fn go_on(context: &mut Context<'_>, error: CliError) -> Result<(), CliError> {
    if matches!(error, CliError::Cancelled | CliError::Output(_)) {
        return Err(error);
    }
    context.ui.error(&error);
    Ok(())
}

//! What commands work with: output, flags, the project, the engine and the agent. Nothing is opened before it is asked
//! for, and nothing is asked of the agent that needs it not.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::client::{Client, ClientError};
use crate::api::types::{ClusterStatus, ErrorKind, HostState};
use crate::clock::{Clock as _, SystemClock};
use crate::diag::Diagnostics;
use crate::engine::Engine;
use crate::engine::docker::DockerEngine;
use crate::engine::translate::{is_demanding, misfits};
use crate::hosts::HostEntry;
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::load::{LoadOptions, Loaded, OwnKeys};
use crate::transport::bootstrap::{self, AgentOptions, Done};
use crate::transport::image::Build;
use crate::transport::local;
use crate::transport::login::Logins;

use super::args::{Global, Selection};
use super::dockercontext::{self, NamedEngine};
use super::error::CliError;
use super::fleet::{Fleet, Host};
use super::hosts::{self, UserHosts};
use super::project::{self, Project};
use super::source::Source;
use super::travel::{self, Luggage};
use super::ui::Ui;

/// Variable that names another place than the usual one for the agent's socket.
const AGENT_SOCKET_VARIABLE: &str = "ORCH_AGENT_SOCKET";

/// What a command works with.
pub(crate) struct Context<'u> {
    /// Output.
    pub ui: &'u mut Ui,
    /// Flags before the command.
    pub global: Global,
    /// Services of the file, where one was loaded for the project's name.
    services: Vec<ServiceName>,
    /// Hosts of the file, where one was loaded.
    file_hosts: Vec<HostEntry>,
    /// The file has errors, and the command needs none.
    skip_file: bool,
    /// Hosts that could not be asked.
    left_out: Vec<HostName>,
    /// The hosts, opened once for the command's life.
    fleet: OnceCell<Option<Arc<Fleet>>>,
}

impl<'u> Context<'u> {
    /// Returns the context of one run.
    pub(crate) fn new(global: Global, ui: &'u mut Ui) -> Self {
        let (services, file_hosts, left_out) = (Vec::new(), Vec::new(), Vec::new());
        Self { ui, global, services, file_hosts, skip_file: false, left_out, fleet: OnceCell::new() }
    }

    /// Returns the project's name. A file is read only when neither `-p` nor the environment says it.
    pub(crate) fn project_name(&mut self) -> Result<ProjectName, CliError> {
        if let Some(name) = project::given_name(&self.global)? {
            return Ok(name);
        }
        let Loaded { model, disabled, .. } = project::load(&self.global, &[], &lenient())?;
        self.file_hosts = model.hosts;
        self.services = model.services.into_keys().chain(disabled.into_keys()).collect();
        Ok(model.name)
    }

    /// Returns the hosts that the command works with; `None`: the local engine alone.
    ///
    /// A file that was not loaded for the project is read for its `x-hosts` where there is one: else `orch -p NAME ps`
    /// and `orch ps` in one directory would look at different hosts.
    ///
    /// # Errors
    /// What is wrong with a file, or with what the flags say.
    pub(crate) fn fleet(&mut self) -> Result<Option<Arc<Fleet>>, CliError> {
        if let Some(fleet) = self.fleet.get() {
            return Ok(fleet.clone());
        }
        let entries = self.inventory()?;
        let fleet = (!entries.is_empty()).then(|| Arc::new(Fleet::new(entries)));
        Ok(self.fleet.get_or_init(|| fleet).clone())
    }

    /// As [`Context::fleet`], for commands that are about no project: a file with errors keeps none of them from its answer.
    /// Which hosts that file has is not known then, and told.
    ///
    /// # Errors
    /// What is wrong with what the flags say, or with the user's own list.
    pub(crate) fn fleet_without_project(&mut self) -> Result<Option<Arc<Fleet>>, CliError> {
        match self.fleet() {
            Err(CliError::Files(problems)) => {
                self.skip_file = true;
                let first = problems.iter().next().map(|problem| problems.line(problem)).unwrap_or_default();
                self.ui.warn(&format!("hosts that the compose file names are not known: {first}"));
                self.fleet()
            }
            fleet => fleet,
        }
    }

    /// Returns the hosts that were named; see [`Context::fleet`].
    ///
    /// # Errors
    /// As [`Context::fleet`].
    pub(crate) fn inventory(&mut self) -> Result<Vec<HostEntry>, CliError> {
        let known = !self.services.is_empty() || !self.file_hosts.is_empty();
        if self.global.hosts.is_empty() && !known && !self.skip_file {
            self.file_hosts = project::hosts(&self.global, &lenient())?;
        }
        // An engine or agent that the environment names is meant, rather than what a file of the user's own lists.
        let named = named_engine()?.is_some_and(|engine| engine.by_environment);
        let local = named || std::env::var_os(AGENT_SOCKET_VARIABLE).is_some();
        let user = user_hosts().filter(|_| !local || !self.global.hosts.is_empty());
        hosts::inventory(&self.global.hosts, &self.file_hosts, user.as_ref())
    }

    /// Returns the hosts that the project is for: those of `--host`, else of `x-hosts`; empty: all of the cluster, also
    /// those that the user's hosts file does not name.
    pub(crate) fn project_hosts(&self) -> BTreeSet<HostName> {
        if self.global.hosts.is_empty() {
            return self.file_hosts.iter().map(|entry| entry.name.clone()).collect();
        }
        self.global.hosts.iter().map(|flag| flag.name.clone()).collect()
    }

    /// Returns the engines to read containers from: the local one, or those of all hosts of the cluster. What cannot be
    /// reached is told.
    ///
    /// # Errors
    /// When none can be reached.
    pub(crate) async fn sources(&mut self) -> Result<Vec<Source>, CliError> {
        let Some(fleet) = self.fleet()? else { return Ok(vec![Source::local(Arc::new(self.engine().await?))]) };
        let seen = fleet.look().await?;
        let members = self.present(&fleet, &seen.status);
        let mut sources = Vec::new();
        for (host, engine) in fleet.ask_all(&members, |host| async move { host.engine().await }).await {
            match engine {
                Ok(engine) => sources.push(Source::over(host, Arc::new(engine))),
                Err(error) => self.leave_out(host.name(), &error.to_string()),
            }
        }
        if sources.is_empty() { Err(CliError::NoHostAnswers(seen.silent)) } else { Ok(sources) }
    }

    /// Returns the hosts of the cluster but those that its agents do not hear, which are told: waiting for them would
    /// hold up what the others have to say.
    pub(crate) fn present(&mut self, fleet: &Fleet, status: &ClusterStatus) -> Vec<Arc<Host>> {
        self.tell_down(status);
        let down =
            |name: &HostName| status.hosts.iter().any(|host| host.name == *name && host.state == HostState::Down);
        fleet.members(status).into_iter().filter(|host| !down(host.name())).collect()
    }

    /// Tells which hosts of the cluster are not heard: what is on them is not in the answer, or is not done yet.
    pub(crate) fn tell_down(&mut self, status: &ClusterStatus) {
        for host in status.hosts.iter().filter(|host| host.state == HostState::Down) {
            self.leave_out(&host.name, &format!("host `{}` is down: it is left out", host.name));
        }
    }

    /// Tells why a host is left out, once for whoever asks again and again.
    pub(crate) fn leave_out(&mut self, host: &HostName, why: &str) {
        if !self.left_out.contains(host) {
            self.ui.warn(why);
            self.left_out.push(host.clone());
        }
    }

    /// Returns the hosts that could not be asked so far.
    pub(crate) fn left_out(&self) -> &[HostName] {
        &self.left_out
    }

    /// Returns whether a host is named by the compose file.
    pub(crate) fn is_in_file(&self, name: &HostName) -> bool {
        self.file_hosts.iter().any(|entry| entry.name == *name)
    }

    /// Loads the files and tells what is doubtful about them.
    pub(crate) fn load(&mut self, services: &[ServiceName], options: &LoadOptions) -> Result<Loaded, CliError> {
        let loaded = project::load(&self.global, services, options)?;
        self.ui.diagnostics(&loaded.warnings);
        Ok(loaded)
    }

    /// Keeps what a file says of hosts and services, for what comes after.
    pub(crate) fn took(&mut self, loaded: &Loaded) {
        self.file_hosts.clone_from(&loaded.model.hosts);
        self.services = loaded.model.services.keys().cloned().collect();
    }

    /// Connects to the engine that builds: that of this machine, or where it has none that of the first host.
    ///
    /// # Errors
    /// None answers.
    pub(crate) async fn builder(&mut self) -> Result<DockerEngine, CliError> {
        let Some(fleet) = self.fleet()? else { return self.engine().await };
        let none = match DockerEngine::connect(None).await {
            Ok(engine) => return Ok(engine),
            Err(none) => none,
        };
        let seen = fleet.look().await?;
        let members = self.present(&fleet, &seen.status);
        let Some(host) = members.first() else { return Err(none.into()) };
        host.engine().await
    }

    /// Writes a file that a flag names, or says that it would be written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&mut self, path: &Path, content: impl AsRef<[u8]>) -> Result<(), CliError> {
        if self.global.dry_run {
            return self.ui.line(&format!("write {}", path.display()));
        }
        std::fs::write(path, content).map_err(|source| CliError::Write { path: path.display().to_string(), source })
    }

    /// Loads files that were loaded before in another way: what is doubtful about them was told.
    pub(crate) fn load_quietly(&self, services: &[ServiceName], options: &LoadOptions) -> Result<Loaded, CliError> {
        project::load(&self.global, services, options)
    }

    /// Loads the files down to the graph and tells what is doubtful about them.
    pub(crate) fn load_graph(&mut self, selection: &Selection) -> Result<Project, CliError> {
        let loaded = project::load(&self.global, &selection.services, &LoadOptions::default())?;
        self.took(&loaded);
        let luggage = match self.fleet()? {
            Some(_) => travel::gather(&loaded)?,
            None => Luggage::default(),
        };
        let project = project::expand(loaded, selection, luggage)?;
        project.warnings.iter().for_each(|warnings: &Diagnostics| self.ui.diagnostics(warnings));
        Ok(project)
    }

    /// Tells what the engine will not apply of the project, and refuses what it cannot make; nothing is made before.
    pub(crate) async fn check_fit(&mut self, project: &Project, engine: &dyn Engine) -> Result<(), CliError> {
        if is_demanding(&project.graph) {
            let misfits = misfits(&project.graph, &engine.info().await?);
            self.ui.diagnostics(&project.judge(&misfits)?);
        }
        Ok(())
    }

    /// Returns whether the file has a service, where one was loaded.
    pub(crate) fn has_service(&self, name: &ServiceName) -> bool {
        self.services.contains(name)
    }

    /// Returns the services of the file, also where `-p` names the project; none where there is no file that loads.
    pub(crate) fn file_services(&self) -> Vec<ServiceName> {
        if self.knows_services() {
            return self.services.clone();
        }
        let loaded = project::load(&self.global, &[], &lenient()).ok();
        loaded.into_iter().flat_map(|one| one.model.services.into_keys().chain(one.disabled.into_keys())).collect()
    }

    /// Returns whether a file says which services there are.
    pub(crate) fn knows_services(&self) -> bool {
        !self.services.is_empty()
    }

    /// Refuses services that neither the file has nor `seen` knows.
    pub(crate) fn check_services(
        &self,
        names: &[ServiceName],
        seen: impl Fn(&ServiceName) -> bool,
    ) -> Result<(), CliError> {
        let unknown = names.iter().find(|name| !self.services.contains(name) && !seen(name));
        unknown.map_or(Ok(()), |name| Err(project::no_such_service(name, &self.services)))
    }

    /// Connects to the engine that `DOCKER_HOST` or a context of Docker's client names, else to the local one.
    pub(crate) async fn engine(&self) -> Result<DockerEngine, CliError> {
        let named = named_engine()?.map(|engine| engine.address);
        Ok(DockerEngine::connect(named.as_deref()).await?)
    }

    /// Returns a client of the agent of the engine that commands are for, which may not be there.
    ///
    /// # Errors
    /// Where `DOCKER_HOST` names an engine: when that does not answer, or the agent here is another engine's.
    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        if named_engine()?.is_some() {
            return self.client_for(&self.engine().await?).await;
        }
        Ok(client())
    }

    /// Returns a client of an agent that knows all of the project: of the first host that answers, or the local one.
    ///
    /// # Errors
    /// No host answers.
    pub(crate) async fn any_agent(&mut self) -> Result<Client, CliError> {
        match self.fleet()? {
            Some(fleet) => Ok(fleet.look().await?.client),
            None => self.client().await,
        }
    }

    /// Returns a client of the agent of `engine`; see [`Context::client`].
    ///
    /// # Errors
    /// As [`Context::client`].
    pub(crate) async fn client_for(&self, engine: &DockerEngine) -> Result<Client, CliError> {
        let client = client();
        if let Some(NamedEngine { address, .. }) = named_engine()?
            && let Some(agent) = if_there(client.info().await)?
            && !same_engine(&agent.engine_id, &engine.info().await?.facts.id)
        {
            return Err(CliError::OtherEngine { address, agent: client.path().display().to_string() });
        }
        Ok(client)
    }

    /// Returns a client of an agent of this build that answers; starts or replaces it where there is none.
    pub(crate) async fn agent_on(&mut self, engine: &DockerEngine) -> Result<Client, CliError> {
        self.agent_with(engine, agent_options(engine)).await
    }

    /// As [`Context::agent_on`], with options of the caller's.
    pub(crate) async fn agent_with(
        &mut self,
        engine: &DockerEngine,
        options: AgentOptions,
    ) -> Result<Client, CliError> {
        let client = self.client_for(engine).await?;
        if std::env::var_os(AGENT_SOCKET_VARIABLE).is_some() {
            return Ok(client); // Whoever names the socket runs the agent.
        }
        let build = Build::own().map_err(bootstrap::BootstrapError::Binary)?;
        let status = bootstrap::ensure_agent(engine, &client, &build, &options).await?;
        for done in &status.done {
            match done {
                Done::Removed { version } => self.ui.say(&format!("the agent of version {version} was replaced")),
                Done::Started => self.ui.say("the agent was started on this host (container orch-agent)"),
                Done::Loaded | Done::Created => {}
            }
        }
        Ok(client)
    }
}

/// What is read of a file by commands on what runs: they must work although a config's file is gone or a service is broken.
pub(crate) fn lenient() -> LoadOptions {
    // What patterns add has no say in names and hosts, and `down` must not need their files.
    let own_keys = OwnKeys::AsWritten;
    LoadOptions {
        applied: false,
        contents: false,
        resolve_environment: false,
        consistency: false,
        own_keys,
        ..LoadOptions::default()
    }
}

/// Returns the user's own hosts file.
pub(crate) fn user_hosts() -> Option<UserHosts> {
    UserHosts::of_user(&|name| std::env::var_os(name))
}

/// Returns the user's logins to registries.
pub(crate) fn logins() -> Logins {
    Logins::of_user(&|name| std::env::var_os(name))
}

/// Returns the engine that the environment or the user's Docker client names.
fn named_engine() -> Result<Option<NamedEngine>, CliError> {
    dockercontext::engine(&|name| std::env::var_os(name))
}

/// Returns whether an agent's engine is the one that is meant. An agent or an engine without an id cannot be told
/// from others, and guessing could take down what somebody else runs.
fn same_engine(of_agent: &str, meant: &str) -> bool {
    !meant.is_empty() && of_agent == meant
}

/// Returns a client of the agent at the usual place, or where the environment says.
fn client() -> Client {
    let chosen = std::env::var_os(AGENT_SOCKET_VARIABLE);
    Client::new(local::agent_socket(chosen.as_deref().map(Path::new)))
}

/// Where the agent of an engine lives.
pub(crate) fn agent_options(engine: &DockerEngine) -> AgentOptions {
    AgentOptions { engine_socket: engine.socket().to_owned(), ..AgentOptions::default() }
}

/// Makes sure that orch's own demo image is there.
pub(crate) async fn ensure_demo_image(engine: &dyn Engine) -> Result<(), CliError> {
    let build = Build::own().map_err(bootstrap::BootstrapError::Binary)?;
    Ok(bootstrap::ensure_demo_image(engine, &build).await?)
}

/// Turns "no agent knows" into `None`: one that was never started, that ended and left its socket, or that was never
/// told of the project.
pub(crate) fn if_there<T>(answer: Result<T, ClientError>) -> Result<Option<T>, CliError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::NotInstalled { .. } | ClientError::NotAnswering { .. }) => Ok(None),
        Err(ClientError::Api(error)) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemClock.now();
    Timestamp::from_duration(since_1970.try_into().unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_taken_for_an_engines_only_where_it_says_so() {
        assert!(same_engine("AB:CD", "AB:CD"));
        for (of_agent, meant) in [("AB:CD", "EF:GH"), ("", "AB:CD"), ("AB:CD", ""), ("", "")] {
            assert!(!same_engine(of_agent, meant), "{of_agent} {meant}");
        }
    }
}

//! The tree of commands with their flags. A command's doc comment is its help text; words and flags are Docker Compose's.
//!
//! A flag of Docker Compose that orch does not have is refused by the parser: no flag is ever taken and ignored.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::hosts::HostFlag;
use crate::ids::ServiceName;

use super::exit::Exit;
pub use super::template::ListFormat;

mod agent;
mod hands;
mod host;
mod images;
mod life;
mod look;
mod pattern;
mod print;
mod refused;
mod running;
mod slips;

pub use agent::*;
pub use hands::*;
pub use host::*;
pub use images::*;
pub use life::*;
pub use look::*;
pub use pattern::*;
pub use print::*;
pub use refused::{REFUSED, Refused};
pub use running::*;

/// Colours of help and usage errors, as cargo has them.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Runs compose files on one or many Docker hosts, with names, virtual addresses and a load balancer
#[derive(Debug, Parser)]
#[command(name = "orch", version, styles = STYLES, max_term_width = 100, infer_long_args = false)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(disable_version_flag = true)]
pub struct Cli {
    /// Print version
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::Version)]
    pub version: (),
    /// Flags before the command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses the arguments of the process.
    ///
    /// # Errors
    /// A [`Usage`] to print: help that was asked for, or what is wrong.
    pub fn parse_args<I, T>(arguments: I) -> Result<Self, Usage>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let arguments = slips::help(arguments.into_iter().map(Into::into).collect());
        let wrong = |error: clap::Error| {
            Usage(refused::explain(slips::explain(error.format(&mut Self::command()), &arguments)))
        };
        let matches = Self::command().try_get_matches_from(&arguments).map_err(wrong)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(wrong)?;
        let is_unsaid = |flag| matches.value_source(flag) == Some(ValueSource::DefaultValue);
        cli.global.unsaid = Unsaid { ansi: is_unsaid("ansi"), parallel: is_unsaid("parallel") };
        Ok(cli)
    }
}

/// Help that was asked for, or arguments that cannot be understood.
#[derive(Debug)]
pub struct Usage(clap::Error);

impl Usage {
    /// Prints help to standard output, anything else to standard error. Returns how the process ends: 1 where clap
    /// has 2, because that is Docker Compose's code for a wrong flag.
    pub fn print(&self) -> Exit {
        // Nobody is left to tell when the reader of the help has gone.
        self.0.print().ok();
        if self.0.use_stderr() && !self.is_bare() { Exit::Failure } else { Exit::Success }
    }

    /// `orch` alone: help to standard error, but nothing went wrong.
    fn is_bare(&self) -> bool {
        self.0.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    }
}

/// Flags that go before the command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Compose files.
    #[arg(short, long = "file", value_name = "FILE")]
    #[arg(help = "Compose file; may be given several times, `-` is standard input [env: COMPOSE_FILE]")]
    pub files: Vec<String>,

    /// Name of the project.
    #[arg(short, long, value_name = "NAME", help = "Project name [env: COMPOSE_PROJECT_NAME]")]
    pub project_name: Option<String>,

    /// Profiles enabled.
    #[arg(long = "profile", value_name = "PROFILE")]
    #[arg(help = "Enable services of this profile; may be given several times, `*` is all [env: COMPOSE_PROFILES]")]
    pub profiles: Vec<String>,

    /// Files with variables.
    #[arg(long = "env-file", value_name = "FILE")]
    #[arg(
        help = "Read variables from this file instead of `.env`; may be given several times [env: COMPOSE_ENV_FILES]"
    )]
    pub env_files: Vec<String>,

    /// Directory that relative paths refer to; default: that of the first compose file
    #[arg(long, value_name = "DIR")]
    pub project_directory: Option<PathBuf>,

    /// Show and check networks, volumes, configs and secrets too that no service uses
    #[arg(long)]
    pub all_resources: bool,

    /// How progress is shown: in place on a terminal and line by line elsewhere, or as said here
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "KIND",
        default_value_t,
        env = "COMPOSE_PROGRESS",
        hide_env_values = true
    )]
    pub progress: ProgressKind,

    /// When control characters are used.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, env = "COMPOSE_ANSI", hide_env_values = true)]
    #[arg(help = "When colours and other control characters are used; NO_COLOR is honoured")]
    pub ansi: Ansi,

    /// Hosts to work on.
    #[arg(long = "host", value_name = "NAME[=ssh://…]")]
    #[arg(
        help = "Work on this host instead of those of `x-hosts` or of the user's hosts file; may be given several times"
    )]
    pub hosts: Vec<HostFlag>,

    /// Images pulled, pushed or built at the same time at most; -1: up to 64 pulls, 4 builds and pushes
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true, env = "COMPOSE_PARALLEL_LIMIT", hide_env_values = true)]
    pub parallel: i32,

    /// Say what would be done and change nothing
    #[arg(long, global = true)]
    pub dry_run: bool,

    /// What of this nobody said.
    #[arg(skip)]
    pub unsaid: Unsaid,
}

/// Flags that have their default values: neither the arguments nor the environment say them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unsaid {
    /// `--ansi`.
    pub ansi: bool,
    /// `--parallel`.
    pub parallel: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressKind {
    /// `tty` on a terminal, else `plain`.
    #[default]
    Auto,
    /// Lines that are rewritten in place.
    Tty,
    /// A line for each change.
    Plain,
    /// A JSON object for each change.
    Json,
    /// None.
    Quiet,
}

/// When control characters are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Ansi {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create and start containers
    Up(UpArgs),
    /// Stop and remove containers and networks
    Down(DownArgs),
    /// Create containers without starting them
    Create(CreateArgs),
    /// Start containers that are there and stopped
    Start(StartArgs),
    /// Stop containers; they stay so until `start` or `up`
    Stop(StopArgs),
    /// Stop containers and start them as they are: changes of the files are not applied
    Restart(RestartArgs),
    /// Send a signal to containers
    Kill(KillArgs),
    /// Remove stopped containers
    Rm(RmArgs),
    /// Pause containers: their processes are frozen
    Pause(PauseArgs),
    /// Let paused containers go on
    Unpause(PauseArgs),
    /// Change the number of replicas of services
    Scale(ScaleArgs),
    /// Build or rebuild images of services
    Build(BuildArgs),
    /// Pull images of services
    Pull(PullArgs),
    /// Push images of services that are built
    Push(PushArgs),
    /// Say what `up` would do, and why
    Plan(PlanArgs),
    /// List containers
    Ps(PsArgs),
    /// Show what containers have written
    Logs(LogsArgs),
    /// Print what happens to containers, as it happens
    Events(EventsArgs),
    /// Execute a command in a running container
    Exec(ExecArgs),
    /// Print where a port of a container is published
    Port(PortArgs),
    /// List images used by the created containers
    Images(ImagesArgs),
    /// List volumes
    Volumes(VolumesArgs),
    /// List the processes that run in containers
    Top(TopArgs),
    /// Copy files and directories between containers and this machine
    Cp(CpArgs),
    /// Write all files of a container as a tar archive
    Export(ExportArgs),
    /// Make an image of a container as it is now
    Commit(CommitArgs),
    /// Show what containers use of processor, memory, network and disk, as it goes
    Stats(StatsArgs),
    /// Run a command in a new container of a service, once
    Run(Box<RunArgs>),
    /// Wait until containers of services stop; ends with their exit code
    Wait(WaitArgs),
    /// Connect standard input, output and error to a running container of a service
    Attach(AttachArgs),
    /// Bring what changes here into containers: sync files, restart, rebuild
    Watch(WatchArgs),
    /// Check the compose files and print them as one, with everything resolved
    #[command(visible_alias = "convert")]
    Config(ConfigArgs),
    /// Show the project as a graph: services, pods, networks, volumes, routes, dependencies
    Graph(GraphArgs),
    /// Say why a service, pod, port or route is as it is
    Why(WhyArgs),
    /// Say what a name means to a container
    Dns(DnsArgs),
    /// Show what the load balancer does, endpoint by endpoint
    Lb(LbArgs),
    /// List running projects
    Ls(LsArgs),
    /// List, show and check patterns
    Pattern(PatternArgs),
    /// Add, list, change and remove hosts
    Host(HostArgs),
    /// Show the cluster: hosts, seat, versions, projects
    Status(StatusArgs),
    /// Look after the agent of this host
    Agent(AgentArgs),
    /// Run a workload of the examples and tests
    Demo(crate::demo::DemoArgs),
    /// Print a script that completes commands, flags and services in a shell
    Completion(CompletionArgs),
    /// Print the manual page, or write a page for each command
    Man(ManArgs),
    /// Show the version
    Version(VersionArgs),
}

/// Flags that `up` and `plan` share: what shall run.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Recreate containers even if nothing about them changed
    #[arg(long, conflicts_with = "no_recreate")]
    pub force_recreate: bool,

    /// Leave existing containers as they are
    #[arg(long, conflicts_with = "always_recreate_deps")]
    pub no_recreate: bool,

    /// Recreate also what the named services depend on, even if nothing about it changed
    #[arg(long)]
    pub always_recreate_deps: bool,

    /// Give recreated containers new anonymous volumes, instead of those of their predecessors
    #[arg(short = 'V', long)]
    pub renew_anon_volumes: bool,

    /// Leave out what the named services depend on
    #[arg(long)]
    pub no_deps: bool,

    /// Create containers, do not start them
    #[arg(long)]
    pub no_start: bool,

    /// Remove containers of services that the file does not have
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub remove_orphans: bool,

    /// Number of replicas of a service, instead of what the file says
    #[arg(long = "scale", value_name = "SERVICE=N", value_parser = parse_scale)]
    pub scales: Vec<(ServiceName, u32)>,

    /// Seconds between stop signal and kill, instead of what the file says
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `up`.
#[derive(Debug, Clone, Default, Args)]
pub struct UpArgs {
    /// What shall run.
    #[command(flatten)]
    pub selection: Selection,

    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Leave the containers running in the background
    #[arg(short, long)]
    pub detach: bool,

    /// Wait until services are running or healthy, and jobs are done; implies --detach. Without a health check half a second of
    /// running counts: files and images name ports that nobody listens on, so that ports are not asked
    #[arg(long, conflicts_with = "no_start")]
    pub wait: bool,

    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub wait_timeout: Option<u64>,

    /// Build images before starting containers, also those that are there
    #[arg(long, conflicts_with = "no_build")]
    pub build: bool,

    /// Build no image, even if it is missing
    #[arg(long)]
    pub no_build: bool,

    /// Do not show what the builds say
    #[arg(long)]
    pub quiet_build: bool,

    /// When images are pulled, instead of what the file says
    #[arg(long, value_enum, value_name = "WHEN")]
    pub pull: Option<Pull>,

    /// Pull without showing progress
    #[arg(long)]
    pub quiet_pull: bool,

    /// Show the output of these services only; may be given several times
    #[arg(long = "attach", value_name = "SERVICE", conflicts_with = "detach")]
    pub attach: Vec<ServiceName>,

    /// Do not show the output of these services; may be given several times
    #[arg(long = "no-attach", value_name = "SERVICE", conflicts_with = "detach")]
    pub no_attach: Vec<ServiceName>,

    /// Show the output of services that the named ones depend on, too
    #[arg(long, conflicts_with_all = ["detach", "attach"])]
    pub attach_dependencies: bool,

    /// Stop all containers when one has ended, and return its exit code
    #[arg(long, conflicts_with_all = ["detach", "wait", "no_start"])]
    pub abort_on_container_exit: bool,

    /// Stop all containers when one has failed, and return its exit code
    #[arg(long, conflicts_with_all = ["detach", "wait", "no_start", "abort_on_container_exit"])]
    pub abort_on_container_failure: bool,

    /// Stop all containers when this service has ended, and return its exit code
    #[arg(long, value_name = "SERVICE", conflicts_with_all = ["detach", "wait", "no_start", "abort_on_container_failure"])]
    pub exit_code_from: Option<ServiceName>,

    /// Watch source code and rebuild/refresh containers when files are updated
    #[arg(short, long, conflicts_with_all = ["detach", "wait", "no_start", "no_build"])]
    pub watch: bool,

    /// Show keys below the output, on a terminal: `d` leaves the containers running, `w` begins and ends watching
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(conflicts_with_all = ["wait", "no_start"])]
    #[arg(help = "Show keys below the output, on a terminal: `d` leaves the containers running, `w` begins and ends \
                  watching [env: COMPOSE_MENU]")]
    pub menu: Option<bool>,

    /// How output looks.
    #[command(flatten)]
    pub look: LogLook,

    /// Show the time of each line
    #[arg(long)]
    pub timestamps: bool,

    /// Services that are built although their images are there; not a flag.
    #[arg(skip)]
    pub rebuilt: Vec<ServiceName>,

    /// Overwrite what others changed meanwhile, without asking
    #[arg(short, long)]
    pub yes: bool,

    /// Replace the agent of this host although it is newer than this orch
    #[arg(long)]
    pub allow_downgrade: bool,

    /// Form of what is told: JSON is an object a line, or with --dry-run the plan
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextFormat,
}

/// How lines of containers look.
#[derive(Debug, Clone, Default, Args)]
pub struct LogLook {
    /// Do not print container names before lines
    #[arg(long)]
    pub no_log_prefix: bool,

    /// Print without colours
    #[arg(long)]
    pub no_color: bool,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// At each `up`.
    Always,
    /// When they are not there.
    Missing,
    /// Never.
    Never,
    /// As the file says.
    Policy,
}

/// Form of text for the reader, or JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// For the reader.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// Form of lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// A table with a header.
    #[default]
    Table,
    /// JSON.
    Json,
}

/// `down`.
#[derive(Debug, Clone, Default, Args)]
pub struct DownArgs {
    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Remove named volumes that the project made, and anonymous ones
    #[arg(short, long)]
    pub volumes: bool,

    /// Take down also what others changed meanwhile, without asking
    #[arg(short, long)]
    pub yes: bool,

    /// Remove containers of services that the file does not have; orch always does
    #[arg(long)]
    pub remove_orphans: bool,

    /// Seconds between stop signal and kill, instead of what the file says
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,

    /// Remove images of services too: all, or only those without a name of their own
    #[arg(long, value_enum, value_name = "WHICH")]
    pub rmi: Option<Rmi>,

    /// Form of what is told: JSON is an object a line, or with --dry-run the plan
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextFormat,

    /// Services; default: the whole project
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// Images that go with a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rmi {
    /// Those without a name of their own.
    Local,
    /// All.
    All,
}

/// `plan`.
#[derive(Debug, Clone, Default, Args)]
pub struct PlanArgs {
    /// What shall run.
    #[command(flatten)]
    pub selection: Selection,

    /// Form of the plan
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextFormat,
}

fn parse_scale(text: &str) -> Result<(ServiceName, u32), String> {
    let (service, count) = text.split_once('=').ok_or("expected SERVICE=N")?;
    let service = ServiceName::new(service).map_err(|error| error.to_string())?;
    let count = count.parse().map_err(|_| format!("`{count}` is not a number of replicas"))?;
    Ok((service, count))
}

/// Seconds of a flag as a duration.
pub(crate) fn seconds(flag: Option<u64>) -> Option<Duration> {
    flag.map(Duration::from_secs)
}

#[cfg(test)]
mod tests;

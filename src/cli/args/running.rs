//! Flags of the commands about processes in containers: `run`, `wait`, `attach`, `watch`.

use clap::{Args, ValueEnum};

use crate::ids::ServiceName;

/// `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    pub detach: bool,

    /// Remove the container when it has ended
    #[arg(long)]
    pub rm: bool,

    /// Set an environment variable; KEY alone takes the value that it has here or in `.env`; may be given several times
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,

    /// Set the environment variables of a file; may be given several times
    #[arg(long = "env-from-file", value_name = "FILE")]
    pub env_files: Vec<String>,

    /// Run this instead of the entry point of the service or its image
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,

    /// Run as this user
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,

    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// Mount a volume or a path of the host; may be given several times
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET")]
    pub volumes: Vec<String>,

    /// Publish a port; may be given several times
    #[arg(short, long = "publish", value_name = "[PUBLISHED:]TARGET", conflicts_with = "service_ports")]
    pub publish: Vec<String>,

    /// Publish the service's ports, which a one-off has not otherwise
    #[arg(short = 'P', long)]
    pub service_ports: bool,

    /// Leave out what the service depends on
    #[arg(long)]
    pub no_deps: bool,

    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Do not allocate a terminal; the default where standard input and output are not one
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    pub no_tty: bool,

    /// Pass standard input on
    #[arg(short, long, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub interactive: bool,

    /// Allocate a terminal where standard input and output are one
    #[arg(short, long, hide = true, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub tty: bool,

    /// Add a label; may be given several times
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,

    /// Let the names of the service lead to the container too
    #[arg(long)]
    pub use_aliases: bool,

    /// When images are pulled, instead of what the file says
    #[arg(long, value_enum, value_name = "WHEN")]
    pub pull: Option<RunPull>,

    /// Pull without showing progress
    #[arg(long)]
    pub quiet_pull: bool,

    /// Build images first, even those that are there
    #[arg(long)]
    pub build: bool,

    /// Do not show what the builds say
    #[arg(long)]
    pub quiet_build: bool,

    /// Add a capability; may be given several times
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,

    /// Drop a capability; may be given several times
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,

    /// Say nothing but what the command says
    #[arg(short, long)]
    pub quiet: bool,

    /// Remove containers of services that the file does not have
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub remove_orphans: bool,

    /// Service
    pub service: ServiceName,

    /// Command and its arguments; default: those of the service
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl RunArgs {
    /// Returns whether the command gets the user's terminal where there is one.
    pub fn wants_terminal(&self) -> bool {
        self.tty && !self.no_tty
    }
}

/// When `run` pulls images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RunPull {
    /// Each time.
    Always,
    /// When they are not there.
    Missing,
    /// Never.
    Never,
    /// As the file says.
    Policy,
}

/// `wait`.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Take the project down when all have stopped
    #[arg(long)]
    pub down_project: bool,

    /// Services
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `attach`.
#[derive(Debug, Clone, Args)]
pub struct AttachArgs {
    /// Keys that end the connection and not the container; default: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,

    /// Number of the replica; default: the first that runs
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub index: u32,

    /// Do not pass standard input on
    #[arg(long)]
    pub no_stdin: bool,

    /// Pass signals that orch gets on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub sig_proxy: bool,

    /// Service
    pub service: ServiceName,
}

/// `watch`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// Do not build and start services before
    #[arg(long)]
    pub no_up: bool,

    /// Remove images whose name a rebuild has taken
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub prune: bool,

    /// Do not show what builds say
    #[arg(long)]
    pub quiet: bool,

    /// Services, with those that they depend on; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

impl WatchArgs {
    /// Returns what `up --watch` asks for, for all services.
    pub(crate) fn beside_up(quiet: bool) -> Self {
        Self { no_up: true, prune: true, quiet, services: Vec::new() }
    }
}

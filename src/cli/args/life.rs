//! Commands for containers that are there.

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::ids::ServiceName;

use super::{Pull, parse_scale};

/// `create`.
#[derive(Debug, Clone, Default, Args)]
pub struct CreateArgs {
    /// Recreate containers even if nothing about them changed
    #[arg(long, conflicts_with = "no_recreate")]
    pub force_recreate: bool,

    /// Leave existing containers as they are
    #[arg(long)]
    pub no_recreate: bool,

    /// Build images before, also those that are there
    #[arg(long, conflicts_with = "no_build")]
    pub build: bool,

    /// Build no image, even if it is missing
    #[arg(long)]
    pub no_build: bool,

    /// Remove containers of services that the file does not have
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub remove_orphans: bool,

    /// Number of replicas of a service, instead of what the file says
    #[arg(long = "scale", value_name = "SERVICE=N", value_parser = parse_scale)]
    pub scales: Vec<(ServiceName, u32)>,

    /// When images are pulled, instead of what the file says
    #[arg(long, value_enum, value_name = "WHEN")]
    pub pull: Option<Pull>,

    /// Pull without showing progress
    #[arg(long)]
    pub quiet_pull: bool,

    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Overwrite what others changed meanwhile, without asking
    #[arg(short, long)]
    pub yes: bool,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `stop`.
#[derive(Debug, Clone, Default, Args)]
pub struct StopArgs {
    /// Seconds between stop signal and kill, instead of what the file says
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,

    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `start`.
#[derive(Debug, Clone, Default, Args)]
pub struct StartArgs {
    /// Wait until services are running or healthy
    #[arg(long)]
    pub wait: bool,

    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub wait_timeout: Option<u64>,

    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Services, which are started with those that they depend on; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `restart`.
#[derive(Debug, Clone, Default, Args)]
pub struct RestartArgs {
    /// Seconds between stop signal and kill, instead of what the file says
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,

    /// Do not restart services that depend on these with `restart: true`
    #[arg(long)]
    pub no_deps: bool,

    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `kill`.
#[derive(Debug, Clone, Args)]
pub struct KillArgs {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "SIGKILL")]
    pub signal: String,

    /// Remove containers of services that the file does not have
    #[arg(long)]
    pub remove_orphans: bool,

    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `rm`.
#[derive(Debug, Clone, Default, Args)]
pub struct RmArgs {
    /// Do not ask before removing
    #[arg(short, long)]
    pub force: bool,

    /// Stop the containers first, so that those that run are removed too
    #[arg(short, long)]
    pub stop: bool,

    /// Remove their anonymous volumes too
    #[arg(short, long)]
    pub volumes: bool,

    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `pause` and `unpause`.
#[derive(Debug, Clone, Default, Args)]
pub struct PauseArgs {
    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `scale`.
#[derive(Debug, Clone, Default, Args)]
pub struct ScaleArgs {
    /// Leave out what the services depend on
    #[arg(long)]
    pub no_deps: bool,

    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Overwrite what others changed meanwhile, without asking
    #[arg(short, long)]
    pub yes: bool,

    /// Services with their number of replicas
    #[arg(value_name = "SERVICE=N", required = true, value_parser = parse_scale)]
    pub scales: Vec<(ServiceName, u32)>,
}

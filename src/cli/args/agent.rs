//! Flags of `orch agent`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::hosts::HostFlag;
use crate::ids::HostName;

use super::TextFormat;
use super::look::{Tail, parse_tail};

/// `agent`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct AgentArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: Option<AgentVerb>,
    /// Be the agent.
    #[command(flatten)]
    pub run: Option<AgentRun>,
}

/// What to do with the agent.
#[derive(Debug, Clone, Subcommand)]
pub enum AgentVerb {
    /// Show its log
    Logs(AgentLogsArgs),
    /// Say how it is
    Status(AgentStatusArgs),
    /// Print what Prometheus collects, or let it collect
    Metrics(AgentMetricsArgs),
    /// Have its log tell of each HTTP request, or no more
    AccessLog(AgentAccessLogArgs),
    /// Stop it: what runs goes on, names and addresses do not
    Stop,
    /// Remove it with all it made on the host below the engine
    Uninstall(AgentUninstallArgs),
}

/// `agent` without a verb: how its own container calls it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Being the agent (inside its own container)")]
pub struct AgentRun {
    /// Directory that lasts: the store
    #[arg(long, value_name = "DIR", required = true)]
    pub state: PathBuf,

    /// Directory that is empty after a reboot: the socket and secrets
    #[arg(long, value_name = "DIR", required = true)]
    pub run: PathBuf,

    /// Address of the engine
    #[arg(long, value_name = "ADDRESS", help = "Address of the engine [default: unix:///var/run/docker.sock]")]
    pub engine: Option<String>,

    /// Name of this host
    #[arg(long, value_name = "NAME", default_value_t = HostName::local())]
    pub host: HostName,

    /// Where subnets of projects come from
    #[arg(long, value_name = "CIDR", default_value = "10.192.0.0/10")]
    pub subnet_pool: ipnet::Ipv4Net,

    /// Threads of the load balancer; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub lb_threads: usize,
}

/// `agent logs`.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentLogsArgs {
    /// Stay and show what comes
    #[arg(short, long)]
    pub follow: bool,

    /// Lines from the end, or `all`
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", allow_negative_numbers = true, value_parser = parse_tail)]
    pub tail: Tail,

    /// The agent of this host, as `--host` before the command
    #[arg(long = "host", value_name = "NAME[=ssh://…]")]
    pub hosts: Vec<HostFlag>,
}

/// `agent status`.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentStatusArgs {
    /// Form of the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextFormat,
}

/// `agent metrics`.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentMetricsArgs {
    /// Have the agent answer Prometheus there, from now on and over restarts: `GET /metrics`, without encryption
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,

    /// Have it answer nowhere but on its socket
    #[arg(long, conflicts_with = "listen")]
    pub no_listen: bool,

    /// The agent of this host, as before the command; with `--listen` and `--no-listen` may be given several times
    #[arg(long = "host", value_name = "NAME[=ssh://…]")]
    pub hosts: Vec<HostFlag>,
}

/// `agent access-log`.
#[derive(Debug, Clone, Args)]
pub struct AgentAccessLogArgs {
    /// From now on, and over restarts
    #[arg(value_enum, value_name = "on|off")]
    pub wanted: Switch,

    /// The agent of this host, as before the command; may be given several times
    #[arg(long = "host", value_name = "NAME[=ssh://…]")]
    pub hosts: Vec<HostFlag>,
}

/// A thing that is either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// `agent uninstall`.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentUninstallArgs {
    /// Also when projects are up: their containers stay, without names and addresses
    #[arg(long)]
    pub force: bool,
}

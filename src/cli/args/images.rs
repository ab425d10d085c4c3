//! Flags of `build`, `pull` and `push`.

use clap::{Args, ValueEnum};

use crate::ids::ServiceName;
use crate::model::quantity::parse_bytes;

/// `build`.
#[derive(Debug, Clone, Default, Args)]
pub struct BuildArgs {
    /// Variable of the builds: NAME=VALUE, or NAME for that of the environment; may be given several times
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,

    /// Memory that a build may use: 512m, 2g
    #[arg(short, long, value_name = "BYTES", value_parser = parse_memory)]
    pub memory: Option<u64>,

    /// Use no layers of earlier builds
    #[arg(long)]
    pub no_cache: bool,

    /// Pull the images that builds start from, even those that are there
    #[arg(long)]
    pub pull: bool,

    /// What is attested of how the images were made, instead of what the file says: `true`, `false`, `mode=max`
    #[arg(long, value_name = "VALUE")]
    pub provenance: Option<String>,

    /// Push the images to their registries
    #[arg(long)]
    pub push: bool,

    /// Do not show what the builds say
    #[arg(short, long)]
    pub quiet: bool,

    /// Whether what is in the images is attested, instead of what the file says: `true`, `false`, `generator=IMAGE`
    #[arg(long, value_name = "VALUE")]
    pub sbom: Option<String>,

    /// SSH agent or keys of the builds: default, ID or ID=PATH (a socket or keys); may be given several times
    #[arg(long, value_name = "ID[=PATH]")]
    pub ssh: Vec<String>,

    /// Also build what the named services depend on
    #[arg(long)]
    pub with_dependencies: bool,

    /// Services; default: all that are built
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `pull`.
#[derive(Debug, Clone, Default, Args)]
pub struct PullArgs {
    /// Leave out images that can be built
    #[arg(long)]
    pub ignore_buildable: bool,

    /// Pull what can be pulled, warn of the rest, and end with 0
    #[arg(long)]
    pub ignore_pull_failures: bool,

    /// Also pull for what the named services depend on
    #[arg(long)]
    pub include_deps: bool,

    /// Which images are pulled
    #[arg(long, value_enum, value_name = "WHEN")]
    pub policy: Option<PullWhen>,

    /// Pull without showing progress
    #[arg(short, long)]
    pub quiet: bool,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// Which images `pull` pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullWhen {
    /// Those that are not there.
    Missing,
    /// All.
    Always,
}

/// `push`.
#[derive(Debug, Clone, Default, Args)]
pub struct PushArgs {
    /// Push what can be pushed, warn of the rest, and end with 0
    #[arg(long)]
    pub ignore_push_failures: bool,

    /// Also push images of what the named services depend on
    #[arg(long)]
    pub include_deps: bool,

    /// Push without showing progress
    #[arg(short, long)]
    pub quiet: bool,

    /// Services; default: all that are built
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

fn parse_memory(text: &str) -> Result<u64, String> {
    u64::try_from(parse_bytes(text)?).map_err(|_| format!("`{text}` is no size"))
}

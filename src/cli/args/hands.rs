//! Flags of the commands that look into containers: `port`, `images`, `volumes`, `top`, `cp`, `export`, `commit`, `stats`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::graph::Protocol;
use crate::ids::ServiceName;

use super::{ListFormat, TableFormat};

/// `port`.
#[derive(Debug, Clone, Args)]
pub struct PortArgs {
    /// Number of the replica; default: the first
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub index: u32,

    /// Protocol of the port
    #[arg(long, value_enum, value_name = "PROTOCOL", default_value_t)]
    pub protocol: PortProtocol,

    /// Service
    pub service: ServiceName,

    /// Port in the container
    #[arg(value_name = "PRIVATE_PORT")]
    pub port: u16,
}

/// A protocol of `port`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PortProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl From<PortProtocol> for Protocol {
    fn from(protocol: PortProtocol) -> Self {
        match protocol {
            PortProtocol::Tcp => Self::Tcp,
            PortProtocol::Udp => Self::Udp,
        }
    }
}

/// `images`.
#[derive(Debug, Clone, Default, Args)]
pub struct ImagesArgs {
    /// Print image ids only
    #[arg(short, long)]
    pub quiet: bool,

    /// Form of the list
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TableFormat,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `volumes`.
#[derive(Debug, Clone, Default, Args)]
pub struct VolumesArgs {
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,

    /// `table`, `json` (one object a line), or a template like `{{.Name}}`, with `table` before it for a header
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ListFormat::parse)]
    pub format: ListFormat,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `top`.
#[derive(Debug, Clone, Default, Args)]
pub struct TopArgs {
    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `cp`.
#[derive(Debug, Clone, Args)]
pub struct CpArgs {
    /// Also from containers that `run` made
    #[arg(long)]
    pub all: bool,

    /// Let the copies belong to the user that the container runs as
    #[arg(short, long)]
    pub archive: bool,

    /// Follow a symbolic link in the source
    #[arg(short = 'L', long)]
    pub follow_link: bool,

    /// Number of the replica; default: into all of them, out of the first
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub index: u32,

    /// What is copied: SERVICE:PATH, PATH, or `-` for a tar archive on standard input
    #[arg(value_name = "SOURCE")]
    pub from: String,

    /// Where to: SERVICE:PATH, PATH, or `-` for a tar archive on standard output
    #[arg(value_name = "DESTINATION")]
    pub to: String,
}

/// `export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Number of the replica; default: the first that runs
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub index: u32,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Service
    pub service: ServiceName,
}

/// `commit`.
#[derive(Debug, Clone, Args)]
pub struct CommitArgs {
    /// Who makes the image
    #[arg(short, long, value_name = "NAME")]
    pub author: Option<String>,

    /// Apply an instruction of a Dockerfile to the image; may be given several times
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub changes: Vec<String>,

    /// Number of the replica; default: the first that runs
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub index: u32,

    /// What the image is for
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,

    /// Freeze the container's processes meanwhile
    #[arg(short, long, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pause: bool,

    /// Service
    pub service: ServiceName,

    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

/// `stats`.
#[derive(Debug, Clone, Default, Args)]
pub struct StatsArgs {
    /// Show stopped containers too
    #[arg(short, long)]
    pub all: bool,

    /// Print once and end
    #[arg(long)]
    pub no_stream: bool,

    /// Do not shorten ids
    #[arg(long)]
    pub no_trunc: bool,

    /// `table`, `json` (one object a line), or a template like `{{.Name}}`, with `table` before it for a header
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ListFormat::parse)]
    pub format: ListFormat,

    /// Service; default: all
    #[arg(value_name = "SERVICE")]
    pub service: Option<ServiceName>,
}

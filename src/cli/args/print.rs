//! Flags of the commands that print something about the project or about orch itself: `graph`, `completion`, `man`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::ids::ServiceName;

/// `graph`.
#[derive(Debug, Clone, Default, Args)]
pub struct GraphArgs {
    /// Form of the graph: for reading, for Graphviz, as a picture, or for programs
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: GraphFormat,

    /// Ask which host each pod is on, and show it
    #[arg(long)]
    pub placed: bool,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Services, with what they depend on; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// Form of `graph`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Service by service, for the reader.
    #[default]
    Text,
    /// The language of Graphviz.
    Dot,
    /// A picture.
    Svg,
    /// Nodes and edges.
    Json,
}

/// `completion`.
#[derive(Debug, Clone, Args)]
pub struct CompletionArgs {
    /// The shell; for bash: `source <(orch completion bash)`
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Clone, Default, Args)]
pub struct ManArgs {
    /// Write `orch.1`, `orch-up.1` and so on to this directory instead of printing the first
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

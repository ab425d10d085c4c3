//! The tree of commands with their flags. A command's doc comment is its help text; words and flags are Docker Compose's.
//!
//! A flag of Docker Compose that orch does not have is refused by the parser: no flag is ever taken and ignored.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::exit::Exit;

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
pub struct Cli {
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
        Self::try_parse_from(arguments).map_err(Usage)
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

    /// How progress is shown
    #[arg(long, value_enum, value_name = "KIND", default_value_t, env = "COMPOSE_PROGRESS")]
    pub progress: ProgressKind,

    /// When control characters are used.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, env = "COMPOSE_ANSI")]
    #[arg(help = "When colours and other control characters are used; NO_COLOR is honoured")]
    pub ansi: Ansi,

    /// Images pulled at the same time, -1 for no limit
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true, env = "COMPOSE_PARALLEL_LIMIT")]
    pub parallel: i32,

    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,
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
    /// Run a workload of the examples and tests
    Demo(crate::demo::DemoArgs),
    /// Show the version
    Version(VersionArgs),
}

/// `version`.
#[derive(Debug, Clone, Default, Args)]
pub struct VersionArgs {
    /// Print the number only
    #[arg(long)]
    pub short: bool,

    /// Form of the answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: VersionFormat,
}

/// Form of `version`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum VersionFormat {
    /// A sentence.
    #[default]
    Pretty,
    /// JSON.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_flag_ends_with_1_as_in_docker_compose() {
        for wrong in [&["orch", "--nonsense"][..], &["orch", "nonsense"], &["orch", "version", "--format", "x"]] {
            let usage = Cli::parse_args(wrong).expect_err("wrong");
            assert_eq!(usage.print(), Exit::Failure, "{wrong:?}");
        }
        for help in [&["orch"][..], &["orch", "--help"], &["orch", "--version"]] {
            assert_eq!(Cli::parse_args(help).expect_err("help").print(), Exit::Success, "{help:?}");
        }
    }
}

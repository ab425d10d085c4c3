//! Flags of `orch pattern`.

use clap::{Args, Subcommand};

use super::{TableFormat, TextFormat};

/// `pattern`.
#[derive(Debug, Clone, Args)]
pub struct PatternArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: PatternVerb,
}

/// What to do with patterns.
#[derive(Debug, Clone, Subcommand)]
pub enum PatternVerb {
    /// List the patterns that services of this directory can use
    Ls(PatternLsArgs),
    /// Print a pattern
    Show(PatternShowArgs),
    /// Check patterns; with status 1 where one is wrong
    Lint(PatternLintArgs),
}

/// `pattern ls`.
#[derive(Debug, Clone, Default, Args)]
pub struct PatternLsArgs {
    /// Form of the list
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TableFormat,
}

/// `pattern show`.
#[derive(Debug, Clone, Args)]
pub struct PatternShowArgs {
    /// As text: the file itself; as JSON: what it takes
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextFormat,

    /// Name, or a file
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// `pattern lint`.
#[derive(Debug, Clone, Args)]
pub struct PatternLintArgs {
    /// Form of the complaints
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextFormat,

    /// Files, or names
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<String>,
}

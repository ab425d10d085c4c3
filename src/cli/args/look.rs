//! Flags of the commands that only look: `ps`, `logs`, `events`, `exec`, `config`, `ls`, `version`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::ids::ServiceName;

use super::{ListFormat, LogLook, TableFormat, TextFormat};

/// `ps`.
#[derive(Debug, Clone, Args)]
pub struct PsArgs {
    /// Show stopped containers too
    #[arg(short, long)]
    pub all: bool,

    /// Print container ids only
    #[arg(short, long)]
    pub quiet: bool,

    /// Print service names only
    #[arg(long, conflicts_with = "quiet")]
    pub services: bool,

    /// Only containers in this state; may be given several times
    #[arg(long = "status", value_enum, value_name = "STATE")]
    pub statuses: Vec<StateWord>,

    /// Only what is so, as `status=running`; may be given several times
    #[arg(long = "filter", value_name = "status=STATE", value_parser = parse_status)]
    pub filters: Vec<StateWord>,

    /// Show containers of services that the file does not have
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub orphans: bool,

    /// Do not shorten anything
    #[arg(long)]
    pub no_trunc: bool,

    /// `table`, `json` (one object a line), or a template like `{{.Name}}`, with `table` before it for a header
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ListFormat::parse)]
    pub format: ListFormat,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub names: Vec<ServiceName>,
}

#[cfg(test)]
impl Default for PsArgs {
    /// As without flags.
    fn default() -> Self {
        Self {
            all: false,
            quiet: false,
            services: false,
            statuses: Vec::new(),
            filters: Vec::new(),
            orphans: true,
            no_trunc: false,
            format: ListFormat::default(),
            names: Vec::new(),
        }
    }
}

fn parse_status(text: &str) -> Result<StateWord, String> {
    match text.split_once('=') {
        Some(("status", word)) => StateWord::from_str(word, false),
        Some((key, _)) => Err(format!("unknown filter {key}")),
        None => Err("expected status=STATE".to_owned()),
    }
}

/// The engine's words for the state of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateWord {
    /// Frozen.
    Paused,
    /// Between two starts.
    Restarting,
    /// Being removed.
    Removing,
    /// Running.
    Running,
    /// Could not be removed.
    Dead,
    /// Never started.
    Created,
    /// Ended.
    Exited,
}

/// `dns`.
#[derive(Debug, Clone, Args)]
pub struct DnsArgs {
    /// The name, as an application would ask for it
    #[arg(value_name = "NAME")]
    pub name: String,

    /// The service or pod (`web.2`) that asks; default: any container of the project
    #[arg(long, value_name = "SERVICE")]
    pub from: Option<ServiceName>,

    /// Form of the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextFormat,
}

/// `why`.
#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    /// A service, a pod (`web.2`), a container, a published port, a host name of a route, or what somebody asks for
    /// (`http://host/path`)
    #[arg(value_name = "NAME|URL")]
    pub about: String,

    /// Method of the request that is asked about
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    pub method: String,

    /// Header field of the request that is asked about; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,

    /// Form of the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextFormat,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected NAME: VALUE".to_owned()),
    }
}

/// `lb`.
#[derive(Debug, Clone, Default, Args)]
pub struct LbArgs {
    /// Print once and end, also on a terminal
    #[arg(long)]
    pub no_stream: bool,

    /// Form of the table; JSON is printed once
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TableFormat,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub names: Vec<ServiceName>,
}

/// `logs`.
#[derive(Debug, Clone, Default, Args)]
pub struct LogsArgs {
    /// Stay and show what comes, also from containers that start later
    #[arg(short, long)]
    pub follow: bool,

    /// Lines from the end of each container's output, or `all`
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", allow_negative_numbers = true, value_parser = parse_tail)]
    pub tail: Tail,

    /// Only what was written since then: `2013-01-02T13:23:37Z`, `1357132217` or `42m` ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Only what was written until then: `2013-01-02T13:23:37Z`, `1357132217` or `42m` ago
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// Show the time of each line
    #[arg(short, long)]
    pub timestamps: bool,

    /// Only the replica of this number
    #[arg(long, value_name = "N")]
    pub index: Option<u32>,

    /// How output looks.
    #[command(flatten)]
    pub look: LogLook,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// `events`.
#[derive(Debug, Clone, Default, Args)]
pub struct EventsArgs {
    /// Print a JSON object for each event
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Form of the events; JSON has one object a line
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextFormat,

    /// Also what happened since then: `2013-01-02T13:23:37Z`, `1357132217` or `42m` ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// End at that time: `2013-01-02T13:23:37Z`, `1357132217` or `42m` ago
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// Services; default: all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

/// How many last lines of the logs are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tail {
    /// All.
    #[default]
    All,
    /// This many.
    Lines(u64),
}

/// `exec`.
#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    /// Run in the background
    #[arg(short, long)]
    pub detach: bool,

    /// Set an environment variable; KEY alone takes the value that it has here or in `.env`; may be given several times
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,

    /// Number of the replica; default: the first that runs
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub index: u32,

    /// Do not allocate a terminal; the default where standard input and output are not one
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    pub no_tty: bool,

    /// Pass standard input on; Docker Compose's `exec -it` is what happens anyway
    #[arg(short, long, hide = true, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub interactive: bool,

    /// Allocate a terminal where standard input and output are one
    #[arg(short, long, hide = true, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub tty: bool,

    /// Give the command all capabilities and devices
    #[arg(long)]
    pub privileged: bool,

    /// Run as this user
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,

    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// Service
    pub service: ServiceName,

    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl ExecArgs {
    /// Returns whether the command gets the user's terminal where there is one.
    pub fn wants_terminal(&self) -> bool {
        self.tty && !self.no_tty
    }
}

/// `config`.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// Form of the output
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: ConfigFormat,

    /// Check only, print nothing; with `--format json` what is wrong, as objects for editors
    #[arg(short, long)]
    pub quiet: bool,

    /// Print the names of services, one a line
    #[arg(long, group = "list")]
    pub services: bool,

    /// Print the names of volumes, one a line
    #[arg(long, group = "list")]
    pub volumes: bool,

    /// Print the names of networks, one a line
    #[arg(long, group = "list")]
    pub networks: bool,

    /// Print the images, one a line
    #[arg(long, group = "list")]
    pub images: bool,

    /// Print the names of models, one a line
    #[arg(long, group = "list")]
    pub models: bool,

    /// Print the names of profiles, one a line
    #[arg(long, group = "list")]
    pub profiles: bool,

    /// Print the variables that replace `${…}`
    #[arg(long, group = "list")]
    pub environment: bool,

    /// Print the variables that the files ask for
    #[arg(long, group = "list")]
    pub variables: bool,

    /// Print a JSON schema of orch's own keys (`x-…`), for editors; needs no file
    #[arg(long, group = "list", conflicts_with = "quiet")]
    pub schema: bool,

    /// Print Docker Compose's hash of a service (of several: a,b), or of all with `*`
    #[arg(long, group = "list", value_name = "SERVICE", conflicts_with = "no_interpolate")]
    pub hash: Option<String>,

    /// Leave `${…}` as it is
    #[arg(long)]
    pub no_interpolate: bool,

    /// Do not fill in names, the default network and implied dependencies
    #[arg(long)]
    pub no_normalize: bool,

    /// Leave paths as they are
    #[arg(long)]
    pub no_path_resolution: bool,

    /// Do not check that what is referred to exists
    #[arg(long)]
    pub no_consistency: bool,

    /// Do not read environment files
    #[arg(long)]
    pub no_env_resolution: bool,

    /// Put the digests of images behind their names, as the local engine knows them
    #[arg(long, conflicts_with_all = ["list", "expanded", "quiet"])]
    pub resolve_image_digests: bool,

    /// Print a file that pins the images to their digests, to be put over the others
    #[arg(long, conflicts_with_all = ["list", "expanded", "quiet"])]
    pub lock_image_digests: bool,

    /// Put patterns in, make every short form long, and say behind each line where it comes from
    #[arg(long, conflicts_with_all = ["list", "no_interpolate"])]
    pub expanded: bool,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Services, with what they depend on; default: all
    #[arg(value_name = "SERVICE")]
    pub names: Vec<ServiceName>,
}

/// Form of `config`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ConfigFormat {
    /// YAML.
    #[default]
    Yaml,
    /// JSON.
    Json,
}

/// `ls`.
#[derive(Debug, Clone, Default, Args)]
pub struct LsArgs {
    /// Show stopped projects too
    #[arg(short, long)]
    pub all: bool,

    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,

    /// Only projects whose name has this in it, a regular expression; may be given several times
    #[arg(long = "filter", value_name = "name=PATTERN", value_parser = parse_name)]
    pub names: Vec<String>,

    /// Form of the list
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TableFormat,
}

fn parse_name(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("name", pattern)) => Ok(pattern.to_owned()),
        Some((key, _)) => Err(format!("invalid filter `{key}`")),
        None => Err("expected name=PATTERN".to_owned()),
    }
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

/// Docker Compose takes any negative number for "all".
pub(super) fn parse_tail(text: &str) -> Result<Tail, String> {
    match text.parse::<i64>() {
        Ok(lines) => Ok(u64::try_from(lines).map_or(Tail::All, Tail::Lines)),
        Err(_) if text == "all" => Ok(Tail::All),
        Err(_) => Err("expected a number of lines or `all`".to_owned()),
    }
}

impl Tail {
    /// Returns the number of lines as the engine takes it.
    pub fn lines(self) -> Option<u64> {
        match self {
            Self::All => None,
            Self::Lines(lines) => Some(lines),
        }
    }
}

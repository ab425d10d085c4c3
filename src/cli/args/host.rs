//! Flags of `orch host` and `orch status`.

use clap::{Args, Subcommand};

use crate::ids::HostName;

use super::TableFormat;

/// `host`.
#[derive(Debug, Clone, Args)]
pub struct HostArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: HostVerb,
}

/// What to do with hosts.
#[derive(Debug, Clone, Subcommand)]
pub enum HostVerb {
    /// Make hosts part of the cluster; the first one founds it
    Add(HostAddArgs),
    /// List the hosts
    Ls(HostLsArgs),
    /// Show all that is known of a host, as JSON
    Inspect(HostNameArgs),
    /// Set labels of a host (`KEY=VALUE`) or take them away (`KEY-`)
    Label(HostLabelArgs),
    /// Take hosts out of the cluster and remove orch from them
    Rm(HostRmArgs),
    /// Make a host the one that decides, and keeps what shall run
    Seat(HostSeatArgs),
    /// Let a host take no new pods, and move those that can run elsewhere
    Drain(HostNameArgs),
    /// Let a host take pods again
    Uncordon(HostNameArgs),
}

/// `host add`.
#[derive(Debug, Clone, Default, Args)]
pub struct HostAddArgs {
    /// Set a label on the hosts; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,

    /// Where the other hosts reach this one, if not where SSH does
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub address: Option<String>,

    /// Replace agents of the hosts although they are newer than this orch
    #[arg(long)]
    pub allow_downgrade: bool,

    /// Names and addresses of the hosts; a name alone where a file says its address
    #[arg(required = true, value_name = "NAME ssh://[USER@]ADDRESS[:PORT]")]
    pub hosts: Vec<String>,
}

/// `host ls`.
#[derive(Debug, Clone, Default, Args)]
pub struct HostLsArgs {
    /// Form of the list; JSON has one object a line
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TableFormat,

    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `status`.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {
    /// Form of the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: super::TextFormat,
}

/// `host seat`.
#[derive(Debug, Clone, Args)]
pub struct HostSeatArgs {
    /// Also when the host that decides now cannot be reached: it is gone for good, or obeys once it is back
    #[arg(short, long)]
    pub force: bool,

    /// Name of the host
    pub name: HostName,
}

/// A host by its name.
#[derive(Debug, Clone, Args)]
pub struct HostNameArgs {
    /// Name of the host
    pub name: HostName,
}

/// `host label`.
#[derive(Debug, Clone, Args)]
pub struct HostLabelArgs {
    /// Name of the host
    pub name: HostName,

    /// Labels
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = parse_label_change)]
    pub changes: Vec<LabelChange>,
}

/// `host rm`.
#[derive(Debug, Clone, Args)]
pub struct HostRmArgs {
    /// Also when pods are placed on it, or it does not answer
    #[arg(short, long)]
    pub force: bool,

    /// Names of the hosts
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<HostName>,
}

/// A change of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    /// Set it.
    Set(String, String),
    /// Take it away.
    Remove(String),
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn parse_label_change(text: &str) -> Result<LabelChange, String> {
    if let Ok((key, value)) = parse_label(text) {
        return Ok(LabelChange::Set(key, value));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() => Ok(LabelChange::Remove(key.to_owned())),
        _ => Err("expected KEY=VALUE, or KEY- to take it away".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_or_taken_away() {
        let set = |key: &str, value: &str| Ok(LabelChange::Set(key.to_owned(), value.to_owned()));
        assert_eq!(parse_label_change("disk=ssd"), set("disk", "ssd"));
        assert_eq!(parse_label_change("disk="), set("disk", ""));
        assert_eq!(parse_label_change("a-b=c-"), set("a-b", "c-"));
        assert_eq!(parse_label_change("disk-"), Ok(LabelChange::Remove("disk".to_owned())));
        for wrong in ["", "disk", "=x", "-"] {
            assert!(parse_label_change(wrong).is_err(), "{wrong}");
        }
    }
}

//! `orch version`.

use crate::cli::args::{VersionArgs, VersionFormat};
use crate::cli::error::CliError;
use crate::cli::ui::Ui;

/// Version of orch.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the version.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn run(ui: &mut Ui, args: &VersionArgs) -> Result<(), CliError> {
    match args.format {
        _ if args.short => ui.line(VERSION),
        VersionFormat::Pretty => ui.line(&format!("orch version {VERSION}")),
        VersionFormat::Json => ui.json(&serde_json::json!({ "version": VERSION })),
    }
}

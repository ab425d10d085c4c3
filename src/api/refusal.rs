//! Errors that an agent and the CLI without one say in the same words.

use super::types::{ApiError, ErrorKind};
use crate::ids::ProjectName;

impl ApiError {
    /// Returns the error for what is asked of a project that somebody else runs: only `up` changes that.
    pub fn not_ours(project: &ProjectName) -> Self {
        let message = format!(
            "nothing was done: project `{project}` was started by Docker Compose; `orch up -d` takes it over as it runs"
        );
        Self { message, kind: ErrorKind::User }
    }
}

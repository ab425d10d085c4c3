//! How the process ends: one table from kinds of errors to exit codes.

use std::process::ExitCode;

use super::error::CliError;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Success,
    /// 1: something is wrong, and was said.
    Failure,
    /// 130: the user cancelled.
    Cancelled,
    /// What a command that ran in a container returned.
    Code(u8),
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user's: flags, files, names.
    User,
    /// A host's: its engine, its disk, its network.
    Host,
    /// Somebody else changed the same thing.
    Conflict,
    /// orch's.
    Internal,
    /// Nobody's: the user cancelled.
    Cancelled,
}

impl Exit {
    /// Returns how the process ends after `error`.
    pub fn of(error: &CliError) -> Self {
        Self::from(error.kind())
    }

    /// Returns how the process ends when a container or an `exec` ended with `code`.
    ///
    /// The kernel keeps eight bits; an engine's code outside of them (it has none) counts as failed.
    pub fn of_container(code: i64) -> Self {
        match u8::try_from(code) {
            Ok(0) => Self::Success,
            Ok(code) => Self::Code(code),
            Err(_) => Self::Failure,
        }
    }
}

impl From<Kind> for Exit {
    /// The table. Docker Compose ends with 1 whatever went wrong, and scripts compare with that: kinds differ in
    /// their text and in JSON, not in the code.
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::User | Kind::Host | Kind::Conflict | Kind::Internal => Self::Failure,
            Kind::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::SUCCESS,
            Exit::Failure => Self::FAILURE,
            Exit::Cancelled => Self::from(130),
            Exit::Code(code) => Self::from(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_end_as_docker_compose_does() {
        for kind in [Kind::User, Kind::Host, Kind::Conflict, Kind::Internal] {
            assert_eq!(ExitCode::from(Exit::from(kind)), ExitCode::FAILURE, "{kind:?}");
        }
        assert_eq!(ExitCode::from(Exit::from(Kind::Cancelled)), ExitCode::from(130));
    }

    #[test]
    fn a_commands_own_code_is_passed_on() {
        for (code, exit) in
            [(0, Exit::Success), (7, Exit::Code(7)), (137, Exit::Code(137)), (256, Exit::Failure), (-1, Exit::Failure)]
        {
            assert_eq!(Exit::of_container(code), exit, "{code}");
        }
    }
}

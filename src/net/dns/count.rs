//! Counters of answers: where they came from and what they said. Read from the answers' own bytes, so that none is forgotten.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The table of names.
    Table,
    /// A resolver, earlier.
    Cache,
    /// A resolver, now; also where none could be asked or none answered.
    Resolver,
}

impl Origin {
    const ALL: [Self; 3] = [Self::Table, Self::Cache, Self::Resolver];

    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Cache => "cache",
            Self::Resolver => "resolver",
        }
    }
}

/// What an answer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    /// Something.
    Found,
    /// The name is known, and has nothing of that kind.
    Empty,
    /// There is no such name.
    NoName,
    /// Nobody could say (`SERVFAIL`).
    Failed,
    /// The asker may not know (`REFUSED`).
    Refused,
    /// The question made no sense, or is of a kind that is not served.
    Other,
}

impl Said {
    const ALL: [Self; 6] = [Self::Found, Self::Empty, Self::NoName, Self::Failed, Self::Refused, Self::Other];

    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Empty => "empty",
            Self::NoName => "no_name",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }

    /// Reads it from a message. Source: RFC 1035, section 4.1.1.
    fn of(message: &[u8]) -> Self {
        let Some(header) = message.first_chunk::<12>() else { return Self::Other };
        match header[3] & 0x0f {
            0 if header[6..8] == [0, 0] => Self::Empty,
            0 => Self::Found,
            2 => Self::Failed,
            3 => Self::NoName,
            5 => Self::Refused,
            _ => Self::Other,
        }
    }
}

/// Answers of a server since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsStats {
    /// How many of which kind; all kinds are in it.
    pub answers: Vec<(Origin, Said, u64)>,
    /// Messages that were no questions, and got no answer.
    pub ignored: u64,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counts {
    answers: [[AtomicU64; Said::ALL.len()]; Origin::ALL.len()],
    ignored: AtomicU64,
}

impl Counts {
    /// Counts an answer that is about to be sent.
    pub(super) fn answer(&self, origin: Origin, message: &[u8]) {
        self.answers[origin as usize][Said::of(message) as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what gets no answer.
    pub(super) fn ignore(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> DnsStats {
        let count = |origin: Origin, said: Said| self.answers[origin as usize][said as usize].load(Ordering::Relaxed);
        let kinds = Origin::ALL.into_iter().flat_map(|origin| Said::ALL.map(|said| (origin, said)));
        DnsStats {
            answers: kinds.map(|(origin, said)| (origin, said, count(origin, said))).collect(),
            ignored: self.ignored.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_itself_what_it_is() {
        let message = |code: u8, answers: u8| [0, 1, 0x84, code, 0, 1, 0, answers, 0, 0, 0, 0];
        for (code, answers, said) in [
            (0x80, 2, Said::Found),
            (0x80, 0, Said::Empty),
            (0x83, 0, Said::NoName),
            (2, 0, Said::Failed),
            (5, 0, Said::Refused),
            (1, 0, Said::Other),
        ] {
            assert_eq!(Said::of(&message(code, answers)), said);
        }
        assert_eq!(Said::of(b"short"), Said::Other);
    }
}

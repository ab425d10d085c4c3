//! Times of log lines: Podman writes whole seconds, in the zone of the container's host, where Docker has nine digits.
//!
//! Readers tell lines that they have seen from new ones by these times. So lines of one second are counted, and the count
//! stands for the digits: who reads from the beginning of a second finds the same times again.

use bytes::Bytes;
use jiff::Timestamp;

use crate::engine::LogChunk;

/// What was read so far.
#[derive(Debug, Default)]
pub(in crate::engine::docker) struct Times {
    second: i64,
    lines: i64,
    /// Whether the last piece of standard output, and of standard error, was the beginning of a line: then the next one is
    /// the rest of it, with a time of its own in the middle.
    unfinished: [bool; 2],
}

impl Times {
    /// Takes a piece of one line, or a whole one, as Podman sends them.
    pub(in crate::engine::docker) fn rewrite(&mut self, chunk: LogChunk) -> LogChunk {
        let LogChunk { stderr, bytes } = chunk;
        let unfinished = &mut self.unfinished[usize::from(stderr)];
        let continued = std::mem::replace(unfinished, !bytes.ends_with(b"\n"));
        let Some((time, rest)) = split(&bytes) else { return LogChunk { stderr, bytes } };
        if continued {
            return LogChunk { stderr, bytes: bytes.slice_ref(rest) };
        }
        let second = time.as_second();
        self.lines = if second == self.second { self.lines + 1 } else { 0 };
        self.second = second;
        // A thousand million lines in a second are not written.
        let nanos = i32::try_from(self.lines).unwrap_or(i32::MAX).min(999_999_999);
        let time = Timestamp::new(second, nanos).unwrap_or(time);
        let text = format!("{time:.9} ");
        LogChunk { stderr, bytes: Bytes::from([text.as_bytes(), rest].concat()) }
    }
}

/// Splits `2026-11-28T17:38:58Z text` and `2026-11-28T18:38:58+01:00 text`.
fn split(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    const LONGEST: usize = "2026-11-28T17:38:58.123456789+01:00 ".len();
    let at = bytes.iter().take(LONGEST).position(|byte| *byte == b' ')?;
    let time = std::str::from_utf8(&bytes[..at]).ok()?.parse().ok()?;
    Some((time, &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[(bool, &'static str)], expected: &[&str]) {
        let mut times = Times::default();
        let read = pieces.iter().map(|(stderr, text)| {
            let chunk = times.rewrite(LogChunk { stderr: *stderr, bytes: Bytes::from_static(text.as_bytes()) });
            assert_eq!(chunk.stderr, *stderr);
            String::from_utf8(chunk.bytes.to_vec()).expect("text")
        });
        assert_eq!(read.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lines_of_a_second_are_counted() {
        check(
            &[
                (false, "2026-11-28T17:38:58Z one\n"),
                (true, "2026-11-28T17:38:58Z two\n"),
                (false, "2026-11-28T17:38:59Z three\n"),
                (false, "2026-11-28T18:39:00+01:00 four\n"),
                (false, "2026-11-28T17:39:00Z \n"),
            ],
            &[
                "2026-11-28T17:38:58.000000000Z one\n",
                "2026-11-28T17:38:58.000000001Z two\n",
                "2026-11-28T17:38:59.000000000Z three\n",
                "2026-11-28T17:39:00.000000000Z four\n",
                "2026-11-28T17:39:00.000000001Z \n",
            ],
        );
    }

    #[test]
    fn a_line_in_pieces_has_one_time() {
        check(
            &[
                (false, "2026-11-28T17:38:58Z long"),
                (true, "2026-11-28T17:38:58Z between\n"),
                (false, "2026-11-28T17:38:59Z er\n"),
                (false, "2026-11-28T17:38:59Z next\n"),
            ],
            &[
                "2026-11-28T17:38:58.000000000Z long",
                "2026-11-28T17:38:58.000000001Z between\n",
                "er\n",
                "2026-11-28T17:38:59.000000000Z next\n",
            ],
        );
    }

    #[test]
    fn what_has_no_time_stays_as_it_is() {
        check(&[(false, "no time\n"), (false, ""), (false, "word\n")], &["no time\n", "", "word\n"]);
    }
}

//! Follows a chunked body byte by byte, to know where it ends. Changes nothing, and takes nothing that can be read in two
//! ways: sizes are hexadecimal digits only, every line ends in CR LF. Pure.
//!
//! Source: RFC 9112, section 7.1.

/// Longest extension of a chunk: nobody uses them, and they must not keep a connection busy for nothing.
const MAX_EXTENSION: u32 = 4096;

/// Longest trailer section.
const MAX_TRAILERS: u32 = 16 * 1024;

/// Digits of a chunk's size; more than 2^56 bytes nobody sends.
const MAX_DIGITS: u8 = 14;

/// How far a chunked body was followed.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunks {
    at: At,
    /// Bytes left of the current chunk, or its size as far as it was read.
    left: u64,
    digits: u8,
    /// Length of the extension or of the trailers so far.
    extra: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line of the trailers, in the name of a field, and in its value.
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

/// A body that is not chunked as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chunk is malformed")]
pub(super) struct BadChunk;

impl Chunks {
    /// Returns whether the end was reached.
    pub(super) fn is_done(&self) -> bool {
        self.at == At::End
    }

    /// Follows the body through `bytes`; returns how many of them belong to it.
    ///
    /// # Errors
    /// It is malformed, from here on for good.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < bytes.len() && self.at != At::End {
            if self.at == At::Data {
                let piece = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += piece;
                self.left -= piece as u64;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.at = match (self.at, byte) {
            (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < MAX_DIGITS => {
                self.digits += 1;
                self.left = self.left * 16 + u64::from(hex(byte));
                At::Size
            }
            (At::Size, b'\r') if self.digits > 0 => At::SizeLf,
            (At::Size, b';' | b' ' | b'\t') if self.digits > 0 => At::Extension,
            (At::Extension, b'\r') => At::SizeLf,
            (At::Extension, _) => self.more(byte, MAX_EXTENSION, At::Extension)?,
            (At::SizeLf, b'\n') => {
                (self.digits, self.extra) = (0, 0);
                if self.left == 0 { At::TrailerStart } else { At::Data }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size,
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerName, b':') | (At::Trailer, _) => self.more(byte, MAX_TRAILERS, At::Trailer)?,
            (At::TrailerStart | At::TrailerName, _) if is_name(byte) => {
                self.more(byte, MAX_TRAILERS, At::TrailerName)?
            }
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::EndLf, b'\n') => At::End,
            _ => return Err(BadChunk),
        };
        Ok(())
    }

    /// Counts a byte that is neither size nor data.
    fn more(&mut self, byte: u8, most: u32, next: At) -> Result<At, BadChunk> {
        self.extra += 1;
        let is_text = byte == b'\t' || !byte.is_ascii_control();
        if is_text && self.extra <= most { Ok(next) } else { Err(BadChunk) }
    }
}

/// Source: RFC 9110, section 5.6.2.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::tests::tries;
    use proptest::prelude::*;

    /// How many bytes of `text` belong to the body and whether it is done, fed in pieces of `piece` bytes.
    fn follow(text: &[u8], piece: usize) -> Result<(usize, bool), BadChunk> {
        let mut chunks = Chunks::default();
        let mut taken = 0;
        for part in text.chunks(piece) {
            let used = chunks.follow(part)?;
            taken += used;
            if used < part.len() {
                break;
            }
        }
        Ok((taken, chunks.is_done()))
    }

    #[track_caller]
    fn check(text: &str, expected: Result<(usize, bool), BadChunk>) {
        for piece in [1, 2, 3, 1000] {
            assert_eq!(follow(text.as_bytes(), piece), expected, "{text:?} in pieces of {piece}");
        }
    }

    #[test]
    fn whole_bodies_end_where_they_end() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n00\r\n\r\n",
            "3;name=\"x y\"\r\nabc\r\n0\r\n\r\n",
            "3 ;a\r\n\r\n\r\r\n0\r\n\r\n",
            "1\r\nx\r\n0\r\nTrailer: 1\r\nOther: 2\r\n\r\n",
        ] {
            check(body, Ok((body.len(), true)));
            check(&format!("{body}GET / HTTP/1.1\r\n"), Ok((body.len(), true)));
            for cut in 0..body.len() {
                check(&body[..cut], Ok((cut, false)));
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for body in [
            "\r\n",
            ";x\r\n",
            "x\r\n",
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "-1\r\n",
            "5\nhello\r\n",
            "5\r\nhello\n",
            "5\r\nhelloo\r\n",
            "5\r\nhello0\r\n\r\n",
            "0\r\nTrailer: 1\n\r\n",
            "0\r\n\n",
            "5\r5\r\nhello\r\n",
            "3;a\nb\r\nabc\r\n",
            "3;\0\r\nabc\r\n",
            "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\nA: b\r\n folded\r\n\r\n",
            "100000000000000000000\r\n",
        ] {
            check(body, Err(BadChunk));
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let body = |extension, trailer| {
            let (extension, trailer) = ("x".repeat(extension), "x".repeat(trailer));
            format!("1;{extension}\r\na\r\n0\r\nA: {trailer}\r\n\r\n")
        };
        assert!(follow(body(4000, 16_000).as_bytes(), 1000).is_ok_and(|(_, done)| done));
        assert_eq!(follow(body(5000, 1).as_bytes(), 1000), Err(BadChunk));
        assert_eq!(follow(body(1, 20_000).as_bytes(), 1000), Err(BadChunk));
    }

    proptest! {
        #![proptest_config(tries(1000))]

        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'3'), any::<u8>()], 0..60),
            piece in 1_usize..10,
        ) {
            prop_assert_eq!(follow(&bytes, piece), follow(&bytes, 1000));
        }

        #[test]
        fn what_was_chunked_is_followed_to_its_end(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
            piece in 1_usize..50,
        ) {
            let mut body = Vec::new();
            for data in &pieces {
                body.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                body.extend_from_slice(data);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let length = body.len();
            body.extend_from_slice(b"rest");
            prop_assert_eq!(follow(&body, piece), Ok((length, true)));
        }
    }
}

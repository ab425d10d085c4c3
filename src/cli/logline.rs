//! Lines of containers: put together from pieces, with the container's name in front, each name in its colour.

use std::collections::BTreeMap;

/// Colours for names, one after the other. Source: observed from Docker Compose 2.40.
const COLOURS: [&str; 10] = ["36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1"];

/// Longest line kept together; what is longer is cut into several. A container that never ends its line must not fill
/// the memory.
const MAX_LINE: usize = 256 * 1024;

/// Puts names before lines.
#[derive(Debug, Default)]
pub(crate) struct Names {
    prefix: bool,
    colour: bool,
    width: usize,
    colours: BTreeMap<String, &'static str>,
}

impl Names {
    /// Names that are shown (`prefix`), in colours (`colour`).
    pub(crate) fn new(prefix: bool, colour: bool) -> Self {
        Self { prefix, colour, width: 0, colours: BTreeMap::new() }
    }

    /// Announces a name: lines written from now on are aligned to the longest.
    pub(crate) fn add(&mut self, name: &str) {
        self.width = self.width.max(name.len());
        let next = COLOURS[self.colours.len() % COLOURS.len()];
        self.colours.entry(name.to_owned()).or_insert(next);
    }

    /// Returns `line` (without its end) with the name before and the end after it.
    pub(crate) fn line(&self, name: &str, line: &[u8]) -> Vec<u8> {
        let mut text = self.before(name).into_bytes();
        text.extend_from_slice(line);
        text.push(b'\n');
        text
    }

    fn before(&self, name: &str) -> String {
        if !self.prefix {
            return String::new();
        }
        let padded = format!("{name:width$}  | ", width = self.width);
        match self.colours.get(name) {
            Some(colour) if self.colour => format!("\x1b[{colour}m{padded}\x1b[0m"),
            _ => padded,
        }
    }
}

/// Puts lines together from pieces.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Takes in a piece. Returns the lines that it completes, without their ends (`\n` or `\r\n`).
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.0.pop();
                if self.0.last() == Some(&b'\r') {
                    self.0.pop();
                }
                lines.push(std::mem::take(&mut self.0));
            } else if self.0.len() >= MAX_LINE {
                lines.push(std::mem::take(&mut self.0));
            }
        }
        lines
    }

    /// Returns what is left when nothing more comes: a last line without an end.
    pub(crate) fn rest(&mut self) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then(|| std::mem::take(&mut self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_aligned_to_the_longest() {
        let mut names = Names::new(true, false);
        names.add("web-1");
        names.add("backend-12");
        assert_eq!(names.line("web-1", b"hello"), b"web-1       | hello\n");
        assert_eq!(names.line("backend-12", b""), b"backend-12  | \n");
    }

    #[test]
    fn each_name_keeps_its_colour() {
        let mut names = Names::new(true, true);
        names.add("a");
        names.add("b");
        names.add("a");
        let line = String::from_utf8(names.line("b", b"x")).expect("text");
        assert_eq!(line, "\x1b[33mb  | \x1b[0mx\n");
    }

    #[test]
    fn without_prefix_a_line_is_as_it_was_written() {
        assert_eq!(Names::new(false, true).line("a", b"\xffx"), b"\xffx\n");
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"he"), Vec::<Vec<u8>>::new());
        assert_eq!(lines.push(b"llo\r\n\nwor"), vec![b"hello".to_vec(), b"".to_vec()]);
        assert_eq!(lines.push(b"ld\nrest"), vec![b"world".to_vec()]);
        assert_eq!(lines.rest(), Some(b"rest".to_vec()));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn a_line_without_end_does_not_grow_without_bound() {
        let mut lines = Lines::default();
        let pieces = (0..40).flat_map(|_| lines.push(&vec![b'x'; 64 * 1024]));
        assert!(pieces.map(|line| line.len()).all(|len| len <= MAX_LINE + 64 * 1024));
        assert!(lines.0.len() < MAX_LINE);
    }
}

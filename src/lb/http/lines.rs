//! Header fields that go on as they are, written anew from their names and values; several at once where the bytes that came
//! are, one line after the other, the very bytes that would be written. Pure.

use super::answer::push_field;

/// Writes fields of one head.
pub(super) struct Lines<'b> {
    /// The head that they are of.
    head: &'b [u8],
    /// Lines of it that are to be written, and the first of them.
    from: usize,
    to: usize,
}

impl<'b> Lines<'b> {
    /// Begins with fields whose names and values may be slices of `head`.
    pub(super) fn of(head: &'b [u8]) -> Self {
        Self { head, from: 0, to: 0 }
    }

    /// Writes a field, now or with those that follow it.
    pub(super) fn push(&mut self, out: &mut Vec<u8>, name: &str, value: &[u8]) {
        let Some((from, to)) = self.place(name, value) else {
            self.flush(out);
            return push_field(out, name, value);
        };
        if self.to != from {
            self.flush(out);
            self.from = from;
        }
        self.to = to;
    }

    /// Writes what is left. To be called before anything else is written.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head[self.from..self.to]);
        (self.from, self.to) = (0, 0);
    }

    /// Returns where in the head the line is that [`push_field`] would write.
    fn place(&self, name: &str, value: &[u8]) -> Option<(usize, usize)> {
        let from = name.as_ptr().addr().checked_sub(self.head.as_ptr().addr())?;
        let between = from.checked_add(name.len())?;
        let end = between.checked_add(2 + value.len())?;
        let is_value = self.head.get(between + 2..end).is_some_and(|found| std::ptr::eq(found, value));
        let is_written_so = is_value
            && std::ptr::eq(&raw const self.head[from..between], name.as_bytes())
            && self.head[between..].starts_with(b": ")
            && self.head[end..].starts_with(b"\r\n");
        is_written_so.then_some((from, end + 2))
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::room;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_are_what_names_and_values_say(
            lines in proptest::collection::vec("[A-Za-z-]{1,8}:[ \t]{0,2}[!-~]{0,6}[ \t]{0,1}", 0..12),
            stays in proptest::collection::vec(any::<bool>(), 12),
            between in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let head = format!("GET / HTTP/1.1\r\n{}\r\n", lines.iter().map(|line| [line.as_str(), "\r\n"].concat()).collect::<String>());
            let mut room = room();
            let mut request = httparse::Request::new(&mut []);
            prop_assume!(request.parse_with_uninit_headers(head.as_bytes(), &mut room).is_ok_and(|found| found.is_complete()));
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            let mut lines = Lines::of(head.as_bytes());
            for ((field, stays), between) in request.headers.iter().zip(&stays).zip(&between) {
                if *stays {
                    push_field(&mut expected, field.name, field.value);
                    lines.push(&mut found, field.name, field.value);
                }
                if *between {
                    push_field(&mut expected, "Own", b"1");
                    lines.push(&mut found, "Own", b"1");
                }
            }
            lines.flush(&mut found);
            prop_assert_eq!(found.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }

    #[test]
    fn what_lies_so_goes_at_once() {
        let head = b"A: b\r\nC: d\r\nE:f\r\n";
        let mut lines = Lines::of(head);
        let mut out = Vec::new();
        let text = |from: usize, to: usize| str::from_utf8(&head[from..to]).expect("text");
        lines.push(&mut out, text(0, 1), &head[3..4]);
        lines.push(&mut out, text(6, 7), &head[9..10]);
        assert!(out.is_empty(), "two lines in one piece");
        lines.push(&mut out, text(12, 13), &head[14..15]);
        assert_eq!(out, b"A: b\r\nC: d\r\nE: f\r\n");
    }
}

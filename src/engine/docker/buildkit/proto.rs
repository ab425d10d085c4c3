//! Protocol buffers as they are written: the few messages that `BuildKit` and orch exchange are made and read field by field,
//! by their numbers, which is less than generated code and a runtime for it.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is malformed")]
pub(super) struct Malformed;

/// A message that is being written.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Adds a number; 0 is as good as none.
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
        self
    }

    /// Adds text; none where it is empty.
    pub(super) fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// Adds bytes; none where there are none.
    pub(super) fn bytes(self, field: u32, value: &[u8]) -> Self {
        if value.is_empty() { self } else { self.delimited(field, value) }
    }

    /// Adds a message, also an empty one.
    pub(super) fn message(self, field: u32, value: &Self) -> Self {
        self.delimited(field, &value.0)
    }

    /// Adds an entry of a map from text to text.
    pub(super) fn entry(self, field: u32, key: &str, value: &str) -> Self {
        self.message(field, &Self::default().text(1, key).text(2, value))
    }

    /// Adds the entries of a map from text to text.
    pub(super) fn map<'a>(self, field: u32, entries: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        entries.into_iter().fold(self, |message, (key, value)| message.entry(field, key, value))
    }

    /// Returns what was written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn delimited(mut self, field: u32, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number, or eight or four bytes that are one.
    Number(u64),
    /// Bytes, text or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Returns the number; 0 where it is none.
    pub(super) fn number(self) -> u64 {
        if let Self::Number(number) = self { number } else { 0 }
    }

    /// Returns the bytes; none where it is a number.
    pub(super) fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    /// Returns the text.
    pub(super) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// The fields of a message, in their order.
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

/// Returns the fields of a message.
pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(u64::from(u32::from_le_bytes(self.array()?))),
            _ => return Err(Malformed),
        };
        Ok((field, value))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for place in 0..10 {
            let byte = self.array::<1>()?[0];
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Returns the text of a field; empty where there is none. The last one counts.
pub(super) fn text(message: &[u8], wanted: u32) -> Result<String, Malformed> {
    let mut text = String::new();
    for field in fields(message) {
        let (number, value) = field?;
        if number == wanted {
            text = value.text();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::default().text(1, "a").number(2, 300);
        let map = [("k".to_owned(), "v".to_owned()), ("empty".to_owned(), String::new())];
        let message = Message::default()
            .number(1, 0)
            .number(2, u64::MAX)
            .text(3, "")
            .bytes(4, &[0, 255])
            .message(5, &inner)
            .message(6, &Message::default())
            .map(7, map.iter().map(|(key, value)| (key, value)));
        let bytes = message.into_bytes();
        let all: Vec<_> = fields(&bytes).collect::<Result<_, _>>().expect("a message");
        let numbers: Vec<u32> = all.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 4, 5, 6, 7, 7]);
        assert_eq!((all[0].1.number(), all[1].1.bytes()), (u64::MAX, [0, 255].as_slice()));
        assert_eq!(text(all[2].1.bytes(), 1), Ok("a".to_owned()));
        assert_eq!(fields(all[2].1.bytes()).nth(1), Some(Ok((2, Value::Number(300)))));
        assert_eq!((text(all[4].1.bytes(), 1), text(all[4].1.bytes(), 2)), (Ok("k".to_owned()), Ok("v".to_owned())));
        assert_eq!(text(all[5].1.bytes(), 2), Ok(String::new()));
    }

    #[test]
    fn known_bytes() {
        // From the guide: field 1 is 150; field 2 is "testing".
        assert_eq!(Message::default().number(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        let text = [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67];
        assert_eq!(Message::default().text(2, "testing").into_bytes(), text);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [&[0x08][..], &[0x12, 5, 1], &[0xff; 11], &[0x0b], &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            assert_eq!(fields(bytes).last(), Some(Err(Malformed)), "{bytes:?}");
        }
        assert_eq!(fields(&[]).next(), None);
    }
}

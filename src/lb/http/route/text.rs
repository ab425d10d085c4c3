//! A text that a table is asked for: a short one lies beside what it names.
//!
//! In a large table what is asked for is rarely in the caches, and a text elsewhere is one more look into memory.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// Longest text that is kept in place.
const SHORT: usize = 30;

#[derive(Clone)]
pub(super) enum Text {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl From<&[u8]> for Text {
    fn from(text: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text);
                Self::Short(length, bytes)
            }
            _ => Self::Long(text.into()),
        }
    }
}

impl std::ops::Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => &bytes[..usize::from(*length).min(SHORT)],
            Self::Long(text) => text,
        }
    }
}

impl Borrow<[u8]> for Text {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_text_is_found_whatever_its_length() {
        let texts: Vec<Vec<u8>> = (0..100).map(|length| vec![b'x'; length]).collect();
        let table: HashMap<Text, usize> = texts.iter().map(|text| (text.as_slice().into(), text.len())).collect();
        for text in &texts {
            assert_eq!(table.get(text.as_slice()), Some(&text.len()));
            assert_eq!(*Text::from(text.as_slice()), **text);
        }
        assert_eq!(size_of::<Text>(), 32);
    }
}

//! The path of a value, for messages: `services.web.ports[0].target`.

use std::fmt;

/// A step below a parent; lives on the stack of the walk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    /// The whole file.
    Root,
    /// A key of a mapping.
    Key(&'a Path<'a>, &'a str),
    /// An item of a list.
    Item(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    /// Returns the path of a key.
    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Self::Key(self, key)
    }

    /// Returns the path of an item.
    pub(super) fn item(&'a self, index: usize) -> Self {
        Self::Item(self, index)
    }

    /// Returns whether it is in an item of a list, which further files do not reach by a path.
    pub(super) fn is_in_list(&self) -> bool {
        match self {
            Self::Root => false,
            Self::Key(parent, _) => parent.is_in_list(),
            Self::Item(..) => true,
        }
    }

    /// Returns how a message names the place: "in services.web".
    pub(super) fn inside(&self) -> String {
        if matches!(self, Self::Root) { "at the top level".to_owned() } else { format!("in `{self}`") }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

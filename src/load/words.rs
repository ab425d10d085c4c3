//! Splits the text form of `command` and `entrypoint` into words as a shell would, without running one.
//!
//! Quotes and backslashes as in POSIX. Docker Compose silently drops everything behind an unquoted `|`, `;`, `>`, `<`
//! or `&`; here that is an error, because what is written would not be what runs.

use std::ops::Range;

/// Why a command cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsplittable {
    /// A character that only a shell understands.
    #[error("`{0}` is for a shell, but no shell runs this command")]
    Shell(char, Range<usize>),
    /// A quote without an end.
    #[error("this quote has no end")]
    Quote(Range<usize>),
    /// Nothing follows the last backslash.
    #[error("nothing follows this backslash")]
    Backslash(Range<usize>),
}

impl Unsplittable {
    /// Returns where it is, in bytes.
    pub(super) fn range(&self) -> Range<usize> {
        match self {
            Self::Shell(_, range) | Self::Quote(range) | Self::Backslash(range) => range.clone(),
        }
    }
}

/// Returns the words of `text`.
pub(super) fn split(text: &str) -> Result<Vec<String>, Unsplittable> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<(char, usize)> = None;
    let mut substitution = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote.is_none_or(|(quote, _)| quote == '"') {
            let (_, escaped) = chars.next().ok_or(Unsplittable::Backslash(at..at + 1))?;
            word.get_or_insert_default().push(escaped);
            continue;
        }
        match (c, quote) {
            (_, Some((open, _))) if c == open => {
                quote = None;
                // Back quotes stay in the word, as does everything between them.
                if c == '`' {
                    word.get_or_insert_default().push(c);
                }
            }
            ('"' | '\'' | '`', None) => {
                quote = Some((c, at));
                let word = word.get_or_insert_default();
                if c == '`' {
                    word.push(c);
                }
            }
            ('(', None) if word.as_ref().is_some_and(|word| word.ends_with('$')) && !substitution => {
                substitution = true;
                word.get_or_insert_default().push(c);
            }
            (')', None) if substitution => {
                substitution = false;
                word.get_or_insert_default().push(c);
            }
            ('|' | ';' | '<' | '>' | '&' | '(' | ')', None) if !substitution => {
                return Err(Unsplittable::Shell(c, at..at + 1));
            }
            (' ' | '\t' | '\n' | '\r', None) if !substitution => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if let Some((_, at)) = quote {
        return Err(Unsplittable::Quote(at..at + 1));
    }
    if substitution {
        return Err(Unsplittable::Quote(text.len() - 1..text.len()));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row was run through Docker Compose 2.40.
    #[test]
    fn words() {
        for (text, expected) in [
            ("echo \"hi $X\" 'a b'", vec!["echo", "hi $X", "a b"]),
            ("a \"b\\tc\\n\" d\\te 'f\\n'", vec!["a", "btcn", "dte", "f\\n"]),
            ("echo `date` x", vec!["echo", "`date`", "x"]),
            ("echo $(date) x", vec!["echo", "$(date)", "x"]),
            ("a \"\" b", vec!["a", "", "b"]),
            ("a#b #c", vec!["a#b", "#c"]),
            ("a {b,c} *", vec!["a", "{b,c}", "*"]),
            ("a\nb\tc", vec!["a", "b", "c"]),
            ("", vec![]),
            ("  ", vec![]),
            ("a \\| b", vec!["a", "|", "b"]),
        ] {
            assert_eq!(split(text), Ok(expected.into_iter().map(str::to_owned).collect()), "{text}");
        }
    }

    #[test]
    fn what_docker_compose_drops_is_refused_with_its_place() {
        for (text, expected) in [
            ("a | b", Unsplittable::Shell('|', 2..3)),
            ("a; b", Unsplittable::Shell(';', 1..2)),
            ("a 2>x", Unsplittable::Shell('>', 3..4)),
            ("a && b", Unsplittable::Shell('&', 2..3)),
            ("a (b)", Unsplittable::Shell('(', 2..3)),
            ("a 'b", Unsplittable::Quote(2..3)),
            ("a\\", Unsplittable::Backslash(1..2)),
            ("a $(b", Unsplittable::Quote(4..5)),
        ] {
            assert_eq!(split(text), Err(expected), "{text}");
        }
    }
}

//! Errors in words: with their causes on one line, and those of the system as Docker's tools have them.

use std::borrow::Cow;
use std::error::Error;
use std::io;

/// How Rust says which number an error of the system has.
const NUMBER: &str = " (os error ";

/// Returns the causes of an error, outermost first; those that the text before has said already are left out.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            causes.push(plain(&text).into_owned());
            said = text;
        }
        next = cause.source();
    }
    causes
}

/// Returns an error with its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let said = plain(&error.to_string()).into_owned();
    std::iter::once(said).chain(causes(error)).collect::<Vec<_>>().join(": ")
}

/// Returns a text in which errors of the system read as everywhere else: `no such file or directory` rather than
/// `No such file or directory (os error 2)`. The number is the same in other words, and means nothing to who reads it.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(NUMBER) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(NUMBER) {
        let number = after.split_once(')').and_then(|(number, behind)| Some((number.parse::<i32>().ok()?, behind)));
        let Some((number, behind)) = number else {
            plain.extend([before, NUMBER]);
            rest = after;
            continue;
        };
        let whole = io::Error::from_raw_os_error(number).to_string();
        let words = whole.split(NUMBER).next().unwrap_or_default();
        match before.strip_suffix(words) {
            Some(before) => {
                plain.push_str(before);
                plain.push_str(&in_a_sentence(words));
            }
            None => plain.push_str(before),
        }
        rest = behind;
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// `No such device` within a sentence; `I/O error` stays.
fn in_a_sentence(words: &str) -> String {
    let mut chars = words.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        // "A signal …" is a word of one letter.
        (Some(first), Some(' ')) => first.to_lowercase().chain(chars).collect(),
        _ => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("`{0}` could not be read")]
    struct Unread(&'static str, #[source] io::Error);

    fn missing() -> io::Error {
        io::Error::from_raw_os_error(2)
    }

    #[test]
    fn errors_of_the_system_are_words_without_numbers() {
        assert_eq!(plain(&missing().to_string()), "no such file or directory");
        assert_eq!(plain(&format!("/x: {} in a", missing())), "/x: no such file or directory in a");
        let denied = io::Error::from_raw_os_error(13);
        assert_eq!(plain(&format!("{}; {denied}.", missing())), "no such file or directory; permission denied.");
        for (words, within) in [("I/O error", "I/O error"), ("Is a directory", "is a directory"), ("", "")] {
            assert_eq!(in_a_sentence(words), within);
        }
        for as_is in ["nothing", "(os error 2)", "x (os error two)", "x (os error 2", ""] {
            assert_eq!(plain(as_is), as_is);
        }
        // Of another system, whose words are others.
        assert_eq!(plain("Datei fehlt (os error 2)"), "Datei fehlt");
    }

    #[test]
    fn causes_are_said_once() {
        assert_eq!(chain(&Unread("a", missing())), "`a` could not be read: no such file or directory");
        let twice = io::Error::other(Unread("b", missing()));
        assert_eq!(chain(&twice), "`b` could not be read: no such file or directory");
    }
}

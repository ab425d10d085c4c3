//! Variables in text: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${NAME:+replacement}`.
//!
//! Text is parsed into [`Part`]s first, then evaluated, so that defaults are only looked at when they are needed and
//! `config --variables` can list what a file asks for. Source: compose-spec 12-interpolation.md; what the specification
//! leaves open follows runs of Docker Compose 2.40 (the tables of the tests).

use std::ops::Range;

/// Deepest nesting of `${A:-${B:-…}}`.
const MAX_DEPTH: usize = 50;
/// Longest result, in bytes: a chain of variables in `.env` could otherwise grow without bound.
const MAX_LENGTH: usize = 1 << 20;
/// Characters of the message of `${NAME:?message}` that are shown: variables may be in it.
const MAX_MESSAGE: usize = 1_000;

/// A piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Literal(String),
    /// A variable.
    Variable(Variable),
}

/// A variable in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What to do when it is unset, empty or set.
    pub operator: Option<Operator>,
    /// Where it stands in the text, in bytes.
    pub range: Range<usize>,
}

/// What follows the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Which.
    pub kind: OperatorKind,
    /// With a colon: an empty value counts as unset.
    pub colon: bool,
    /// Default, message or replacement.
    pub word: Vec<Part>,
}

/// The three operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorKind {
    /// `-`: used when unset.
    Default,
    /// `?`: the error when unset.
    Required,
    /// `+`: used when set.
    Replacement,
}

/// Why text could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// `${` without a name, an end or a known operator.
    #[error("invalid interpolation format")]
    Format(Range<usize>),
    /// `${NAME:?message}` of a variable that is not set.
    #[error("required variable {name} is missing a value{}", message_suffix(message))]
    Required {
        /// The variable.
        name: String,
        /// The message given; may be empty.
        message: String,
        /// Where.
        range: Range<usize>,
    },
    /// The result would be longer than 1 MiB.
    #[error("the variables here expand to more than {} MiB", MAX_LENGTH >> 20)]
    TooLong(Range<usize>),
}

impl Failure {
    /// Returns where it is, in bytes of the text.
    pub fn range(&self) -> Range<usize> {
        match self {
            Self::Format(range) | Self::TooLong(range) | Self::Required { range, .. } => range.clone(),
        }
    }
}

fn message_suffix(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// What became of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The text with all variables replaced.
    pub text: String,
    /// Variables that are not set and have no default, in order.
    pub missing: Vec<(String, Range<usize>)>,
}

/// Replaces the variables of `text` by what `lookup` knows.
///
/// # Errors
/// [`Failure`] with its place in `text`.
pub fn replace<'v>(text: &str, lookup: &dyn Fn(&str) -> Option<&'v str>) -> Result<Replaced, Failure> {
    let mut out = Replaced::default();
    for part in parse(text)? {
        evaluate(&part, lookup, &mut out)?;
    }
    Ok(out)
}

fn evaluate<'v>(part: &Part, lookup: &dyn Fn(&str) -> Option<&'v str>, out: &mut Replaced) -> Result<(), Failure> {
    let variable = match part {
        Part::Literal(text) => {
            out.text.push_str(text);
            return Ok(());
        }
        Part::Variable(variable) => variable,
    };
    let value = lookup(&variable.name);
    let empty_counts = variable.operator.as_ref().is_some_and(|operator| operator.colon);
    let present = value.filter(|value| !(empty_counts && value.is_empty()));
    match (&variable.operator, present) {
        (Some(Operator { kind: OperatorKind::Replacement, word, .. }), Some(_))
        | (Some(Operator { kind: OperatorKind::Default, word, .. }), None) => {
            for part in word {
                evaluate(part, lookup, out)?;
            }
        }
        (Some(Operator { kind: OperatorKind::Replacement, .. }), None) => {}
        (Some(Operator { kind: OperatorKind::Required, word, .. }), None) => {
            let mut message = Replaced::default();
            for part in word {
                evaluate(part, lookup, &mut message)?;
            }
            let (name, range) = (variable.name.clone(), variable.range.clone());
            let message = message.text.chars().take(MAX_MESSAGE).collect();
            return Err(Failure::Required { name, message, range });
        }
        (_, Some(value)) => out.text.push_str(value),
        (None, None) => out.missing.push((variable.name.clone(), variable.range.clone())),
    }
    if out.text.len() > MAX_LENGTH { Err(Failure::TooLong(variable.range.clone())) } else { Ok(()) }
}

/// Takes a text apart.
///
/// # Errors
/// [`Failure::Format`] where `${` is not followed by a name, a known operator and an end.
pub fn parse(text: &str) -> Result<Vec<Part>, Failure> {
    parse_at(text, 0, 0, &Braces::of(text))
}

fn parse_at(text: &str, offset: usize, depth: usize, braces: &Braces) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('$') {
        let dollar = at + found;
        literal.push_str(&text[at..dollar]);
        let rest = &text[dollar + 1..];
        at = if rest.starts_with('$') {
            literal.push('$');
            dollar + 2
        } else if rest.starts_with('{') {
            let (variable, end) = braced(text, dollar, offset, depth, braces)?;
            flush(&mut literal, &mut parts);
            parts.push(Part::Variable(variable));
            end
        } else if let Some(name) = name(rest) {
            let end = dollar + 1 + name.len();
            let range = offset + dollar..offset + end;
            flush(&mut literal, &mut parts);
            parts.push(Part::Variable(Variable { name: name.to_owned(), operator: None, range }));
            end
        } else {
            literal.push('$');
            dollar + 1
        };
    }
    literal.push_str(&text[at..]);
    flush(&mut literal, &mut parts);
    Ok(parts)
}

fn flush(literal: &mut String, parts: &mut Vec<Part>) {
    if !literal.is_empty() {
        parts.push(Part::Literal(std::mem::take(literal)));
    }
}

/// Reads `${…}` at `dollar`; returns the variable and the byte behind it.
fn braced(
    text: &str,
    dollar: usize,
    offset: usize,
    depth: usize,
    braces: &Braces,
) -> Result<(Variable, usize), Failure> {
    let invalid = |end: usize| Failure::Format(offset + dollar..offset + end);
    let inner_start = dollar + 2;
    let close = braces.closing(offset + dollar + 1).ok_or_else(|| invalid(text.len()))? - offset;
    let end = close + 1;
    let inner = &text[inner_start..close];
    let name = name(inner).ok_or_else(|| invalid(end))?;
    let rest = &inner[name.len()..];
    let range = offset + dollar..offset + end;
    if rest.is_empty() {
        return Ok((Variable { name: name.to_owned(), operator: None, range }, end));
    }
    let (colon, after) = rest.strip_prefix(':').map_or((false, rest), |after| (true, after));
    let kind = match after.as_bytes().first() {
        Some(b'-') => OperatorKind::Default,
        Some(b'?') => OperatorKind::Required,
        Some(b'+') => OperatorKind::Replacement,
        _ => return Err(invalid(end)),
    };
    if depth >= MAX_DEPTH {
        return Err(invalid(end));
    }
    let word = parse_at(&after[1..], offset + close - after.len() + 1, depth + 1, braces)?;
    Ok((Variable { name: name.to_owned(), operator: Some(Operator { kind, colon, word }), range }, end))
}

/// The braces of a text that belong together, found in one go however deep they are.
struct Braces {
    /// Where each opens and closes, in the order of the former.
    pairs: Vec<(usize, usize)>,
}

impl Braces {
    fn of(text: &str) -> Self {
        let (mut pairs, mut open) = (Vec::new(), Vec::new());
        for at in memchr::memchr2_iter(b'{', b'}', text.as_bytes()) {
            if text.as_bytes()[at] == b'{' {
                open.push(at);
            } else if let Some(opened) = open.pop() {
                pairs.push((opened, at));
            }
        }
        pairs.sort_unstable();
        Self { pairs }
    }

    /// Returns where the brace closes that opens at this byte.
    fn closing(&self, open: usize) -> Option<usize> {
        let found = self.pairs.binary_search_by_key(&open, |(opened, _)| *opened).ok()?;
        self.pairs.get(found).map(|(_, close)| *close)
    }
}

/// The name at the start of `text`: `[_a-zA-Z][_a-zA-Z0-9]*`.
fn name(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let name = &text[..end];
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_').then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<Replaced, Failure> {
        replace(text, &|name| match name {
            "SET" => Some("v"),
            "EMPTY" => Some(""),
            _ => None,
        })
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        match run(text) {
            Ok(replaced) => assert_eq!(replaced.text, expected, "{text}"),
            Err(failure) => panic!("{text}: {failure}"),
        }
    }

    /// Every row was run through Docker Compose 2.40 with `SET=v`, `EMPTY=` and all others unset.
    #[test]
    fn values() {
        for (text, expected) in [
            ("$SET", "v"),
            ("${SET}", "v"),
            ("${SET}x$SET", "vxv"),
            ("$SET-$SET", "v-v"),
            ("$SETx", ""),
            ("$$SET", "$SET"),
            ("$${SET}", "${SET}"),
            ("$$$SET", "$v"),
            ("${UNSET}", ""),
            ("${UNSET-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${EMPTY:-d}", "d"),
            ("${SET:+y}", "y"),
            ("${EMPTY:+y}", ""),
            ("${EMPTY+y}", "y"),
            ("${UNSET+y}", ""),
            ("${SET:?e}", "v"),
            ("${EMPTY?e}", ""),
            ("${UNSET:-${SET}}", "v"),
            ("${UNSET:-${U2:-z}}", "z"),
            ("${UNSET:-a${U2:-b}c}", "abc"),
            ("${UNSET:-}", ""),
            ("${UNSET:-a:b}", "a:b"),
            ("${UNSET:-a?b}", "a?b"),
            ("${UNSET:-\"q\"}", "\"q\""),
            ("${UNSET:-it's}", "it's"),
            ("${UNSET:-{\"a\":1}}", "{\"a\":1}"),
            ("${UNSET:-}}", "}"),
            ("${SET-a-b}", "v"),
            ("${UNSET-a:-b}", "a:-b"),
            ("${UNSET:-$$x}", "$x"),
            ("$", "$"),
            ("a$", "a$"),
            ("$1", "$1"),
            ("$-", "$-"),
            ("$é", "$é"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn wrong_formats_point_at_the_dollar() {
        for text in ["x${}", "x${1}", "x${SET", "x${ SET}", "x${SET }", "x${SET/a/b}", "x${SET:0:1}"] {
            assert_eq!(run(text), Err(Failure::Format(1..text.len())), "{text}");
        }
        let deep = "${A:-".repeat(1000) + &"}".repeat(1000);
        assert!(matches!(run(&deep), Err(Failure::Format(_))));
    }

    #[test]
    fn required_variables_give_their_message() {
        for (text, message) in [
            ("${UNSET:?m}", "required variable UNSET is missing a value: m"),
            ("${EMPTY:?m}", "required variable EMPTY is missing a value: m"),
            ("${UNSET?}", "required variable UNSET is missing a value"),
            ("${UNSET:?$SET}", "required variable UNSET is missing a value: v"),
        ] {
            assert_eq!(run(text).map_err(|failure| failure.to_string()), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn missing_variables_are_named_with_their_place() {
        assert_eq!(
            run("a ${UNSET:-$U2} $U3").map(|out| out.missing),
            Ok(vec![("U2".to_owned(), 11..14), ("U3".to_owned(), 16..19),])
        );
        assert_eq!(run("${SET:-$U2}").map(|out| out.missing), Ok(Vec::new()), "a default that is not needed");
    }

    #[test]
    fn growth_has_a_limit() {
        let big = "x".repeat(MAX_LENGTH / 2);
        let result = replace("$A$A$A", &|_| Some(&big));
        assert!(matches!(result, Err(Failure::TooLong(_))));
    }
}

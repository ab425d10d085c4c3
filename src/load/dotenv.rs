//! `.env` and `env_file`: variables as text.
//!
//! Source: compose-spec 05-services.md#env_file; what it leaves open follows runs of Docker Compose 2.40.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, SourceId, Span};

use super::interpolate;
use super::report::Report;

const SPEC: &str = "05-services.md#env_file";

/// Variables in the order of the file; a later one of the same name wins.
pub(super) type Pairs = Vec<(String, String)>;

/// What is known outside of the file.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a file with quotes, comments and variables.
pub(super) fn parse(source: SourceId, lookup: Lookup<'_>, report: &mut Report) -> Pairs {
    parse_onto(source, lookup, &mut BTreeMap::new(), report)
}

/// As [`parse`], where `known` has what files before this one said: what this one says itself counts before that, and is added.
pub(super) fn parse_onto(
    source: SourceId,
    lookup: Lookup<'_>,
    known: &mut BTreeMap<String, String>,
    report: &mut Report,
) -> Pairs {
    let text = report.sources.text(source).to_owned();
    let mut reader = Reader { source, text: &text, at: if text.starts_with('\u{feff}') { 3 } else { 0 } };
    let mut pairs = Pairs::new();
    while let Some(statement) = reader.statement() {
        match statement.and_then(|statement| reader.value(statement, lookup, known)) {
            Ok(Some((_, value))) if !report.takes_text(value.len(), span(source, reader.at, reader.at)) => break,
            Ok(Some((name, value))) => {
                known.insert(name.clone(), value.clone());
                pairs.push((name, value));
            }
            Ok(None) => {}
            Err(problem) => {
                report.push(problem.spec(SPEC));
                reader.skip_line();
            }
        }
    }
    pairs
}

/// Reads a file of `format: raw`: a line is a variable, kept byte for byte.
pub(super) fn parse_raw(source: SourceId, lookup: Lookup<'_>, report: &mut Report) -> Pairs {
    let text = report.sources.text(source).to_owned();
    let mut pairs = Pairs::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let line = line.trim_end_matches(['\n', '\r']).trim_start_matches('\u{feff}').trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || name.contains([' ', '\t']) {
            let span = span(source, start, at);
            report.push(Diagnostic::error(format!("`{name}` is not the name of a variable")).at(span, "").spec(SPEC));
        } else if let Some(value) = value.map(str::to_owned).or_else(|| lookup(name)) {
            if !report.takes_text(value.len(), span(source, start, at)) {
                break;
            }
            pairs.push((name.to_owned(), value));
        }
    }
    pairs
}

fn span(source: SourceId, start: usize, end: usize) -> Span {
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { source, start: offset(start), end: offset(end) }
}

/// A name, and whether a value follows.
struct Statement {
    name: String,
    bare: bool,
}

struct Reader<'a> {
    source: SourceId,
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn span(&self, start: usize, end: usize) -> Span {
        span(self.source, start, end)
    }

    fn skip_line(&mut self) {
        self.at += self.rest().find('\n').map_or(self.rest().len(), |end| end + 1);
    }

    /// The next name; `None` at the end.
    fn statement(&mut self) -> Option<Result<Statement, Box<Diagnostic>>> {
        loop {
            self.at += self.rest().len() - self.rest().trim_start().len();
            if !self.rest().starts_with('#') {
                break;
            }
            self.skip_line();
        }
        if self.rest().is_empty() {
            return None;
        }
        if let Some(after) = self.rest().strip_prefix("export").filter(|after| after.starts_with([' ', '\t'])) {
            self.at = self.text.len() - after.trim_start_matches([' ', '\t']).len();
        }
        Some(self.name())
    }

    fn name(&mut self) -> Result<Statement, Box<Diagnostic>> {
        let start = self.at;
        let line = self.rest().split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let end = line.find(['=', ':']).unwrap_or(line.len());
        let bare = end == line.len();
        let name = line[..end].trim_end();
        let wrong = name.char_indices().find(|(_, c)| !(c.is_alphanumeric() || "_.-[]".contains(*c)));
        if let Some((at, c)) = wrong {
            let span = self.span(start + at, start + at + c.len_utf8());
            let problem = Diagnostic::error(format!("`{c}` cannot be part of a variable's name"));
            return Err(Box::new(problem.at(span, "")));
        }
        if name.is_empty() {
            let problem = Diagnostic::error("the name of the variable is missing");
            return Err(Box::new(problem.at(self.span(start, start + 1), "")));
        }
        let name = name.to_owned();
        self.at = start + end + usize::from(!bare);
        Ok(Statement { name, bare })
    }

    fn value(
        &mut self,
        statement: Statement,
        lookup: Lookup<'_>,
        known: &BTreeMap<String, String>,
    ) -> Result<Option<(String, String)>, Box<Diagnostic>> {
        let Statement { name, bare } = statement;
        if bare {
            return Ok(lookup(&name).map(|value| (name, value)));
        }
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
        let start = self.at;
        let text = match self.rest().chars().next() {
            Some('\'') => return Ok(Some((name, self.quoted('\'')?.replace("\\'", "'")))),
            Some('"') => unescape(&self.quoted('"')?),
            _ => self.unquoted(),
        };
        let outer: BTreeMap<String, String> = interpolated_names(&text)
            .into_iter()
            .filter_map(|name| Some((name.clone(), lookup(&name).or_else(|| known.get(&name).cloned())?)))
            .collect();
        match interpolate::replace(&text, &|name| outer.get(name).map(String::as_str)) {
            Ok(replaced) => Ok(Some((name, replaced.text))),
            Err(failure) => {
                let message = format!("while reading `{name}`: {failure}");
                Err(Box::new(Diagnostic::error(message).at(self.span(start, self.at.max(start)), "")))
            }
        }
    }

    /// To the end of the line; ` #` starts a comment.
    fn unquoted(&mut self) -> String {
        let line = self.rest().split('\n').next().unwrap_or_default();
        let length = line.len();
        let end = line.match_indices('#').find(|(at, _)| line[..*at].ends_with(' ')).map(|(at, _)| at);
        let value = line[..end.unwrap_or(length)].trim_end().to_owned();
        self.at += length;
        value
    }

    /// What is between quotes, which may span lines; what is behind them is read on.
    fn quoted(&mut self, quote: char) -> Result<String, Box<Diagnostic>> {
        let start = self.at;
        let body = &self.text[start + 1..];
        let mut escaped = false;
        for (at, c) in body.char_indices() {
            if c == quote && !escaped {
                self.at = start + 1 + at + 1;
                return Ok(body[..at].to_owned());
            }
            escaped = c == '\\' && !escaped;
        }
        let problem = Diagnostic::error("this quote has no end").at(self.span(start, start + 1), "");
        self.at = self.text.len();
        Err(Box::new(problem))
    }
}

/// Names that a text asks for; none if it cannot be read, which evaluating it reports.
fn interpolated_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut parts = interpolate::parse(text).unwrap_or_default();
    while let Some(part) = parts.pop() {
        if let interpolate::Part::Variable(variable) = part {
            names.push(variable.name);
            parts.extend(variable.operator.into_iter().flat_map(|operator| operator.word));
        }
    }
    names
}

/// Escapes of double quotes; `\$` becomes `$$`, which is a plain `$` once variables are replaced.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(escaped) = chars.next() else {
            out.push('\\');
            break;
        };
        match escaped {
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'v' => out.push('\u{b}'),
            same @ ('"' | '\\') => out.push(same),
            '$' => out.push_str("$$"),
            '0' => {
                let mut code = 0;
                for _ in 0..3 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    chars.next();
                }
                out.extend(char::from_u32(code));
            }
            other => out.extend(['\\', other]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, raw: bool) -> (Pairs, Vec<String>) {
        let mut report = Report::default();
        let source = report.sources.add(".env", text);
        let lookup = |name: &str| (name == "SET").then(|| "v".to_owned());
        let pairs = if raw { parse_raw(source, &lookup, &mut report) } else { parse(source, &lookup, &mut report) };
        let problems = report.finish();
        (pairs, problems.iter().map(|problem| problem.message.clone()).collect())
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let (pairs, problems) = run(text, false);
        assert_eq!(problems, Vec::<String>::new(), "{text:?}");
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, expected, "{text:?}");
    }

    /// Every row was run through Docker Compose 2.40.
    #[test]
    fn values() {
        check("\u{feff}# c\n\nA=1\n", &[("A", "1")]);
        check("export A=1\nexport  B = 2 \r\n", &[("A", "1"), ("B", "2")]);
        check("A: 1", &[("A", "1")]);
        check("a.b-c[0]=x\nä=1", &[("a.b-c[0]", "x"), ("ä", "1")]);
        check("SET\nUNSET\n1A=2", &[("SET", "v"), ("1A", "2")]);
        check("A=\nB= \nC=x", &[("A", ""), ("B", ""), ("C", "x")]);
        check("A=a# b\nB=a # b\nC=a\\nb", &[("A", "a# b"), ("B", "a"), ("C", "a\\nb")]);
        check("A='$SET \\' \\n\nx' rest\nB=1", &[("A", "$SET ' \\n\nx"), ("B", "1")]);
        check("A=\"it\"B=c # d\nC='1'#2\nD='x'SET", &[("A", "it"), ("B", "c"), ("C", "1"), ("D", "x"), ("SET", "v")]);
        check(r#"A="\n\t\"\\ \$SET $$SET ${SET} \q" # c"#, &[("A", "\n\t\"\\ $SET $SET v \\q")]);
        check(r#"A="\0101""#, &[("A", "A")]);
        check("A=1\nB=${A}2\nSET=own\nC=$SET", &[("A", "1"), ("B", "12"), ("SET", "own"), ("C", "v")]);
        check("A=${U:-d}", &[("A", "d")]);
        check("A= #x\nB=x\t#y", &[("A", "#x"), ("B", "x\t#y")]);
        check(r#"A="x\cy\b\f\v\a""#, &[("A", "x\\cy\u{8}\u{c}\u{b}\u{7}")]);
    }

    /// As several `--env-file` of Docker Compose 2.40.
    #[test]
    fn a_file_counts_before_those_before_it() {
        let mut report = Report::default();
        let mut known = BTreeMap::new();
        for text in ["A=1\nC=3\nSET=x\n", "B=$A$C\nA=2\nD=$A\nA\nE=$SET\n"] {
            let source = report.sources.add(".env", text);
            let lookup = |name: &str| (name == "SET").then(|| "v".to_owned());
            parse_onto(source, &lookup, &mut known, &mut report);
        }
        let known: Vec<_> = known.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(known, ["A=2", "B=13", "C=3", "D=2", "E=v", "SET=x"]);
    }

    /// Docker Compose 2.40 refuses these too, but for the name that is missing.
    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("A B=1", "` ` cannot be part of a variable's name"),
            ("A!=1", "`!` cannot be part of a variable's name"),
            ("=1", "the name of the variable is missing"),
            ("A=\"x", "this quote has no end"),
            ("A='x\ny", "this quote has no end"),
            ("A=${", "while reading `A`: invalid interpolation format"),
        ] {
            assert_eq!(run(text, false).1, [message], "{text:?}");
        }
    }

    #[test]
    fn raw_values_are_kept_byte_for_byte() {
        let (pairs, problems) = run("# c\nA= x \nB='$SET' # c\nSET\nUNSET\n", true);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("A", " x "), ("B", "'$SET' # c"), ("SET", "v")]);
        assert!(problems.is_empty());
        assert_eq!(run("A B=1", true).1, ["`A B` is not the name of a variable"]);
    }
}

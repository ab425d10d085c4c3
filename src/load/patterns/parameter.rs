//! Parameters of patterns: their types, and what a value must be.

use std::collections::BTreeSet;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use crate::diag::{Diagnostic, Span};
use crate::load::node::{Node, Value};
use crate::load::report::Report;
use crate::model::quantity::{parse_bytes, parse_duration};

const SPEC: &str = "docs/patterns.md#writing-a-pattern";

/// Largest automaton of a regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Integer,
    Boolean,
    Duration,
    Bytes,
    Port,
    Service,
}

impl Kind {
    /// Returns the type that a word of a pattern's file names.
    pub(super) fn named(word: &str) -> Option<Self> {
        Some(match word {
            "string" => Self::String,
            "integer" => Self::Integer,
            "boolean" => Self::Boolean,
            "duration" => Self::Duration,
            "bytes" => Self::Bytes,
            "port" => Self::Port,
            "service" => Self::Service,
            _ => return None,
        })
    }

    /// Returns the word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
            Self::Bytes => "bytes",
            Self::Port => "port",
            Self::Service => "service",
        }
    }

    /// Returns what a message says is expected.
    fn expected(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Integer => "a whole number",
            Self::Boolean => "`true` or `false`",
            Self::Duration => "a duration such as `1m30s`",
            Self::Bytes => "a number of bytes such as `64m`",
            Self::Port => "a port from 1 to 65535",
            Self::Service => "the name of a service of this project",
        }
    }

    /// Returns a value as it is put into the pattern; `None`: it is none of this type. Text is taken for a number where one
    /// belongs, because variables make text.
    pub(super) fn read(self, value: &Value) -> Option<Value> {
        let text = || match value {
            Value::Str(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) => value.scalar_text(),
            _ => None,
        };
        let number = || match value {
            Value::Int(number) => Some(*number),
            Value::Str(text) => text.parse().ok(),
            _ => None,
        };
        match self {
            Self::String => text().map(Value::Str),
            Self::Service => value.scalar_text().filter(|text| !text.is_empty()).map(Value::Str),
            Self::Integer => number().filter(|number| i64::try_from(*number).is_ok()).map(Value::Int),
            Self::Port => number().filter(|number| (1..=65_535).contains(number)).map(Value::Int),
            Self::Boolean => match value {
                Value::Bool(_) => Some(value.clone()),
                Value::Str(text) => text.parse().ok().map(Value::Bool),
                _ => None,
            },
            Self::Duration => text().filter(|text| parse_duration(text).is_ok()).map(Value::Str),
            Self::Bytes => text().filter(|text| parse_bytes(text).is_ok()).map(Value::Str),
        }
    }

    /// Returns what `min` and `max` compare; `None`: this type has no order.
    fn measure(self, value: &Value) -> Option<i128> {
        match (self, value) {
            (Self::Integer | Self::Port, Value::Int(number)) => Some(*number),
            (Self::Duration, Value::Str(text)) => {
                parse_duration(text).ok().and_then(|time| i128::try_from(time.as_nanos()).ok())
            }
            (Self::Bytes, Value::Str(text)) => parse_bytes(text).ok().map(i128::from),
            _ => None,
        }
    }

    fn has_order(self) -> bool {
        matches!(self, Self::Integer | Self::Port | Self::Duration | Self::Bytes)
    }
}

/// A parameter.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    /// Where its name is.
    pub(super) span: Span,
    pub(super) kind: Kind,
    pub(super) description: Option<String>,
    /// What stands in where nothing is given.
    pub(super) default: Option<Node>,
    /// A value to show, and to check the pattern with.
    pub(super) example: Option<Node>,
    /// Whether something must be given.
    pub(super) required: bool,
    /// What it must be one of; empty: anything.
    pub(super) choices: Vec<Value>,
    pub(super) min: Option<Value>,
    pub(super) max: Option<Value>,
    /// What the whole text must match.
    pub(super) pattern: Option<(String, Regex)>,
}

impl Parameter {
    /// Reads a parameter whose shape is checked. What is wrong with it is reported.
    pub(super) fn new(name: &str, span: Span, node: &Node, report: &mut Report) -> Option<Self> {
        node.as_map()?;
        let kind = match node.get("type") {
            Some(word) => Kind::named(word.as_str()?)?,
            None => Kind::String,
        };
        let mut parameter = Self {
            span,
            kind,
            description: node.str("description").map(str::to_owned),
            default: None,
            example: None,
            required: false,
            choices: Vec::new(),
            min: None,
            max: None,
            pattern: None,
        };
        let before = report.errors();
        parameter.pattern = node.get("pattern").and_then(|pattern| expression(pattern, kind, report));
        let choices = node.items("enum").iter().filter_map(|item| parameter.accepted(name, item, report)).collect();
        parameter.choices = choices;
        parameter.min = node.get("min").and_then(|bound| parameter.bound(bound, "min", report));
        parameter.max = node.get("max").and_then(|bound| parameter.bound(bound, "max", report));
        for key in ["default", "example"] {
            let Some(said) = node.get(key).filter(|said| !said.is_null()) else { continue };
            let value = parameter.accepted(name, said, report).map(|value| Node::new(said.span, value));
            if key == "default" { parameter.default = value } else { parameter.example = value }
        }
        let required = node.get("required");
        if let (Some(required), Some(default)) =
            (required.filter(|node| node.value == Value::Bool(true)), &parameter.default)
        {
            let problem = Diagnostic::error(format!("`{name}` is required, so its default is of no use"));
            let problem = problem.at(required.span, "").also(default.span, "the default");
            report.push(problem.help("keep one of them").spec(SPEC));
        }
        if let Some(said) = required.filter(|node| node.value == Value::Bool(false) && parameter.default.is_none()) {
            let problem = Diagnostic::error(format!("`{name}` is not required, and has no default to stand in"));
            report.push(problem.at(said.span, "").help("add `default:`").spec(SPEC));
        }
        parameter.required = parameter.default.is_none();
        (report.errors() == before).then_some(parameter)
    }

    fn bound(&self, node: &Node, which: &str, report: &mut Report) -> Option<Value> {
        if !self.kind.has_order() {
            let message = format!("`{which}` has no meaning for a parameter of type `{}`", self.kind.word());
            let help = "it is for integer, port, duration and bytes; text is checked by `pattern`";
            report.push(Diagnostic::error(message).at(node.span, "").help(help).spec(SPEC));
            return None;
        }
        let value = self.kind.read(&node.value);
        if value.is_none() {
            let message = format!("`{which}` must be {}, not {}", self.kind.expected(), shown(node));
            report.push(Diagnostic::error(message).at(node.span, "").spec(SPEC));
        }
        value
    }

    /// A value in the pattern's own file, which must be what it asks of others.
    fn accepted(&self, name: &str, node: &Node, report: &mut Report) -> Option<Value> {
        match self.check(node, None) {
            Ok(value) => Some(value),
            Err(reason) => {
                report.push(Diagnostic::error(format!("`{name}` {reason}")).at(node.span, "").spec(SPEC));
                None
            }
        }
    }

    /// Returns a value as it is put into the pattern. `services` are those of the project, where it is known.
    ///
    /// # Errors
    /// What it must be.
    pub(super) fn check(&self, node: &Node, services: Option<&BTreeSet<String>>) -> Result<Value, String> {
        let wrong = || format!("must be {}, not {}", self.kind.expected(), shown(node));
        let value = self.kind.read(&node.value).ok_or_else(wrong)?;
        if !self.choices.is_empty() && !self.choices.contains(&value) {
            let words: Vec<String> = self.choices.iter().filter_map(Value::scalar_text).collect();
            return Err(format!("must be one of {}, not {}", words.join(", "), shown(node)));
        }
        let of = |bound: &Option<Value>| Some((bound.as_ref()?.scalar_text()?, self.kind.measure(bound.as_ref()?)?));
        if let (Some((text, least)), Some(measure)) = (of(&self.min), self.kind.measure(&value))
            && measure < least
        {
            return Err(format!("must be {text} or more, not {}", shown(node)));
        }
        if let (Some((text, most)), Some(measure)) = (of(&self.max), self.kind.measure(&value))
            && measure > most
        {
            return Err(format!("must be {text} or less, not {}", shown(node)));
        }
        if let (Some((text, regex)), Some(own)) = (&self.pattern, value.scalar_text())
            && !regex.is_match(&own)
        {
            return Err(format!("must match `{text}`, which {} does not", shown(node)));
        }
        if let (Kind::Service, Some(services), Some(own)) = (self.kind, services, value.scalar_text())
            && !services.contains(&own)
        {
            return Err(format!("must be {}, not `{own}`", self.kind.expected()));
        }
        Ok(value)
    }

    /// Returns what it takes, in a few words.
    pub(super) fn takes(&self) -> String {
        let bound = |word: &str, value: &Option<Value>| {
            value.as_ref().and_then(Value::scalar_text).map(|text| format!("{word} {text}"))
        };
        let choices: Vec<String> = self.choices.iter().filter_map(Value::scalar_text).collect();
        let choices = (!choices.is_empty()).then(|| format!("one of {}", choices.join(", ")));
        let pattern = self.pattern.as_ref().map(|(text, _)| format!("like {text}"));
        let parts =
            [Some(self.kind.word().to_owned()), choices, bound("from", &self.min), bound("to", &self.max), pattern];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// A value as a message shows it.
fn shown(node: &Node) -> String {
    match node.value.scalar_text() {
        Some(text) if !node.is_null() => format!("`{text}`"),
        _ => node.value.kind().to_owned(),
    }
}

fn expression(node: &Node, kind: Kind, report: &mut Report) -> Option<(String, Regex)> {
    let text = node.as_str()?;
    if !matches!(kind, Kind::String | Kind::Service) {
        let message = format!("`pattern` has no meaning for a parameter of type `{}`", kind.word());
        report.push(Diagnostic::error(message).at(node.span, "").help("it is for text").spec(SPEC));
        return None;
    }
    // Classes are of ASCII: tables of all of Unicode would be a tenth of the binary, for names of containers.
    let built = Regex::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false).dot_matches_new_line(true))
        .configure(Regex::config().nfa_size_limit(Some(MAX_REGEX)).utf8_empty(false))
        .build(&format!("^(?:{text})$"));
    match built {
        Ok(regex) => Some((text.to_owned(), regex)),
        Err(error) => {
            let reason = error.syntax_error().map_or_else(|| error.to_string(), ToString::to_string);
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let problem = Diagnostic::error(format!("`{text}` is not a regular expression: {reason}"));
            report.push(problem.at(node.span, "").spec(SPEC));
            None
        }
    }
}

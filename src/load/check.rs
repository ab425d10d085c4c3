//! Checks a file's tree against the table of rules: shapes, words, ranges, unknown keys; and puts scalars into the
//! form that Docker Compose prints. Runs on the merged tree, where short forms are long and places are kept.

mod advice;
mod beside;

use crate::diag::{Diagnostic, did_you_mean};
use crate::model::quantity::parse_duration;
use crate::model::{GoDuration, quantity::parse_bytes};

use super::long::Long;
use super::node::{Map, Node, Value};
use super::path::Path;
use super::report::Report;
use super::rules::{self, Keys, Rules, Shape};
use super::slips;

/// Checks all of `node`.
pub(super) fn check(node: &mut Node, keys: Keys, report: &mut Report) {
    walk(node, rules::root(keys), &Path::Root, report);
}

/// Checks a part of a file, or a file that is no compose file.
pub(super) fn walk(node: &mut Node, rules: &Rules, path: &Path<'_>, report: &mut Report) {
    let rule = rules.rule();
    if beside::indented_wrongly(node, rules, path, report) {
        node.value = Value::Unknown;
    }
    if node.is_unknown() || node.is_null() && (rule.nullable || rule.shape == Shape::Any) {
        return;
    }
    match (rule.shape, &mut node.value) {
        (Shape::Any, _) => {}
        (Shape::Map | Shape::IntOrMap | Shape::BoolOrMap | Shape::WordOrMap(_), Value::Map(map)) => {
            keys(map, rules, path, report);
        }
        (Shape::Open, Value::Map(map)) => {
            beside::entries(map, rules, path, report);
            for (key, entry) in map.iter_mut() {
                name(key, entry.key, path, report);
                let is_listed = matches!(path, Path::Key(_, "environment" | "labels" | "args"));
                if is_listed && key.starts_with('-') {
                    let doubt = Diagnostic::warning(format!("the name `{key}` begins with `-`")).at(entry.key, "");
                    report.push(doubt.help("a space is missing after `-`"));
                }
                if let Some(rules) = rules.key(key) {
                    walk(&mut entry.node, rules, &path.key(key), report);
                }
            }
        }
        (Shape::List | Shape::BoolOrList | Shape::ScalarOrList, Value::Seq(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, rules.item(), &path.item(index), report);
            }
        }
        // The next line is told: it is text that nothing takes.
        (_, Value::Null)
            if slips::goes_on_with_odd_blanks(report.sources.text(node.span.source), node.span.end as usize) => {}
        (shape, value) => match scalar(shape, value) {
            Ok(printed) => {
                let text = report.sources.text(node.span.source);
                if let Some(help) = slips::swallowed(text, node.span.start as usize) {
                    let doubt = Diagnostic::warning("a line that looks like an item is part of the text before it");
                    report.doubt(doubt.at(node.span, "").help(help));
                }
                if let Some(printed) = printed {
                    node.value = printed;
                }
            }
            Err(reason) => {
                let expected = || match (rule.expected, shape, rule.long) {
                    ("", Shape::Open, Long::Value(_)) => "a mapping or a list".to_owned(),
                    ("", ..) => says(shape),
                    (expected, ..) => expected.to_owned(),
                };
                let reason = reason.unwrap_or_else(|| format!("must be {}, not {}", expected(), node.value.kind()));
                let what = if matches!(path, Path::Root) { "this file".to_owned() } else { format!("`{path}`") };
                let problem = Diagnostic::error(format!("{what} {reason}")).at(node.span, "").spec(rule.spec);
                report.push(match advice::of_value(path, rules, &node.value) {
                    Some(help) => problem.help(help),
                    None => problem,
                });
            }
        },
    }
}

/// Whether user keys at `path` are free text: environment, labels, options.
fn takes_any_name(path: &Path<'_>) -> bool {
    !matches!(path, Path::Key(Path::Root, "services" | "networks" | "volumes" | "configs" | "secrets" | "models"))
}

fn is_name(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Names of services, networks and so on go into names on the engine and DNS.
fn name(key: &str, span: crate::diag::Span, path: &Path<'_>, report: &mut Report) {
    if !is_name(key) && !takes_any_name(path) {
        let problem = Diagnostic::error(format!("`{key}` is not a valid name in `{path}`"));
        report.push(problem.at(span, "").help("use letters, digits, dots, hyphens and underscores"));
    }
}

fn keys(map: &mut Map, rules: &Rules, path: &Path<'_>, report: &mut Report) {
    let told = beside::entries(map, rules, path, report);
    let count = map.len();
    for (key, entry) in map.iter_mut() {
        match rules.key(key) {
            Some(rules) if matches!(rules.rule().shape, Shape::Elsewhere(_)) => {
                let Shape::Elsewhere(instead) = rules.rule().shape else { continue };
                let problem =
                    Diagnostic::error(format!("`{}` is not for a container beside the main one", path.key(key)));
                report.push(problem.at(entry.key, "").help(instead).spec(rules.rule().spec));
            }
            Some(rules) => walk(&mut entry.node, rules, &path.key(key), report),
            None if key.starts_with("x-") => own(key, entry.key, path, report),
            None if told.contains(key) => {}
            None => {
                let problem = Diagnostic::error(format!("unknown key `{key}` {}", path.inside())).at(entry.key, "");
                // Further problems are counted only.
                let advice = if report.is_full() {
                    None
                } else {
                    beside::resource_elsewhere(key, path, &entry.node, report);
                    advice::of_unknown_key(key, &entry.node, count == 1, rules, path)
                };
                let problem = problem.spec(rules.rule().spec);
                report.push(if let Some(help) = advice { problem.help(help) } else { problem });
            }
        }
    }
}

/// A key of somebody's own means nothing here, but for slips: one of ours at a wrong place, or almost one of ours.
fn own(key: &str, span: crate::diag::Span, path: &Path<'_>, report: &mut Report) {
    let problem = match (rules::misplaced(key, path), rules::near(key)) {
        (Some(place), _) => {
            Diagnostic::warning(format!("`{key}` has no effect {}", path.inside())).help(format!("it belongs {place}"))
        }
        (None, Some(meant)) => {
            Diagnostic::warning(format!("`{key}` has no effect")).help(format!("did you mean `{meant}`?"))
        }
        (None, None) => return,
    };
    report.push(problem.at(span, ""));
}

/// Checks a scalar; `Some` is the form to keep instead. An error without text means the wrong kind of value.
fn scalar(shape: Shape, value: &Value) -> Result<Option<Value>, Option<String>> {
    let text = |text: String| Ok(Some(Value::Str(text)));
    match (shape, value) {
        (Shape::Text | Shape::Scalar | Shape::ScalarOrList | Shape::TextOrNumber, Value::Str(_))
        | (Shape::Bool | Shape::BoolOrMap | Shape::BoolOrList, Value::Bool(_)) => Ok(None),
        (Shape::Word(words, _) | Shape::WordOrMap(words), Value::Str(word)) if words.contains(&word.as_str()) => {
            Ok(None)
        }
        (Shape::Word(_, later), Value::Str(word)) if later.contains(&word.as_str()) => Ok(None),
        (Shape::Word(words, _) | Shape::WordOrMap(words), Value::Str(word)) => {
            // `healthy` for `service_healthy`.
            let end = || words.iter().find(|full| full.strip_suffix(word).is_some_and(|start| start.ends_with('_')));
            let meant = did_you_mean(word, words.iter().copied()).or_else(|| end().copied());
            let meant = meant.map_or(String::new(), |meant| format!(", perhaps `{meant}`"));
            Err(Some(format!("must be one of {}, not `{word}`{meant}", words.join(", "))))
        }
        (Shape::Scalar | Shape::ScalarOrList, Value::Bool(_))
        | (Shape::Scalar | Shape::ScalarOrList | Shape::TextOrNumber, Value::Int(_) | Value::Float(_)) => {
            text(value.scalar_text().unwrap_or_default())
        }
        (Shape::TextOrNumber, Value::Null) => text(String::new()),
        (Shape::IntOrMap, Value::Int(number)) => int(*number, i64::MIN, i64::MAX),
        (Shape::Int(least, most), Value::Int(number)) => int(*number, least, most),
        (Shape::Number, Value::Int(number)) => positive(*number >= 0),
        (Shape::Number, Value::Float(number)) => positive(*number >= 0.0 && number.is_finite()),
        (Shape::Duration, Value::Str(duration)) => match parse_duration(duration) {
            Ok(duration) => text(GoDuration(duration).to_string()),
            Err(reason) => Err(Some(format!("must be a duration such as `1m30s`: {reason}"))),
        },
        (Shape::BytesOrUnlimited, Value::Int(-1)) => text("-1".to_owned()),
        (Shape::BytesOrUnlimited, Value::Str(unlimited)) if unlimited == "-1" => Ok(None),
        (Shape::Bytes | Shape::BytesOrUnlimited, Value::Int(_) | Value::Float(_) | Value::Str(_)) => {
            let written = value.scalar_text().unwrap_or_default();
            match parse_bytes(&written) {
                Ok(bytes) => text(bytes.to_string()),
                Err(reason) => Err(Some(format!("must be a number of bytes such as `64m`: {reason}"))),
            }
        }
        (Shape::Percent, Value::Int(_) | Value::Str(_)) => {
            let written = value.scalar_text().unwrap_or_default();
            match written.trim_end_matches('%').trim().parse::<u8>() {
                Ok(share) if (1..=100).contains(&share) => Ok(Some(Value::Int(share.into()))),
                _ => Err(Some(format!("must be a share from 1% to 100%, not `{written}`"))),
            }
        }
        (Shape::Mode, Value::Int(mode)) if (0..=0o7777).contains(mode) => text(format!("0{mode:o}")),
        (Shape::Mode, Value::Str(mode)) => match u32::from_str_radix(mode, 8) {
            Ok(mode) if mode <= 0o7777 => text(format!("0{mode:o}")),
            _ => Err(Some(format!("must be an octal file mode such as `0440`, not `{mode}`"))),
        },
        _ => Err(None),
    }
}

fn positive(fits: bool) -> Result<Option<Value>, Option<String>> {
    if fits { Ok(None) } else { Err(Some("must be a number of 0 or more".to_owned())) }
}

fn int(number: i128, least: i64, most: i64) -> Result<Option<Value>, Option<String>> {
    if (i128::from(least)..=i128::from(most)).contains(&number) {
        return Ok(None);
    }
    Err(Some(if number < i128::from(least) {
        format!("must be {least} or more, not {number}")
    } else {
        format!("must be {most} or less, not {number}")
    }))
}

/// What a shape takes, as a message says it.
fn says(shape: Shape) -> String {
    match shape {
        Shape::Elsewhere(_) | Shape::Any => "absent",
        Shape::Text => "text",
        Shape::Word(words, _) => return format!("one of {}", words.join(", ")),
        Shape::WordOrMap(words) => return format!("one of {}, or a mapping", words.join(", ")),
        Shape::Scalar => "text, a number or a boolean",
        Shape::TextOrNumber => "text or a number",
        Shape::Bool => "`true` or `false`",
        Shape::Int(..) => "a whole number",
        Shape::Number => "a number",
        Shape::Duration => "a duration such as `1m30s`",
        Shape::Bytes => "a number of bytes such as `64m`",
        Shape::BytesOrUnlimited => "a number of bytes such as `64m`, or -1",
        Shape::ScalarOrList => "text, a number, a boolean or a list of these",
        Shape::Mode => "a file mode such as `0440`",
        Shape::Percent => "a share such as `50%`",
        Shape::IntOrMap => "a whole number or a mapping",
        Shape::BoolOrMap => "`true`, `false` or a mapping",
        Shape::BoolOrList => "`true`, `false` or a list",
        Shape::Map | Shape::Open => "a mapping",
        Shape::List => "a list",
    }
    .to_owned()
}

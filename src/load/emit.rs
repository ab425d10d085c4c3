//! Values as YAML text that every program which reads compose files takes for the same values.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::node::Value;
use super::scalar;

/// Returns a value as YAML.
///
/// Text that go-yaml or readers of YAML 1.1 would take for something else (`2024-01-01`, `1_000`, `1:30`, `yes`) stands in
/// quotes, also where the library, which thinks of YAML 1.2 only, leaves it plain. Source: go-yaml encode.go, and what Docker
/// Compose 2.40 prints. Ends of lines that are none in YAML 1.2, or that readers make others of, are escaped: the library would
/// begin a line after them.
///
/// # Panics
/// Never: JSON is YAML, and text takes text.
pub fn to_yaml(json: &Json) -> String {
    let text = |json: &Json| serde_yaml::to_string(json).expect("JSON is YAML");
    if !any(json, &|text| is_ambiguous(text) || has_other_ends(text)) {
        return text(json);
    }
    // The library has no say in this: characters that occur nowhere stand for the quotes, and for text with escapes, until it is done.
    let free = ('\u{e000}'..='\u{f8ff}').filter(|mark| !any(json, &|text| text.contains(*mark)));
    let [quote, escaped] = free.take(2).collect::<Vec<char>>()[..] else { return text(json) };
    let mut marks = Marks { quote, escaped, texts: Vec::new() };
    let marked = marks.mark(json);
    marks.replace(&text(&marked))
}

/// Bytes of the longest key that the library writes without a `?`, without which readers take none of more than 1,024 characters.
/// What stands for a longer one is longer too.
const SHORT_KEY: usize = 128;

/// What stands for text that the library would write otherwise.
struct Marks {
    /// A quote.
    quote: char,
    /// Around the number of one of `texts`.
    escaped: char,
    /// With quotes and escapes.
    texts: Vec<String>,
}

impl Marks {
    fn mark(&mut self, json: &Json) -> Json {
        match json {
            Json::String(text) => Json::String(self.mark_text(text)),
            Json::Array(items) => items.iter().map(|item| self.mark(item)).collect(),
            Json::Object(map) => map
                .iter()
                .map(|(key, value)| (self.mark_text(key), self.mark(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    fn mark_text(&mut self, text: &str) -> String {
        let Self { quote, escaped, texts } = self;
        if has_other_ends(text) {
            let written = escape(&Json::from(text).to_string());
            let width = if written.len() > SHORT_KEY { SHORT_KEY } else { 0 };
            texts.push(written);
            format!("{escaped}{:0>width$}{escaped}", texts.len() - 1)
        } else if is_ambiguous(text) {
            format!("{quote}{text}{quote}")
        } else {
            text.to_owned()
        }
    }

    /// Returns what was written of marked text, with what the marks stand for.
    fn replace(&self, text: &str) -> String {
        let whole = |(index, part): (usize, &str)| match part.parse::<usize>().ok().and_then(|at| self.texts.get(at)) {
            Some(text) if index % 2 == 1 => text.clone(),
            _ => part.replace(self.quote, "'"),
        };
        text.split(self.escaped).enumerate().map(whole).collect()
    }
}

/// Escapes what JSON leaves as it is between quotes and YAML does not.
fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{85}' => escaped.push_str("\\N"),
            '\u{2028}' => escaped.push_str("\\L"),
            '\u{2029}' => escaped.push_str("\\P"),
            '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                write!(escaped, "\\u{:04X}", u32::from(c)).expect("text takes all");
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Returns whether a text has ends of lines of YAML 1.1 other than line feeds.
fn has_other_ends(text: &str) -> bool {
    text.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}'])
}

/// Returns whether a text, or the name of something in a mapping, is as `is` says.
fn any(json: &Json, is: &dyn Fn(&str) -> bool) -> bool {
    match json {
        Json::String(text) => is(text),
        Json::Array(items) => items.iter().any(|item| any(item, is)),
        Json::Object(map) => map.iter().any(|(key, value)| is(key) || any(value, is)),
        _ => false,
    }
}

/// Returns whether a text without quotes is something else to some reader.
fn is_ambiguous(text: &str) -> bool {
    let is_word = |word: &&str| text.eq_ignore_ascii_case(word);
    text == "<<"
        || ["y", "n", "yes", "no", "on", "off"].iter().any(is_word)
        || !matches!(scalar::resolve(text), Value::Str(_))
        || is_sexagesimal(text)
}

/// `22:22` is a number of YAML 1.1.
fn is_sexagesimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = unsigned.split(':');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let first = parts.next().is_some_and(|part| part.starts_with(|c: char| c.is_ascii_digit()) && digits(part));
    let mut rest = parts.peekable();
    let of_sixty = |part: &str| {
        let whole = part.split('.').next().unwrap_or_default();
        digits(whole) && whole.len() <= 2 && whole.parse::<u8>().is_ok_and(|number| number < 60)
    };
    first && rest.peek().is_some() && rest.all(of_sixty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::to_yaml;

    /// As Docker Compose 2.40 quotes them.
    #[test]
    fn what_another_reader_takes_for_something_else_stands_in_quotes() {
        for text in [
            "2024-01-01",
            "2024-1-1",
            "2001-12-14t21:59:43.10-05:00",
            "1_000",
            "1_0.5",
            "0_1",
            "0b11",
            "0777",
            "1e3",
            "+1",
            "yes",
            "Off",
            "n",
            "1:30",
            "190:20:30.15",
            "~",
            "",
            "true",
            ".inf",
            "0x1F",
        ] {
            assert_eq!(to_yaml(&json!({ "a": [text] })), format!("a:\n- '{text}'\n"));
            assert_eq!(to_yaml(&json!({ text: 1 })), format!("'{text}': 1\n"));
        }
        for text in ["1.2.3", "127.0.0.1:80:80", "10-20", "a", "1:60", "2024-13-01", "8080:80"] {
            assert_eq!(to_yaml(&json!({ "a": text })), format!("a: {text}\n"));
        }
        assert_eq!(to_yaml(&json!({ "<<": "no" })), "'<<': 'no'\n");
    }

    #[test]
    fn characters_of_nobody_stay_what_they_are() {
        assert_eq!(to_yaml(&json!(["\u{e000}", "yes"])), "- \u{e000}\n- 'yes'\n");
        assert_eq!(to_yaml(&json!(["\u{e001}", "0", "a\rb"])), "- \u{e001}\n- '0'\n- \"a\\rb\"\n");
    }

    #[test]
    fn other_ends_of_lines_are_escaped() {
        for (text, written) in [
            ("a\rb", "a\\rb"),
            ("\r\u{7f}\u{90}\u{fffe}\u{feff}é", "\\r\\u007F\\u0090\\uFFFE\\uFEFFé"),
            ("\u{85}", "\\N"),
            ("sm\u{2028}all", "sm\\Lall"),
            ("x\u{2028}   y\nz", "x\\L   y\\nz"),
            ("\"\u{2029}'", "\\\"\\P'"),
        ] {
            assert_eq!(to_yaml(&json!({ text: [text] })), format!("\"{written}\":\n- \"{written}\"\n"));
        }
    }
    #[test]
    fn long_keys_can_be_read_again() {
        for text in ["a\r", "\u{85}", "\u{2028}b\"", "a\r\n", "é\r", "1"] {
            for count in [1, 30, 64, 128, 342, 512, 1_024, 2_000] {
                let json = json!({ "a": { text.repeat(count): [text.repeat(count), { text.repeat(count): "yes" }] } });
                let written = to_yaml(&json);
                let read: serde_json::Value = serde_yaml::from_str(&written).expect(&written);
                assert_eq!(read, json, "{written}");
            }
        }
    }
}

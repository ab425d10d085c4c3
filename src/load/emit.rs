//! Values as YAML text that every program which reads compose files takes for the same values.

use serde_json::Value as Json;

use super::node::Value;
use super::scalar;

/// Returns a value as YAML.
///
/// Text that go-yaml or readers of YAML 1.1 would take for something else (`2024-01-01`, `1_000`, `1:30`, `yes`) stands in
/// quotes, also where the library, which thinks of YAML 1.2 only, leaves it plain. Source: go-yaml encode.go, and what Docker
/// Compose 2.40 prints.
///
/// # Panics
/// Never: JSON is YAML.
pub fn to_yaml(json: &Json) -> String {
    let text = |json: &Json| serde_yaml::to_string(json).expect("JSON is YAML");
    if !any(json, &is_ambiguous) {
        return text(json);
    }
    // The library has no say in this: two characters that occur nowhere stand for the quotes until it is done.
    let free = ('\u{e000}'..='\u{f8ff}').filter(|mark| !any(json, &|text| text.contains(*mark)));
    match free.take(2).collect::<Vec<char>>()[..] {
        [open, close] => text(&marked(json, open, close)).replace([open, close], "'"),
        _ => text(json),
    }
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

fn marked(json: &Json, open: char, close: char) -> Json {
    let mark = |text: &str| if is_ambiguous(text) { format!("{open}{text}{close}") } else { text.to_owned() };
    match json {
        Json::String(text) => Json::String(mark(text)),
        Json::Array(items) => items.iter().map(|item| marked(item, open, close)).collect(),
        Json::Object(map) => map
            .iter()
            .map(|(key, value)| (mark(key), marked(value, open, close)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
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
    }
}

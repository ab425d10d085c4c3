//! What a plain YAML scalar is, by the rules of go-yaml v3, which Docker Compose reads with.
//!
//! They differ from YAML 1.2's core schema: `017` is 15, `1_000` is 1000, `0b11` is 3, while `yes`, `on` and the like
//! stay text. Source: go-yaml resolve.go, and runs of Docker Compose 2.40.

use super::node::Value;

/// Returns what a plain scalar stands for.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Str(text.to_owned());
    }
    if is_date(text) {
        return Value::Date(text.to_owned());
    }
    let plain = text.replace('_', "");
    if let Some(number) = integer(&plain) {
        return Value::Int(number);
    }
    match float(&plain) {
        Some(number) => Value::Float(number),
        None => Value::Str(text.to_owned()),
    }
}

/// Reads an integer with Go's base prefixes; 64 bits, signed or not.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some(prefix) if prefix.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    let range = if text.starts_with('+') { i128::from(i64::MAX) } else { i128::from(u64::MAX) };
    (value >= i128::from(i64::MIN) && value <= range).then_some(value)
}

/// Reads a decimal number: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn float(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let shape = body.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let starts = body.starts_with(|c: char| c.is_ascii_digit())
        || body.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let number = if shape && starts { text.parse::<f64>().ok()? } else { return None };
    number.is_finite().then_some(number)
}

/// `2001-12-14`, alone or followed by a time.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let number = |text: &str, lengths: std::ops::RangeInclusive<usize>, max: u32| {
        lengths.contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit())
            && text.parse::<u32>().is_ok_and(|n| (1..=max).contains(&n))
    };
    let day_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (day, time) = rest.split_at(day_end);
    let time_ok = time.is_empty()
        || time.trim_start_matches(['T', 't', ' ']).len() < time.len()
            && time[1..].trim_start().bytes().all(|b| b.is_ascii_digit() || b":.+-Zz ".contains(&b))
            && time.matches(':').count() >= 2;
    number(year, 4..=4, 9999) && number(month, 1..=2, 12) && number(day, 1..=2, 31) && time_ok
}

/// Prints a number as Go's `%v` does: `1.5`, `1e+30`, `1e-05`, `+Inf`.
pub(super) fn go_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All rows were run through Docker Compose 2.40 (values of `environment`).
    #[test]
    fn plain_scalars_print_as_docker_compose_prints_them() {
        for (text, printed) in [
            ("017", "15"),
            ("1_000", "1000"),
            ("1e3", "1000"),
            (".5", "0.5"),
            ("0b11", "3"),
            ("0o17", "15"),
            ("0x10", "16"),
            ("-0x10", "-16"),
            ("true", "true"),
            ("1.50", "1.5"),
            ("1e30", "1e+30"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("12345678901234567890", "12345678901234567890"),
            (".inf", "+Inf"),
            ("1.0", "1"),
            ("100000000.5", "1.000000005e+08"),
            ("123456.5", "123456.5"),
            ("0.00001", "1e-05"),
            ("yes", "yes"),
            ("off", "off"),
            ("1.2.3", "1.2.3"),
            ("22:22", "22:22"),
            ("08", "8"),
            ("+5", "5"),
            ("-", "-"),
            ("127.0.0.1:80:80", "127.0.0.1:80:80"),
        ] {
            assert_eq!(resolve(text).scalar_text().as_deref(), Some(printed), "{text}");
        }
    }

    #[test]
    fn kinds() {
        assert_eq!(resolve("~"), Value::Null);
        assert_eq!(resolve("2001-01-01"), Value::Date("2001-01-01".to_owned()));
        assert_eq!(resolve("2001-13-01"), Value::Str("2001-13-01".to_owned()));
        assert_eq!(resolve("10-20"), Value::Str("10-20".to_owned()));
        assert_eq!(resolve("017"), Value::Int(15));
    }
}

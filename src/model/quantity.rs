//! Quantities with Docker Compose's printed forms: byte sizes as decimal text, durations as Go prints them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes; printed as a decimal string. `-1` (unlimited) occurs only where the specification allows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub i64);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    /// Reads what it prints; `load` has turned `64m` and the like into that form before.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A number of CPUs; whole numbers print without a fraction.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub struct Cpus(pub f64);

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        number(self.0, serializer)
    }
}

/// A share of 1; whole numbers print without a fraction.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub struct Ratio(pub f64);

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        number(self.0, serializer)
    }
}

fn number<S: Serializer>(value: f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and small enough")]
        serializer.serialize_i64(value as i64)
    } else {
        serializer.serialize_f64(value)
    }
}

/// A duration; printed as Go prints it (`1m30s`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < 1_000 {
            return write!(f, "{nanos}ns");
        }
        if nanos < 1_000_000 {
            return write!(f, "{}µs", decimal(nanos, 1_000));
        }
        if nanos < 1_000_000_000 {
            return write!(f, "{}ms", decimal(nanos, 1_000_000));
        }
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", decimal(nanos % 60_000_000_000, 1_000_000_000))
    }
}

/// `nanos / unit` without trailing zeros.
fn decimal(nanos: u128, unit: u128) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    /// Reads Go's form and the specification's (`d`, `w`, spaces not allowed).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Reads a duration: one or more of number and unit (`ns us µs ms s m h d w`), decimals allowed; `0` alone too.
///
/// # Errors
/// Text that says what is wrong: no unit, unknown unit, negative, too large.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err("empty duration".to_owned());
    }
    if text.starts_with('-') {
        return Err(format!("`{text}` is negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit_nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 86_400 * 1_000_000_000,
            "w" => 604_800 * 1_000_000_000,
            "" => return Err(format!("missing unit in duration `{text}`")),
            other => return Err(format!("unknown unit `{other}` in duration `{text}`")),
        };
        nanos = scaled(number, unit_nanos)
            .and_then(|part| nanos.checked_add(part))
            .ok_or_else(|| format!("`{text}` is not a duration"))?;
        rest = next;
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("`{text}` is too long a duration"))
}

/// Reads a number of bytes: decimals allowed, base 1024, units `b k m g t p` in any case, also as `kb` or `KiB`.
///
/// # Errors
/// Text that says what is wrong: no number, unknown unit, negative, too large.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    let trimmed = text.trim();
    let (number, unit) = trimmed.split_at(end_of_number(trimmed));
    if number.is_empty() {
        return Err(format!("`{text}` is not a number and a unit"));
    }
    let factor: u128 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        other => return Err(format!("unknown unit `{other}` in `{text}`")),
    };
    let bytes = scaled(number, factor).ok_or_else(|| format!("`{text}` is not a number and a unit"))?;
    i64::try_from(bytes).map_err(|_| format!("`{text}` is too large"))
}

/// Returns where a number ends that may have a sign, underscores between digits and an exponent: `+1_000.5e3`. An `e` that no
/// digit follows is no exponent.
fn end_of_number(text: &str) -> usize {
    let digits = |from: usize, further: &str| {
        let rest = &text[from..];
        from + rest.find(|c: char| !c.is_ascii_digit() && !further.contains(c)).unwrap_or(rest.len())
    };
    let end = digits(usize::from(text.starts_with('+')), "._");
    let Some(exponent) = text[end..].strip_prefix(['e', 'E']).filter(|_| end > 0) else { return end };
    let start = end + 1 + usize::from(exponent.starts_with(['+', '-']));
    if text[start..].starts_with(|c: char| c.is_ascii_digit()) { digits(start, "") } else { end }
}

/// Returns a number without sign, underscores and exponent; `None` if it is no number or too long.
fn plain(number: &str) -> Option<String> {
    let number = number.strip_prefix('+').unwrap_or(number);
    let digit = |at: usize| number.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    if number.match_indices('_').any(|(at, _)| at == 0 || !digit(at - 1) || !digit(at + 1)) {
        return None;
    }
    let number = number.replace('_', "");
    let Some((mantissa, exponent)) = number.split_once(['e', 'E']) else { return Some(number) };
    let exponent = exponent.parse::<i8>().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let zeros = "0".repeat(usize::from(exponent.unsigned_abs()));
    let (before, after) = if exponent < 0 { (&*zeros, "") } else { ("", &*zeros) };
    let digits = format!("{before}{whole}{fraction}{after}");
    let point = before.len() + whole.len();
    let point = if exponent < 0 { point - before.len() } else { point + after.len() };
    let (whole, fraction) = digits.split_at_checked(point)?;
    // What is behind the last digit that counts is left out, and zeros before the first one say nothing.
    let fraction = &fraction[..fraction.len().min(18)];
    Some(format!("0{}.{fraction}", whole.trim_start_matches('0')))
}

/// A decimal number times `unit`, exact where it can be; `None` if it is no number or too large.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let number = &*plain(number)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut numerator: u128 = 0;
    let mut denominator: u128 = 1;
    for digit in fraction.chars().take(18) {
        numerator = numerator * 10 + u128::from(digit.to_digit(10)?);
        denominator *= 10;
    }
    whole.checked_mul(unit)?.checked_add(numerator.checked_mul(unit)? / denominator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_docker_compose_reads_them() {
        for (text, bytes) in [
            ("5", 5),
            ("64m", 64 << 20),
            ("1.5g", 1_610_612_736),
            ("1 KiB", 1024),
            ("2KB", 2048),
            ("3B", 3),
            ("1t", 1 << 40),
            (".5m", 1 << 19),
            ("+5", 5),
            ("1_000", 1000),
            ("1e9", 1_000_000_000),
            ("1E2", 100),
            ("1.5e3", 1500),
            ("1e+5 m", 100_000 << 20),
            ("1e-3", 0),
            ("2500e-3k", 2560),
            ("0e99", 0),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "m",
            "-1",
            "1x",
            "1.2.3m",
            "99999999999999p",
            "1e",
            "1e30",
            "1e999",
            "1eb",
            "e5",
            ".e5",
            "1__0",
            "_1",
            "1_",
            "+",
            "1e1.5",
        ] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_read_and_print_as_go_does() {
        for (text, printed) in [
            ("90s", "1m30s"),
            ("1h5m30s20ms", "1h5m30.02s"),
            ("1d", "24h0m0s"),
            ("1w", "168h0m0s"),
            ("1.5s", "1.5s"),
            ("300ms", "300ms"),
            ("1500us", "1.5ms"),
            ("0", "0s"),
            (".5m", "30s"),
        ] {
            assert_eq!(GoDuration(parse_duration(text).expect(text)).to_string(), printed);
        }
        for bad in ["", "5", "-1s", "1x", "s", "1.2.3s", "99999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}

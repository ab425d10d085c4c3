//! Times as the user writes them, in Docker's forms.

use jiff::Timestamp;

use super::context::now;
use super::error::CliError;

/// Returns the time that a flag gives, if it is there.
///
/// # Errors
/// [`CliError::Value`] when it is none.
pub(crate) fn time(flag: Option<&str>) -> Result<Option<Timestamp>, CliError> {
    flag.map(|text| parse_time(text, now())).transpose()
}

/// The time of `2013-01-02T13:23:37Z`, `2013-01-02`, `1357132217`, `1357132217.5`, or `42m` before `now`.
fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, CliError> {
    let wrong = || CliError::Value {
        what: "time",
        value: text.to_owned(),
        expected: "a time (`2013-01-02T13:23:37Z`), seconds since 1970 (`1357132217`) or how long ago (`42m`, `1h30m`)",
    };
    if let Some((seconds, nanos)) = parse_seconds(text) {
        return Timestamp::new(seconds, nanos).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<jiff::civil::DateTime>() {
        // Without a zone it is the user's own time.
        return time.to_zoned(jiff::tz::TimeZone::system()).map(|time| time.timestamp()).map_err(|_| wrong());
    }
    let ago: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    now.checked_sub(ago).map_err(|_| wrong())
}

/// Seconds since 1970 with up to nine digits behind the point, and the nanoseconds that these are.
fn parse_seconds(text: &str) -> Option<(i64, i32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let nanos = format!("{fraction:0<9}").parse().ok().filter(|_| digits)?;
    Some((seconds.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ago() {
        let now: Timestamp = "2026-11-21T15:00:00Z".parse().expect("a time");
        for (text, seconds) in [
            ("1357132217", 1_357_132_217),
            ("1357132217.999", 1_357_132_217),
            ("2013-01-02T13:23:37Z", 1_357_133_017),
            ("2013-01-02T13:23:37.5+01:00", 1_357_129_417),
            ("42m", now.as_second() - 42 * 60),
            ("1h30m", now.as_second() - 90 * 60),
            ("10s", now.as_second() - 10),
        ] {
            assert_eq!(parse_time(text, now).expect(text).as_second(), seconds, "{text}");
        }
        assert_eq!(parse_time("17.000000005", now).expect("a time").subsec_nanosecond(), 5);
        for wrong in ["", "yesterday", "5x", "1.1234567890", "1.-5", "."] {
            assert!(parse_time(wrong, now).is_err(), "{wrong}");
        }
    }
}

//! Times and states in Docker's words: `Up 2 minutes (healthy)`, `Exited (1) 3 seconds ago`.

use std::time::Duration;

use jiff::Timestamp;

use crate::observed::{ContainerState, Health};

/// How long that is, roughly. Source: the engine's own words, as `docker ps` shows them.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours <= 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago an RFC 3339 time was, counted from `now`; `None` for what is no time or the engine's "never".
pub(crate) fn since(time: &str, now: Timestamp) -> Option<Duration> {
    let time: Timestamp = time.parse().ok()?;
    (time.as_second() > 0).then(|| now.duration_since(time).try_into().unwrap_or_default())
}

/// `3 seconds ago`, or nothing.
pub(crate) fn ago(time: &str, now: Timestamp) -> String {
    since(time, now).map(|time| format!("{} ago", duration(time))).unwrap_or_default()
}

/// The engine's word for what the health check says; empty where there is none.
pub(crate) fn health(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Running { health } => match health {
            Health::None => "",
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        },
        _ => "",
    }
}

/// The line of `docker ps` for a state: `started` and `finished` are RFC 3339.
pub(crate) fn status(state: ContainerState, started: &str, finished: &str, now: Timestamp) -> String {
    let up = || since(started, now).map_or_else(|| "Up".to_owned(), |time| format!("Up {}", duration(time)));
    let ended = |word: &str, code: i32| format!("{word} ({code}) {}", ago(finished, now)).trim_end().to_owned();
    match state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running { health } => match health {
            Health::None => up(),
            Health::Starting => format!("{} (health: starting)", up()),
            Health::Healthy => format!("{} (healthy)", up()),
            Health::Unhealthy => format!("{} (unhealthy)", up()),
        },
        ContainerState::Paused => format!("{} (Paused)", up()),
        ContainerState::Restarting => "Restarting".to_owned(),
        ContainerState::Exited { code, .. } => ended("Exited", code),
        ContainerState::Dead => "Dead".to_owned(),
        ContainerState::Removing => "Removal In Progress".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_the_engines_words() {
        const HOUR: u64 = 3600;
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (HOUR, "About an hour"),
            (2 * HOUR, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (3 * 365 * 24 * HOUR, "3 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), words, "{seconds}");
        }
    }

    #[test]
    fn states_are_docker_ps_lines() {
        let now = "2026-11-21T15:00:10Z".parse().expect("a time");
        let (started, finished) = ("2026-11-21T15:00:00Z", "2026-11-21T15:00:07.5Z");
        let running = |health| ContainerState::Running { health };
        for (state, line) in [
            (ContainerState::Created, "Created"),
            (running(Health::None), "Up 10 seconds"),
            (running(Health::Starting), "Up 10 seconds (health: starting)"),
            (running(Health::Unhealthy), "Up 10 seconds (unhealthy)"),
            (ContainerState::Paused, "Up 10 seconds (Paused)"),
            (ContainerState::Exited { code: 137, by_itself: false }, "Exited (137) 2 seconds ago"),
        ] {
            assert_eq!(status(state, started, finished, now), line);
        }
        assert_eq!(status(running(Health::None), "0001-01-01T00:00:00Z", "", now), "Up");
    }
}

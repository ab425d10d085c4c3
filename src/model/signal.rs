//! Names of signals.

/// Returns whether the engine sends a signal of this name or number. Source: signal(7) of Linux.
pub fn is_signal(name: &str) -> bool {
    const NAMES: [&str; 35] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS", "UNUSED",
    ];
    if let Ok(number) = name.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = name.to_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.contains(&bare)
        || bare.strip_prefix("RTMIN").is_some_and(|rest| offset(rest, '+', 15))
        || bare.strip_prefix("RTMAX").is_some_and(|rest| offset(rest, '-', 14))
}

fn offset(rest: &str, sign: char, most: u8) -> bool {
    rest.is_empty() || rest.strip_prefix(sign).and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| n <= most)
}

/// Returns whether the engine takes a text for the signal that stops a container: any number but 0, also one that it could
/// not send. Source: moby/sys, `signal.ParseSignal`.
pub fn is_stop_signal(text: &str) -> bool {
    text.parse::<i64>().map_or_else(|_| is_signal(text), |number| number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for known in ["KILL", "SIGKILL", "sigterm", "hup", "9", "64", "RTMIN+3", "SIGRTMAX-2", "SIGRTMIN"] {
            assert!(is_signal(known), "{known}");
        }
        for unknown in ["", "BOGUS", "SIG", "0", "65", "-1", "RTMIN+99", "RTMIN-1", "SIGSIGTERM"] {
            assert!(!is_signal(unknown), "{unknown}");
        }
    }

    #[test]
    fn a_container_is_stopped_by_what_the_engine_takes() {
        for known in ["TERM", "SIGRTMIN+3", "15", "99"] {
            assert!(is_stop_signal(known), "{known}");
        }
        for unknown in ["NOPE", "0", " TERM", "SIG"] {
            assert!(!is_stop_signal(unknown), "{unknown}");
        }
    }
}

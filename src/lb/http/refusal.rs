//! Answers of the balancer's own: why a request was not passed on, or its answer was not. Pure.

use super::answer::{Fault, push_field, push_number};
use super::head::Wrong;
use crate::lb::choose::Fruitless;

/// Why a request got no answer of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request makes no sense, or more than one.
    Malformed,
    /// No rule is for it.
    NoRule,
    /// Its method is not served.
    Method,
    /// The client took too long.
    SlowClient,
    /// The request line is too long.
    LongTarget,
    /// The head is too large.
    LargeHead,
    /// A transfer coding that is not served.
    Coding,
    /// A version of HTTP that is not served.
    Version,
    /// The pod's answer broke off.
    Broken,
    /// The head of the pod's answer cannot be passed on.
    Answer(Fault),
    /// No pod took it.
    NotTaken,
    /// No pod is ready.
    NoneReady,
    /// This host has no descriptor, memory or port left.
    Exhausted,
    /// The pod took too long.
    Late,
}

impl Refusal {
    /// Returns the status.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::NoRule => 404,
            Self::Method => 405,
            Self::SlowClient => 408,
            Self::LongTarget => 414,
            Self::LargeHead => 431,
            Self::Coding => 501,
            Self::Broken | Self::Answer(_) | Self::NotTaken => 502,
            Self::NoneReady | Self::Exhausted => 503,
            Self::Late => 504,
            Self::Version => 505,
        }
    }

    /// Returns what the client reads.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Malformed => "the request is malformed",
            Self::NoRule => "nothing is served here by this name",
            Self::Method => "this method is not served",
            Self::SlowClient => "the request took too long",
            Self::LongTarget => "the address is too long",
            Self::LargeHead => "the head of the request is too large",
            Self::Coding => "this transfer coding is not served",
            Self::Version => "this version of HTTP is not served",
            Self::Broken => "the answer of the service broke off",
            // The limits are `MAX_HEAD` and `MAX_FIELDS`; a test compares them.
            Self::Answer(Fault::Large) => "the head of the service's answer is larger than 64 KiB or 100 fields",
            Self::Answer(Fault::Unclear) => "the head of the service's answer contradicts itself",
            Self::Answer(Fault::NoHttp) => "the answer of the service is no HTTP",
            Self::NotTaken => "the service does not take requests",
            Self::NoneReady => "the service is not ready",
            Self::Exhausted => "too busy",
            Self::Late => "the service took too long",
        }
    }

    /// Returns the words that go with the status. Source: RFC 9110, section 15.
    fn reason(self) -> &'static str {
        match self.status() {
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            414 => "URI Too Long",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            _ => "Service Unavailable",
        }
    }

    /// Returns the body of the answer.
    pub(super) fn body(self) -> String {
        format!("{} {}: {}\n", self.status(), self.reason(), self.text())
    }

    /// Writes the answer to a request over HTTP/1.
    pub(super) fn write(self, is_head: bool, keep_alive: bool, out: &mut Vec<u8>) {
        let body = self.body();
        write_head(out, self.status(), self.reason(), body.len(), keep_alive);
        push_field(out, "Content-Type", b"text/plain; charset=utf-8");
        out.extend_from_slice(b"\r\n");
        if !is_head {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

/// Writes the answer that sends a client elsewhere.
pub(super) fn write_redirect(status: u16, location: &str, keep_alive: bool, out: &mut Vec<u8>) {
    let reason = match status {
        301 => "Moved Permanently",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        _ => "Found",
    };
    write_head(out, status, reason, 0, keep_alive);
    push_field(out, "Location", location.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_head(out: &mut Vec<u8>, status: u16, reason: &str, length: usize, keep_alive: bool) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(out, status.into());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\nContent-Length: ");
    push_number(out, length as u64);
    out.extend_from_slice(b"\r\n");
    if !keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    }
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Malformed => Self::Malformed,
            Wrong::Method => Self::Method,
            Wrong::LongTarget => Self::LongTarget,
            Wrong::Large => Self::LargeHead,
            Wrong::Coding => Self::Coding,
            Wrong::Version => Self::Version,
        }
    }
}

impl From<Fruitless> for Refusal {
    fn from(fruitless: Fruitless) -> Self {
        match fruitless {
            Fruitless::NoDoor | Fruitless::NoneReady => Self::NoneReady,
            Fruitless::AllFailed => Self::NotTaken,
            Fruitless::Exhausted => Self::Exhausted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_whole_answers() {
        let mut out = Vec::new();
        Refusal::NoneReady.write(false, true, &mut out);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 50\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
             503 Service Unavailable: the service is not ready\n"
        );
        let mut out = Vec::new();
        Refusal::LargeHead.write(true, false, &mut out);
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("431 Request Header Fields Too Large\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    }

    #[test]
    fn the_limits_of_an_answer_are_told_as_they_are() {
        use super::super::head::{MAX_FIELDS, MAX_HEAD};
        let text = format!("{} KiB or {MAX_FIELDS} fields", MAX_HEAD / 1024);
        let refusal = Refusal::Answer(Fault::Large);
        assert!(refusal.text().ends_with(&text) && refusal.status() == 502, "{} or {text}", refusal.text());
    }

    #[test]
    fn redirects_are_whole_answers() {
        let mut out = Vec::new();
        write_redirect(308, "https://a/b", true, &mut out);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "HTTP/1.1 308 Permanent Redirect\r\nContent-Length: 0\r\nLocation: https://a/b\r\n\r\n"
        );
    }
}

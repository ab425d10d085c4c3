//! What went wrong in a handshake, for who reads it: what the far side is like, and what to change.

use std::io::{self, ErrorKind};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use crate::mesh::Moment;

/// What the file says of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    /// Whether authorities are named.
    pub(super) has_ca: bool,
    /// Whether the pod has a certificate of its own.
    pub(super) has_own: bool,
}

/// What is known of a far side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) said: Said,
    /// Whether it asked for a certificate.
    pub(super) is_asked: bool,
    /// The first byte that came from it.
    pub(super) first: Option<u8>,
}

/// First bytes of all that is TLS: the types of its records. Source: RFC 8446, section 5.1.
const RECORDS: std::ops::RangeInclusive<u8> = 20..=23;

/// Names of a certificate that are told at most.
const NAMES: usize = 3;

const NO_TLS: &str = "what it answers is no TLS: is it another port, or one that turns to TLS after words of its own protocol, as SMTP does?";

/// Returns why there was no handshake.
pub(super) fn words(error: &io::Error, known: Known) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(wrong)) => certificate(wrong, known.said),
        Some(Error::AlertReceived(alert)) => refusal(*alert, known),
        Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }) => NO_TLS.to_owned(),
        Some(Error::PeerIncompatible(what)) => format!("it speaks TLS as orch does not: {what:?}"),
        Some(other) => other.to_string(),
        None if is_end(error) => end(known),
        None => error.to_string(),
    }
}

/// Returns why the far side ended a connection over TLS, as far as it is known. One that is of TLS 1.3 says only after the handshake
/// that it does not take a certificate. Source: RFC 8446, section 4.4.2.4.
pub(super) fn late(error: &io::Error, known: Known, was_answered: bool) -> Option<String> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => Some(refusal(*alert, known)),
        None if is_end(error) && known.is_asked && !was_answered => Some(end(known)),
        _ => None,
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Returns what an end without a word means.
fn end(known: Known) -> String {
    let Known { said: Said { has_ca: _, has_own }, is_asked, first } = known;
    match first {
        _ if is_asked && has_own => "it asked for a certificate, and ended the connection: it may not take the one in `cert`",
        _ if is_asked => "it asked for a certificate, and ended the connection: give it one by `cert` and `key`",
        Some(first) if RECORDS.contains(&first) => "it speaks TLS, but ended the connection before the greeting was over",
        Some(_) => NO_TLS,
        None => {
            "it ended the connection without a word: perhaps it speaks no TLS there, or only after words of its own protocol, \
             as PostgreSQL does"
        }
    }
    .to_owned()
}

fn certificate(wrong: &CertificateError, said: Said) -> String {
    match wrong {
        CertificateError::UnknownIssuer if said.has_ca => {
            "its certificate is neither in `ca` nor signed by one in there (or it does not send those in between)"
                .to_owned()
        }
        CertificateError::UnknownIssuer => {
            "its certificate is signed by nobody that this host trusts: give the authority's, or its own, as `ca`"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            format!("its certificate has ended at {}; it is {} now", date(*not_after), date(*time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("its certificate only begins at {}; it is {} now", date(*not_before), date(*time))
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let all: Vec<String> = presented.iter().filter_map(|name| host(name)).collect();
            let more = all.len().saturating_sub(NAMES);
            let told = all[..all.len() - more].join(", ");
            match (all.len(), more) {
                (0, _) => {
                    "its certificate names no host (subjectAltName; the name in its subject does not count)".to_owned()
                }
                (_, 0) => format!("its certificate is for {told}: `server_name` says which one is meant"),
                (_, more) => {
                    format!("its certificate is for {told} and {more} more: `server_name` says which one is meant")
                }
            }
        }
        // One that ends before it begins.
        CertificateError::Expired | CertificateError::NotValidYet => "its certificate holds at no time".to_owned(),
        CertificateError::BadSignature => "its certificate is signed by another one than it says".to_owned(),
        CertificateError::InvalidPurposeContext { .. } => "its certificate is not one for servers".to_owned(),
        // Other errors of the library have names, but no words.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is an authority's own, which is trusted only where it is itself in `ca`".to_owned()
        }
        other => format!("its certificate cannot be used: {other}"),
    }
}

fn refusal(alert: AlertDescription, known: Known) -> String {
    match alert {
        AlertDescription::HandshakeFailure
        | AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnknownCA
        | AlertDescription::CertificateExpired
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied
            if known.is_asked =>
        {
            if known.said.has_own {
                format!("it does not take the certificate in `cert` ({alert:?})")
            } else {
                format!("it asks for a certificate: give it one by `cert` and `key` ({alert:?})")
            }
        }
        AlertDescription::HandshakeFailure => {
            format!(
                "it refuses ({alert:?}): it has perhaps nothing by this name (`server_name`), or other ciphers only"
            )
        }
        AlertDescription::UnrecognisedName => "it has nothing by this name (`server_name`)".to_owned(),
        AlertDescription::ProtocolVersion => "it speaks neither TLS 1.2 nor 1.3".to_owned(),
        other => format!("it refuses ({other:?})"),
    }
}

/// Returns a name of a certificate as it is: `DnsName("a.test")`, `IpAddress(192.0.2.1)`; `None`: it is not a host's, but an
/// address of mail, and the like.
fn host(name: &str) -> Option<String> {
    let (kind, rest) = name.split_once('(')?;
    let name = rest.strip_suffix(')')?.trim_matches('"');
    // Nobody has looked at what stands in there.
    matches!(kind, "DnsName" | "IpAddress").then(|| name.escape_debug().to_string())
}

/// Returns a moment as people read it, in UTC.
fn date(time: UnixTime) -> Moment {
    Moment(Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    const SAID: Said = Said { has_ca: true, has_own: false };

    fn known(has_own: bool, is_asked: bool, first: Option<u8>) -> Known {
        Known { said: Said { has_own, ..SAID }, is_asked, first }
    }

    #[test]
    fn of_an_end_only_what_is_known_is_told() {
        for (known, words) in [
            (known(false, false, None), "without a word: perhaps it speaks no TLS there"),
            (known(false, false, Some(b'S')), "what it answers is no TLS"),
            (known(false, false, Some(22)), "it speaks TLS, but ended the connection before the greeting was over"),
            (known(false, true, Some(22)), "it asked for a certificate, and ended the connection: give it one"),
            (
                known(true, true, Some(22)),
                "it asked for a certificate, and ended the connection: it may not take the one",
            ),
        ] {
            for kind in [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe] {
                let told = super::words(&kind.into(), known);
                assert!(told.contains(words), "{known:?}: {told}");
                let late = super::late(&kind.into(), known, false);
                assert_eq!(late, known.is_asked.then_some(told));
                assert_eq!(super::late(&kind.into(), known, true), None, "it took what came before");
            }
        }
    }

    #[test]
    fn a_refusal_is_of_the_certificate_where_one_was_asked_for() {
        let told = |alert, has_own, is_asked| {
            let error = io::Error::other(Error::AlertReceived(alert));
            super::words(&error, known(has_own, is_asked, Some(22)))
        };
        for alert in [AlertDescription::BadCertificate, AlertDescription::HandshakeFailure, AlertDescription::UnknownCA]
        {
            let none = told(alert, false, true);
            assert_eq!(none, format!("it asks for a certificate: give it one by `cert` and `key` ({alert:?})"));
            assert_eq!(told(alert, true, true), format!("it does not take the certificate in `cert` ({alert:?})"));
            for has_own in [false, true] {
                let told = told(alert, has_own, false);
                assert!(told.starts_with(&format!("it refuses ({alert:?})")) && !told.contains("`cert`"), "{told}");
            }
        }
    }

    #[test]
    fn of_many_names_a_few_are_told_and_only_those_of_hosts() {
        let told = |presented: &[&str]| {
            let expected = ServerName::try_from("a.test").expect("a name");
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            certificate(&CertificateError::NotValidForNameContext { expected, presented }, SAID)
        };
        let names: Vec<String> = (1..=300).map(|number| format!("DnsName(\"{number}.test\")")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let which = "`server_name` says which one is meant";
        assert_eq!(told(&names), format!("its certificate is for 1.test, 2.test, 3.test and 297 more: {which}"));
        assert_eq!(told(&names[..3]), format!("its certificate is for 1.test, 2.test, 3.test: {which}"));
        let others = ["Unsupported(0x01)", "UniformResourceIdentifier(\"spiffe://a/b\")", "DirectoryName"];
        let mixed = ["Unsupported(0x01)", "IpAddress(192.0.2.1)", "DirectoryName", "DnsName(\"*.b.test\")"];
        assert_eq!(told(&mixed), format!("its certificate is for 192.0.2.1, *.b.test: {which}"));
        assert!(told(&others).starts_with("its certificate names no host"), "{}", told(&others));
        assert_eq!(told(&["DnsName(\"a\u{1b}[2J\")"]), format!("its certificate is for a\\u{{1b}}[2J: {which}"));
    }
}

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

/// Returns why there was no handshake.
pub(super) fn words(error: &io::Error, said: Said) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match (inner, error.kind()) {
        (Some(Error::InvalidCertificate(wrong)), _) => certificate(wrong, said),
        (Some(Error::AlertReceived(alert)), _) => refusal(*alert, said),
        (Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }), _) => {
            "what it answers is no TLS: is it another port?".to_owned()
        }
        (Some(Error::PeerIncompatible(what)), _) => format!("it speaks TLS as orch does not: {what:?}"),
        (Some(other), _) => other.to_string(),
        (None, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
            "it ended the connection: it speaks no TLS there, or only after words of its own protocol, as SMTP and \
             PostgreSQL do"
                .to_owned()
        }
        (None, _) => error.to_string(),
    }
}

/// Returns why the far side ended a connection over TLS, if it said so. One that is of TLS 1.3 says only after the handshake that
/// it does not take a certificate. Source: RFC 8446, section 4.4.2.4.
pub(super) fn late(error: &io::Error, said: Said) -> Option<String> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(refusal(*alert, said)),
        _ => None,
    }
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
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "its certificate names no host (subjectAltName; the name in its subject does not count)".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            format!("its certificate is for {}: `server_name` says which one is meant", names.join(", "))
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

fn refusal(alert: AlertDescription, said: Said) -> String {
    match alert {
        AlertDescription::HandshakeFailure | AlertDescription::CertificateRequired if !said.has_own => {
            format!("it refuses ({alert:?}): perhaps it asks for a certificate, `cert` and `key`")
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::CertificateExpired
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => format!("it does not take the certificate in `cert` ({alert:?})"),
        AlertDescription::UnrecognisedName => "it has nothing by this name (`server_name`)".to_owned(),
        AlertDescription::ProtocolVersion => "it speaks neither TLS 1.2 nor 1.3".to_owned(),
        other => format!("it refuses ({other:?})"),
    }
}

/// Returns a name of a certificate without its kind: `DnsName("a.test")`, `IpAddress(192.0.2.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')'));
    inner.trim_matches('"')
}

/// Returns a moment as people read it, in UTC.
fn date(time: UnixTime) -> Moment {
    Moment(Duration::from_secs(time.as_secs()))
}

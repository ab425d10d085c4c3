//! Heads of requests and answers as the general path holds them: what the fast path does to bytes, done to maps of fields.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Method, StatusCode, Version};
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::lb::balance::{Balanced, Wish};
use crate::lb::http::answer::{Fault, is_bare};
use crate::lb::http::forward::Client;
use crate::lb::http::head::{MAX_FIELDS, MAX_HEAD, Wrong, is_host, is_request_id, number};
use crate::lb::http::log::AccessAsked;
use crate::lb::http::refusal::Refusal;
use crate::lb::http::route::Asked;
use crate::lb::http::visit::Destination;
use crate::lb::http::wish::wish;

const FORWARDED_FOR: &str = "X-Forwarded-For";
const FORWARDED_PROTO: &str = "X-Forwarded-Proto";
const FORWARDED_HOST: &str = "X-Forwarded-Host";
const FORWARDED_PORT: &str = "X-Forwarded-Port";
const REQUEST_ID: &str = "X-Request-Id";

/// What rules look at of a request.
pub(super) struct Facts<'a> {
    head: &'a RequestHeader,
    pub(super) host: Vec<u8>,
    /// Path and query.
    pub(super) target: String,
}

impl<'a> Facts<'a> {
    /// Reads a head. Those of HTTP/1 were judged before.
    ///
    /// # Errors
    /// Why it is not served.
    pub(super) fn of(head: &'a RequestHeader) -> Result<Self, Wrong> {
        if head.method == Method::CONNECT {
            return Err(Wrong::Method);
        }
        if head.headers.len() > MAX_FIELDS {
            return Err(Wrong::Large);
        }
        // Libraries of HTTP/2 look at the first only, and a pod of HTTP/1.1 would get them all.
        if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
            return Err(Wrong::Malformed);
        }
        let path = str::from_utf8(head.raw_path()).map_err(|_| Wrong::Malformed)?;
        // A target that names its host has been found to agree with the field.
        let (named, target) = match path.split_once("://") {
            Some((_, rest)) if !path.starts_with('/') => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (host, path) = rest.split_at(end);
                (Some(host), if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
            }
            _ => (head.uri.authority().map(http::uri::Authority::as_str), path.to_owned()),
        };
        let field = || head.headers.get(HOST).map(HeaderValue::as_bytes);
        let host = named.map(str::as_bytes).or_else(field).unwrap_or_default();
        // Libraries of HTTP/2 take `?` and `*` for paths.
        let is_path = target.starts_with('/') || (target == "*" && head.method == Method::OPTIONS);
        if !is_host(host) || !is_path {
            return Err(Wrong::Malformed);
        }
        Ok(Self { head, host: host.to_vec(), target })
    }

    /// Returns whether it has a field with this value.
    pub(super) fn has_header(&self, name: &str, value: &str) -> bool {
        self.head.headers.get_all(name).iter().any(|found| found.as_bytes() == value.as_bytes())
    }

    /// Returns what of it counts in the choice of a pod.
    pub(super) fn wish(&self, balanced: &Balanced) -> Wish {
        wish(balanced, &self.host, &|name, each| {
            self.head.headers.get_all(name).iter().for_each(|value| each(value.as_bytes()));
        })
    }

    /// Returns what rules look at.
    pub(super) fn asked<'b>(&'b self, has_header: &'b dyn Fn(&str, &str) -> bool) -> Asked<'b> {
        let path = self.target.split('?').next().unwrap_or_default().as_bytes();
        Asked { host: &self.host, path, method: self.head.method.as_str(), has_header }
    }
}

/// Returns what the access log keeps of a request.
pub(super) fn line(head: &RequestHeader, facts: &Facts<'_>, made_id: &[u8; 32]) -> AccessAsked {
    let id = head.headers.get(REQUEST_ID).map(HeaderValue::as_bytes).filter(|id| is_request_id(id));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    AccessAsked {
        method: head.method.as_str().to_owned(),
        host: text(&facts.host),
        path: AccessAsked::path_of(&facts.target),
        request_id: text(id.unwrap_or(made_id)),
        protocol: match head.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
    }
}

/// Returns whether the client wants no other request on its connection. Pingora reads the first `Connection` only, and
/// believes `keep-alive` before `close`.
pub(super) fn closes(head: &RequestHeader) -> bool {
    let options =
        head.headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.map(<[u8]>::trim_ascii).any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// Changes a request for its pod: see [`crate::lb::http::forward`].
pub(super) fn forward(
    asked: &RequestHeader,
    request: &mut RequestHeader,
    to: &Destination,
    client: &Client,
    made_id: &[u8; 32],
) -> Result<()> {
    let Facts { host, target, .. } = Facts::of(asked).map_err(|_| Error::new_down(ErrorType::InvalidHTTPHeader))?;
    let rewritten = to.rewritten(&target);
    let target = rewritten.as_deref().unwrap_or(&target);
    if request.raw_path() != target.as_bytes() {
        set_target(request, target)?;
    }
    if let Some(host) = to.host() {
        request.insert_header(HOST, host)?;
    }
    if asked.version == Version::HTTP_2 {
        join_cookies(request)?;
    }
    let before = request.headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    let mut chain: Vec<&[u8]> = before.filter(|value| !value.is_empty()).collect();
    chain.push(client.address.as_bytes());
    let chain = chain.join(&b", "[..]);
    request.insert_header(FORWARDED_FOR, chain)?;
    let mut tell = |name: &'static str, value: &[u8]| {
        let first = request.headers.get(name).filter(|_| client.is_inside).cloned();
        match first {
            Some(kept) => request.insert_header(name, kept),
            None if value.is_empty() => {
                request.remove_header(name);
                Ok(())
            }
            None => request.insert_header(name, value),
        }
    };
    tell(FORWARDED_PROTO, client.scheme().as_bytes())?;
    tell(FORWARDED_HOST, &host)?;
    tell(FORWARDED_PORT, client.port.to_string().as_bytes())?;
    let kept = request.headers.get_all(REQUEST_ID).iter().find(|id| is_request_id(id.as_bytes())).cloned();
    match kept {
        Some(kept) => request.insert_header(REQUEST_ID, kept),
        None => request.insert_header(REQUEST_ID, &made_id[..]),
    }
}

/// Puts cookies into one field, which clients of HTTP/2 divide: pods would read the first only, or put commas between them.
/// Source: RFC 9113, section 8.2.3.
fn join_cookies(request: &mut RequestHeader) -> Result<()> {
    let crumbs: Vec<&[u8]> = request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return Ok(());
    }
    let whole = crumbs.join(&b"; "[..]);
    request.insert_header(COOKIE, whole)
}

/// Exchanges path and query, and nothing else of what a request of HTTP/2 says of where it goes.
fn set_target(request: &mut RequestHeader, target: &str) -> Result<()> {
    if request.uri.authority().is_none() {
        return request.set_raw_path(target.as_bytes());
    }
    let malformed = || Error::new_in(ErrorType::InvalidHTTPHeader);
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().map_err(|_| malformed())?);
    request.set_uri(http::Uri::from_parts(parts).map_err(|_| malformed())?);
    Ok(())
}

/// Takes out of an answer what is for the connection to the pod only.
pub(super) fn clean(answer: &mut ResponseHeader) -> Result<()> {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    let options: Vec<HeaderName> = answer
        .headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        .filter(|option| *option != TRANSFER_ENCODING && *option != CONTENT_LENGTH)
        .collect();
    for option in &options {
        answer.remove_header(option);
    }
    for own in ["keep-alive", "proxy-connection"] {
        answer.remove_header(own);
    }
    answer.remove_header(&CONNECTION);
    answer.remove_header(&UPGRADE);
    // Several were found to be the same.
    let mut lengths = answer.headers.get_all(CONTENT_LENGTH).iter();
    if let (Some(length), Some(_)) = (lengths.next().cloned(), lengths.next()) {
        answer.insert_header(CONTENT_LENGTH, length)?;
    }
    Ok(())
}

/// Takes out of an answer that has no body by its status what says where that ends. Returns whether it said that there is one,
/// and its connection is for no other request: what follows may be something else.
pub(super) fn bare(answer: &mut ResponseHeader) -> bool {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS || !is_bare(answer.status.as_u16()) {
        return false;
    }
    let length = answer.remove_header(&CONTENT_LENGTH);
    let has_coding = answer.remove_header(&TRANSFER_ENCODING).is_some();
    let is_one = answer.status == StatusCode::NO_CONTENT && answer.version != Version::HTTP_2;
    is_one && (has_coding || length.is_some_and(|length| length.as_bytes() != b"0"))
}

/// Returns about how many bytes the head of a request takes in memory.
pub(super) fn size(asked: &RequestHeader) -> usize {
    // A field of few bytes takes a place in a map all the same.
    const PLACE: usize = 32;
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + PLACE;
    asked.raw_path().len() + asked.headers.iter().map(field).sum::<usize>()
}

/// Returns why the head of an answer is not passed on; `None`: it is. As the fast path judges it: pingora's own limits are wider, it
/// reads lists of lengths, and knows more of codings.
pub(super) fn fault(answer: &ResponseHeader, is_upgrade: bool) -> Option<Fault> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + ": \r\n".len();
    if answer.headers.len() > MAX_FIELDS || answer.headers.iter().map(line).sum::<usize>() > MAX_HEAD {
        return Some(Fault::Large);
    }
    let mut lengths = answer.headers.get_all(CONTENT_LENGTH).iter().map(|value| number(value.as_bytes()));
    let has_one_length = match lengths.next() {
        None => true,
        Some(first) => first.is_some() && lengths.all(|length| length == first),
    };
    // Whoever reads several fields as a list would take it for coded twice.
    let mut codings = answer.headers.get_all(TRANSFER_ENCODING).iter();
    let has_known_coding = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            answer.version == Version::HTTP_11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        (Some(_), Some(_)) => false,
    };
    let is_switched = answer.status == StatusCode::SWITCHING_PROTOCOLS && !is_upgrade;
    (!has_one_length || !has_known_coding || is_switched).then_some(Fault::Unclear)
}

/// Returns why pingora, or its library of HTTP/2, did not take the head of an answer; `None`: that is not what went wrong.
pub(super) fn fault_of(error: &Error) -> Option<Fault> {
    let cause = error.root_cause();
    if let Some(cause) = cause.downcast_ref::<h2::Error>() {
        // It resets a call whose head breaks the rules; what is no frame ends the connection.
        let is_own = cause.is_reset() && !cause.is_remote();
        return (is_own && cause.reason() == Some(h2::Reason::PROTOCOL_ERROR)).then_some(Fault::Unclear);
    }
    if *error.etype() != ErrorType::InvalidHTTPHeader {
        return None;
    }
    match cause.downcast_ref::<httparse::Error>() {
        Some(httparse::Error::TooManyHeaders) => return Some(Fault::Large),
        Some(_) => return Some(Fault::NoHttp),
        None => {}
    }
    // What has no cause is told apart by its words only.
    let words = error.context.as_ref().map_or("", |words| words.as_str());
    match words {
        _ if words.starts_with("Response header larger than") => Some(Fault::Large),
        _ if words.contains("Content-Length") => Some(Fault::Unclear),
        _ if words.starts_with("invalid status") => Some(Fault::NoHttp),
        _ => None,
    }
}

/// Returns whether the body of an answer ends with its connection.
pub(super) fn ends_with_connection(asked: &RequestHeader, answer: &ResponseHeader) -> bool {
    answer.version != Version::HTTP_2 && is_unframed(asked, answer)
}

/// Returns whether pingora is about to put an answer of HTTP/2 into chunks.
pub(super) fn is_chunked_later(asked: &RequestHeader, answer: &ResponseHeader) -> bool {
    answer.version == Version::HTTP_2 && is_unframed(asked, answer)
}

/// Returns whether an answer has a body and does not say where that ends.
fn is_unframed(asked: &RequestHeader, answer: &ResponseHeader) -> bool {
    let has_body = asked.method != Method::HEAD && !matches!(answer.status.as_u16(), 101 | 204 | 304);
    let is_framed = [&CONTENT_LENGTH, &TRANSFER_ENCODING].iter().any(|name| answer.headers.contains_key(*name));
    has_body && !is_framed
}

/// Returns what a client is told of an error that nothing else explains; `None`: it is gone.
pub(super) fn refusal(error: &Error) -> Option<Refusal> {
    let kind = error.root_cause().downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, _) if kind == Some(std::io::ErrorKind::InvalidData) => Some(Refusal::Malformed),
        (ErrorSource::Downstream, _) if kind == Some(std::io::ErrorKind::TimedOut) => Some(Refusal::SlowClient),
        (
            ErrorSource::Downstream,
            ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed | ErrorType::WriteTimedout,
        ) => None,
        (ErrorSource::Downstream, _) => Some(Refusal::Malformed),
        (ErrorSource::Upstream | ErrorSource::Internal | ErrorSource::Unset, _) => Some(Refusal::Broken),
    }
}

/// Returns whether a pod that speaks HTTP/2 says that it did nothing of a request: it refused it, or was about to end the
/// connection when it came. Source: RFC 9113, section 8.7.
pub(super) fn is_untouched(error: &Error) -> bool {
    let Some(cause) = error.root_cause().downcast_ref::<h2::Error>().filter(|cause| cause.is_remote()) else {
        return false;
    };
    match cause.reason() {
        Some(h2::Reason::REFUSED_STREAM) => cause.is_reset(),
        Some(h2::Reason::NO_ERROR) => cause.is_go_away(),
        _ => false,
    }
}

/// Returns an answer of the balancer's own.
pub(super) fn answer(refusal: Refusal, is_head: bool) -> Result<(ResponseHeader, Bytes)> {
    let body = refusal.body();
    let mut answer = ResponseHeader::build(refusal.status(), Some(4))?;
    answer.insert_header(CONTENT_LENGTH, body.len())?;
    answer.insert_header(http::header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
    Ok((answer, if is_head { Bytes::new() } else { body.into() }))
}

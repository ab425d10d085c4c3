//! Heads of requests over HTTP/1: what one says, whether it may be served, and by which of the two paths. Pure.
//!
//! Both paths serve only what was found good here, so that they cannot read one request in two ways. What is open to more
//! than one reading is refused: a second `Host`, lengths that contradict each other, lines that end in a bare LF.
//! Source: RFC 9112, sections 2 to 6; its "may" is "does not" here.

use std::mem::MaybeUninit;

use httparse::Header;

/// Longest head, the request line included.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Most header fields of a head.
pub(super) const MAX_FIELDS: usize = 100;

/// Longest body that is read whole before it is sent on: what is longer needs both directions at once.
pub(super) const MAX_HELD_BODY: u64 = 64 * 1024;

/// Longest request id that is kept.
const MAX_REQUEST_ID: usize = 128;

/// What a client sends first that speaks HTTP/2 without asking. Source: RFC 9113, section 3.4.
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the fields of a head; they point into its bytes.
pub(super) type Room<'b> = [MaybeUninit<Header<'b>>; MAX_FIELDS];

/// Returns empty room.
pub(super) fn room<'b>() -> Room<'b> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// What the bytes of a connection begin with.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is matched where it is made, and nearly always a head")]
pub(super) enum Begins<'b, 'r> {
    /// A part of a head.
    Partial,
    /// HTTP/2.
    Http2,
    /// What is not served.
    Wrong(Wrong),
    /// A whole head.
    Head(RequestHead<'b, 'r>),
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is none, or can be read in more than one way.
    Malformed,
    /// Its method is not served.
    Method,
    /// The request line is too long.
    LongTarget,
    /// It is too long, or has too many fields.
    Large,
    /// A transfer coding other than `chunked`.
    Coding,
    /// Another version of HTTP.
    Version,
}

/// How a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// With its head.
    None,
    /// After so many bytes, of which there is one at least.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection; answers only.
    UntilClose,
}

/// What a header field is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: it is passed on.
    Other,
    /// For this connection only: it ends here.
    Hop,
    /// `Host`.
    Host,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// `X-Forwarded-Port`.
    ForwardedPort,
    /// `X-Request-Id`; while it is judged only.
    RequestId,
}

/// A whole head of a request.
#[derive(Debug)]
pub(super) struct RequestHead<'b, 'r> {
    /// Bytes of it.
    pub(super) length: usize,
    /// The bytes.
    pub(super) bytes: &'b [u8],
    /// Method.
    pub(super) method: &'b str,
    /// Path and query, if `is_simple`.
    pub(super) target: &'b str,
    /// Value of `Host`; empty: none, or an empty one.
    pub(super) host: &'b [u8],
    /// Value of `X-Request-Id`; empty: none that may go on.
    pub(super) request_id: &'b [u8],
    /// Body.
    pub(super) body: Body,
    /// Whether the client wants another request on the connection.
    pub(super) keep_alive: bool,
    /// Whether the fast path can serve it; what is not simple is the general path's.
    pub(super) is_simple: bool,
    /// Whether the connection may become something else than HTTP.
    pub(super) is_upgrade: bool,
    /// Header fields, each with what it is.
    pub(super) fields: &'r [Header<'b>],
    kinds: [Kind; MAX_FIELDS],
}

impl<'b> RequestHead<'b, '_> {
    /// Returns the header fields with what each is.
    pub(super) fn fields(&self) -> impl Iterator<Item = (Kind, &Header<'b>)> {
        self.kinds.iter().copied().zip(self.fields)
    }

    /// Returns whether it may be sent twice without doing more than once. Source: RFC 9110, section 9.2.2.
    pub(super) fn is_idempotent(&self) -> bool {
        is_idempotent(self.method)
    }
}

/// Returns whether a request with this method may be sent twice. Source: RFC 9110, section 9.2.2.
pub(super) fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}

/// Returns whether a status says that the pod failed, whatever it was asked.
pub(super) fn is_ill(status: u16) -> bool {
    status >= 500
}

/// Reads what `bytes` begin with.
pub(super) fn read<'b, 'r>(bytes: &'b [u8], room: &'r mut Room<'b>) -> Begins<'b, 'r> {
    let same = bytes.len().min(HTTP2_PREFACE.len());
    // No method of HTTP/1 begins so: `PRI` is reserved.
    if same >= 4 && bytes[..same] == HTTP2_PREFACE[..same] {
        return if same == HTTP2_PREFACE.len() { Begins::Http2 } else { Begins::Partial };
    }
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, room) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Begins::Partial,
        Ok(_) => return Begins::Wrong(too_long(bytes)),
        Err(httparse::Error::TooManyHeaders) => return Begins::Wrong(Wrong::Large),
        Err(httparse::Error::Version) if names_version(bytes) => return Begins::Wrong(Wrong::Version),
        Err(_) => return Begins::Wrong(Wrong::Malformed),
    };
    match judge(&bytes[..length], &request) {
        Ok(verdict) => Begins::Head(RequestHead {
            length,
            bytes: &bytes[..length],
            method: request.method.unwrap_or_default(),
            target: request.path.unwrap_or_default(),
            host: verdict.host,
            request_id: verdict.request_id,
            body: verdict.body,
            keep_alive: verdict.keep_alive,
            is_simple: verdict.is_simple,
            is_upgrade: verdict.is_upgrade,
            fields: request.headers,
            kinds: verdict.kinds,
        }),
        Err(wrong) => Begins::Wrong(wrong),
    }
}

/// Returns what of a head is too long. It is the same whether all of it is there or only the part that may be read.
fn too_long(bytes: &[u8]) -> Wrong {
    let line = bytes[..bytes.len().min(MAX_HEAD)].trim_ascii_start();
    if line.contains(&b'\n') { Wrong::Large } else { Wrong::LongTarget }
}

/// What is found out about a head, field by field.
struct Verdict<'b> {
    host: &'b [u8],
    request_id: &'b [u8],
    body: Body,
    keep_alive: bool,
    is_simple: bool,
    is_upgrade: bool,
    kinds: [Kind; MAX_FIELDS],
}

fn judge<'b>(bytes: &[u8], request: &httparse::Request<'_, 'b>) -> Result<Verdict<'b>, Wrong> {
    if has_bare_lf(bytes) {
        return Err(Wrong::Malformed);
    }
    let is_http_11 = request.version == Some(1);
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if method == "CONNECT" {
        return Err(Wrong::Method);
    }
    let is_origin = target.starts_with('/');
    let is_absolute = ["http://", "https://"]
        .iter()
        .any(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    if has_fragment(target) || !(is_origin || is_absolute || (target == "*" && method == "OPTIONS")) {
        return Err(Wrong::Malformed);
    }
    let mut verdict = Verdict {
        host: b"",
        request_id: b"",
        body: Body::None,
        keep_alive: is_http_11,
        is_simple: is_http_11 && is_origin,
        is_upgrade: false,
        kinds: [Kind::Other; MAX_FIELDS],
    };
    let mut seen = Seen::default();
    for (field, kind) in request.headers.iter().zip(&mut verdict.kinds) {
        *kind = Kind::Other;
        let value = field.value;
        match known(field.name) {
            Known::None => {}
            Known::Of(Kind::Host) => {
                if std::mem::replace(&mut seen.host, true) || !is_host(value) {
                    return Err(Wrong::Malformed);
                }
                *kind = Kind::Host;
                verdict.host = value;
            }
            Known::Of(Kind::ForwardedFor) => {
                *kind = Kind::ForwardedFor;
                // One line is extended in place; several are put together by the general path.
                verdict.is_simple &= !std::mem::replace(&mut seen.forwarded_for, true);
            }
            Known::Of(Kind::RequestId) => {
                // One that does not stay is replaced.
                let is_first = verdict.request_id.is_empty() && is_request_id(value);
                *kind = if is_first { Kind::Other } else { Kind::Hop };
                verdict.request_id = if is_first { value } else { verdict.request_id };
            }
            Known::Of(other) => *kind = other,
            Known::ContentLength => {
                if std::mem::replace(&mut seen.length, true) {
                    return Err(Wrong::Malformed);
                }
                match number(value).ok_or(Wrong::Malformed)? {
                    0 => {}
                    length => verdict.body = Body::Length(length),
                }
            }
            Known::TransferEncoding => {
                if std::mem::replace(&mut seen.coding, true) || !is_http_11 {
                    return Err(Wrong::Malformed);
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Wrong::Coding);
                }
                verdict.is_simple = false;
            }
            Known::Connection => {
                *kind = Kind::Hop;
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        seen.close = true;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        seen.keep_alive = true;
                    } else if is_framing(option) {
                        // To be taken out here, where the pod needs it to know the end.
                        return Err(Wrong::Malformed);
                    } else if !option.is_empty() {
                        verdict.is_simple = false;
                    }
                }
            }
            Known::Upgrade => {
                (verdict.is_simple, verdict.is_upgrade) = (false, true);
            }
            Known::General => verdict.is_simple = false,
        }
    }
    if seen.coding {
        // Both: whoever wrote it and whoever reads it next may differ in where it ends.
        if seen.length {
            return Err(Wrong::Malformed);
        }
        verdict.body = Body::Chunked;
    }
    if is_http_11 && !seen.host {
        return Err(Wrong::Malformed);
    }
    // A host in the target counts, and the field is to say the same. Source: RFC 9112, section 3.2.2.
    if is_absolute && !is_authority(authority(target), seen.host.then_some(verdict.host)) {
        return Err(Wrong::Malformed);
    }
    verdict.keep_alive = !seen.close && (is_http_11 || seen.keep_alive);
    verdict.is_simple &= !matches!(verdict.body, Body::Length(length) if length > MAX_HELD_BODY);
    Ok(verdict)
}

/// Returns whether a target has a `#`, which none may have: who reads it as one sees another path than the rules do. Source:
/// RFC 9112, section 3.2.
fn has_fragment(target: &str) -> bool {
    memchr::memchr(b'#', target.as_bytes()).is_some()
}

/// Returns the host that a whole address names.
fn authority(target: &str) -> &[u8] {
    let (_, rest) = target.split_once("://").unwrap_or_default();
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    &rest.as_bytes()[..end]
}

/// Returns whether a whole address names a host, and the one that the field says. As strict as pingora, which would refuse the
/// rest without a word and uncounted: of the two ways of writing one host it takes one only.
fn is_authority(named: &[u8], host: Option<&[u8]>) -> bool {
    let is_one = !named.is_empty() && is_host(named) && http::uri::Authority::try_from(named).is_ok();
    is_one && host.is_none_or(|host| host == named)
}

#[derive(Default)]
struct Seen {
    host: bool,
    length: bool,
    coding: bool,
    forwarded_for: bool,
    close: bool,
    keep_alive: bool,
}

/// A header field that means something here.
enum Known {
    None,
    Of(Kind),
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    /// What only the general path can do.
    General,
}

/// By the length first: most fields are told apart from ours by it alone.
fn known(name: &str) -> Known {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 if is("te") => Known::Of(Kind::Hop),
        4 if is("host") => Known::Of(Kind::Host),
        6 if is("expect") => Known::General,
        7 if is("upgrade") => Known::Upgrade,
        7 if is("trailer") => Known::General,
        10 if is("connection") => Known::Connection,
        10 if is("keep-alive") => Known::Of(Kind::Hop),
        12 if is("x-request-id") => Known::Of(Kind::RequestId),
        14 if is("content-length") => Known::ContentLength,
        14 if is("http2-settings") => Known::General,
        15 if is("x-forwarded-for") => Known::Of(Kind::ForwardedFor),
        16 if is("x-forwarded-host") => Known::Of(Kind::ForwardedHost),
        16 if is("x-forwarded-port") => Known::Of(Kind::ForwardedPort),
        16 if is("proxy-connection") => Known::Of(Kind::Hop),
        17 if is("x-forwarded-proto") => Known::Of(Kind::ForwardedProto),
        17 if is("transfer-encoding") => Known::TransferEncoding,
        19 if is("proxy-authorization") => Known::Of(Kind::Hop),
        _ => Known::None,
    }
}

/// Returns whether a field says where a message ends.
pub(super) fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
}

/// Returns whether the first line is a request line of some version of HTTP.
fn names_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let version = words.nth(2).unwrap_or_default();
    let is_version = matches!(version, [b'H', b'T', b'T', b'P', b'/', major, ..] if major.is_ascii_digit());
    is_version && words.next().is_none()
}

/// Returns whether a line ends without CR, which some read as an end of line and others do not.
pub(super) fn has_bare_lf(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}

/// Returns whether a request id may go on as it is: it ends up in logs.
pub(super) fn is_request_id(value: &[u8]) -> bool {
    let of_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:~+=/@".contains(byte);
    (1..=MAX_REQUEST_ID).contains(&value.len()) && value.iter().all(of_word)
}

/// Reads a number of digits only: no sign, no list, none that could overflow anywhere.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// Returns whether a value of `Host` is a name or an address with a port or without, or empty. Source: RFC 3986, section
/// 3.2.2, without what no name of a host has.
pub(super) fn is_host(value: &[u8]) -> bool {
    let port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    if let Some(rest) = value.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        let (address, rest) = (&rest[..end], &rest[end + 1..]);
        let is_address = str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        return is_address && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(port));
    }
    let name = match value.iter().rposition(|byte| *byte == b':') {
        Some(colon) if port(&value[colon + 1..]) => &value[..colon],
        Some(_) => return false,
        None => value,
    };
    let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%');
    name.iter().all(of_name) && (!name.is_empty() || value.is_empty())
}

#[cfg(test)]
mod tests;

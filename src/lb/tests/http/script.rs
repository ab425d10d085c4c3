//! Messages of HTTP/1 as tests compare them: read by another parser than the balancer's, in one form whatever their framing.

use tokio::io::{AsyncRead, AsyncReadExt};

/// A request or an answer.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Its first line.
    pub(super) start: String,
    /// Its fields in order of their names, in lower case.
    pub(super) fields: Vec<(String, String)>,
    /// Its body without framing.
    pub(super) body: Vec<u8>,
    /// How it ended: by its length, by chunks, or with the connection.
    pub(super) framing: &'static str,
    /// Whether its end came.
    pub(super) is_whole: bool,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.start)?;
        for (name, value) in &self.fields {
            write!(f, " | {name}: {value}")?;
        }
        let body = &self.body[..self.body.len().min(60)];
        write!(f, " || {} ({} bytes, {})", body.escape_ascii(), self.body.len(), self.framing)?;
        if self.is_whole { Ok(()) } else { write!(f, " BROKEN OFF") }
    }
}

impl Message {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Takes out fields that may differ: their values are told from time and luck.
    pub(super) fn without(mut self, names: &[&str]) -> Self {
        self.fields.retain(|(name, _)| !names.contains(&name.as_str()));
        self
    }
}

/// Splits what begins with a whole head; `None`: there is none.
fn split_head(bytes: &[u8]) -> Option<(Message, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let mut fields: Vec<_> = lines.map(field).collect();
    fields.sort();
    Some((Message { start, fields, body: Vec::new(), framing: "length", is_whole: true }, end + 4))
}

/// Takes a chunked body from the front; returns it with its length on the wire, and whether its end is there.
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, usize, bool) {
    let (mut body, all) = (Vec::new(), bytes.len());
    loop {
        let Some(line_end) = bytes.windows(2).position(|window| window == b"\r\n") else {
            return (body, all, false);
        };
        let line = String::from_utf8_lossy(&bytes[..line_end]).into_owned();
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
        let Ok(size) = size else { return (body, all, false) };
        bytes = &bytes[line_end + 2..];
        if size == 0 {
            // Trailers up to an empty line.
            loop {
                let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else {
                    return (body, all, false);
                };
                let is_last = end == 0;
                bytes = &bytes[end + 2..];
                if is_last {
                    return (body, all - bytes.len(), true);
                }
            }
        }
        body.extend_from_slice(&bytes[..size.min(bytes.len())]);
        if bytes.len() < size + 2 {
            return (body, all, false);
        }
        bytes = &bytes[size + 2..];
    }
}

/// Takes a message from the front. `no_body`: it has none whatever it says. `is_over`: nothing more comes.
fn take(bytes: &[u8], no_body: impl Fn(&Message) -> bool, is_answer: bool) -> Option<(Message, usize)> {
    let (mut message, head) = split_head(bytes)?;
    let rest = &bytes[head..];
    if no_body(&message) {
        return Some((message, head));
    }
    let coding = message.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let length = message.field("content-length").and_then(|length| length.parse::<usize>().ok());
    let used = if coding {
        let (body, used, is_whole) = unchunk(rest);
        (message.body, message.framing, message.is_whole) = (body, "chunks", is_whole);
        used
    } else if let Some(length) = length {
        let used = length.min(rest.len());
        (message.body, message.is_whole) = (rest[..used].to_vec(), used == length);
        used
    } else if is_answer {
        (message.body, message.framing) = (rest.to_vec(), "close");
        rest.len()
    } else {
        0
    };
    Some((message, head + used))
}

/// Splits what a client got into answers; `methods` are those of its requests. What is no answer is one of its own.
pub(super) fn answers(mut bytes: &[u8], methods: &[&str]) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    let mut finals = 0;
    while !bytes.is_empty() {
        let is_head = methods.get(finals) == Some(&"HEAD");
        let status = |message: &Message| message.start.get(9..12).and_then(|status| status.parse::<u16>().ok());
        let no_body = |message: &Message| {
            is_head || status(message).is_some_and(|status| status < 200 || matches!(status, 204 | 304))
        };
        let Some((message, used)) = take(bytes, no_body, true) else {
            let start = format!("NO ANSWER: {}", bytes.escape_ascii());
            all.push(Message { start, fields: vec![], body: vec![], framing: "none", is_whole: false });
            break;
        };
        finals += usize::from(status(&message).is_some_and(|status| status >= 200));
        bytes = &bytes[used..];
        all.push(message);
    }
    all
}

/// Takes the first final answer from the front, if it is whole; not one to a HEAD request, nor one that ends with the
/// connection.
pub(super) fn first_answer(bytes: &[u8]) -> Option<(Message, usize)> {
    let mut at = 0;
    loop {
        let (message, used) = take(&bytes[at..], |message| message.start.starts_with("HTTP/1.1 1"), true)?;
        at += used;
        if !message.start.starts_with("HTTP/1.1 1") {
            return message.is_whole.then_some((message, at));
        }
    }
}

/// Reads one request; `None` at the end.
pub(super) async fn read_message(from: &mut (impl AsyncRead + Unpin), unread: &mut Vec<u8>) -> Option<Message> {
    loop {
        if let Some((message, used)) = take(unread, |_| false, false)
            && message.is_whole
        {
            unread.drain(..used);
            return Some(message);
        }
        // A client that resets ends it, too.
        if from.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    }
}

//! Asks a container from its host whether it serves: by a connection, or by a request of HTTP/1.1.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::sockets;
use crate::diag::plain;
use crate::model::ProbeKind;

/// Longest line that an answer may begin with.
const MAX_LINE: usize = 1024;

/// What is asked, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Where.
    pub address: SocketAddr,
    /// What.
    pub kind: ProbeKind,
    /// Time for the whole answer.
    pub timeout: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Whether that is as it should be.
    pub is_good: bool,
    /// For the reader: `503 Service Unavailable`, `connection refused`.
    pub said: String,
}

/// Whoever asks.
#[async_trait]
pub trait Asker: Send + Sync {
    /// Asks once. Whatever goes wrong is an answer too.
    async fn ask(&self, question: &Question) -> Heard;
}

/// Asks over this host's network.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostAsker;

#[async_trait]
impl Asker for HostAsker {
    async fn ask(&self, question: &Question) -> Heard {
        let Question { address, kind, timeout } = question;
        match tokio::time::timeout(*timeout, ask(*address, kind)).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(error)) => bad(reason(&error)),
            Err(_) => bad(format!("no answer within {} ms", timeout.as_millis())),
        }
    }
}

fn bad(said: String) -> Heard {
    Heard { is_good: false, said }
}

/// An error in words that stay the same: the number that the system adds says nothing.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "its address does not answer".to_owned(),
        io::ErrorKind::NetworkUnreachable => "no route to its address".to_owned(),
        _ => plain(&error.to_string()).into_owned(),
    }
}

async fn ask(address: SocketAddr, kind: &ProbeKind) -> io::Result<Heard> {
    let mut stream = TcpSocket::from_std_stream(sockets::client(address)?).connect(address).await?;
    let ProbeKind::Http { path, host } = kind else {
        return Ok(Heard { is_good: true, said: "connected".to_owned() });
    };
    let host = host.clone().unwrap_or_else(|| address.to_string());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: orch-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let line = first_line(&mut stream).await?;
    Ok(judge(&line))
}

async fn first_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while line.len() < MAX_LINE {
        if stream.read_buf(&mut line).await? == 0 {
            break;
        }
        if let Some(end) = memchr::memchr(b'\n', &line) {
            line.truncate(end);
            break;
        }
    }
    Ok(line)
}

/// Says what a status line means.
fn judge(line: &[u8]) -> Heard {
    let text = String::from_utf8_lossy(line);
    let status = text.trim_end().strip_prefix("HTTP/1.").and_then(|rest| rest.split_once(' '));
    let code = status.and_then(|(_, status)| status.get(..3)?.parse::<u16>().ok());
    match (status, code) {
        (Some((_, status)), Some(code)) => {
            // It ends up on terminals.
            let said = status.chars().filter(|char| !char.is_control()).take(60).collect();
            Heard { is_good: (200..400).contains(&code), said }
        }
        _ if line.is_empty() => bad("it closed the connection without an answer".to_owned()),
        _ => bad("what it answered is not HTTP/1".to_owned()),
    }
}

/// Answers as it is told, for tests: by the port that is asked, whichever container's it is.
#[derive(Debug, Default)]
pub struct FakeAsker {
    answers: std::sync::Mutex<std::collections::BTreeMap<u16, Heard>>,
    asked: std::sync::Mutex<Vec<SocketAddr>>,
}

impl FakeAsker {
    /// Sets what comes from a port; nothing listens at others.
    ///
    /// # Panics
    /// A test has panicked while it held the lock.
    pub fn set(&self, port: u16, is_good: bool, said: &str) {
        let heard = Heard { is_good, said: said.to_owned() };
        self.answers.lock().expect("no test panicked here").insert(port, heard);
    }

    /// Returns how often a port was asked.
    ///
    /// # Panics
    /// A test has panicked while it held the lock.
    pub fn asked(&self, port: u16) -> usize {
        self.asked.lock().expect("no test panicked here").iter().filter(|one| one.port() == port).count()
    }
}

#[async_trait]
impl Asker for FakeAsker {
    async fn ask(&self, question: &Question) -> Heard {
        self.asked.lock().expect("no test panicked here").push(question.address);
        let answers = self.answers.lock().expect("no test panicked here");
        answers.get(&question.address.port()).cloned().unwrap_or_else(|| bad("connection refused".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    /// What is heard from a server that sends `answer` to each connection, after what it was sent.
    async fn heard(kind: ProbeKind, answer: &'static [u8]) -> (Heard, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("asked");
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap_or_default();
            // Whoever asked may have gone.
            let _sent = stream.write_all(answer).await;
            if answer.ends_with(b"~") {
                tokio::time::sleep(SOON * 2).await;
            }
            String::from_utf8_lossy(&request[..read]).into_owned()
        };
        let question = Question { address, kind, timeout: SOON };
        tokio::join!(HostAsker.ask(&question), serve)
    }

    fn http(host: Option<&str>) -> ProbeKind {
        ProbeKind::Http { path: "/healthz?deep=1".to_owned(), host: host.map(str::to_owned) }
    }

    #[tokio::test]
    async fn answers_are_judged_by_their_status() {
        let check = async |answer, is_good, said: &str| {
            let (heard, _) = heard(http(None), answer).await;
            assert_eq!(heard, Heard { is_good, said: said.to_owned() });
        };
        check(b"HTTP/1.1 200 OK\r\n\r\n", true, "200 OK").await;
        check(b"HTTP/1.0 204 No Content\r\n\r\n", true, "204 No Content").await;
        check(b"HTTP/1.1 302 Found\r\n", true, "302 Found").await;
        check(b"HTTP/1.1 404 Not\x1b[31m Found\r\n\r\n", false, "404 Not[31m Found").await;
        check(b"HTTP/1.1 503\r\n\r\n", false, "503").await;
        check(b"HTTP/1.1 100 Continue\r\n\r\n", false, "100 Continue").await;
        check(b"", false, "it closed the connection without an answer").await;
        check(b"SSH-2.0-x\r\n", false, "what it answered is not HTTP/1").await;
        check(b"HTTP/1.1 2~", false, "no answer within 300 ms").await;
    }

    #[tokio::test]
    async fn a_request_says_what_it_was_told_to() {
        let (_, request) = heard(http(Some("app.example.com")), b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(request.starts_with("GET /healthz?deep=1 HTTP/1.1\r\nHost: app.example.com\r\n"), "{request}");
        let (_, request) = heard(http(None), b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(request.contains("\r\nHost: 127.0.0.1:"), "{request}");
    }

    #[tokio::test]
    async fn a_connection_is_enough_for_tcp_and_none_is_an_answer() {
        let (heard, request) = heard(ProbeKind::Tcp, b"").await;
        assert!(heard.is_good && request.is_empty(), "{heard:?}");
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            listener.local_addr().expect("bound")
        };
        let question = Question { address, kind: ProbeKind::Tcp, timeout: SOON };
        assert_eq!(HostAsker.ask(&question).await, bad("connection refused".to_owned()));
    }
}

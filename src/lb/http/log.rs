//! The access log: a line for each request that was answered or refused, while somebody wants them. Start at [`AccessLog`].
//!
//! Whoever serves requests must never wait for a line to be written: lines go into a queue that holds [`ROOM`] of them, and
//! what finds no room there is counted instead. A line holds no query and no header field but the request's id: both may hold
//! what is secret.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::count::Ending;
use super::refusal::Refusal;
use super::visit::{Destination, Visit};
use crate::lb::choose::Next;

/// Lines that wait to be written; some 2 MB.
pub(in crate::lb) const ROOM: usize = 4096;

/// Bytes of a path that a line keeps.
const PATH: usize = 2048;

/// One line of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLine {
    /// Who asked.
    pub client: SocketAddr,
    /// What he asked; `None`: it was no request that could be read.
    pub asked: Option<AccessAsked>,
    /// Status of the answer; 0: none came.
    pub status: u16,
    /// Why the balancer answered in a pod's stead.
    pub refusal: Option<&'static str>,
    /// Whether the answer reached the client whole.
    pub is_whole: bool,
    /// From the request's head to the end of its answer.
    pub took: Duration,
    /// Bytes of the request.
    pub sent: u64,
    /// Bytes of the answer.
    pub received: u64,
    /// What it was for.
    pub to: Option<AccessTo>,
}

/// What a line keeps of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessAsked {
    /// Its method.
    pub method: String,
    /// The host that it named.
    pub host: String,
    /// Its path, without a query.
    pub path: String,
    /// Its id, also where the balancer made it.
    pub request_id: String,
    /// `HTTP/1.1`.
    pub protocol: &'static str,
}

/// Where a request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessTo {
    /// The project.
    pub project: String,
    /// The service.
    pub service: String,
    /// The rule that said so.
    pub rule: Option<String>,
    /// The pod that answered, or was to.
    pub pod: Option<String>,
}

impl AccessAsked {
    /// Takes of a target what a line may show.
    pub(super) fn path_of(target: &str) -> String {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let end = path.floor_char_boundary(PATH);
        path[..end].to_owned()
    }
}

/// The queue of lines between those who serve requests and the one who writes.
#[derive(Debug)]
pub struct AccessLog {
    is_on: AtomicBool,
    to: mpsc::Sender<AccessLine>,
    from: Mutex<mpsc::Receiver<AccessLine>>,
    dropped: AtomicU64,
}

impl Default for AccessLog {
    fn default() -> Self {
        let (to, from) = mpsc::channel(ROOM);
        Self { is_on: AtomicBool::new(false), to, from: Mutex::new(from), dropped: AtomicU64::new(0) }
    }
}

impl AccessLog {
    /// Returns whether somebody wants lines: else nothing is kept for them.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Has lines of requests that begin from now on kept, or none.
    pub fn turn(&self, on: bool) {
        self.is_on.store(on, Ordering::Relaxed);
    }

    /// Returns how many lines found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits for lines, and adds as many as there are to `lines`, at most `limit`. For one reader.
    pub async fn receive(&self, lines: &mut Vec<AccessLine>, limit: usize) {
        self.from.lock().await.recv_many(lines, limit).await;
    }

    /// Notes the end of a request.
    pub(super) fn write(
        &self,
        asked: &AccessAsked,
        visit: &Visit,
        to: Option<&Destination>,
        pod: Option<&Next>,
        ending: &Ending,
    ) {
        let Ending { status, refusal, is_whole, took, sent, received } = *ending;
        self.put(|| AccessLine {
            client: visit.peer,
            asked: Some(asked.clone()),
            status,
            refusal: refusal.map(Refusal::text),
            is_whole,
            took,
            sent,
            received,
            to: to.map(|to| AccessTo {
                project: to.pool().project.to_string(),
                service: to.pool().service.to_string(),
                rule: to.rule().map(|rule| rule.name.clone()),
                pod: pod.map(|pod| pod.pod().to_string()),
            }),
        });
    }

    /// Notes what was no request that could be served.
    pub(super) fn write_refused(&self, client: SocketAddr, refusal: Refusal) {
        if self.is_on() {
            self.put(|| AccessLine {
                client,
                asked: None,
                status: refusal.status(),
                refusal: Some(refusal.text()),
                is_whole: true,
                took: Duration::ZERO,
                sent: 0,
                received: 0,
                to: None,
            });
        }
    }

    fn put(&self, line: impl FnOnce() -> AccessLine) {
        match self.to.try_reserve() {
            Ok(room) => room.send(line()),
            Err(_) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Writes what is known, and leaves out what is not: `client=… method=GET …`.
impl Display for AccessLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client, asked, status, refusal, is_whole, took, sent, received, to } = self;
        write!(f, "client={client}")?;
        if let Some(AccessAsked { method, host, path, request_id, protocol }) = asked {
            // Quoted: what a client sent begins no line, and no field, of its own.
            write!(f, " protocol={protocol} method={method:?} host={host:?} path={path:?} request_id={request_id:?}")?;
        }
        write!(f, " status={status} is_whole={is_whole} micros={} sent={sent} received={received}", took.as_micros())?;
        if let Some(refusal) = refusal {
            write!(f, " refusal={refusal:?}")?;
        }
        if let Some(AccessTo { project, service, rule, pod }) = to {
            write!(f, " project={project} service={service}")?;
            if let Some(rule) = rule {
                write!(f, " rule={rule:?}")?;
            }
            if let Some(pod) = pod {
                write!(f, " pod={pod}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str) -> AccessLine {
        let text = str::to_owned;
        AccessLine {
            client: ([10, 0, 0, 1], 4711).into(),
            asked: Some(AccessAsked {
                method: text("GET"),
                host: text("a.test"),
                path: AccessAsked::path_of(path),
                request_id: text("f00"),
                protocol: "HTTP/1.1",
            }),
            status: 200,
            refusal: None,
            is_whole: true,
            took: Duration::from_micros(1234),
            sent: 0,
            received: 5,
            to: Some(AccessTo { project: text("shop"), service: text("web"), rule: None, pod: Some(text("web.1")) }),
        }
    }

    #[test]
    fn a_line_has_no_query_and_nothing_in_it_ends_it() {
        let expected = "client=10.0.0.1:4711 protocol=HTTP/1.1 method=\"GET\" host=\"a.test\" path=\"/a\" request_id=\"f00\" \
                        status=200 is_whole=true micros=1234 sent=0 received=5 project=shop service=web pod=web.1";
        assert_eq!(line("/a?token=secret").to_string(), expected);
        assert!(line("/a\nclient=").to_string().contains(r#"path="/a\nclient=""#));
        assert_eq!(AccessAsked::path_of(&format!("/{}", "ä".repeat(PATH))).len(), PATH - 1);
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_does_not_wait() {
        let log = AccessLog::default();
        for _ in 0..ROOM + 3 {
            log.put(|| line("/"));
        }
        assert_eq!(log.dropped(), 3);
        let mut lines = Vec::new();
        log.receive(&mut lines, 100).await;
        assert_eq!(lines.len(), 100);
        log.put(|| line("/"));
        assert_eq!(log.dropped(), 3);
    }
}

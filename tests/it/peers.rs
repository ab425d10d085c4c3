//! An agent, or an engine, that says what a test tells it to say: HTTP on a socket, one connection a request.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// What is answered to a request for `METHOD /path`, without the engine's version and what comes after `?`.
enum Answer {
    /// This.
    Whole(u16, String),
    /// Lines as they come, until their sender is gone.
    Lines(Receiver<String>),
}

type Answers = Arc<Mutex<BTreeMap<String, Answer>>>;

/// Requests as they came: the method with the whole target, and the body.
type Heard = Arc<Mutex<Vec<(String, String)>>>;

/// One side that is spoken to.
pub(crate) struct Peer {
    path: PathBuf,
    answers: Answers,
    heard: Heard,
}

impl Peer {
    /// Listens at a socket. Its thread ends with the test's process.
    pub(crate) fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let answers = Answers::default();
        let heard = Heard::default();
        let shared = (Arc::clone(&answers), Arc::clone(&heard));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, heard) = shared.clone();
                std::thread::spawn(move || serve(stream, &answers, &heard));
            }
        });
        Self { path: path.to_owned(), answers, heard }
    }

    /// Returns where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the requests that came.
    pub(crate) fn heard(&self) -> Vec<(String, String)> {
        self.heard.lock().expect("no panic").clone()
    }

    /// Forgets the requests that came.
    pub(crate) fn forget(&self) {
        self.heard.lock().expect("no panic").clear();
    }

    /// Answers a request with JSON, each time.
    pub(crate) fn says(&self, request: &str, status: u16, body: &str) -> &Self {
        self.answer(request, Answer::Whole(status, body.to_owned()));
        self
    }

    /// Answers a request, once, with the lines that are sent until the sender is dropped.
    pub(crate) fn streams(&self, request: &str) -> Sender<String> {
        let (to, from) = channel();
        self.answer(request, Answer::Lines(from));
        to
    }

    fn answer(&self, request: &str, answer: Answer) {
        self.answers.lock().expect("no panic").insert(request.to_owned(), answer);
    }
}

/// Answers what comes over one connection. Whoever has gone needs no answer.
fn serve(mut stream: UnixStream, answers: &Answers, heard: &Heard) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (request, target, body) = read(&mut reader)?;
        heard.lock().expect("no panic").push((target, body));
        let answer = match answers.lock().expect("no panic").get(&request) {
            Some(Answer::Whole(status, body)) => Some(Answer::Whole(*status, body.clone())),
            _ => None,
        };
        let answer = answer.or_else(|| answers.lock().expect("no panic").remove(&request));
        match answer {
            Some(Answer::Whole(status, body)) => whole(&mut stream, status, &body).ok()?,
            Some(Answer::Lines(lines)) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).ok()?;
                for line in lines {
                    write!(stream, "{:x}\r\n{line}\n\r\n", line.len() + 1).ok()?;
                }
                stream.write_all(b"0\r\n\r\n").ok()?;
            }
            None => whole(&mut stream, 404, &format!("{{\"message\":\"nothing is said to {request}\"}}")).ok()?,
        }
    }
}

fn whole(stream: &mut UnixStream, status: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Reads a request. Returns its method with its path, its method with all of its target, and its body.
fn read(reader: &mut BufReader<UnixStream>) -> Option<(String, String, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?, words.next()?);
    let whole = format!("{method} {target}");
    let path = target.split('?').next()?;
    let versioned = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    let request = format!("{method} {}", versioned.unwrap_or(path));
    let mut length = 0;
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        if field.trim().is_empty() {
            break;
        }
        let (name, value) = field.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((request, whole, String::from_utf8_lossy(&body).into_owned()))
}

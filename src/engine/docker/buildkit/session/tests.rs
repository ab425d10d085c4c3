//! The builder's side of a session, played here: it asks as `BuildKit` does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::BytesMut;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;

/// A builder that asks; the session lives as long.
struct Builder {
    requests: SendRequest<Bytes>,
    _session: AbortOnDropHandle<()>,
    _connection: AbortOnDropHandle<()>,
    offers: Arc<Offers>,
}

impl Builder {
    async fn of(offers: Offers) -> Self {
        let (here, there) = tokio::io::duplex(1 << 16);
        let offers = Arc::new(offers);
        let session = AbortOnDropHandle::new(tokio::spawn(serve(there, offers.clone())));
        let (requests, connection) = h2::client::handshake(here).await.expect("HTTP/2");
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.unwrap_or_default() }));
        Self { requests, _session: session, _connection: connection, offers }
    }

    async fn begin(&self, method: &str, headers: &[(&'static str, &str)]) -> (h2::SendStream<Bytes>, Received) {
        let mut request = Request::post(format!("http://localhost{method}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.requests.clone().ready().await.expect("ready");
        let (response, body) = requests.send_request(request.body(()).expect("a request"), false).expect("sent");
        (body, Received::new(response.await.expect("an answer").into_body()))
    }

    /// Calls a method with one field of text. Returns the first field of the answer.
    async fn ask(&self, method: &str, text: &str) -> Option<String> {
        let (mut body, mut received) = self.begin(method, &[]).await;
        // A call may be answered, or refused, before it was heard to its end.
        let asked = super::super::grpc::send(&mut body, &Message::default().text(1, text).into_bytes()).await;
        drop(asked.is_ok().then(|| body.send_data(Bytes::new(), true)));
        let message = received.next().await.ok().flatten()?;
        Some(proto::text(&message, 1).expect("a message"))
    }
}

#[tokio::test]
async fn only_what_is_offered_is_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    std::fs::write(&file, "of a file").expect("written");
    let secrets = [
        ("file".to_owned(), SecretSource::File(file)),
        ("value".to_owned(), SecretSource::Value("here".to_owned())),
        ("gone".to_owned(), SecretSource::File("/nonexistent/secret".into())),
    ];
    let login = RegistryLogin {
        registry: HUB[1].to_owned(),
        username: "me".to_owned(),
        password: "word".to_owned(),
        ..RegistryLogin::default()
    };
    let kit = Kit { secrets: BTreeMap::from(secrets), ..Kit::default() };
    assert!(!format!("{kit:?}").contains("here"));
    let builder = Builder::of(Offers { kit, logins: vec![login], problem: OnceLock::new() }).await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(builder.ask(SECRET, "file").await, text("of a file"));
    assert_eq!(builder.ask(SECRET, "value").await, text("here"));
    assert_eq!(builder.offers.problem.get(), None);
    assert_eq!(builder.ask(SECRET, "other").await, None);
    assert_eq!(builder.ask(CREDENTIALS, HUB[0]).await, text("me"));
    assert_eq!(builder.ask(CREDENTIALS, "a.example").await, text(""));
    assert_eq!(builder.ask(CHECK_AGENT, "default").await, None);
    assert_eq!(builder.ask("/moby.upload.v1.Upload/Pull", "x").await, None);
    assert_eq!(builder.ask(HEALTH, "").await, text(""));
    let builder = Builder::of(Offers { kit: builder.offers.kit.clone(), ..Offers::default() }).await;
    assert_eq!(builder.ask(SECRET, "gone").await, None);
    let problem = builder.offers.problem.get().cloned().unwrap_or_default();
    assert!(problem.starts_with("the secret `/nonexistent/secret` cannot be read"), "{problem}");
}

struct Two;

impl Directory for Two {
    fn walk(&self, visit: &mut dyn FnMut(DirectoryEntry) -> io::Result<()>) -> io::Result<()> {
        let entry = |path: &str, mode| DirectoryEntry { path: path.into(), mode, size: 3, ..DirectoryEntry::default() };
        visit(entry("a", libc::S_IFDIR | 0o755))?;
        visit(entry("a/b", libc::S_IFREG | 0o644))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        assert_eq!(path, Path::new("a/b"));
        Ok(Box::new(io::Cursor::new(vec![7; 40_000])))
    }
}

/// Kind, number and length of the data of a packet; of an entry its path.
fn packet(message: &[u8]) -> (u64, u64, usize, String) {
    let mut packet = (0, 0, 0, String::new());
    for field in proto::fields(message) {
        match field.expect("a packet") {
            (1, value) => packet.0 = value.number(),
            (2, value) => packet.3 = proto::text(value.bytes(), 1).expect("a path"),
            (3, value) => packet.1 = value.number(),
            (4, value) => packet.2 = value.bytes().len(),
            _ => {}
        }
    }
    packet
}

#[tokio::test]
async fn files_are_told_and_given_once_asked_for() {
    let two: Arc<dyn Directory> = Arc::new(Two);
    let kit = Kit { directories: BTreeMap::from([("context".to_owned(), two)]), ..Kit::default() };
    let builder = Builder::of(Offers { kit, ..Offers::default() }).await;
    let (mut body, mut received) = builder.begin(FILES, &[("dir-name", "context")]).await;
    let mut told = Vec::new();
    loop {
        let (kind, _, _, path) = packet(&received.next().await.expect("packets").expect("a packet"));
        assert_eq!(kind, 0);
        if path.is_empty() {
            break;
        }
        told.push(path);
    }
    assert_eq!(told, ["a", "a/b"]);
    let ask = Message::default().number(1, 1).number(3, 1).into_bytes();
    super::super::grpc::send(&mut body, &ask).await.expect("asked");
    let mut lengths = Vec::new();
    while lengths.last() != Some(&0) {
        let (kind, id, length, _) = packet(&received.next().await.expect("packets").expect("a packet"));
        assert_eq!((kind, id), (2, 1));
        lengths.push(length);
    }
    assert_eq!(lengths, [32_768, 7_232, 0]);
    super::super::grpc::send(&mut body, &Message::default().number(1, 3).into_bytes()).await.expect("done");
    assert_eq!(packet(&received.next().await.expect("packets").expect("a packet")).0, 3);
    assert_eq!(received.next().await, Ok(None));

    let (_, mut received) = builder.begin(FILES, &[("dir-name", "context"), ("followpaths", ".dockerignore")]).await;
    assert_eq!(packet(&received.next().await.expect("packets").expect("a packet")).3, "");
    let (_, mut received) = builder.begin(FILES, &[("dir-name", "other")]).await;
    assert_eq!(received.next().await, Ok(None));
    // A directory is no file, and a number that was not told none either.
    for id in [0, 9] {
        let (mut body, mut received) = builder.begin(FILES, &[("dir-name", "context")]).await;
        let ask = Message::default().number(1, 1).number(3, id).into_bytes();
        super::super::grpc::send(&mut body, &ask).await.expect("asked");
        while received.next().await.expect("no broken connection").is_some() {}
    }
}

#[tokio::test]
async fn a_build_may_list_keys_and_sign_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket: PathBuf = directory.path().join("agent");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let agent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut heard = Vec::new();
        while let Ok(length) = stream.read_u32().await {
            let mut request = vec![0; length as usize];
            stream.read_exact(&mut request).await.expect("a request");
            heard.push(request[0]);
            stream.write_all(&[0, 0, 0, 1, 12]).await.expect("an answer");
        }
        heard
    });
    let kit = Kit { agents: BTreeMap::from([("k".to_owned(), socket)]), ..Kit::default() };
    let builder = Builder::of(Offers { kit, ..Offers::default() }).await;
    assert_eq!(builder.ask(CHECK_AGENT, "k").await.as_deref(), Some(""));
    let (mut body, mut received) = builder.begin(FORWARD_AGENT, &[("buildkit.ssh.id", "k")]).await;
    let mut answers = BytesMut::new();
    // Two requests in one message, one in two: list, remove all, sign.
    for piece in [&[0, 0, 0, 1, 11, 0, 0, 0, 1, 19][..], &[0, 0, 0, 2], &[13, 0]] {
        super::super::grpc::send(&mut body, &Message::default().bytes(1, piece).into_bytes()).await.expect("sent");
    }
    body.send_data(Bytes::new(), true).expect("sent");
    while let Some(message) = received.next().await.expect("answers") {
        for field in proto::fields(&message) {
            answers.extend_from_slice(field.expect("a message").1.bytes());
        }
    }
    assert_eq!(answers.as_ref(), [0, 0, 0, 1, 12, 0, 0, 0, 1, 5, 0, 0, 0, 1, 12]);
    assert_eq!(agent.await.expect("an agent"), [11, 13]);
}

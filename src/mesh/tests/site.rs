//! A cluster on loopback: an authority, and hosts that serve by a rule of the test's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::clock::{Clock, ManualClock};
use crate::ids::{HostName, ProjectName, ServiceName};
use crate::mesh::identity::VALIDITY;
use crate::mesh::{
    Authority, DialError, Handle, HostKey, Identity, Incoming, Kind, Mesh, MeshListener, MeshOptions, MeshStream,
    PeerAddr, Refusal, Target, TargetDoor,
};

/// Nothing in these tests takes this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) fn host(name: &str) -> HostName {
    HostName::new(name).expect("valid")
}

/// A cluster with a clock that the test moves.
pub(crate) struct Cluster {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) authority: Authority,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        clock.advance(Duration::from_hours(500_000));
        let authority = Authority::create(clock.now()).expect("random");
        Self { clock, authority }
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        let key = HostKey::create().expect("random");
        let request = key.request().expect("a key");
        let signed = self.authority.sign(&request, &host(name), self.clock.now(), VALIDITY).expect("signs");
        Identity::from_pem(self.authority.certificate(), &signed.certificate, &key).expect("belong together")
    }

    pub(crate) fn mesh(&self, name: &str) -> Mesh {
        self.mesh_with(name, MeshOptions::default())
    }

    pub(crate) fn mesh_with(&self, name: &str, options: MeshOptions) -> Mesh {
        Mesh::new(self.identity(name), Arc::clone(&self.clock) as Arc<dyn Clock>, options).expect("a key")
    }

    /// A host that serves by `talk`.
    pub(crate) fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &str,
        talk: impl Fn(MeshStream) -> F + Send + Sync + 'static,
    ) -> Host {
        Host::start(self.mesh(name), name, talk)
    }

    /// A host that sends back what it gets.
    pub(crate) fn echo(&self, name: &str) -> Host {
        self.serve(name, echo)
    }
}

pub(crate) async fn echo(stream: MeshStream) {
    let (mut read, mut write) = tokio::io::split(stream);
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        // A peer that is gone has no use for the end.
        let _ended = write.shutdown().await;
    }
}

/// A host that listens.
pub(crate) struct Host {
    pub(crate) mesh: Mesh,
    pub(crate) addr: PeerAddr,
    pub(crate) listener: MeshListener,
}

impl Host {
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        mesh: Mesh,
        name: &str,
        talk: impl Fn(MeshStream) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = mesh.listen(ANY, Arc::new(Talk(talk))).expect("a free port");
        let addr = PeerAddr { host: host(name), address: listener.address };
        Self { mesh, addr, listener }
    }
}

/// Serves every stream by a function; denies those for port 1.
pub(crate) struct Talk<T>(pub(crate) T);

impl<T, F> Handle for Talk<T>
where
    T: Fn(MeshStream) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    async fn handle(&self, incoming: Incoming) {
        if matches!(&incoming.kind, Kind::Tcp(target) if target.port == 1) {
            let _gone = incoming.refuse(&Refusal::NotServed).await;
        } else if let Ok(stream) = incoming.accept().await {
            (self.0)(stream).await;
        }
    }
}

pub(crate) fn tcp(port: u16) -> Kind {
    Kind::Tcp(Target {
        project: ProjectName::new("demo").expect("valid"),
        service: ServiceName::new("web").expect("valid"),
        container: "c".to_owned(),
        port,
        door: TargetDoor::Published,
    })
}

/// Says a word, ends, and returns all that comes back; the stream has then ended cleanly.
pub(crate) async fn say(mesh: &Mesh, to: &PeerAddr, word: &str) -> Result<String, String> {
    let mut stream = mesh.dial(to, &tcp(80)).await.map_err(|error| chain(&error))?;
    finish(&mut stream, word).await.map_err(|error| error.to_string())
}

pub(crate) async fn finish(stream: &mut MeshStream, word: &str) -> std::io::Result<String> {
    stream.write_all(word.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    in_time(stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

/// An error with its causes, as a log shows it.
pub(crate) fn chain(error: &DialError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("done in time")
}

/// Waits until `condition` holds; fails with what was last seen.
pub(crate) async fn until<T: std::fmt::Debug>(mut look: impl FnMut() -> T, condition: impl Fn(&T) -> bool) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let seen = look();
        if condition(&seen) {
            return seen;
        }
        assert!(tokio::time::Instant::now() < deadline, "last seen: {seen:?}");
        tokio::task::yield_now().await;
    }
}

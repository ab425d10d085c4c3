//! What `BuildKit` asks of us while it builds, over a connection that we open and it calls: files, secrets, logins, agents.
//! What is not offered is not there: it can ask for nothing else of this machine.
//!
//! Source: moby/buildkit, session/.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bollard::errors::Error;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::grpc::{Answer, Received, Status, WINDOW};
use super::proto::{self, Message};
use super::upgrade::upgraded;
use super::{agent, files};
use crate::engine::{Directory, DirectoryEntry, Kit, RegistryLogin, SecretSource};

/// Largest secret in bytes. Source: moby/buildkit, session/secrets/secretsprovider/store.go `MaxSecretSize`.
const LARGEST_SECRET: u64 = 500 << 10;

/// Docker Hub, as its registry calls itself and as logins do. Source: moby/buildkit, session/auth/authprovider.
const HUB: [&str; 2] = ["registry-1.docker.io", "https://index.docker.io/v1/"];

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";

/// The builder asks for it alone first: what is left out is its own matter otherwise. Here it was left out already.
const IGNORE_FILE: &str = ".dockerignore";

/// A directory with nothing in it.
struct Nothing;

impl Directory for Nothing {
    fn walk(&self, _: &mut dyn FnMut(DirectoryEntry) -> io::Result<()>) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, _: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// What may be asked for.
#[derive(Debug, Default)]
pub(super) struct Offers {
    pub(super) kit: Kit,
    pub(super) logins: Vec<RegistryLogin>,
    /// Why something could not be given, which the builder says with many words around it.
    pub(super) problem: OnceLock<String>,
}

/// Opens a session of this id, which lasts as long as what is returned.
pub(super) async fn open(
    socket: &str,
    api: &str,
    id: &str,
    offers: Arc<Offers>,
) -> Result<AbortOnDropHandle<()>, Error> {
    let mut headers = vec![("X-Docker-Expose-Session-Uuid", id), ("X-Docker-Expose-Session-Name", "orch")];
    headers.push(("X-Docker-Expose-Session-Sharedkey", &offers.kit.shared_key));
    let methods = [HEALTH, FILES, CREDENTIALS, SECRET, CHECK_AGENT, FORWARD_AGENT];
    headers.extend(methods.map(|method| ("X-Docker-Expose-Session-Grpc-Method", method)));
    let (stream, carrier) = upgraded(socket, &format!("{api}/session"), &headers).await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let _carrier = carrier;
        serve(stream, offers).await;
    })))
}

/// Answers calls until the connection ends.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, offers: Arc<Offers>) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let mut connection = match builder.handshake::<_, Bytes>(stream).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "no session"),
    };
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            call = connection.accept() => match call {
                Some(Ok((request, respond))) => drop(calls.spawn(answer(request, respond, offers.clone()))),
                Some(Err(error)) => return tracing::debug!(%error, "the session broke"),
                None => return,
            },
            Some(_) = calls.join_next() => {}
        }
    }
}

async fn answer(request: Request<RecvStream>, respond: SendResponse<Bytes>, offers: Arc<Offers>) {
    let (head, body) = request.into_parts();
    let method = head.uri.path().to_owned();
    let answered = async {
        let mut answer = Answer::begin(respond)?;
        let result = offers.answer(&method, &head.headers, &mut Received::new(body), &mut answer).await;
        if let Err(problem) = &result
            && [FILES, SECRET, FORWARD_AGENT].contains(&method.as_str())
            && problem.code == Status::UNKNOWN
        {
            drop(offers.problem.set(problem.message.clone()));
        }
        tracing::debug!(method, ok = result.is_ok(), "session");
        answer.end(&result)
    };
    if let Err(error) = answered.await {
        tracing::debug!(method, %error, "session");
    }
}

impl Offers {
    async fn answer(
        &self,
        method: &str,
        headers: &HeaderMap,
        received: &mut Received,
        answer: &mut Answer,
    ) -> Result<(), Status> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let reply = match method {
            FILES => {
                let name = header("dir-name");
                let missing = || Status::new(Status::NOT_FOUND, format!("the build has no directory `{name}`"));
                let mut directory = self.kit.directories.get(name).ok_or_else(missing)?.clone();
                if headers.get_all("followpaths").iter().eq([IGNORE_FILE]) {
                    directory = Arc::new(Nothing);
                }
                return files::serve(directory, received, answer).await;
            }
            FORWARD_AGENT => {
                let socket = self.agent(header("buildkit.ssh.id"))?;
                return agent::forward(socket, received, answer).await;
            }
            // It serves.
            HEALTH => Message::default().number(1, 1),
            CREDENTIALS => self.credentials(&first_text(received).await?),
            SECRET => Message::default().bytes(1, &self.secret(&first_text(received).await?).await?),
            CHECK_AGENT => self.agent(&first_text(received).await?).map(|_| Message::default())?,
            _ => return Err(Status::new(Status::UNIMPLEMENTED, "orch does not offer this")),
        };
        answer.send(&reply.into_bytes()).await
    }

    fn credentials(&self, host: &str) -> Message {
        let host = if host == HUB[0] { HUB[1] } else { host };
        let Some(login) = self.logins.iter().find(|login| login.registry == host) else { return Message::default() };
        if login.identity_token.is_empty() {
            Message::default().text(1, &login.username).text(2, &login.password)
        } else {
            Message::default().text(2, &login.identity_token)
        }
    }

    async fn secret(&self, id: &str) -> Result<Vec<u8>, Status> {
        let missing = || Status::new(Status::NOT_FOUND, format!("the build has no secret `{id}`"));
        match self.kit.secrets.get(id) {
            // A mount that is not required does without.
            None => Err(missing()),
            Some(SecretSource::Value(value)) => Ok(value.clone().into_bytes()),
            Some(SecretSource::File(path)) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_secret(&path)).await;
                read.map_err(|_| missing())?.map_err(|why| Status::new(Status::UNKNOWN, why))
            }
        }
    }

    fn agent(&self, id: &str) -> Result<&Path, Status> {
        let id = if id.is_empty() { "default" } else { id };
        let missing = || Status::new(Status::NOT_FOUND, format!("the build has no SSH agent `{id}`"));
        Ok(self.kit.agents.get(id).ok_or_else(missing)?)
    }
}

fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(LARGEST_SECRET + 1).read_to_end(&mut content));
    match file {
        Err(error) => Err(format!("the secret `{}` cannot be read: {error}", path.display())),
        Ok(length) if length as u64 > LARGEST_SECRET => {
            Err(format!("the secret `{}` is larger than {} kB", path.display(), LARGEST_SECRET >> 10))
        }
        Ok(_) => Ok(content),
    }
}

/// Returns the first field of the message that a call has.
async fn first_text(received: &mut Received) -> Result<String, Status> {
    let message = received.next().await?.ok_or_else(|| Status::new(Status::UNKNOWN, "nothing was asked"))?;
    Ok(proto::text(&message, 1)?)
}

#[cfg(test)]
mod tests;

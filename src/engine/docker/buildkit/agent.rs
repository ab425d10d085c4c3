//! SSH agents for a build: what a step asks of the agent goes to a socket of this machine. A build may list keys and have
//! something signed; it may not add, remove or lock keys, as in Docker's own client.
//!
//! Source: draft-ietf-sshm-ssh-agent; moby/buildkit, session/sshforward/sshprovider/agentprovider.go `readOnlyAgent`.

use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::grpc::{Answer, Received, Status};
use super::proto::{self, Message};

/// Longest message of an agent. Source: OpenSSH, authfd.c `MAX_AGENT_REPLY_LEN`.
const MOST: usize = 256 << 10;

/// Kinds of messages.
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// The answer of an agent that does not do what is asked.
const FAILURE: &[u8] = &[0, 0, 0, 1, 5];

/// Carries one conversation of a step with the agent at `socket`.
pub(super) async fn forward(socket: &Path, received: &mut Received, answer: &mut Answer) -> Result<(), Status> {
    let failed = |error: io::Error| {
        Status::new(Status::UNAVAILABLE, format!("the SSH agent at `{}` does not answer: {error}", socket.display()))
    };
    let mut agent = UnixStream::connect(socket).await.map_err(failed)?;
    let mut asked = BytesMut::new();
    while let Some(message) = received.next().await? {
        for field in proto::fields(&message) {
            if let (1, value) = field? {
                asked.extend_from_slice(value.bytes());
            }
        }
        while let Some(request) = whole(&mut asked)? {
            let reply = if matches!(request.get(4), Some(&REQUEST_IDENTITIES | &SIGN_REQUEST)) {
                ask(&mut agent, &request).await.map_err(failed)?
            } else {
                Bytes::from_static(FAILURE)
            };
            answer.send(&Message::default().bytes(1, &reply).into_bytes()).await?;
        }
    }
    Ok(())
}

/// Takes a whole message with its length off the front.
fn whole(asked: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    let Some((length, _)) = asked.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MOST {
        return Err(Status::new(Status::UNKNOWN, "a message to the SSH agent is too long"));
    }
    Ok((asked.len() >= 4 + length).then(|| asked.split_to(4 + length).freeze()))
}

async fn ask(agent: &mut UnixStream, request: &[u8]) -> io::Result<Bytes> {
    agent.write_all(request).await?;
    let length = agent.read_u32().await?;
    let size = usize::try_from(length).ok().filter(|size| *size <= MOST).ok_or(io::ErrorKind::InvalidData)?;
    let mut reply = vec![0; 4 + size];
    reply[..4].copy_from_slice(&length.to_be_bytes());
    agent.read_exact(&mut reply[4..]).await?;
    Ok(reply.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole() {
        let mut asked = BytesMut::from(&[0, 0, 0, 1, 11, 0, 0, 0, 2, 13][..]);
        assert_eq!(whole(&mut asked), Ok(Some(Bytes::from_static(&[0, 0, 0, 1, 11]))));
        assert_eq!(whole(&mut asked), Ok(None));
        asked.extend_from_slice(&[9]);
        assert_eq!(whole(&mut asked), Ok(Some(Bytes::from_static(&[0, 0, 0, 2, 13, 9]))));
        assert!(whole(&mut BytesMut::from(&[0xff; 8][..])).is_err());
    }
}

//! What goes over a connection between agents: frames, and the messages that open a stream.
//!
//! A frame is a byte for its kind, three for the length of its content (big-endian), and the content. One connection
//! carries one stream at a time: `Open` asks for it, `Accept` or `Refuse` answers; then both sides send `Data` until
//! each has sent its `Finish`, after which the next `Open` may come. `Reset` ends the stream and the connection.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{HostName, ProjectName, ResourceKey, ServiceName, SnapshotHash};

/// Bytes of a frame's head.
pub(super) const HEAD: usize = 4;

/// Most bytes in a `Data` frame: with its head it fills four TLS records of 16 KiB exactly.
pub(super) const MAX_DATA: usize = 64 * 1024 - HEAD;

/// Most bytes of any other frame: names of a few hundred bytes as JSON.
pub(super) const MAX_MESSAGE: usize = 4096;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// Asks for a stream.
    Open = 1,
    /// Grants it.
    Accept = 2,
    /// Denies it.
    Refuse = 3,
    /// Bytes of the stream.
    Data = 4,
    /// This direction of the stream has ended.
    Finish = 5,
    /// The stream failed.
    Reset = 6,
}

/// Writes the head of a frame. `length` is at most [`MAX_DATA`].
pub(super) fn head(frame: Frame, length: usize) -> [u8; HEAD] {
    let [.., high, middle, low] = length.to_be_bytes();
    [frame as u8, high, middle, low]
}

/// Reads the head of a frame: its kind and length; `None` if it is none, or longer than such a frame may be.
pub(super) fn parse_head([kind, high, middle, low]: [u8; HEAD]) -> Option<(Frame, usize)> {
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    let (frame, limit) = match kind {
        1 => (Frame::Open, MAX_MESSAGE),
        2 => (Frame::Accept, 0),
        3 => (Frame::Refuse, MAX_MESSAGE),
        4 => (Frame::Data, MAX_DATA),
        5 => (Frame::Finish, 0),
        6 => (Frame::Reset, 0),
        _ => return None,
    };
    (length <= limit).then_some((frame, length))
}

/// What a stream is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The agents' own conversation.
    Control,
    /// The archive of files that pods mount.
    Snapshot(SnapshotHash),
    /// A connection to a container.
    Tcp(Target),
    /// Datagrams to and from containers, many sessions over one stream. Agents before this was made do not understand it.
    Datagrams,
    /// An image that the asked host has.
    Image(ImageTarget),
}

/// An image, and by what right it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTarget {
    /// Its reference.
    pub reference: String,
    /// What the asked host's agent gave to somebody who may command it.
    pub ticket: String,
}

/// A container's port, and by what right it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The project.
    pub project: ProjectName,
    /// The service.
    pub service: ServiceName,
    /// Engine id of the container.
    pub container: String,
    /// Port in the container.
    pub port: u16,
    /// How the connection came in at the caller.
    pub door: TargetDoor,
}

/// How a connection came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetDoor {
    /// To a virtual address, from a container in the same network.
    Network {
        /// The network that both are in.
        network: ResourceKey,
        /// The service that calls, if the caller knows.
        source: Option<ServiceName>,
    },
    /// To the pod's own address, from a container in the same network.
    Pod {
        /// The network that both are in.
        network: ResourceKey,
        /// The service that calls, if the caller knows.
        source: Option<ServiceName>,
    },
    /// To a port that the service publishes.
    Published,
    /// To a port that the service exports, from a pod of another project.
    Exported,
}

/// Why a stream was denied by the agent that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The asking host's certificate is no longer accepted.
    #[error("it does not accept this host's certificate: {reason}")]
    NotAccepted {
        /// Why.
        reason: String,
    },
    /// The asking host is not in the table of members.
    #[error("it does not know this host as a member of the cluster")]
    NotMember,
    /// The container is not, or no more, an endpoint there.
    #[error("container {container} is no endpoint there")]
    UnknownEndpoint {
        /// The container.
        container: String,
    },
    /// The service may not be reached in this way.
    #[error("`{service}` may not be reached so: {reason}")]
    NotAllowed {
        /// The service.
        service: ServiceName,
        /// Which rule it breaks.
        reason: String,
    },
    /// The container did not take the connection.
    #[error("the container did not take the connection: {reason}")]
    Unconnected {
        /// What the kernel said.
        reason: String,
    },
    /// It has no descriptor, memory, port or place in a queue left.
    #[error("it has no room for another connection: {reason}")]
    Busy {
        /// What it lacks.
        reason: String,
    },
    /// It has no such files to give.
    #[error("it cannot give the files: {reason}")]
    NoSnapshot {
        /// Why.
        reason: String,
    },
    /// Nobody who may command that host offered the image.
    #[error("image `{reference}` was not offered there, or too long ago")]
    NotOffered {
        /// The image.
        reference: String,
    },
    /// It does not serve such streams.
    #[error("it does not serve such connections")]
    NotServed,
    /// A message that it did not understand: an agent of another version.
    #[error("it did not understand the request")]
    NotUnderstood,
}

/// Where a host's agent listens for others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerAddr {
    /// The host: its certificate must name it.
    pub host: HostName,
    /// Address and port of its agent.
    pub address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_written_and_nothing_else_is() {
        for (frame, length) in [(Frame::Open, 4096), (Frame::Data, MAX_DATA), (Frame::Data, 1), (Frame::Finish, 0)] {
            assert_eq!(parse_head(head(frame, length)), Some((frame, length)));
        }
        for garbage in [*b"GET ", [0; 4], [1, 0, 16, 1], [4, 1, 0, 0], [5, 0, 0, 1], [22, 3, 1, 0]] {
            assert_eq!(parse_head(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn messages_are_short_words() {
        let target = Target {
            project: ProjectName::new("shop").expect("valid"),
            service: ServiceName::new("web").expect("valid"),
            container: "c1".to_owned(),
            port: 80,
            door: TargetDoor::Network { network: ResourceKey::new("back").expect("valid"), source: None },
        };
        let text = serde_json::to_string(&Kind::Tcp(target)).expect("plain data");
        assert_eq!(
            text,
            r#"{"tcp":{"project":"shop","service":"web","container":"c1","port":80,"door":{"network":{"network":"back","source":null}}}}"#
        );
        assert_eq!(serde_json::to_string(&Kind::Control).expect("plain data"), r#""control""#);
    }
}

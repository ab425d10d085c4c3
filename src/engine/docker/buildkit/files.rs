//! Files for a build, by `BuildKit`'s own protocol: what is there is told, entry by entry; what the builder does not have
//! from an earlier build it asks for by number. So an unchanged file travels once.
//!
//! Source: moby/buildkit, session/filesync; tonistiigi/fsutil, send.go and types/wire.proto.

use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::grpc::{Answer, Received, Status};
use super::proto::{self, Message};
use crate::engine::{Directory, DirectoryEntry};

/// Bytes of a file that go at once.
const PIECE: usize = 32 << 10;

/// Packets that wait until they can be sent.
const PACKETS: usize = 16;

/// Kinds of packets. Source: fsutil, types/wire.proto.
const STAT: u64 = 0;
const REQUEST: u64 = 1;
const DATA: u64 = 2;
const FINISH: u64 = 3;
const FAILURE: u64 = 4;

/// Serves a directory until the other side has all that it wants.
pub(super) async fn serve(
    directory: Arc<dyn Directory>,
    received: &mut Received,
    answer: &mut Answer,
) -> Result<(), Status> {
    let (packets, mut outgoing) = mpsc::channel::<Result<Bytes, Status>>(PACKETS);
    // Each number is asked for once, so that as many wait as there are files at most.
    let (wanted, asked) = mpsc::unbounded_channel::<usize>();
    let listed: Arc<Mutex<Vec<Option<PathBuf>>>> = Arc::default();
    // Both end by themselves when nobody takes packets any more.
    let (list, to, tree) = (listed.clone(), packets.clone(), directory.clone());
    drop(tokio::task::spawn_blocking(move || tell(&*tree, &list, &to)));
    let (list, to) = (listed.clone(), packets.clone());
    drop(tokio::task::spawn_blocking(move || give(&*directory, &list, asked, &to)));
    let hear = async {
        while let Some(packet) = received.next().await? {
            match Packet::read(&packet)? {
                Packet { kind: REQUEST, id, .. } => {
                    let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
                    if listed.get_mut(id).is_none_or(|path| path.is_none()) || wanted.send(id).is_err() {
                        return Err(Status::new(Status::NOT_FOUND, "the builder asked for what is no file"));
                    }
                }
                Packet { kind: FAILURE, words, .. } => return Err(Status::new(Status::UNKNOWN, words)),
                Packet { kind: FINISH, .. } => return Ok(()),
                _ => {}
            }
        }
        Err(Status::new(Status::UNAVAILABLE, "the builder went away"))
    };
    let say = async {
        while let Some(packet) = outgoing.recv().await {
            answer.send(&packet?).await?;
        }
        Ok(())
    };
    let said = async {
        tokio::select! {
            heard = hear => heard,
            sent = say => sent,
        }
    };
    said.await?;
    drop(packets);
    answer.send(&Message::default().number(1, FINISH).into_bytes()).await
}

/// Tells what is there, and remembers which number means which file.
fn tell(directory: &dyn Directory, listed: &Mutex<Vec<Option<PathBuf>>>, to: &mpsc::Sender<Result<Bytes, Status>>) {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let walked = directory.walk(&mut |entry| {
        let is_file = entry.mode & libc::S_IFMT == libc::S_IFREG && entry.link.is_none();
        listed.lock().unwrap_or_else(PoisonError::into_inner).push(is_file.then(|| entry.path.clone()));
        let packet = Message::default().number(1, STAT).message(2, &stat(&entry));
        to.blocking_send(Ok(packet.into_bytes().into())).map_err(|_| gone())
    });
    let last = match walked {
        Ok(()) => Ok(Message::default().number(1, STAT).into_bytes().into()),
        Err(error) => Err(Status::new(Status::UNKNOWN, error.to_string())),
    };
    to.blocking_send(last).ok();
}

/// Gives the files that are asked for, one after the other.
fn give(
    directory: &dyn Directory,
    listed: &Mutex<Vec<Option<PathBuf>>>,
    mut asked: mpsc::UnboundedReceiver<usize>,
    to: &mpsc::Sender<Result<Bytes, Status>>,
) {
    while let Some(id) = asked.blocking_recv() {
        // Who asks a second time gets nothing.
        let path = listed.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id).and_then(Option::take);
        let Some(path) = path else { continue };
        let given = read(directory, &path, |piece| {
            let packet = Message::default().number(1, DATA).number(3, id as u64).bytes(4, piece);
            to.blocking_send(Ok(packet.into_bytes().into())).is_ok()
        });
        if let Err(error) = given {
            to.blocking_send(Err(Status::new(Status::UNKNOWN, error.to_string()))).ok();
            return;
        }
    }
}

/// Hands on the pieces of a file, the last of which is empty, as long as they are taken.
fn read(directory: &dyn Directory, path: &Path, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut file = directory.open(path)?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = match file.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length?,
        };
        if !take(&piece[..length]) || length == 0 {
            return Ok(());
        }
    }
}

fn stat(entry: &DirectoryEntry) -> Message {
    let DirectoryEntry { path, mode, size, modified_nanos, link, device } = entry;
    let link = link.as_deref().unwrap_or(Path::new(""));
    Message::default()
        .bytes(1, path.as_os_str().as_bytes())
        .number(2, go_mode(*mode).into())
        .number(5, *size)
        .number(6, modified_nanos.cast_unsigned())
        .bytes(7, link.as_os_str().as_bytes())
        .number(8, device.0.into())
        .number(9, device.1.into())
}

/// Returns kind and permissions as Go's `os.FileMode` has them. Source: Go, io/fs/fs.go.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 1 << 31,
        libc::S_IFLNK => 1 << 27,
        libc::S_IFBLK => 1 << 26,
        libc::S_IFCHR => 1 << 26 | 1 << 21,
        libc::S_IFIFO => 1 << 25,
        libc::S_IFSOCK => 1 << 24,
        _ => 0,
    };
    let bits = [(libc::S_ISUID, 1 << 23), (libc::S_ISGID, 1 << 22), (libc::S_ISVTX, 1 << 20)];
    let special = bits.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |all, (_, theirs)| all | theirs);
    kind | special | mode & 0o777
}

/// A packet of the other side.
struct Packet {
    kind: u64,
    id: usize,
    words: String,
}

impl Packet {
    fn read(message: &[u8]) -> Result<Self, Status> {
        let mut packet = Self { kind: STAT, id: 0, words: String::new() };
        for field in proto::fields(message) {
            match field? {
                (1, value) => packet.kind = value.number(),
                (3, value) => packet.id = usize::try_from(value.number()).unwrap_or(usize::MAX),
                (4, value) => packet.words = value.text(),
                _ => {}
            }
        }
        Ok(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_go() {
        assert_eq!(go_mode(libc::S_IFDIR | 0o755), 0x8000_01ed);
        assert_eq!(go_mode(libc::S_IFREG | 0o4750), 0x0080_01e8);
        assert_eq!(go_mode(libc::S_IFLNK | 0o777), 0x0800_01ff);
        assert_eq!(go_mode(libc::S_IFDIR | 0o1777), 0x8010_01ff);
        assert_eq!(go_mode(libc::S_IFCHR | 0o600), 0x0420_0180);
    }
}

//! What goes over a stream of datagrams between two agents: frames, each of one session of many.
//!
//! A frame is the session's number (four bytes), a byte for its kind, the length of its content (two bytes), and the
//! content; numbers are big-endian. The caller opens a session and sends its datagrams at once, without an answer to the
//! first; the other side refuses what it does not grant. Either side may close a session, and each may do without hearing
//! of that: datagrams for a session that is not there are answered by another close.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of a frame's head.
pub(super) const HEAD: usize = 7;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Asks for a session; the content says with whom.
    Open = 1,
    /// A datagram.
    Datagram = 2,
    /// The session is over.
    Close = 3,
    /// The session is not granted, or failed; the content says why.
    Refuse = 4,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Which session, as its caller numbers them.
    pub(super) session: u32,
    /// What it is.
    pub(super) what: What,
    /// Bytes of its content.
    pub(super) length: usize,
}

/// Returns a frame; `None` if its content is too long for one.
pub(super) fn frame(session: u32, what: What, content: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(content.len()).ok()?;
    let mut bytes = Vec::with_capacity(HEAD + content.len());
    bytes.extend(session.to_be_bytes());
    bytes.push(what as u8);
    bytes.extend(length.to_be_bytes());
    bytes.extend(content);
    Some(bytes)
}

fn parse([a, b, c, d, what, high, low]: [u8; HEAD]) -> Option<Head> {
    let what = match what {
        1 => What::Open,
        2 => What::Datagram,
        3 => What::Close,
        4 => What::Refuse,
        _ => return None,
    };
    Some(Head { session: u32::from_be_bytes([a, b, c, d]), what, length: u16::from_be_bytes([high, low]).into() })
}

/// Reads a frame; its content is then the first bytes of `content`. `None` at the end of the stream.
///
/// # Errors
/// The stream broke, or what came is no frame.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin), content: &mut Vec<u8>) -> std::io::Result<Option<Head>> {
    let mut head = [0; HEAD];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let head = parse(head).ok_or(std::io::ErrorKind::InvalidData)?;
    content.resize(content.len().max(head.length), 0);
    from.read_exact(&mut content[..head.length]).await?;
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::tests::tries;
    use proptest::prelude::*;

    #[tokio::test]
    async fn frames_are_read_as_written() {
        let large = vec![7; 65_507];
        let cases = [(1, What::Open, &b"{}"[..]), (7, What::Datagram, b""), (7, What::Datagram, &large)];
        let last = [(u32::MAX, What::Refuse, &b"no"[..]), (9, What::Close, b"")];
        let all: Vec<_> = cases.into_iter().chain(last).collect();
        let bytes: Vec<u8> =
            all.iter().flat_map(|(session, what, content)| frame(*session, *what, content).expect("fits")).collect();
        let (mut from, mut content) = (&bytes[..], Vec::new());
        for (session, what, expected) in all {
            let head = read(&mut from, &mut content).await.expect("whole").expect("a frame");
            assert_eq!(head, Head { session, what, length: expected.len() });
            assert_eq!(&content[..head.length], expected);
        }
        assert_eq!(read(&mut from, &mut content).await.expect("the end"), None);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error() {
        for wrong in [&[0, 0, 0, 1, 9, 0, 0][..], &[0, 0, 0, 1, 2, 0, 5, 1], &[0, 0]] {
            let mut from = wrong;
            assert!(read(&mut from, &mut Vec::new()).await.is_err(), "{wrong:?}");
        }
        assert_eq!(frame(1, What::Datagram, &vec![0; 65_536]), None);
    }

    /// Reads frames from pieces of bytes until there is no more; `None` at the end: it broke off, or is none.
    async fn frames(pieces: Vec<Vec<u8>>) -> (Vec<(Head, Vec<u8>)>, bool) {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        let pieces = pieces.map(|piece| std::io::Result::Ok(bytes::Bytes::from(piece)));
        let mut from = tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces));
        let (mut all, mut content) = (Vec::new(), Vec::new());
        loop {
            match read(&mut from, &mut content).await {
                Ok(Some(head)) => all.push((head, content[..head.length].to_vec())),
                Ok(None) => return (all, true),
                Err(_) => return (all, false),
            }
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        futures_util::FutureExt::now_or_never(future).expect("nothing is waited for")
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (any::<u32>(), 1_u8..5, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
                |(session, what, content)| {
                    let what = [What::Open, What::Datagram, What::Close, What::Refuse][usize::from(what - 1)];
                    frame(session, what, &content).expect("short")
                }
            ),
            proptest::collection::vec(any::<u8>(), 0..12),
        ]
    }

    proptest! {
        #![proptest_config(tries(2000))]

        #[test]
        fn any_bytes_in_any_pieces_give_the_same_frames(
            bytes in proptest::collection::vec(piece(), 0..6),
            size in 1_usize..20,
        ) {
            let bytes = bytes.concat();
            let whole = now(frames(vec![bytes.clone()]));
            prop_assert_eq!(&now(frames(bytes.chunks(size).map(<[u8]>::to_vec).collect())), &whole);
            // What was read is what is written again, up to where it is no frame.
            let written = whole.0.iter().map(|(head, content)| frame(head.session, head.what, content).expect("read"));
            let written: Vec<u8> = written.flatten().collect();
            prop_assert!(bytes.starts_with(&written));
            prop_assert!(!whole.1 || bytes.len() == written.len());
        }
    }
}

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::site::{Cluster, Host, Talk, chain, echo, finish, in_time, say, tcp, until};
use crate::mesh::{DialError, Kind, MeshOptions, Refusal, pool};

#[tokio::test]
async fn a_control_stream_carries_lines_both_ways() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.mesh("a"), cluster.echo("b"));
    let mut stream = a.dial(&b.addr, &Kind::Control).await.expect("serves");
    for line in ["one\n", "two\n"] {
        stream.write_all(line.as_bytes()).await.expect("open");
        stream.flush().await.expect("open");
        let mut back = vec![0; line.len()];
        in_time(stream.read_exact(&mut back)).await.expect("echo");
        assert_eq!(back, line.as_bytes());
    }
    assert_eq!(in_time(finish(&mut stream, "end")).await.expect("half-close"), "end");
    drop(stream);
    assert_eq!(pool::kept(), 0, "a control connection is not kept");
}

#[tokio::test]
async fn an_end_is_for_one_direction() {
    let cluster = Cluster::new();
    let a = cluster.mesh("a");
    let b = cluster.serve("b", |mut stream| async move {
        stream.write_all(b"greeting").await.expect("open");
        stream.shutdown().await.expect("open");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.expect("the other half is open");
        assert_eq!(heard, "late");
    });
    let mut stream = a.dial(&b.addr, &tcp(80)).await.expect("serves");
    let mut greeting = String::new();
    in_time(stream.read_to_string(&mut greeting)).await.expect("greets");
    assert_eq!(greeting, "greeting");
    stream.write_all(b"late").await.expect("the other half is open");
    stream.shutdown().await.expect("open");
    assert_eq!(stream.write(b"more").await.expect_err("ended").kind(), ErrorKind::BrokenPipe);
    drop(stream);
    assert_eq!(pool::kept(), 1);
}

#[tokio::test]
async fn connections_are_used_again_after_a_clean_end_only() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.mesh("a"), cluster.echo("b"));
    for number in 0..100 {
        let word = format!("word {number}");
        assert_eq!(say(&a, &b.addr, &word).await, Ok(word));
    }
    assert_eq!((a.stats().dialled, a.stats().reused, b.mesh.stats().accepted), (1, 99, 1));
    let refused = a.dial(&b.addr, &tcp(1)).await.expect_err("not served");
    assert!(matches!(&refused, DialError::Refused { reason: Refusal::NotServed, .. }), "{}", chain(&refused));
    assert_eq!(pool::kept(), 1, "also after a refusal");
    drop(a.dial(&b.addr, &tcp(80)).await.expect("serves"));
    assert_eq!(pool::kept(), 0, "not after a reset");
    assert_eq!(say(&a, &b.addr, "again").await.as_deref(), Ok("again"));
    assert_eq!(a.stats().dialled, 2);
}

#[tokio::test]
async fn as_many_are_kept_as_allowed_and_as_long() {
    let cluster = Cluster::new();
    let options = MeshOptions { idle_per_peer: 2, idle: Duration::from_millis(200), ..MeshOptions::default() };
    let (a, b) = (cluster.mesh_with("a", options), cluster.echo("b"));
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(a.dial(&b.addr, &tcp(80)).await.expect("serves"));
    }
    for mut stream in streams {
        assert_eq!(finish(&mut stream, "x").await.expect("echo"), "x");
    }
    assert_eq!(pool::kept(), 2);
    let began = Instant::now();
    until(pool::kept, |kept| *kept == 0).await;
    assert!(began.elapsed() >= Duration::from_millis(100), "not at once");
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_unseen() {
    let cluster = Cluster::new();
    let a = cluster.mesh("a");
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let first = {
        let _inside = other.enter();
        cluster.echo("b")
    };
    assert_eq!(say(&a, &first.addr, "x").await.as_deref(), Ok("x"));
    let Host { addr, listener, .. } = first;
    drop(listener);
    other.shutdown_background();
    let mesh = cluster.mesh("b");
    let free = || mesh.listen(addr.address, Arc::new(Talk(echo)));
    let _second = until(free, Result::is_ok).await;
    assert_eq!(say(&a, &addr, "y").await.as_deref(), Ok("y"));
    assert_eq!((a.stats().dialled, a.stats().reused), (2, 0));
}

#[tokio::test]
async fn bulk_goes_both_ways_at_once_unchanged() {
    const TOTAL: usize = 24 << 20;
    // A prime length: no buffer, record or frame divides it, so lost or doubled pieces show.
    let pattern: Vec<u8> = (0..65_521_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let cluster = Cluster::new();
    let (a, b) = (cluster.mesh("a"), cluster.echo("b"));
    let (mut read, mut write) = tokio::io::split(a.dial(&b.addr, &tcp(80)).await.expect("serves"));
    let source = pattern.clone();
    let sender = tokio::spawn(async move {
        let mut left = TOTAL;
        while left > 0 {
            let piece = left.min(source.len());
            write.write_all(&source[..piece]).await?;
            left -= piece;
        }
        write.shutdown().await
    });
    let (mut seen, mut buffer) = (0, vec![0; pattern.len()]);
    while seen < TOTAL {
        let piece = buffer.len().min(TOTAL - seen);
        in_time(read.read_exact(&mut buffer[..piece])).await.expect("echo");
        assert!(buffer[..piece] == pattern[..piece], "changed after byte {seen}");
        seen += piece;
    }
    assert_eq!(in_time(read.read(&mut buffer)).await.expect("the end"), 0);
    sender.await.expect("no panic").expect("open");
}

#[tokio::test]
async fn a_reset_arrives_as_one_after_what_was_sent() {
    let cluster = Cluster::new();
    let a = cluster.mesh("a");
    let b = cluster.serve("b", |mut stream| async move {
        stream.write_all(b"part").await.expect("open");
        stream.flush().await.expect("open");
    });
    let mut stream = a.dial(&b.addr, &tcp(80)).await.expect("serves");
    let mut part = [0; 4];
    in_time(stream.read_exact(&mut part)).await.expect("sent before the reset");
    let error = in_time(stream.read_u8()).await.expect_err("reset");
    assert_eq!((&part, error.kind()), (b"part", ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_reader_that_pauses_for_longer_than_a_dead_peer_is_waited_for_loses_nothing() {
    let cluster = Cluster::new();
    let a = cluster.mesh("a");
    let b = cluster.serve("b", |mut stream| async move {
        let bulk = vec![7; 32 << 20];
        stream.write_all(&bulk).await.expect("the reader is alive");
        stream.shutdown().await.expect("the reader is alive");
    });
    let mut stream = a.dial(&b.addr, &tcp(80)).await.expect("serves");
    // No condition to wait for: the time itself is what is tested.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut all = Vec::new();
    in_time(stream.read_to_end(&mut all)).await.expect("whole");
    assert_eq!(all.len(), 32 << 20);
}

#[tokio::test]
async fn certificates_are_renewed_under_load_without_a_lost_stream() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.mesh("a"), cluster.echo("b"));
    assert!(!a.wants_renewal());
    let kept = a.dial(&b.addr, &tcp(80)).await.expect("serves");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (a, addr, stop, done) = (a.clone(), b.addr.clone(), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(say(&a, &addr, "x").await.as_deref(), Ok("x"));
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 1..=5 {
        until(|| done.load(Ordering::SeqCst), |done| *done >= round * 50).await;
        cluster.clock.advance(Duration::from_hours(61 * 24));
        assert!(a.wants_renewal() && b.mesh.wants_renewal());
        a.set_identity(cluster.identity("a")).expect("this host's");
        b.mesh.set_identity(cluster.identity("b")).expect("this host's");
    }
    stop.store(true, Ordering::SeqCst);
    for task in load {
        task.await.expect("no stream was lost");
    }
    let mut kept = kept;
    assert_eq!(finish(&mut kept, "old").await.expect("goes on past its certificate's end"), "old");
    let other = a.set_identity(cluster.identity("c")).expect_err("another host's").to_string();
    assert!(other.contains("certificate of `c` does not belong to this host, `a`"), "{other}");
}

#[tokio::test]
async fn a_second_handshake_resumes_the_first_and_is_checked_again() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.mesh("a"), cluster.echo("b"));
    for _ in 0..3 {
        // Reset, so that the next needs a connection of its own; the answer has brought the session tickets.
        let mut stream = a.dial(&b.addr, &tcp(80)).await.expect("serves");
        stream.write_all(b"x").await.expect("open");
        assert_eq!(in_time(stream.read_u8()).await.expect("echo"), b'x');
    }
    assert_eq!((a.stats().dialled, a.stats().resumed), (3, 2));
    cluster.clock.advance(Duration::from_hours(91 * 24));
    let error = chain(&a.dial(&b.addr, &tcp(80)).await.expect_err("expired"));
    assert!(error.contains("expired at"), "{error}");
}

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::site::{DEADLINE, Site, ask, container, in_time, refusal, rest, until};
use crate::host::sockets::reset_on_close;
use crate::lb::table::PublishedKey;
use crate::lb::{Balancer, BalancerOptions};

type Outcome = std::io::Result<()>;

/// The address of a pod that takes connections into its queue, never accepts one, and whose queue is full: connects hang.
async fn unresponsive(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(address).expect("own address");
    let listener = socket.listen(1).expect("listens");
    let mut queued = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        queued.push(connected.expect("queued"));
    }
    (listener, queued)
}

#[tokio::test]
async fn the_client_may_end_its_side_first() -> Outcome {
    let site = Site::patient().await;
    let _pod = site
        .pod(1, |mut stream| async move {
            let asked = rest(&mut stream).await.expect("the end is passed on");
            stream.write_all(format!("heard {asked}").as_bytes()).await.expect("the other half is open");
        })
        .await;
    site.set(&[1]);
    let mut client = site.connect().await;
    client.write_all(b"all").await?;
    client.shutdown().await?;
    assert_eq!(in_time(rest(&mut client)).await?, "heard all");
    Ok(())
}

#[tokio::test]
async fn the_server_may_end_its_side_first() -> Outcome {
    let site = Site::patient().await;
    let (heard, hears) = oneshot::channel();
    let heard = std::sync::Mutex::new(Some(heard));
    let _pod = site
        .pod(1, move |mut stream| {
            let heard = heard.lock().expect("not poisoned").take();
            async move {
                stream.write_all(b"greeting").await.expect("open");
                stream.shutdown().await.expect("open");
                let text = rest(&mut stream).await.expect("the other half is open");
                heard.expect("one connection").send(text).expect("the test waits");
            }
        })
        .await;
    site.set(&[1]);
    let mut client = site.connect().await;
    assert_eq!(in_time(rest(&mut client)).await?, "greeting");
    client.write_all(b"late answer").await?;
    drop(client);
    assert_eq!(in_time(hears).await.expect("sent"), "late answer");
    Ok(())
}

#[tokio::test]
async fn sixty_four_megabytes_go_both_ways_at_once_unchanged() -> Outcome {
    const TOTAL: usize = 64 << 20;
    // A prime length: no buffer or pipe size divides it, so lost or doubled pieces show.
    let pattern: Arc<Vec<u8>> =
        Arc::new((0..65_521_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    let site = Site::patient().await;
    let _pod = site.echo(1).await;
    site.set(&[1]);
    let (mut read, mut write) = site.connect().await.into_split();
    let source = Arc::clone(&pattern);
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
        in_time(read.read_exact(&mut buffer[..piece])).await?;
        assert!(buffer[..piece] == pattern[..piece], "changed after byte {seen}");
        seen += piece;
    }
    assert_eq!(in_time(read.read(&mut buffer)).await?, 0, "nothing after the end");
    sender.await.expect("no panic")?;
    let stats = site.stats(1);
    assert_eq!((stats.sent, stats.received), (TOTAL as u64, TOTAL as u64));
    Ok(())
}

#[tokio::test]
async fn bulk_and_small_talk_alternate_on_one_connection() -> Outcome {
    let site = Site::patient().await;
    let _pod = site.echo(1).await;
    site.set(&[1]);
    let mut client = site.connect().await;
    let bulk = "0123456789".repeat(100_000);
    for _ in 0..3 {
        let (mut read, mut write) = client.split();
        let mut answer = vec![0; bulk.len()];
        let (sent, received) = tokio::join!(write.write_all(bulk.as_bytes()), in_time(read.read_exact(&mut answer)));
        sent?;
        received?;
        assert!(answer == bulk.as_bytes());
        for number in 0..40 {
            let word = format!("word {number}");
            assert_eq!(in_time(ask(&mut client, &word)).await?, word);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_reset_is_passed_on_to_the_client() {
    let site = Site::patient().await;
    let _pod = site
        .pod(1, |mut stream| async move {
            let _asked = stream.read_u8().await;
            reset_on_close(&stream);
        })
        .await;
    site.set(&[1]);
    let mut client = site.connect().await;
    client.write_all(b"?").await.expect("open");
    let error = in_time(client.read_u8()).await.expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_is_passed_on_to_the_server() {
    let site = Site::patient().await;
    let (ended, end) = oneshot::channel();
    let ended = std::sync::Mutex::new(Some(ended));
    let _pod = site
        .pod(1, move |mut stream| {
            let ended = ended.lock().expect("not poisoned").take().expect("one connection");
            async move {
                let first = stream.read_u8().await.expect("sent");
                stream.write_u8(first).await.expect("open");
                let error = stream.read_u8().await.expect_err("reset");
                ended.send(error.kind()).expect("the test waits");
            }
        })
        .await;
    site.set(&[1]);
    let mut client = site.connect().await;
    assert_eq!(in_time(ask(&mut client, "?")).await.expect("echo"), "?");
    reset_on_close(&client);
    drop(client);
    assert_eq!(in_time(end).await.expect("sent"), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_failed_connect_goes_to_the_next_endpoint_and_is_remembered() -> Outcome {
    let site = Site::patient().await;
    let _pod = site.echo(2).await;
    site.set(&[1, 2]);
    for _ in 0..100 {
        let mut client = site.connect().await;
        assert_eq!(in_time(ask(&mut client, "hello")).await?, "hello");
    }
    let (dead, live) = (site.stats(1), site.stats(2));
    assert_eq!((dead.connected, live.connected), (0, 100));
    assert!((1..50).contains(&dead.failed), "marked down after a failure: {dead:?}");
    Ok(())
}

#[tokio::test]
async fn connections_go_to_the_endpoint_with_the_fewest() -> Outcome {
    let site = Site::patient().await;
    let _pods = [site.echo(1).await, site.echo(2).await, site.echo(3).await];
    site.set(&[1, 2, 3]);
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = site.connect().await;
        assert_eq!(in_time(ask(&mut client, "hello")).await?, "hello");
        clients.push(client);
    }
    for number in 1..=3 {
        assert_eq!(site.stats(number).open, 10, "pod {number}");
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_is_held_until_an_endpoint_is_ready() -> Outcome {
    let site = Site::patient().await;
    site.set(&[]);
    let mut client = site.connect().await;
    client.write_all(b"early").await?;
    until(|| site.balancer.stats().open, |open| *open == 1).await;
    site.set(&[]);
    let _pod = site.echo(1).await;
    site.set(&[1]);
    assert_eq!(in_time(ask(&mut client, "!")).await?, "e");
    Ok(())
}

#[tokio::test]
async fn a_connection_that_nobody_takes_is_reset() {
    let options = BalancerOptions { hold: Duration::from_millis(50), ..BalancerOptions::default() };
    let site = Site::new(options).await;
    site.set(&[]);
    assert_eq!(refusal(site.front).await, ErrorKind::ConnectionReset);
    assert_eq!(site.balancer.stats().refused, 1);
}

#[tokio::test]
async fn a_port_that_never_served_is_refused_without_waiting() {
    let options = BalancerOptions { hold: Duration::from_millis(400), ..BalancerOptions::default() };
    let site = Site::new(options).await;
    site.set(&[1]);
    let deadline = Instant::now() + DEADLINE;
    loop {
        let start = Instant::now();
        assert_eq!(refusal(site.front).await, ErrorKind::ConnectionReset);
        // While the endpoint is young the connection is held for all of the time.
        if start.elapsed() < Duration::from_millis(200) {
            return;
        }
        assert!(Instant::now() < deadline, "still held");
    }
}

#[tokio::test]
async fn a_program_that_comes_back_finds_its_client_waiting() -> Outcome {
    let site = Site::patient().await;
    let pod = site.echo(1).await;
    site.set(&[1]);
    assert_eq!(in_time(ask(&mut site.connect().await, "before")).await?, "before");
    pod.stop().await;
    let mut client = site.connect().await;
    until(|| site.stats(1).failed, |failed| *failed > 0).await;
    let _pod = site.echo(1).await;
    assert_eq!(in_time(ask(&mut client, "after")).await?, "after");
    Ok(())
}

#[tokio::test]
async fn a_connect_that_hangs_is_left_when_its_endpoint_leaves_the_table() -> Outcome {
    let site = Site::patient().await;
    let _silent = unresponsive(site.pod_address(1)).await;
    let _pod = site.echo(2).await;
    site.set(&[1]);
    let mut client = site.connect().await;
    until(|| site.stats(1).open, |open| *open == 1).await;
    site.set(&[2]);
    assert_eq!(in_time(ask(&mut client, "hello")).await?, "hello");
    assert_eq!(site.balancer.open_connections(&container(1)), 0);
    Ok(())
}

#[tokio::test]
async fn a_connect_that_hangs_is_left_after_a_second() -> Outcome {
    let site = Site::patient().await;
    let _silent = unresponsive(site.pod_address(1)).await;
    let _pod = site.echo(2).await;
    site.set(&[1, 2]);
    for _ in 0..4 {
        assert_eq!(in_time(ask(&mut site.connect().await, "hello")).await?, "hello");
    }
    assert_eq!(site.stats(2).connected, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_tables_under_load_fail_no_connection() {
    let site = Arc::new(Site::patient().await);
    let _pods = [site.echo(1).await, site.echo(2).await, site.echo(3).await, site.echo(4).await];
    site.set(&[1, 2]);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = |number: usize| {
        let (site, stop, done) = (Arc::clone(&site), Arc::clone(&stop), Arc::clone(&done));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let mut stream = site.connect().await;
                for round in 0..number {
                    let word = format!("{number} {round}");
                    assert_eq!(in_time(ask(&mut stream, &word)).await.expect("answered"), word);
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let clients: Vec<_> = (1..=8).map(client).collect();
    for (table, pods) in [[1, 2], [3, 4], [2, 3], [4, 1]].iter().cycle().take(100).enumerate() {
        let before = done.load(Ordering::Relaxed);
        site.set(pods);
        until(|| done.load(Ordering::Relaxed), |done| *done >= before + 5).await;
        if table % 10 == 0 {
            site.set(&[]);
            site.set(pods);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no client failed");
    }
    let stats = site.balancer.stats();
    assert_eq!(stats.refused, 0);
    assert!(stats.accepted >= 500, "{stats:?}");
}

#[tokio::test]
async fn an_endpoint_that_left_keeps_its_connections_until_they_end() -> Outcome {
    let site = Site::patient().await;
    let _pods = [site.echo(1).await, site.echo(2).await];
    site.set(&[1]);
    let mut old = site.connect().await;
    assert_eq!(in_time(ask(&mut old, "one")).await?, "one");
    site.set(&[2]);
    assert_eq!(in_time(ask(&mut old, "two")).await?, "two");
    assert_eq!(in_time(ask(&mut site.connect().await, "new")).await?, "new");
    assert_eq!(site.stats(2).connected, 1);
    assert_eq!(site.balancer.drain(&container(1), Instant::now() + Duration::from_millis(20)).await, 1);
    drop(old);
    assert_eq!(in_time(site.balancer.drain(&container(1), Instant::now() + DEADLINE)).await, 0);
    Ok(())
}

#[tokio::test]
async fn connections_to_a_dead_container_can_be_reset() -> Outcome {
    let site = Site::patient().await;
    let _pod = site.echo(1).await;
    site.set(&[1]);
    let mut client = site.connect().await;
    assert_eq!(in_time(ask(&mut client, "one")).await?, "one");
    site.balancer.close_connections(&container(1));
    assert_eq!(in_time(ask(&mut client, "two")).await?, "two", "an endpoint of the table is left alone");
    site.set(&[]);
    site.set(&[1]);
    let mut again = site.connect().await;
    assert_eq!(in_time(ask(&mut again, "three")).await?, "three");
    assert_eq!(site.balancer.open_connections(&container(1)), 2);
    site.balancer.close_connections(&container(1));
    let error = in_time(client.read_u8()).await.expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(in_time(ask(&mut again, "four")).await?, "four", "the container that came back is left alone");
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_reported_and_tried_again() -> Outcome {
    let site = Site::patient().await;
    let _pod = site.echo(1).await;
    // Even one that would share it: half of the connections would go astray.
    let other = TcpSocket::new_v4()?;
    other.set_reuseport(true)?;
    other.bind(site.front)?;
    let other = other.listen(8)?;
    let errors = site.balancer.set_table(&site.table(&[1]));
    let error = errors.get(&site.key()).expect("in use");
    assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
    assert_eq!(error.to_string(), format!("cannot listen on {}", site.front));
    drop(other);
    assert!(site.balancer.sync_published().is_empty());
    assert_eq!(in_time(ask(&mut site.connect().await, "hello")).await?, "hello");
    Ok(())
}

#[tokio::test]
async fn a_published_port_that_leaves_the_table_is_closed() -> Outcome {
    let site = Site::patient().await;
    let _pod = site.echo(1).await;
    site.set(&[1]);
    let mut kept = site.connect().await;
    assert_eq!(in_time(ask(&mut kept, "one")).await?, "one");
    site.balancer.set_table(&crate::lb::table::LbTable::default());
    let deadline = Instant::now() + DEADLINE;
    while TcpStream::connect(site.front).await.is_ok() {
        assert!(Instant::now() < deadline, "still listens");
    }
    assert_eq!(in_time(ask(&mut kept, "two")).await?, "two", "a connection outlives its listener");
    TcpListener::bind(site.front).await?;
    Ok(())
}

#[tokio::test]
async fn a_port_without_address_listens_on_both_families() -> Outcome {
    let site = Site::patient().await;
    let _pod = site.echo(1).await;
    let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?.local_addr()?.port();
    let mut table = site.table(&[1]);
    let published = table.published.remove(&site.key()).expect("just made");
    table.published.insert(PublishedKey { host_ip: None, port, ..site.key() }, published);
    let errors = site.balancer.set_table(&table);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(in_time(ask(&mut TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?, "four")).await?, "four");
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok() {
        assert_eq!(in_time(ask(&mut TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await?, "six")).await?, "six");
    }
    Ok(())
}

#[tokio::test]
async fn beyond_the_limit_connections_wait_for_their_turn() -> Outcome {
    let options = BalancerOptions { max_connections: 2, hold: DEADLINE, ..BalancerOptions::default() };
    let site = Site::new(options).await;
    let _pod = site.echo(1).await;
    site.set(&[1]);
    let mut first = site.connect().await;
    let mut second = site.connect().await;
    assert_eq!(in_time(ask(&mut first, "one")).await?, "one");
    assert_eq!(in_time(ask(&mut second, "two")).await?, "two");
    let mut third = site.connect().await;
    let early = tokio::time::timeout(Duration::from_millis(100), ask(&mut third, "three")).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(site.balancer.open_connections(&container(1)), 2);
    drop(first);
    let mut answer = [0; 5];
    in_time(third.read_exact(&mut answer)).await?;
    assert_eq!(&answer, b"three");
    Ok(())
}

#[tokio::test]
async fn connections_of_anybody_leave_room_for_those_of_containers() -> Outcome {
    let options = BalancerOptions { max_connections: 4, hold: DEADLINE, ..BalancerOptions::default() };
    let site = Site::new(options).await;
    let _pod = site.echo(1).await;
    site.set(&[1]);
    let network = crate::lb::table::NetworkId {
        project: crate::ids::ProjectName::new("demo").expect("valid"),
        network: crate::ids::ResourceKey::new("default").expect("valid"),
    };
    let inside = site.balancer.add_vip_listener(network, Ipv4Addr::LOCALHOST, None)?;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = site.connect().await;
        assert_eq!(in_time(ask(&mut client, "one")).await?, "one");
        open.push(client);
    }
    let mut fourth = site.connect().await;
    let early = tokio::time::timeout(Duration::from_millis(100), ask(&mut fourth, "four")).await;
    assert!(early.is_err(), "{early:?}");
    // It is looked at at once, and it was not redirected here.
    assert_eq!(refusal((Ipv4Addr::LOCALHOST, inside).into()).await, ErrorKind::ConnectionReset);
    drop(open);
    let mut answer = [0; 4];
    in_time(fourth.read_exact(&mut answer)).await?;
    assert_eq!(&answer, b"four");
    Ok(())
}

#[tokio::test]
async fn stopping_waits_for_connections_up_to_the_deadline() -> Outcome {
    let site = Site::patient().await;
    let _pod = site.echo(1).await;
    site.set(&[1]);
    let mut client = site.connect().await;
    assert_eq!(in_time(ask(&mut client, "one")).await?, "one");
    let front = site.front;
    let stopping = tokio::spawn(site.balancer.stop(Instant::now() + DEADLINE));
    let deadline = Instant::now() + DEADLINE;
    while TcpStream::connect(front).await.is_ok() {
        assert!(Instant::now() < deadline, "still listens");
    }
    assert_eq!(in_time(ask(&mut client, "two")).await?, "two");
    drop(client);
    assert_eq!(in_time(stopping).await.expect("no panic"), 0);
    Ok(())
}

#[tokio::test]
async fn a_balancer_that_stops_at_once_ends_its_connections() {
    let site = Site::patient().await;
    let _pod = site.echo(1).await;
    site.set(&[1]);
    let mut client = site.connect().await;
    assert_eq!(in_time(ask(&mut client, "one")).await.expect("echo"), "one");
    assert_eq!(in_time(site.balancer.stop(Instant::now())).await, 1);
    assert!(matches!(in_time(client.read(&mut [0])).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_gateway_listener_is_made_once_and_serves_only_what_was_redirected() -> Outcome {
    let network = || crate::lb::table::NetworkId {
        project: crate::ids::ProjectName::new("demo").expect("valid"),
        network: crate::ids::ResourceKey::new("default").expect("valid"),
    };
    let balancer = Balancer::start(BalancerOptions { threads: 2, ..BalancerOptions::default() })?;
    let gateway = Ipv4Addr::LOCALHOST;
    let taken = TcpListener::bind((gateway, 0)).await?;
    let hint = taken.local_addr()?.port();
    let port = balancer.add_vip_listener(network(), gateway, Some(hint))?;
    assert_ne!(port, hint, "the wished port is in use");
    assert_eq!(balancer.add_vip_listener(network(), gateway, None)?, port, "made once");
    assert_eq!(refusal((gateway, port).into()).await, ErrorKind::ConnectionReset, "not redirected");
    assert!(balancer.remove_vip_listener(&network()) && !balancer.remove_vip_listener(&network()));
    let deadline = Instant::now() + DEADLINE;
    while TcpStream::connect((gateway, port)).await.is_ok() {
        assert!(Instant::now() < deadline, "still listens");
    }
    assert_eq!(balancer.add_vip_listener(network(), gateway, Some(port))?, port, "the wished port is free");
    Ok(())
}

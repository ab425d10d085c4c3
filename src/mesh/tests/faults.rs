use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::site::{Cluster, Host, chain, echo, host, in_time, say, tcp, until};
use crate::clock::Clock;
use crate::host::namespace::{in_new_network, tool};
use crate::mesh::identity::{SKEW, Statement, VALIDITY};
use crate::mesh::{Mesh, MeshOptions, PeerAddr, Refusals};

async fn refusal(mesh: &Mesh, to: &PeerAddr) -> String {
    chain(&in_time(mesh.dial(to, &tcp(80))).await.expect_err("not accepted"))
}

#[track_caller]
fn says(message: &str, part: &str) {
    assert!(message.contains(part), "{message}");
}

#[tokio::test]
async fn another_clusters_agent_is_told_apart_on_both_sides() {
    let (own, other) = (Cluster::new(), Cluster::new());
    let (a, b) = (own.mesh("a"), other.echo("b"));
    let (found, ours) = (other.authority.cluster(), own.authority.cluster());
    says(&refusal(&a, &b.addr).await, &format!("certificate is of another cluster (`{found}`, this is `{ours}`)"));
    until(|| b.mesh.stats().failed, |failed| *failed == 1).await;
    assert_eq!(b.mesh.stats().accepted, 0);
}

#[tokio::test]
async fn another_host_at_the_address_is_told_apart() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.mesh("a"), cluster.echo("b"));
    let wrong = PeerAddr { host: host("c"), ..b.addr.clone() };
    says(&refusal(&a, &wrong).await, "peer is `b`, not `c`");
    assert_eq!(say(&a, &b.addr, "x").await.as_deref(), Ok("x"));
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_is_said_with_both_times() {
    let cluster = Cluster::new();
    let b = cluster.echo("b");
    cluster.clock.advance(VALIDITY + Duration::from_secs(5));
    let fresh = cluster.mesh("a");
    let message = refusal(&fresh, &b.addr).await;
    says(&message, "certificate of `b` expired at 2027-04-15T08:00:00Z; the clock here says 2027-04-15T08:00:05Z");
    // The other way round the peer's log has the reason, and the caller learns whose fault it is.
    let c = cluster.echo("c");
    says(&refusal(&b.mesh, &c.addr).await, "does not accept this host's certificate");
}

#[tokio::test]
async fn a_clock_may_be_late_by_a_day_and_not_more() {
    let (ahead, behind) = (Cluster::new(), Cluster::new());
    ahead.clock.advance(SKEW.saturating_sub(Duration::from_mins(1)));
    let identity = |name: &str| ahead.identity(name);
    let late = |name: &str| {
        Mesh::new(identity(name), Arc::clone(&behind.clock) as Arc<dyn Clock>, MeshOptions::default()).expect("a key")
    };
    let (a, b) = (late("a"), Host::start(ahead.mesh("b"), "b", echo));
    assert_eq!(say(&a, &b.addr, "x").await.as_deref(), Ok("x"));
    ahead.clock.advance(Duration::from_mins(2));
    let (a, b) = (late("a"), Host::start(ahead.mesh("b"), "b", echo));
    says(&refusal(&a, &b.addr).await, "is valid from 2027-01-15T08:01:00Z on");
}

#[tokio::test]
async fn a_removed_host_is_cut_off_at_once_and_may_come_back_with_a_new_certificate() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.mesh("a"), cluster.echo("b"));
    let mut open = a.dial(&b.addr, &tcp(80)).await.expect("serves");
    assert_eq!(say(&a, &b.addr, "kept").await.as_deref(), Ok("kept"));
    let mut refusals = Refusals::default();
    refusals.remove(host("a"));
    b.mesh.set_refusals(refusals.clone());
    in_time(open.read_u8()).await.expect_err("the stream is reset");
    says(&refusal(&a, &b.addr).await, "does not accept this host's certificate: host `a` was removed from the cluster");
    let anew = cluster.mesh("a");
    says(&refusal(&anew, &b.addr).await, "does not accept this host's certificate");
    let Statement { serial, .. } = anew.identity().statement().clone();
    refusals.accept_from(host("a"), serial);
    b.mesh.set_refusals(refusals.clone());
    assert_eq!(say(&anew, &b.addr, "x").await.as_deref(), Ok("x"));
    says(&refusal(&a, &b.addr).await, "does not accept this host's certificate");
    // And the caller's side.
    refusals.remove(host("b"));
    anew.set_refusals(refusals);
    says(&refusal(&anew, &b.addr).await, "host `b` was removed from the cluster");
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.mesh("a"), cluster.echo("b"));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0x16, 3, 1, 0xff, 0xff], b""] {
        let mut stream = TcpStream::connect(b.addr.address).await.expect("listens");
        let _ended_first = stream.write_all(garbage).await;
        let _ended_first = stream.shutdown().await;
        let mut answer = Vec::new();
        let _reset = in_time(stream.read_to_end(&mut answer)).await;
        assert!(answer.len() < 16, "an alert at most: {answer:?}");
    }
    until(|| b.mesh.stats().failed, |failed| *failed == 4).await;
    assert_eq!(say(&a, &b.addr, "x").await.as_deref(), Ok("x"));
}

#[tokio::test]
async fn slow_callers_are_ended_in_time_and_kept_apart_from_others() {
    let cluster = Cluster::new();
    let options =
        MeshOptions { handshake: Duration::from_millis(500), handshakes_per_address: 4, ..MeshOptions::default() };
    let b = Host::start(cluster.mesh_with("b", options), "b", echo);
    let began = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..10 {
        // One that is turned away may be so before its connect returns.
        slow.extend(TcpStream::connect(b.addr.address).await);
    }
    until(|| b.mesh.stats().turned_away, |away| *away == 6).await;
    for mut stream in slow {
        let mut answer = Vec::new();
        let _reset = in_time(stream.read_to_end(&mut answer)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    until(|| b.mesh.stats().failed, |failed| *failed == 4).await;
    assert_eq!(say(&cluster.mesh("a"), &b.addr, "x").await.as_deref(), Ok("x"));
}

#[tokio::test]
async fn many_calls_at_once_stay_below_what_a_peer_allows() {
    let cluster = Cluster::new();
    let options = MeshOptions { dials_per_peer: 4, ..MeshOptions::default() };
    let strict = MeshOptions { handshakes_per_address: 8, ..MeshOptions::default() };
    let (a, b) = (cluster.mesh_with("a", options), Host::start(cluster.mesh_with("b", strict), "b", echo));
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let (a, addr) = (a.clone(), b.addr.clone());
            tokio::spawn(async move { say(&a, &addr, "x").await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.expect("no panic").as_deref(), Ok("x"));
    }
    assert_eq!(b.mesh.stats().turned_away, 0);
}

#[tokio::test]
async fn an_agent_that_is_gone_or_silent_is_said_in_time() {
    let cluster = Cluster::new();
    let options = MeshOptions { handshake: Duration::from_millis(200), ..MeshOptions::default() };
    let a = cluster.mesh_with("a", options);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = PeerAddr { host: host("b"), address: listener.local_addr().expect("bound") };
    says(&refusal(&a, &silent).await, "did not answer within 200ms");
    drop(listener);
    says(&refusal(&a, &silent).await, "cannot be reached");
    a.set_peers(BTreeMap::from([(host("b"), silent.address)]));
    assert_eq!((a.peer(&host("b")), a.peer(&host("c"))), (Some(silent), None));
}

/// Silence, not a refusal: packets are dropped, as when a host loses its power.
#[test]
fn a_dead_peer_is_noticed_within_five_seconds() {
    in_new_network(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let cluster = Cluster::new();
            let (a, b) = (cluster.mesh("a"), cluster.echo("b"));
            let mut idle = a.dial(&b.addr, &tcp(80)).await.expect("serves");
            let mut busy = a.dial(&b.addr, &tcp(80)).await.expect("serves");
            let port = b.addr.address.port();
            tool(&format!("iptables -A INPUT -i lo -p tcp --dport {port} -j DROP"));
            tool(&format!("iptables -A INPUT -i lo -p tcp --sport {port} -j DROP"));
            let began = Instant::now();
            busy.write_all(b"into the void").await.expect("buffered");
            busy.flush().await.expect("buffered");
            let (first, second) = tokio::join!(in_time(busy.read_u8()), in_time(idle.read_u8()));
            assert!(first.is_err() && second.is_err());
            let took = began.elapsed();
            assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
        });
    });
}

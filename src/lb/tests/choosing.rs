//! How pods are chosen for connections.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;

use super::site::{Site, ask, in_time, until};
use crate::lb::BalancerOptions;
use crate::lb::table::Published;
use crate::model::{Algorithm, Balance, Ejection, HashKey};

fn set(site: &Site, pods: &[u8], balance: &Balance) {
    let mut table = site.table(pods);
    for Published { backend, .. } in table.published.values_mut() {
        let mut balanced = (**backend).clone();
        balanced.balance = balance.clone();
        *backend = Arc::new(balanced);
    }
    let errors = site.balancer.set_table(&table);
    assert!(errors.is_empty(), "{errors:?}");
}

/// Asks as a client with an address of its own; returns which pod took the connection.
async fn ask_from(site: &Site, last: u8, pods: &[u8]) -> u8 {
    let before: BTreeMap<u8, u64> = pods.iter().map(|pod| (*pod, site.stats(*pod).connected)).collect();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 77, last), 0))).expect("loopback");
    let mut client = in_time(socket.connect(site.front)).await.expect("the published port listens");
    assert_eq!(in_time(ask(&mut client, "hello")).await.expect("served"), "hello");
    let took = |pod: &&u8| site.stats(**pod).connected > before[*pod];
    *pods.iter().find(took).expect("one of them took it")
}

#[tokio::test]
async fn a_client_finds_the_same_pod_again_and_few_move_when_one_goes() {
    let site = Site::new(BalancerOptions::default()).await;
    let _pods = [site.echo(1).await, site.echo(2).await, site.echo(3).await];
    // A header is nothing that a connection has: its source counts.
    for key in [HashKey::Source, HashKey::Header("x-user".to_owned())] {
        let balance = Balance { algorithm: Algorithm::Hash(key), ..Balance::default() };
        set(&site, &[1, 2, 3], &balance);
        let mut found = BTreeMap::new();
        for last in 1..=30 {
            let pod = ask_from(&site, last, &[1, 2, 3]).await;
            assert_eq!(ask_from(&site, last, &[1, 2, 3]).await, pod);
            found.insert(last, pod);
        }
        let count = |pod: u8| found.values().filter(|one| **one == pod).count();
        assert!([1, 2, 3].map(count).iter().all(|count| *count >= 3), "{found:?}");
        set(&site, &[1, 3], &balance);
        for (last, pod) in found {
            let now = ask_from(&site, last, &[1, 3]).await;
            assert!(now == pod || pod == 2, "{last} moved from {pod} to {now}");
        }
    }
}

#[tokio::test]
async fn a_pod_that_takes_no_connections_is_passed_over_for_longer_than_it_is_marked() {
    let site = Site::new(BalancerOptions::default()).await;
    let _pod = site.echo(2).await;
    let eject = Some(Ejection { failures: 1, pause: Duration::from_mins(1), at_most: 50 });
    set(&site, &[1, 2], &Balance { algorithm: Algorithm::RoundRobin, eject, ..Balance::default() });
    for last in 1..=4 {
        ask_from(&site, last, &[1, 2]).await;
    }
    let stats = site.stats(1);
    assert!(stats.ejected && stats.failed == 1, "{stats:?}");
    // The mark is over; it is passed over all the same.
    until(|| site.stats(1), |stats| !stats.avoided).await;
    for last in 1..=4 {
        ask_from(&site, last, &[1, 2]).await;
    }
    assert_eq!(site.stats(1).failed, 1);
}

//! UDP: an echo server, and a client that counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::resolve::addresses;
use super::{DemoError, Exit, asked_to_end, hostname, say_line};
use crate::host::datagrams::{self, LARGEST};

/// `orch demo datagrams`: prints counts as JSON.
#[derive(Debug, Args)]
pub struct DatagramsArgs {
    /// HOST:PORT
    target: String,
    /// How many to send
    #[arg(long, default_value_t = 1000, value_name = "N")]
    count: u32,
    /// How many a second
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Sockets to send from, in turn: each is a client by itself
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    sockets: u16,
    /// Bytes of each, at least
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(..=65_507))]
    size: u16,
    /// Milliseconds to wait for answers after the last was sent
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    wait_ms: u64,
}

/// What came back.
#[derive(Debug, Default, Serialize)]
struct Report {
    sent: u32,
    answered: u32,
    lost: u32,
    /// Answers that came a second time.
    doubled: u32,
    /// What came and was no answer.
    strange: u32,
    /// Answers of each server.
    by: BTreeMap<String, u32>,
    /// The longest time without an answer, in milliseconds, while some were to come.
    longest_gap_ms: u64,
}

/// Sends back what comes until it is told to end.
pub(super) async fn echo(listen: SocketAddr) -> Result<Exit, DemoError> {
    let bound = datagrams::bind_shared(listen, None, 1).and_then(|mut sockets| UdpSocket::from_std(sockets.remove(0)));
    let socket = bound.map_err(DemoError::io(format!("listen on {listen}")))?;
    let local = socket.local_addr().map_err(DemoError::io("ask for the port"))?;
    say_line(&format!("listening on {local}/udp"));
    let serve = async {
        let mut answer = format!("{}\n", hostname()).into_bytes();
        let name = answer.len();
        answer.resize(name + LARGEST, 0);
        loop {
            // Who is not there any more is told of by an error of the next call.
            let Ok((length, from)) = socket.recv_from(&mut answer[name..]).await else { continue };
            // The largest ones have no room for a name.
            let skip = if name + length > 65_507 { name } else { 0 };
            let _sent = socket.send_to(&answer[skip..name + length], from).await;
        }
    };
    tokio::select! {
        () = serve => {}
        end = asked_to_end() => { end?; }
    }
    Ok(Exit::Success)
}

/// Sends, counts and prints.
pub(super) async fn run(args: &DatagramsArgs) -> Result<Exit, DemoError> {
    let wrong = || DemoError::Answer(format!("`{}` is not HOST:PORT", args.target));
    let (host, port) = args.target.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let target = addresses(host).await?.first().copied().ok_or_else(|| DemoError::Address(host.to_owned()))?;
    let sockets = (0..args.sockets).map(|_| datagrams::connect((target, port).into()).and_then(UdpSocket::from_std));
    let sockets: Vec<UdpSocket> =
        sockets.collect::<Result<_, _>>().map_err(DemoError::io(format!("make a socket for {target}")))?;
    let counts = sockets.iter().enumerate().map(|(index, socket)| exchange(args, index, socket));
    let mut report = Report::default();
    for part in futures_util::future::join_all(counts).await {
        let Report { sent, answered, lost, doubled, strange, by, longest_gap_ms } = part;
        report.sent += sent;
        report.answered += answered;
        report.lost += lost;
        report.doubled += doubled;
        report.strange += strange;
        report.longest_gap_ms = report.longest_gap_ms.max(longest_gap_ms);
        for (name, count) in by {
            *report.by.entry(name).or_default() += count;
        }
    }
    say_line(&serde_json::to_string(&report).map_err(|error| DemoError::Answer(error.to_string()))?);
    Ok(Exit::Success)
}

/// One socket's share of it.
async fn exchange(args: &DatagramsArgs, index: usize, socket: &UdpSocket) -> Report {
    let own = (0..args.count).filter(|number| *number as usize % usize::from(args.sockets) == index);
    let every = Duration::from_secs(u64::from(args.sockets)) / args.rate;
    let mut report = Report::default();
    let mut missing = BTreeSet::new();
    let mut last = Instant::now();
    let mut buffer = vec![0; LARGEST];
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in own {
        let next = ticks.tick();
        tokio::pin!(next);
        loop {
            tokio::select! {
                biased;
                Ok(length) = socket.recv(&mut buffer) => take(&buffer[..length], &mut missing, &mut report, &mut last),
                _ = &mut next => break,
            }
        }
        let mut text = format!("{number} ").into_bytes();
        text.resize(text.len().max(args.size.into()), b'.');
        if missing.is_empty() {
            last = Instant::now();
        }
        // What the other side says of an earlier one comes as an error of the next call; then this one was not sent.
        if socket.send(&text).await.is_err() {
            let _again = socket.send(&text).await;
        }
        report.sent += 1;
        missing.insert(number);
    }
    let end = Instant::now() + Duration::from_millis(args.wait_ms);
    while !missing.is_empty() && Instant::now() < end {
        tokio::select! {
            Ok(length) = socket.recv(&mut buffer) => take(&buffer[..length], &mut missing, &mut report, &mut last),
            () = sleep_until(end) => {}
        }
    }
    report.lost = u32::try_from(missing.len()).unwrap_or(u32::MAX);
    report
}

fn take(answer: &[u8], missing: &mut BTreeSet<u32>, report: &mut Report, last: &mut Instant) {
    let text = String::from_utf8_lossy(answer);
    let (name, content) = text.split_once('\n').unwrap_or(("", &text));
    let number = content.split(' ').next().and_then(|number| number.parse::<u32>().ok());
    match number {
        Some(number) if missing.remove(&number) => {
            report.answered += 1;
            *report.by.entry(name.to_owned()).or_default() += 1;
            let gap = u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX);
            report.longest_gap_ms = report.longest_gap_ms.max(gap);
            *last = Instant::now();
        }
        Some(_) => report.doubled += 1,
        None => report.strange += 1,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn an_echo_is_counted_by_its_server() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = server.local_addr().expect("bound");
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = server.recv_from(&mut buffer).await {
                let text = [b"me\n", &buffer[..length]].concat();
                // The seventh is lost, the eighth comes twice.
                for _ in 0..match &buffer[..2] {
                    b"7 " => 0,
                    b"8 " => 2,
                    _ => 1,
                } {
                    server.send_to(&text, from).await.expect("room");
                }
            }
        });
        let args = DatagramsArgs {
            target: address.to_string(),
            count: 100,
            rate: 10_000,
            sockets: 3,
            size: 500,
            wait_ms: 200,
        };
        let socket = UdpSocket::from_std(datagrams::connect(address).expect("a way")).expect("a socket");
        let Report { sent, answered, lost, doubled, strange, by, .. } =
            timeout(Duration::from_secs(10), exchange(&DatagramsArgs { sockets: 1, ..args }, 0, &socket))
                .await
                .expect("ends");
        assert_eq!((sent, answered, lost, doubled, strange), (100, 99, 1, 1, 0));
        assert_eq!(by, BTreeMap::from([("me".to_owned(), 99)]));
    }
}

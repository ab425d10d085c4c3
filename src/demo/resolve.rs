//! Names without libc: as applications see them (`/etc/hosts`, `/etc/resolv.conf`, search list), and raw questions.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::Resolver;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{DemoError, Exit, say_line};

/// Time for one try. A server on the same host answers in less than a millisecond; one that forwards may need this.
const TRY: Duration = Duration::from_secs(2);
/// Tries over UDP, which may lose a packet.
const TRIES: usize = 3;

/// `orch demo resolve`.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// Name; for PTR an address will do
    name: String,
    /// Type of record
    #[arg(default_value = "A", value_parser = parse_type)]
    kind: RecordType,
    /// Server to ask [default: the first of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_server)]
    server: Option<SocketAddr>,
    /// Ask over TCP
    #[arg(long)]
    tcp: bool,
    /// Look it up as an application does: /etc/hosts, search list, IPv4 and IPv6
    #[arg(long, conflicts_with_all = ["server", "tcp"])]
    like_application: bool,
}

/// Returns all addresses of `host`, which may be one: as applications find them, asked anew each time.
pub(super) async fn addresses(host: &str) -> Result<Vec<IpAddr>, DemoError> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    let none = |reason: String| DemoError::Name { name: host.to_owned(), reason };
    let mut builder = Resolver::builder_tokio().map_err(|error| none(format!("/etc/resolv.conf: {error}")))?;
    // What a name means may change between two questions, and that is what these workloads are to show.
    builder.options_mut().cache_size = 0;
    let resolver = builder.build().map_err(|error| none(error.to_string()))?;
    let found = resolver.lookup_ip(host).await.map_err(|error| none(error.to_string()))?;
    let addresses: Vec<IpAddr> = found.iter().collect();
    if addresses.is_empty() { Err(none("no address".to_owned())) } else { Ok(addresses) }
}

/// Asks, and prints `NAME TTL TYPE DATA` for each answer; fails when there is none.
pub(super) async fn run(args: &ResolveArgs) -> Result<Exit, DemoError> {
    if args.like_application {
        for address in addresses(&args.name).await? {
            say_line(&address.to_string());
        }
        return Ok(Exit::Success);
    }
    let server = match args.server {
        Some(server) => server,
        None => first_server(&read("/etc/resolv.conf")?)?,
    };
    let query = question(&args.name, args.kind)?;
    let answer = if args.tcp { ask_tcp(server, &query).await? } else { ask_udp(server, &query).await? };
    for record in &answer.answers {
        say_line(&format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data));
    }
    let none = |reason: String| Err(DemoError::Name { name: args.name.clone(), reason });
    match answer.metadata.response_code {
        ResponseCode::NoError if answer.answers.is_empty() => none(format!("no {} record", args.kind)),
        ResponseCode::NoError => Ok(Exit::Success),
        code => none(code.to_string()),
    }
}

fn question(name: &str, kind: RecordType) -> Result<Message, DemoError> {
    let wrong = |reason: String| DemoError::Name { name: name.to_owned(), reason };
    let name = match name.parse::<IpAddr>() {
        Ok(address) if kind == RecordType::PTR => Name::from(address),
        _ => Name::from_str_relaxed(name).map_err(|error| wrong(error.to_string()))?,
    };
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let mut query = Query::query(name, kind);
    query.name.set_fqdn(true);
    message.add_query(query);
    Ok(message)
}

async fn ask_udp(server: SocketAddr, query: &Message) -> Result<Message, DemoError> {
    let here: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let io = || DemoError::io(format!("ask {server}"));
    let socket = UdpSocket::bind(here).await.map_err(io())?;
    socket.connect(server).await.map_err(io())?;
    let bytes = query.to_vec().map_err(|error| DemoError::Answer(error.to_string()))?;
    let mut buffer = vec![0; 65_535];
    for _ in 0..TRIES {
        socket.send(&bytes).await.map_err(io())?;
        if let Ok(received) = timeout(TRY, socket.recv(&mut buffer)).await {
            let length = received.map_err(io())?;
            let answer = parse(&buffer[..length])?;
            if answer.metadata.id == query.metadata.id {
                return if answer.metadata.truncation { ask_tcp(server, query).await } else { Ok(answer) };
            }
        }
    }
    Err(DemoError::Answer(format!("{server} did not answer")))
}

async fn ask_tcp(server: SocketAddr, query: &Message) -> Result<Message, DemoError> {
    let io = || DemoError::io(format!("ask {server}"));
    let asked = async {
        let mut stream = TcpStream::connect(server).await.map_err(io())?;
        let bytes = query.to_vec().map_err(|error| DemoError::Answer(error.to_string()))?;
        let length = u16::try_from(bytes.len()).map_err(|error| DemoError::Answer(error.to_string()))?;
        stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await.map_err(io())?;
        let length = stream.read_u16().await.map_err(io())?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.map_err(io())?;
        parse(&answer)
    };
    timeout(TRY, asked).await.unwrap_or_else(|_| Err(DemoError::Answer(format!("{server} did not answer"))))
}

fn parse(bytes: &[u8]) -> Result<Message, DemoError> {
    Message::from_vec(bytes).map_err(|error| DemoError::Answer(format!("the answer is no DNS message: {error}")))
}

fn read(path: &str) -> Result<String, DemoError> {
    fs::read_to_string(path).map_err(DemoError::io(format!("read {path}")))
}

/// The first `nameserver` of a `resolv.conf`.
fn first_server(text: &str) -> Result<SocketAddr, DemoError> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let server =
        words.filter(|words| words.len() > 1 && words[0] == "nameserver").find_map(|words| words[1].parse().ok());
    server
        .map(|address: IpAddr| SocketAddr::new(address, 53))
        .ok_or_else(|| DemoError::Answer("/etc/resolv.conf names no server".to_owned()))
}

fn parse_type(text: &str) -> Result<RecordType, String> {
    text.to_ascii_uppercase().parse().map_err(|_| "expected A, AAAA, SRV, PTR, CNAME, TXT, …".to_owned())
}

fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let bare = || text.parse().map(|address: IpAddr| SocketAddr::new(address, 53));
    text.parse().or_else(|_| bare()).map_err(|_| "expected ADDRESS or ADDRESS:PORT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_server_is_asked() {
        let text = "# comment\nsearch a b\nnameserver 10.192.0.1\nnameserver 10.192.16.1\noptions ndots:0\n";
        assert_eq!(first_server(text).ok(), Some(([10, 192, 0, 1], 53).into()));
        assert!(first_server("nameserver nonsense\n").is_err());
    }

    #[test]
    fn an_address_is_asked_for_in_reverse() {
        let message = question("10.1.2.3", RecordType::PTR).expect("a question");
        assert_eq!(message.queries[0].name().to_string(), "3.2.1.10.in-addr.arpa.");
        let message = question("web", RecordType::A).expect("a question");
        assert_eq!(message.queries[0].name().to_string(), "web.");
    }
}

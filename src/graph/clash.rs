//! Who has a port inside a pod that a container of it wanted: told from what the container wrote before it ended.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::ids::ServiceName;
use crate::model::Ambassador;

use super::{Graph, NetworkMode};

/// What programs write of a port that somebody has, in lower case: libc's and Go's words, the name of the error and its
/// number, gunicorn's, and those of old versions of HAProxy, which give no reason.
const IN_USE: [&str; 7] = [
    "address already in use",
    "address in use",
    "addrinuse",
    "failed (98",
    "errno 98",
    "connection in use",
    "cannot bind socket [",
];

/// What stands before numbers that are none of a port: `errno=98`, `code: 98`.
const NO_PORT: [&str; 3] = ["code", "errno", "pid"];

/// Networks that are shared in a row.
const MAX_SHARING: usize = 8;

impl Graph {
    /// Returns the ambassadors that listen in the network of a service's pods: its own, and those of a service whose network it
    /// shares.
    pub fn ambassadors_in(&self, service: &ServiceName) -> &[Ambassador] {
        let mut at = self.front(service);
        for _ in 0..MAX_SHARING {
            let Some(found) = self.services.get(at) else { break };
            if !found.ambassadors.is_empty() {
                return &found.ambassadors;
            }
            match &found.network {
                NetworkMode::Service(owner) if self.front(owner) != at => at = self.front(owner),
                _ => break,
            }
        }
        &[]
    }

    /// Says which ambassador has the port that a container of a service wanted, by what it wrote last: `None`: it does not tell of
    /// a port that is taken, or of one that no ambassador has.
    pub fn taken_port(&self, service: &ServiceName, words: &str) -> Option<String> {
        let ambassadors = self.ambassadors_in(service);
        let words = words.to_lowercase();
        let lines: Vec<&str> = words.lines().filter(|line| tells_of_taken_port(line)).collect();
        if ambassadors.is_empty() || lines.is_empty() {
            return None;
        }
        let named: BTreeSet<u16> = lines.iter().flat_map(|line| ports(line)).collect();
        let has = |one: &Ambassador| {
            format!("ambassador `{}` has port {} ({}:{})", one.name, one.port, one.address, one.port)
        };
        let told: Vec<String> = ambassadors.iter().filter(|one| named.contains(&one.port)).map(has).collect();
        if !told.is_empty() {
            return Some(format!("{} in this pod", told.join(", ")));
        }
        if !named.is_empty() {
            return None;
        }
        let all: Vec<String> = ambassadors.iter().map(has).collect();
        Some(format!("in this pod {}: is that the port that it wants?", all.join(", ")))
    }
}

/// Returns whether a line, in lower case, says that somebody has a port.
fn tells_of_taken_port(line: &str) -> bool {
    let has_word = |wanted: &str| line.split(|one: char| !one.is_alphanumeric()).any(|word| word == wanted);
    IN_USE.iter().any(|text| line.contains(text))
        // Spring, Vite, Django, Phoenix: `Port 8000 was already in use`.
        || (line.contains("in use") && has_word("port"))
        // Create React App, PostgreSQL, MySQL: `Is another postmaster already running on port 5432?`
        || (line.contains("already") && line.contains("running on port"))
}

/// Returns the ports that a line tells of: what is last after a colon, as in `0.0.0.0:80` or `:::80` but not in `15:04:05`, and what
/// follows an address or the word `port`.
fn ports(line: &str) -> Vec<u16> {
    let ends = |one: char| one.is_whitespace() || matches!(one, ',' | '(' | ')' | '{' | '}' | '"' | '\'');
    let is_address = |word: &str| word == "localhost" || word.parse::<IpAddr>().is_ok();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mut found, mut before) = (Vec::new(), "");
    let marks = [':', '.', ';', ']', '/', '?', '!'];
    let words = line.split(ends).map(|word| if is_address(word) { word } else { word.trim_end_matches(marks) });
    for word in words.filter(|word| !word.is_empty()) {
        let port = match word.rsplit_once([':', '=']) {
            _ if is_address(word) => None,
            // Of `"code": 98` the quotes are gone.
            Some((what, port)) => Some(port).filter(|_| {
                let what = what.rsplit([':', '=']).next().unwrap_or_default();
                !is_number(what) && !NO_PORT.contains(&if what.is_empty() { before } else { what })
            }),
            None => Some(word).filter(|_| before == "port" || is_address(before)),
        };
        // A port has no 0 before it; a part of a time has.
        let port = port.filter(|port| !port.starts_with('0')).and_then(|port| port.parse::<u16>().ok());
        found.extend(port);
        before = word;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::model::Breaker;
    use crate::plan::fixture::graph;

    fn ambassador(name: &str, address: Ipv4Addr, port: u16) -> Ambassador {
        Ambassador {
            name: name.to_owned(),
            address,
            port,
            targets: Vec::new(),
            tls: None,
            timeout: Duration::from_secs(2),
            retries: 2,
            breaker: Breaker::default(),
        }
    }

    /// What is told of words that a program of service `web` wrote, in whose pod ambassadors have these ports.
    fn told(service: &str, taken: &[u16], words: &str) -> Option<String> {
        let mut graph = graph("{web: {}, guest: {network_mode: 'service:web'}, other: {}}");
        let web = graph.services.get_mut(&ServiceName::new("web").expect("a name")).expect("it is there");
        let ambassadors = taken.iter().map(|port| ambassador(&format!("at-{port}"), Ipv4Addr::LOCALHOST, *port));
        web.ambassadors = ambassadors.collect();
        graph.taken_port(&service.parse().expect("a name"), words)
    }

    /// Programs, what they write, and the port that it is about.
    const WORDS: &[(&str, &str, u16)] = &[
        ("apache", "(98)Address already in use: AH00072: make_sock: could not bind to address [::]:80", 80),
        ("apache", "(98)Address already in use: AH00072: make_sock: could not bind to address 0.0.0.0:80", 80),
        ("aspnet", "Failed to bind to address http://[::]:8080: address already in use.", 8080),
        ("busybox httpd", "httpd: bind: Address in use: port 80", 80),
        (
            "caddy",
            "Error: loading initial config: loading new config: http app module: start: listening on :80: listen tcp :80: \
             bind: address already in use",
            80,
        ),
        ("create-react-app", "Something is already running on port 3000.", 3000),
        ("envoy", "cannot bind '0.0.0.0:10000': Address already in use", 10000),
        ("flask", "Port 5000 is in use by another program. Either identify and stop that program, or …", 5000),
        ("go", "listen tcp :80: bind: address already in use", 80),
        (
            "go, as slog writes it",
            "time=2026-01-02T15:04:05.123+05:30 level=ERROR msg=failed err=\"listen tcp :80: bind: address already in use\"",
            80,
        ),
        ("gunicorn", "[2026-01-02 15:04:05 +0000] [7] [ERROR] Connection in use: ('0.0.0.0', 8000)", 8000),
        ("gunicorn", "[2026-01-02 15:04:05 +0000] [7] [ERROR] Connection in use: ('::', 8000)", 8000),
        (
            "haproxy",
            "[ALERT] (1) : Binding [/etc/haproxy.cfg:9] for frontend x: protocol tcpv4: cannot bind socket (Address already \
             in use) for [0.0.0.0:80].",
            80,
        ),
        (
            "haproxy 2.0",
            "[ALERT] 1/150405 (1) : Starting frontend x: cannot bind socket (Address already in use) [0.0.0.0:80]",
            80,
        ),
        ("haproxy 1.8", "[ALERT] 001/150405 (1) : Starting frontend x: cannot bind socket [0.0.0.0:80]", 80),
        ("java", "java.net.BindException: Address already in use: /0.0.0.0:8080", 8080),
        (
            "mysql",
            "[ERROR] [MY-010257] [Server] Do you already have another mysqld server running on port: 3306 ?",
            3306,
        ),
        ("nginx", "nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)", 80),
        ("nginx on Alpine", "nginx: [emerg] bind() to [::]:80 failed (98: Address in use)", 80),
        (
            "nginx",
            "2026/01/02 15:04:05 [emerg] 1#1: bind() to [::]:80 failed (98: Unknown error)\nnginx: [emerg] still could not bind()",
            80,
        ),
        ("node", "Error: listen EADDRINUSE: address already in use :::80\n    at Server.setupListenHandle", 80),
        ("node", "{ code: 'EADDRINUSE', errno: -98, syscall: 'listen', address: '::', port: 3000 }", 3000),
        ("phoenix", "Running Shop.Endpoint with Bandit 1.5.0 at http failed, port 4000 already in use", 4000),
        ("php", "Failed to listen on 0.0.0.0:8000 (reason: Address already in use)", 8000),
        (
            "postgres",
            "LOG:  could not bind IPv4 address \"0.0.0.0\": Address already in use\nHINT:  Is another postmaster already \
             running on port 5432? If not, wait a few seconds and retry.",
            5432,
        ),
        ("puma", "Address already in use - bind(2) for \"0.0.0.0\" port 3000 (Errno::EADDRINUSE)", 3000),
        ("redis", "Could not create server TCP listening socket *:6379: bind: Address already in use", 6379),
        ("spring", "Web server failed to start. Port 8080 was already in use.", 8080),
        ("uvicorn", "[Errno 98] error while attempting to bind on address ('0.0.0.0', 80): address already in use", 80),
        (
            "uvicorn",
            "[Errno 98] error while attempting to bind on address ('::', 80, 0, 0): address already in use",
            80,
        ),
        (
            "uvicorn",
            "[Errno 98] error while attempting to bind on address ('localhost', 80): address already in use",
            80,
        ),
        ("vite", "Error: Port 5173 is already in use", 5173),
        ("webpack", "Port 3000 is in use", 3000),
    ];

    /// What programs write that do not say which port it is.
    const UNCLEAR: &[(&str, &str)] = &[
        ("a number that is none", "bind failed (errno=98): address already in use"),
        ("a number that is none", "bind failed: address already in use, errno:98, code: 98, \"errno\":98"),
        ("django", "Error: That port is already in use."),
        ("java", "java.net.BindException: Address already in use (Bind failed)"),
        ("mongo", "{\"attr\":{\"error\":{\"code\":9001,\"errmsg\":\"Address already in use\"}}}"),
        ("mysql", "[ERROR] [MY-010262] [Server] Can't start server: Bind on TCP/IP port: Address already in use"),
        ("python", "OSError: [Errno 98] Address already in use"),
        ("rust", "Error: Os { code: 98, kind: AddrInUse, message: \"Address already in use\" }"),
        ("rust", "Error: Address already in use (os error 98)"),
    ];

    #[test]
    fn a_port_that_an_ambassador_has_is_told_from_what_programs_write() {
        // Those of numbers that are none of a port are there to be mistaken.
        for (program, words, port) in WORDS {
            let taken = [98, 9001, *port];
            let expected = format!("ambassador `at-{port}` has port {port} (127.0.0.1:{port}) in this pod");
            assert_eq!(told("web", &taken, words), Some(expected.clone()), "{program}: {words}");
            assert_eq!(told("guest", &taken, words), Some(expected), "{program}: {words}");
            assert_eq!(told("other", &taken, words), None, "{program}: {words}");
            assert_eq!(told("web", &[98, 9001], words), None, "{program}: {words}");
        }
        for (program, words) in UNCLEAR {
            let expected = "in this pod ambassador `at-98` has port 98 (127.0.0.1:98), ambassador `at-9001` has port 9001 \
                            (127.0.0.1:9001): is that the port that it wants?";
            assert_eq!(told("web", &[98, 9001], words).as_deref(), Some(expected), "{program}: {words}");
        }
    }

    #[test]
    fn what_is_about_no_taken_port_is_not_told() {
        for words in [
            "listening at 0.0.0.0:80",
            "Server running on port 80",
            "the user name is already in use, see report 80",
            "[ALERT] (1) : Starting frontend x: cannot bind socket (Permission denied) [0.0.0.0:80]",
            "",
        ] {
            assert_eq!(told("web", &[80], words), None, "{words}");
        }
    }
}

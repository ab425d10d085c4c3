//! Who has a port inside a pod that a container of it wanted: told from what the container wrote before it ended.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::ids::ServiceName;
use crate::model::Ambassador;

use super::{Graph, NetworkMode};

/// What programs write of a port that somebody has, in lower case: libc's and Go's words, the name of the error, nginx's number.
const IN_USE: [&str; 4] = ["address already in use", "address in use", "eaddrinuse", "failed (98"];

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
        let lines: Vec<&str> = words.lines().filter(|line| IN_USE.iter().any(|text| line.contains(text))).collect();
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

/// Returns the ports that a line tells of: what is last after a colon, as in `0.0.0.0:80` or `:::80` but not in `15:04:05`, and what
/// follows an address or the word `port`.
fn ports(line: &str) -> Vec<u16> {
    let ends = |one: char| one.is_whitespace() || matches!(one, ',' | '(' | ')' | '{' | '}' | '"' | '\'');
    let words =
        line.split(ends).map(|word| word.trim_end_matches([':', '.', ';', ']'])).filter(|word| !word.is_empty());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mut found, mut before) = (Vec::new(), "");
    for word in words {
        let port = match word.rsplit_once([':', '=']) {
            Some((address, port)) => Some(port).filter(|_| !is_number(address.rsplit(':').next().unwrap_or_default())),
            None => Some(word).filter(|_| before == "port" || before.parse::<IpAddr>().is_ok()),
        };
        found.extend(port.and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0));
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

    #[test]
    fn a_port_that_an_ambassador_has_is_told_from_what_programs_write() {
        let mut graph = graph("{web: {}, guest: {network_mode: 'service:web'}, other: {}}");
        let web = graph.services.get_mut(&ServiceName::new("web").expect("a name")).expect("it is there");
        web.ambassadors =
            vec![ambassador("back", Ipv4Addr::UNSPECIFIED, 80), ambassador("cache", Ipv4Addr::LOCALHOST, 6379)];
        let told = |service: &str, words: &str| graph.taken_port(&service.parse().expect("a name"), words);
        let back = Some("ambassador `back` has port 80 (0.0.0.0:80) in this pod".to_owned());
        let cache = Some("ambassador `cache` has port 6379 (127.0.0.1:6379) in this pod".to_owned());
        for words in [
            "nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)",
            "2026/01/02 15:04:05 [emerg] 1#1: bind() to [::]:80 failed (98: Unknown error)\nnginx: [emerg] still could not bind()",
            "Error: listen EADDRINUSE: address already in use :::80\n    at Server.setupListenHandle",
            "listen tcp :80: bind: address already in use",
            "httpd: bind: Address in use: port 80",
            "error while attempting to bind on address ('0.0.0.0', 80): address already in use",
            "[ALERT] 1/150405 (1) : Starting frontend x: cannot bind socket (Address already in use) [0.0.0.0:80]",
        ] {
            assert_eq!(told("web", words), back, "{words}");
            assert_eq!(told("guest", words), back, "{words}");
            assert_eq!(told("other", words), None, "{words}");
        }
        let redis = "Could not create server TCP listening socket *:6379: bind: Address already in use";
        assert_eq!(told("web", redis), cache);
        let unclear = "OSError: [Errno 98] Address already in use";
        assert_eq!(
            told("web", unclear).as_deref(),
            Some(
                "in this pod ambassador `back` has port 80 (0.0.0.0:80), ambassador `cache` has port 6379 (127.0.0.1:6379): is \
                 that the port that it wants?"
            )
        );
        for words in ["listen tcp :8080: bind: address already in use", "listening at 0.0.0.0:80", ""] {
            assert_eq!(told("web", words), None, "{words}");
        }
    }
}

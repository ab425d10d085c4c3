//! Rules for requests, as words.

use crate::model::{HostMatch, PathMatch, Route, RouteAction, RoutePort};

/// Returns a rule as words say it, separated by blanks:
///
/// | word | what |
/// |---|---|
/// | `host=NAME`, `host=*.NAME` | a host, all hosts below one |
/// | `path=/PREFIX`, `path=/EXACT$` | its path |
/// | `method=GET` | a method |
/// | `h=NAME:VALUE` | a header field |
/// | `weight=3` | its share |
/// | `listen=[IP@]PORT`, `tls=PORT` | where it listens |
///
/// Without any it takes all requests at port 80, and sends them to port 80 of its pods.
///
/// # Panics
/// On other words, and on values that are not valid.
pub fn route(text: &str) -> Route {
    let mut route = Route {
        hosts: vec![],
        path: PathMatch::Prefix("/".to_owned()),
        methods: vec![],
        headers: vec![],
        port: 80,
        weight: None,
        action: RouteAction::Forward { path: None, host: None },
        listen: vec![],
        host_ip: None,
        tls: None,
        timeout: None,
        place: String::new(),
    };
    for word in text.split_whitespace() {
        let (key, value) = word.split_once('=').expect("key=value");
        match key {
            "host" => route.hosts.push(match value.strip_prefix("*.") {
                Some(parent) => HostMatch::Below(parent.to_owned()),
                None => HostMatch::Exact(value.to_owned()),
            }),
            "path" => {
                route.path = match value.strip_suffix('$') {
                    Some(exact) => PathMatch::Exact(exact.to_owned()),
                    None => PathMatch::Prefix(value.to_owned()),
                }
            }
            "method" => route.methods.push(value.to_owned()),
            "h" => {
                let (name, value) = value.split_once(':').expect("name:value");
                route.headers.push((name.to_owned(), value.to_owned()));
            }
            "weight" => route.weight = Some(value.parse().expect("a number")),
            "listen" | "tls" => {
                let (address, port) = value.split_once('@').map_or((None, value), |(ip, port)| (Some(ip), port));
                route.host_ip = address.map(|ip| ip.parse().expect("an address")).or(route.host_ip);
                route.listen.push(RoutePort { port: port.parse().expect("a port"), tls: key == "tls" });
            }
            other => panic!("unknown word {other}"),
        }
    }
    if route.listen.is_empty() {
        route.listen.push(RoutePort { port: 80, tls: false });
    }
    route
}

//! Published and exposed ports.

use std::net::IpAddr;

use crate::graph::{ExposedPort, NetworkMode, Port, PortMode, Protocol};
use crate::model::PortMapping;

use super::{Part, Problem};

impl Part<'_, '_> {
    /// Returns the published ports. Source: compose-spec 05-services.md#ports.
    pub(super) fn ports(&mut self, network: &NetworkMode) -> Vec<Port> {
        let ports = &self.service.ports;
        let ignored = match network {
            _ if ports.is_empty() => return Vec::new(),
            NetworkMode::Service(owner) => {
                self.error("ports", Problem::PortsOfMember(owner.to_string()));
                return Vec::new();
            }
            NetworkMode::Host => "with `network_mode: host` the container's ports are the host's",
            NetworkMode::None => "with `network_mode: none` no port can be reached",
            NetworkMode::Engine(mode) if mode != "bridge" => "the ports of the other container count",
            NetworkMode::Networks(_) | NetworkMode::Engine(_) => "",
        };
        if !ignored.is_empty() {
            let text = format!("nothing is published: {ignored}");
            self.sink.warning(format!("services.{}.ports", self.name), text);
            return Vec::new();
        }
        // orch's load balancer does not reach the engine's own bridge by name: there the engine publishes.
        let by_engine = matches!(network, NetworkMode::Engine(_));
        let all = ports.iter().enumerate();
        all.filter_map(|(index, port)| self.port(&format!("ports[{index}]"), port, by_engine)).collect()
    }

    fn port(&mut self, path: &str, port: &PortMapping, by_engine: bool) -> Option<Port> {
        let PortMapping { name, mode, host_ip, target, published, protocol, app_protocol: _, extensions: _ } = port;
        let before = self.sink.errors.len();
        let protocol = self.protocol(path, protocol.as_deref().unwrap_or("tcp"));
        let mode = match mode.as_deref() {
            None | Some("ingress") if by_engine => PortMode::Host,
            None | Some("ingress") => PortMode::Ingress,
            Some("host") => PortMode::Host,
            Some(text) => {
                self.invalid(&format!("{path}.mode"), "port mode", text, "`ingress` or `host`");
                PortMode::Ingress
            }
        };
        if *target == 0 {
            self.invalid(&format!("{path}.target"), "port", "0", "a number from 1 to 65535");
        }
        if protocol == Some(Protocol::Sctp) && mode == PortMode::Ingress {
            self.error(path, Problem::NotBalanced { protocol: "SCTP", target: *target });
        }
        let host_ip = self.host_ip(path, host_ip.as_deref());
        let published = self.published(path, published.as_deref());
        let port = Port { name: name.clone(), host_ip, published, target: *target, protocol: protocol?, mode };
        (self.sink.errors.len() == before).then_some(port)
    }

    fn protocol(&mut self, path: &str, text: &str) -> Option<Protocol> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            "sctp" => Some(Protocol::Sctp),
            _ => {
                self.invalid(path, "protocol", text, "`tcp`, `udp` or `sctp`");
                None
            }
        }
    }

    /// An address of all zeros means the same as none.
    fn host_ip(&mut self, path: &str, text: Option<&str>) -> Option<IpAddr> {
        let text = text.filter(|text| !text.is_empty())?;
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) if address == IpAddr::from([0, 0, 0, 0]) => None,
            Ok(address) => Some(address),
            Err(_) => {
                self.invalid(&format!("{path}.host_ip"), "address", text, "an IPv4 or IPv6 address");
                None
            }
        }
    }

    /// `8080`, a range `8000-8010` of which one is taken, or `0` for any.
    fn published(&mut self, path: &str, text: Option<&str>) -> Option<(u16, u16)> {
        let text = text.filter(|text| !text.is_empty() && *text != "0")?;
        let range = range(text);
        if range.is_none() {
            self.invalid(&format!("{path}.published"), "port", text, "a number from 0 to 65535 or a range of them");
        }
        range
    }

    /// Returns what the service says it listens on: `expose` and the targets of `ports`.
    pub(super) fn expose(&mut self) -> Vec<ExposedPort> {
        let mut all = Vec::new();
        for (index, text) in self.service.expose.iter().enumerate() {
            let path = format!("expose[{index}]");
            let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let Some(protocol) = self.protocol(&path, protocol) else { continue };
            match range(ports) {
                Some((first, last)) => all.extend((first..=last).map(|port| ExposedPort { port, protocol })),
                None => self.invalid(&path, "port", text, "`80`, `53/udp` or `8000-8010`"),
            }
        }
        for port in &self.service.ports {
            let protocol = match port.protocol.as_deref().unwrap_or("tcp").to_ascii_lowercase().as_str() {
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            all.push(ExposedPort { port: port.target, protocol });
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn invalid(&mut self, path: &str, what: &'static str, text: &str, expected: &'static str) {
        self.error(path, Problem::Invalid { what, text: text.to_owned(), expected });
    }
}

/// Reads `80` or `80-90`, both ends included; no port is 0.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number =
        |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && text.bytes().all(|b| b.is_ascii_digit()));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

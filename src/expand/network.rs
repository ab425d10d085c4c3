//! Networks, and where a service is connected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::graph::{Attachment, Ipv6Pool, Network, NetworkMode, Service};
use crate::ids::{ResourceKey, ServiceName};
use crate::model::{self, IpamConfig, Model, ServiceNetwork};

use super::error::Sink;
use super::{Part, Problem};

impl Part<'_, '_> {
    /// Source: compose-spec 05-services.md#network_mode, #networks.
    pub(super) fn network(&mut self) -> NetworkMode {
        let Some(mode) = self.service.network_mode.as_deref() else {
            return NetworkMode::Networks(self.attachments());
        };
        if !self.service.networks.is_empty() {
            self.error(
                "network_mode",
                Problem::Unsupported {
                    what: "`network_mode` together with `networks`".to_owned(),
                    instead: "leave out one of them",
                },
            );
        }
        match mode.split_once(':') {
            Some(("service", name)) => self.namespace_of(name),
            Some(("container", name)) if !name.is_empty() => NetworkMode::Engine(mode.to_owned()),
            None if mode == "host" => NetworkMode::Host,
            None if mode == "none" => NetworkMode::None,
            None if mode == "bridge" => NetworkMode::Engine(mode.to_owned()),
            _ => {
                let expected = "`host`, `none`, `bridge`, `service:NAME` or `container:NAME`";
                self.error("network_mode", Problem::Invalid { what: "network mode", text: mode.to_owned(), expected });
                NetworkMode::None
            }
        }
    }

    fn namespace_of(&mut self, name: &str) -> NetworkMode {
        match ServiceName::new(name) {
            Ok(owner) if self.input.model.services.contains_key(&owner) => NetworkMode::Service(owner),
            _ => {
                self.error("network_mode", Problem::NoSuchService(name.to_owned()));
                NetworkMode::None
            }
        }
    }

    /// Returns the memberships, the one with the default route first: by `gw_priority`, then `priority`, then those with
    /// a way out, then by name.
    fn attachments(&mut self) -> Vec<Attachment> {
        let default = ResourceKey::new("default").ok().map(|key| (key, None));
        let wanted: BTreeMap<ResourceKey, Option<ServiceNetwork>> = if self.service.networks.is_empty() {
            default.into_iter().collect()
        } else {
            self.service.networks.clone()
        };
        let mut sorted: Vec<_> = wanted.iter().collect();
        sorted.sort_by_key(|(key, membership)| {
            let priority = |get: fn(&ServiceNetwork) -> Option<i64>| membership.as_ref().and_then(get).unwrap_or(0);
            let internal = self.input.model.networks.get(*key).is_some_and(|network| network.internal);
            (-priority(|m| m.gw_priority), -priority(|m| m.priority), internal, (*key).clone())
        });
        let mut attachments: Vec<Attachment> =
            sorted.into_iter().map(|(key, membership)| self.attachment(key, membership.as_ref())).collect();
        if let (Some(mac), Some(first)) = (&self.service.mac_address, attachments.first_mut()) {
            first.mac.get_or_insert(mac.clone());
        }
        attachments
    }

    fn attachment(&mut self, key: &ResourceKey, membership: Option<&ServiceNetwork>) -> Attachment {
        let path = format!("networks.{key}");
        if key.as_str() != "default" && !self.input.model.networks.contains_key(key) {
            self.error(&path, Problem::Undefined { kind: "network", name: key.to_string() });
        }
        let mut attachment = Attachment::new(key.clone());
        let Some(membership) = membership else { return attachment };
        let ServiceNetwork {
            aliases,
            ipv4_address,
            mac_address,
            priority: _,
            gw_priority: _,
            driver_opts,
            interface_name,
            ipv6_address,
            link_local_ips,
            extensions: _,
        } = membership;
        attachment.aliases.clone_from(aliases);
        attachment.mac.clone_from(mac_address);
        attachment.driver_opts.clone_from(driver_opts);
        attachment.interface.clone_from(interface_name);
        attachment.link_local = self.link_local(&path, link_local_ips);
        if let Some(text) = ipv4_address {
            attachment.ipv4 = text.parse().ok();
            if attachment.ipv4.is_none() {
                let problem = Problem::Invalid { what: "address", text: text.clone(), expected: "an IPv4 address" };
                self.error(&format!("{path}.ipv4_address"), problem);
            }
        }
        attachment.ipv6 =
            ipv6_address.as_deref().and_then(|text| self.ipv6(key, &format!("{path}.ipv6_address"), text));
        attachment
    }
}

impl Part<'_, '_> {
    /// Returns a fixed address of IPv6, which must be one of a subnet that the file has for the network: the engine gives none out
    /// of a subnet that it chose.
    fn ipv6(&mut self, key: &ResourceKey, path: &str, text: &str) -> Option<Ipv6Addr> {
        let Ok(address) = text.parse::<Ipv6Addr>() else {
            self.invalid(path, "address", text, "an IPv6 address");
            return None;
        };
        let network = self.input.model.networks.get(key);
        if network.is_some_and(|network| network.external) {
            return Some(address);
        }
        let configs = network.filter(|network| network.enable_ipv6 == Some(true)).map(|network| &network.ipam.config);
        let is_in = |config: &IpamConfig| {
            let subnet = config.subnet.as_ref().and_then(|text| text.parse::<Ipv6Net>().ok());
            let is_gateway = config.gateway.as_ref().is_some_and(|gateway| gateway.parse() == Ok(address));
            subnet.is_some_and(|subnet| subnet.contains(&address)) && !is_gateway
        };
        if !configs.is_some_and(|configs| configs.iter().any(is_in)) {
            let expected = "an address of an IPv6 subnet under `ipam.config` of a network with `enable_ipv6: true`, not its gateway";
            self.invalid(path, "address", text, expected);
        }
        Some(address)
    }

    fn link_local(&mut self, path: &str, addresses: &[String]) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for (index, text) in addresses.iter().enumerate() {
            match text.parse() {
                Ok(address) => found.push(address),
                Err(_) => {
                    self.invalid(&format!("{path}.link_local_ips[{index}]"), "address", text, "an IP address");
                }
            }
        }
        found
    }
}

/// Returns the networks that services are on. `default` need not be declared.
pub(super) fn networks(
    model: &Model,
    services: &BTreeMap<ServiceName, Service>,
    sink: &mut Sink,
) -> BTreeMap<ResourceKey, Network> {
    let attachments = services.values().filter_map(|service| match &service.network {
        NetworkMode::Networks(attachments) => Some(attachments),
        _ => None,
    });
    let used: BTreeSet<&ResourceKey> = attachments.flatten().map(|attachment| &attachment.network).collect();
    let mut networks = BTreeMap::new();
    for key in used {
        let implied = || model::Network { name: format!("{}_{key}", model.name), ..model::Network::default() };
        let network = model.networks.get(key).cloned().unwrap_or_else(implied);
        let compose_hash = model.hashes.networks.get(key).cloned().unwrap_or_default();
        networks.insert(key.clone(), Network { compose_hash, ..expand(key, &network, sink) });
    }
    check_ipv6(&networks, sink);
    networks
}

/// Reports subnets of IPv6 that have addresses in common: of such networks the engine makes one only.
fn check_ipv6(networks: &BTreeMap<ResourceKey, Network>, sink: &mut Sink) {
    let made = networks.iter().filter(|(_, network)| !network.external);
    let pools: Vec<(&ResourceKey, Ipv6Net)> =
        made.flat_map(|(key, network)| network.ipv6_pools.iter().map(move |pool| (key, pool.subnet))).collect();
    for (index, (key, subnet)) in pools.iter().enumerate() {
        let mut before = pools.iter().take(index);
        if let Some((other, there)) = before.find(|(_, other)| other.contains(subnet) || subnet.contains(other)) {
            let problem = Problem::SubnetsOverlap {
                subnet: subnet.to_string(),
                other: there.to_string(),
                network: other.to_string(),
            };
            sink.error(format!("networks.{key}.ipam.config"), problem);
        }
    }
}

fn expand(key: &ResourceKey, network: &model::Network, sink: &mut Sink) -> Network {
    let model::Network {
        name,
        driver,
        driver_opts,
        ipam,
        external,
        internal,
        attachable,
        labels,
        // Refused by `load`, where anything is to be run.
        enable_ipv4: _,
        enable_ipv6,
        extensions: _,
    } = network;
    if let Some(driver) = ipam.driver.as_deref().filter(|driver| *driver != "default") {
        let problem = Problem::Unsupported {
            what: format!("address driver `{driver}`"),
            instead: "orch gives out the addresses itself",
        };
        sink.error(format!("networks.{key}.ipam.driver"), problem);
    }
    let (mut ipv4, mut ipv6_pools) = (None, Vec::new());
    for (index, config) in ipam.config.iter().enumerate() {
        let path = format!("networks.{key}.ipam.config[{index}]");
        let subnet = config.subnet.as_ref().and_then(|text| text.parse().ok());
        if let Some(IpNet::V6(subnet)) = subnet {
            ipv6_pools.push(ipv6_pool(config, subnet, &path, sink));
        } else if ipv4.is_some() {
            let what = "more than one subnet of IPv4".to_owned();
            sink.error(path, Problem::Unsupported { what, instead: "give one, beside any of IPv6" });
        } else {
            ipv4 = Some((path, config.clone()));
        }
    }
    let (path, config) = ipv4.unwrap_or_default();
    let IpamConfig { subnet, gateway, ip_range, aux_addresses, extensions: _ } = config;
    let subnet = parse(subnet, &path, "subnet", sink).map(|subnet: Ipv4Net| subnet.trunc());
    let aux_addresses = reserved(aux_addresses, subnet, &path, sink);
    Network {
        name: name.clone(),
        external: *external,
        internal: *internal,
        driver: driver.clone().filter(|driver| driver != "default"),
        driver_opts: driver_opts.clone(),
        labels: labels.clone(),
        subnet,
        gateway: parse(gateway, &path, "gateway", sink),
        ip_range: parse(ip_range, &path, "ip_range", sink),
        aux_addresses,
        enable_ipv6: *enable_ipv6,
        ipv6_pools,
        ipam_options: ipam.options.clone(),
        attachable: *attachable,
        spec_hash: String::new(),
        compose_hash: String::new(),
    }
}

fn ipv6_pool(config: &IpamConfig, subnet: Ipv6Net, path: &str, sink: &mut Sink) -> Ipv6Pool {
    let IpamConfig { subnet: _, gateway, ip_range, aux_addresses, extensions: _ } = config;
    let subnet = subnet.trunc();
    let mut invalid = |key: &str, what: &'static str, text: &str, expected: &'static str| {
        sink.error(format!("{path}.{key}"), Problem::Invalid { what, text: text.to_owned(), expected });
    };
    let inside = |text: &str| text.parse::<Ipv6Addr>().ok().filter(|address| subnet.contains(address));
    let expected = "an IPv6 address of the `subnet` beside it";
    let mut pool = Ipv6Pool { subnet, gateway: None, ip_range: None, aux_addresses: BTreeMap::new() };
    if let Some(text) = gateway {
        pool.gateway = inside(text);
        if pool.gateway.is_none() {
            invalid("gateway", "gateway", text, expected);
        }
    }
    if let Some(text) = ip_range {
        let range = text.parse::<Ipv6Net>().ok().map(|range| range.trunc());
        pool.ip_range = range.filter(|range| subnet.contains(range));
        if pool.ip_range.is_none() {
            invalid("ip_range", "ip_range", text, "an IPv6 network that is part of the `subnet` beside it");
        }
    }
    for (name, text) in aux_addresses {
        match inside(text) {
            Some(address) => drop(pool.aux_addresses.insert(name.clone(), address)),
            None => invalid(&format!("aux_addresses.{name}"), "reserved address", text, expected),
        }
    }
    pool
}

/// Addresses that others have are of the subnet of the file: they mean nothing in one that orch chooses.
fn reserved(
    addresses: BTreeMap<String, String>,
    subnet: Option<Ipv4Net>,
    path: &str,
    sink: &mut Sink,
) -> BTreeMap<String, Ipv4Addr> {
    let mut reserved = BTreeMap::new();
    for (name, text) in addresses {
        let address: Option<Ipv4Addr> = text.parse().ok();
        if let Some(address) = address.filter(|address| subnet.is_some_and(|subnet| subnet.contains(address))) {
            reserved.insert(name, address);
        } else {
            let expected = "an IPv4 address of the `subnet` beside it";
            let problem = Problem::Invalid { what: "reserved address", text, expected };
            sink.error(format!("{path}.aux_addresses.{name}"), problem);
        }
    }
    reserved
}

fn parse<T: std::str::FromStr>(text: Option<String>, path: &str, what: &'static str, sink: &mut Sink) -> Option<T> {
    let text = text?;
    let value = text.parse().ok();
    if value.is_none() {
        let expected = if what == "gateway" { "an IPv4 address" } else { "an IPv4 network such as 10.1.0.0/24" };
        sink.error(format!("{path}.{what}"), Problem::Invalid { what, text, expected });
    }
    value
}

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use proptest::prelude::*;

use crate::net::fixtures::{graph, key, service_name};

use super::*;

mod routes;

/// The arguments of one allocation, as short text.
#[derive(Default)]
struct Case {
    networks: &'static str,
    services: &'static str,
    previous: Addresses,
    taken: &'static [&'static str],
    elsewhere: Vec<(ProjectName, PublishedPort)>,
    busy: &'static [u16],
    host_index: u32,
}

fn in_use() -> Unavailable {
    Unavailable { cause: PortTrouble::InUse, hosts: Vec::new() }
}

impl Case {
    fn run(&self) -> Result<Addresses, Vec<AddressError>> {
        let taken: Vec<Ipv4Net> = self.taken.iter().map(|net| net.parse().expect("a network")).collect();
        let allocation = Allocation {
            graph: &graph("p", self.networks, self.services),
            previous: &self.previous,
            previous_graph: None,
            taken: &taken,
            published_elsewhere: &self.elsewhere,
            routes_elsewhere: &[],
            pool: &Pool::default(),
            host_index: self.host_index,
        };
        allocate(&allocation, &mut |port| {
            let cause = match port.port {
                22 => PortTrouble::NotPermitted,
                _ if port.host_ip.is_some_and(|ip| !ip.is_loopback()) => PortTrouble::NoSuchAddress,
                number if self.busy.contains(&number) => PortTrouble::InUse,
                _ => return Ok(()),
            };
            Err(Unavailable { cause, hosts: Vec::new() })
        })
    }

    #[track_caller]
    fn good(&self) -> Addresses {
        self.run().unwrap_or_else(|errors| panic!("{}", text(&errors)))
    }

    /// Runs it and compares the networks: `KEY SUBNET GATEWAY containers NET vips NET SERVICE=VIP…`.
    #[track_caller]
    fn gives(&self, expected: &str) {
        let mut found = String::new();
        for (key, n) in &self.good().networks {
            let containers = container_slice(n.subnet, n.vips, n.ip_range, self.host_index).expect("a slice");
            write!(found, "{key} {} {} containers {containers} vips {}", n.subnet, n.gateway, n.vips).expect("text");
            for (service, vip) in &n.services {
                write!(found, " {service}={vip}").expect("text");
            }
            found.push('\n');
        }
        assert_eq!(found.trim_end(), expected.trim());
    }

    /// Runs it and compares the messages.
    #[track_caller]
    fn fails(&self, expected: &str) {
        let errors = self.run().expect_err("it must be refused");
        assert_eq!(text(&errors), expected);
        assert!(errors.iter().all(|error| !error.help().is_empty()));
    }
}

fn text(errors: &[AddressError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn numbers(addresses: &Addresses) -> Vec<(String, u16)> {
    addresses.ports.iter().map(|port| (port.service.to_string(), port.published)).collect()
}

#[test]
fn a_network_gets_a_free_subnet_and_a_virtual_address_for_each_member() {
    Case { networks: "front\nback", services: "web front back\ndb back", ..Case::default() }.gives(
        "back 10.192.0.0/20 10.192.0.1 containers 10.192.0.0/24 vips 10.192.15.0/24 db=10.192.15.0 web=10.192.15.1\n\
         front 10.192.16.0/20 10.192.16.1 containers 10.192.16.0/24 vips 10.192.31.0/24 web=10.192.31.0",
    );
}

#[test]
fn routes_and_other_networks_are_avoided() {
    let taken = &["10.192.0.0/16", "10.193.3.0/24", "10.193.16.0/30"];
    Case { networks: "n", services: "a n", taken, ..Case::default() }
        .gives("n 10.193.32.0/20 10.193.32.1 containers 10.193.32.0/24 vips 10.193.47.0/24 a=10.193.47.0");
    Case { networks: "n", services: "a n", taken: &["10.0.0.0/8"], ..Case::default() }
        .fails("the address pool 10.192.0.0/10 has no free subnet for network `n`");
}

#[test]
fn subnets_of_the_file_are_honoured() {
    Case { networks: "n 172.28.0.0/16", services: "a n", ..Case::default() }
        .gives("n 172.28.0.0/16 172.28.0.1 containers 172.28.0.0/24 vips 172.28.255.0/24 a=172.28.255.0");
    Case { networks: "n 172.28.0.0/24 gateway=172.28.0.254", services: "a n", ..Case::default() }
        .gives("n 172.28.0.0/24 172.28.0.254 containers 172.28.0.0/25 vips 172.28.0.128/26 a=172.28.0.128");
    Case { networks: "n 10.9.0.0/16 range=10.9.255.0/24", services: "a n", ..Case::default() }
        .gives("n 10.9.0.0/16 10.9.0.1 containers 10.9.255.0/24 vips 10.9.254.0/24 a=10.9.254.0");
    Case { networks: "n 10.9.0.0/16 reserved=10.9.255.7", services: "a n", ..Case::default() }
        .gives("n 10.9.0.0/16 10.9.0.1 containers 10.9.0.0/24 vips 10.9.254.0/24 a=10.9.254.0");
    Case { networks: "n 10.9.0.0/29", services: "a n", ..Case::default() }
        .gives("n 10.9.0.0/29 10.9.0.1 containers 10.9.0.0/30 vips 10.9.0.6/31 a=10.9.0.6");
    Case { networks: "n 10.9.0.0/29", services: "a n\nb n", ..Case::default() }
        .gives("n 10.9.0.0/29 10.9.0.1 containers 10.9.0.0/30 vips 10.9.0.4/31 a=10.9.0.4 b=10.9.0.5");
}

#[test]
fn fixed_addresses_push_the_virtual_ones_away() {
    Case { networks: "n 10.9.0.0/24", services: "a n=10.9.0.200", ..Case::default() }
        .gives("n 10.9.0.0/24 10.9.0.1 containers 10.9.0.0/25 vips 10.9.0.128/26 a=10.9.0.128");
    let services = "a n=10.9.0.10\nb n=10.9.0.70\nc n=10.9.0.130\nd n=10.9.0.200";
    Case { networks: "n 10.9.0.0/24", services, ..Case::default() }.gives(
        "n 10.9.0.0/24 10.9.0.1 containers 10.9.0.0/25 vips 10.9.0.224/27 a=10.9.0.224 b=10.9.0.225 c=10.9.0.226 d=10.9.0.227",
    );
}

#[test]
fn wishes_that_cannot_be_met_are_refused_with_the_reason() {
    let fails = |networks, services, message| Case { networks, services, ..Case::default() }.fails(message);
    fails("n 10.9.0.0/30", "a n", "subnet 10.9.0.0/30 of network `n` is too small");
    fails(
        "n 10.9.0.0/24 gateway=10.8.0.1",
        "a n",
        "gateway 10.8.0.1 of network `n` is not a host address of its subnet 10.9.0.0/24",
    );
    fails(
        "n 10.9.0.0/24 range=10.8.0.0/25",
        "a n",
        "ip_range 10.8.0.0/25 of network `n` is not inside its subnet 10.9.0.0/24",
    );
    fails("m 10.9.0.0/24\nn 10.9.0.0/16", "a n", "networks `m` and `n` overlap: 10.9.0.0/24 and 10.9.0.0/16");
    fails(
        "n 10.9.0.0/24",
        "a n=10.8.0.5",
        "address 10.8.0.5 of service `a` is not a host address of 10.9.0.0/24, the subnet of network `n`",
    );
    fails(
        "n 10.9.0.0/24",
        "a n=10.9.0.255",
        "address 10.9.0.255 of service `a` is not a host address of 10.9.0.0/24, the subnet of network `n`",
    );
    fails("n 10.9.0.0/24", "a n=10.9.0.1", "address 10.9.0.1 of service `a` is the gateway of network `n`");
    fails("n", "a n=10.9.0.5", "service `a` asks for address 10.9.0.5, but network `n` has no `subnet`");
    fails(
        "n 10.9.0.0/24",
        "a n=10.9.0.5 +x2",
        "service `a` asks for address 10.9.0.5, which only one container can have, but may have several replicas",
    );
    fails(
        "n 10.9.0.0/24",
        "a n=10.9.0.5\nb n=10.9.0.5",
        "services `a` and `b` both ask for address 10.9.0.5 in network `n`",
    );
    fails(
        "n 10.9.0.0/29",
        "a n\nb n\nc n\nd n",
        "subnet 10.9.0.0/29 of network `n` has no free block for the virtual addresses of 4 services",
    );
    Case { networks: "n 172.17.8.0/24", services: "a n", taken: &["10.0.0.0/8", "172.17.0.0/16"], ..Case::default() }
        .fails("subnet 172.17.8.0/24 of network `n` overlaps 172.17.0.0/16, which the host already has a route or a network for");
    Case { networks: "n 10.9.0.0/16 range=10.9.1.0/24", services: "a n", host_index: 1, ..Case::default() }
        .fails("subnet 10.9.0.0/16 of network `n` has no range of container addresses left for host 2");
}

#[test]
fn all_errors_come_at_once() {
    let services = "a m +publish=80:80\nb n=10.9.0.1 +publish=80:81";
    Case { networks: "m 10.8.0.0/30\nn 10.9.0.0/24", services, ..Case::default() }.fails(
        "subnet 10.8.0.0/30 of network `m` is too small\n\
         address 10.9.0.1 of service `b` is the gateway of network `n`\n\
         service `b` cannot publish port 80/tcp on all addresses: service `a` does",
    );
}

#[test]
fn external_networks_and_foreign_drivers_have_no_virtual_addresses() {
    Case {
        networks: "x external=proxy\nl 192.168.7.0/24 driver=macvlan",
        services: "a x l",
        taken: &["192.168.7.0/24"],
        ..Case::default()
    }
    .gives("l 192.168.7.0/24 192.168.7.1 containers 192.168.7.0/25 vips 192.168.7.192/26");
}

#[test]
fn what_a_project_has_is_kept() {
    let previous = Case { networks: "n", services: "a n\nb n\nc n", ..Case::default() }.good();
    // A route to the running network's own subnet, new services, services that left: nothing moves.
    Case { networks: "m\nn", services: "aa n\nb n m\nc n", previous, taken: &["10.192.0.0/12"], ..Case::default() }.gives(
        "m 10.208.0.0/20 10.208.0.1 containers 10.208.0.0/24 vips 10.208.15.0/24 b=10.208.15.0\n\
         n 10.192.0.0/20 10.192.0.1 containers 10.192.0.0/24 vips 10.192.15.0/24 aa=10.192.15.3 b=10.192.15.1 c=10.192.15.2",
    );
}

#[test]
fn a_released_virtual_address_is_reused_last() {
    let networks = "n 10.9.0.0/28"; // three virtual addresses: .12 .13 .14
    let mut previous = Case { networks, services: "a n\nb n", ..Case::default() }.good();
    for (services, expected) in [
        ("a n", "a=10.9.0.12"),
        ("a n\nc n", "a=10.9.0.12 c=10.9.0.14"),
        ("c n", "c=10.9.0.14"),
        ("c n\nd n", "c=10.9.0.14 d=10.9.0.12"),
        ("c n\nd n\ne n", "c=10.9.0.14 d=10.9.0.12 e=10.9.0.13"),
    ] {
        let case = Case { networks, services, previous, ..Case::default() };
        case.gives(&format!("n 10.9.0.0/28 10.9.0.1 containers 10.9.0.0/29 vips 10.9.0.12/30 {expected}"));
        previous = case.good();
    }
}

#[test]
fn a_fixed_address_does_not_move_virtual_addresses_that_are_in_use() {
    let previous = Case { networks: "n 10.9.0.0/24", services: "a n", ..Case::default() }.good();
    Case { networks: "n 10.9.0.0/24", services: "a n\nb n=10.9.0.200", previous, ..Case::default() }.fails(
        "address 10.9.0.200 of service `b` is in 10.9.0.192/26, where the running project has its virtual addresses",
    );
}

#[test]
fn a_changed_subnet_brings_new_addresses() {
    let previous = Case { networks: "n", services: "a n", ..Case::default() }.good();
    Case { networks: "n 10.9.0.0/24", services: "a n", previous, ..Case::default() }
        .gives("n 10.9.0.0/24 10.9.0.1 containers 10.9.0.0/25 vips 10.9.0.192/26 a=10.9.0.192");
}

#[test]
fn each_host_has_its_own_slice() {
    let slices = |networks, hosts| -> Vec<String> {
        (0..hosts)
            .map(|host_index| {
                let addresses = Case { networks, services: "a n", host_index, ..Case::default() }.good();
                let n = &addresses.networks[&key("n")];
                container_slice(n.subnet, n.vips, n.ip_range, host_index).expect("a slice").to_string()
            })
            .collect()
    };
    assert_eq!(slices("n", 3), ["10.192.0.0/24", "10.192.1.0/24", "10.192.2.0/24"]);
    assert_eq!(slices("n 10.9.0.0/24", 4), ["10.9.0.0/25", "10.9.0.128/27", "10.9.0.160/28", "10.9.0.176/29"]);
    Case { networks: "n", services: "a n", host_index: 15, ..Case::default() }
        .fails("subnet 10.192.0.0/20 of network `n` has no range of container addresses left for host 16");
}

#[test]
fn published_ports_become_one_number_each() {
    let services = "a n +publish=8080:80 +publish=53:53/udp\nb n +publish=8000-8003:80\nc n +publish=8000:1";
    let addresses = Case { networks: "n", services, busy: &[8001], ..Case::default() }.good();
    let expected = [("a", 53), ("a", 8080), ("b", 8002), ("c", 8000)].map(|(name, port)| (name.to_owned(), port));
    assert_eq!(numbers(&addresses), expected);
}

#[test]
fn an_ephemeral_port_is_chosen_the_same_way_each_time_and_kept() {
    let case = Case { networks: "n", services: "a n +publish=:80 +publish=:81", ..Case::default() };
    let first = case.good();
    assert_eq!(first, case.good());
    assert!(first.ports.iter().all(|port| (32768..=60999).contains(&port.published)), "{first:?}");
    let expected = first.ports.clone();
    // The project listens there itself now, so that the host says that no port is free.
    let again = Case { networks: "n", services: "a n +publish=:80 +publish=:81", previous: first, ..Case::default() };
    let graph = graph("p", again.networks, again.services);
    let allocation = Allocation {
        graph: &graph,
        previous: &again.previous,
        previous_graph: None,
        taken: &[],
        published_elsewhere: &[],
        routes_elsewhere: &[],
        pool: &Pool::default(),
        host_index: 0,
    };
    assert_eq!(allocate(&allocation, &mut |_| Err(in_use())).expect("kept").ports, expected);
}

#[test]
fn an_ephemeral_port_moves_on_where_the_host_says_no() {
    let first = Case { networks: "n", services: "a n +publish=:80", ..Case::default() }.good().ports[0].published;
    let busy: &'static [u16] = Box::leak(Box::new([first]));
    let moved = Case { networks: "n", services: "a n +publish=:80", busy, ..Case::default() }.good().ports[0].published;
    assert_eq!(u32::from(moved), 32768 + (u32::from(first) - 32768 + 1) % 28232);
}

#[test]
fn port_clashes_name_both_sides() {
    let fails = |services, message| Case { networks: "n", services, busy: &[443], ..Case::default() }.fails(message);
    fails(
        "a n +publish=80:80\nb n +publish=80:80",
        "service `b` cannot publish port 80/tcp on all addresses: service `a` does",
    );
    fails(
        "a n +publish=80:80\nb n +publish=127.0.0.1@80:80",
        "service `b` cannot publish port 80/tcp on 127.0.0.1: service `a` does",
    );
    fails(
        "a n +host=80:80\nb n +publish=80:80",
        "service `b` cannot publish port 80/tcp on all addresses: service `a` does",
    );
    fails("a n +publish=443:80", "service `a` cannot publish port 443/tcp on all addresses: it is in use on the host");
    fails(
        "a n +publish=443-443:80\nb n +publish=9:9/sctp",
        "service `a` cannot publish port 443/tcp on all addresses: it is in use on the host\nservice `b` publishes port 9 with protocol sctp, which the load balancer cannot",
    );
    let port =
        PublishedPort { service: service_name("w"), host_ip: None, published: 80, target: 1, protocol: Protocol::Tcp };
    let elsewhere = vec![(ProjectName::new("shop").expect("a name"), port)];
    Case { networks: "n", services: "a n +publish=80:80", elsewhere, ..Case::default() }
        .fails("service `a` cannot publish port 80/tcp on all addresses: service `w` of project `shop` does");
    Case { networks: "n", services: "a n +publish=81-82:80", busy: &[81, 82], ..Case::default() }
        .fails("service `a` cannot publish its port 80: no port from 81 to 82 is free on the host");
}

/// What the kernel says is told apart: somebody else's port is another matter than an address that is not there.
#[test]
fn why_nobody_can_listen_is_said_with_what_to_do() {
    let fails = |services: &'static str, words: &str, help: &str| {
        let errors = Case { networks: "n", services, ..Case::default() }.run().expect_err(words);
        assert_eq!((text(&errors).as_str(), errors[0].help().contains(help)), (words, true), "{}", errors[0].help());
    };
    let address = "there is no such address on the host";
    fails(
        "a n +publish=10.9.9.9@80:80",
        &format!("service `a` cannot publish port 80/tcp on 10.9.9.9: {address}"),
        "ip -brief address",
    );
    // No other number of a range would help.
    fails(
        "a n +publish=10.9.9.9@8000-8100:80",
        &format!("service `a` cannot publish port 8000/tcp on 10.9.9.9: {address}"),
        "ip -brief address",
    );
    fails(
        "a n +publish=22:80",
        "service `a` cannot publish port 22/tcp on all addresses: orch is not permitted to on the host",
        "rootless",
    );
}

#[test]
fn errors_are_explained_with_what_to_do() {
    let case = Case { networks: "n", services: "a n +publish=127.0.0.1@443:80", busy: &[443], ..Case::default() };
    assert_eq!(
        explain(&case.run().expect_err("it is in use"), &BTreeMap::new()),
        "service `a` cannot publish port 443/tcp on 127.0.0.1: it is in use on the host\n  \
         = help: stop what listens there (`ss -ltnup` shows it), or publish another port"
    );
}

#[test]
fn different_host_addresses_and_protocols_do_not_clash() {
    let services = "a n +publish=127.0.0.1@80:80\nb n +publish=127.0.0.2@80:80\nc n +publish=80:80/udp\nd +mode=host +publish=80:80";
    assert_eq!(Case { networks: "n", services, ..Case::default() }.good().ports.len(), 3);
}

/// A random project: subnets of any size, members, fixed addresses.
fn project() -> impl Strategy<Value = (Vec<Option<u8>>, Vec<BTreeSet<usize>>)> {
    let networks = prop::collection::vec(prop::option::of(16_u8..=29), 1..5);
    let services = prop::collection::vec(prop::collection::btree_set(0_usize..5, 0..4), 0..12);
    (networks, services)
}

fn build(networks: &[Option<u8>], services: &[BTreeSet<usize>]) -> Graph {
    let mut network_text = String::new();
    for (i, prefix) in networks.iter().enumerate() {
        let subnet = prefix.map_or(String::new(), |prefix| format!("10.{i}.0.0/{prefix}"));
        writeln!(network_text, "n{i} {subnet}").expect("text");
    }
    let mut service_text = String::new();
    for (i, member) in services.iter().enumerate() {
        let list: Vec<String> = member.iter().filter(|n| **n < networks.len()).map(|n| format!("n{n}")).collect();
        writeln!(service_text, "s{i} {} +publish=:80", list.join(" ")).expect("text");
    }
    graph("p", &network_text, &service_text)
}

fn run(graph: &Graph, previous: &Addresses, host_index: u32) -> Result<Addresses, Vec<AddressError>> {
    let pool = Pool::default();
    let allocation = Allocation {
        graph,
        previous,
        previous_graph: None,
        taken: &[],
        published_elsewhere: &[],
        routes_elsewhere: &[],
        pool: &pool,
        host_index,
    };
    allocate(&allocation, &mut |_| Ok(()))
}

proptest! {
    #[test]
    fn slices_are_disjoint_and_virtual_addresses_unique((networks, services) in project()) {
        let graph = build(&networks, &services);
        let Ok(addresses) = run(&graph, &Addresses::default(), 0) else { return Ok(()) };
        let all: Vec<_> = addresses.networks.values().collect();
        for (i, a) in all.iter().enumerate() {
            prop_assert!(all[i + 1..].iter().all(|b| !overlap(a.subnet, b.subnet)));
            let mut slices = vec![a.vips];
            for host in 0..20 {
                slices.extend(container_slice(a.subnet, a.vips, None, host));
            }
            prop_assert!(slices.len() > 1);
            for (j, slice) in slices.iter().enumerate() {
                prop_assert!(a.subnet.contains(slice));
                prop_assert!(slices[j + 1..].iter().all(|other| !overlap(*slice, *other)), "{:?}", slices);
            }
            let vips: BTreeSet<_> = a.services.values().collect();
            prop_assert_eq!(vips.len(), a.services.len());
            for vip in vips {
                prop_assert!(a.vips.contains(vip) && *vip != a.gateway && *vip != a.subnet.broadcast());
            }
        }
        let ports: BTreeSet<_> = addresses.ports.iter().map(|port| port.published).collect();
        prop_assert_eq!(ports.len(), graph.services.len());
    }

    #[test]
    fn members_keep_their_addresses_through_any_history(
        (networks, services) in project(),
        history in prop::collection::vec(prop::collection::btree_set(0_usize..12, 0..12), 1..6),
    ) {
        let full = build(&networks, &services);
        let mut previous = Addresses::default();
        for present in history {
            let mut graph = full.clone();
            graph.services.retain(|name, _| present.iter().any(|i| name.as_str() == format!("s{i}")));
            let Ok(next) = run(&graph, &previous, 0) else { continue };
            prop_assert_eq!(&run(&graph, &next, 0).expect("nothing changed"), &next, "a second time gives the same");
            for (key, now) in &next.networks {
                let Some(before) = previous.networks.get(key) else { continue };
                let kept: BTreeMap<_, _> = before.services.iter().filter(|(name, _)| now.services.contains_key(*name)).collect();
                prop_assert!(kept.iter().all(|(name, vip)| now.services[*name] == **vip));
                prop_assert_eq!((before.subnet, before.ip_range, before.vips), (now.subnet, now.ip_range, now.vips));
            }
            previous = next;
        }
    }
}

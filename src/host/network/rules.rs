//! The packet-filter rules as text, and the script that turns what is there into what shall be. Pure.
//!
//! Rules are compared as `iptables-save` prints them. Versions differ in how they print the same rule, so what a host
//! printed right after we wrote is remembered ([`Printed`]): at worst one agent writes its rules once more than needed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{BridgeSpec, HostNetworkSpec};
use crate::graph::Protocol;

/// A chain of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chain {
    /// The table that it is in.
    pub(super) table: &'static str,
    /// Its name.
    pub(super) name: &'static str,
    /// The built-in chain whose first rule jumps to it.
    pub(super) parent: &'static str,
}

/// Redirects. First, because with `userland-proxy: false` Docker's own rules might take traffic to virtual addresses.
pub(super) const PRE: Chain = Chain { table: "nat", name: "ORCH-PRE", parent: "PREROUTING" };
/// What a firewall that drops by default must let through.
pub(super) const INPUT: Chain = Chain { table: "filter", name: "ORCH-INPUT", parent: "INPUT" };

/// Keeps networks apart in IPv6. First, so that nothing that an engine or a user lets through goes by it.
pub(super) const FORWARD: Chain = Chain { table: "filter", name: "ORCH-FORWARD", parent: "FORWARD" };

/// Rules by chain, without their `-A CHAIN `. A chain without rules shall not exist.
pub(super) type Rules = BTreeMap<Chain, Vec<String>>;

/// How this host prints the rules that we wrote last: what we wrote, and what it made of it.
pub(super) type Printed = BTreeMap<Chain, (Vec<String>, Vec<String>)>;

/// The version of the internet protocol that a set of rules is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Returns the rules that a host shall have. In IPv6, in which orch balances and redirects nothing, there are but those for
/// published ports and those that keep networks apart.
pub(super) fn wanted(spec: &HostNetworkSpec, family: Family) -> Rules {
    let HostNetworkSpec { bridges, closed, published } = spec;
    let bridges: BTreeSet<&BridgeSpec> = if family == Family::V4 { bridges.iter().collect() } else { BTreeSet::new() };
    let (mut pre, mut input) = (Vec::new(), Vec::new());
    for bridge in bridges {
        let BridgeSpec { bridge, on_demand: _, gateway, subnet, vips, addresses: _, lb_port, udp, dns_port } = bridge;
        pre.push(format!("-d {vips} -i {bridge} -p tcp -j REDIRECT --to-ports {lb_port}"));
        // By name alone a connection that was not redirected would match; by state only redirected ones do.
        let open = |protocol: &str, port: &u16| {
            let matches = format!("-p {protocol} -m {protocol} --dport {port} -m conntrack --ctstate DNAT");
            format!("-i {bridge} {matches} -j ACCEPT")
        };
        input.push(open("tcp", lb_port));
        for protocol in ["udp", "tcp"] {
            let matches = format!("-p {protocol} -m {protocol} --dport 53");
            pre.push(format!("-d {gateway}/32 -i {bridge} {matches} -j REDIRECT --to-ports {dns_port}"));
            input.push(open(protocol, dns_port));
        }
        // Containers of other hosts: what is the bridge's own address but for the gateway, never a slice of the network.
        // A container here may have a fixed address out of any slice, and with `bridge-nf-call-iptables` connections
        // between containers of one bridge come by here too; those stay direct.
        pre.push(format!("-d {gateway}/32 -i {bridge} -p tcp -j RETURN"));
        pre.push(format!(
            "-d {subnet} -i {bridge} -p tcp -m addrtype --dst-type LOCAL -j REDIRECT --to-ports {lb_port}"
        ));
        // Datagrams: only what services declare, so that elsewhere nobody listens as ever. The address is left as it is, by
        // which the listener knows who is meant; another port, because the host itself may have this one on all addresses.
        if !udp.is_empty() {
            pre.push(format!("-d {gateway}/32 -i {bridge} -p udp -j RETURN"));
        }
        for (declared, port) in udp {
            let matches = format!("-p udp -m udp --dport {declared} -m addrtype --dst-type LOCAL");
            pre.push(format!("-d {subnet} -i {bridge} {matches} -j DNAT --to-destination :{port}"));
            input.push(open("udp", port));
        }
        let echo = "-p icmp -m icmp --icmp-type 8";
        input.push(format!("-d {gateway}/32 -i {bridge} {echo} -j RETURN"));
        input.push(format!("-d {subnet} -i {bridge} {echo} -j ACCEPT"));
    }
    for open in published.iter().collect::<BTreeSet<_>>() {
        let to = match (open.host_ip, family) {
            (None, _) => String::new(),
            (Some(IpAddr::V4(ip)), Family::V4) => format!("-d {ip}/32 "),
            (Some(IpAddr::V6(ip)), Family::V6) => format!("-d {ip}/128 "),
            _ => continue,
        };
        let protocol = match open.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        input.push(format!("{to}-p {protocol} -m {protocol} --dport {} -j ACCEPT", open.port));
    }
    let closed = if family == Family::V6 { closed.as_slice() } else { &[] };
    let forward = closed.iter().map(|bridge| {
        // What a container asked for, and ports that the engine itself publishes.
        let states = "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT";
        format!("! -i {bridge} -o {bridge} {states} -j DROP")
    });
    Rules::from([(PRE, pre), (INPUT, input), (FORWARD, forward.collect())])
}

/// What `iptables-save` says of one of our chains.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// Its rules; `None`: it does not exist.
    pub(super) rules: Option<Vec<String>>,
    /// Rules anywhere in the table that jump to it, as they were added.
    jumps: Vec<String>,
    /// Whether the first rule of its parent is the plain jump to it.
    first: bool,
}

/// Finds a chain in the output of `iptables-save`.
pub(super) fn observe(chain: Chain, save: &str) -> Observed {
    let mut observed = Observed::default();
    let lines = save.lines().skip_while(|line| line.strip_prefix('*') != Some(chain.table));
    let mut parent_seen = false;
    for line in lines.take_while(|line| *line != "COMMIT") {
        if line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) == Some(chain.name) {
            observed.rules.get_or_insert_default();
        }
        let Some((place, rule)) = line.strip_prefix("-A ").and_then(|line| line.split_once(' ')) else { continue };
        if place == chain.name {
            observed.rules.get_or_insert_default().push(rule.to_owned());
            continue;
        }
        let jumps = rule.split(' ').skip_while(|word| *word != "-j" && *word != "-g").nth(1) == Some(chain.name);
        if place == chain.parent && !parent_seen {
            parent_seen = true;
            observed.first = rule == format!("-j {}", chain.name);
        }
        if jumps {
            observed.jumps.push(format!("{place} {rule}"));
        }
    }
    observed
}

/// A script for `iptables-restore --noflush`, and what it mends, for the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mend {
    pub(super) script: String,
    pub(super) mended: Vec<String>,
}

/// Compares; returns an empty script when there is nothing to do.
pub(super) fn mend(wanted: &Rules, save: &str, printed: &Printed) -> Mend {
    let mut lines = Vec::new();
    let mut mended = Vec::new();
    for (chain, rules) in wanted {
        let Some((changes, what)) = mend_chain(*chain, rules, &observe(*chain, save), printed.get(chain)) else {
            continue;
        };
        lines.push(format!("*{}", chain.table));
        lines.extend(changes);
        lines.push("COMMIT".to_owned());
        mended.push(what);
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    Mend { script: lines.join("\n"), mended }
}

fn mend_chain(
    chain: Chain,
    wanted: &[String],
    observed: &Observed,
    printed: Option<&(Vec<String>, Vec<String>)>,
) -> Option<(Vec<String>, String)> {
    let Chain { table, name, parent } = chain;
    let Observed { rules, jumps, first } = observed;
    let unjump = jumps.iter().map(|jump| format!("-D {jump}"));
    // In a restore without flush, naming a chain makes it, or empties it.
    let fresh = format!(":{name} - [0:0]");
    if wanted.is_empty() {
        if rules.is_none() && jumps.is_empty() {
            return None;
        }
        let lines = std::iter::once(fresh).chain(unjump).chain([format!("-X {name}")]).collect();
        return Some((lines, format!("removed chain {name} of table {table}")));
    }
    let expected = match printed {
        Some((written, shown)) if written == wanted => shown,
        _ => wanted,
    };
    let same = rules.as_deref() == Some(expected);
    let jumped = *first && jumps.len() == 1;
    let (mut lines, mut what) = (Vec::new(), Vec::new());
    if !same {
        lines.push(fresh);
        lines.extend(wanted.iter().map(|rule| format!("-A {name} {rule}")));
        let had = rules.as_ref().map_or_else(|| "was not there".to_owned(), |rules| format!("had {}", rules.len()));
        what.push(format!("wrote the {} rules of chain {name} ({had})", wanted.len()));
    }
    if !jumped {
        lines.extend(unjump);
        lines.push(format!("-I {parent} 1 -j {name}"));
        what.push(format!("put the jump to {name} first in {parent} of table {table}"));
    }
    (!lines.is_empty()).then(|| (lines, what.join(", ")))
}

/// Learns how the host prints what was just written. A chain that somebody else changed meanwhile teaches nothing.
pub(super) fn learn(wanted: &Rules, save: &str, printed: &mut Printed) {
    for (chain, rules) in wanted {
        if let Some(shown) = observe(*chain, save).rules
            && shown.len() == rules.len()
        {
            printed.insert(*chain, (rules.clone(), shown));
        }
    }
}

/// Reads back the bridges that the redirects are for, without what is not in rules: addresses, and whether they stay.
pub(super) fn bridges(save: &str) -> Vec<BridgeSpec> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in observe(PRE, save).rules.unwrap_or_default() {
        if let Some(bridge) = value(&rule, "-i") {
            found.entry(bridge.to_owned()).or_default().push(rule);
        }
    }
    found.into_iter().filter_map(|(bridge, rules)| read_bridge(bridge, &rules)).collect()
}

/// Understands what [`wanted`] wrote; somebody else's idea of our rules gives nothing.
fn read_bridge(bridge: String, rules: &[String]) -> Option<BridgeSpec> {
    let redirects = || rules.iter().filter(|rule| value(rule, "-j") == Some("REDIRECT"));
    let dns = redirects().find(|rule| value(rule, "--dport").is_some())?;
    let elsewhere = redirects().find(|rule| value(rule, "--dst-type").is_some())?;
    let lb = redirects().find(|rule| value(rule, "--dport").or(value(rule, "--dst-type")).is_none())?;
    let udp = rules.iter().filter_map(|rule| {
        let port = value(rule, "--to-destination")?.strip_prefix(':')?;
        Some((value(rule, "--dport")?.parse().ok()?, port.parse().ok()?))
    });
    Some(BridgeSpec {
        bridge,
        on_demand: false,
        gateway: value(dns, "-d")?.split('/').next()?.parse().ok()?,
        subnet: value(elsewhere, "-d")?.parse().ok()?,
        vips: value(lb, "-d")?.parse().ok()?,
        addresses: Vec::new(),
        lb_port: value(lb, "--to-ports")?.parse().ok()?,
        udp: udp.collect(),
        dns_port: value(dns, "--to-ports")?.parse().ok()?,
    })
}

/// Returns what follows an option in a rule.
fn value<'a>(rule: &'a str, option: &str) -> Option<&'a str> {
    rule.split(' ').skip_while(|word| *word != option).nth(1)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::OpenPort;
    use super::*;

    fn spec() -> HostNetworkSpec {
        let bridge = BridgeSpec {
            bridge: "br-a".to_owned(),
            on_demand: false,
            gateway: Ipv4Addr::new(10, 192, 0, 1),
            subnet: "10.192.0.0/20".parse().expect("a net"),
            vips: "10.192.15.0/24".parse().expect("a net"),
            addresses: vec![],
            lb_port: 4000,
            udp: BTreeMap::from([(53, 4053), (5000, 4054)]),
            dns_port: 5353,
        };
        let open = |host_ip: Option<&str>, port, protocol| OpenPort {
            host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
            port,
            protocol,
        };
        let published = vec![
            open(None, 8080, Protocol::Tcp),
            open(Some("127.0.0.1"), 53, Protocol::Udp),
            open(Some("::1"), 8081, Protocol::Tcp),
        ];
        HostNetworkSpec { bridges: vec![bridge], closed: vec!["br-a".to_owned()], published }
    }

    #[test]
    fn the_rules_of_a_host() {
        let text = |family| {
            let rules = wanted(&spec(), family);
            let lines =
                rules.iter().flat_map(|(chain, rules)| rules.iter().map(|rule| format!("{} {rule}", chain.name)));
            lines.collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(text(Family::V4), @r"
        ORCH-INPUT -i br-a -p tcp -m tcp --dport 4000 -m conntrack --ctstate DNAT -j ACCEPT
        ORCH-INPUT -i br-a -p udp -m udp --dport 5353 -m conntrack --ctstate DNAT -j ACCEPT
        ORCH-INPUT -i br-a -p tcp -m tcp --dport 5353 -m conntrack --ctstate DNAT -j ACCEPT
        ORCH-INPUT -i br-a -p udp -m udp --dport 4053 -m conntrack --ctstate DNAT -j ACCEPT
        ORCH-INPUT -i br-a -p udp -m udp --dport 4054 -m conntrack --ctstate DNAT -j ACCEPT
        ORCH-INPUT -d 10.192.0.1/32 -i br-a -p icmp -m icmp --icmp-type 8 -j RETURN
        ORCH-INPUT -d 10.192.0.0/20 -i br-a -p icmp -m icmp --icmp-type 8 -j ACCEPT
        ORCH-INPUT -p tcp -m tcp --dport 8080 -j ACCEPT
        ORCH-INPUT -d 127.0.0.1/32 -p udp -m udp --dport 53 -j ACCEPT
        ORCH-PRE -d 10.192.15.0/24 -i br-a -p tcp -j REDIRECT --to-ports 4000
        ORCH-PRE -d 10.192.0.1/32 -i br-a -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353
        ORCH-PRE -d 10.192.0.1/32 -i br-a -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 5353
        ORCH-PRE -d 10.192.0.1/32 -i br-a -p tcp -j RETURN
        ORCH-PRE -d 10.192.0.0/20 -i br-a -p tcp -m addrtype --dst-type LOCAL -j REDIRECT --to-ports 4000
        ORCH-PRE -d 10.192.0.1/32 -i br-a -p udp -j RETURN
        ORCH-PRE -d 10.192.0.0/20 -i br-a -p udp -m udp --dport 53 -m addrtype --dst-type LOCAL -j DNAT --to-destination :4053
        ORCH-PRE -d 10.192.0.0/20 -i br-a -p udp -m udp --dport 5000 -m addrtype --dst-type LOCAL -j DNAT --to-destination :4054
        ");
        insta::assert_snapshot!(text(Family::V6), @r"
        ORCH-FORWARD ! -i br-a -o br-a -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
        ORCH-INPUT -p tcp -m tcp --dport 8080 -j ACCEPT
        ORCH-INPUT -d ::1/128 -p tcp -m tcp --dport 8081 -j ACCEPT
        ");
    }

    /// A host with Docker's rules and ours, written out by `iptables-save`; `edit` breaks something.
    fn save(edit: impl Fn(&str) -> String) -> String {
        let ours = wanted(&spec(), Family::V4);
        let rules = |chain: Chain| {
            let rules = ours[&chain].iter().map(|rule| format!("-A {} {rule}\n", chain.name));
            rules.collect::<Vec<_>>().concat()
        };
        edit(&format!(
            "# Generated\n*filter\n:INPUT DROP [1:2]\n:ORCH-INPUT - [0:0]\n-A INPUT -j ORCH-INPUT\n-A INPUT -i lo -j ACCEPT\n\
             {}COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n:ORCH-PRE - [0:0]\n-A PREROUTING -j ORCH-PRE\n\
             -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A DOCKER -i docker0 -j RETURN\n{}COMMIT\n",
            rules(INPUT),
            rules(PRE)
        ))
    }

    #[track_caller]
    fn check(edit: impl Fn(&str) -> String, mended: &[&str], script: &str) {
        let save = save(edit);
        let mend = mend(&wanted(&spec(), Family::V4), &save, &Printed::new());
        assert_eq!(mend.mended, mended);
        assert!(mend.script.contains(script), "{} lacks {script}", mend.script);
        assert_eq!(mend.script.is_empty(), mended.is_empty());
    }

    #[test]
    fn what_is_as_it_shall_be_is_left_alone() {
        check(str::to_owned, &[], "");
    }

    #[test]
    fn drift_is_mended() {
        let jump = "put the jump to ORCH-PRE first in PREROUTING of table nat";
        check(|s| s.replace("-A PREROUTING -j ORCH-PRE\n", ""), &[jump], "*nat\n-I PREROUTING 1 -j ORCH-PRE\nCOMMIT\n");
        let later = |s: &str| {
            let without = s.replace("-A PREROUTING -j ORCH-PRE\n", "");
            without.replace("-j DOCKER\n", "-j DOCKER\n-A PREROUTING -j ORCH-PRE\n")
        };
        check(later, &[jump], "*nat\n-D PREROUTING -j ORCH-PRE\n-I PREROUTING 1 -j ORCH-PRE\nCOMMIT\n");
        let twice = |s: &str| s.replace("-A DOCKER -i", "-A PREROUTING -i x -g ORCH-PRE\n-A DOCKER -i");
        check(twice, &[jump], "*nat\n-D PREROUTING -j ORCH-PRE\n-D PREROUTING -i x -g ORCH-PRE\n-I");
        check(
            |s| s.replace("-A ORCH-PRE -d 10.192.15.0/24", "-A ORCH-PRE -d 10.192.14.0/24"),
            &["wrote the 8 rules of chain ORCH-PRE (had 8)"],
            "*nat\n:ORCH-PRE - [0:0]\n-A ORCH-PRE -d 10.192.15.0/24",
        );
        let flushed = |s: &str| s.lines().filter(|l| !l.contains("ORCH-INPUT")).collect::<Vec<_>>().join("\n");
        check(
            flushed,
            &["wrote the 9 rules of chain ORCH-INPUT (was not there), put the jump to ORCH-INPUT first in INPUT of \
               table filter"],
            "*filter\n:ORCH-INPUT - [0:0]\n",
        );
    }

    #[test]
    fn what_is_not_wanted_any_more_is_removed() {
        let nothing = wanted(&HostNetworkSpec::default(), Family::V4);
        let mended = mend(&nothing, &save(str::to_owned), &Printed::new());
        insta::assert_snapshot!(mended.script, @r"
        *filter
        :ORCH-INPUT - [0:0]
        -D INPUT -j ORCH-INPUT
        -X ORCH-INPUT
        COMMIT
        *nat
        :ORCH-PRE - [0:0]
        -D PREROUTING -j ORCH-PRE
        -X ORCH-PRE
        COMMIT
        ");
        assert_eq!(mend(&nothing, "*nat\nCOMMIT\n", &Printed::new()), Mend::default());
    }

    #[test]
    fn another_spelling_of_our_rules_is_learnt() {
        let other = save(|s| s.replace(" -m tcp --dport 53 ", " --dport 53 "));
        let wanted = wanted(&spec(), Family::V4);
        let mut printed = Printed::new();
        assert_ne!(mend(&wanted, &other, &printed), Mend::default());
        learn(&wanted, &other, &mut printed);
        assert_eq!(mend(&wanted, &other, &printed), Mend::default());
        // What was written for another specification teaches nothing about this one.
        let mut less = spec();
        less.published.clear();
        assert_ne!(mend(&super::wanted(&less, Family::V4), &other, &printed), Mend::default());
        // Nor does a chain that was emptied before it was looked at.
        let mut printed = Printed::new();
        learn(&wanted, &save(|s| s.replace("-A ORCH-PRE", "-A OTHER")), &mut printed);
        assert!(!printed.contains_key(&PRE));
    }

    #[test]
    fn bridges_are_read_back() {
        assert_eq!(bridges(&save(str::to_owned)), spec().bridges);
        assert!(bridges("").is_empty());
        assert!(bridges("*nat\n-A ORCH-PRE -i br-a -j DROP\nCOMMIT\n").is_empty());
    }
}

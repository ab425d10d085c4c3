//! Against the kernel and the machine's `iptables`, in namespaces of the test's own. Needs root, and says so.

use std::net::Ipv4Addr;

use futures_util::StreamExt as _;

use super::super::{BridgeSpec, OpenPort};
use super::*;
use crate::graph::Protocol;
use crate::host::datagrams;
use crate::host::namespace::in_new_host;

async fn run(command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    HostTools::here().run(words[0], &words[1..], "").await.expect(command)
}

/// The rules of a host as text that can be compared: without counters and times.
async fn rules() -> String {
    let mut all = String::new();
    for program in ["iptables-save", "ip6tables-save"] {
        for line in run(program).await.lines().filter(|line| !line.starts_with('#')) {
            all.push_str(line.split(" [").next().expect("one part at least"));
            all.push('\n');
        }
    }
    all
}

async fn addresses() -> Vec<String> {
    let lines = run("ip -4 -o addr show").await;
    lines.lines().map(|line| line.split_whitespace().skip(1).take(3).collect::<Vec<_>>().join(" ")).collect()
}

/// A bridge of a network whose virtual addresses are the upper half.
fn bridge(name: &str, third: u8, addresses: &[u8]) -> BridgeSpec {
    BridgeSpec {
        bridge: name.to_owned(),
        on_demand: false,
        gateway: Ipv4Addr::new(10, 192, third, 1),
        subnet: Ipv4Net::new(Ipv4Addr::new(10, 192, third, 0), 24).expect("a net"),
        vips: Ipv4Net::new(Ipv4Addr::new(10, 192, third, 128), 25).expect("a net"),
        addresses: addresses.iter().map(|last| Ipv4Addr::new(10, 192, third, *last)).collect(),
        lb_port: 4000 + u16::from(third),
        udp: BTreeMap::new(),
        dns_port: 5000 + u16::from(third),
    }
}

fn spec() -> HostNetworkSpec {
    let open = |host_ip: Option<&str>, port| OpenPort {
        host_ip: host_ip.map(|ip| ip.parse().expect("ip")),
        port,
        protocol: Protocol::Tcp,
    };
    let declares = BridgeSpec { udp: BTreeMap::from([(53, 4053)]), ..bridge("br-a", 1, &[129, 130]) };
    HostNetworkSpec {
        bridges: vec![bridge("br-b", 2, &[129]), declares],
        closed: vec!["br-a".to_owned(), "br-b".to_owned()],
        published: vec![open(None, 8080), open(Some("127.0.0.1"), 8081), open(Some("2001:db8::1"), 8082)],
    }
}

/// A host as Docker and an administrator leave it: two bridges, rules of others, a policy that drops.
async fn host() -> LinuxHostNetwork {
    for (name, third) in [("br-a", 1), ("br-b", 2)] {
        run(&format!("ip link add {name} type bridge")).await;
        run(&format!("ip addr add 10.192.{third}.1/24 dev {name}")).await;
        run(&format!("ip link set {name} up")).await;
    }
    for rule in [
        "-t nat -N DOCKER",
        "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-t nat -A DOCKER -i docker0 -j RETURN",
        "-P INPUT DROP",
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -p tcp -m tcp --dport 22 -m comment --comment ssh -j ACCEPT",
    ] {
        run(&format!("iptables {rule}")).await;
    }
    run("ip6tables -A INPUT -i lo -j ACCEPT").await;
    LinuxHostNetwork::here()
}

async fn ensure(network: &LinuxHostNetwork, spec: &HostNetworkSpec) -> Vec<String> {
    network.ensure(spec).await.expect("the host agrees")
}

#[test]
fn set_once_and_then_left_alone() {
    in_new_host(async || {
        let network = host().await;
        assert!(!ensure(&network, &spec()).await.is_empty());
        let set = rules().await;
        assert_eq!(ensure(&network, &spec()).await, [""; 0], "the same agent");
        assert_eq!(ensure(&LinuxHostNetwork::here(), &spec()).await, [""; 0], "the next agent");
        assert_eq!(rules().await, set);
        insta::assert_snapshot!(set);
        insta::assert_snapshot!(addresses().await.join("\n"), @r"
        lo inet 127.0.0.1/8
        br-a inet 10.192.1.1/24
        br-a inet 10.192.1.129/32
        br-a inet 10.192.1.130/32
        br-b inet 10.192.2.1/24
        br-b inet 10.192.2.129/32
        ");
        let ports = LinuxHostNetwork::here().ports().await.expect("rules");
        assert_eq!(ports["br-a"], ListenerPorts { lb: 4001, udp: BTreeMap::from([(53, 4053)]), dns: 5001 });
        assert_eq!(ports["br-b"], ListenerPorts { lb: 4002, udp: BTreeMap::new(), dns: 5002 });
    });
}

#[test]
fn drift_is_mended_and_foreign_rules_stay() {
    in_new_host(async || {
        let network = host().await;
        ensure(&network, &spec()).await;
        let (set, held) = (rules().await, addresses().await);
        for drift in [
            "iptables -t nat -F ORCH-PRE",
            "iptables -t nat -D ORCH-PRE 2",
            "iptables -t nat -A ORCH-PRE -p tcp -j REDIRECT --to-ports 1",
            "iptables -t nat -I ORCH-PRE 1 -j RETURN",
            "iptables -R ORCH-INPUT 1 -p tcp -j DROP",
            "iptables -D INPUT -j ORCH-INPUT",
            "iptables -I INPUT 2 -j ORCH-INPUT",
            "iptables -t nat -D PREROUTING -j ORCH-PRE",
            "ip6tables -F",
            "ip addr del 10.192.1.130/32 dev br-a",
            "ip addr add 10.192.1.200/32 dev br-a",
        ] {
            if drift.starts_with("ip6tables") {
                run("ip6tables -D INPUT -i lo -j ACCEPT").await;
                run("ip6tables -F").await;
                run("ip6tables -A INPUT -i lo -j ACCEPT").await;
            } else {
                run(drift).await;
            }
            assert!(rules().await != set || addresses().await != held, "{drift} changes something");
            assert_ne!(ensure(&network, &spec()).await, [""; 0], "{drift}");
            assert_eq!(rules().await, set, "{drift}");
            let mut now = addresses().await;
            now.sort();
            let mut before = held.clone();
            before.sort();
            assert_eq!(now, before, "{drift}");
            assert_eq!(ensure(&network, &spec()).await, [""; 0], "{drift}, then once more");
        }
        // Another program puts itself first, then everything is flushed, as a firewall's reload does.
        run("iptables -t nat -I PREROUTING 1 -p udp -j ACCEPT").await;
        ensure(&network, &spec()).await;
        let first = run("iptables -t nat -S PREROUTING 1").await;
        assert_eq!(first.trim(), "-A PREROUTING -j ORCH-PRE");
        assert!(rules().await.contains("-A PREROUTING -p udp -j ACCEPT"), "it stays, behind ours");
        for table in ["nat", "filter"] {
            run(&format!("iptables -t {table} -F")).await;
            run(&format!("iptables -t {table} -X")).await;
        }
        ensure(&network, &spec()).await;
        assert!(rules().await.contains("-A ORCH-PRE -d 10.192.1.128/25"));
    });
}

/// Half of the distributions in use have the older program; its tables are other ones, its words nearly the same.
#[test]
fn the_legacy_program_is_as_good() {
    in_new_host(async || {
        // One program under many names; in this mount namespace all of them are the older one.
        let newer = run("readlink -f /usr/sbin/iptables").await;
        let older = run("readlink -f /usr/sbin/iptables-legacy").await;
        run(&format!("mount --bind {} {}", older.trim(), newer.trim())).await;
        assert!(run("iptables --version").await.contains("legacy"));
        let network = host().await;
        let before = rules().await;
        ensure(&network, &spec()).await;
        assert_eq!(ensure(&network, &spec()).await, [""; 0], "the same agent");
        assert_eq!(ensure(&LinuxHostNetwork::here(), &spec()).await, [""; 0], "the next agent");
        run("iptables -t nat -F").await;
        run("iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER").await;
        run("iptables -t nat -A DOCKER -i docker0 -j RETURN").await;
        assert_ne!(ensure(&network, &spec()).await, [""; 0]);
        network.remove_all().await.expect("the host agrees");
        assert_eq!(rules().await, before);
    });
}

#[test]
fn what_is_left_out_goes_and_nothing_stays_in_the_end() {
    in_new_host(async || {
        let network = host().await;
        let (before, held) = (rules().await, addresses().await);
        ensure(&network, &spec()).await;
        // One network goes, one service goes: theirs goes, and nothing else.
        let less = HostNetworkSpec { bridges: vec![bridge("br-a", 1, &[130])], ..HostNetworkSpec::default() };
        ensure(&network, &less).await;
        assert!(!rules().await.contains("br-b"));
        let rest = addresses().await;
        assert_eq!(rest.iter().filter(|line| line.ends_with("/32")).collect::<Vec<_>>(), ["br-a inet 10.192.1.130/32"]);
        ensure(&network, &spec()).await;
        run("ip link del br-b").await;
        LinuxHostNetwork::here().remove_all().await.expect("the host agrees");
        assert_eq!(rules().await, before);
        let without_b: Vec<String> = held.into_iter().filter(|line| !line.contains("br-b")).collect();
        assert_eq!(addresses().await, without_b);
        LinuxHostNetwork::here().remove_all().await.expect("nothing to remove is no error");
        assert_eq!(rules().await, before);
    });
}

#[test]
fn unmarked_addresses_of_old_kernels_are_known_by_the_rules() {
    in_new_host(async || {
        let network = host().await;
        ensure(&network, &spec()).await;
        run("ip addr del 10.192.1.129/32 dev br-a").await;
        run("ip addr add 10.192.1.129/32 dev br-a").await;
        assert_eq!(ensure(&network, &spec()).await, [""; 0], "it is as wanted");
        LinuxHostNetwork::here().remove_all().await.expect("the host agrees");
        assert!(!addresses().await.iter().any(|line| line.ends_with("/32")));
    });
}

#[test]
fn a_missing_bridge_is_said_and_the_rest_is_set() {
    in_new_host(async || {
        let network = host().await;
        run("ip link del br-b").await;
        let error = network.ensure(&spec()).await.expect_err("br-b is not there").to_string();
        assert_eq!(error, "cannot set addresses of br-b: no such interface");
        assert!(addresses().await.contains(&"br-a inet 10.192.1.130/32".to_owned()));
        assert!(rules().await.contains("-i br-a -p tcp -j REDIRECT"));
        let mut bad = spec();
        bad.bridges[0].bridge = "br+".to_owned();
        assert!(network.ensure(&bad).await.is_err(), "a pattern is not a name");
    });
}

#[test]
fn routes_that_claim_addresses_are_listed() {
    in_new_host(async || {
        let network = host().await;
        for route in [
            "default via 10.192.1.9",
            "0.0.0.0/1 via 10.192.1.9",
            "192.168.7.0/24 via 10.192.1.9",
            "172.20.0.0/16 via 10.192.1.9 table 52",
            "blackhole 10.77.0.0/16",
        ] {
            run(&format!("ip route add {route}")).await;
        }
        let routes = network.routes().await.expect("routes");
        let routes: Vec<String> = routes.iter().map(ToString::to_string).collect();
        assert_eq!(routes, ["10.77.0.0/16", "10.192.1.0/24", "10.192.2.0/24", "172.20.0.0/16", "192.168.7.0/24"]);
    });
}

#[test]
fn redirected_traffic_arrives_with_its_address_and_nothing_else_does() {
    in_new_host(async || {
        let network = host().await;
        let pod = Pod::start("br-a", "10.192.1.5/24", "10.192.1.1").await;
        ensure(&network, &spec()).await;
        assert_eq!(network.problems().await.expect("a look"), [""; 0]);

        let listener = tokio::net::TcpListener::bind("10.192.1.1:4001").await.expect("free");
        let accept = async || {
            let (stream, peer) = listener.accept().await.expect("a connection");
            let original = socket2::SockRef::from(&stream).original_dst_v4().expect("redirected");
            (peer.ip().to_string(), original.as_socket().expect("an address").to_string())
        };
        let expected = ("10.192.1.5".to_owned(), "10.192.1.130:777".to_owned());
        assert_eq!(tokio::join!(accept(), pod.connect("10.192.1.130:777")), (expected.clone(), true));
        assert!(pod.ping(Ipv4Addr::new(10, 192, 1, 130)), "a virtual address answers");
        assert!(!pod.connect("10.192.1.1:4001").await, "straight to the listener's port the policy holds");
        assert!(!pod.ping(Ipv4Addr::new(10, 192, 1, 1)), "what is not ours stays as the policy has it");

        // A second filter drops what we let through: it is named with its remedy, and the remedy works.
        run("nft add table inet guard").await;
        run("nft add chain inet guard in { type filter hook input priority 0 ; policy drop ; }").await;
        assert!(!pod.connect("10.192.1.130:777").await, "dropped by the other table");
        let problems = network.problems().await.expect("a look");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("`inet guard`"), "{problems:?}");
        let remedy = problems[0].split('`').nth(5).expect("a command");
        assert_eq!(remedy, "nft insert rule inet guard in ct status dnat accept");
        run(remedy).await;
        assert_eq!(network.problems().await.expect("a look"), [""; 0]);
        assert_eq!(tokio::join!(accept(), pod.connect("10.192.1.130:777")), (expected, true));
    });
}

#[test]
fn pods_of_other_hosts_are_answered_for_and_those_of_this_one_stay_direct() {
    in_new_host(async || {
        let network = host().await;
        let client = Pod::start("br-a", "10.192.1.5/24", "10.192.1.1").await;
        // A fixed address, out of the slice of another host, in which there is a pod of that host too.
        let server = Pod::start("br-a", "10.192.1.70/24", "10.192.1.1").await;
        let serving = server.within(|| std::net::TcpListener::bind("10.192.1.70:777").expect("free"));
        serving.set_nonblocking(true).expect("set");
        let elsewhere = Ipv4Addr::new(10, 192, 1, 71);
        ensure(
            &network,
            &HostNetworkSpec { bridges: vec![bridge("br-a", 1, &[129, 71])], ..HostNetworkSpec::default() },
        )
        .await;
        let at_gateway = tokio::net::TcpListener::bind("10.192.1.1:80").await.expect("free");
        run("iptables -P INPUT ACCEPT").await;

        let listener = tokio::net::TcpListener::bind("10.192.1.1:4001").await.expect("free");
        let accept = async || {
            let (stream, peer) = listener.accept().await.expect("a connection");
            let original = socket2::SockRef::from(&stream).original_dst_v4().expect("redirected");
            (peer.ip().to_string(), original.as_socket().expect("an address").to_string())
        };
        let expected = ("10.192.1.5".to_owned(), "10.192.1.71:777".to_owned());
        assert_eq!(tokio::join!(accept(), client.connect("10.192.1.71:777")), (expected, true));
        assert!(client.ping(elsewhere));
        // With the kernel's switch the packets of one bridge pass the rules as well.
        for filtered in ["0", "1"] {
            std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", filtered).expect("br_netfilter is loaded");
            assert!(client.connect("10.192.1.70:777").await, "filtered: {filtered}");
            let (_, peer) = serving.accept().expect("straight from the client");
            assert_eq!(peer.ip().to_string(), "10.192.1.5", "filtered: {filtered}");
        }
        assert!(client.connect("10.192.1.1:80").await, "what the host has at the gateway is left alone");
        drop(at_gateway);

        // The pod is gone: nobody answers there.
        ensure(&network, &HostNetworkSpec { bridges: vec![bridge("br-a", 1, &[129])], ..HostNetworkSpec::default() })
            .await;
        assert!(!client.ping(elsewhere));
    });
}

#[test]
fn datagrams_for_declared_ports_come_with_their_address_also_of_flows_that_began_before() {
    in_new_host(async || {
        let network = host().await;
        let client = Pod::start("br-a", "10.192.1.5/24", "10.192.1.1").await;
        let server = Pod::start("br-a", "10.192.1.70/24", "10.192.1.1").await;
        let sockets = || datagrams::bind_shared("0.0.0.0:0".parse().expect("valid"), Some("br-a"), 1).expect("free");
        let listener = sockets().remove(0);
        let port = listener.local_addr().expect("bound").port();
        let mut spec = spec();
        spec.bridges[1].addresses.push(Ipv4Addr::new(10, 192, 1, 71));
        // Asked for before anything of it is there, by a client that goes on asking.
        let early = client.within(|| std::net::UdpSocket::bind("10.192.1.5:5000").expect("free"));
        run("iptables -P INPUT ACCEPT").await;
        ensure(&network, &spec).await;
        early.send_to(b"early", "10.192.1.129:777").expect("sent");
        run("iptables -P INPUT DROP").await;
        spec.bridges[1].udp.insert(777, port);
        ensure(&network, &spec).await;
        let heard = |expected: Option<(&str, &str)>| {
            let mut buffer = [0; 16];
            let found = datagrams::receive(&listener, &mut buffer).ok();
            if let Some(found) = found {
                datagrams::send_from(&listener, b"answer", found.to, found.from).expect("sent");
            }
            let seen = found.map(|found| (found.from.to_string(), found.to.to_string()));
            let seen = seen.as_ref().map(|(from, to)| (from.as_str(), to.as_str()));
            assert_eq!(seen, expected);
        };
        let answered = |socket: &std::net::UdpSocket| {
            socket.set_read_timeout(Some(std::time::Duration::from_secs(1))).expect("set");
            socket.recv_from(&mut [0; 16]).expect("answered").1.to_string()
        };
        early.send_to(b"again", "10.192.1.129:777").expect("sent");
        heard(Some(("10.192.1.5:5000", "10.192.1.129")));
        assert_eq!(answered(&early), "10.192.1.129:777");
        // A virtual address, and a pod of another host: each answers as itself.
        for address in ["10.192.1.130", "10.192.1.71"] {
            let socket = client.within(|| std::net::UdpSocket::bind("10.192.1.5:0").expect("free"));
            socket.connect((address, 777)).expect("a way there");
            socket.send(b"hello").expect("sent");
            heard(Some((&socket.local_addr().expect("bound").to_string(), address)));
            assert_eq!(answered(&socket), format!("{address}:777"));
        }
        // Not what nobody declared, nor what the host has at the gateway, nor what is sent straight to the listener.
        let at_gateway = std::net::UdpSocket::bind("10.192.1.1:777").expect("free");
        run("iptables -I INPUT -p udp -d 10.192.1.1 -j ACCEPT").await;
        for address in ["10.192.1.129:778".to_owned(), "10.192.1.1:777".to_owned(), format!("10.192.1.129:{port}")] {
            early.send_to(b"no", address).expect("sent");
            heard(None);
        }
        assert_eq!(at_gateway.recv(&mut [0; 16]).expect("what the host has is left alone"), 2);
        // A pod of this host is reached straight, also where the packets of one bridge pass the rules.
        let serving = server.within(|| std::net::UdpSocket::bind("10.192.1.70:777").expect("free"));
        serving.set_read_timeout(Some(std::time::Duration::from_secs(1))).expect("set");
        for filtered in ["0", "1"] {
            std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", filtered).expect("br_netfilter is loaded");
            early.send_to(b"hello", "10.192.1.70:777").expect("sent");
            let (_, from) = serving.recv_from(&mut [0; 16]).expect("it arrives");
            assert_eq!(from.to_string(), "10.192.1.5:5000", "filtered: {filtered}");
        }
        // The next agent takes the same port, or another one, and goes on with what is under way.
        let ports = LinuxHostNetwork::here().ports().await.expect("rules");
        assert_eq!(ports["br-a"].udp, BTreeMap::from([(53, 4053), (777, port)]));
        let listener = sockets().remove(0);
        spec.bridges[1].udp.insert(777, listener.local_addr().expect("bound").port());
        ensure(&network, &spec).await;
        early.send_to(b"again", "10.192.1.129:777").expect("sent");
        assert_eq!(datagrams::receive(&listener, &mut [0; 16]).expect("heard").from.to_string(), "10.192.1.5:5000");
    });
}

/// A process in a network of its own behind a bridge, as a container is; it ends with this value.
struct Pod {
    process: std::process::Child,
}

impl Pod {
    async fn start(bridge: &str, address: &str, gateway: &str) -> Self {
        let pod = Self { process: sleeper() };
        let outer = format!("pod{}", pod.process.id());
        run(&format!("ip link add {outer} type veth peer name inner")).await;
        run(&format!("ip link set {outer} master {bridge} up")).await;
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("a link");
        while std::fs::read_link(pod.network()).expect("a link") == own {
            tokio::task::yield_now().await;
        }
        run(&format!("ip link set inner netns {}", pod.process.id())).await;
        run(&pod.inside("ip link set inner name eth0 up")).await;
        run(&pod.inside(&format!("ip addr add {address} dev eth0"))).await;
        run(&pod.inside(&format!("ip route add default via {gateway}"))).await;
        pod
    }

    fn network(&self) -> String {
        format!("/proc/{}/ns/net", self.process.id())
    }

    fn inside(&self, command: &str) -> String {
        format!("nsenter --net={} {command}", self.network())
    }

    /// Says whether a connection is made within a second.
    async fn connect(&self, to: &str) -> bool {
        let command = self.inside(&format!("timeout 1 bash -c </dev/tcp/{}", to.replace(':', "/")));
        let words: Vec<&str> = command.split(' ').collect();
        HostTools::here().run(words[0], &words[1..], "").await.is_ok()
    }

    /// Says whether an address answers an echo request within half a second.
    fn ping(&self, to: Ipv4Addr) -> bool {
        self.within(move || {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::ICMPV4));
            let socket = socket.expect("root may");
            socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("set");
            socket.connect(&std::net::SocketAddr::from((to, 0)).into()).expect("a route");
            // Type 8, code 0, its checksum, and no more than zeros.
            socket.send(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]).expect("sent");
            std::io::Read::read(&mut &socket, &mut [0; 64]).is_ok()
        })
    }

    /// Does something in its network; sockets made there stay in it.
    fn within<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let network = std::fs::File::open(self.network()).expect("it lives");
        let inside = std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), None).expect("root may");
            act()
        });
        inside.join().expect("no panic")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Starts a process in a network namespace of its own that does nothing until it is killed.
#[expect(clippy::disallowed_methods, reason = "a stand-in for a container")]
fn sleeper() -> std::process::Child {
    std::process::Command::new("unshare").args(["-n", "sleep", "60"]).spawn().expect("it starts")
}

#[test]
fn a_bridge_that_comes_and_goes_is_heard_of_and_keeps_its_hardware_address() {
    in_new_host(async || {
        let network = host().await;
        let mut spec = HostNetworkSpec { bridges: vec![bridge("podman1", 3, &[129])], ..HostNetworkSpec::default() };
        let error = network.ensure(&spec).await.expect_err("it is not there").to_string();
        assert!(error.contains("podman1"), "{error}");
        spec.bridges[0].on_demand = true;
        ensure(&network, &spec).await;
        let mut made = network.new_bridges();
        let mut heard = async || {
            let heard = tokio::time::timeout(std::time::Duration::from_secs(5), made.next());
            heard.await.expect("it is heard of").expect("the kernel goes on")
        };
        let hardware = async || run("ip -br link show podman1").await.split_whitespace().nth(2).map(str::to_owned);
        for round in 0..2 {
            run("ip link add podman1 type bridge").await;
            run("ip link set podman1 up").await;
            assert_eq!(heard().await, "podman1");
            assert_eq!(ensure(&network, &spec).await, ["added address 10.192.3.129 to podman1"], "{round}");
            let had = hardware().await;
            run("ip link add low type veth peer name high").await;
            run("ip link set low address 02:00:00:00:00:01 master podman1 up").await;
            assert_eq!(hardware().await, had, "a port with a lower address");
            run("ip link del low").await;
            assert_eq!(hardware().await, had);
            run("ip link del podman1").await;
            assert_eq!(ensure(&network, &spec).await, [""; 0], "gone, as it may");
        }
    });
}

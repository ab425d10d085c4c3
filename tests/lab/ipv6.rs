//! Networks with IPv6: the engine gives out the addresses, and orch keeps the networks apart.

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::project::Project;
use crate::wait::{becomes, secs};

const YAML: &str = "\
x-page: &page
  image: busybox
  command: [sh, -c, 'echo hello >/tmp/index.html; exec httpd -f -h /tmp']
  stop_signal: SIGKILL
x-at: &at {deploy: {placement: {constraints: ['node.hostname == node1']}}}
services:
  web: {<<: [*page, *at], networks: {front: {ipv6_address: 'fd99::80'}}}
  beside: {<<: [*page, *at], networks: [front]}
  apart: {<<: [*page, *at], networks: [back]}
  far: {<<: *page, deploy: {placement: {constraints: ['node.hostname == node2']}}, networks: [front]}
networks:
  front: {enable_ipv6: true, ipam: {config: [{subnet: 'fd99::/64'}], options: {com.example.option: '1'}}}
  back: {enable_ipv6: true, ipam: {config: [{subnet: 'fd98::/64'}]}}
";

#[test]
fn containers_of_a_network_reach_one_another_and_the_outside_by_ipv6_and_nobody_else_reaches_them() {
    let cluster = Cluster::boot(2, &["busybox"]);
    add(&cluster, &[1, 2]).ok();
    let project = Project::new(&cluster.desk, "six", YAML);
    project.orch(&["up", "-d", "--wait"]).ok();
    let show = |number: usize, network: &str, template: &str| {
        cluster[number].docker(&["network", "inspect", "-f", template, network])
    };
    for number in [1, 2] {
        let made = show(number, "six_front", "{{.EnableIPv6}} {{(index .IPAM.Config 1).Subnet}} {{.IPAM.Options}}");
        assert_eq!(made, "true fd99::/64 map[com.example.option:1]", "on each host alike");
    }
    let address = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
    assert_eq!(cluster[1].docker(&["inspect", "-f", address, "six-web-1"]), "fd99::80");

    // The desk has no such network, and a way to that of the first host.
    cluster[1].sh("ip -6 addr add fd77::1/64 dev eth0 nodad");
    cluster.desk.sh("ip -6 addr add fd77::2/64 dev eth0 nodad; ip -6 route add fd99::/64 via fd77::1; \
         setsid python3 -m http.server --bind fd77::2 8099 >/dev/null 2>&1 </dev/null &");
    let asked = |container: &str, url: &str| {
        cluster[1].exec(&["docker", "exec", container, "timeout", "3", "wget", "-q", "-O", "/dev/null", url]).code == 0
    };
    becomes(secs(20), "what can be reached from `beside`", &[true, true], || {
        [asked("six-beside-1", "http://[fd99::80]/"), asked("six-beside-1", "http://[fd77::2]:8099/")]
    });
    // A container of another network, and a machine outside: the way is there, and a rule closes it.
    let from_apart = || asked("six-apart-1", "http://[fd99::80]/");
    let from_outside =
        || cluster.desk.exec(&["sh", "-c", "curl -sg --max-time 3 -o /dev/null http://[fd99::80]/"]).code == 0;
    let others: [&dyn Fn() -> bool; 2] = [&from_apart, &from_outside];
    for other in others {
        // The agent soon has it back.
        becomes(secs(40), "the way of another without the rule", &true, || {
            cluster[1].sh("ip6tables -F ORCH-FORWARD");
            other()
        });
        becomes(secs(30), "the way of another once the agent has looked", &false, other);
    }

    // Names and balancing are of IPv4 as ever, also to where no wire of IPv6 leads.
    assert!(asked("six-beside-1", "http://web/") && asked("six-beside-1", "http://far/"));
    project.rewrite(&YAML.replace("fd98::", "fd97::"));
    project.orch(&["up", "-d", "--wait"]).ok();
    assert_eq!(show(1, "six_back", "{{(index .IPAM.Config 1).Subnet}}"), "fd97::/64", "it was made anew");
    project.rewrite(&YAML.replace(", ipam: {config: [{subnet: 'fd98::/64'}]}", ""));
    project.orch(&["up", "-d"]).refused(1, &["this engine has no subnet of IPv6 for network `back`", "compose.yaml:"]);
    project.down();
    becomes(secs(20), "rules without a bridge", &String::new(), || {
        cluster[1].exec(&["sh", "-c", "ip6tables-save | grep ORCH-FORWARD"]).stdout
    });
}

//! Several lab hosts, and the desk from which somebody works on them by SSH alone.

use std::ops::Index;
use std::path::PathBuf;
use std::sync::Arc;

use crate::host::Host;
use crate::lab::Lab;

/// Hosts `node1`, `node2`, … with an engine and sshd each, and a desk without engine.
pub(crate) struct Cluster {
    /// Where orch is run: root's key there is let in by every node, and the nodes' keys are known.
    pub(crate) desk: Host,
    nodes: Vec<Host>,
    lab: Arc<Lab>,
}

impl Cluster {
    /// Boots `count` nodes, with these images (names of tests/images/make) on each, and the desk.
    pub(crate) fn boot(count: usize, images: &[&str]) -> Self {
        Self::boot_on("kept", count, images)
    }

    /// As [`Cluster::boot`]; `/var/lib` of one of the nodes holds no more than so much (`node2=400m`).
    pub(crate) fn boot_with_disk(disk: &str, count: usize, images: &[&str]) -> Self {
        Self::boot_on(disk, count, images)
    }

    /// As [`Cluster::boot`]; the engine of these nodes (`node2,node3`) is Podman.
    pub(crate) fn boot_with_podman(podman: &str, count: usize, images: &[&str]) -> Self {
        Self::boot_with(&["--podman", podman], count, images)
    }

    fn boot_on(disk: &str, count: usize, images: &[&str]) -> Self {
        Self::boot_with(&["--disk", disk], count, images)
    }

    fn boot_with(how: &[&str], count: usize, images: &[&str]) -> Self {
        let lab = Lab::free();
        lab.run(&[&["up", &count.to_string(), "--desk"], how].concat());
        let lab = Arc::new(lab);
        let nodes = (1..=count).map(|number| Host::in_lab(&lab, &format!("node{number}"))).collect();
        if !images.is_empty() {
            lab.run(&["load-images", "--images", &images.join(",")]);
        }
        Self { desk: Host::in_lab(&lab, "desk"), nodes, lab }
    }

    /// Returns the nodes, `node1` first.
    pub(crate) fn nodes(&self) -> &[Host] {
        &self.nodes
    }

    /// Lets no packet pass between two of `node1`, …, `desk` and `machine`, which is where the tests run; for the second
    /// also `all`.
    pub(crate) fn cut(&self, one: &str, other: &str) {
        self.lab.run(&["cut", one, other]);
    }

    /// Lets no packet pass from `one` to `other`; the way back stays open.
    pub(crate) fn cut_one_way(&self, one: &str, other: &str) {
        self.lab.run(&["cut", one, other, "--oneway"]);
    }

    /// Undoes all cuts.
    pub(crate) fn heal(&self) {
        self.lab.run(&["heal"]);
    }

    /// Delays every packet of a host by so many milliseconds each way; 0 ends it.
    pub(crate) fn slow(&self, host: &str, millis: u32) {
        self.lab.run(&["slow", host, &millis.to_string()]);
    }

    /// As [`Cluster::slow`]; so many of a hundred packets are lost, too.
    pub(crate) fn lossy(&self, host: &str, millis: u32, percent: u32) {
        self.lab.run(&["slow", host, &millis.to_string(), &percent.to_string()]);
    }

    /// Lets root of a node reach the others as root of the desk does.
    pub(crate) fn let_in(&self, number: usize) -> &Host {
        let node = &self[number];
        node.write("/root/.ssh/known_hosts", &format!("{}\n", self.desk.sh("cat /root/.ssh/known_hosts")));
        node.write("/root/.ssh/id_ed25519", &format!("{}\n", self.desk.sh("cat /root/.ssh/id_ed25519")));
        node.sh("chmod 600 /root/.ssh/id_ed25519");
        node
    }

    /// Returns an ssh configuration by which this machine reaches all nodes.
    pub(crate) fn ssh_config(&self) -> PathBuf {
        self.lab.folder().join("ssh_config")
    }
}

/// `cluster[1]` is `node1`.
impl Index<usize> for Cluster {
    type Output = Host;

    fn index(&self, number: usize) -> &Host {
        &self.nodes[number - 1]
    }
}

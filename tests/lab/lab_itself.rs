//! The lab keeps its own promises: without them the other tests would show nothing.

use std::path::Path;

use crate::host::Host;
use crate::wait::{eventually, secs, timed};

#[test]
fn a_host_runs_containers_and_keeps_its_disk_over_a_power_loss() {
    let host = Host::boot(&["busybox"]);
    let page = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";
    host.docker(&[
        "run",
        "-d",
        "--name",
        "web",
        "--restart",
        "always",
        "-p",
        "8080:80",
        "--stop-signal",
        "KILL",
        "busybox",
        "sh",
        "-c",
        page,
    ]);
    host.write("/root/kept", "a file\n");
    let url = format!("http://{}:8080/", host.address());
    // From the host itself, but at the address that others use.
    let served = || {
        eventually(secs(10), &url, || {
            let done = host.exec(&["curl", "-fsS", "-m", "2", &url]);
            if done.stdout == "served\n" { Ok(()) } else { Err(done) }
        });
    };
    served();
    host.power_off();
    host.power_on();
    served();
    assert_eq!(host.sh("cat /root/kept"), "a file");
    let id = host.docker(&["ps", "-q"]);
    host.restart_engine();
    served();
    assert_eq!(host.docker(&["ps", "-q"]), id);
    assert!(
        host.exec_beside("web", &["ip", "-o", "addr"]).ok().contains("172.17.0."),
        "the container's own interfaces"
    );
}

#[test]
fn a_host_with_a_paused_container_loses_its_power_and_leaves_nothing() {
    let host = Host::boot(&["busybox"]);
    host.docker(&["run", "-d", "--name", "frozen", "busybox", "sleep", "1000"]);
    host.docker(&["pause", "frozen"]);
    let ((), took) = timed(|| host.power_off());
    assert!(took < secs(10), "{took:?}");
    host.power_on();
    host.docker(&["start", "frozen"]);
    host.docker(&["pause", "frozen"]);
    let namespace = format!("/run/netns/{}-node1", host.lab_name());
    let ((), took) = timed(|| drop(host));
    assert!(took < secs(10) && !Path::new(&namespace).exists(), "{took:?}");
}

#[test]
fn a_host_has_a_small_disk_where_one_is_asked_for() {
    let host = Host::boot_with_disk("64m", &["busybox"]);
    assert_eq!(host.exec(&["dd", "if=/dev/zero", "of=/var/lib/fill", "bs=1M"]).code, 1, "no space left");
    let done = host.exec(&["docker", "run", "--rm", "busybox", "true"]);
    assert!(done.code != 0 && done.stderr.contains("no space left"), "{done:?}");
}

#[test]
fn hosts_run_side_by_side_and_leave_nothing() {
    let (a, b) = (Host::boot(&[]), Host::boot(&[]));
    assert_ne!(a.address(), b.address());
    let gone = [&a, &b].map(|host| format!("/run/netns/{}-node1", host.lab_name()));
    drop((a, b));
    for namespace in gone {
        assert!(!Path::new(&namespace).exists(), "{namespace} is left");
    }
}

//! A command line that ends in the middle of its work on several hosts, and two at the same time.

use crate::cluster::Cluster;
use crate::fleet::{add, name, named, spread, states};
use crate::host::{Host, ORCH, Started};
use crate::project::Project;

/// Ends all connections of the desk, as a cut of the line that is noticed does.
pub(crate) const END_CONNECTIONS: &str =
    "cd /tmp/orch-0; for s in *; do case $s in *[.-]*) ;; *) ssh -O exit -S $PWD/$s x 2>&1;; esac; done";

/// Returns the arguments that add these nodes by the names `a`, `b`, ….
fn adding(cluster: &Cluster, numbers: &[usize]) -> Vec<String> {
    ["host", "add"].map(str::to_owned).into_iter().chain(named(cluster, numbers)).collect()
}

fn start<'a>(desk: &'a Host, arguments: &[String]) -> Started<'a> {
    desk.start_orch(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What is there of orch on a host: one agent, one image of it, and nothing that was made and not named.
#[track_caller]
fn only_one_agent(host: &Host) {
    assert_eq!(
        host.docker(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]),
        "orch-agent running",
        "{}",
        host.name()
    );
    assert_eq!(host.docker(&["images", "-q", "--filter", "dangling=true"]), "", "{}", host.name());
}

#[test]
fn a_host_add_killed_at_any_step_is_finished_by_the_next() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    let arguments = adding(&cluster, &[1, 2, 3]);
    for step in ["Connecting", "Starting agent", "Founding", "Joining", "Waiting for the other hosts"] {
        let mut running = start(desk, &arguments);
        assert!(running.says(step), "it was to be killed when it says `{step}`: {:?}", running.finish());
        running.signal("KILL");
        // Whatever was done, who looks is told how it is.
        let done = desk.orch(&["host", "ls"]);
        assert!(done.code == 0 || done.stderr.contains("orch host add"), "after `{step}`: {done:?}");
    }
    add(&cluster, &[1, 2, 3]).ok();
    assert_eq!(states(desk), "a Ready, b Ready, c Ready");
    let clusters: Vec<String> =
        cluster.nodes().iter().map(|node| node.sh("cat /var/lib/orch/identity/authority.crt")).collect();
    assert!(clusters.iter().all(|one| *one == clusters[0]), "one cluster");
    cluster.nodes().iter().for_each(only_one_agent);
}

#[test]
fn of_two_who_add_the_same_hosts_at_once_one_wins_each_and_the_other_is_told_whose_it_is() {
    let cluster = Cluster::boot(3, &[]);
    let desk = &cluster.desk;
    let address = |number: usize| format!("ssh://root@{}", cluster[number].address());
    let orders = [[(1, "a"), (2, "b"), (3, "c")], [(3, "x"), (2, "y"), (1, "z")]];
    let own = |at: usize| format!("ORCH_HOSTS_FILE=/root/hosts{at}.yaml");
    let running = [0, 1].map(|at| {
        let mut argv = vec!["env".to_owned(), own(at), ORCH.to_owned(), "host".to_owned(), "add".to_owned()];
        argv.extend(orders[at].iter().flat_map(|(number, name)| [(*name).to_owned(), address(*number)]));
        desk.start(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let done = running.map(Started::finish);
    let as_desk = |at: usize, args: &[&str]| desk.exec(&[&["env", &own(at), ORCH], args].concat());
    let listed = [0, 1].map(|at| as_desk(at, &["host", "ls", "-q"]).stdout);
    let counts = listed.each_ref().map(|list| list.lines().count());
    assert_eq!(counts.iter().sum::<usize>(), 3, "each host has one owner: {listed:?} {done:#?}");
    for (at, done) in done.iter().enumerate() {
        assert_eq!(done.code, i32::from(counts[at] < 3), "{done:?}");
        for (number, name) in orders[at].iter().filter(|(_, name)| !listed[at].contains(name)) {
            let (_, theirs) = orders[1 - at].iter().find(|(other, _)| other == number).expect("it names all");
            let said = format!("host `{name}` is `{theirs}` of cluster ");
            // Where the first host was lost while it was to found the cluster, the others are not asked.
            let unfounded = format!("Host {name}  Not added  no cluster was founded by ");
            let told = done.stderr.contains(&said) || (counts[at] == 0 && done.stderr.contains(&unfounded));
            assert!(told, "neither `{said}` nor `{unfounded}` in {}", done.stderr);
        }
        // What is listed is there: nothing was admitted that did not come.
        let states = as_desk(at, &["host", "ls", "--format", "json"]).stdout;
        assert_eq!(states.matches("\"State\":\"Ready\"").count(), counts[at], "{states}");
    }
    // The one gives way, the other finishes.
    let winner = usize::from(counts[1] > counts[0]);
    let names: Vec<&str> = listed[1 - winner].lines().rev().collect();
    for name in names {
        as_desk(1 - winner, &["host", "rm", name]).ok();
    }
    let (names, addresses): (Vec<_>, Vec<_>) =
        orders[winner].iter().map(|(number, name)| (*name, address(*number))).unzip();
    let pairs: Vec<&str> = names.iter().zip(&addresses).flat_map(|(name, address)| [*name, address]).collect();
    as_desk(winner, &[&["host", "add"], pairs.as_slice()].concat()).ok();
    let states = as_desk(winner, &["host", "ls", "--format", "json"]).ok();
    assert_eq!(states.matches("\"State\":\"Ready\"").count(), 3, "{states}");
    cluster.nodes().iter().for_each(only_one_agent);
}

/// Waits until a project runs as its file says: so many of `web`, each once and nothing half made.
#[track_caller]
fn runs(cluster: &Cluster, project: &Project, count: usize) {
    let all: usize = spread(project, "web").iter().map(|(_, count)| count).sum();
    assert_eq!(all, count, "{}", project.name);
    for node in cluster.nodes() {
        let label = format!("label=com.docker.compose.project={}", project.name);
        let idle = node.docker(&["ps", "-a", "--filter", &label, "--filter", "status=created", "-q"]);
        assert_eq!(idle, "", "{} has half-made containers", node.name());
    }
}

#[test]
fn an_up_over_hosts_killed_or_cut_off_at_any_step_is_finished_by_the_next() {
    let cluster = Cluster::boot(3, &["busybox"]);
    let desk = &cluster.desk;
    let yaml = "services: {web: {<<: *web, deploy: {replicas: 6}, ports: ['8080:80']}}\n";
    let hosts = [1, 2, 3].map(|number| format!("  {}: ssh://root@{}\n", name(number), cluster[number].address()));
    let project = Project::new(desk, "ups", &format!("x-hosts:\n{}{yaml}", hosts.concat()));
    let arguments = project.args(&["up", "-d", "--wait"]);
    // From bare hosts on: each goes on where the one before was ended.
    for step in ["Host b  Starting agent", "Joining", "Creating"] {
        let mut up = desk.start_orch(&arguments);
        assert!(up.says(step), "it was to be killed when it says `{step}`: {:?}", up.finish());
        up.signal("KILL");
    }
    project.up();
    runs(&cluster, &project, 6);
    for (step, killed) in [("Network ups_default", false), ("Starting", true), ("Started", false)] {
        project.orch(&["down"]).ok();
        let mut up = desk.start_orch(&arguments);
        assert!(up.says(step), "`{step}`: {:?}", up.finish());
        if killed {
            up.signal("KILL");
        } else {
            desk.sh(END_CONNECTIONS);
            // It had all that it needed, or says that it does not know.
            let done = up.finish();
            if done.code != 0 {
                done.refused(1, &["the agent, or the connection to it, ended", "run the same command again"]);
            }
        }
        project.up();
        runs(&cluster, &project, 6);
    }
    project.down();
}

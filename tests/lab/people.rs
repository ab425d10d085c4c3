//! Two people with one project, from desks of their own.

use crate::cluster::Cluster;
use crate::fleet::add;
use crate::host::{Done, Host, ORCH};
use crate::project::Project;

/// Runs orch as somebody, on a file of his own.
fn orch(desk: &Host, who: &str, file: &str, args: &[&str]) -> Done {
    let who = format!("ORCH_USER={who}");
    desk.exec(&[&["env", &who, ORCH, "-f", file], args].concat())
}

/// The same on a terminal, where he answers.
fn answering(desk: &Host, who: &str, file: &str, args: &str, answer: &str) -> Done {
    let command = format!("printf '{answer}\\n' | script -qec 'env ORCH_USER={who} {ORCH} -f {file} {args}' /dev/null");
    desk.exec(&["sh", "-c", &command])
}

#[test]
fn the_second_to_change_a_project_sees_what_the_first_did_and_is_asked() {
    let cluster = Cluster::boot(1, &[]);
    let (desk, node) = (&cluster.desk, &cluster[1]);
    add(&cluster, &[1]).ok();
    let yaml = |services: &str| format!("name: shop\nservices: {{{services}}}\n");
    let ann = Project::new(desk, "ann", &yaml("web: *web, db: *web"));
    let bob = Project::new(desk, "bob", &yaml("web: *web, db: *web"));
    let (ann_file, bob_file) = ("/root/ann/compose.yaml", "/root/bob/compose.yaml");
    let names = || {
        let names = node.docker(&["ps", "--format", "{{.Names}}", "--filter", "label=com.docker.compose.project=shop"]);
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    orch(desk, "ann@a", ann_file, &["up", "-d", "--wait"]).ok();
    // From another directory, the same: nothing is asked.
    orch(desk, "bob@b", bob_file, &["up", "-d", "--wait"]).ok();
    ann.rewrite(&yaml("web: {<<: *web, environment: {A: b}}, db: *web, cache: *web"));
    orch(desk, "ann@a", ann_file, &["up", "-d", "--wait"]).ok();
    let before = names();
    assert_eq!(before, "shop-cache-1 shop-db-1 shop-web-1");

    bob.rewrite(&yaml("web: *web"));
    let changes = "`shop` was changed by others since you last brought it up:\n  ann@a, ";
    let refused = orch(desk, "bob@b", bob_file, &["up", "-d", "--remove-orphans"]);
    refused.refused(1, &[changes, ": cache added, web changed (environment)", "`--yes`"]);
    orch(desk, "bob@b", bob_file, &["down"]).refused(1, &[changes, "`--yes`"]);
    let plan = orch(desk, "bob@b", bob_file, &["plan"]);
    assert!(plan.stderr.contains(changes), "{}", plan.stderr);
    plan.ok();
    let declined = answering(desk, "bob@b", bob_file, "up -d --remove-orphans", "n");
    assert!(declined.stdout.contains("Overwrite? [y/N] "), "{declined:?}");
    assert_eq!((declined.code, names()), (130, before), "{declined:?}");
    answering(desk, "bob@b", bob_file, "up -d --remove-orphans", "y").ok();
    assert_eq!(names(), "shop-web-1");
    orch(desk, "ann@a", ann_file, &["up", "-d", "--wait", "-y"]).ok();
    assert_eq!(names(), "shop-cache-1 shop-db-1 shop-web-1");
    orch(desk, "ann@a", ann_file, &["down"]).ok();
    orch(desk, "bob@b", bob_file, &["up", "-d"]).ok();
    orch(desk, "bob@b", bob_file, &["down", "-v"]).ok();
}

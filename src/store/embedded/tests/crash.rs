//! A process that writes is killed at a random moment; what it had acknowledged must be there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use super::*;

const STORE: &str = "ORCH_TEST_CRASH_STORE";

/// Writes numbered transactions until it is killed, and says each number once it is acknowledged.
#[tokio::test]
#[ignore = "the child of `a_killed_writer_loses_nothing_acknowledged`"]
async fn write_until_killed() {
    let path = std::env::var_os(STORE).expect("the parent names the store");
    let store = Embedded::open(PathBuf::from(path)).await.expect("a store");
    let mut next = store.list("n/").await.expect("a list").0.len();
    loop {
        // Two keys and a large value: a torn transaction would show.
        let key = format!("{next:06}");
        done(&store, &[put(&format!("n/{key}"), &"x".repeat(5000)), put("last", &key)]).await;
        let mut out = std::io::stdout();
        writeln!(out, "\nacknowledged {next}").and_then(|()| out.flush()).expect("the parent reads");
        next += 1;
    }
}

#[expect(clippy::disallowed_methods, reason = "the test starts itself")]
fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "--ignored", "--nocapture", "store::embedded::tests::crash::write_until_killed"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test binary starts")
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_acknowledged() {
    let dir = directory();
    let path = dir.path().join("store.db");
    let mut acknowledged = 0;
    for round in 0..5 {
        let mut child = start(&path);
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let numbers = out.lines().map_while(Result::ok);
        let mut numbers =
            numbers.filter_map(|line| line.strip_prefix("acknowledged ").and_then(|n| n.parse::<usize>().ok()));
        let goal = acknowledged + 5 + 7 * round;
        acknowledged = numbers.find(|n| *n >= goal).expect("it writes until it is killed");
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        // What came between our last look and its death counts too.
        acknowledged = numbers.last().unwrap_or(acknowledged);

        let store = Embedded::open(&path).await.expect("usable after a crash");
        let (entries, revision) = store.list("n/").await.expect("a list");
        assert!(entries.len() > acknowledged, "{} of {acknowledged} are there", entries.len());
        for (n, entry) in entries.iter().enumerate() {
            assert_eq!((entry.key.as_str(), entry.value.len()), (format!("n/{n:06}").as_str(), 5000));
            assert_eq!(usize::try_from(entry.modified).expect("small"), n + 1, "one revision each");
        }
        let last = store.get("last").await.expect("a read").expect("there");
        assert_eq!(last.modified, revision, "no transaction is torn");
        assert_eq!(last.value, format!("{:06}", entries.len() - 1).into_bytes());
    }
}

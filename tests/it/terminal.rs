//! What is seen in a terminal while orch works, of whatever size, and what is left behind. The real program, in a real
//! terminal, before an agent that says what the test tells it to.
#![expect(clippy::disallowed_methods, reason = "programs are run as a user would")]

use std::process::Command;
use std::sync::mpsc::Sender;

use crate::peers::Peer;
use crate::pty::{Pty, Seen};

/// A directory with an agent's socket in it, and nothing else.
struct Desk {
    folder: tempfile::TempDir,
    agent: Peer,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let agent = Peer::listen(&folder.path().join("agent.sock"));
        Self { folder, agent }
    }

    /// Returns orch with a project, and with nothing of the machine's own around it.
    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orch"));
        command.args(["-p", "shop"]).args(words.split_whitespace()).current_dir(self.folder.path());
        command.env_clear().env("HOME", self.folder.path()).env("TERM", "xterm-256color");
        command.env("PATH", "/usr/bin:/bin").env("ORCH_AGENT_SOCKET", self.agent.path());
        command
    }

    fn start(&self, words: &str, size: (u16, u16)) -> Pty {
        Pty::start(&self.command(words), size)
    }
}

/// What the agent tells of a container.
fn told(name: &str, host: &str, status: &str, state: &str) -> String {
    serde_json::json!({
        "type": "object", "kind": "Container", "name": name, "host": host, "status": status, "state": state, "detail": null,
    })
    .to_string()
}

/// The beginning of a stop: one is done, on two hosts others are under way.
fn begin(lines: &Sender<String>) {
    for line in [
        told("shop-web-1", "local", "Stopping", "working"),
        told("shop-web-1", "local", "Stopped", "done"),
        told("shop-database-with-a-long-name-1", "a", "Stopping", "working"),
        told("shop-web-2", "b", "Stopping", "working"),
    ] {
        lines.send(line).expect("it is listened to");
    }
}

fn end(lines: Sender<String>) {
    for line in [
        told("shop-database-with-a-long-name-1", "a", "Stopped", "done"),
        told("shop-web-2", "b", "Stopped", "done"),
        serde_json::json!({"type": "done", "revision": 3}).to_string(),
    ] {
        lines.send(line).expect("it is listened to");
    }
    drop(lines);
}

/// Times and the frames of the spinner, which are others each time, as signs that are not.
fn still(screen: &str) -> String {
    let spinner = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
    let mut text = String::new();
    for line in screen.lines() {
        let line: String = line.chars().map(|c| if spinner.contains(&c) { '*' } else { c }).collect();
        let (rest, last) = line.rsplit_once(' ').unwrap_or(("", &line));
        let is_time = last.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok());
        text += &if is_time { [rest, " T.Ts\n"] } else { [line.as_str(), "\n"] }.concat();
    }
    text
}

/// Nothing is left behind, and nothing flickered or ran over the edge.
#[track_caller]
fn check_clean(seen: &Seen) {
    let text = seen.text();
    assert_eq!(seen.wrapped, Vec::<String>::new(), "lines wider than the terminal: {text:?}");
    assert!(!text.contains("\x1b[2J"), "the screen was cleared: {text:?}");
    assert!(!text.contains("\x1b[?1049h") && seen.has_cursor(), "{text:?}");
}

#[track_caller]
fn check_width(width: u16) -> String {
    let desk = Desk::new();
    let lines = desk.agent.streams("POST /v1/projects/shop/ask");
    let terminal = desk.start("stop", (width, 24));
    begin(&lines);
    let during = terminal.until("two under way", |seen| {
        let screen = seen.screen();
        (screen.lines().count() == 4 && screen.contains("1/3")).then_some(screen)
    });
    end(lines);
    let (code, seen) = terminal.finish();
    assert_eq!(code, 0, "{}", seen.text());
    check_clean(&seen);
    format!("{}--\n{}", still(&during), still(&seen.screen()))
}

#[test]
fn progress_fits_terminals_of_20_columns() {
    insta::assert_snapshot!(check_width(20));
}

#[test]
fn progress_fits_terminals_of_40_columns() {
    insta::assert_snapshot!(check_width(40));
}

#[test]
fn progress_fits_terminals_of_80_columns() {
    insta::assert_snapshot!(check_width(80));
}

#[test]
fn progress_fits_terminals_of_120_columns() {
    insta::assert_snapshot!(check_width(120));
}

#[test]
fn lines_are_drawn_again_only_where_they_change_and_time_goes_on() {
    let desk = Desk::new();
    let lines = desk.agent.streams("POST /v1/projects/shop/ask");
    let terminal = desk.start("stop", (80, 24));
    begin(&lines);
    terminal.until("a second of stopping", |seen| {
        let screen = seen.screen();
        screen.lines().any(|line| line.contains("shop-web-2") && line.contains("1.0s")).then_some(())
    });
    end(lines);
    let (_, seen) = terminal.finish();
    check_clean(&seen);
    let text = seen.text();
    let drawn = text.matches("Container shop-web-1").count();
    // Once under way, once done, and again where a longer name beside it moved its columns.
    assert!(drawn <= 5, "drawn {drawn} times: {text:?}");
    assert!(text.matches("shop-web-2").count() >= 8, "one frame in a tenth of a second: {text:?}");
}

#[test]
fn a_terminal_may_change_its_size_while_orch_works() {
    let desk = Desk::new();
    let lines = desk.agent.streams("POST /v1/projects/shop/ask");
    let mut terminal = desk.start("stop", (100, 24));
    begin(&lines);
    terminal.shows("1/3");
    for width in [40, 120, 30] {
        terminal.resize(width, 12);
        // Once a frame is drawn for that width, whatever was drawn before is gone.
        let from = terminal.until("the size", |seen| Some(seen.raw.len()));
        terminal.until("a frame", |seen| (seen.raw.len() > from + 60).then_some(()));
    }
    end(lines);
    let (code, seen) = terminal.finish();
    assert_eq!(code, 0);
    assert!(seen.screen().contains("[+] Stopping 3/3"), "{}", seen.screen());
    assert!(seen.screen().lines().all(|line| line.chars().count() <= 30), "{}", seen.screen());
    assert!(seen.has_cursor() && !seen.text().contains("\x1b[2J"));
}

/// Returns all that is written for a stop in a terminal, with these flags and variables.
#[track_caller]
fn written(flags: &str, variables: &[(&str, &str)]) -> String {
    let desk = Desk::new();
    let lines = desk.agent.streams("POST /v1/projects/shop/ask");
    let mut command = desk.command(&format!("{flags} stop"));
    command.envs(variables.iter().copied());
    let terminal = Pty::start(&command, (80, 24));
    begin(&lines);
    end(lines);
    let (code, seen) = terminal.finish();
    assert_eq!(code, 0, "{}", seen.text());
    check_clean(&seen);
    seen.text()
}

#[test]
fn control_characters_are_left_out_where_they_are_not_wanted() {
    let plain = " Container shop-web-1  Stopping\r\n Container shop-web-1  Stopped\r\n";
    for (flags, variables) in [
        ("--ansi never", &[][..]),
        ("--progress plain", &[]),
        ("", &[("TERM", "dumb")]),
        ("", &[("COMPOSE_ANSI", "never")]),
        ("", &[("COMPOSE_PROGRESS", "plain")]),
    ] {
        let text = written(flags, variables);
        assert!(text.starts_with(plain) && !text.contains('\x1b'), "{flags} {variables:?}: {text:?}");
    }
    assert_eq!(written("--progress quiet", &[]), "");
    let json = written("--progress json", &[]);
    let objects: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(objects.len(), 6, "{json}");
    assert!(written("", &[]).contains("\x1b[32m"), "colours where nothing is said");
    // Lines may still be rewritten in place.
    let text = written("", &[("NO_COLOR", "1")]);
    assert!(!text.contains("\x1b[3") && text.contains("\x1b[K"), "{text:?}");
    assert!(written("--ansi always", &[("NO_COLOR", "1")]).contains("\x1b[32m"));
    assert!(written("--ansi always --progress plain", &[]).contains("\x1b[32mStopped\x1b[0m\r\n"));
}

#[test]
fn ctrl_c_ends_with_130_and_leaves_the_terminal_as_it_was() {
    let desk = Desk::new();
    let lines = desk.agent.streams("POST /v1/projects/shop/down");
    let mut terminal = desk.start("down", (100, 24));
    begin(&lines);
    terminal.shows("1/3");
    terminal.press("\x03");
    let (code, seen) = terminal.finish();
    assert_eq!(code, 130);
    check_clean(&seen);
    assert!(seen.screen().contains("the agent goes on taking the project down"), "{}", seen.screen());
    drop(lines);
}

#[test]
fn what_is_said_between_stands_above_what_is_under_way() {
    let desk = Desk::new();
    let lines = desk.agent.streams("POST /v1/projects/shop/ask");
    let terminal = desk.start("stop", (60, 24));
    begin(&lines);
    lines.send(serde_json::json!({"type": "note", "message": "host `c` does not answer"}).to_string()).expect("heard");
    terminal.shows("host `c` does not answer");
    end(lines);
    let (_, seen) = terminal.finish();
    check_clean(&seen);
    insta::assert_snapshot!(still(&seen.screen()));
}

#[test]
fn more_objects_than_rows_do_not_scroll() {
    let desk = Desk::new();
    let lines = desk.agent.streams("POST /v1/projects/shop/ask");
    let terminal = desk.start("stop", (60, 8));
    for number in 1..=30 {
        lines.send(told(&format!("shop-web-{number}"), "local", "Stopping", "working")).expect("heard");
    }
    let during = terminal.shows("and 25 more");
    assert!(during.starts_with("[+] Stopping 0/30"), "{during}");
    for number in 1..=30 {
        lines.send(told(&format!("shop-web-{number}"), "local", "Stopped", "done")).expect("heard");
    }
    lines.send(serde_json::json!({"type": "done", "revision": 3}).to_string()).expect("heard");
    drop(lines);
    let (_, seen) = terminal.finish();
    check_clean(&seen);
    assert!(seen.screen().starts_with("[+] Stopping 30/30"), "one count, at the top: {}", seen.screen());
}

/// An engine that is asked for an image, beside the agent.
fn engine(desk: &Desk) -> Peer {
    let engine = Peer::listen(&desk.folder.path().join("engine.sock"));
    engine.says("GET /version", 200, r#"{"Version":"24.0.0","ApiVersion":"1.43","Os":"linux","Arch":"amd64"}"#);
    engine.says("GET /info", 200, r#"{"ID":"one"}"#);
    desk.agent.says("GET /v1/projects", 200, "[]");
    engine
}

#[test]
fn pulls_show_their_bytes() {
    let desk = Desk::new();
    let engine = engine(&desk);
    let file = desk.folder.path().join("compose.yaml");
    std::fs::write(&file, "services: {web: {image: 'registry.test/shop/web:1'}}\n").expect("written");
    let lines = engine.streams("POST /images/create");
    let mut command = desk.command("pull");
    command.env("DOCKER_HOST", format!("unix://{}", engine.path().display()));
    let terminal = Pty::start(&command, (80, 24));
    let step = |status: &str, current: u64| {
        serde_json::json!({"id": "0123456789ab", "status": status, "progressDetail": {"current": current, "total": 20_000_000}}).to_string()
    };
    lines.send(step("Downloading", 5_000_000)).expect("heard");
    let screen = terminal.until("bytes", |seen| {
        let screen = seen.screen();
        screen.contains("MB").then_some(screen)
    });
    insta::assert_snapshot!(still(&screen));
    lines.send(step("Download complete", 20_000_000)).expect("heard");
    lines.send(step("Pull complete", 20_000_000)).expect("heard");
    engine.says("GET /images/registry.test/shop/web:1/json", 200, r#"{"Id":"sha256:00"}"#);
    drop(lines);
    let (code, seen) = terminal.finish();
    check_clean(&seen);
    assert_eq!(code, 0, "{}", seen.text());
    assert!(seen.screen().contains("Pulled"), "{}", seen.screen());
}

//! Input made to hurt: it fails with a clear message, and soon.

use std::fmt::Write as _;

use crate::project::Project;

/// Milliseconds that refusing may take: a second, and what a build without optimisation costs.
const LIMIT_MS: u64 = if cfg!(debug_assertions) { 4_000 } else { 1_000 };

/// Milliseconds that this thread has run; what other processes take meanwhile does not count.
fn spent_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts this");
    text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).expect("a number") / 1_000_000
}

/// Fails the test unless `text` is refused with `message` in time.
#[track_caller]
fn check(text: String, message: &str) {
    let project = Project::new([text]);
    let before = spent_ms();
    let problems = project.load().expect_err("this must be refused").to_string();
    let spent = spent_ms() - before;
    assert!(problems.contains(message), "{problems}");
    assert!(spent < LIMIT_MS, "it took {spent} ms");
}

#[test]
fn an_alias_bomb() {
    let mut text = "x-0: &a0 [l, l, l, l, l, l, l, l, l]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        _ = writeln!(text, "x-{level}: &a{level} [{aliases}]");
    }
    check(text + "services: {a: {image: x}}\n", "aliases make this file too large");
}

#[test]
fn an_alias_bomb_of_long_text() {
    let aliases = vec!["*a"; 20_000].join(", ");
    check(format!("x-0: &a {}\nx-1: [{aliases}]\n", "t".repeat(1 << 20)), "aliases make this file too large");
}

#[test]
fn anchors_within_anchors() {
    let open: String = (0..90).fold(String::new(), |open, n| open + "&a" + &n.to_string() + " [");
    let text = format!("x-0: {open}{}{}\n", "l, ".repeat(20_000), "]".repeat(90));
    check(text, "anchors make this file too large");
}

#[test]
fn aliases_that_nest() {
    let mut text = "x-0: &a0 [l]\n".to_owned();
    for level in 1..500 {
        _ = writeln!(text, "x-{level}: &a{level} [*a{}]", level - 1);
    }
    check(text, "nested more than 100 deep");
}

#[test]
fn deep_nesting() {
    check(format!("x-a: {}{}", "[".repeat(10_000), "]".repeat(10_000)), "nested more than 100 deep");
    check(format!("x-a:\n{}x", "- ".repeat(10_000)), "nested more than 100 deep");
    check(format!("x-a: {}", "{a: ".repeat(10_000)), "nested more than 100 deep");
}

#[test]
fn a_huge_file() {
    check("#".repeat((4 << 20) + 1), "larger than 4 MiB");
    check("x-a:\n".to_owned() + &"- 1\n".repeat(1_000_000), "too large");
}

#[test]
fn a_variable_that_grows() {
    let mut env = format!("A0={}\n", "x".repeat(1000));
    for level in 1..30 {
        let before = format!("${{A{}}}", level - 1).repeat(10);
        _ = writeln!(env, "A{level}={before}");
    }
    let mut project = Project::new(["services: {a: {image: x}}\n"]);
    project.files.files.insert("/project/.env".into(), env.into_bytes());
    let problems = project.load().expect_err("this must be refused").to_string();
    assert!(problems.contains("expand to more than 1 MiB"), "{problems}");
}

#[test]
fn many_problems_are_counted_not_shown() {
    let keys: String = (0..1000).fold(String::new(), |keys, n| keys + "    k" + &n.to_string() + ": 1\n");
    check(format!("services:\n  a:\n    image: x\n{keys}"), "and 900 more problems, not shown");
}

#[test]
fn a_long_chain_of_dependencies() {
    let mut text = "services:\n".to_owned();
    for n in 0..5_000 {
        _ = writeln!(text, "  s{n}: {{image: x, depends_on: [s{}]}}", n + 1);
    }
    assert!(Project::new([text + "  s5000: {image: x}\n"]).load().is_ok());
}

#[test]
fn ranges_of_ports() {
    let ports = |key: &str, line: &str| {
        let mut text = format!("services:\n  a:\n    image: x\n    {key}:\n");
        for n in 0..59 {
            _ = writeln!(text, "      - \"{}\"", line.replace('N', &n.to_string()));
        }
        text
    };
    check(ports("ports", "127.0.0.N:1-65000:1-65000"), "more than 20480 ports are published and exposed");
    check(ports("ports", "1-65000:1-65000"), "more than 20480 ports are published and exposed");
    check(ports("expose", "1-65000"), "more than 20480 ports are published and exposed");
    let many: String = (0..60_000).fold(String::new(), |text, n| text + &format!("      - {}\n", n + 1));
    check(format!("services:\n  a:\n    image: x\n    ports:\n{many}"), "more than 20480 ports are published");
    let honest = "services: {a: {image: x, ports: ['10000-20000:10000-20000/udp'], expose: ['10000-20000/udp']}}\n";
    let before = spent_ms();
    assert!(Project::new([honest]).load().is_ok(), "the ports of a telephone server");
    assert!(spent_ms() - before < LIMIT_MS);
}

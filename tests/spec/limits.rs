//! Input made to hurt: it fails with a clear message, and soon.

use std::fmt::Write as _;

use crate::project::Project;

/// Milliseconds that refusing may take: a second, and what a build without optimisation costs.
pub(crate) const LIMIT_MS: u64 = if cfg!(debug_assertions) { 4_000 } else { 1_000 };

/// Milliseconds that this thread has run; what other processes take meanwhile does not count.
pub(crate) fn spent_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts this");
    text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).expect("a number") / 1_000_000
}

/// Fails the test unless `text` is refused with `message` in time.
#[track_caller]
fn check(text: String, message: &str) {
    let project = Project::new([text]);
    let before = spent_ms();
    let problems = project.load_to_run().expect_err("this must be refused").to_string();
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
    let problems = project.load_to_run().expect_err("this must be refused").to_string();
    assert!(problems.contains("expand to more than 1 MiB"), "{problems}");
}

/// Each text is within its limit; all together would fill the memory.
#[test]
fn text_that_many_variables_stand_for() {
    let mut doubled = format!("A0={}\n", "x".repeat(1_000));
    for level in 1..10 {
        _ = writeln!(doubled, "A{level}=${{A{0}}}${{A{0}}}", level - 1);
    }
    let service = "services: {a: {image: x}}\n";
    let message = "variables and their files make this project too large: more than 32 MiB of text";
    let env = |text: String| [(".env".to_owned(), text)];
    let many =
        |count: usize, line: &dyn Fn(usize) -> String| (0..count).fold(String::new(), |text, n| text + &line(n) + "\n");
    check_files(service, env(doubled.clone() + &many(50_000, &|n| format!("B{n}=$A9"))), message);
    let labels = many(50_000, &|n| format!("      l{n}: $A9"));
    check_files(&format!("services:\n  a:\n    image: x\n    labels:\n{labels}"), env(doubled.clone()), message);
    let bare = many(10_000, &|n| format!("  s{n}: {{image: x, environment: [A9], build: {{args: [A8]}}}}"));
    check_files(&format!("services:\n{bare}"), env(doubled.clone()), message);
    let same = many(10_000, &|n| format!("  s{n}: {{image: x, env_file: big.env}}"));
    let big = [("big.env".to_owned(), many(100, &|n| format!("V{n}={}", "v".repeat(10_000))))];
    check_files(&format!("services:\n{same}"), big.clone(), message);
    check_files(&format!("services:\n{}", same.replace("env_file", "label_file")), big.clone(), message);
    let raw = same.replace("env_file: big.env", "env_file: {path: big.env, format: raw}").replace("{path", "[{path");
    check_files(&format!("services:\n{}", raw.replace("raw}", "raw}]")), big, message);
    let asked = many(200, &|n| format!("      l{n}: ${{UNSET:?$A9}}"));
    let project = format!("services:\n  a:\n    image: x\n    labels:\n{asked}");
    check_files(&project, env(doubled), "required variable UNSET is missing a value: xxx");
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

/// A project as people write them for many services: anchors, and three files over it.
fn large(services: usize) -> Vec<String> {
    let mut base = "x-base: &base\n  restart: always\n  environment: &env {A: \"${A:-1}\", B: two, C: \"3\"}\n  \
                    healthcheck: {test: [CMD, \"true\"], interval: 10s}\n  networks: [front]\n  volumes: [\"data:/data\"]\n\
                    services:\n"
        .to_owned();
    for n in 0..services {
        let before = if n > 0 { format!("s{}", n / 2) } else { String::new() };
        _ = writeln!(
            base,
            "  s{n}: {{<<: *base, image: \"x:${{TAG:-{n}}}\", environment: {{<<: *env, N: \"{n}\"}}, ports: [\"{}:80\"], \
             depends_on: [{before}], extends: {{service: common, file: common.yaml}}, x-route: {{host: r{n}.example.com, port: 80}}, expose: [80]}}",
            10_000 + n
        );
    }
    let over = |k: usize| {
        (0..services).fold("services:\n".to_owned(), |text, n| {
            text + &format!(
                "  s{n}: {{environment: {{OVER{k}: \"{n}\"}}, labels: [over={k}], ports: [\"{}:{k}\"]}}\n",
                20_000 + 1_000 * k + n
            )
        })
    };
    [base + "networks: {front: {}}\nvolumes: {data: {}}\n"].into_iter().chain((1..4).map(over)).collect()
}

/// Nothing may grow by more than the file does: four times the services, four times the work, and some room.
#[test]
fn the_work_for_many_services_grows_as_they_do() {
    let spent = |services: usize| {
        let mut project = Project::new(large(services));
        let common = "services: {common: {labels: {common: '1'}, volumes: [./x:/x]}}\n";
        project.files.files.insert("/project/common.yaml".into(), common.into());
        let before = spent_ms();
        let loaded = project.load().unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.model.services.len(), services);
        spent_ms() - before
    };
    spent(50);
    let (few, many) = (spent(250).max(5), spent(1_000));
    assert!(many < few * 8, "250 services take {few} ms, 1000 take {many} ms");
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

/// A service with many entries below one of orch's own keys.
fn many(key: &str, count: usize, line: impl Fn(usize) -> String) -> String {
    let lines: String = (0..count).fold(String::new(), |text, n| text + "      " + &line(n) + "\n");
    format!("services:\n  web:\n    image: x\n    expose: [80]\n    {key}:\n{lines}  db: {{image: x}}\n")
}

/// Fails the test unless `text` loads in time.
#[track_caller]
fn loads(text: String) {
    let project = Project::new([text]);
    let before = spent_ms();
    let loaded = project.load().map_err(|problems| problems.to_string());
    let spent = spent_ms() - before;
    assert!(loaded.is_ok(), "{}", loaded.err().unwrap_or_default());
    assert!(spent < 3 * LIMIT_MS, "it took {spent} ms");
}

#[test]
fn many_stand_ins() {
    let address = |n: usize| format!("127.{}.{}.{}:80", n >> 16, (n >> 8) & 255, n & 255);
    check(
        many("x-ambassadors", 20_000, |n| format!("a{n}: {{listen: '{}', to: nowhere:1}}", address(n))),
        "leads to nothing",
    );
    loads(many("x-ambassadors", 10_000, |n| {
        format!("a{n}: {{listen: '{}', to: 'a.b:1'}}", address(n + 256).replace(":80", ":81"))
    }));
    check(many("x-ambassadors", 40_000, |n| format!("a{n}: 'a.b:1'")), "listen on port 1");
    loads(many("external_links", 15_000, |n| format!("- a-b-c-d-e-f-g-h-i-{n}")));
    check(many("external_links", 100, |n| format!("- '{}{n}'", "-".repeat(20_000))), "does not say which service");
}

#[test]
fn many_routes() {
    let list = |word: &str| (0..100).map(|n| format!("{word}{n}")).collect::<Vec<_>>().join(", ");
    let hosts = list("h");
    let line = |n: usize| format!("- {{host: [{hosts}], path: /{n}, listen: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}}");
    check(many("x-route", 500, line), "routes name more than 100000 pairs of host and port");
    check(many("x-route", 1, |_| format!("- {{host: [{hosts}, one]}}")), "at most 100 entries of `host`");
    loads(many("x-route", 20_000, |_| "- a.example.com".to_owned()));
    loads(many("x-route", 3_000, |n| format!("- {{host: a{n}.example.com, port: 80}}")));
}

#[test]
fn many_helpers() {
    loads(many("x-sidecars", 2_000, |n| format!("s{n}: {{image: x, environment: {{A: {n}}}, tmpfs: /t}}")));
    check(many("x-sidecars", 4_000, |n| format!("s{n}: {{image: x, expose: ['1-9000']}}")), "more than 20480 ports");
    check(many("x-sidecars", 2_000, |n| format!("s{n}: {{image: x, expose: [{}]}}", n % 2 + 1)), "both expose port");
}

#[test]
fn many_uses_of_patterns() {
    let line =
        |n: usize| format!("- {{use: redis-ambassador, with: {{name: r{n}, port: {}, variable: V{n}}}}}", n + 1000);
    check(many("x-patterns", 1_001, line), "patterns are used more than 1000 times");
    let text = many("x-patterns", 1_000, |n| line(n).replace("redis-ambassador", "big"));
    let mut project = Project::new([text]);
    let values: String = (0..5_000).fold(String::new(), |text, n| text + &format!("    K{n}: v\n"));
    let parameters = "parameters: {name: {}, port: {type: port}, variable: {}}\n";
    let pattern = format!("{parameters}service:\n  labels:\n{values}");
    project.files.files.insert("/project/patterns/big.yaml".into(), pattern.into_bytes());
    let before = spent_ms();
    let problems = project.load().expect_err("too large").to_string();
    assert!(problems.contains("patterns make this project too large"), "{problems}");
    assert!(spent_ms() - before < 6 * LIMIT_MS, "it took {} ms", spent_ms() - before);
}

/// Fails the test unless the project is refused with `message` in time.
#[track_caller]
fn check_files(text: &str, files: impl IntoIterator<Item = (String, String)>, message: &str) {
    let mut project = Project::new([text]);
    project.files.files.extend(files.into_iter().map(|(name, text)| (format!("/project/{name}").into(), text.into())));
    let before = spent_ms();
    let problems = project.load().expect_err("this must be refused").to_string();
    let spent = spent_ms() - before;
    assert!(problems.contains(message), "{problems}");
    assert!(spent < 3 * LIMIT_MS, "it took {spent} ms");
}

#[test]
fn long_chains_of_extends_and_include() {
    let mut text = "services:\n  s0: {image: x}\n".to_owned();
    for n in 1..2_000 {
        _ = writeln!(text, "  s{n}: {{extends: s{}}}", n - 1);
    }
    loads(text.clone());
    // The last one comes first, so that nothing is known yet.
    let backwards: String =
        text.lines().skip(1).collect::<Vec<_>>().into_iter().rev().fold(String::new(), |text, line| text + line + "\n");
    check(format!("services:\n{backwards}"), "more than 100 services extend each other in a row");
    let files = (0..200).map(|n| (format!("{n}.inc"), format!("include: [{}.inc]\n", n + 1)));
    check_files("include: [0.inc]\nservices: {}\n", files, "more than 50 files include each other in a row");
}

#[test]
fn copies_of_copies() {
    let big: String = (0..5_000).fold(String::new(), |text, n| text + &format!("      K{n}: v\n"));
    let base = format!("services:\n  base:\n    image: x\n    labels:\n{big}");
    let users: String = (0..500).fold(String::new(), |text, n| text + &format!("  s{n}: {{extends: base}}\n"));
    check(format!("{base}{users}"), "files that others include or extend make this project too large");
    let users = users.replace("extends: base", "extends: {file: base.yaml, service: base}");
    let files = [("base.yaml".to_owned(), base.clone())];
    check_files(&format!("services:\n{users}"), files, "make this project too large");
    // Each of 40 files includes the next one twice.
    let twice = |n: usize| (format!("{n}.inc"), format!("include: [{0}.inc, {0}.inc]\n", n + 1));
    let files = (0..40).map(twice).chain([("40.inc".to_owned(), "services: {}\n".to_owned())]);
    check_files("include: [0.inc]\nservices: {}\n", files, "make this project too large");
    let conflicts = vec!["a.yaml"; 1_000].join(", ");
    let files = [("a.yaml".to_owned(), "services: {base: {image: y}}\n".to_owned())];
    check_files(&format!("include: [{conflicts}]\n{base}"), files, "make this project too large");
}

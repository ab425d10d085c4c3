//! Commands in a real terminal, on a real engine: what processes in containers get of it, and what is left of it after.

use crate::host::{Host, ORCH};
use crate::project::Project;
use crate::pty::Pty;
use crate::wait::secs;

const YAML: &str = "\
services:
  web: {<<: *client, deploy: {replicas: 2}}
  shell: {image: busybox, command: [sh], tty: true, stdin_open: true, stop_signal: SIGKILL}
";

/// Starts orch in a terminal of the host.
fn start(project: &Project<'_>, args: &[&str], size: (u16, u16)) -> Pty {
    let inside = ["setsid", "--ctty", "--wait", "env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=xterm-256color"];
    let path = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", ORCH];
    Pty::open(&mut project.host.command(&[&inside[..], &path[..], &project.args(args)[..]].concat()), size)
}

/// Asks a shell for the size of its terminal until it is this.
#[track_caller]
fn has_size(terminal: &mut Pty, rows: u16, columns: u16) {
    let wanted = format!("size {rows} {columns} end");
    crate::wait::eventually(secs(20), &wanted, || {
        terminal.press("echo size $(stty size) end\r");
        let screen = terminal.shows(" end\n");
        if screen.contains(&wanted) { Ok(()) } else { Err(screen) }
    });
}

#[test]
fn exec_run_and_attach_hand_over_the_terminal_with_its_size_keys_and_end() {
    let host = Host::boot(&["busybox"]);
    let project = Project::new(&host, "terms", YAML);
    project.up();

    let mut terminal = start(&project, &["exec", "-it", "web", "sh"], (80, 24));
    terminal.shows("/ #");
    assert!(!terminal.is_sane(), "every key is the command's");
    has_size(&mut terminal, 24, 80);
    terminal.resize(101, 31);
    has_size(&mut terminal, 31, 101);
    // Ctrl-C ends what the shell runs, not orch.
    terminal.press("sh -c 'echo it be\"\"gins; exec sleep 1000'\r");
    terminal.shows("it begins");
    terminal.press("\x03");
    terminal.press("echo after $?\r");
    terminal.shows("after 130");
    terminal.press("exit 7\r");
    assert_eq!(terminal.finish().0, 7);

    let mut terminal = start(&project, &["run", "--rm", "web", "sh"], (90, 20));
    terminal.shows("/ #");
    has_size(&mut terminal, 20, 90);
    terminal.resize(70, 25);
    has_size(&mut terminal, 25, 70);
    terminal.press("tty; exit 3\r");
    let (code, seen) = terminal.finish();
    assert!(code == 3 && seen.screen().contains("/dev/pts/"), "{code}: {}", seen.screen());

    // The keys for it end the connection, and the process goes on.
    for (keys, flags) in
        [("\x10\x11", &["attach", "shell"][..]), ("\x18x", &["attach", "--detach-keys", "ctrl-x,x", "shell"])]
    {
        let mut terminal = start(&project, flags, (80, 24));
        terminal.press("echo it is $((40 + 2))\r");
        terminal.shows("it is 42");
        has_size(&mut terminal, 24, 80);
        terminal.press(keys);
        assert_eq!(terminal.finish().0, 0, "{flags:?}");
        assert_eq!(project.inspect("terms-shell-1", "{{.State.Running}}"), "true");
    }
    let mut terminal = start(&project, &["exec", "web", "sh", "-c", "echo begun; exec cat"], (80, 24));
    terminal.shows("begun");
    terminal.press("\x10\x11");
    assert_eq!(terminal.finish().0, 0);
    crate::wait::stays(secs(2), "the command goes on", || project.within("terms-web-1", "pidof cat").stdout);
    assert_ne!(project.within("terms-web-1", "pidof cat").stdout, "");
    project.orch(&["down", "-t", "0"]).ok();
}

#[test]
fn up_in_a_narrow_terminal_shows_all_and_ends_by_ctrl_c_with_nothing_left_behind() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web: {<<: *client, deploy: {replicas: 3}}
  talker: {image: busybox, command: [sh, -c, 'echo begun; exec sleep 1000000'], stop_signal: SIGKILL, depends_on: [web]}
";
    let project = Project::new(&host, "narrow", yaml);
    project.orch(&["up", "--no-start"]).ok(); // the agent is there
    project.orch(&["down"]).ok();
    let mut terminal = start(&project, &["up"], (50, 24));
    terminal.until("all of it in the foreground", |seen| seen.screen().contains("talker-1  | begun").then_some(()));
    terminal.press("\x03");
    terminal.until("the stop", |seen| seen.text().contains("Stopped").then_some(()));
    let (code, seen) = terminal.finish();
    assert_eq!(code, 130, "{}", seen.screen());
    let text = seen.text();
    assert!(text.contains("Running 5/5") && !text.contains("\x1b[2J") && seen.has_cursor(), "{text:?}");
    let over: Vec<&String> = seen.wrapped.iter().filter(|line| line.contains("Container")).collect();
    assert!(over.is_empty(), "lines of progress that are wider than the terminal: {over:?}");
    assert_eq!(project.running("").len(), 0);

    let terminal = start(&project, &["ps", "-a"], (50, 24));
    assert_eq!(terminal.finish().0, 0);
    let terminal = start(&project, &["down"], (50, 24));
    let (code, seen) = terminal.finish();
    assert_eq!((code, &seen.wrapped), (0, &Vec::new()), "{}", seen.screen());
    assert!(seen.screen().contains("Removed") && seen.has_cursor(), "{}", seen.screen());
}

#[test]
fn keys_below_the_output_of_up_detach_and_watch_and_never_stand_between_lines() {
    let host = Host::boot(&["busybox"]);
    let yaml = "\
services:
  web:
    image: busybox
    command: [sh, -c, 'i=0; while :; do i=$$((i + 1)); echo line $$i end; sleep 0.05; done']
    init: true
    develop: {watch: [{path: src, action: sync, target: /srv}]}
";
    let project = Project::new(&host, "keys", yaml);
    host.sh("mkdir keys/src");
    project.orch(&["up", "--no-start"]).ok(); // the agent is there
    // Nobody asks for it: no key is taken.
    let mut terminal = start(&project, &["up"], (80, 24));
    terminal.shows("line 20 end");
    assert!(terminal.is_sane());
    terminal.press("\x03");
    let (code, seen) = terminal.finish();
    assert!(code == 130 && !seen.text().contains("Detach"), "{}", seen.screen());

    let mut terminal = start(&project, &["up", "--menu"], (80, 24));
    terminal.until("keys below", |seen| {
        let last = seen.screen().lines().last().unwrap_or_default().to_owned();
        (last == "   d Detach   w Enable Watch   ctrl-c Stop").then_some(())
    });
    terminal.press("x");
    terminal.press("w");
    terminal.shows("Watch enabled");
    terminal.shows("w Disable Watch");
    host.sh("echo 1 >keys/src/a");
    crate::wait::eventually(secs(20), "the file to be there", || {
        let seen = project.within("keys-web-1", "cat /srv/a");
        if seen.stdout.trim() == "1" { Ok(()) } else { Err(seen.stderr) }
    });
    terminal.press("w");
    terminal.shows("w Enable Watch");
    terminal.press("d");
    let (code, seen) = terminal.finish();
    assert_eq!(code, 0, "{}", seen.screen());
    assert!(!seen.screen().contains("d Detach") && seen.has_cursor(), "{}", seen.screen());
    let lines: Vec<String> = seen.screen().lines().filter(|line| line.contains("| line")).map(str::to_owned).collect();
    assert!(lines.len() > 5 && lines.iter().all(|line| line.ends_with(" end")), "{lines:?}");
    assert_eq!(project.running("web").len(), 1, "it goes on");

    // Ctrl-C is what it was.
    let mut terminal = start(&project, &["up", "--menu"], (80, 24));
    terminal.shows("d Detach");
    terminal.press("\x03");
    let (code, seen) = terminal.finish();
    assert!(code == 130 && !seen.screen().contains("d Detach"), "{code}: {}", seen.screen());
    project.down();
}

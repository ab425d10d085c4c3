use clap::CommandFactory as _;

use super::*;

#[test]
fn the_tree_of_commands_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_wrong_flag_ends_with_1_as_in_docker_compose() {
    for wrong in [&["orch", "--nonsense"][..], &["orch", "nonsense"], &["orch", "version", "--format", "x"]] {
        let usage = Cli::parse_args(wrong).expect_err("wrong");
        assert_eq!(usage.print(), Exit::Failure, "{wrong:?}");
    }
    for help in [&["orch"][..], &["orch", "--help"], &["orch", "--version"]] {
        assert_eq!(Cli::parse_args(help).expect_err("help").print(), Exit::Success, "{help:?}");
    }
}

#[test]
fn the_agent_is_run_or_looked_after() {
    let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
    for verb in ["logs", "status", "stop", "uninstall"] {
        let command = parse(&format!("orch agent {verb}")).expect(verb);
        assert!(matches!(command, Command::Agent(AgentArgs { verb: Some(_), run: None })), "{verb}");
    }
    let command = parse("orch agent --state /var/lib/orch --run /run/orch").expect("the agent's own call");
    let Command::Agent(AgentArgs { verb: None, run: Some(run) }) = command else { panic!("{command:?}") };
    assert_eq!(run.host.as_str(), "local");
    assert!(parse("orch agent --state /x").is_err() && parse("orch agent").is_err());
}

#[test]
fn flags_that_orch_does_not_have_are_refused() {
    for line in [
        "up --build --no-build",
        "up -w -d",
        "up -w --no-build",
        "up --menu --wait",
        "down --rmi some",
        "ps --filter x=y",
        "ls --filter x=y",
        "up -d --attach web",
    ] {
        let arguments = format!("orch {line}");
        assert!(Cli::try_parse_from(arguments.split(' ')).is_err(), "{line}");
    }
}

#[test]
fn the_flag_that_a_refusal_advises_is_there() {
    let refusal = crate::transport::bootstrap::Refusal::Newer { agent: "9.0.0".into(), own: "0.1.0".into() };
    let message = refusal.to_string();
    let advice = message.split('`').nth(1).expect("a command in backticks");
    let cli = Cli::try_parse_from(advice.split(' ')).expect("it is understood");
    assert!(matches!(cli.command, Command::Up(UpArgs { allow_downgrade: true, .. })), "{advice}");
}

#[test]
fn every_command_that_tells_something_tells_it_as_json() {
    for command in [
        "ls",
        "ps",
        "plan",
        "config",
        "agent status",
        "up -d",
        "down",
        "events",
        "images",
        "volumes",
        "stats",
        "version",
        "pattern ls",
        "pattern show x",
        "pattern lint x",
    ] {
        let line = format!("orch {command} --format json");
        assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
}

#[test]
fn values_of_flags_are_checked() {
    let scale = |text: &str| Cli::try_parse_from(["orch", "up", "--scale", text]).is_ok();
    assert!(scale("web=3") && scale("web=0"));
    assert!(!scale("web") && !scale("web=-1") && !scale("web=x") && !scale("we b=1"));
    assert_eq!(
        (parse_tail("all"), parse_tail("-1"), parse_tail("5")),
        (Ok(Tail::All), Ok(Tail::All), Ok(Tail::Lines(5)))
    );
    assert!(parse_tail("five").is_err());
}

#[test]
fn help_is_as_reviewed() {
    let mut text = String::new();
    let all = ["", "up", "down", "build", "pull", "push", "ps", "logs", "exec"];
    for words in all.map(|name| if name.is_empty() { vec!["orch"] } else { vec!["orch", name] }) {
        let mut command = Cli::command().term_width(100);
        command.build();
        let command = words[1..].iter().try_fold(&mut command, |command, word| command.find_subcommand_mut(word));
        text += &command.expect("a command").render_help().to_string();
        text += "----\n";
    }
    insta::assert_snapshot!(text);
}

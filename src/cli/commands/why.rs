//! `orch why`: the reasons that the agents have for how something is, so that nobody has to guess them from logs.

use std::fmt::Write as _;

use crate::api::types::{Finding, RouteQuestion, Weight, WhyQuestion, WhyTold};
use crate::cli::args::{TextFormat, WhyArgs};
use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Asks the agent.
///
/// # Errors
/// When there is no project, it has nothing of that name, or no agent answers.
pub(crate) async fn run(context: &mut Context<'_>, args: WhyArgs) -> Result<(), CliError> {
    let told = if args.about.contains("://") {
        // It may be for any project.
        let question = RouteQuestion { url: args.about, method: args.method, headers: args.headers };
        context.any_agent().await?.route(&question).await?
    } else {
        ask(context, args.about).await?
    };
    match args.format {
        TextFormat::Json => context.ui.json(&told),
        TextFormat::Text => context.ui.data(text(&told).as_bytes()),
    }
}

/// Asks one agent for everything, and the others for what only they see: their load balancers and pods.
async fn ask(context: &mut Context<'_>, about: String) -> Result<WhyTold, CliError> {
    let project = context.project_name()?;
    let Some(fleet) = context.fleet()? else {
        return Ok(context.client().await?.why(&project, &WhyQuestion { about, only_here: false }).await?);
    };
    let seen = fleet.look().await?;
    let mut told = seen.client.why(&project, &WhyQuestion { about: about.clone(), only_here: false }).await?;
    let mut others = context.present(&fleet, &seen.status);
    others.retain(|host| *host.name() != seen.status.host);
    let (project, question) = (&project, &WhyQuestion { about, only_here: true });
    let answers = fleet.ask_all(&others, |host| async move {
        let client = host.agent().await?;
        client.why(project, question).await.map_err(|error| host.failed(error))
    });
    for (host, answer) in answers.await {
        match answer {
            Ok(answer) => {
                // What the seat has heard of already is told once.
                let new =
                    answer.findings.into_iter().filter(|one| !told.findings.iter().any(|known| known.text == one.text));
                let new = new.map(|one| Finding { text: format!("seen from `{}`: {}", host.name(), one.text), ..one });
                told.findings.extend(new.collect::<Vec<_>>());
            }
            Err(error) => context.leave_out(host.name(), &error.to_string()),
        }
    }
    told.findings.sort_by_key(|finding| finding.weight);
    Ok(told)
}

fn text(told: &WhyTold) -> String {
    let mut text = format!("{}\n", told.about);
    for Finding { weight, text: what, hint } in &told.findings {
        let mark = match weight {
            Weight::Problem => '!',
            Weight::Waiting => '~',
            Weight::Fine => '✓',
        };
        writeln!(text, "  {mark} {what}").expect("a string takes all");
        for line in hint.iter().flat_map(|hint| hint.lines()) {
            writeln!(text, "    {line}").expect("a string takes all");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_have_a_mark_and_a_hint() {
        let finding = |weight, text: &str, hint: Option<&str>| Finding {
            weight,
            text: text.to_owned(),
            hint: hint.map(str::to_owned),
        };
        let told = WhyTold {
            about: "service `web`".to_owned(),
            findings: vec![
                finding(
                    Weight::Problem,
                    "container shop-web-1 ended with 1, by itself",
                    Some("`orch logs web` shows more"),
                ),
                finding(Weight::Waiting, "1 of its 2 pods are ready", None),
                finding(Weight::Fine, "port 8080/tcp of each host leads to its port 80", None),
            ],
        };
        insta::assert_snapshot!(text(&told), @"
        service `web`
          ! container shop-web-1 ended with 1, by itself
            `orch logs web` shows more
          ~ 1 of its 2 pods are ready
          ✓ port 8080/tcp of each host leads to its port 80
        ");
    }
}

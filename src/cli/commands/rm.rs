//! `orch rm`: containers that do not run are removed, and no others come until the next `up`.

use std::collections::BTreeSet;

use crate::cli::args::RmArgs;
use crate::cli::consent;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::life::{How, Life};
use crate::plan::{Ask, Plan, Step};

/// Removes containers, after asking.
///
/// # Errors
/// When there is no such service, or something cannot be removed.
pub(crate) async fn run(context: &mut Context<'_>, args: &RmArgs) -> Result<(), CliError> {
    let ask = Ask::Remove { stop: args.stop, volumes: args.volumes, timeout_secs: None };
    let life = Life::new(context, ask, &args.services).await?;
    let names = life.plan(context).await?.map(|plan| removed(&plan)).unwrap_or_default();
    if names.is_empty() {
        context.ui.say("No stopped containers");
        return Ok(());
    }
    let dry_run = args.dry_run || context.global.dry_run;
    if !dry_run {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        context.ui.say(&format!("Going to remove {}", names.join(", ")));
        if !args.force && !consent::is_sure(context.ui).await? {
            return Ok(());
        }
    }
    life.run(context, How { dry_run, ..How::default() }).await.map(drop)
}

fn removed(plan: &Plan) -> BTreeSet<String> {
    let names = plan.steps.iter().filter_map(|planned| match &planned.step {
        Step::RemoveContainer { name, .. } => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

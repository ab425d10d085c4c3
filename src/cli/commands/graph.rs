//! `orch graph`: the project as a picture, from the files as `up` would read them.

use crate::cli::args::{GraphArgs, GraphFormat, Selection};
use crate::cli::context::{Context, if_there};
use crate::cli::drawing::{Drawing, Placed};
use crate::cli::error::CliError;
use crate::cli::project::with_dependencies;
use crate::ids::ProjectName;

/// Prints the graph.
///
/// # Errors
/// When the files are wrong, nobody says where pods are, or the output cannot be written.
pub(crate) async fn run(context: &mut Context<'_>, args: &GraphArgs) -> Result<(), CliError> {
    let project = context.load_graph(&Selection { services: args.services.clone(), ..Selection::default() })?;
    let mut graph = project.graph.clone();
    if !args.services.is_empty() {
        let wanted = with_dependencies(&graph, &args.services);
        let shown = |name| wanted.contains(name) || wanted.contains(graph.front(name));
        let shown: Vec<_> = graph.services.keys().filter(|name| shown(*name)).cloned().collect();
        graph.services.retain(|name, _| shown.contains(name));
    }
    let placed = if args.placed { placed(context, project.name()).await? } else { Placed::new() };
    let drawing = Drawing::of(&graph, &placed);
    let text = match args.format {
        GraphFormat::Text => drawing.text(context.ui.colour() && args.output.is_none()),
        GraphFormat::Dot => drawing.dot(),
        GraphFormat::Svg => drawing.svg(),
        GraphFormat::Json => {
            serde_json::to_string_pretty(&drawing).map_err(|error| CliError::Output(std::io::Error::other(error)))?
                + "\n"
        }
    };
    match &args.output {
        Some(path) => context.write(path, text),
        None => context.ui.data(text.as_bytes()),
    }
}

/// Where the project's pods are now; nothing of one that is not up.
async fn placed(context: &mut Context<'_>, project: &ProjectName) -> Result<Placed, CliError> {
    let client = context.any_agent().await?;
    let Some(status) = if_there(client.project(project).await)? else {
        context.ui.say("no agent knows this project: it is not up");
        return Ok(Placed::new());
    };
    let pods = status.pods.into_iter().filter(|pod| pod.wanted);
    Ok(pods.filter_map(|pod| Some((pod.pod, pod.host?))).collect())
}

//! `orch ls`: all projects of the host, Docker Compose's own too.

use std::collections::BTreeMap;

use regex_automata::meta::Regex;
use serde::Serialize;

use crate::api::types::ProjectSummary;
use crate::cli::args::{LsArgs, TableFormat};
use crate::cli::context::{Context, if_there};
use crate::cli::error::CliError;
use crate::cli::table;
use crate::cli::ui::Ui;
use crate::engine::{Engine, label};
use crate::ids::ProjectName;
use crate::observed::ObservedHost;

/// Lists projects.
///
/// # Errors
/// When neither agent nor engine answers.
pub(crate) async fn run(context: &mut Context<'_>, args: &LsArgs) -> Result<(), CliError> {
    let projects = match context.fleet_without_project()? {
        Some(fleet) => {
            let seen = fleet.look().await?;
            context.tell_down(&seen.status);
            seen.client.projects().await?
        }
        None => match if_there(context.client().await?.projects().await)? {
            Some(projects) => projects,
            None => seen(context.engine().await?.observe(None).await?),
        },
    };
    print(context.ui, projects, args)
}

/// What the engine shows, in the agent's form.
fn seen(observed: ObservedHost) -> Vec<ProjectSummary> {
    let mut projects: BTreeMap<ProjectName, ProjectSummary> = BTreeMap::new();
    for container in observed.containers.into_values() {
        let Some(name) = container.project else { continue };
        let files =
            container.labels.get(label::CONFIG_FILES).map(|files| files.split(',').map(str::to_owned).collect());
        let project = projects.entry(name.clone()).or_insert_with(|| ProjectSummary {
            name,
            revision: None,
            states: BTreeMap::new(),
            config_files: files.unwrap_or_default(),
            unplaced: Vec::new(),
        });
        *project.states.entry(container.state.word().to_owned()).or_default() += 1;
    }
    projects.into_values().collect()
}

fn print(ui: &mut Ui, mut projects: Vec<ProjectSummary>, args: &LsArgs) -> Result<(), CliError> {
    let names: Vec<Name> = args.names.iter().map(|pattern| Name::new(pattern)).collect();
    projects.retain(|project| args.all || project.states.contains_key("running"));
    projects.retain(|project| names.is_empty() || names.iter().any(|name| name.takes(project.name.as_str())));
    projects.sort_by(|a, b| a.name.cmp(&b.name));
    if args.quiet {
        return projects.iter().try_for_each(|project| ui.line(project.name.as_str()));
    }
    match args.format {
        TableFormat::Json => ui.json(&projects.iter().map(object).collect::<Vec<_>>()),
        TableFormat::Table => {
            let rows: Vec<_> =
                projects.iter().map(object).map(|row| [row.name, row.status, row.config_files]).collect();
            ui.data(table::render(["NAME", "STATUS", "CONFIG FILES"], &rows).as_bytes())
        }
    }
}

/// What names are asked for: a regular expression, or the name itself where it is none.
enum Name {
    Pattern(Box<Regex>),
    Exact(String),
}

impl Name {
    fn new(pattern: &str) -> Self {
        Regex::new(pattern).map_or_else(|_| Self::Exact(pattern.to_owned()), |pattern| Self::Pattern(Box::new(pattern)))
    }

    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.is_match(name),
            Self::Exact(exact) => exact == name,
        }
    }
}

/// A project as JSON, with Docker Compose's keys.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    name: String,
    status: String,
    config_files: String,
}

fn object(project: &ProjectSummary) -> Object {
    let states = project.states.iter().map(|(state, count)| format!("{state}({count})"));
    Object {
        name: project.name.to_string(),
        status: states.collect::<Vec<_>>().join(", "),
        config_files: project.config_files.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ui::Style;
    use crate::cli::ui::testing::ui;

    fn show(args: &LsArgs) -> String {
        let project = |name: &str, states: &[(&str, usize)]| ProjectSummary {
            name: ProjectName::new(name).expect("valid"),
            revision: None,
            states: states.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect(),
            config_files: vec![format!("/srv/{name}/compose.yaml")],
            unplaced: Vec::new(),
        };
        let projects = vec![project("shop", &[("running", 3), ("exited", 1)]), project("old", &[("exited", 2)])];
        let (mut ui, out, _) = ui(Style::Plain);
        print(&mut ui, projects, args).expect("printed");
        out.take()
    }

    #[test]
    fn running_projects_are_listed() {
        insta::assert_snapshot!(show(&LsArgs::default()), @"
        NAME      STATUS                  CONFIG FILES
        shop      exited(1), running(3)   /srv/shop/compose.yaml
        ");
    }

    #[test]
    fn names_are_asked_for_by_patterns() {
        let names = |pattern: &str| {
            show(&LsArgs { all: true, quiet: true, names: vec![pattern.to_owned()], ..LsArgs::default() })
        };
        assert_eq!((names("o"), names("^o"), names("l.$")), ("old\nshop\n".into(), "old\n".into(), "old\n".into()));
        assert_eq!((names("old["), names("x")), (String::new(), String::new()));
    }

    #[test]
    fn all_projects_can_be_listed_in_every_form() {
        let all = LsArgs { all: true, ..LsArgs::default() };
        assert_eq!(show(&LsArgs { quiet: true, ..all.clone() }), "old\nshop\n");
        insta::assert_snapshot!(show(&LsArgs { format: TableFormat::Json, ..all }), @r#"[{"Name":"old","Status":"exited(2)","ConfigFiles":"/srv/old/compose.yaml"},{"Name":"shop","Status":"exited(1), running(3)","ConfigFiles":"/srv/shop/compose.yaml"}]"#);
    }
}

//! `orch images`: what the project's containers were made of, on all hosts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::among::{self, Among, Which};
use crate::cli::args::{ImagesArgs, TableFormat};
use crate::cli::context::{Context, now};
use crate::cli::error::CliError;
use crate::cli::table::{self, Spacing};
use crate::cli::ui::Ui;
use crate::cli::{size, words};
use crate::engine::by_hand::ImageDetails;

use super::ps::SHORT_ID;

/// Columns of the table. Source: observed from Docker Compose 2.40.
const SPACING: Spacing = Spacing { least: 20, gap: 3 };
/// What stands for the name of an image that has none.
const NO_NAME: &str = "<none>";

/// Lists the images of the project's containers.
///
/// # Errors
/// When there is no project, an unknown service is named, or no engine answers.
pub(crate) async fn run(context: &mut Context<'_>, args: &ImagesArgs) -> Result<(), CliError> {
    let which = Which { services: &args.services, stopped: true, oneoffs: true };
    let among = among::find(context, which).await?;
    let listed = look(&among).await?;
    print(context.ui, &listed, among.is_spread(), args, now())
}

/// A container's image.
struct Listed {
    container: String,
    host: String,
    image: ImageDetails,
}

/// Looks at each image once on each host; one that is gone from there is known by its id.
async fn look(among: &Among) -> Result<Vec<Listed>, CliError> {
    let mut known: BTreeMap<(usize, &str), ImageDetails> = BTreeMap::new();
    let mut listed = Vec::new();
    for (at, container) in &among.containers {
        let source = among.source(*at);
        let key = (*at, container.image_id.as_str());
        let seen = known.get(&key).cloned();
        let image = if let Some(image) = seen {
            image
        } else {
            let details = source.engine.image_details(key.1).await.map_err(|error| source.failed(error))?;
            let gone = || ImageDetails { id: container.image_id.clone(), ..ImageDetails::default() };
            let image = details.unwrap_or_else(gone);
            known.insert(key, image.clone());
            image
        };
        listed.push(Listed { container: container.name.clone(), host: source.name.to_string(), image });
    }
    Ok(listed)
}

fn print(ui: &mut Ui, listed: &[Listed], is_spread: bool, args: &ImagesArgs, now: Timestamp) -> Result<(), CliError> {
    if args.quiet {
        let mut said: Vec<&str> = Vec::new();
        for one in listed {
            let id = bare(&one.image.id);
            if !said.contains(&id) {
                ui.line(id)?;
                said.push(id);
            }
        }
        return Ok(());
    }
    match args.format {
        TableFormat::Json => ui.json(&listed.iter().map(|one| object(one, is_spread)).collect::<Vec<_>>()),
        TableFormat::Table => {
            let mut header = ["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"]
                .map(str::to_owned)
                .to_vec();
            let mut rows: Vec<Vec<String>> = listed.iter().map(|one| row(one, now)).collect();
            if is_spread {
                header.insert(1, "HOST".to_owned());
                rows.iter_mut().zip(listed).for_each(|(row, one)| row.insert(1, one.host.clone()));
            }
            ui.data(table::render_spaced(&header, &rows, SPACING).as_bytes())
        }
    }
}

fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// Repository and tag. The part behind the last colon is a tag only where no `/` follows it: `host:5000/name`.
fn name(image: &ImageDetails) -> (&str, &str) {
    let tag = image.tags.first().and_then(|name| name.rsplit_once(':')).filter(|(_, tag)| !tag.contains('/'));
    tag.unwrap_or((NO_NAME, NO_NAME))
}

fn row(listed: &Listed, now: Timestamp) -> Vec<String> {
    let image = &listed.image;
    let (repository, tag) = name(image);
    let id = bare(&image.id);
    vec![
        listed.container.clone(),
        repository.to_owned(),
        tag.to_owned(),
        image.platform.clone(),
        id.get(..SHORT_ID).unwrap_or(id).to_owned(),
        size::decimal(image.size),
        words::ago(&image.created, now),
    ]
}

/// An image as JSON, with Docker Compose's keys; `Host` is orch's.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Object<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    container_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    repository: &'a str,
    tag: &'a str,
    platform: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    created: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    last_tag_time: &'a str,
}

fn object(listed: &Listed, is_spread: bool) -> Object<'_> {
    let image = &listed.image;
    let (repository, tag) = name(image);
    Object {
        id: &image.id,
        container_name: &listed.container,
        host: is_spread.then_some(listed.host.as_str()),
        repository,
        tag,
        platform: &image.platform,
        size: image.size,
        created: &image.created,
        // Old engines do not know of what was loaded.
        last_tag_time: if image.tagged.starts_with("0001") { &image.created } else { &image.tagged },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ui::Style;
    use crate::cli::ui::testing::ui;

    fn show(is_spread: bool, args: &ImagesArgs) -> String {
        let listed = |container: &str, host: &str, digit: u8, tags: &[&str]| Listed {
            container: container.to_owned(),
            host: host.to_owned(),
            image: ImageDetails {
                id: format!("sha256:{digit:064}"),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                platform: "linux/amd64".to_owned(),
                size: 1_984_548,
                created: "2026-11-21T15:00:00Z".to_owned(),
                tagged: String::new(),
                command: Vec::new(),
            },
        };
        let listed = [
            listed("shop-db-1", "a", 1, &["localhost:5000/redis:7"]),
            listed("shop-web-1", "a", 2, &[]),
            listed("shop-web-2", "b", 2, &[]),
        ];
        let (mut ui, out, _) = ui(Style::Plain);
        let now = "2026-11-21T15:02:03Z".parse().expect("a time");
        print(&mut ui, &listed, is_spread, args, now).expect("printed");
        out.take()
    }

    #[test]
    fn the_table_is_docker_composes() {
        insta::assert_snapshot!(show(false, &ImagesArgs::default()), @r"
        CONTAINER           REPOSITORY             TAG                 PLATFORM            IMAGE ID            SIZE                CREATED
        shop-db-1           localhost:5000/redis   7                   linux/amd64         000000000000        1.98MB              2 minutes ago
        shop-web-1          <none>                 <none>              linux/amd64         000000000000        1.98MB              2 minutes ago
        shop-web-2          <none>                 <none>              linux/amd64         000000000000        1.98MB              2 minutes ago
        ");
    }

    #[test]
    fn hosts_are_named_where_there_are_several_and_ids_are_said_once() {
        let table = show(true, &ImagesArgs::default());
        assert!(table.starts_with("CONTAINER           HOST                REPOSITORY"), "{table}");
        let quiet = show(true, &ImagesArgs { quiet: true, ..ImagesArgs::default() });
        assert_eq!(quiet, format!("{:064}\n{:064}\n", 1, 2));
    }

    #[test]
    fn json_is_a_list_with_docker_composes_keys() {
        let json = show(true, &ImagesArgs { format: TableFormat::Json, ..ImagesArgs::default() });
        let list: Vec<serde_json::Value> = serde_json::from_str(&json).expect("a list");
        let keys: Vec<&str> = list[0].as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["ID", "ContainerName", "Host", "Repository", "Tag", "Platform", "Size", "Created"]);
        assert_eq!((list.len(), &list[0]["Tag"], &list[2]["Host"]), (3, &"7".into(), &"b".into()));
    }
}

//! `orch volumes`: the project's named volumes, on all hosts.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::cli::among::{self, Among, Which};
use crate::cli::args::{ListFormat, VolumesArgs};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::source;
use crate::cli::ui::Ui;
use crate::cli::{table, template};
use crate::engine::by_hand::VolumeDetails;
use crate::observed::ObservedVolume;

/// What the engine's client says of what it does not know.
const UNKNOWN: &str = "N/A";

/// Lists the volumes that the project made, or those of them that containers of the named services mount.
///
/// # Errors
/// When there is no project, an unknown service is named, or no engine answers.
pub(crate) async fn run(context: &mut Context<'_>, args: &VolumesArgs) -> Result<(), CliError> {
    let which = Which { services: &args.services, stopped: true, oneoffs: false };
    let among = among::find(context, which).await?;
    let listed = look(&among, args).await?;
    print(context.ui, &listed, among.is_spread(), args)
}

/// A volume on a host.
struct Listed {
    host: String,
    volume: ObservedVolume,
    /// Asked for only where it is shown.
    details: VolumeDetails,
}

async fn look(among: &Among, args: &VolumesArgs) -> Result<Vec<Listed>, CliError> {
    let mounted: BTreeSet<(usize, &str)> =
        among.containers.iter().flat_map(|(at, one)| one.volumes.values().map(|name| (*at, name.as_str()))).collect();
    // What cannot be asked was told when the containers were looked for.
    let (hosts, _) = source::observe(&among.sources, &among.project).await.some()?;
    let mut listed = Vec::new();
    for (at, host) in hosts {
        let source = among.source(at);
        let ours = host.volumes.into_values().filter(|volume| volume.belongs_to(&among.project));
        for volume in ours.filter(|volume| args.services.is_empty() || mounted.contains(&(at, volume.name.as_str()))) {
            let details = match args.format {
                ListFormat::Table => None,
                ListFormat::Json | ListFormat::Template(_) => {
                    let details = source.engine.volume_details(&volume.name).await;
                    details.map_err(|error| source.failed(error))?
                }
            };
            listed.push(Listed { host: source.name.to_string(), volume, details: details.unwrap_or_default() });
        }
    }
    listed.sort_by(|one, other| (&one.volume.name, &one.host).cmp(&(&other.volume.name, &other.host)));
    Ok(listed)
}

fn print(ui: &mut Ui, listed: &[Listed], is_spread: bool, args: &VolumesArgs) -> Result<(), CliError> {
    if args.quiet {
        let mut names: Vec<&str> = listed.iter().map(|one| one.volume.name.as_str()).collect();
        names.dedup();
        return names.into_iter().try_for_each(|name| ui.line(name));
    }
    match &args.format {
        ListFormat::Template(template) => {
            template.print(ui, &template::values(listed.iter().map(|one| object(one, is_spread)))?)
        }
        ListFormat::Json => listed.iter().try_for_each(|one| ui.json(&object(one, is_spread))),
        ListFormat::Table if is_spread => {
            let row = |one: &Listed| [one.volume.driver.clone(), one.volume.name.clone(), one.host.clone()];
            let rows: Vec<_> = listed.iter().map(row).collect();
            ui.data(table::render(["DRIVER", "VOLUME NAME", "HOST"], &rows).as_bytes())
        }
        ListFormat::Table => {
            let rows: Vec<_> = listed.iter().map(|one| [one.volume.driver.clone(), one.volume.name.clone()]).collect();
            ui.data(table::render(["DRIVER", "VOLUME NAME"], &rows).as_bytes())
        }
    }
}

/// A volume as JSON, with the engine's client's keys; `Host` is orch's.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Object<'a> {
    availability: &'static str,
    driver: &'a str,
    group: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    labels: String,
    links: &'static str,
    mountpoint: &'a str,
    name: &'a str,
    scope: &'a str,
    size: &'static str,
    status: &'static str,
}

fn object(listed: &Listed, is_spread: bool) -> Object<'_> {
    let Listed { host, volume, details } = listed;
    let labels: Vec<String> = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Object {
        availability: UNKNOWN,
        driver: &volume.driver,
        group: UNKNOWN,
        host: is_spread.then_some(host),
        labels: labels.join(","),
        links: UNKNOWN,
        mountpoint: &details.mountpoint,
        name: &volume.name,
        scope: &details.scope,
        size: UNKNOWN,
        status: UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ui::Style;
    use crate::cli::ui::testing::ui;

    fn show(is_spread: bool, args: &VolumesArgs) -> String {
        let listed = |name: &str, host: &str| Listed {
            host: host.to_owned(),
            volume: ObservedVolume {
                name: name.to_owned(),
                driver: "local".to_owned(),
                labels: [("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            },
            details: VolumeDetails { mountpoint: format!("/v/{name}"), scope: "local".to_owned() },
        };
        let (mut ui, out, _) = ui(Style::Plain);
        print(&mut ui, &[listed("shop_data", "a"), listed("shop_data", "b")], is_spread, args).expect("printed");
        out.take()
    }

    #[test]
    fn the_table_is_docker_composes_and_names_hosts_where_there_are_several() {
        insta::assert_snapshot!(show(false, &VolumesArgs::default()), @r"
        DRIVER    VOLUME NAME
        local     shop_data
        local     shop_data
        ");
        insta::assert_snapshot!(show(true, &VolumesArgs::default()), @r"
        DRIVER    VOLUME NAME   HOST
        local     shop_data     a
        local     shop_data     b
        ");
        assert_eq!(show(true, &VolumesArgs { quiet: true, ..VolumesArgs::default() }), "shop_data\n");
    }

    #[test]
    fn json_is_an_object_a_line() {
        let json = show(false, &VolumesArgs { format: ListFormat::Json, ..VolumesArgs::default() });
        insta::assert_snapshot!(json.lines().next().expect("a line"), @r#"{"Availability":"N/A","Driver":"local","Group":"N/A","Labels":"a=1,b=2","Links":"N/A","Mountpoint":"/v/shop_data","Name":"shop_data","Scope":"local","Size":"N/A","Status":"N/A"}"#);
    }
}

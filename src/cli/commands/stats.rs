//! `orch stats`: what the project's containers use, on all hosts; a live table on a terminal.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::cli::among::{self, Among, Which};
use crate::cli::args::{ListFormat, StatsArgs};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::signals::Interrupts;
use crate::cli::size;
use crate::cli::source::Source;
use crate::cli::ui::Ui;
use crate::cli::{table, template};
use crate::engine::EngineError;
use crate::engine::by_hand::Usage;

use super::ps::SHORT_ID;

/// How often the live table is drawn. Source: docker/cli, cli/command/container/stats.go.
const EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether containers came or went.
const LOOK: u32 = 4;

/// Shows what containers use, once or until interrupted.
///
/// # Errors
/// When there is no project, an unknown service is named, or no engine answers.
pub(crate) async fn run(context: &mut Context<'_>, args: &StatsArgs) -> Result<(), CliError> {
    let services: Vec<_> = args.service.iter().cloned().collect();
    let which = Which { services: &services, stopped: args.all, oneoffs: true };
    let among = among::find(context, which).await?;
    if args.no_stream {
        let looks = among.containers.iter().map(|(at, one)| once(among.source(*at), &one.id));
        let usages = join_all(looks).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let rows = listed(&among, usages.into_iter().map(Option::Some));
        return print(context.ui, &rows, among.is_spread(), args);
    }
    let mut interrupts = Interrupts::listen()?;
    interrupts.unless(live(context, args, which, among)).await
}

/// One answer; nothing for one that is gone since.
async fn once(source: &Source, id: &str) -> Result<Usage, CliError> {
    match source.engine.usage(id, true).next().await {
        Some(Ok(usage)) => Ok(usage),
        None | Some(Err(EngineError::NotFound { .. } | EngineError::Conflict { .. })) => Ok(Usage::default()),
        Some(Err(error)) => Err(source.failed(error)),
    }
}

/// What follows one container.
struct Followed {
    id: String,
    usage: watch::Receiver<Option<Usage>>,
}

/// Draws what the engines say, until nobody wants it any more.
async fn live(context: &mut Context<'_>, args: &StatsArgs, which: Which<'_>, mut among: Among) -> Result<(), CliError> {
    let mut tasks = JoinSet::new();
    let mut followed: Vec<Followed> = Vec::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0_u32;
    loop {
        ticks.tick().await;
        if number > 0 && number.is_multiple_of(LOOK) {
            among = among::find(context, which).await?;
        }
        number = number.wrapping_add(1);
        for (at, one) in &among.containers {
            if !followed.iter().any(|known| known.id == one.id) {
                let (to, usage) = watch::channel(None);
                let mut looks = among.source(*at).engine.usage(&one.id, false);
                tasks.spawn(async move {
                    while let Some(Ok(look)) = looks.next().await {
                        if to.send(Some(look)).is_err() {
                            return;
                        }
                    }
                });
                followed.push(Followed { id: one.id.clone(), usage });
            }
        }
        followed.retain(|known| among.containers.iter().any(|(_, one)| one.id == known.id));
        let usages = among.containers.iter().map(|(_, one)| {
            let known = followed.iter().find(|known| known.id == one.id);
            known.and_then(|known| known.usage.borrow().clone())
        });
        let rows = listed(&among, usages.collect::<Vec<_>>().into_iter());
        match args.format {
            ListFormat::Table => context.ui.renew(&table(&rows, among.is_spread(), args))?,
            _ => print(context.ui, &rows, among.is_spread(), args)?,
        }
    }
}

/// A container and what it uses; `None`: nobody has said yet.
struct Listed {
    id: String,
    name: String,
    host: String,
    usage: Option<Usage>,
}

fn listed(among: &Among, usages: impl Iterator<Item = Option<Usage>>) -> Vec<Listed> {
    let row = |((at, one), usage): (&(usize, crate::observed::ObservedContainer), Option<Usage>)| Listed {
        id: one.id.clone(),
        name: one.name.clone(),
        host: among.source(*at).name.to_string(),
        usage,
    };
    among.containers.iter().zip(usages).map(row).collect()
}

/// The words of a row. Source: docker/cli, `cli/command/container/formatter_stats.go`.
struct Words {
    id: String,
    cpu: String,
    memory: String,
    memory_share: String,
    network: String,
    block: String,
    pids: String,
}

impl Words {
    fn of(listed: &Listed, whole: bool) -> Self {
        let short = listed.id.get(..SHORT_ID).unwrap_or(&listed.id);
        let id = if whole { listed.id.clone() } else { short.to_owned() };
        let Some(usage) = &listed.usage else {
            let unknown = || "--".to_owned();
            let pair = || "-- / --".to_owned();
            let (cpu, memory_share, pids) = (unknown(), unknown(), unknown());
            return Self { id, cpu, memory: pair(), memory_share, network: pair(), block: pair(), pids };
        };
        let pair = |one: String, other: String| format!("{one} / {other}");
        #[expect(clippy::cast_precision_loss, reason = "two digits behind the point are shown")]
        let share = match usage.memory_limit {
            0 => 0.0,
            limit => usage.memory as f64 / limit as f64 * 100.0,
        };
        Self {
            id,
            cpu: format!("{:.2}%", usage.cpu),
            memory: pair(size::binary(usage.memory), size::binary(usage.memory_limit)),
            memory_share: format!("{share:.2}%"),
            network: pair(size::decimal(usage.received), size::decimal(usage.sent)),
            block: pair(size::decimal(usage.read), size::decimal(usage.written)),
            pids: usage.pids.to_string(),
        }
    }
}

fn print(ui: &mut Ui, rows: &[Listed], is_spread: bool, args: &StatsArgs) -> Result<(), CliError> {
    let mut objects = rows.iter().map(|row| object(row, is_spread, args.no_trunc));
    match &args.format {
        ListFormat::Json => objects.try_for_each(|object| ui.json(&object)),
        ListFormat::Template(template) => template.print(ui, &template::values(objects)?),
        ListFormat::Table => ui.data(table(rows, is_spread, args).as_bytes()),
    }
}

fn table(rows: &[Listed], is_spread: bool, args: &StatsArgs) -> String {
    let cells = rows.iter().map(|row| {
        let Words { id, cpu, memory, memory_share, network, block, pids } = Words::of(row, args.no_trunc);
        [id, row.name.clone(), row.host.clone(), cpu, memory, memory_share, network, block, pids].to_vec()
    });
    let mut cells: Vec<Vec<String>> = cells.collect();
    let header =
        ["CONTAINER ID", "NAME", "HOST", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    let mut header = header.map(str::to_owned).to_vec();
    if !is_spread {
        header.remove(2);
        for row in &mut cells {
            row.remove(2);
        }
    }
    table::render_spaced(&header, &cells, table::USUAL)
}

/// What a container uses as JSON, with the keys of Docker's client; `Host` is orch's.
#[derive(Serialize)]
struct Object<'a> {
    #[serde(rename = "BlockIO")]
    block: String,
    #[serde(rename = "CPUPerc")]
    cpu: String,
    #[serde(rename = "Container")]
    container: &'a str,
    #[serde(rename = "Host", skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "MemPerc")]
    memory_share: String,
    #[serde(rename = "MemUsage")]
    memory: String,
    #[serde(rename = "Name")]
    name: &'a str,
    #[serde(rename = "NetIO")]
    network: String,
    #[serde(rename = "PIDs")]
    pids: String,
}

fn object(row: &Listed, is_spread: bool, whole: bool) -> Object<'_> {
    let Words { id, cpu, memory, memory_share, network, block, pids } = Words::of(row, whole);
    let host = is_spread.then_some(row.host.as_str());
    Object { block, cpu, container: &row.id, host, id, memory_share, memory, name: &row.name, network, pids }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ui::Style;
    use crate::cli::ui::testing::ui;

    fn show(is_spread: bool, args: &StatsArgs) -> String {
        let row = |number: u8, usage: Option<Usage>| Listed {
            id: format!("{number:064}"),
            name: format!("shop-web-{number}"),
            host: "a".to_owned(),
            usage,
        };
        let busy = Usage {
            cpu: 12.345,
            memory: 352_256,
            memory_limit: 25_276_000_000,
            received: 1_040,
            sent: 0,
            read: 1_984_548,
            written: 7,
            pids: 3,
        };
        let rows = [row(1, Some(busy)), row(2, Some(Usage::default())), row(3, None)];
        let (mut ui, out, _) = ui(Style::Plain);
        print(&mut ui, &rows, is_spread, args).expect("printed");
        out.take()
    }

    #[test]
    fn the_table_is_that_of_dockers_client() {
        insta::assert_snapshot!(show(false, &StatsArgs::default()), @r"
        CONTAINER ID   NAME         CPU %     MEM USAGE / LIMIT   MEM %     NET I/O       BLOCK I/O     PIDS
        000000000000   shop-web-1   12.35%    344KiB / 23.54GiB   0.00%     1.04kB / 0B   1.98MB / 7B   3
        000000000000   shop-web-2   0.00%     0B / 0B             0.00%     0B / 0B       0B / 0B       0
        000000000000   shop-web-3   --        -- / --             --        -- / --       -- / --       --
        ");
        let spread = show(true, &StatsArgs { no_trunc: true, ..StatsArgs::default() });
        assert!(
            spread.lines().nth(1).is_some_and(|line| line.contains(&format!("{:064}   shop-web-1   a  ", 1))),
            "{spread}"
        );
    }

    #[test]
    fn json_is_an_object_a_line() {
        let json = show(true, &StatsArgs { format: ListFormat::Json, ..StatsArgs::default() });
        insta::assert_snapshot!(json.lines().next().expect("a line"), @r#"{"BlockIO":"1.98MB / 7B","CPUPerc":"12.35%","Container":"0000000000000000000000000000000000000000000000000000000000000001","Host":"a","ID":"000000000000","MemPerc":"0.00%","MemUsage":"344KiB / 23.54GiB","Name":"shop-web-1","NetIO":"1.04kB / 0B","PIDs":"3"}"#);
    }
}

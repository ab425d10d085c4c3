//! `orch dns`: what a name means to a container, and why.

use std::fmt::Write as _;

use crate::api::types::{NameQuestion, NameSays, NameTold, ServiceTold};
use crate::cli::args::{DnsArgs, TextFormat};
use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Asks the agent's DNS in a container's stead.
///
/// # Errors
/// When there is no project, no container that could ask, or no agent answers.
pub(crate) async fn run(context: &mut Context<'_>, args: DnsArgs) -> Result<(), CliError> {
    let project = context.project_name()?;
    let client = context.any_agent().await?;
    let told = client.dns(&project, &NameQuestion { name: args.name.clone(), from: args.from }).await?;
    match args.format {
        TextFormat::Json => context.ui.json(&told),
        TextFormat::Text => context.ui.data(text(&args.name, &told).as_bytes()),
    }
}

fn text(name: &str, told: &NameTold) -> String {
    let NameTold { asker, host, source, says, because } = told;
    let mut text = format!("{asker} ({source}, on {host}) asks for {name}\n");
    let mut line = |line: &str| writeln!(text, "  {line}").expect("a string takes all");
    match says {
        NameSays::Addresses { addresses, ttl_secs } => {
            for address in addresses {
                line(&format!("{address}  (for {ttl_secs} s)"));
            }
        }
        NameSays::Services { records, ttl_secs } => {
            for ServiceTold { port, target, address } in records {
                line(&format!("port {port} of {target}, which is {address}  (for {ttl_secs} s)"));
            }
        }
        NameSays::Pointer { name, ttl_secs } => line(&format!("{name}  (for {ttl_secs} s)")),
        NameSays::NoAddress => line("the name is known, and has no address now"),
        NameSays::NoName => line("there is no such name for it (NXDOMAIN)"),
        NameSays::Forwarded { resolvers } if resolvers.is_empty() => line("the host's resolvers are asked"),
        NameSays::Forwarded { resolvers } => {
            let resolvers: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
            line(&format!("its own resolvers are asked: {}", resolvers.join(", ")));
        }
        NameSays::Refused => line("it is on no network of a project: nothing is said to it"),
    }
    for reason in because {
        line(&format!("because {reason}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::HostName;

    #[test]
    fn answers_are_told_with_their_reasons() {
        let told = NameTold {
            asker: "shop-web-1".to_owned(),
            host: HostName::local(),
            source: [10, 0, 0, 3].into(),
            says: NameSays::Addresses { addresses: vec![[10, 0, 15, 1].into()], ttl_secs: 30 },
            because: vec!["it is the virtual address of service `db`".to_owned()],
        };
        insta::assert_snapshot!(text("db", &told), @"
        shop-web-1 (10.0.0.3, on local) asks for db
          10.0.15.1  (for 30 s)
          because it is the virtual address of service `db`
        ");
        let target = "db.shop.orch.internal".to_owned();
        let records = vec![ServiceTold { port: 80, target, address: [10, 0, 15, 1].into() }];
        let ports = NameTold { says: NameSays::Services { records, ttl_secs: 30 }, ..told.clone() };
        let line = "\n  port 80 of db.shop.orch.internal, which is 10.0.15.1  (for 30 s)\n";
        assert!(text("_tcp.db", &ports).contains(line));
        let nothing = NameTold { says: NameSays::NoName, ..told };
        assert!(text("dd", &nothing).contains("NXDOMAIN"));
    }
}

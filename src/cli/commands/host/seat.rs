//! `orch host seat`: another host decides from now on.
//!
//! The host that decides now goes first: from then on it writes nothing. Killed at any point, the same command finishes.
//! Hosts that cannot be reached hear of it from the others.

use std::sync::Arc;

use crate::api::client::Client;
use crate::api::types::{AuthorityKey, ClusterStatus, HostState, SeatAnswer, SeatRequest};
use crate::cli::args::HostSeatArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::fleet::{Fleet, Host};
use crate::ids::HostName;

use super::{check_known, some_fleet};

/// Moves the seat.
///
/// # Errors
/// When the host is not known or cannot be reached, or the one that decides now refuses or cannot be reached.
pub(super) async fn run(context: &mut Context<'_>, args: &HostSeatArgs) -> Result<(), CliError> {
    let fleet = some_fleet(context)?;
    let asked = fleet.look().await?.status;
    check_known(&fleet, &asked, &args.name)?;
    let hosts = all(&fleet, &asked).await;
    // One that was away may still hold true what was so before.
    let newest = hosts.iter().filter_map(|(_, answer)| answer.as_ref().ok()).max_by_key(|(_, status)| status.epoch);
    let status = newest.map_or(asked, |(_, status)| status.clone());
    let moves = status.seat != args.name;
    let epoch = status.epoch + u64::from(moves);
    let (mut target, mut earlier, mut others) = (None, None, Vec::new());
    for (host, answer) in hosts {
        match host.name() {
            name if *name == args.name => target = Some(answer?.0),
            name if *name == status.seat => earlier = Some(answer),
            _ => others.push((host, answer)),
        }
    }
    let Some(target) = target else { return Err(CliError::HostSilent { host: args.name.clone() }) };
    if context.global.dry_run {
        return context.ui.line(&if moves {
            format!("let host {} decide, instead of {}", args.name, status.seat)
        } else {
            format!("host {} decides already: tell all hosts", args.name)
        });
    }
    let mut moving = Moving { host: args.name.clone(), epoch, key: None, taken: false };
    let earlier = match earlier.filter(|_| moves) {
        Some(Ok((client, _))) => {
            moving.tell(&client).await?;
            Some(client)
        }
        Some(Err(cause)) => {
            let heard = target.cluster().await?;
            let heard = heard.hosts.iter().any(|host| host.name == status.seat && host.state == HostState::Ready);
            if heard || !args.force {
                return Err(CliError::SeatAway { seat: status.seat, heard, cause: Box::new(cause) });
            }
            None
        }
        None => None,
    };
    finish(context, moving, &target, earlier, others).await
}

async fn finish(
    context: &mut Context<'_>,
    mut moving: Moving,
    target: &Client,
    earlier: Option<Client>,
    others: Vec<Asked>,
) -> Result<(), CliError> {
    // The new seat before all others but the old one: they must find it deciding.
    let mut seat = moving.become_seat(target).await?;
    let mut told: Vec<Client> = earlier.into_iter().collect();
    for (host, answer) in others {
        let done = match answer {
            Ok((client, _)) => moving.tell(&client).await.map(|()| client),
            Err(error) => Err(error),
        };
        match done {
            Ok(client) => told.push(client),
            Err(error) => context.ui.warn(&format!(
                "{}; it hears from the others that {} decides",
                CliError::on_host(host.name(), error),
                moving.host
            )),
        }
    }
    if !seat.has_authority && moving.key.is_some() {
        // Only now one was found that has it.
        seat = moving.become_seat(target).await?;
    }
    if seat.has_authority {
        for client in told {
            client.seat(&SeatRequest { forget_authority: true, ..moving.request() }).await?;
        }
    } else {
        context.ui.warn(&format!(
            "the key of the cluster's authority stayed on the host that decided before: until that one can be reached and \
             `orch host seat {}` is run again, no host can be added, and certificates of hosts are not renewed (they are \
             valid for 90 days)",
            moving.host
        ));
    }
    context.ui.say(&format!("host {} decides, and keeps what shall run", moving.host));
    Ok(())
}

/// A host with what its agent says of the cluster.
type Asked = (Arc<Host>, Result<(Client, ClusterStatus), CliError>);

async fn all(fleet: &Fleet, status: &ClusterStatus) -> Vec<Asked> {
    fleet.ask_all(&fleet.members(status), |host| async move { host.cluster().await }).await
}

/// A move of the seat.
struct Moving {
    host: HostName,
    epoch: u64,
    /// The authority with its key, once a host gave it.
    key: Option<AuthorityKey>,
    /// Whether the host is the seat already.
    taken: bool,
}

impl Moving {
    fn request(&self) -> SeatRequest {
        let (host, epoch, taken) = (self.host.clone(), self.epoch, self.taken);
        SeatRequest { host, epoch, authority: None, taken, forget_authority: false }
    }

    /// Tells a host who decides.
    async fn tell(&mut self, client: &Client) -> Result<(), CliError> {
        let SeatAnswer { authority, has_authority: _ } = client.seat(&self.request()).await?;
        self.key = authority.or(self.key.take());
        Ok(())
    }

    /// Lets the new seat decide, with the authority's key where that is at hand.
    async fn become_seat(&mut self, target: &Client) -> Result<SeatAnswer, CliError> {
        let answer = target.seat(&SeatRequest { authority: self.key.clone(), ..self.request() }).await?;
        self.taken = true;
        Ok(answer)
    }
}

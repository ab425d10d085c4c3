//! Several hosts as one: who belongs to the cluster, what each host shows, and how that travels between agents.
//!
//! Every agent tells every other what is on its own host ([`picture`]) and keeps what the others tell it ([`peers`]);
//! the seat also tells what shall be ([`sync`]). So each host plans for the whole project from the same values and
//! does its own part. Nothing here is needed by a host that is alone.

pub mod identity;
pub mod link;
pub mod machine;
pub mod members;
pub mod peers;
pub mod picture;
pub mod renew;
pub mod seat;
pub mod succession;
pub mod sync;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::shared::Shared;

/// Takes down what runs here for the cluster, but for volumes, and makes this host alone from its next start on, which is
/// at once.
///
/// # Errors
/// What store or disk say.
pub async fn withdraw(shared: &Shared) -> Result<(), super::AgentError> {
    let followed: Vec<_> = shared.projects().iter().map(|handle| handle.state.subscribe()).collect();
    // As if the seat had forgotten all of them.
    shared.release_all().await?;
    for mut state in followed {
        // A loop that ended has no more to do either.
        drop(state.wait_for(|state| state.gone).await);
    }
    members::leave(shared.store.as_ref()).await?;
    shared.identity.remove()?;
    shared.restart.cancel();
    Ok(())
}

/// Keeps what the other hosts are shown current. Started by `wire` only.
pub async fn show(shared: Arc<Shared>, stop: CancellationToken) {
    let mut pictures = shared.informer.subscribe();
    loop {
        pictures.mark_unchanged();
        if !shared.fleet().hosts.is_empty() {
            shared.refresh_own_picture();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = pictures.changed() => if changed.is_err() { return },
        }
    }
}

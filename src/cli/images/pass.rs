//! Hosts pass an image on to each other where this machine is far from them.
//!
//! Near hosts get it from here, all at once out of one reading: the engines' own work is what takes long then, and a load
//! after another's would double it. Of hosts that are far one gets it from here, and the others from that one: a way as
//! long as that is a line of some megabytes a second more often than not, and hosts mostly are close together. Where
//! passing on fails, it is sent from here.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::api::types::{FetchImage, ObjectState, Progress};
use crate::cli::board::Event;
use crate::cli::error::CliError;
use crate::engine::{Engine, EngineError};

use super::Place;
use super::send;

/// A host that answers later is far: in one building, or one data centre, it takes a millisecond, and over a user's line
/// to the internet more than this.
const FAR: Duration = Duration::from_millis(10);
/// Questions of which the best counts: a host at work answers late, too.
const QUESTIONS: usize = 5;
/// Bytes below which nothing is passed on: asking another host for it, and its engine's reading, take longer.
const LITTLE: u64 = 2 << 20;

/// Returns which hosts are far.
pub(super) async fn far(hosts: &[&dyn Engine], reference: &str) -> Vec<bool> {
    join_all(hosts.iter().map(|engine| is_far(async || engine.image_id(reference).await.is_ok()))).await
}

/// `ask` returns whether there was an answer; where there is none, sending says why.
async fn is_far(ask: impl AsyncFn() -> bool) -> bool {
    for _ in 0..QUESTIONS {
        let asked = Instant::now();
        if !ask().await || asked.elapsed() < FAR {
            return false;
        }
    }
    true
}

/// Returns those for whom it pays that one of them gets the image from here and passes it on; none where that is one only.
fn passing(far: &[bool], lacks: &[Option<u64>]) -> Vec<usize> {
    let pays = far.iter().zip(lacks).map(|(far, lacks)| *far && lacks.is_none_or(|bytes| bytes >= LITTLE));
    let pays: Vec<usize> = pays.enumerate().filter(|(_, pays)| *pays).map(|(host, _)| host).collect();
    if pays.len() > 1 { pays } else { Vec::new() }
}

/// Brings an image that the engine `here` has to `hosts`. `pass` has the second of two hosts get it from the first, says
/// so, and returns whether it did; `sent` is told of each host that got it, or did not, from here.
pub(super) async fn bring(
    here: &dyn Engine,
    hosts: &[&dyn Engine],
    far: &[bool],
    reference: &str,
    pass: impl AsyncFn(usize, usize) -> bool,
    sent: &dyn Fn(usize, Result<(), EngineError>),
) {
    let known = send::known(here, hosts, reference).await;
    let lacks: Vec<_> = known.iter().map(|known| known.lacks).collect();
    let passing = passing(far, &lacks);
    let (first, others) = passing.split_first().map_or((None, &[][..]), |(first, others)| (Some(*first), others));
    let from_here: Vec<usize> = (0..hosts.len()).filter(|host| !others.contains(host)).collect();
    let mut first_has_it = false;
    let send = async |to: &[usize]| {
        let takers: Vec<_> = to.iter().map(|host| (hosts[*host], &known[*host])).collect();
        send::send(here, &takers, reference).await
    };
    for (host, result) in from_here.iter().zip(send(&from_here).await) {
        first_has_it |= Some(*host) == first && result.is_ok();
        sent(*host, result);
    }
    let passed = match first.filter(|_| first_has_it) {
        Some(first) => join_all(others.iter().map(|host| pass(first, *host))).await,
        None => vec![false; others.len()],
    };
    let left = others.iter().zip(passed).filter(|(_, passed)| !passed);
    let left: Vec<usize> = left.map(|(host, _)| *host).collect();
    for (host, result) in left.iter().zip(send(&left).await) {
        sent(*host, result);
    }
}

/// Has the host `to` get an image from the host `from`.
///
/// # Errors
/// Why it could not.
pub(super) async fn fetch(
    from: &Place<'_>,
    to: &Place<'_>,
    reference: &str,
    show: &dyn Fn(Event),
) -> Result<(), CliError> {
    let tell = |status: &str, state, detail| {
        show(Event {
            id: format!("Image {reference} on {}", to.host.name()),
            status: status.to_owned(),
            state,
            detail,
        });
    };
    tell("Sending", ObjectState::Working, None);
    let offer = from.host.agent().await?.offer_image(reference).await?;
    let request = FetchImage { reference: reference.to_owned(), from: from.host.name().clone(), ticket: offer.ticket };
    let mut progress = to.host.agent().await?.fetch_image(&request).await?;
    while let Some(step) = progress.next().await {
        match step? {
            Progress::Object { detail, .. } => tell("Sending", ObjectState::Working, detail),
            Progress::Done { .. } => {
                tell("Sent", ObjectState::Done, Some(format!("by host {}", from.host.name())));
                return Ok(());
            }
            Progress::Failed { messages } => return Err(CliError::Failed(messages)),
            Progress::Accepted { .. } | Progress::Note { .. } => {}
        }
    }
    Err(CliError::Cut)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::engine::fake::{FakeEngine, Fault};

    #[tokio::test(start_paused = true)]
    async fn a_host_is_far_when_its_best_answer_is_late() {
        for (millis, answers, expected) in [
            (&[200, 200, 200, 200, 200][..], true, true),
            (&[200, 200, 1], true, false),
            (&[1], true, false),
            (&[200], false, false),
        ] {
            let times = RefCell::new(millis.iter().copied());
            let ask = async || {
                let millis = times.borrow_mut().next().expect("no more is asked");
                tokio::time::sleep(Duration::from_millis(millis)).await;
                answers
            };
            assert_eq!(is_far(ask).await, expected, "{millis:?}");
        }
    }

    #[test]
    fn a_lot_is_passed_on_among_several_that_are_far() {
        let (all, little) = (None, Some(LITTLE - 1));
        for (far, lacks, expected) in [
            ([false, false, false], [all, all, all], &[][..]),
            ([false, true, false], [all, all, all], &[]),
            ([false, true, true], [all, all, all], &[1, 2]),
            ([true, true, true], [little, all, Some(LITTLE)], &[1, 2]),
            ([true, true, true], [little, all, little], &[]),
        ] {
            assert_eq!(passing(&far, &lacks), expected, "{far:?} {lacks:?}");
        }
    }

    /// Brings `app:2` to three hosts; `fails` is the one that no other can pass it on to. Returns who asked whom for it
    /// and whom it was sent to, in order.
    async fn run(hosts: &[FakeEngine; 3], far: [bool; 3], fails: Option<usize>) -> Vec<String> {
        let here = FakeEngine::new();
        here.add_image("app:2");
        let engines: Vec<&dyn Engine> = hosts.iter().map(|host| host as &dyn Engine).collect();
        let log = RefCell::new(Vec::new());
        let pass = async |from: usize, to: usize| {
            assert!(engines[from].image_id("app:2").await.expect("answers").is_some(), "it has nothing to pass on");
            log.borrow_mut().push(format!("{from} to {to}"));
            if fails == Some(to) {
                return false;
            }
            hosts[to].add_image("app:2");
            true
        };
        let sent = |to: usize, result: Result<(), EngineError>| {
            log.borrow_mut().push(format!("{} to {to}", if result.is_ok() { "sent" } else { "not sent" }));
        };
        bring(&here, &engines, &far, "app:2", pass, &sent).await;
        log.into_inner()
    }

    async fn have_it(hosts: &[FakeEngine; 3]) -> Vec<bool> {
        join_all(hosts.iter().map(async |host| host.image_id("app:2").await.expect("answers").is_some())).await
    }

    #[tokio::test]
    async fn it_leaves_this_machine_once_for_all_that_are_far() {
        let hosts = [FakeEngine::new(), FakeEngine::new(), FakeEngine::new()];
        assert_eq!(run(&hosts, [true; 3], None).await, ["sent to 0", "0 to 1", "0 to 2"]);
        assert_eq!(have_it(&hosts).await, [true; 3]);
        let hosts = [FakeEngine::new(), FakeEngine::new(), FakeEngine::new()];
        assert_eq!(run(&hosts, [false, true, false], None).await, ["sent to 0", "sent to 1", "sent to 2"]);
        assert_eq!(have_it(&hosts).await, [true; 3]);
    }

    #[tokio::test]
    async fn what_cannot_be_passed_on_is_sent_from_here() {
        let hosts = [FakeEngine::new(), FakeEngine::new(), FakeEngine::new()];
        assert_eq!(run(&hosts, [true; 3], Some(1)).await, ["sent to 0", "0 to 1", "0 to 2", "sent to 1"]);
        assert_eq!(have_it(&hosts).await, [true; 3]);
    }

    #[tokio::test]
    async fn a_first_host_that_does_not_take_it_does_not_keep_it_from_the_others() {
        let hosts = [FakeEngine::new(), FakeEngine::new(), FakeEngine::new()];
        hosts[0].fail("load_image", Fault::Before, 1);
        assert_eq!(run(&hosts, [true; 3], None).await, ["not sent to 0", "sent to 1", "sent to 2"]);
        assert_eq!(have_it(&hosts).await, [false, true, true]);
    }
}

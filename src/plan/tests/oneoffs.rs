//! Containers that `run` made and that have ended.

use super::*;

#[test]
fn one_offs_that_have_ended_are_orphans_and_go_where_they_were_made_before_that_was_asked_for() {
    let ended: fn(&mut ObservedContainer) = |twin| {
        twin.oneoff = true;
        twin.state = ContainerState::Exited { code: 4, by_itself: true };
        twin.created_at = "2026-01-01T00:00:05Z".to_owned();
    };
    let orphan = "note: Found orphan containers ([0123456789ab_shop-web-1]) for this project. If you removed or renamed \
                  this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.";
    heal("web: {}", |world| twin(world, ended), orphan);
    let asked = |at: &str| {
        let at = Some(at.to_owned());
        move |world: &mut World| {
            twin(world, ended);
            (world.desired.remove_orphans, world.desired.oneoffs_before) = (true, at.clone());
        }
    };
    let removed = "remove container 0123456789ab_shop-web-1 (a one-off that has ended)";
    heal("web: {}", asked("2026-01-01T00:00:06Z"), removed);
    heal("web: {}", asked("2026-01-01T00:00:05Z"), orphan);
}

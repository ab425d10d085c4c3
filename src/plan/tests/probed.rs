//! What agents hear from containers that they ask (`x-probe`).

use super::*;
use crate::observed::Probed;

#[test]
fn what_a_probe_says_is_waited_for_and_replaces_nothing() {
    let mut world = World::new(HEALTHY_DB, &["local"]);
    let plan = world.plan();
    world.run(&plan, usize::MAX, |_| {});
    let next = world.plan();
    let waits = |world: &World| next.steps[0].waits_for(&world.desired, &world.observed);
    let mut both = |engine, probe| {
        world.touch("db.1", health(engine));
        world.touch("db.1", |db| db.probe = Some(Probed { health: probe, said: String::new() }));
        (waits(&world), world.plan().failures.iter().map(ToString::to_string).collect::<String>(), brief(&world.plan()))
    };
    let yet = Some("container shop-db-1 is not healthy yet".to_owned());
    let start = "start web-1 (created)".to_owned();
    assert_eq!(both(Health::Healthy, Health::Starting), (yet.clone(), String::new(), start.clone()));
    assert_eq!(both(Health::Starting, Health::Healthy), (yet, String::new(), start.clone()));
    assert_eq!(both(Health::None, Health::Healthy), (None, String::new(), start.clone()), "either is enough alone");
    assert_eq!(both(Health::Healthy, Health::Healthy), (None, String::new(), start));
    let (_, failure, steps) = both(Health::Healthy, Health::Unhealthy);
    assert_eq!(failure, "dependency failed to start: container shop-db-1 is unhealthy");
    assert_eq!(steps, format!("start web-1 (created), failure: {failure}"), "nothing is done about it");
}

//! Containers that Docker Compose made.

use crate::model::{ComposeHash, Piece};
use crate::observed::{CONFIG_HASH_LABEL, ContainerState, PROJECT_LABEL, SPEC_HASH_LABEL};

use super::super::fixture::{World, brief, host};

/// Gives a service the hash that it has for Docker Compose.
fn known_as(world: &mut World, service: &str, hash: ComposeHash) {
    world.desired.graph.services.get_mut(service).expect("it is there").compose_hash = hash;
}

/// Makes the container of a pod one that Docker Compose made for `hash`.
fn made_for(world: &mut World, pod: &str, hash: &str) {
    world.touch(pod, |container| {
        container.spec_hash = None;
        container.generation = None;
        container.labels = [(CONFIG_HASH_LABEL.to_owned(), hash.to_owned())].into();
    });
}

fn adopted(project: &str) -> World {
    let mut world = World::running(project, &["local"]);
    known_as(&mut world, "web", ComposeHash::Hash("now".to_owned()));
    made_for(&mut world, "web.1", "now");
    world
}

#[test]
fn one_for_the_same_configuration_and_image_is_kept_and_the_user_told() {
    let world = adopted("{web: {post_start: [{command: [hook]}]}, db: {}}");
    let plan = world.plan();
    assert!(plan.steps.is_empty(), "{}", brief(&plan));
    let [note] = plan.notes.as_slice() else { panic!("{:?}", plan.notes) };
    assert!(note.starts_with("adopted as Docker Compose made them: shop-web-1. "), "{note}");
    assert!(note.contains("--force-recreate"), "{note}");
}

#[test]
fn one_for_another_configuration_or_image_or_to_be_made_anew_is_replaced() {
    let check = |change: &dyn Fn(&mut World), why: &str| {
        let mut world = adopted("web: {}");
        change(&mut world);
        let plan = world.plan();
        assert!(brief(&plan).contains(&format!("remove web-1 ({why})")), "{}", brief(&plan));
        assert!(plan.notes.is_empty(), "{:?}", plan.notes);
        world.converge();
    };
    check(&|world| made_for(world, "web.1", "then"), "configuration changed: made by Docker Compose");
    check(&|world| known_as(world, "web", ComposeHash::default()), "configuration changed: made by Docker Compose");
    check(&|world| world.touch("web.1", |one| one.image_id = "other".to_owned()), "image changed");
    check(&|world| world.touch("web.1", |one| one.networks.clear()), "network shop_default changed");
    check(
        &|world| {
            world.desired.recreate_before.insert("web".parse().expect("a name"), world.desired.generation);
        },
        "asked for",
    );
}

#[test]
fn one_that_ended_is_started_or_made_anew_where_the_engine_would_publish_its_ports() {
    let ended = |project: &str| {
        let mut world = adopted(project);
        world.touch("web.1", |one| one.state = ContainerState::Exited { code: 137, by_itself: false });
        brief(&world.plan())
    };
    let plain = ended("web: {}");
    assert!(plain.contains("start web-1") && !plain.contains("remove"), "{plain}");
    let published = ended("web: {ports: [{target: 80, published: '8080', mode: ingress}]}");
    assert!(published.contains("remove web-1 (configuration changed: ports of Docker Compose)"), "{published}");
}

#[test]
fn one_that_shares_a_namespace_is_known_by_the_id_of_the_other() {
    let mut world = adopted("{web: {}, log: {network_mode: 'service:web'}}");
    let id = |world: &World| {
        let local = &world.observed.hosts[&host("local")];
        local.containers.values().find(|one| one.name == "shop-web-1").expect("it is there").id.clone()
    };
    let text = Piece::Text("log".to_owned());
    let of = Some("web".parse().expect("a name"));
    let web = Piece::Container { written: "service:web".to_owned(), prefix: "container:".to_owned(), of };
    let hash = ComposeHash::Text(vec![text, web]);
    let now = id(&world);
    let label = hash.of_container(|_| Some(now.as_str())).expect("it is there");
    known_as(&mut world, "log", hash);
    made_for(&mut world, "log.1", &label);
    assert!(world.plan().steps.is_empty(), "{}", brief(&world.plan()));
    made_for(&mut world, "log.1", "of another container");
    assert!(brief(&world.plan()).contains("remove log-1"), "{}", brief(&world.plan()));
}

#[test]
fn a_network_of_docker_compose_is_kept_unless_its_hash_is_another_one() {
    let labels = |world: &mut World, hash: &str| {
        let network =
            world.observed.hosts.get_mut(&host("local")).expect("it is there").networks.get_mut("shop_default");
        let labels = &mut network.expect("it is there").labels;
        assert!(labels.contains_key(PROJECT_LABEL));
        labels.remove(SPEC_HASH_LABEL);
        labels.insert(CONFIG_HASH_LABEL.to_owned(), hash.to_owned());
    };
    let mut world = adopted("web: {}");
    world.desired.graph.networks.get_mut("default").expect("it is there").compose_hash = "net".to_owned();
    labels(&mut world, "net");
    assert!(world.plan().steps.is_empty(), "{}", brief(&world.plan()));
    labels(&mut world, "other");
    assert!(brief(&world.plan()).contains("remove network shop_default"), "{}", brief(&world.plan()));
}

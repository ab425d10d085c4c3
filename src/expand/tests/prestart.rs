//! What is run before a service starts.

use super::*;
use crate::graph::{Dependency, MountSource, Part, Role};

const STEPS: &str = "{web: {depends_on: {db: {condition: service_healthy, restart: true, required: true}}, \
    environment: {A: '1', B: '2'}, user: u, working_dir: /w, entrypoint: [serve], hostname: h, container_name: own, privileged: true, \
    labels: {route: x}, ports: [{target: 80, published: '80'}], healthcheck: {test: [CMD, ok]}, cap_add: [NET_ADMIN], \
    networks: {front: {aliases: [www], ipv4_address: 10.1.0.9}}, \
    volumes: [{type: volume, source: data, target: /data}, {type: tmpfs, target: /t}], \
    configs: [{source: conf}], secrets: [{source: pass}], restart: always, \
    pre_start: [{command: [migrate]}, {image: tool, command: [fix], user: root, working_dir: /x, privileged: true, environment: {B: null, C: '4', D: null}}]}, \
    db: {}}";

fn whole(services: &str) -> String {
    format!(
        "services: {services}\nnetworks: {{front: {{name: shop_front}}}}\nvolumes: {{data: {{name: shop_data}}}}\n\
         configs: {{conf: {{content: x}}}}\nsecrets: {{pass: {{file: /p}}}}"
    )
}

fn after(service: &str, condition: Condition, restart: bool) -> Dependency {
    Dependency { service: name(service), condition, restart, required: true }
}

#[test]
fn steps_run_one_after_the_other_between_the_service_and_what_it_depends_on() {
    let done = graph(&whole(STEPS));
    let of = |service: &str| done.services[&name(service)].clone();
    let (first, second, web) = (of("web.pre_start-0"), of("web.pre_start-1"), of("web"));
    let ended = Condition::ServiceCompletedSuccessfully;
    assert_eq!(first.depends_on, [after("db", Condition::ServiceHealthy, false)]);
    assert_eq!(second.depends_on, [after("web.pre_start-0", ended, false)]);
    assert_eq!(web.depends_on, [after("db", Condition::ServiceHealthy, true), after("web.pre_start-1", ended, false)]);
    assert_eq!(first.part, Some(Part { of: name("web"), role: Role::PreStart }));
    assert_eq!((first.scale, first.restart, web.part), (Scale::Replicas(1), Restart::No, None));
}

#[test]
fn a_step_has_what_the_service_has_but_for_what_others_find_that_by() {
    let done = graph(&whole(STEPS));
    let of = |service: &str| done.services[&name(service)].clone();
    let (first, second, web) = (of("web.pre_start-0"), of("web.pre_start-1"), of("web"));
    let (one, two) = (&first.container, &second.container);
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    assert_eq!((&one.image, &one.command, &one.entrypoint), (&"app".to_owned(), &words(&["migrate"]), &None));
    assert_eq!((one.user.as_deref(), one.working_dir.as_deref(), one.privileged), (Some("u"), Some("/w"), false));
    assert_eq!(one.environment, web.container.environment);
    assert_eq!(
        (&one.mounts, &one.files, &one.cap_add),
        (&web.container.mounts, &web.container.files, &web.container.cap_add)
    );
    assert_eq!((two.user.as_deref(), two.working_dir.as_deref(), two.privileged), (Some("root"), Some("/x"), true));
    assert_eq!(two.image, "tool");
    assert_eq!(two.variables(), ["A=1", "C=4", "B", "D"]);
    for step in [&first, &second] {
        assert!(step.ports.is_empty() && step.expose.is_empty() && step.container.labels.is_empty());
        assert_eq!((&step.container.name, &step.container.hostname), (&None, &None));
        let test = step.container.healthcheck.as_ref().map(|check| check.test.join(" "));
        assert_eq!(test.as_deref(), Some("NONE"), "also where the image has one");
        let NetworkMode::Networks(attachments) = &step.network else { panic!("networks") };
        assert_eq!((attachments.len(), &attachments[0].aliases, attachments[0].ipv4), (1, &Vec::new(), None));
    }
    let other = graph("{web: {user: u, working_dir: /w, pre_start: [{image: tool, command: [x]}]}}");
    let tool = &other.services[&name("web.pre_start-0")].container;
    assert_eq!((tool.user.as_deref(), tool.working_dir.as_deref()), (None, Some("/w")), "its image has a user");
}

#[test]
fn one_hash_is_over_a_service_and_its_steps() {
    let hash = |text: &str, service: &str| graph(text).services[&name(service)].spec_hash.clone();
    let one = "{web: {pre_start: [{command: [a]}]}}";
    assert_eq!(hash(one, "web"), hash(one, "web.pre_start-0"));
    for other in [
        "{web: {pre_start: [{command: [b]}]}}",
        "{web: {environment: {A: b}, pre_start: [{command: [a]}]}}",
        "{web: {pre_start: [{command: [a]}, {command: [b]}]}}",
    ] {
        assert_ne!(hash(one, "web"), hash(other, "web"), "{other}");
        assert_ne!(hash(one, "web.pre_start-0"), hash(other, "web.pre_start-0"), "{other}");
    }
    for same in
        ["{web: {scale: 3, pre_start: [{command: [a]}]}}", "{web: {restart: always, pre_start: [{command: [a]}]}}"]
    {
        assert_eq!(hash(one, "web"), hash(same, "web"), "{same}");
    }
    assert_eq!(hash("{web: {}}", "web"), hash("{web: {pre_start: []}}", "web"));
}

#[test]
fn a_step_for_each_replica_is_an_init_container_and_comes_after_all_others() {
    let done = graph(
        "{web: {scale: 2, dns: [10.0.0.1], volumes: [{type: tmpfs, target: /t, tmpfs: {size: '1048576', mode: 448}}], \
         pre_start: [{command: [a]}, {command: [b], per_replica: true}, {command: [c], per_replica: true}]}}",
    );
    let names: Vec<&str> = done.services.keys().map(ServiceName::as_str).collect();
    assert_eq!(names, ["web", "web.pod", "web.pre_start-0", "web.pre_start-1", "web.pre_start-2"]);
    let of = |service: &str| &done.services[&name(service)];
    assert_eq!((of("web.pre_start-0").scale, of("web.pre_start-1").scale), (Scale::Replicas(1), Scale::Replicas(2)));
    let before = |service: &str| of(service).depends_on.iter().map(|one| one.service.to_string()).collect::<Vec<_>>();
    assert_eq!(before("web.pod"), ["web.pre_start-0"]);
    assert_eq!(before("web.pre_start-1"), ["web.pod"]);
    assert_eq!(before("web.pre_start-2"), ["web.pre_start-1"]);
    assert_eq!(before("web"), ["web.pre_start-2"]);
    assert_eq!(
        (of("web.pre_start-1").part.as_ref().map(|part| part.role), of("web.pre_start-1").restart),
        (Some(Role::Init), Restart::No)
    );
    // Memory that only the service's container would have is the pod's.
    let memory = |service: &str| {
        of(service).container.mounts.iter().find(|mount| mount.target == "/t").map(|mount| mount.source.clone())
    };
    let Some(MountSource::PodVolume { volume }) = memory("web") else { panic!("the pod's: {:?}", memory("web")) };
    assert_eq!(memory("web.pre_start-2"), memory("web"));
    let own = &done.pod_volumes[&volume];
    assert_eq!((own.size, own.options.as_str()), (Some(1_048_576), "noexec,nosuid,nodev,mode=700"));
    assert!(of("web.pre_start-1").container.dns.is_empty(), "it is the pod's");
}

#[test]
fn what_cannot_be_kept_is_refused_or_told() {
    refused(
        "{web: {pre_start: [{command: [a], per_replica: true}, {command: [b]}]}}",
        "services.web.pre_start[1]: is run once for the service, before any replica starts, and `pre_start[0]`, which comes before it, is run for each replica",
    );
    refused(
        "{web: {volumes: [{type: volume, target: /cache}], pre_start: [{command: [a], per_replica: true}]}}",
        "services.web.pre_start[0].per_replica: is run for each replica, and does not share the volume without a name at `/cache`",
    );
    refused(
        "{web: {pre_start: [{command: [a]}]}, web.pre_start-0: {}}",
        "services.web.pre_start-0: `web.pre_start-0` is what a helper of `web` is called: give one of them another name",
    );
    let done =
        run("{web: {volumes: [{type: volume, target: /cache}], pre_start: [{command: [a]}]}}", &[]).expect("a graph");
    let told: Vec<String> = done.warnings.iter().map(ToString::to_string).collect();
    assert!(
        matches!(told.as_slice(), [one] if one.contains("services.web.pre_start[0]") && one.contains("`/cache`")),
        "{told:?}"
    );
    assert!(done.graph.services[&name("web.pre_start-0")].container.mounts.is_empty());
    let none = run("{web: {pre_start: [{command: [a]}]}}", &[("web", 0)]).expect("a graph").graph;
    assert_eq!(none.services[&name("web.pre_start-0")].scale, Scale::Replicas(0), "nothing is prepared for nobody");
}

#[test]
fn a_container_that_uses_the_engine_has_its_socket_and_the_users_logins_as_a_secret() {
    let expand = |text: &str| {
        let mut model: Model = serde_yaml::from_str(&format!("name: shop\nservices: {text}")).expect("a model");
        model.services.values_mut().for_each(|service| service.image = Some("app".to_owned()));
        let (contents, snapshots) = (Contents::new(), Snapshots::new());
        let input = Input {
            model: &model,
            contents: &contents,
            logins: Some(b"{\"auths\": {}}"),
            snapshots: &snapshots,
            scales: &BTreeMap::new(),
            disabled: &BTreeMap::new(),
            working_dir: "/src",
            config_files: &[],
        };
        super::super::expand(&input).expect("no mistakes")
    };
    let done = expand("{web: {use_api_socket: true}, other: {}}");
    let (web, other) = (&done.graph.services[&name("web")].container, &done.graph.services[&name("other")].container);
    let mounts: Vec<_> = web.mounts.iter().map(|mount| (mount.target.as_str(), mount.source.clone())).collect();
    assert_eq!(mounts, [("/var/run/docker.sock", MountSource::EngineSocket)]);
    assert_eq!(web.environment["DOCKER_CONFIG"], "/run/secrets/docker");
    assert_eq!((web.files.len(), web.files[0].target.as_str()), (1, "/run/secrets/docker/config.json"));
    assert!(web.files[0].secret && done.graph.files[&web.files[0].hash].secret);
    assert!(other.mounts.is_empty() && other.files.is_empty() && other.environment.is_empty());
    assert_eq!(done.warnings.len(), 1);
    assert!(done.warnings[0].to_string().contains("services.web.use_api_socket: whoever runs commands"));
    let own = expand("{web: {use_api_socket: true, environment: {DOCKER_CONFIG: /mine}}}");
    let web = &own.graph.services[&name("web")].container;
    assert_eq!((web.mounts.len(), web.files.len(), web.environment["DOCKER_CONFIG"].as_str()), (1, 0, "/mine"));
}

//! What orch's own keys say arrives in the graph.

use std::collections::BTreeMap;

use orch::expand::{self, Expanded};
use orch::graph::{Graph, Role};
use orch::load::FileKind;
use orch::model::{AmbassadorTls, RouteTls};

use crate::project::Project;

fn expand(text: &str) -> Result<Expanded, Vec<String>> {
    expand_with(text, &[])
}

/// Expands a file beside which there are others.
fn expand_with(text: &str, files: &[(&str, &str)]) -> Result<Expanded, Vec<String>> {
    let mut project = Project::new([text]);
    for (name, content) in files {
        project.files.files.insert(format!("/project/{name}").into(), content.as_bytes().to_vec());
    }
    let loaded = project.load().unwrap_or_else(|problems| panic!("{problems}"));
    let contents = loaded.contents.iter().map(|((kind, key), bytes)| {
        let kind = if *kind == FileKind::Config { expand::FileKind::Config } else { expand::FileKind::Secret };
        ((kind, key.clone()), bytes.clone())
    });
    let expanded = expand::expand(&expand::Input {
        logins: None,
        model: &loaded.model,
        contents: &contents.collect(),
        snapshots: &BTreeMap::new(),
        scales: &BTreeMap::new(),
        disabled: &BTreeMap::new(),
        working_dir: "/project",
        config_files: &[],
    });
    expanded.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn graph(text: &str) -> Graph {
    expand(text).expect("no mistakes").graph
}

const FILES: &str = "\nconfigs: {root: {file: ./root.pem}, both: {content: c}}\n\
                     secrets: {pem: {file: ./x}, both: {file: ./x}, away: {external: true}}\n";

/// A certificate with its key, PEM.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn certificates_become_contents_and_keys_stay_secret() {
    let ((chain, key), (root, _)) = (pair(), pair());
    let both = format!("{chain}{key}");
    let text = format!(
        "services:\n  web:\n    image: x\n    expose: [80]\n    x-route: {{host: a.example.com, tls: pem}}\n    \
         x-ambassadors:\n      far: {{to: 'other/db:5432', tls: {{ca: root, cert: both, key: pem}}}}\n{FILES}"
    );
    let graph = expand_with(&text, &[("x", &both), ("root.pem", &root)]).expect("no mistakes").graph;
    let web = &graph.services["web"];
    let content = |key: &str| (String::from_utf8_lossy(&graph.files[key].bytes).into_owned(), graph.files[key].secret);
    let secret = (both, true);
    let Some(RouteTls { certificate, key }) = &web.serving.routes[0].tls else { panic!("{:?}", web.serving) };
    assert_eq!((content(certificate), content(key)), (secret.clone(), secret.clone()));
    assert_eq!(web.serving.routes.len(), 2, "plain HTTP is sent to TLS");
    let Some(AmbassadorTls { authorities: Some(ca), identity: Some((cert, key)), .. }) = &web.ambassadors[0].tls else {
        panic!("{:?}", web.ambassadors)
    };
    assert_eq!(content(ca), (root, false));
    assert_eq!((content(cert), content(key)), (secret.clone(), secret), "a name that is both is the secret");
}

#[test]
fn what_has_no_content_is_told_with_its_place() {
    let text = format!(
        "services:\n  web:\n    image: x\n    expose: [80]\n    x-route: [a.example.com, {{host: b.example.com, tls: away}}]\n\
         {FILES}"
    );
    let problems = expand(&text).expect_err("nobody knows what is in it");
    let reason = "secret `away` is external: orch reads its content from `file`, `environment` or `content`";
    assert_eq!(problems, vec![format!("services.web.x-route[1].tls.key: {reason}")]);
}

#[test]
fn a_certificate_and_its_key_must_belong_together() {
    let ((chain, key), (_, other)) = (pair(), pair());
    let says = |cert: &str, key: &str| {
        let text = "services:\n  web:\n    image: x\n    expose: [80]\n    x-route:\n      - a.example.com\n      \
                    - {host: [b.example.com, c.example.com], tls: {cert: cert, key: key}}\n\
                    configs: {cert: {file: ./cert.pem}}\nsecrets: {key: {file: ./key.pem}}\n";
        expand_with(text, &[("cert.pem", cert), ("key.pem", key)]).err().unwrap_or_default()
    };
    let wrong =
        |reason: &str| vec![format!("services.web.x-route[1].tls: certificate and key cannot be used: {reason}")];
    assert_eq!(says(&chain, &key), Vec::<String>::new());
    assert_eq!(says(&chain, &other), wrong("the key is not that of the certificate"));
    assert_eq!(says("hello", &key), wrong("the file of the certificate holds none in PEM"));
    let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert_eq!(
        says(&chain, &locked),
        wrong("the file of the key holds no private key in PEM, or not without a passphrase")
    );
}

#[test]
fn authorities_that_are_none_are_told_with_their_place() {
    let ((chain, key), (other, _)) = (pair(), pair());
    let says = |kind: &str, ca: &str| {
        let text = format!(
            "services:\n  web:\n    image: x\n    x-ambassadors:\n      far: {{to: 'a.example.com:443', tls: {{ca: ca}}}}\n\
             {kind}: {{ca: {{file: ./ca.pem}}}}\n"
        );
        expand_with(&text, &[("ca.pem", ca)]).err().unwrap_or_default()
    };
    let wrong =
        |reason: &str| vec![format!("services.web.x-ambassadors.far.tls.ca: authorities cannot be used: {reason}")];
    for kind in ["configs", "secrets"] {
        assert_eq!(says(kind, &format!("{chain}{other}")), Vec::<String>::new());
        assert_eq!(says(kind, &key), wrong("the file holds no certificate in PEM"));
        assert_eq!(says(kind, ""), wrong("the file holds no certificate in PEM"));
        let damaged = other.replacen("MII", "AII", 1);
        assert_eq!(says(kind, &format!("{chain}{damaged}")), wrong("certificate 2 of the file cannot be read"));
    }
}

#[test]
fn links_exports_and_balancing_arrive() {
    let graph = graph(
        "services:\n  web:\n    image: x\n    ports: [{target: 80, app_protocol: grpc}]\n    external_links: [shop/db]\n    \
         x-export: 80\n    x-balance: source\n    x-probe: 80\n    x-sidecars: {s: {image: y, x-probe: 81}}\n    \
         x-init: {i: {image: z}}\n    x-ambassadors: {p: {image: w}, c: 'a.example.com:1'}\n",
    );
    let web = &graph.services["web"];
    assert_eq!(web.external_links[0].alias, "db");
    assert_eq!(web.export, orch::model::Export::Ports(vec![80]));
    assert_eq!(web.serving.http[&80], orch::model::AppProtocol::Grpc);
    assert_eq!(web.serving.probe.as_ref().map(|probe| probe.port), Some(80));
    assert_eq!(web.ambassadors[0].name, "c");
    assert_eq!(graph.services["web.s"].serving.probe.as_ref().map(|probe| probe.port), Some(81));
    let roles: Vec<(String, Role)> = graph
        .services
        .iter()
        .filter_map(|(name, service)| Some((name.to_string(), service.part.as_ref()?.role)))
        .collect();
    let expected = [
        ("web", Role::Main),
        ("web.i", Role::Init),
        ("web.p", Role::Sidecar),
        ("web.pod", Role::Holder),
        ("web.s", Role::Sidecar),
    ];
    assert_eq!(roles, expected.map(|(name, role)| (name.to_owned(), role)));
}

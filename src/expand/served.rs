//! What orch's own keys say of a service, carried into the graph: stand-ins, links to other projects, how it is served.
//!
//! Certificates, keys and authorities are names of secrets or configs in the model and keys of contents in the graph, as
//! files of containers are.

use std::collections::BTreeSet;

use crate::ids::ResourceKey;
use crate::model::{self, Ambassador, AmbassadorTls, Route, RouteTls, Serving, certified};

use super::file::keep;
use super::{FileKind, Part, Problem};

impl Part<'_, '_> {
    /// `x-ambassadors` that the agent itself is.
    pub(super) fn ambassadors(&mut self) -> Vec<Ambassador> {
        let mut all = self.service.keys.ambassadors.clone();
        for ambassador in &mut all {
            let path = format!("x-ambassadors.{}.tls", ambassador.name);
            let Some(AmbassadorTls { server_name: _, authorities, identity }) = &mut ambassador.tls else { continue };
            if let Some(name) = authorities {
                let path = format!("{path}.ca");
                *name = self.content(&path, name);
                self.are_authorities(&path, name);
            }
            if let Some((certificate, key)) = identity {
                self.pair(&path, certificate, key);
                self.fit(&path, certificate, key);
            }
        }
        all
    }

    /// `x-route`, `x-balance`, `x-probe` and what the ports speak.
    pub(super) fn serving(&mut self) -> Serving {
        let model::ServiceKeys { http, routes, balance, probe, .. } = &self.service.keys;
        let mut routes = routes.clone();
        // Of thousands of routes many have the same one.
        let mut seen = BTreeSet::new();
        for route in &mut routes {
            let Route { tls: Some(RouteTls { certificate, key }), place, .. } = route else { continue };
            let path = self.route_path(place);
            self.pair(&path, certificate, key);
            if seen.insert((certificate.clone(), key.clone())) {
                self.fit(&path, certificate, key);
            }
        }
        Serving { http: http.clone(), routes, balance: balance.clone(), probe: probe.clone() }
    }

    /// A certificate and its key, which may be in one file.
    fn pair(&mut self, tls: &str, certificate: &mut String, key: &mut String) {
        let one = certificate == key;
        *key = self.content(&format!("{tls}.key"), key);
        *certificate = if one { key.clone() } else { self.content(&format!("{tls}.cert"), certificate) };
    }

    /// Reports a certificate and a key, both in the graph, that do not belong together.
    fn fit(&mut self, tls: &str, certificate: &str, key: &str) {
        let (Some(chain), Some(own)) = (self.files.get(certificate), self.files.get(key)) else { return };
        if let Err(problem) = certified(&chain.bytes, &own.bytes) {
            self.error(tls, Problem::Certificate(problem.to_string()));
        }
    }

    /// Reports a file of authorities, in the graph, that holds none, or one that is of no use.
    fn are_authorities(&mut self, path: &str, authorities: &str) {
        let Some(file) = self.files.get(authorities) else { return };
        if let Err(problem) = model::authorities(&file.bytes) {
            self.error(path, Problem::Authorities(problem.to_string()));
        }
    }

    /// A route's place in the file tells it better than its number: some follow from others and are in no list.
    fn route_path(&self, place: &str) -> String {
        let mut places: Vec<&str> = self.service.keys.routes.iter().map(|route| route.place.as_str()).collect();
        places.dedup();
        let index = places.iter().position(|other| *other == place).unwrap_or_default();
        format!("x-route[{index}].tls")
    }

    /// Returns the key of the content of a secret or, where there is no secret of that name, of a config.
    fn content(&mut self, path: &str, name: &str) -> String {
        let key = ResourceKey::new(name).ok();
        let declared = key.as_ref().and_then(|key| {
            let model = self.input.model;
            let secret = model.secrets.contains_key(key).then_some((FileKind::Secret, "secret"));
            secret.or_else(|| model.configs.contains_key(key).then_some((FileKind::Config, "config")))
        });
        let (Some(key), Some((kind, word))) = (key, declared) else {
            self.error(path, Problem::Undefined { kind: "secret", name: name.to_owned() });
            return String::new();
        };
        let Some(bytes) = self.input.contents.get(&(kind, key)) else {
            self.error(path, Problem::NoContent { kind: word, name: name.to_owned() });
            return String::new();
        };
        keep(self.files, bytes, kind == FileKind::Secret)
    }
}

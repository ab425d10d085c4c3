//! Devices: what a host has of them, and how many of which kind a container takes there.
//!
//! An engine counts devices for nobody. It repeats what its administrator wrote under `node-generic-resources`, as Swarm
//! has it, and names its runtimes, by which it is seen that a driver is installed. What it says is counted; a driver
//! whose devices nobody counts is taken to have enough.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::graph::{Container, DeviceRequest};

/// Number of things by their kind.
pub type Kinds = BTreeMap<String, i64>;

/// The driver that serves a request for this which names none. Source: moby, `daemon/nvidia_linux.go`.
const GPU: (&str, &str) = ("gpu", "nvidia");

/// A driver that is a file format: engines have it in themselves.
const CDI: &str = "cdi";

/// What an engine says of its machine's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Devices {
    /// How many there are, by kind (`gpu`, `NVIDIA-GPU`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: Kinds,
    /// The engine's runtimes; none: nothing is known of its devices.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub runtimes: BTreeSet<String>,
}

impl Devices {
    /// Returns whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        self.kinds.is_empty() && self.runtimes.is_empty()
    }

    /// Returns how many of which kind a container takes on this host; what nobody counts is left out.
    ///
    /// # Errors
    /// What the host has nothing of.
    pub fn needs(&self, container: &Container) -> Result<Kinds, String> {
        let mut needs = Kinds::new();
        if self.is_unknown() {
            return Ok(needs);
        }
        for (kind, number) in &container.generic_resources {
            if !self.kinds.contains_key(kind) {
                return Err(kind.clone());
            }
            *needs.entry(kind.clone()).or_default() += number;
        }
        for request in &container.device_requests {
            match self.kinds.iter().find(|(kind, _)| is_kind_of(kind, request)) {
                Some((kind, there)) => *needs.entry(kind.clone()).or_default() += number(request, *there),
                None if self.has_driver(request) => {}
                None => return Err(request.name()),
            }
        }
        Ok(needs)
    }

    fn has_driver(&self, request: &DeviceRequest) -> bool {
        let (gpu, nvidia) = GPU;
        let implied = || request.capabilities.iter().any(|one| one == gpu).then_some(nvidia);
        let driver = request.driver.as_deref().or_else(implied);
        driver.is_some_and(|driver| driver == CDI || self.runtimes.contains(driver))
    }
}

/// How many a request takes where `there` are: all of them are one at least.
fn number(request: &DeviceRequest, there: i64) -> i64 {
    match request.count {
        Some(count) if count >= 0 => count,
        Some(_) => there.max(1),
        None => i64::try_from(request.device_ids.len()).unwrap_or(i64::MAX),
    }
}

/// Whether a kind is what a request asks for: it is named as a capability (`gpu`), or as driver and capability
/// (`NVIDIA-GPU`, `amd.com/gpu`).
fn is_kind_of(kind: &str, request: &DeviceRequest) -> bool {
    let kind = kind.to_ascii_lowercase();
    let (maker, what) = kind.rsplit_once(['-', '/']).unwrap_or(("", &kind));
    let by_maker = |driver: &str| maker.is_empty() || maker.starts_with(&driver.to_ascii_lowercase());
    request.capabilities.iter().any(|one| one.eq_ignore_ascii_case(what))
        && request.driver.as_deref().is_none_or(by_maker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(kinds: &[(&str, i64)], runtimes: &[&str]) -> Devices {
        Devices {
            kinds: kinds.iter().map(|(kind, number)| ((*kind).to_owned(), *number)).collect(),
            runtimes: runtimes.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn request(capability: &str, driver: Option<&str>, count: i64) -> DeviceRequest {
        let capabilities = vec![capability.to_owned(), "utility".to_owned()];
        DeviceRequest {
            capabilities,
            driver: driver.map(str::to_owned),
            count: Some(count),
            ..DeviceRequest::default()
        }
    }

    #[track_caller]
    fn check(host: &Devices, request: DeviceRequest, expected: Result<&[(&str, i64)], &str>) {
        let container = Container { device_requests: vec![request], ..Container::default() };
        let expected = expected.map(|kinds| kinds.iter().map(|(kind, number)| ((*kind).to_owned(), *number)).collect());
        assert_eq!(host.needs(&container), expected.map_err(str::to_owned));
    }

    #[test]
    fn what_is_counted_is_found_by_the_words_of_the_request() {
        let four = host(&[("NVIDIA-GPU", 4)], &["runc"]);
        check(&four, request("gpu", None, 2), Ok(&[("NVIDIA-GPU", 2)]));
        check(&four, request("gpu", Some("nvidia"), 2), Ok(&[("NVIDIA-GPU", 2)]));
        check(&four, request("gpu", Some("amd"), 2), Err("gpu of driver amd"));
        check(&four, request("gpu", None, -1), Ok(&[("NVIDIA-GPU", 4)]));
        check(&four, request("tpu", None, 1), Err("tpu"));
        check(&host(&[("gpu", 0)], &["runc"]), request("gpu", Some("amd"), -1), Ok(&[("gpu", 1)]));
        let ids = vec!["0".to_owned(), "3".to_owned()];
        check(
            &four,
            DeviceRequest { count: None, device_ids: ids, ..request("gpu", None, 0) },
            Ok(&[("NVIDIA-GPU", 2)]),
        );
    }

    #[test]
    fn what_nobody_counts_is_taken_to_be_enough() {
        check(&host(&[], &["nvidia", "runc"]), request("gpu", None, 2), Ok(&[]));
        check(&host(&[], &["runc"]), request("gpu", None, 2), Err("gpu"));
        check(&host(&[], &["runc"]), request("any", Some("cdi"), 2), Ok(&[]));
        check(&Devices::default(), request("gpu", None, 2), Ok(&[]));
    }

    #[test]
    fn generic_resources_go_by_their_exact_kind() {
        let needs = |kind: &str| {
            let generic_resources = Kinds::from([(kind.to_owned(), 3)]);
            host(&[("license", 2)], &[]).needs(&Container { generic_resources, ..Container::default() })
        };
        assert_eq!(needs("license"), Ok(Kinds::from([("license".to_owned(), 3)])));
        assert_eq!(needs("License"), Err("License".to_owned()));
    }
}

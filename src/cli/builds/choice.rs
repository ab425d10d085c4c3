//! Which builder makes an image: `BuildKit` where the engine has it, else the classic one; and what the one at hand cannot do,
//! each with its place in the file. Nothing that a file asks for is left out silently.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cli::error::CliError;
use crate::diag::{Diagnostic, Diagnostics, SourceMap, Span};
use crate::engine::{BuildKit, CacheEntry};
use crate::ids::ServiceName;
use crate::load::Loaded;
use crate::model::Build;

use super::{BuiltImage, MakeOptions};

/// First engine whose `BuildKit` has further contexts, `shm_size` and `ulimits` (`BuildKit` 0.10).
const NEWER: (u32, u32) = (23, 0);

/// Variable that turns `BuildKit` on or off, as for Docker's own client.
const SWITCH: &str = "DOCKER_BUILDKIT";

/// A builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builder {
    /// The one that every engine has.
    Classic,
    /// `BuildKit`.
    Kit,
}

/// What there is to choose from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offered {
    kit: Option<BuildKit>,
    /// Why there is no `BuildKit`.
    why_not: &'static str,
    /// What to do about that.
    help: &'static str,
}

impl Offered {
    /// `switch`: the value of [`SWITCH`].
    pub(super) fn new(kit: Option<BuildKit>, switch: Option<&str>) -> Result<Self, CliError> {
        let switch = match switch.unwrap_or_default() {
            "" => None,
            // Source: Go, strconv `ParseBool`.
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            other => return Err(CliError::Builds(vec![format!("{SWITCH} is `{other}`: 1 turns BuildKit on, 0 off")])),
        };
        let is_on = |kit: &BuildKit| switch.unwrap_or(kit.is_preferred);
        let (why_not, help) = match (&kit, switch) {
            (None, _) => ("which this engine does not have", BUILD_ELSEWHERE),
            (_, Some(false)) => ("which DOCKER_BUILDKIT=0 turns off", "build without this variable"),
            _ => ("which the engine's configuration turns off", "DOCKER_BUILDKIT=1 turns it on"),
        };
        Ok(Self { kit: kit.filter(is_on), why_not, help })
    }
}

/// Something that is asked of a builder, by its key in `build`, or the flag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    key: &'static str,
    /// What of it, should it be about some values only.
    what: &'static str,
    needs: Needs,
}

/// What it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Any `BuildKit`.
    Kit,
    /// That of an engine since [`NEWER`].
    NewerKit,
    /// An engine with containerd's store of images.
    Store,
    /// The classic builder, or a `BuildKit` since [`NEWER`].
    ClassicOrNewer,
    /// The classic builder.
    Classic,
}

fn wishes(source: &Build, options: &MakeOptions) -> Vec<Wish> {
    let says = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty() && text != "false");
    // What a flag says goes before the file.
    let attests = |flag: &Option<String>, file: &Option<String>| flag.is_none() && says(file);
    let off = ["", "default", "none", "host"];
    let named_network = source.network.as_deref().is_some_and(|network| !off.contains(&network));
    let elsewhere = |entry: &String| parse_cache(entry).kind != "inline";
    let gateway = source.extra_hosts.iter().any(|line| line.ends_with("host-gateway"));
    let all = [
        (!source.secrets.is_empty(), "secrets", "", Needs::Kit),
        (!source.ssh.is_empty(), "ssh", "", Needs::Kit),
        (!source.no_cache_filter.is_empty(), "no_cache_filter", "", Needs::Kit),
        (!source.entitlements.is_empty(), "entitlements", "", Needs::Kit),
        (source.privileged, "privileged", "", Needs::Kit),
        (!source.cache_to.is_empty(), "cache_to", "", Needs::Kit),
        (source.cache_to.iter().any(elsewhere), "cache_to", " with another type than `inline`", Needs::Store),
        (!source.additional_contexts.is_empty(), "additional_contexts", "", Needs::NewerKit),
        (source.platforms.len() > 1, "platforms", " with more than one", Needs::Store),
        (attests(&options.provenance, &source.provenance), "provenance", "", Needs::Store),
        (attests(&options.sbom, &source.sbom), "sbom", "", Needs::Store),
        (says(&options.provenance), "--provenance", "", Needs::Store),
        (says(&options.sbom), "--sbom", "", Needs::Store),
        (source.shm_size.is_some_and(|size| size.0 > 0), "shm_size", "", Needs::ClassicOrNewer),
        (!source.ulimits.is_empty(), "ulimits", "", Needs::ClassicOrNewer),
        (named_network, "network", " with a network's name", Needs::Classic),
        (gateway, "extra_hosts", " with `host-gateway`", Needs::Classic),
        (options.memory.is_some(), "--memory", "", Needs::Classic),
        (!options.ssh.is_empty(), "--ssh", "", Needs::Kit),
    ];
    let asked = all.into_iter().filter(|(asks, ..)| *asks);
    asked.map(|(_, key, what, needs)| Wish { key, what, needs }).collect()
}

impl Needs {
    /// Returns whether the classic builder cannot do it, on any engine.
    fn is_beyond_classic(self) -> bool {
        matches!(self, Self::Kit | Self::NewerKit | Self::Store)
    }

    /// Returns what the classic builder does and this `BuildKit` does not.
    fn is_beyond(self, kit: &BuildKit) -> bool {
        match self {
            Self::Classic => true,
            Self::ClassicOrNewer => !kit.since(NEWER.0, NEWER.1),
            Self::Kit | Self::NewerKit | Self::Store => false,
        }
    }
}

/// A wish that no builder at hand fulfils.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    key: &'static str,
    message: String,
    help: String,
}

/// Chooses the builder of an image.
pub(super) fn choose(build: &BuiltImage, options: &MakeOptions, offered: &Offered) -> Result<Builder, Vec<Refusal>> {
    let wishes = wishes(&build.source, options);
    let beyond_classic = || wishes.iter().filter(|wish| wish.needs.is_beyond_classic());
    let mut refusals: Vec<Refusal> = build.lacking.iter().map(|message| lacking(build, message)).collect();
    let builder = match &offered.kit {
        None => {
            let why = format!("needs BuildKit, {}", offered.why_not);
            refusals.extend(beyond_classic().map(|wish| wish.refused(build, &why, offered.help)));
            Builder::Classic
        }
        Some(kit) => match beyond_classic().next() {
            None if wishes.iter().any(|wish| wish.needs.is_beyond(kit)) => Builder::Classic,
            other => {
                let other = other.map_or("", |wish| wish.key);
                let refusal = |wish: &Wish| {
                    let (why, help) = wish.obstacle(kit, other)?;
                    Some(wish.refused(build, &why, help))
                };
                refusals.extend(wishes.iter().filter_map(refusal));
                Builder::Kit
            }
        },
    };
    if refusals.is_empty() { Ok(builder) } else { Err(refusals) }
}

impl Wish {
    /// Returns why `BuildKit` cannot do it, and what helps. `other` needs it.
    fn obstacle(&self, kit: &BuildKit, other: &str) -> Option<(String, &'static str)> {
        let (newer, this) = (format!("Docker Engine {}.{}", NEWER.0, NEWER.1), &kit.version_text);
        match self.needs {
            Needs::NewerKit if !kit.since(NEWER.0, NEWER.1) => {
                Some((format!("needs {newer}; this one is {this}"), BUILD_ELSEWHERE))
            }
            Needs::Store if !kit.has_containerd_store => {
                let why = "needs an engine that keeps images in containerd's store, which this one does not";
                Some((why.to_owned(), STORE))
            }
            Needs::ClassicOrNewer if self.needs.is_beyond(kit) => {
                let why =
                    format!("needs {newer} or the classic builder; this one is {this}, and `{other}` needs BuildKit");
                Some((why, LEAVE_OUT))
            }
            Needs::Classic => Some((format!("needs the classic builder, and `{other}` needs BuildKit"), LEAVE_OUT)),
            _ => None,
        }
    }

    fn refused(&self, build: &BuiltImage, why: &str, help: &str) -> Refusal {
        let key = if self.key.starts_with('-') {
            self.key.to_owned()
        } else {
            format!("services.{}.build.{}", build.service, self.key)
        };
        Refusal { key: self.key, message: format!("`{key}`{} {why}", self.what), help: help.to_owned() }
    }
}

fn lacking(build: &BuiltImage, message: &str) -> Refusal {
    Refusal {
        key: "secrets",
        message: format!("service `{}` cannot be built: {message}", build.service),
        help: "give the secret with `file`, or with `environment` and a variable that is set".to_owned(),
    }
}

const LEAVE_OUT: &str = "leave one of the two out";
const BUILD_ELSEWHERE: &str = "use a newer engine, or build the image elsewhere and name it with `image`";
const STORE: &str = "turn on `containerd-snapshotter` in the engine's configuration (since 24.0), or leave it out";

/// Where the elements of a build are in the files.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    of_build: Option<Span>,
    /// By their keys, as far as they are written.
    of_keys: BTreeMap<String, Span>,
    sources: Arc<SourceMap>,
}

impl Places {
    pub(super) fn of(loaded: &Loaded, service: &ServiceName, sources: &Arc<SourceMap>) -> Self {
        let place = |key: &[&str]| loaded.place(&[&["services", service.as_str(), "build"], key].concat());
        let of_build = place(&[]);
        let keys = KEYS.iter().map(|key| (*key, place(&[key]))).filter(|(_, span)| *span != of_build);
        let of_keys = keys.filter_map(|(key, span)| Some((key.to_owned(), span?))).collect();
        Self { of_build, of_keys, sources: Arc::clone(sources) }
    }
}

/// Keys that a builder may refuse.
const KEYS: &[&str] = &[
    "secrets",
    "ssh",
    "no_cache_filter",
    "entitlements",
    "privileged",
    "cache_to",
    "additional_contexts",
    "platforms",
    "provenance",
    "sbom",
    "shm_size",
    "ulimits",
    "network",
    "extra_hosts",
];

/// Turns refusals into problems with their places.
pub(super) fn refuse(all: &[(&BuiltImage, Vec<Refusal>)]) -> CliError {
    let text =
        |(_, refusals): &(&BuiltImage, Vec<Refusal>)| refusals.iter().map(|it| it.message.clone()).collect::<Vec<_>>();
    let sources = all.iter().find_map(|(build, _)| build.places.as_ref().map(|places| Arc::clone(&places.sources)));
    let Some(sources) = sources else { return CliError::Builds(all.iter().flat_map(text).collect()) };
    let problem = |build: &BuiltImage, Refusal { key, message, help }: &Refusal| {
        let problem = Diagnostic::error(message).help(help);
        if key.starts_with('-') {
            return problem;
        }
        let problem = problem.spec(format!("build.md#{key}"));
        let places = build.places.as_ref();
        match places.and_then(|places| places.of_keys.get(*key).copied().or(places.of_build)) {
            Some(span) => problem.at(span, ""),
            None => problem,
        }
    };
    let problems = all.iter().flat_map(|(build, refusals)| refusals.iter().map(|refusal| problem(build, refusal)));
    CliError::Files(Diagnostics::new(problems.collect(), sources))
}

/// Reads a place of layers: an image, or `type=…,NAME=VALUE`. Source: docker/buildx, util/buildflags/cache.go.
pub(super) fn parse_cache(entry: &str) -> CacheEntry {
    let pairs: Option<BTreeMap<String, String>> = entry
        .split(',')
        .map(|part| part.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect();
    let reference = || CacheEntry {
        kind: "registry".to_owned(),
        attributes: BTreeMap::from([("ref".to_owned(), entry.to_owned())]),
    };
    let Some(mut attributes) = pairs else { return reference() };
    match attributes.remove("type") {
        Some(kind) => CacheEntry { kind, attributes },
        None => reference(),
    }
}

#[cfg(test)]
mod tests;

//! `build`: how an image is made of source. Source: compose-spec build.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Bytes, FileReference, Ulimit};

/// `build` of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// Further contexts by name: a directory, an address, or `service:NAME`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub additional_contexts: BTreeMap<String, String>,
    /// Variables of the build; what has no value is not there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, Option<String>>,
    /// Where layers may come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_from: Vec<String>,
    /// Where layers go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_to: Vec<String>,
    /// Directory or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// File of instructions, in the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The instructions themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile_inline: Option<String>,
    /// Further rights of the build.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entitlements: Vec<String>,
    /// Lines of `/etc/hosts`, `name=address`, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    /// Technology that separates containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// Labels of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Network of the build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Use no layers of earlier builds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Stages that use no layers of earlier builds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_cache_filter: Vec<String>,
    /// Platforms that the image is made for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// All rights.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Attestation of how it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<String>,
    /// Pull base images anew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pull: bool,
    /// Attestation of what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<String>,
    /// Secrets that the build may read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<FileReference>,
    /// Size of `/dev/shm`.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub shm_size: Option<Bytes>,
    /// Agents and keys: `default`, `ID=PATH`.
    #[serde(deserialize_with = "keys_of_ssh", skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<String>,
    /// Further names of the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The stage that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Limits of processes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// A commit of a git repository, or a directory in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it is, as `git` takes it.
    pub address: String,
    /// Branch, tag or commit.
    pub reference: String,
    /// Directory in it; empty: all.
    pub directory: String,
}

impl Repository {
    /// Reads `ADDRESS#REFERENCE:DIRECTORY`; `None`: it is no address of a repository. One over HTTP ends with `.git`.
    /// Source: moby, pkg/urlutil `IsGitURL`, builder/remotecontext/git/gitutils.go.
    pub fn parse(context: &str) -> Option<Self> {
        let (address, fragment) = context.split_once('#').unwrap_or((context, ""));
        let over_http = ["http://", "https://"].iter().any(|start| address.starts_with(start));
        let over_http = over_http && address.strip_suffix(".git").is_some();
        let starts = ["git://", "ssh://", "file://", "git@", "github.com/"];
        if !(over_http || starts.iter().any(|start| address.starts_with(start))) {
            return None;
        }
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        if reference.starts_with('-') {
            return None;
        }
        let reference = if reference.is_empty() { "HEAD" } else { reference };
        let scheme = if address.starts_with("github.com/") { "https://" } else { "" };
        let address = format!("{scheme}{address}");
        Some(Self { address, reference: reference.to_owned(), directory: directory.to_owned() })
    }
}

/// Reads keys in either form: a mapping of names to paths, or a list.
fn keys_of_ssh<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Keys {
        Listed(Vec<String>),
        Named(BTreeMap<String, Option<String>>),
    }
    Ok(match Keys::deserialize(deserializer)? {
        Keys::Listed(keys) => keys,
        Keys::Named(keys) => keys
            .into_iter()
            .map(|(id, path)| match path.filter(|path| !path.is_empty()) {
                Some(path) => format!("{id}={path}"),
                None => id,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_repositories() {
        let check = |context: &str, expected: Option<(&str, &str, &str)>| {
            let found = Repository::parse(context);
            let found = found.as_ref().map(|it| (it.address.as_str(), it.reference.as_str(), it.directory.as_str()));
            assert_eq!(found, expected, "{context}");
        };
        check("https://a.example/b.git", Some(("https://a.example/b.git", "HEAD", "")));
        check("https://a.example/b.git#v1:sub/dir", Some(("https://a.example/b.git", "v1", "sub/dir")));
        check("git@a.example:b#:sub", Some(("git@a.example:b", "HEAD", "sub")));
        check("ssh://git@a.example/b#main", Some(("ssh://git@a.example/b", "main", "")));
        check("github.com/a/b", Some(("https://github.com/a/b", "HEAD", "")));
        check("https://a.example/b.tar.gz", None);
        check("git@a.example:b#--upload-pack=x", None);
        check("./b.git", None);
    }
}

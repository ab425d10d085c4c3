//! Entries of lists and sections that cannot do without a key, and keys of them that exclude one another.

use super::Container;
use crate::diag::Diagnostic;
use crate::load::node::Node;

/// Lists of a container whose entries need keys: path, keys, chapter.
const NEEDED: &[(&[&str], &[&str], &str)] = &[
    (&["blkio_config", "device_read_bps"], &["path", "rate"], "05-services.md#blkio_config"),
    (&["blkio_config", "device_read_iops"], &["path", "rate"], "05-services.md#blkio_config"),
    (&["blkio_config", "device_write_bps"], &["path", "rate"], "05-services.md#blkio_config"),
    (&["blkio_config", "device_write_iops"], &["path", "rate"], "05-services.md#blkio_config"),
    (&["blkio_config", "weight_device"], &["path", "weight"], "05-services.md#blkio_config"),
    (&["develop", "watch"], &["path", "action"], "develop.md#watch"),
];

impl Container<'_> {
    /// Keys that entries of lists cannot do without.
    pub(super) fn keys_of_entries(&mut self) {
        for (path, needed, spec) in NEEDED {
            let list = path.iter().try_fold(&self.entry.node, |node, key| node.get(key)).and_then(Node::as_seq);
            for item in list.into_iter().flatten().filter(|item| item.as_map().is_some()) {
                if let Some(missing) = needed.iter().find(|key| item.get(key).is_none_or(Node::is_null)) {
                    let message = format!("an entry of `{}` of {} has no `{missing}`", path.join("."), self.name);
                    self.error(item.span, message, "", spec);
                }
            }
        }
        for key in ["post_start", "pre_stop"] {
            let items = self.entry.node.items(key).iter().filter(|item| item.as_map().is_some());
            for item in items.filter(|item| item.get("command").is_none()) {
                let message = format!("an entry of `{key}` of {} needs a `command`", self.name);
                self.error(item.span, message, "", "05-services.md#post_start");
            }
        }
        let provider = self.entry.node.get("provider").filter(|provider| provider.as_map().is_some());
        if let Some(provider) = provider.filter(|provider| provider.str("type").is_none_or(str::is_empty)) {
            let message = format!("the provider of {} needs a `type`", self.name);
            self.error(provider.span, message, "name the program", "05-services.md#provider");
        }
    }

    /// A build has its instructions from one place, and makes the image that the service wants.
    pub(super) fn build(&mut self) {
        let Some(build) = self.entry.node.get("build") else { return };
        let said = |key: &str| build.get(key).filter(|node| node.as_str().is_some_and(|text| !text.is_empty()));
        if let (Some(file), Some(inline)) = (said("dockerfile"), said("dockerfile_inline")) {
            let message = format!("the build of {} has both `dockerfile` and `dockerfile_inline`", self.name);
            let problem = Diagnostic::error(message).at(inline.span, "").also(file.span, "");
            self.report.push(problem.help("keep one of them").spec("build.md#dockerfile_inline"));
        }
        if let Some(platform) = self.entry.node.get("platform")
            && let Some(name) = platform.as_str().filter(|name| !name.is_empty())
            && let Some(platforms) = build.get("platforms")
            && platforms.as_seq().is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.as_str() != Some(name)))
        {
            let message =
                format!("{} is for `{name}`, which is not among the platforms that it is built for", self.name);
            let problem = Diagnostic::error(message).at(platforms.span, "").also(platform.span, "wanted here");
            self.report.push(problem.help("add it").spec("build.md#platforms"));
        }
    }

    /// What is copied needs a place to go.
    pub(super) fn develop(&mut self) {
        let watched = self.entry.node.get("develop").map(|develop| develop.items("watch")).unwrap_or_default();
        for watch in watched {
            if let Some(path) = watch.get("path").filter(|path| path.as_str() == Some("")) {
                self.error(path.span, "a path that is watched must not be empty".to_owned(), "", "develop.md#path");
            }
            let action = watch.get("action");
            let copies = action.and_then(Node::as_str).is_some_and(|action| action.starts_with("sync"));
            if copies && watch.str("target").is_none_or(str::is_empty) {
                let span = action.map_or(watch.span, |action| action.span);
                self.error(
                    span,
                    "what is copied needs a `target`".to_owned(),
                    "a path in the container",
                    "develop.md#target",
                );
            }
        }
    }
}

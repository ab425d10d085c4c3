//! Where a key belongs that is known, but not where it was written; for messages.

use crate::load::path::Path;

use super::{Keys, root};

/// Words that other tools, and older versions of this one, have for keys of a service.
const OTHERWISE: &[(&str, &str)] = &[
    ("cmd", "command"),
    ("cpu", "cpus"),
    ("cpu_limit", "cpus"),
    ("env", "environment"),
    ("environments", "environment"),
    ("log_driver", "logging"),
    ("log_opt", "logging"),
    ("mac", "mac_address"),
    ("memory", "mem_limit"),
    ("memory_limit", "mem_limit"),
    ("name", "container_name"),
    ("net", "network_mode"),
    ("ulimit", "ulimits"),
    ("volume_driver", "volumes"),
    ("workdir", "working_dir"),
    ("working_directory", "working_dir"),
];

/// Returns what to do about a key of the specification that `path` does not know.
pub(in crate::load) fn astray(key: &str, path: &Path<'_>) -> Option<String> {
    let here = steps(path);
    if here.is_empty() {
        let is_of_services = root(Keys::Specification).key("services")?.key("*")?.names().any(|name| name == key);
        return is_of_services.then(|| "it is a key of services: indent it below the name of one".to_owned());
    }
    if here == ["services", "*"]
        && let Some((_, meant)) = OTHERWISE.iter().find(|(other, _)| *other == key)
    {
        return Some(format!("did you mean `{meant}`?"));
    }
    // Of several places the one that has most of this path, then the one that is least deep.
    let rows = root(Keys::Specification).rows();
    let places = rows.iter().filter_map(|rule| rule.path.strip_suffix(key)?.strip_suffix('.'));
    let shared = |place: &str| place.split('.').zip(&here).take_while(|(one, other)| one == *other).count();
    let place = places.filter(|place| shared(place) >= 2).min_by_key(|place| {
        let depth = place.split('.').count();
        (std::cmp::Reverse(shared(place)), depth)
    })?;
    let below: Vec<&str> = place.split('.').skip(2).collect();
    Some(match below.as_slice() {
        [] => format!("it belongs in `{}` itself", up_to(path, 2)?),
        [list @ .., "[]"] => format!("it belongs in an item of `{}`", list.join(".")),
        below => format!("it belongs in `{}`", below.join(".")),
    })
}

/// The path as the table has it.
fn steps<'a>(path: &Path<'a>) -> Vec<&'a str> {
    let mut steps = match path {
        Path::Root => return Vec::new(),
        Path::Key(parent, key) => [steps(parent), vec![*key]].concat(),
        Path::Item(parent, _) => [steps(parent), vec!["[]"]].concat(),
    };
    if steps.len() == 2 {
        steps[1] = "*";
    }
    steps
}

/// The first steps of a path, as it was written.
fn up_to(path: &Path<'_>, count: usize) -> Option<String> {
    let text = path.to_string();
    let steps: Vec<&str> = text.splitn(count + 1, '.').collect();
    (steps.len() >= count).then(|| steps[..count].join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sent_where_they_belong() {
        let services = Path::Root.key("services");
        let web = services.key("web");
        let (deploy, health) = (web.key("deploy"), web.key("healthcheck"));
        let resources = deploy.key("resources");
        let networks = Path::Root.key("networks");
        let net = networks.key("n");
        let ipam = net.key("ipam");
        for (key, path, expected) in [
            ("ports", &Path::Root, Some("it is a key of services: indent it below the name of one")),
            ("web", &Path::Root, None),
            ("replicas", &web, Some("it belongs in `deploy`")),
            ("limits", &web, Some("it belongs in `deploy.resources`")),
            ("limits", &deploy, Some("it belongs in `deploy.resources`")),
            ("memory", &resources, Some("it belongs in `deploy.resources.limits`")),
            ("restart_policy", &web, Some("it belongs in `deploy`")),
            ("memory", &web, Some("did you mean `mem_limit`?")),
            ("env", &web, Some("did you mean `environment`?")),
            ("restart", &health, Some("it belongs in `services.web` itself")),
            ("subnet", &ipam, Some("it belongs in an item of `ipam.config`")),
            ("nonsense", &web, None),
        ] {
            assert_eq!(astray(key, path).as_deref(), expected, "{key} in {path}");
        }
    }
}

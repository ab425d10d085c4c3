//! Services of the file that no active profile enables: who asks for one is told so, and what switches it on.

use std::fmt;

use super::Graph;
use crate::ids::ServiceName;

/// What a service is off by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Off {
    /// Its profiles; a graph that an older build made does not know them.
    profiles: Vec<String>,
}

impl Graph {
    /// Returns what a service of the file is off by; `None`: it is not.
    pub fn off(&self, service: &ServiceName) -> Option<Off> {
        let profiles = || self.profiles.get(service).cloned().unwrap_or_default();
        self.disabled.contains(service).then(|| Off { profiles: profiles() })
    }
}

impl Off {
    /// Returns the flag that switches it on.
    pub fn flag(&self) -> String {
        format!("--profile {}", self.profiles.first().map_or("PROFILE", String::as_str))
    }
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profiles: Vec<String> = self.profiles.iter().map(|profile| format!("`{profile}`")).collect();
        match profiles.as_slice() {
            [] => write!(f, "off by its profiles"),
            [one] => write!(f, "off by its profile {one}"),
            [first @ .., last] => write!(f, "off by its profiles {} and {last}", first.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::graph;

    #[test]
    fn a_service_that_is_off_says_by_what() {
        let mut graph = graph("{web: {}}");
        let (db, web) = ("db".parse::<ServiceName>().expect("a name"), "web".parse().expect("a name"));
        graph.disabled.insert(db.clone());
        let mut told = |profiles: &[&str]| {
            graph.profiles.insert(db.clone(), profiles.iter().map(|one| (*one).to_owned()).collect());
            let off = graph.off(&db).expect("it is off");
            (off.to_string(), off.flag())
        };
        let said = |text: &str, flag: &str| (text.to_owned(), flag.to_owned());
        assert_eq!(told(&["later"]), said("off by its profile `later`", "--profile later"));
        assert_eq!(told(&["a", "b", "c"]), said("off by its profiles `a`, `b` and `c`", "--profile a"));
        assert_eq!(told(&[]), said("off by its profiles", "--profile PROFILE"));
        assert_eq!(graph.off(&web), None);
    }
}

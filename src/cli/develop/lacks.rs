//! What has changed since the watch began, and what of it a container lacks: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::ids::ServiceName;
use crate::model::Hook;

use super::picture::{Change, Picture, whole};
use super::rules::{Action, Rule};

/// Number of a change: later ones are higher. A container that has nothing has 0.
pub(crate) type Number = u64;

/// A path that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Touched {
    number: Number,
    /// It was something else before.
    replaced: bool,
    /// It has not changed: it is brought because all is.
    initial: bool,
}

/// A rule with what is known of its files.
#[derive(Debug, Clone)]
pub(crate) struct Tracked {
    /// The rule.
    pub rule: Rule,
    /// What is there.
    pub picture: Picture,
    touched: BTreeMap<PathBuf, Touched>,
}

impl Tracked {
    /// Begins with what is there now, as a change of this number where all is to be brought at once.
    pub(crate) fn new(rule: Rule, picture: Picture, number: Number) -> Self {
        let touched = Touched { number, replaced: false, initial: true };
        let all = picture.paths().filter(|_| rule.initial).map(|path| (path.to_owned(), touched));
        let touched = all.collect();
        Self { rule, picture, touched }
    }

    /// Goes on by a rule that says the same of files and where they get; what is ignored may be other.
    ///
    /// What is ignored from now on is nobody's business any more, also not where it was brought before.
    pub(crate) fn by(self, rule: Rule) -> Self {
        let mut touched = self.touched;
        touched.retain(|path, _| rule.filter.takes(path));
        Self { rule, touched, ..self }
    }

    /// Takes in what has changed.
    pub(crate) fn take(&mut self, changes: &BTreeMap<PathBuf, Change>, number: Number) {
        for (path, change) in changes {
            let replaced = *change == Change::Replaced || self.touched.get(path).is_some_and(|before| before.replaced);
            self.touched.insert(path.clone(), Touched { number, replaced, initial: false });
        }
    }

    fn since(&self, has: Number) -> impl Iterator<Item = (&PathBuf, &Touched)> {
        self.touched.iter().filter(move |(_, touched)| touched.number > has)
    }
}

/// What a container gets.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Parcel {
    /// Paths in the container that go first.
    pub remove: Vec<PathBuf>,
    /// What gets there, by its path in the container, with where it is here. In order: a directory before what is in it.
    pub put: BTreeMap<PathBuf, Put>,
    /// What is run there afterwards.
    pub execs: Vec<Hook>,
    /// Whether its service is restarted afterwards.
    pub restart: bool,
}

/// Something that gets into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    /// Where it is here.
    pub from: PathBuf,
    /// Whether it is a directory.
    pub is_directory: bool,
}

impl Parcel {
    /// Returns whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.put.is_empty()
    }

    /// Returns how many paths it is about.
    pub(crate) fn len(&self) -> usize {
        self.put.len() + self.remove.iter().filter(|path| !self.put.contains_key(*path)).count()
    }
}

/// Returns what a container of a service lacks that has all up to `has`. `built`: up to there its image has all, so that
/// what is there is only made sure of, and nothing follows from it.
pub(crate) fn lacks(all: &[Tracked], service: &ServiceName, has: Number, built: Number) -> Parcel {
    let mut parcel = Parcel::default();
    let mut gone = BTreeSet::new();
    for tracked in all.iter().filter(|one| one.rule.service == *service && one.rule.action.syncs()) {
        let mut follows = false;
        for (path, touched) in tracked.since(has) {
            let inside = tracked.rule.inside(path);
            follows |= !touched.initial && touched.number > built;
            let is_there = tracked.picture.has(path);
            if !is_there || touched.replaced {
                gone.insert(inside.clone());
            }
            if is_there {
                let from = whole(&tracked.rule.path, path);
                let is_directory = tracked.picture.is_directory(path);
                parcel.put.insert(inside, Put { from, is_directory });
            }
        }
        if follows && tracked.rule.action == Action::SyncExec {
            parcel.execs.push(tracked.rule.exec.clone());
        }
        parcel.restart |= follows && tracked.rule.action == Action::SyncRestart;
    }
    // With a directory goes all that is in it, and a root is nobody's to remove.
    let covered = |path: &Path| path.ancestors().skip(1).any(|above| gone.contains(above));
    parcel.remove = gone.iter().filter(|path| path.parent().is_some() && !covered(path)).cloned().collect();
    parcel
}

/// What a batch of changes leads to beside files that get into containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Consequences {
    /// Services whose images are built.
    pub rebuild: BTreeSet<ServiceName>,
    /// Services that are restarted, whatever their containers get.
    pub restart: BTreeSet<ServiceName>,
    /// Services that get files, with how many changes.
    pub sync: BTreeMap<ServiceName, usize>,
}

impl Consequences {
    /// Takes in the changes of a rule's files.
    pub(crate) fn add(&mut self, rule: &Rule, changes: usize) {
        let service = rule.service.clone();
        match rule.action {
            _ if changes == 0 => {}
            Action::Rebuild => drop(self.rebuild.insert(service)),
            Action::Restart => drop(self.restart.insert(service)),
            Action::Sync | Action::SyncRestart | Action::SyncExec => *self.sync.entry(service).or_default() += changes,
        }
    }
}

#[cfg(test)]
mod tests;

//! This machine's side: the files that are watched, and what has changed once there was silence for a moment.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tokio::time::{Instant, sleep_until};

use crate::cli::error::CliError;
use crate::host::changes::{self, Changes};

use super::lacks::{Consequences, Number, Tracked};
use super::picture::{Picture, Told};
use super::quiet::Quiet;
use super::rules::Rule;

/// What is watched here.
pub(crate) struct Site {
    /// The rules, each with what is known of its files.
    pub all: Vec<Tracked>,
    /// Number of the last change.
    pub number: Number,
    /// What the project itself is made of.
    files: BTreeSet<PathBuf>,
    changes: Changes,
    told: Told,
    files_changed: bool,
    quiet: Quiet,
}

/// What has changed.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// What follows.
    pub consequences: Consequences,
    /// Whether the project's own files have.
    pub files: bool,
    /// What could not be looked at.
    pub problems: Vec<CliError>,
}

impl Site {
    /// Begins.
    ///
    /// # Errors
    /// What cannot be watched.
    pub(crate) fn begin(rules: Vec<Rule>, files: BTreeSet<PathBuf>) -> Result<Self, CliError> {
        let changes = Changes::new().map_err(|error| failed(Path::new("/"), error))?;
        let mut site = Self {
            all: Vec::new(),
            number: 0,
            files: BTreeSet::new(),
            changes,
            told: Told::default(),
            files_changed: false,
            quiet: Quiet::default(),
        };
        match site.use_rules(rules, files).into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(site),
        }
    }

    /// From now on watches by these rules; what is known by rules that stay is kept. Returns what cannot be looked at.
    pub(crate) fn use_rules(&mut self, rules: Vec<Rule>, files: BTreeSet<PathBuf>) -> Vec<CliError> {
        self.number += 1;
        let mut problems = Vec::new();
        let mut old = std::mem::take(&mut self.all);
        for rule in rules {
            if let Some(at) = old.iter().position(|tracked| tracked.rule.is_same(&rule)) {
                self.all.push(old.swap_remove(at).by(rule));
                // What an ignore file left out may matter now.
                self.told.all = true;
                self.quiet.heard(Instant::now());
                continue;
            }
            let mut picture = Picture::new(&rule.path);
            let everything = Told { all: true, ..Told::default() };
            let watch = &mut |path: &Path| self.changes.watch(path);
            let (_, found) = picture.look(&rule.filter, &everything, watch);
            problems.extend(found.into_iter().map(|(path, error)| failed(&path, error)));
            self.all.push(Tracked::new(rule, picture, self.number));
        }
        for directory in files.iter().filter_map(|path| path.parent()) {
            match self.changes.watch(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => problems.push(failed(directory, error)),
                _ => {}
            }
        }
        self.files = files;
        problems
    }

    /// Waits until something has changed and there was silence since. Nothing is lost where the wait is given up.
    ///
    /// # Errors
    /// When the kernel tells nothing any more.
    pub(crate) async fn batch(&mut self) -> Result<Batch, CliError> {
        loop {
            let due = self.quiet.due();
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => return Ok(self.look()),
                told = self.changes.next() => {
                    for change in told.map_err(|error| failed(Path::new("/"), error))? {
                        self.hear(change);
                    }
                }
            }
        }
    }

    fn hear(&mut self, change: changes::Change) {
        let (directory, path, written) = match change {
            changes::Change::TooMuch => {
                (self.told.all, self.files_changed) = (true, true);
                return self.quiet.heard(Instant::now());
            }
            changes::Change::In { directory, name: Some(name), written } => {
                let path = directory.join(name);
                (directory, path, written)
            }
            changes::Change::In { directory, name: None, written } => (directory.clone(), directory, written),
        };
        let of_files = self.files.contains(&path);
        let of_rules = self.all.iter().any(|tracked| tracked.rule.concerns(&path));
        if of_files || of_rules {
            self.quiet.heard(Instant::now());
        }
        self.files_changed |= of_files;
        if of_rules {
            self.told.directories.insert(directory);
            if written {
                self.told.written.insert(path);
            }
        }
    }

    fn look(&mut self) -> Batch {
        self.quiet.done();
        let told = std::mem::take(&mut self.told);
        let mut batch = Batch { files: std::mem::take(&mut self.files_changed), ..Batch::default() };
        if told.is_empty() {
            return batch;
        }
        self.number += 1;
        for tracked in &mut self.all {
            let watch = &mut |path: &Path| self.changes.watch(path);
            let (changes, problems) = tracked.picture.look(&tracked.rule.filter, &told, watch);
            batch.problems.extend(problems.into_iter().map(|(path, error)| failed(&path, error)));
            batch.consequences.add(&tracked.rule, changes.len());
            tracked.take(&changes, self.number);
        }
        batch
    }
}

fn failed(path: &Path, source: io::Error) -> CliError {
    CliError::Watch { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::cli::develop::rules::Watched;
    use crate::cli::develop::rules::tests::watched;
    use crate::ids::ServiceName;

    /// Waits for a batch; what the test does next is none of it.
    async fn batch(site: &mut Site) -> Batch {
        let batch = tokio::time::timeout(Duration::from_secs(10), site.batch()).await.expect("in time").expect("told");
        assert!(batch.problems.is_empty(), "{:?}", batch.problems);
        batch
    }

    fn syncs(batch: &Batch) -> usize {
        let web = ServiceName::new("web").expect("a name");
        batch.consequences.sync.get(&web).copied().unwrap_or_default()
    }

    #[tokio::test]
    async fn what_an_editor_and_a_check_out_do_is_a_batch_each() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        fs::create_dir_all(root.join("app/old/deep")).expect("made");
        fs::write(root.join("app/old/deep/a"), "1").expect("written");
        let rule = format!(
            "{{image: x, develop: {{watch: [{{path: {}/app, action: sync, target: /app, ignore: log}}]}}}}",
            root.display()
        );
        let compose = root.join("compose.yaml");
        let rules = watched(&rule).expect("read").rules;
        let mut site = Site::begin(rules, BTreeSet::from([compose.clone()])).expect("begun");

        fs::write(root.join("app/.a.swp"), "").expect("written");
        fs::write(root.join("app/a~"), "1").expect("written");
        fs::write(root.join("app/log"), "1").expect("written");
        fs::write(root.join("beside"), "1").expect("written");
        fs::write(root.join("app/new"), "1").expect("written");
        fs::rename(root.join("app/new"), root.join("app/main")).expect("renamed");
        assert_eq!(syncs(&batch(&mut site).await), 1, "what matters is there in the end");

        for at in 0..300 {
            let deep = root.join(format!("app/many/{}/{}", at % 7, at % 5));
            fs::create_dir_all(&deep).expect("made");
            fs::write(deep.join(at.to_string()), "1").expect("written");
        }
        assert_eq!(syncs(&batch(&mut site).await), 300 + 1 + 7 + 35);

        fs::rename(root.join("app/old"), root.join("app/moved")).expect("renamed");
        assert_eq!(syncs(&batch(&mut site).await), 6);
        fs::write(root.join("app/moved/deep/a"), "2").expect("written");
        assert_eq!(syncs(&batch(&mut site).await), 1, "watched by its new name");

        fs::remove_dir_all(root.join("app/many")).expect("removed");
        assert_eq!(syncs(&batch(&mut site).await), 343);

        fs::write(&compose, "services: {}").expect("written");
        let last = batch(&mut site).await;
        assert!(last.files && last.consequences == Consequences::default(), "{last:?}");
    }

    #[tokio::test]
    async fn a_change_of_an_ignore_file_alone_counts_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        for (name, text) in [(".dockerignore", "*.log\n"), ("a.log", "1"), ("b.tmp", "1")] {
            fs::write(root.join(name), text).expect("written");
        }
        let read = || {
            let path = root.display();
            watched(&format!("{{build: {path}, develop: {{watch: [{{path: {path}, action: sync, target: /app}}]}}}}"))
                .expect("read")
        };
        let Watched { rules, ignore_files, .. } = read();
        assert!(ignore_files.contains(&root.join(".dockerignore")), "{ignore_files:?}");
        let mut site = Site::begin(rules, ignore_files).expect("begun");
        fs::write(root.join(".dockerignore"), "*.tmp\n").expect("written");
        let told = batch(&mut site).await;
        assert!(told.files && syncs(&told) == 1, "the file itself is one of those that are watched: {told:?}");

        let Watched { rules, ignore_files, .. } = read();
        assert!(site.use_rules(rules, ignore_files).is_empty());
        assert_eq!(syncs(&batch(&mut site).await), 1, "`a.log` matters now, and `b.tmp` no more, which is not removed");
        let web = ServiceName::new("web").expect("a name");
        let lacks = crate::cli::develop::lacks::lacks(&site.all, &web, 0, 0);
        let put: Vec<String> = lacks.put.keys().map(|path| path.display().to_string()).collect();
        assert_eq!((put, lacks.remove), (vec!["/app/.dockerignore".to_owned(), "/app/a.log".to_owned()], Vec::new()));
    }

    #[tokio::test]
    async fn where_the_kernel_could_not_keep_up_nothing_is_missed() {
        let dir = tempfile::tempdir().expect("a directory");
        let rule = format!(
            "{{image: x, develop: {{watch: [{{path: {}, action: sync, target: /app}}]}}}}",
            dir.path().display()
        );
        let mut site = Site::begin(watched(&rule).expect("read").rules, BTreeSet::new()).expect("begun");
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
        let [mut one, mut other] = ["one", "other"].map(|name| fs::File::create(dir.path().join(name)).expect("made"));
        // Two that take turns, as the kernel tells the same only once.
        for _ in 0..limit.trim().parse::<usize>().expect("a number").div_ceil(2) {
            one.write_all(b"x").expect("written");
            other.write_all(b"x").expect("written");
        }
        fs::write(dir.path().join("late"), "x").expect("written");
        assert_eq!(syncs(&batch(&mut site).await), 3);
    }
}

use std::fs;

use super::*;
use crate::cli::develop::picture::Told;
use crate::cli::develop::rules::tests::watched;

/// Number of what is there at the beginning.
const INITIAL: Number = 1;

/// A directory whose changes are numbered as they come.
struct Site {
    dir: tempfile::TempDir,
    all: Vec<Tracked>,
    number: Number,
}

impl Site {
    /// `rules` has `DIR` for the directory; it holds these files at the beginning.
    fn new(rules: &str, files: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for path in files {
            write(&dir.path().join(path));
        }
        let rules = rules.replace("DIR", &dir.path().display().to_string());
        let rules = watched(&format!("{{build: {}, develop: {{watch: [{rules}]}}}}", dir.path().display()));
        let tracked = |rule: Rule| {
            let mut picture = Picture::new(&rule.path);
            picture.look(&rule.filter, &Told { all: true, ..Told::default() }, &mut |_| Ok(()));
            Tracked::new(rule, picture, INITIAL)
        };
        Self { all: rules.expect("read").rules.into_iter().map(tracked).collect(), dir, number: INITIAL }
    }

    /// Changes files (`-` before a name: it is removed) and takes that in. Returns what follows.
    fn change(&mut self, changes: &[&str]) -> Consequences {
        for change in changes {
            match change.strip_prefix('-') {
                Some(path) => {
                    let path = self.dir.path().join(path);
                    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
                }
                None => write(&self.dir.path().join(change)),
            }
        }
        self.number += 1;
        let mut consequences = Consequences::default();
        for tracked in &mut self.all {
            let told = Told { all: true, ..Told::default() };
            let (found, _) = tracked.picture.look(&tracked.rule.filter, &told, &mut |_| Ok(()));
            consequences.add(&tracked.rule, found.len());
            tracked.take(&found, self.number);
        }
        consequences
    }

    /// Says what a container lacks that has all up to `has`.
    fn lacks(&self, has: Number, built: Number) -> String {
        let web = ServiceName::new("web").expect("a name");
        let Parcel { remove, put, execs, restart } = lacks(&self.all, &web, has, built);
        let mut words: Vec<String> = remove.iter().map(|path| format!("-{}", path.display())).collect();
        words.extend(put.iter().map(|(inside, put)| {
            let from = put.from.strip_prefix(self.dir.path()).expect("below");
            let slash = if put.is_directory { "/" } else { "" };
            format!("+{}{slash}<{}", inside.display(), from.display())
        }));
        words.extend(execs.iter().map(|exec| format!("exec {}", exec.command.clone().unwrap_or_default().join(" "))));
        words.extend(restart.then(|| "restart".to_owned()));
        words.join(" ")
    }
}

fn write(path: &Path) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    let before = fs::read_to_string(path).unwrap_or_default();
    fs::write(path, before + "x").expect("written");
}

#[test]
fn a_container_gets_what_it_lacks_as_it_is_now() {
    let mut site = Site::new("{path: DIR/src, action: sync, target: /app/}", &["src/a", "src/b", "src/d/x"]);
    assert_eq!(site.lacks(0, 0), "", "the image has what was there before");
    site.change(&["src/a", "src/new/c"]);
    assert_eq!(site.lacks(0, 0), "+/app/a<src/a +/app/new/<src/new +/app/new/c<src/new/c");
    assert_eq!(site.lacks(site.number, 0), "");
    let before = site.number;
    site.change(&["-src/new", "-src/b", "src/a"]);
    assert_eq!(site.lacks(before, 0), "-/app/b -/app/new +/app/a<src/a", "with a directory goes what is in it");
    assert_eq!(site.lacks(0, 0), "-/app/b -/app/new +/app/a<src/a", "whoever was away gets the same");
    site.change(&["-src/d", "src/d"]);
    assert_eq!(site.lacks(site.number - 1, 0), "-/app/d +/app/d<src/d", "what was a directory goes first");
    site.change(&["src/d"]);
    assert_eq!(site.lacks(before, 0), "-/app/b -/app/d -/app/new +/app/a<src/a +/app/d<src/d");
}

#[test]
fn what_follows_is_asked_for_by_changes_and_not_by_what_was_there() {
    let rules = "{path: DIR/a, action: sync+restart, target: /a, initial_sync: true}, \
                 {path: DIR/b, action: sync+exec, target: /b, exec: {command: run it}}";
    let mut site = Site::new(rules, &["a/x", "b/y"]);
    assert_eq!(site.lacks(0, 0), "+/a/x<a/x");
    site.change(&["b/y"]);
    assert_eq!(site.lacks(INITIAL, 0), "+/b/y<b/y exec run it");
    site.change(&["a/x"]);
    assert_eq!(site.lacks(2, 0), "+/a/x<a/x restart");
    assert_eq!(site.lacks(0, 0), "+/a/x<a/x +/b/y<b/y exec run it restart", "made anew meanwhile");
    assert_eq!(site.lacks(0, site.number), "+/a/x<a/x +/b/y<b/y", "its image was built since");
}

#[test]
fn a_batch_leads_to_each_thing_once() {
    let rules = "{path: DIR/package.json, action: rebuild}, {path: DIR, action: sync, target: /app, ignore: conf}, \
                 {path: DIR/conf, action: restart}";
    let mut site = Site::new(rules, &["package.json", "conf"]);
    let web = || ServiceName::new("web").expect("a name");
    let mut check = |changes: &[&str], rebuild, restart, sync: &[usize]| {
        let found = site.change(changes);
        let expected = Consequences {
            rebuild: std::iter::repeat_n(web(), rebuild).collect(),
            restart: std::iter::repeat_n(web(), restart).collect(),
            sync: sync.iter().map(|count| (web(), *count)).collect(),
        };
        assert_eq!(found, expected, "{changes:?}");
    };
    check(&[], 0, 0, &[]);
    check(&["a", "b"], 0, 0, &[2]);
    check(&["conf"], 0, 1, &[]);
    check(&["package.json", "conf"], 1, 1, &[1]);
}

#[test]
fn two_rules_may_lead_to_one_place() {
    let rules = "{path: DIR/a, action: sync, target: /app}, {path: DIR/b, action: sync, target: /app}";
    let mut site = Site::new(rules, &["a/x"]);
    site.change(&["-a/x", "b/x"]);
    assert_eq!(site.lacks(0, 0), "-/app/x +/app/x<b/x");
    let mut site = Site::new("{path: DIR/a, action: sync, target: /}", &["a"]);
    site.change(&["-a"]);
    assert_eq!(site.lacks(0, 0), "", "nobody's root is removed");
}

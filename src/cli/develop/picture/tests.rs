use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::cli::develop::rules::tests::watched;

/// A directory that is watched, with what is told of each change.
struct Site {
    dir: tempfile::TempDir,
    picture: Picture,
    filter: Filter,
    watched: BTreeSet<PathBuf>,
}

impl Site {
    /// `path` is what is watched, from the site's directory on.
    fn new(path: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join(path);
        let rule = format!("{{path: {}, action: sync, target: /app{more}}}", root.display());
        let rule = watched(&format!("{{image: x, develop: {{watch: [{rule}]}}}}")).expect("read").rules.remove(0);
        let mut site = Self { picture: Picture::new(&root), filter: rule.filter, dir, watched: BTreeSet::new() };
        site.look(&Told { all: true, ..Told::default() });
        site
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str) {
        fs::create_dir_all(self.at(path).parent().expect("a directory")).expect("made");
        fs::write(self.at(path), path).expect("written");
    }

    fn look(&mut self, told: &Told) -> String {
        let watched = &mut self.watched;
        let mut watch = |path: &Path| {
            path.read_dir()?;
            watched.insert(path.to_owned());
            Ok(())
        };
        let (changes, problems) = self.picture.look(&self.filter, told, &mut watch);
        assert!(problems.is_empty(), "{problems:?}");
        let sign = |change: &Change| match change {
            Change::Written => '+',
            Change::Replaced => '!',
            Change::Gone => '-',
        };
        let words = changes.iter().map(|(path, change)| format!("{}{}", sign(change), path.display()));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Says what has changed once something was told of these directories.
    fn told(&mut self, directories: &[&str]) -> String {
        let directories = directories.iter().map(|path| self.at(path)).collect();
        self.look(&Told { directories, ..Told::default() })
    }
}

#[test]
fn what_is_new_other_or_gone_is_found_where_something_was_told() {
    let mut site = Site::new("app", "");
    assert_eq!(site.told(&["app"]), "");
    for (path, told, found) in [
        ("app/a", "", "+a"),
        ("app/b", "app", "+b"),
        ("app/deep/er/c", "app", "+deep +deep/er +deep/er/c"),
        ("app/deep/er/d", "app", ""),
        ("app/e", "app/deep/er", "+deep/er/d"),
        ("f", "app", "+e"),
    ] {
        site.write(path);
        assert_eq!(site.told(&[told]), found, "{path}");
    }
    fs::write(site.at("app/a"), "another").expect("written");
    fs::set_permissions(site.at("app/b"), fs::Permissions::from_mode(0o700)).expect("set");
    symlink("a", site.at("app/link")).expect("linked");
    assert_eq!(site.told(&["app"]), "+a +b +link");
    fs::rename(site.at("app/deep"), site.at("app/other")).expect("renamed");
    assert_eq!(site.told(&["app"]), "-deep -deep/er -deep/er/c -deep/er/d +other +other/er +other/er/c +other/er/d");
    fs::remove_dir_all(site.at("app/other")).expect("removed");
    fs::remove_file(site.at("app/a")).expect("removed");
    fs::create_dir(site.at("app/a")).expect("made");
    site.write("app/a/x");
    assert_eq!(site.told(&["app"]), "!a +a/x -other -other/er -other/er/c -other/er/d");
    fs::remove_dir_all(site.at("app/a")).expect("removed");
    site.write("app/a");
    assert_eq!(site.told(&["app"]), "!a -a/x");
}

#[test]
fn where_too_much_was_told_everything_is_looked_at() {
    let mut site = Site::new("app", "");
    site.write("app/a/b");
    site.write("app/c");
    site.told(&["app", ""]);
    site.write("app/a/new");
    fs::remove_file(site.at("app/c")).expect("removed");
    assert_eq!(site.look(&Told { all: true, ..Told::default() }), "+a/new -c");
}

#[test]
fn what_was_written_to_counts_even_where_it_looks_as_before() {
    let mut site = Site::new("app", "");
    site.write("app/a");
    site.told(&[""]);
    let (directories, written) = (BTreeSet::from([site.at("app")]), BTreeSet::from([site.at("app/a"), site.at("app")]));
    assert_eq!(site.look(&Told { all: false, directories, written }), "+a");
}

#[test]
fn every_directory_is_watched_before_it_is_read_but_those_that_do_not_matter() {
    let mut site = Site::new("app", ", ignore: [node_modules, 'kept/*', '!kept/this']");
    for path in ["app/src/x", "app/node_modules/y/z", "app/kept/this/x", "app/kept/that/x", "app/.git/x"] {
        site.write(path);
    }
    assert_eq!(site.told(&[""]), "+kept +kept/this +kept/this/x +src +src/x");
    let watched: BTreeSet<PathBuf> =
        ["", "app", "app/src", "app/kept", "app/kept/this"].into_iter().map(|path| site.at(path)).collect();
    assert_eq!(site.watched, watched);
}

#[test]
fn a_path_may_be_a_file_and_may_come_later() {
    let mut site = Site::new("none/yet/conf", "");
    assert_eq!(site.watched, BTreeSet::from([site.dir.path().to_owned()]));
    site.write("none/yet/other");
    assert_eq!(site.told(&[""]), "");
    assert!(site.watched.contains(&site.at("none/yet")));
    site.write("none/yet/conf");
    assert_eq!(site.told(&["none/yet"]), "+");
    fs::remove_file(site.at("none/yet/conf")).expect("removed");
    assert_eq!(site.told(&["none/yet"]), "-");
}

#[test]
fn a_directory_that_comes_back_is_what_it_was() {
    let mut site = Site::new("app", "");
    site.write("app/a");
    site.write("app/b");
    site.told(&[""]);
    fs::rename(site.at("app"), site.at("away")).expect("renamed");
    assert_eq!(site.told(&[""]), "-a -b");
    site.write("app/b");
    assert_eq!(site.told(&[""]), "+b");
}

//! Files that a project is made of, so that a change of any of them is noticed: compose files, those that they include or
//! extend, env files, what configs and secrets hold.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::load::{Files, OsFiles};

/// The disk, and what of it was read.
#[derive(Debug, Default)]
pub(crate) struct Remembering {
    read: RefCell<BTreeSet<PathBuf>>,
    looked_for: RefCell<BTreeSet<PathBuf>>,
}

impl Remembering {
    /// Returns what was read, or could not be; and what was looked for beside it, such as `compose.override.yaml`.
    pub(crate) fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = self.read.borrow().clone();
        let directories: BTreeSet<PathBuf> =
            files.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        let looked_for = self.looked_for.borrow();
        let beside = |path: &&PathBuf| path.parent().is_some_and(|directory| directories.contains(directory));
        files.extend(looked_for.iter().filter(beside).cloned());
        files
    }
}

impl Files for Remembering {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read.borrow_mut().insert(path.to_owned());
        OsFiles.read(path)
    }

    fn is_file(&self, path: &Path) -> bool {
        self.looked_for.borrow_mut().insert(path.to_owned());
        OsFiles.is_file(path)
    }

    fn read_stdin(&self) -> io::Result<Vec<u8>> {
        OsFiles.read_stdin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{LoadRequest, load};

    #[test]
    fn all_that_a_project_is_made_of_is_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        for (name, text) in [
            (
                "compose.yaml",
                "services: {web: {extends: {file: base.yaml, service: web}, env_file: [a.env, {path: b.env, required: false}]}}",
            ),
            ("base.yaml", "services: {web: {image: x, configs: [c]}}"),
            ("compose.override.yaml", "configs: {c: {file: conf}}"),
            ("a.env", "A=1"),
            (".env", "B=2"),
            ("conf", "x"),
            ("other", "x"),
        ] {
            std::fs::write(root.join(name), text).expect("written");
        }
        let files = Remembering::default();
        let project_name = Some("shop".to_owned());
        load(&files, &LoadRequest { cwd: root.to_owned(), project_name, ..LoadRequest::default() }).expect("loaded");
        let found = files.files();
        for name in ["compose.yaml", "base.yaml", "compose.override.yaml", "a.env", "b.env", ".env", "conf"] {
            assert!(found.contains(&root.join(name)), "{name}: {found:?}");
        }
        assert!(!found.contains(&root.join("other")));
    }
}

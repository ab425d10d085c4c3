//! A project in memory, and its request.

use std::path::Path;

use orch::diag::Diagnostics;
use orch::load::{LoadOptions, LoadRequest, Loaded, MemoryFiles, Selection, load};

/// Files and a command line.
pub(crate) struct Project {
    pub(crate) files: MemoryFiles,
    pub(crate) request: LoadRequest,
}

/// The environment of all cases.
pub(crate) const ENVIRONMENT: [(&str, &str); 4] = [("SET", "v"), ("EMPTY", ""), ("HOME", "/home/u"), ("N", "3")];
/// Files that all cases may refer to.
pub(crate) const SHARED: [(&str, &str); 2] = [("e.env", "E1=1\nE2=${SET}x\nUNSET\n"), ("x", "content of x")];

impl Project {
    /// Returns a project of `-f` files named `0.yaml` and so on.
    pub(crate) fn new<T: Into<Vec<u8>>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut files = MemoryFiles::new(SHARED.map(|(name, text)| (format!("/project/{name}"), text)));
        let mut names = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            names.push(format!("{index}.yaml"));
            files.files.insert(format!("/project/{index}.yaml").into(), text.into());
        }
        let request = LoadRequest {
            cwd: "/project".into(),
            files: names,
            environment: ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            options: LoadOptions { applied: false, ..LoadOptions::default() },
            ..LoadRequest::default()
        };
        Self { files, request }
    }

    /// Returns the project of a case in a file.
    pub(crate) fn of_case(case: &Path) -> Self {
        let read = |path: &Path| std::fs::read_to_string(path).expect("case files are text");
        let first = read(case);
        let mut texts = vec![first.clone()];
        texts.extend(
            (2..9).map(|n| case.with_extension(format!("{n}.yaml"))).filter(|path| path.exists()).map(|p| read(&p)),
        );
        let mut project = Self::new(texts);
        let prefix = format!("{}.pattern-", case.file_stem().expect("a name").to_string_lossy());
        for entry in std::fs::read_dir(case.parent().expect("a chapter")).expect("it is there").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(pattern) = name.strip_prefix(&prefix) {
                project.files.files.insert(format!("/project/patterns/{pattern}").into(), read(&entry.path()).into());
            }
        }
        project.add(&case.with_extension("files"), Path::new("/project"));
        let mut args = first.lines().next().and_then(|line| line.strip_prefix("# args: ")).unwrap_or("").split(' ');
        while let Some(arg) = args.next().filter(|arg| !arg.is_empty()) {
            if arg == "--profile" {
                project.request.profiles.extend(args.next().map(str::to_owned));
            } else {
                project.request.services.push(arg.to_owned());
                project.request.options.selection = Selection::WithDependencies;
            }
        }
        project
    }

    /// Adds the files below a folder, if it is there.
    fn add(&mut self, folder: &Path, to: &Path) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = to.join(entry.file_name());
            if entry.path().is_dir() {
                self.add(&entry.path(), &path);
            } else {
                self.files.files.insert(path, std::fs::read(entry.path()).expect("case files can be read"));
            }
        }
    }

    pub(crate) fn load(&self) -> Result<Loaded, Diagnostics> {
        load(&self.files, &self.request)
    }

    /// Loads what is to be run: an element that is not applied yet is a problem.
    pub(crate) fn load_to_run(&self) -> Result<Loaded, Diagnostics> {
        let mut request = self.request.clone();
        request.options.applied = true;
        load(&self.files, &request)
    }
}

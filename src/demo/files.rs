//! Looking at files: orch's image has no shell and no tools.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{DemoError, Exit, say_line};

pub(super) fn cat(paths: &[PathBuf]) -> Result<Exit, DemoError> {
    for path in paths {
        let bytes = fs::read(path).map_err(DemoError::io(format!("read {}", path.display())))?;
        std::io::stdout().lock().write_all(&bytes).map_err(DemoError::io("write the answer"))?;
    }
    Ok(Exit::Success)
}

pub(super) fn write(path: &Path, text: &str) -> Result<Exit, DemoError> {
    fs::write(path, format!("{text}\n")).map_err(DemoError::io(format!("write {}", path.display())))?;
    Ok(Exit::Success)
}

pub(super) fn list(path: &Path) -> Result<Exit, DemoError> {
    let action = || format!("list {}", path.display());
    let mut lines = Vec::new();
    for entry in fs::read_dir(path).map_err(DemoError::io(action()))? {
        let entry = entry.map_err(DemoError::io(action()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let about = fs::metadata(entry.path()).map_err(DemoError::io(format!("look at {name}")))?;
        let (mode, owner, group) = (about.mode() & 0o7777, about.uid(), about.gid());
        lines.push((name.clone(), format!("{mode:04o} {owner} {group} {} {name}", about.len())));
    }
    lines.sort();
    for (_, line) in lines {
        say_line(&line);
    }
    Ok(Exit::Success)
}

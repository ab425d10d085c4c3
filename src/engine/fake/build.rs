//! What the fake understands of a build: the file of instructions must be in the context, and what it copies, too.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use super::state::State;
use crate::engine::{BuildSpec, BuildStep, EngineError, Result};

impl State {
    /// The same context and spec make the same image, as by the real one's cache.
    pub(super) fn build(&mut self, spec: &BuildSpec, context: &[u8]) -> Result<Vec<Result<BuildStep>>> {
        let refused =
            |message: String| EngineError::Refused { action: format!("build image `{}`", spec.name()), message };
        let files = files(context).map_err(|error| refused(error.to_string()))?;
        let text = files
            .get(&spec.dockerfile)
            .ok_or_else(|| refused(format!("Cannot locate specified Dockerfile: {}", spec.dockerfile)))?;
        let text = String::from_utf8_lossy(text);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let mut said = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            said.push(Ok(BuildStep::Said(format!("Step {}/{} : {line}\n", at + 1, lines.len()))));
            let mut words = line.split_whitespace();
            let word = words.next().unwrap_or_default();
            let copied = words.next().unwrap_or_default();
            let problem = match word {
                "FROM" | "LABEL" | "ENTRYPOINT" | "CMD" | "ENV" | "ARG" => None,
                "COPY" if files.keys().any(|name| name == copied || copied == ".") => None,
                "COPY" => Some(format!("COPY failed: file not found in build context: stat {copied}")),
                _ => Some(format!("unknown instruction: {word}")),
            };
            if let Some(problem) = problem {
                said.push(Err(refused(problem)));
                return Ok(said);
            }
        }
        let key = format!("{:?}", (BuildSpec { names: Vec::new(), ..spec.clone() }, files));
        let known = self.builds.get(&key).filter(|_| !spec.no_cache).cloned();
        let id = known.unwrap_or_else(|| format!("sha256:{}", self.new_id()));
        self.builds.insert(key, id.clone());
        self.images.insert(id.clone(), id.clone());
        for name in &spec.names {
            if let Some(old) = self.images.insert(name.clone(), id.clone()) {
                self.images.insert(old.clone(), old);
            }
        }
        said.push(Ok(BuildStep::Made(id)));
        Ok(said)
    }

    pub(super) fn push(&mut self, reference: &str) -> Result<()> {
        let missing = || EngineError::NotFound { what: "image", name: reference.to_owned() };
        self.image(reference).ok_or_else(missing)?;
        if !reference.split_once('/').is_some_and(|(registry, _)| registry.contains(['.', ':'])) {
            let (action, message) = (format!("push image `{reference}`"), "no registry takes it: denied".to_owned());
            return Err(EngineError::Refused { action, message });
        }
        self.pushed.insert(reference.to_owned());
        Ok(())
    }
}

impl super::FakeEngine {
    /// Returns the references that were pushed.
    pub fn pushed(&self) -> BTreeSet<String> {
        self.lock().pushed.clone()
    }
}

fn files(context: &[u8]) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(context).entries()? {
        let mut entry = entry?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(entry.path()?.display().to_string(), content);
    }
    Ok(files)
}

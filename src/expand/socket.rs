//! `use_api_socket`: a container that commands the engine that it is on, with the logins of the user.
//!
//! Which socket that is only the host knows; the logins are a secret of the container. Source: docker/compose 2.40,
//! `pkg/compose/apiSocket.go`.

use std::collections::BTreeMap;

use crate::graph::{FileMount, Mount, MountSource};

use super::Part;
use super::container::present;
use super::file::keep;

/// Where clients look for the engine.
const SOCKET: &str = "/var/run/docker.sock";
/// Where clients of the container find the logins. Docker Compose's choice.
const CONFIG_DIRECTORY: &str = "/run/secrets/docker";
/// Variable by which clients find them.
const CONFIG_VARIABLE: &str = "DOCKER_CONFIG";

impl Part<'_, '_> {
    /// Returns the mount of the engine's socket, where the service asks for it.
    pub(super) fn engine_socket(&mut self) -> Option<Mount> {
        if !self.service.use_api_socket {
            return None;
        }
        let text = "whoever runs commands in its containers commands the engine, and so rules the host";
        self.sink.warning(format!("{}.use_api_socket", self.at), text.to_owned());
        Some(Mount { target: SOCKET.to_owned(), read_only: false, source: MountSource::EngineSocket })
    }

    /// Returns whether its clients look for logins where orch puts them.
    fn takes_logins(&self) -> bool {
        self.service.use_api_socket && !self.service.environment.contains_key(CONFIG_VARIABLE)
    }

    /// Returns the environment, with what leads to the logins.
    pub(super) fn environment(&self, said: &BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
        let mut environment = present(said);
        if self.takes_logins() {
            environment.insert(CONFIG_VARIABLE.to_owned(), CONFIG_DIRECTORY.to_owned());
        }
        environment
    }

    /// Returns the file with the logins. It is kept as a secret is, and a change of it makes the container anew.
    pub(super) fn logins(&mut self) -> Option<FileMount> {
        let bytes = self.input.logins.filter(|_| self.takes_logins())?;
        Some(FileMount {
            target: format!("{CONFIG_DIRECTORY}/config.json"),
            hash: keep(self.files, bytes, true),
            secret: true,
            uid: 0,
            gid: 0,
            mode: 0o444,
        })
    }
}

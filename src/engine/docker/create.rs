//! Making things so that doing it twice does nothing, and a failure half way leaves nothing.

use bollard::models::NetworkConnectRequest;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectNetworkOptions, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::{DockerEngine, Tried, podman};
use crate::engine::translate::{self, CreateRequest};
use crate::engine::{ContainerSpec, EngineError, EngineKind, NetworkSpec, Result, label};

impl DockerEngine {
    /// One request, and one for each further network where the engine takes only one at creation.
    pub(super) async fn container_made(&self, spec: &ContainerSpec) -> Result<String> {
        let request = translate::create_request(spec, self.api).map_err(|reason| EngineError::Refused {
            action: format!("create container `{}`", spec.name),
            message: reason.to_string(),
        })?;
        let CreateRequest { mut body, platform, connect } = request;
        if self.kind == EngineKind::Podman {
            podman::unmask(&mut body);
            podman::without_bare_names(body.env.as_mut());
        }
        let mut options = CreateContainerOptionsBuilder::default().name(&spec.name);
        if let Some(platform) = &platform {
            options = options.platform(platform);
        }
        let tried = Tried::new("create container", &spec.name).what("container");
        let created = self.docker.create_container(Some(options.build()), body);
        let id = match self.call("container_create", tried, created).await {
            Ok(created) => created.id,
            Err(conflict @ EngineError::Conflict { .. }) => return self.adopt(spec, connect, conflict).await,
            Err(error) => return Err(error),
        };
        for (network, settings) in connect {
            if let Err(error) = self.connect_to(&id, &network, settings).await {
                self.discard(&id).await;
                return Err(error);
            }
        }
        Ok(id)
    }

    /// Takes the container of this name for ours if it is the same, and finishes it if its making was cut off.
    async fn adopt(
        &self,
        spec: &ContainerSpec,
        connect: Vec<(String, bollard::models::EndpointSettings)>,
        conflict: EngineError,
    ) -> Result<String> {
        let Ok(there) = self.inspect(&spec.name).await else { return Err(conflict) };
        let labels = there.config.and_then(|config| config.labels).unwrap_or_default();
        let same = [label::PROJECT, label::SPEC_HASH, label::GENERATION]
            .into_iter()
            .all(|key| labels.get(key) == spec.labels.get(key));
        let Some(id) = there.id.filter(|_| same && spec.labels.contains_key(label::SPEC_HASH)) else {
            return Err(conflict);
        };
        let connected = there.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        for (network, settings) in connect {
            if !connected.contains_key(&network) {
                self.connect_to(&id, &network, settings).await?;
            }
        }
        Ok(id)
    }

    async fn connect_to(
        &self,
        container: &str,
        network: &str,
        settings: bollard::models::EndpointSettings,
    ) -> Result<()> {
        let request = NetworkConnectRequest { container: container.to_owned(), endpoint_config: Some(settings) };
        let tried = Tried::new("connect a container to network", network).what("network");
        self.call("network_connect", tried, self.docker.connect_network(network, request)).await
    }

    /// Removes a container that could not be finished. That it could not be removed either is only worth a line: the
    /// next creation under its name finds it.
    async fn discard(&self, id: &str) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let tried = Tried::new("remove container", id).what("container");
        let removed = self.call("container_remove", tried, self.docker.remove_container(id, Some(options))).await;
        if let Err(error) = removed {
            tracing::warn!(container = id, %error, "a half made container could not be removed");
        }
    }

    /// Two requests, for engines make a second network of the same name without a word.
    pub(super) async fn network_made(&self, spec: &NetworkSpec) -> Result<String> {
        if let Some(id) = self.network_id(&spec.name).await? {
            return Ok(id);
        }
        let tried = Tried::new("create network", &spec.name);
        let request = self.docker.create_network(translate::network_request(spec));
        match self.call("network_create", tried, request).await {
            Ok(created) => Ok(created.id),
            // Somebody else was faster: of two with the same subnet the engine lets only one be.
            Err(conflict @ EngineError::Conflict { .. }) => self.network_id(&spec.name).await?.ok_or(conflict),
            Err(error) => Err(error),
        }
    }

    async fn network_id(&self, name: &str) -> Result<Option<String>> {
        let tried = Tried::new("look at network", name).what("network");
        let request = self.docker.inspect_network(name, None::<InspectNetworkOptions>);
        match self.call("network_inspect", tried, request).await {
            // The engine also takes the beginning of an id for a name.
            Ok(network) => Ok(network.id.filter(|_| network.name.as_deref() == Some(name))),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the volumes that a container took over from its predecessors; none when it is not there.
    pub(super) async fn carried_volumes(&self, id_or_name: &str) -> Result<Vec<String>> {
        let labels = match self.inspect(id_or_name).await {
            Ok(container) => container.config.and_then(|config| config.labels).unwrap_or_default(),
            Err(EngineError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = labels.get(label::CARRIED).map(String::as_str).unwrap_or_default();
        Ok(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    pub(super) async fn wait_until_removed(&self, id_or_name: &str) -> Result<()> {
        match self.wait_for(id_or_name, "removed").await {
            Ok(_) | Err(EngineError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for `condition`, one of the engine's words, without a bound. Returns the exit code.
    pub(super) async fn wait_for(&self, id_or_name: &str, condition: &str) -> Result<i64> {
        let options = WaitContainerOptionsBuilder::default().condition(condition).build();
        let mut answers = self.docker.wait_container(id_or_name, Some(options)).boxed();
        let answer = async {
            match answers.next().await {
                Some(Ok(ended)) => Ok(ended.status_code),
                // bollard takes an exit code other than 0 for a failure of the request.
                Some(Err(bollard::errors::Error::DockerContainerWaitError { error, code })) if error.is_empty() => {
                    Ok(code)
                }
                Some(Err(error)) => Err(error),
                None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            }
        };
        let tried = Tried::new("wait for container", id_or_name).what("container");
        self.call("container_wait", tried, answer).await
    }
}

//! The agent as `transport` sees it while it readies a host.

use async_trait::async_trait;

use super::client::Client;
use crate::transport::bootstrap::AgentApi;

#[async_trait]
impl AgentApi for Client {
    async fn build(&self) -> Result<String, String> {
        self.info().await.map(|info| info.build).map_err(|error| error.to_string())
    }

    async fn uninstall(&self) -> Result<(), String> {
        Self::uninstall(self).await.map_err(|error| error.to_string())
    }
}

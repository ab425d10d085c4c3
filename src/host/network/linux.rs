//! The real thing: the host's own `iptables` and rtnetlink.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use ipnet::Ipv4Net;

use super::addresses::{self, Netlink};
use super::rules::{self, Family, Printed};
use super::{BridgeSpec, HostNetwork, HostNetworkError, HostNetworkSpec, ListenerPorts, Result, conntrack, foreign};
use crate::host::tools::{HostTools, ToolError};

/// The programs of one family.
struct Programs {
    family: Family,
    save: &'static str,
    restore: &'static str,
}

const V4: Programs = Programs { family: Family::V4, save: "iptables-save", restore: "iptables-restore" };
const V6: Programs = Programs { family: Family::V6, save: "ip6tables-save", restore: "ip6tables-restore" };

/// Packet filter, addresses and routes of the host that this process runs on.
#[derive(Debug)]
pub struct LinuxHostNetwork {
    tools: HostTools,
    printed: Mutex<(Printed, Printed)>,
}

impl From<ToolError> for HostNetworkError {
    fn from(ToolError { command, message }: ToolError) -> Self {
        Self::Command { command, message }
    }
}

impl LinuxHostNetwork {
    /// Returns the network of the host that the agent's container runs on; it must be in the host's network and PID
    /// namespaces.
    ///
    /// # Errors
    /// When the host's mount namespace cannot be opened.
    pub fn of_host() -> io::Result<Self> {
        HostTools::of_host().map(Self::with)
    }

    /// Returns the network of the namespaces that this process is in.
    pub fn here() -> Self {
        Self::with(HostTools::here())
    }

    fn with(tools: HostTools) -> Self {
        Self { tools, printed: Mutex::default() }
    }

    async fn save(&self, programs: &Programs) -> Result<String> {
        Ok(self.tools.run(programs.save, &[], "").await?)
    }

    /// Compares what was seen, and only if something differs writes all of it with one call.
    async fn ensure_rules(&self, programs: &Programs, spec: &HostNetworkSpec, save: &str) -> Result<Vec<String>> {
        let wanted = rules::wanted(spec, programs.family);
        let mend = self.printed(programs.family, |printed| rules::mend(&wanted, save, printed));
        if mend.script.is_empty() {
            return Ok(Vec::new());
        }
        // -w: another program may hold the lock of the legacy tables.
        self.tools.run(programs.restore, &["-w", "5", "--noflush"], &mend.script).await?;
        let save = self.save(programs).await?;
        self.printed(programs.family, |printed| rules::learn(&wanted, &save, printed));
        Ok(mend.mended)
    }

    /// Redirects and addresses. Each part is tried, so that what is wrong with one leaves the other working.
    async fn ensure_v4(&self, spec: &HostNetworkSpec) -> Result<Vec<String>> {
        let save = self.save(&V4).await?;
        let gone = rules::bridges(&save).into_iter();
        let gone: Vec<BridgeSpec> =
            gone.filter(|old| spec.bridges.iter().all(|bridge| bridge.bridge != old.bridge)).collect();
        let rules = self.ensure_rules(&V4, spec, &save).await;
        let addresses = match Netlink::open() {
            Ok(netlink) => netlink.ensure(&spec.bridges, &gone).await,
            Err(error) => Err(error),
        };
        let mended = [rules?, addresses?].concat();
        if !mended.is_empty() {
            forget_flows(spec).await;
        }
        Ok(mended)
    }

    /// Published ports in IPv6, and networks that are kept apart. Where the host has none of it, only what needs it makes that an
    /// error.
    async fn ensure_v6(&self, spec: &HostNetworkSpec) -> Result<Vec<String>> {
        let asked = !spec.closed.is_empty()
            || spec.published.iter().any(|open| matches!(open.host_ip, Some(IpAddr::V6(ip)) if !ip.is_loopback()));
        let result = match self.save(&V6).await {
            Ok(save) => self.ensure_rules(&V6, spec, &save).await,
            Err(error) => Err(error),
        };
        match result {
            Err(error) if !asked => {
                tracing::debug!(%error, "no IPv6 rules on this host");
                Ok(Vec::new())
            }
            result => result,
        }
    }

    fn printed<T>(&self, family: Family, use_it: impl FnOnce(&mut Printed) -> T) -> T {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(match family {
            Family::V4 => &mut printed.0,
            Family::V6 => &mut printed.1,
        })
    }
}

#[async_trait]
impl HostNetwork for LinuxHostNetwork {
    async fn ensure(&self, spec: &HostNetworkSpec) -> Result<Vec<String>> {
        for bridge in spec.bridges.iter().map(|bridge| &bridge.bridge).chain(&spec.closed) {
            check_name(bridge)?;
        }
        if spec.bridges.iter().any(|bridge| bridge.on_demand) {
            // First: no container shall learn one that goes.
            Netlink::open()?.keep_hardware_addresses(&spec.bridges).await?;
        }
        let (v4, v6) = tokio::join!(self.ensure_v4(spec), self.ensure_v6(spec));
        Ok([v4?, v6?].concat())
    }

    async fn remove_all(&self) -> Result<()> {
        self.ensure(&HostNetworkSpec::default()).await.map(drop)
    }

    async fn routes(&self) -> Result<Vec<Ipv4Net>> {
        Netlink::open()?.routes().await
    }

    async fn ports(&self) -> Result<BTreeMap<String, ListenerPorts>> {
        let bridges = rules::bridges(&self.save(&V4).await?).into_iter();
        Ok(bridges.map(|spec| (spec.bridge.clone(), spec.into())).collect())
    }

    fn new_bridges(&self) -> BoxStream<'static, String> {
        addresses::new_bridges()
    }

    async fn problems(&self) -> Result<Vec<String>> {
        match self.tools.run("nft", &["-j", "list", "ruleset"], "").await {
            Ok(ruleset) => Ok(foreign::drops(&ruleset)),
            // Hosts without the tool have no such tables, as nothing else makes them; nor can we look.
            Err(error) => {
                tracing::debug!(%error, "cannot look for foreign filters");
                Ok(Vec::new())
            }
        }
    }
}

/// Lets datagrams that are under way go by the rules of now.
async fn forget_flows(spec: &HostNetworkSpec) {
    let bridges = spec.bridges.clone();
    match tokio::task::spawn_blocking(move || conntrack::forget(&bridges)).await.map_err(io::Error::other).flatten() {
        Ok(0) => {}
        Ok(flows) => tracing::info!(flows, "datagrams under way go by the new rules"),
        Err(error) => tracing::debug!(%error, "the kernel does not tell of flows that go by earlier rules"),
    }
}

/// Refuses a name that would be more than one word of a rule, or a pattern. Linux allows 15 bytes.
fn check_name(bridge: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@');
    if !bridge.is_empty() && bridge.len() <= 15 && bridge.chars().all(plain) {
        return Ok(());
    }
    let message = "only letters, digits and -_.:@ can be written into rules".to_owned();
    Err(HostNetworkError::Kernel { action: format!("cannot use a bridge named `{bridge}`"), message })
}

#[cfg(test)]
mod tests;

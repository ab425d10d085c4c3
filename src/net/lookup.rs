//! Addresses of names outside, as the host itself finds them: its `/etc/hosts`, then its resolvers. Never through libc, which
//! in a static binary would load the host's own modules.

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::dns::Upstreams;

/// Time for one resolver's answer.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// The host's names.
#[derive(Debug, Clone)]
pub struct HostNames {
    root: PathBuf,
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The resolvers know no such name.
    #[error("no address of `{0}` is known")]
    Unknown(String),
    /// They did not say.
    #[error("cannot look up `{name}`: {reason}")]
    Failed {
        /// The name.
        name: String,
        /// What went wrong.
        reason: String,
    },
}

thread_local! {
    /// The resolver of this thread's runtime, with the text that it was made from.
    static RESOLVER: RefCell<Option<(String, Arc<TokioResolver>)>> = const { RefCell::new(None) };
}

impl Default for HostNames {
    fn default() -> Self {
        // The agent's container has copies of these files, made when it was.
        Self { root: PathBuf::from("/proc/1/root") }
    }
}

impl HostNames {
    /// Returns the names of a host whose files are below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the addresses of a name, or of an address as it is written.
    ///
    /// # Errors
    /// There is none, or nobody who would know answers.
    pub async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        let known = in_hosts(&self.read("etc/hosts"), name);
        if !known.is_empty() {
            return Ok(known);
        }
        let failed = |reason: String| LookupError::Failed { name: name.to_owned(), reason };
        let resolver = self.resolver().map_err(failed)?;
        // Without its dot the search list of the agent's own container would be tried.
        let whole = if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
        match resolver.lookup_ip(whole).await {
            Ok(found) => {
                let addresses: Vec<IpAddr> = found.iter().collect();
                if addresses.is_empty() { Err(LookupError::Unknown(name.to_owned())) } else { Ok(addresses) }
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => {
                Err(LookupError::Unknown(name.to_owned()))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Returns this thread's resolver, made anew when the host's resolvers have changed.
    fn resolver(&self) -> Result<Arc<TokioResolver>, String> {
        let text = self.read("etc/resolv.conf");
        RESOLVER.with_borrow_mut(|kept| {
            if let Some((_, resolver)) = kept.as_ref().filter(|(of, _)| *of == text) {
                return Ok(Arc::clone(resolver));
            }
            let upstreams = Upstreams::from_resolv_conf(&text);
            let servers = upstreams.addresses().iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                server.connections.iter_mut().for_each(|connection| connection.port = address.port());
                server
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.options_mut().timeout = ATTEMPT;
            let resolver = Arc::new(builder.build().map_err(|error| error.to_string())?);
            *kept = Some((text, Arc::clone(&resolver)));
            Ok(resolver)
        })
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }
}

/// Returns the addresses that a hosts file gives a name.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let entries = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name.trim_end_matches('.'))).then_some(address)
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_names_of_the_hosts_file_need_no_resolver() {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(folder.path().join("etc")).expect("made");
        let hosts = "127.0.0.1 localhost\n203.0.113.7 Bank.example.com bank # 203.0.113.8 other\n::1 bank\n";
        std::fs::write(folder.path().join("etc/hosts"), hosts).expect("written");
        let names = HostNames::below(folder.path());
        let found =
            async |name| names.look_up(name).await.map(|all| all.iter().map(IpAddr::to_string).collect::<Vec<_>>());
        assert_eq!(found("192.0.2.1").await, Ok(vec!["192.0.2.1".to_owned()]));
        assert_eq!(found("[2001:db8::1]").await, Ok(vec!["2001:db8::1".to_owned()]));
        assert_eq!(found("bank").await, Ok(vec!["203.0.113.7".to_owned(), "::1".to_owned()]));
        assert_eq!(found("BANK.example.COM.").await, Ok(vec!["203.0.113.7".to_owned()]));
    }

    #[test]
    fn what_is_behind_a_hash_is_no_name() {
        assert_eq!(in_hosts("203.0.113.7 bank # other", "other"), Vec::<IpAddr>::new());
    }
}

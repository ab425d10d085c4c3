//! TLS of route ports: which certificate is shown to whom, by the name that the client asks for.
//!
//! Certificates are a part of the table and exchanged with it; connections go on with the one that they were shown. A
//! client that names no host is shown the first certificate; one that names a host without certificate is refused, since
//! any other would be an error in its eyes.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::lb::routing::Shared;
use crate::model::HostMatch;

/// The certificates of a port.
#[derive(Debug, Default)]
pub(in crate::lb) struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    below: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Shows `key` to who asks for one of `hosts`, unless an earlier one is; with no host to everybody else.
    pub(super) fn add(&mut self, hosts: &[HostMatch], key: &Arc<CertifiedKey>) {
        self.first.get_or_insert_with(|| Arc::clone(key));
        if hosts.is_empty() {
            self.below.entry(String::new()).or_insert_with(|| Arc::clone(key));
        }
        for host in hosts {
            let (map, name) = match host {
                HostMatch::Exact(name) => (&mut self.exact, name),
                HostMatch::Below(name) => (&mut self.below, name),
            };
            map.entry(name.to_ascii_lowercase()).or_insert_with(|| Arc::clone(key));
        }
    }

    /// Returns the names that there is a certificate for, as people write them.
    pub(super) fn names(&self) -> Vec<String> {
        let below = self.below.keys().map(|name| if name.is_empty() { "*".to_owned() } else { format!("*.{name}") });
        let mut names: Vec<String> = self.exact.keys().cloned().chain(below).collect();
        names.sort_unstable();
        names
    }

    /// Returns what is shown to who asks for `name`.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(name) = name else { return self.first.as_ref() };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]).chain(std::iter::once(""));
        self.exact.get(&name).or_else(|| parents.into_iter().find_map(|parent| self.below.get(parent)))
    }
}

/// Finds the certificate in the table of the moment.
#[derive(Debug)]
struct Resolver {
    shared: Arc<Shared>,
    port: u16,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let routing = self.shared.routing();
        routing.rules(self.port)?.certificates.find(hello.server_name()).cloned()
    }
}

/// Returns what accepts TLS at a port: HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3.
pub(super) fn acceptor(shared: &Arc<Shared>, port: u16) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver { shared: Arc::clone(shared), port }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets need no memory here, and are good on every thread.
    config.ticketer = ring::Ticketer::new()?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::table::Certificate;
    use crate::model::certified;

    fn certificate(name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        Certificate { chain: made.cert.pem().into_bytes(), key: made.signing_key.serialize_pem().into_bytes() }
    }

    #[test]
    fn the_most_exact_name_decides() {
        let key = |name: &str| {
            let Certificate { chain, key } = certificate(name);
            Arc::new(certified(&chain, &key).expect("fits"))
        };
        let [exact, wide, deep, second] = ["a.test", "*.test", "*.b.test", "late.test"].map(key);
        let mut all = Certificates::default();
        all.add(&[HostMatch::Below("test".to_owned())], &wide);
        all.add(&[HostMatch::Exact("A.test".to_owned())], &exact);
        all.add(&[HostMatch::Below("b.test".to_owned())], &deep);
        all.add(&[HostMatch::Exact("a.test".to_owned())], &second);
        let check = |name: Option<&str>, expected: Option<&Arc<CertifiedKey>>| {
            let found = all.find(name);
            assert!(found.map(Arc::as_ptr) == expected.map(Arc::as_ptr), "{name:?}");
        };
        check(Some("a.test"), Some(&exact));
        check(Some("A.TEST"), Some(&exact));
        check(Some("c.test"), Some(&wide));
        check(Some("x.b.test"), Some(&deep));
        check(Some("b.test"), Some(&wide));
        check(Some("other"), None);
        check(None, Some(&wide));
        assert_eq!(all.names(), ["*.b.test", "*.test", "a.test"]);
    }

    #[test]
    fn no_key_is_ever_written_out() {
        assert!(!format!("{:?}", certificate("a")).contains("PRIVATE"));
    }
}

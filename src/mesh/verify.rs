//! Whether a certificate that a peer shows is good enough, and the TLS settings that ask this.
//!
//! The same examination runs in both directions, in the handshake and again after it: a resumed session shows no
//! certificate anew, and its host may have been removed since.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, ServerSessionMemoryCache};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme, version,
};

use super::identity::{ClusterId, Identity, IdentityError, Serial, Statement, parse_name};
use crate::clock::Clock;
use crate::ids::HostName;

/// Sessions that each side keeps for resumption; one is about a kilobyte.
const SESSIONS: usize = 1024;

/// Why a peer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// What it showed is not a certificate of any orch cluster.
    #[error("peer is not an orch agent: its certificate names no host of a cluster")]
    Foreign,
    /// It belongs elsewhere.
    #[error("certificate is of another cluster (`{found}`, this is `{own}`)")]
    OtherCluster {
        /// The one that its certificate names.
        found: ClusterId,
        /// This host's.
        own: ClusterId,
    },
    /// Another host answers at the address.
    #[error("peer is `{found}`, not `{expected}`")]
    OtherHost {
        /// Who it is.
        found: HostName,
        /// Who was called.
        expected: HostName,
    },
    /// Its time is over.
    #[error(
        "certificate of `{host}` expired at {not_after}; the clock here says {now}: if that is right, \
         `orch host add {host}` brings a new one"
    )]
    Expired {
        /// The host.
        host: HostName,
        /// When.
        not_after: Moment,
        /// Now, by this host's clock.
        now: Moment,
    },
    /// Its time has not come.
    #[error(
        "certificate of `{host}` is valid from {not_before} on; the clock here says {now}: set the clocks right, and \
         where that does not help `orch host add {host}` brings a new one"
    )]
    NotYetValid {
        /// The host.
        host: HostName,
        /// When.
        not_before: Moment,
        /// Now, by this host's clock.
        now: Moment,
    },
    /// It is no member any more.
    #[error("host `{0}` was removed from the cluster")]
    Removed(HostName),
    /// Its name was given anew since.
    #[error("certificate of `{0}` is older than the oldest that is accepted: the host was added anew since")]
    Superseded(HostName),
    /// It claims to be of this cluster, but its authority did not sign that.
    #[error("certificate of `{0}` is not signed by this cluster's authority")]
    NotSigned(HostName),
}

/// A moment, shown as UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = i64::try_from(self.0.as_secs()).ok();
        match seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
            Some(time) => time.fmt(f),
            None => write!(f, "{} s after 1970", self.0.as_secs()),
        }
    }
}

/// Hosts whose certificates are not accepted although their time is not over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals {
    /// The lowest serial that is accepted of a host; `None`: none is, it was removed.
    pub oldest: BTreeMap<HostName, Option<Serial>>,
}

impl Refusals {
    /// Refuses every certificate of a host.
    pub fn remove(&mut self, host: HostName) {
        self.oldest.insert(host, None);
    }

    /// Refuses certificates of a host that are older than `serial`: it was added again.
    pub fn accept_from(&mut self, host: HostName, serial: Serial) {
        self.oldest.insert(host, Some(serial));
    }

    fn check(&self, statement: &Statement) -> Result<(), PeerError> {
        match self.oldest.get(&statement.host) {
            Some(None) => Err(PeerError::Removed(statement.host.clone())),
            Some(Some(oldest)) if statement.serial < *oldest => Err(PeerError::Superseded(statement.host.clone())),
            _ => Ok(()),
        }
    }
}

/// Examines certificates.
#[derive(Debug)]
pub(super) struct Examiner {
    cluster: ClusterId,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    refusals: Arc<ArcSwap<Refusals>>,
}

impl Examiner {
    /// Checks everything but the signature.
    pub(super) fn admit(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        expected: Option<&HostName>,
        now: Duration,
    ) -> Result<Statement, PeerError> {
        let statement = certificate.and_then(|der| Statement::read(der)).ok_or(PeerError::Foreign)?;
        let Statement { host, cluster, serial: _, not_before, not_after } = &statement;
        if *cluster != self.cluster {
            return Err(PeerError::OtherCluster { found: cluster.clone(), own: self.cluster.clone() });
        }
        if let Some(expected) = expected.filter(|expected| *expected != host) {
            return Err(PeerError::OtherHost { found: host.clone(), expected: expected.clone() });
        }
        self.refusals.load().check(&statement)?;
        let (host, moment) = (host.clone(), Moment(Duration::from_secs(now.as_secs())));
        if now > *not_after {
            return Err(PeerError::Expired { host, not_after: Moment(*not_after), now: moment });
        }
        if now < *not_before {
            return Err(PeerError::NotYetValid { host, not_before: Moment(*not_before), now: moment });
        }
        Ok(statement)
    }

    fn examine(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        expected: Option<&HostName>,
        now: UnixTime,
    ) -> Result<(), PeerError> {
        let statement = self.admit(Some(certificate), expected, Duration::from_secs(now.as_secs()))?;
        let parsed = ParsedCertificate::try_from(certificate).map_err(|_| PeerError::Foreign)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)
            .map_err(|_| PeerError::NotSigned(statement.host))
    }
}

impl ServerCertVerifier for Examiner {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ServerName::DnsName(name) = server_name else { return Err(refusal(PeerError::Foreign)) };
        let expected = parse_name(name.as_ref()).map(|(host, _)| host);
        let outcome = self.examine(end_entity, intermediates, expected.as_ref(), now);
        outcome.map(|()| ServerCertVerified::assertion()).map_err(refusal)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Examiner {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None is needed: a host has one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let outcome = self.examine(end_entity, intermediates, None, now);
        outcome.map(|()| ClientCertVerified::assertion()).map_err(refusal)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Wraps a reason so that [`peer_error`] finds it.
fn refusal(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Returns why the peer was refused, if that is what ended a handshake.
pub(super) fn peer_error(error: &std::io::Error) -> Option<PeerError> {
    let tls = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) = tls else { return None };
    reason.downcast_ref::<PeerError>().cloned()
}

/// Returns whether the peer said that it does not accept this host's certificate.
pub(super) fn is_refused_by_peer(error: &std::io::Error) -> bool {
    let tls = error.get_ref().and_then(|source| source.downcast_ref::<Error>());
    matches!(tls, Some(Error::AlertReceived(_)))
}

/// The TLS settings of one identity.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) identity: Identity,
    pub(super) examiner: Arc<Examiner>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl Tls {
    /// Makes the settings. Sessions of an earlier identity are not resumed.
    pub(super) fn new(
        identity: Identity,
        clock: Arc<dyn Clock>,
        refusals: Arc<ArcSwap<Refusals>>,
    ) -> Result<Self, IdentityError> {
        let crypto = |what: &'static str| move |source: Error| IdentityError::Crypto { what, source: Box::new(source) };
        let provider = Arc::new(provider());
        let mut roots = RootCertStore::empty();
        roots.add(identity.authority.clone()).map_err(crypto("trust the authority"))?;
        let statement = identity.statement();
        let examiner = Arc::new(Examiner {
            cluster: statement.cluster.clone(),
            roots,
            algorithms: provider.signature_verification_algorithms,
            refusals,
        });
        let key = || {
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
                .map_err(|_| IdentityError::Malformed { what: "host's key" })
        };
        let time: Arc<dyn TimeProvider> = Arc::new(Time(clock));
        let protocol = crypto("set up TLS");
        let mut client = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::clone(&time))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(&protocol)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&examiner) as Arc<dyn ServerCertVerifier>)
            .with_client_auth_cert(identity.chain.clone(), key()?)
            .map_err(&protocol)?;
        client.resumption = Resumption::in_memory_sessions(SESSIONS);
        let mut server = ServerConfig::builder_with_details(provider, time)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(&protocol)?
            .with_client_cert_verifier(Arc::clone(&examiner) as Arc<dyn ClientCertVerifier>)
            .with_single_cert(identity.chain.clone(), key()?)
            .map_err(&protocol)?;
        server.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        Ok(Self { identity, examiner, client: Arc::new(client), server: Arc::new(server) })
    }
}

/// AES-128 first: with the CPU's own instructions it is a third faster than AES-256, and as safe for any time to come.
fn provider() -> CryptoProvider {
    use ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

/// Our clock as rustls asks for it.
struct Time(Arc<dyn Clock>);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.now()))
    }
}

//! Who is who in a cluster: its own authority, a key for each host, and certificates that name both.
//!
//! A certificate says `HOST.CLUSTER.orch.internal`, as the one alternative name that it has, for both directions of
//! TLS. The cluster's id is a part of the hash of the authority's key: it is as random as the key, and two clusters
//! never share one. Only public keys travel: a host makes its key itself and sends a signing request.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::ids::HostName;

/// What every name in a certificate ends with.
const DOMAIN: &str = "orch.internal";

/// How long a host's certificate is valid unless the caller says otherwise.
pub const VALIDITY: Duration = Duration::from_secs(90 * DAY);

/// How far a certificate's begin lies before its making: clocks of hosts may differ by this much.
pub const SKEW: Duration = Duration::from_secs(DAY);

/// How long the authority is valid. Nothing checks it but other programs: a cluster does not end by a date.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(30 * 365 * DAY);

const DAY: u64 = 24 * 60 * 60;

/// Bytes of the key's hash that make a cluster's id.
const CLUSTER_BYTES: usize = 8;

/// Why a key, a request or a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A text is not what it was given as.
    #[error("not a valid {what}")]
    Malformed {
        /// What it was to be.
        what: &'static str,
    },
    /// A host's name cannot stand in a certificate.
    #[error("host name `{0}` cannot stand in a certificate: it is no DNS name once the cluster's domain follows it")]
    HostName(HostName),
    /// A certificate, the authority's and the key given together do not belong together.
    #[error("certificate of `{host}` does not belong to {what}")]
    Mismatch {
        /// Whom it names.
        host: HostName,
        /// What it should belong to.
        what: String,
    },
    /// The library refused; a fault of ours or a broken key.
    #[error("cannot {what}")]
    Crypto {
        /// What was tried.
        what: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn crypto<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> IdentityError {
    move |source| IdentityError::Crypto { what, source: Box::new(source) }
}

/// Id of a cluster: sixteen hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(String);

impl ClusterId {
    /// Checks `text` and wraps it.
    ///
    /// # Errors
    /// It is not sixteen lower-case hexadecimal digits.
    pub fn new(text: impl Into<String>) -> Result<Self, IdentityError> {
        let text = text.into();
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let valid = text.len() == CLUSTER_BYTES * 2 && text.chars().all(hex);
        if valid { Ok(Self(text)) } else { Err(IdentityError::Malformed { what: "cluster id" }) }
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the cluster whose authority has this key.
    fn of_key(public: &[u8]) -> Self {
        let hex = |byte: u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        Self(Sha256::digest(public).into_iter().take(CLUSTER_BYTES).flat_map(hex).collect())
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ClusterId {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        Self::new(text)
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> Self {
        id.0
    }
}

/// Number of a certificate. Later ones are greater, so that "nothing older than this" can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Serial(pub u64);

/// The name by which TLS knows a host.
pub(super) fn dns_name(host: &HostName, cluster: &ClusterId) -> Result<DnsName<'static>, IdentityError> {
    let name = format!("{host}.{cluster}.{DOMAIN}");
    DnsName::try_from(name).map_err(|_| IdentityError::HostName(host.clone()))
}

/// Reads a name that [`dns_name`] made.
pub(super) fn parse_name(name: &str) -> Option<(HostName, ClusterId)> {
    let (host, cluster) = name.strip_suffix(DOMAIN)?.strip_suffix('.')?.rsplit_once('.')?;
    Some((HostName::new(host).ok()?, ClusterId::new(cluster).ok()?))
}

/// What a host's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The host.
    pub host: HostName,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The certificate's number.
    pub serial: Serial,
    /// From when on it is valid, since 1970-01-01 UTC.
    pub not_before: Duration,
    /// Until when.
    pub not_after: Duration,
}

impl Statement {
    /// Reads a certificate; `None` if it is not one that orch made. Says nothing about who signed it.
    pub(super) fn read(certificate: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        let [GeneralName::DNSName(name)] = names.value.general_names.as_slice() else { return None };
        let (host, cluster) = parse_name(name).filter(|_| rest.is_empty())?;
        let seconds = |time: i64| Duration::from_secs(u64::try_from(time).unwrap_or_default());
        Some(Self {
            host,
            cluster,
            serial: read_serial(parsed.raw_serial())?,
            not_before: seconds(parsed.validity().not_before.timestamp()),
            not_after: seconds(parsed.validity().not_after.timestamp()),
        })
    }

    /// Returns when the certificate is to be replaced: after two thirds of the time between its making and its end.
    pub fn renew_at(&self) -> Duration {
        let made = self.not_before + SKEW;
        made + self.not_after.saturating_sub(made) / 3 * 2
    }
}

/// Reads a big-endian number; DER puts a zero before one whose highest bit is set.
fn read_serial(bytes: &[u8]) -> Option<Serial> {
    let significant: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    (significant.len() <= 8).then(|| Serial(significant.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))))
}

/// The authority of a cluster as it is stored. Its key can make any host: it stays where the cluster's state is.
#[derive(Clone, Serialize, Deserialize)]
pub struct AuthorityPem {
    /// The certificate that every host trusts.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl fmt::Debug for AuthorityPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityPem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A certificate for a host, as the authority gives it.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate, PEM.
    pub certificate: String,
    /// What it says.
    pub statement: Statement,
}

/// The certificate authority of a cluster.
#[derive(Debug)]
pub struct Authority {
    cluster: ClusterId,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    last_serial: AtomicU64,
}

impl Authority {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn create(now: Duration) -> Result<Self, IdentityError> {
        let key = new_key()?;
        let cluster = ClusterId::of_key(key.der_bytes());
        let mut params = params(now.saturating_sub(SKEW), now + AUTHORITY_VALIDITY, SerialNumber::from(serial_at(now)));
        params.distinguished_name.push(DnType::CommonName, format!("orch cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(crypto("sign the authority's certificate"))?.pem();
        Self::assemble(certificate, key, cluster)
    }

    /// Takes up an authority that was stored.
    ///
    /// # Errors
    /// One of the texts is malformed, or they do not belong together.
    pub fn from_pem(pem: &AuthorityPem) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(&pem.key).map_err(|_| IdentityError::Malformed { what: "authority's key" })?;
        let cluster = cluster_of(&pem.certificate)?;
        if cluster != ClusterId::of_key(key.der_bytes()) {
            return Err(IdentityError::Malformed { what: "authority: its key is not that of its certificate" });
        }
        Self::assemble(pem.certificate.clone(), key, cluster)
    }

    fn assemble(certificate: String, key: KeyPair, cluster: ClusterId) -> Result<Self, IdentityError> {
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(crypto("read the authority's certificate"))?;
        Ok(Self { cluster, certificate, issuer, last_serial: AtomicU64::default() })
    }

    /// Returns what is to be stored.
    pub fn to_pem(&self) -> AuthorityPem {
        AuthorityPem { certificate: self.certificate.clone(), key: self.issuer.key().serialize_pem() }
    }

    /// Returns the certificate that hosts trust, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Returns the cluster's id.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// Certifies that the key of a signing request is `host`'s, from a day before `now` until `validity` after it.
    ///
    /// Only the request's key counts: what else it asks for is not granted.
    ///
    /// # Errors
    /// The request is malformed or not signed by its own key; the name cannot stand in a certificate.
    pub fn sign(
        &self,
        request: &str,
        host: &HostName,
        now: Duration,
        validity: Duration,
    ) -> Result<Signed, IdentityError> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|_| IdentityError::Malformed { what: "signing request" })?;
        let name = dns_name(host, &self.cluster)?;
        let name = name.as_ref().to_owned().try_into().map_err(|_| IdentityError::HostName(host.clone()))?;
        let mut params = params(now.saturating_sub(SKEW), now + validity, SerialNumber::from(self.next_serial(now).0));
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed =
            params.signed_by(&request.public_key, &self.issuer).map_err(crypto("sign a host's certificate"))?;
        let statement = Statement::read(signed.der()).ok_or(IdentityError::Malformed { what: "certificate" })?;
        Ok(Signed { certificate: signed.pem(), statement })
    }

    fn next_serial(&self, now: Duration) -> Serial {
        let at = serial_at(now);
        let step = |last: u64| Some(at.max(last.saturating_add(1)));
        let last = self.last_serial.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).unwrap_or_default();
        Serial(at.max(last.saturating_add(1)))
    }
}

/// Microseconds since 1970: greater with time, also over restarts of whoever signs.
fn serial_at(now: Duration) -> u64 {
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto("make a key"))
}

fn params(not_before: Duration, not_after: Duration, serial: SerialNumber) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = epoch + not_before;
    params.not_after = epoch + not_after;
    params.serial_number = Some(serial);
    params.use_authority_key_identifier_extension = true;
    params
}

/// The cluster that an authority's certificate stands for.
fn cluster_of(certificate: &str) -> Result<ClusterId, IdentityError> {
    let malformed = || IdentityError::Malformed { what: "authority's certificate" };
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| malformed())?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| malformed())?;
    if !parsed.is_ca() {
        return Err(malformed());
    }
    Ok(ClusterId::of_key(&parsed.public_key().subject_public_key.data))
}

/// The private key of a host. It is made on the host and stays there.
#[derive(Debug)]
pub struct HostKey(KeyPair);

impl HostKey {
    /// Makes a key (ECDSA, P-256).
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn create() -> Result<Self, IdentityError> {
        Ok(Self(new_key()?))
    }

    /// Takes up a key that was stored.
    ///
    /// # Errors
    /// It is malformed.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        KeyPair::from_pem(pem).map(Self).map_err(|_| IdentityError::Malformed { what: "host's key" })
    }

    /// Returns what is to be stored.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// Returns a signing request for the authority, PEM.
    ///
    /// # Errors
    /// The key is broken.
    pub fn request(&self) -> Result<String, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(crypto("sign a request"))?;
        request.pem().map_err(crypto("write a request"))
    }
}

/// Who this host is: the authority that it trusts, its certificate and its key.
#[derive(Clone)]
pub struct Identity {
    pub(super) authority: CertificateDer<'static>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: String,
    statement: Statement,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("statement", &self.statement).finish_non_exhaustive()
    }
}

impl Identity {
    /// Puts the parts together: the authority's certificate, the host's and the host's key, each PEM.
    ///
    /// That the certificate's time is over is no error here: a host that was off for months must still start.
    ///
    /// # Errors
    /// A part is malformed, or they do not belong together.
    pub fn from_pem(authority: &str, certificate: &str, key: &HostKey) -> Result<Self, IdentityError> {
        let malformed = |what| IdentityError::Malformed { what };
        let cluster = cluster_of(authority)?;
        let authority =
            CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|_| malformed("authority's certificate"))?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| malformed("host's certificate"))?;
        let leaf = chain.first().ok_or_else(|| malformed("host's certificate"))?;
        let statement = Statement::read(leaf).ok_or_else(|| malformed("host's certificate"))?;
        let mismatch = |what: String| IdentityError::Mismatch { host: statement.host.clone(), what };
        if statement.cluster != cluster {
            return Err(mismatch(format!("cluster `{cluster}` but to `{}`", statement.cluster)));
        }
        if public_key(leaf).as_deref() != Some(key.0.der_bytes()) {
            return Err(mismatch("this host's key".to_owned()));
        }
        Ok(Self { authority, key: key.to_pem(), statement, chain })
    }

    /// Returns what the certificate says.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Returns whether the certificate is to be replaced at `now`: it is old, or was signed while the clock of the seat was
    /// ahead by more than [`SKEW`], and nobody accepts it yet.
    pub fn wants_renewal(&self, now: Duration) -> bool {
        now >= self.statement.renew_at() || now < self.statement.not_before
    }
}

fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.public_key().subject_public_key.data.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);

    fn host(name: &str) -> HostName {
        HostName::new(name).expect("valid")
    }

    fn sign(authority: &Authority, key: &HostKey, name: &str) -> Result<Signed, IdentityError> {
        authority.sign(&key.request().expect("a key"), &host(name), NOW, VALIDITY)
    }

    #[test]
    fn an_authority_is_the_same_after_it_was_stored() {
        let made = Authority::create(NOW).expect("random");
        let read = Authority::from_pem(&made.to_pem()).expect("stored");
        assert_eq!(read.cluster(), made.cluster());
        let key = HostKey::create().expect("random");
        let signed = sign(&read, &key, "b").expect("signs");
        let identity = Identity::from_pem(made.certificate(), &signed.certificate, &key).expect("belong together");
        assert_eq!(identity.statement().host, host("b"));
        assert_ne!(Authority::create(NOW).expect("random").cluster(), made.cluster());
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let (own, other) = (Authority::create(NOW).expect("random"), Authority::create(NOW).expect("random"));
        let (key, stranger) = (HostKey::create().expect("random"), HostKey::create().expect("random"));
        let signed = sign(&own, &key, "b").expect("signs").certificate;
        let message = |authority: &Authority, key: &HostKey| {
            Identity::from_pem(authority.certificate(), &signed, key).expect_err("do not belong together").to_string()
        };
        assert!(message(&other, &key).contains("does not belong to cluster"), "{}", message(&other, &key));
        assert!(message(&own, &stranger).contains("does not belong to this host's key"));
        let mixed = AuthorityPem { certificate: own.to_pem().certificate, key: other.to_pem().key };
        assert!(Authority::from_pem(&mixed).is_err());
        assert!(own.sign("-----BEGIN CERTIFICATE REQUEST-----", &host("b"), NOW, VALIDITY).is_err());
        assert!(sign(&own, &key, "a..b").is_err() && sign(&own, &key, &"x".repeat(64)).is_err());
    }

    #[test]
    fn a_certificate_says_host_cluster_time_and_number() {
        let authority = Authority::create(NOW).expect("random");
        let key = HostKey::create().expect("random");
        for name in ["b", "Rack-2.db_1"] {
            let (first, second) = (sign(&authority, &key, name), sign(&authority, &key, name));
            let (first, second) = (first.expect("signs").statement, second.expect("signs").statement);
            assert_eq!((first.host.as_str(), &first.cluster), (name, authority.cluster()));
            assert_eq!((first.not_before, first.not_after), (NOW.saturating_sub(SKEW), NOW + VALIDITY));
            assert!(first.serial < second.serial);
            assert_eq!(first.renew_at(), NOW + Duration::from_secs(60 * DAY));
            let signed = sign(&authority, &key, name).expect("signs").certificate;
            let identity = Identity::from_pem(authority.certificate(), &signed, &key).expect("belong together");
            let renewed =
                [NOW.saturating_sub(SKEW + Duration::from_secs(1)), NOW.saturating_sub(SKEW), NOW, NOW + VALIDITY];
            assert_eq!(renewed.map(|now| identity.wants_renewal(now)), [true, false, false, true]);
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let authority = Authority::create(NOW).expect("random");
        let key = HostKey::create().expect("random");
        let signed = sign(&authority, &key, "b").expect("signs");
        let identity = Identity::from_pem(authority.certificate(), &signed.certificate, &key).expect("own");
        for text in [format!("{:?}", authority.to_pem()), format!("{identity:?} {key:?} {authority:?}")] {
            assert!(!text.contains("PRIVATE"), "{text}");
        }
    }
}

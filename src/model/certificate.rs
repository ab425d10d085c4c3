//! Certificates and their keys as files have them: read, and found to belong together or to be of use.

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Why a certificate cannot be shown, or trusted.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file holds none.
    #[error("the file of the certificate holds none in PEM")]
    NoCertificate,
    /// The other file holds no key, or one that a passphrase protects.
    #[error("the file of the key holds no private key in PEM, or not without a passphrase")]
    NoKey,
    /// The key is another one's.
    #[error("the key is not that of the certificate")]
    OtherKey,
    /// The certificate is not one, or the key is of a kind that is not known.
    #[error("the certificate or its key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
    /// A file of authorities holds none.
    #[error("the file holds no certificate in PEM")]
    NoAuthority,
    /// One of a file of authorities cannot be read.
    #[error("certificate {0} of the file cannot be read")]
    Unreadable(usize),
}

/// Certificates that are trusted.
#[derive(Debug)]
pub struct Authorities {
    /// As those who sign others'.
    pub roots: RootCertStore,
    /// As such, in the order of the file.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Reads the certificates that are to be trusted, all PEM: one at least, and each of use.
///
/// # Errors
/// What is wrong with them.
pub fn authorities(pem: &[u8]) -> Result<Authorities, CertificateError> {
    let (mut roots, mut certificates) = (RootCertStore::empty(), Vec::new());
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let unreadable = || CertificateError::Unreadable(index + 1);
        let certificate = certificate.map_err(|_| unreadable())?;
        roots.add(certificate.clone()).map_err(|_| unreadable())?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(CertificateError::NoAuthority);
    }
    Ok(Authorities { roots, certificates })
}

/// Reads a certificate with its chain, and its key, all PEM.
///
/// # Errors
/// What is wrong with them.
pub fn certified(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, CertificateError> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| CertificateError::NoCertificate)?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::OtherKey,
        error => CertificateError::Unusable(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said() {
        let made = |name: &str| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
            (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
        };
        let ((chain, key), (_, other)) = (made("a"), made("b"));
        let says = |chain: &[u8], key: &[u8]| certified(chain, key).err().map(|error| error.to_string());
        assert_eq!(says(&chain, &key), None);
        assert_eq!(says(&chain, &other).as_deref(), Some("the key is not that of the certificate"));
        assert!(matches!(certified(b"hello", &key), Err(CertificateError::NoCertificate)));
        assert!(matches!(certified(&chain, &chain), Err(CertificateError::NoKey)));
        let nonsense = b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert!(matches!(certified(nonsense, &key), Err(CertificateError::Unusable(_))));
        // One file with both is fine.
        let both = [chain, key].concat();
        assert_eq!(says(&both, &both), None);
    }

    #[test]
    fn of_authorities_each_must_be_of_use() {
        let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let (one, other) = (made("a"), made("b"));
        let says = |pem: &str| authorities(pem.as_bytes()).map(|all| all.certificates.len()).map_err(|e| e.to_string());
        let (first, second) = (one.cert.pem(), other.cert.pem());
        assert_eq!(says(&format!("# ours\n{first}\n{second}")), Ok(2));
        let none = Err("the file holds no certificate in PEM".to_owned());
        for text in ["", "hello", &one.signing_key.serialize_pem()] {
            assert_eq!(says(text), none, "{text}");
        }
        let unread = Err("certificate 2 of the file cannot be read".to_owned());
        for text in ["aGVsbG8=", "%", ""] {
            let text = format!("{first}-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n{second}");
            assert_eq!(says(&text), unread, "{text}");
        }
    }
}

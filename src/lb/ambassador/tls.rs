//! TLS to the far side of an ambassador: the far side's certificate is always checked, by name.

mod trust;
mod words;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::relay::End;
use super::super::table::{AmbassadorTls, AmbassadorWay};
use super::{Far, Reason};
use crate::mesh::MeshStream;

use trust::Trust;
use words::Said;

/// Where hosts keep the authorities that they trust, as seen by the agent. Source: Debian, Fedora, Alpine.
const HOST_AUTHORITIES: [&str; 3] = [
    "/proc/1/root/etc/ssl/certs/ca-certificates.crt",
    "/proc/1/root/etc/pki/tls/certs/ca-bundle.crt",
    "/proc/1/root/etc/ssl/cert.pem",
];

/// What it takes to speak TLS to the far side.
pub(super) type Material = AmbassadorTls;

/// A connection over TLS.
#[derive(Debug)]
pub(super) struct Stream {
    inner: TlsStream<Plain>,
    said: Said,
    refusal: Refusal,
}

/// Why the far side ended a connection, where it says so.
pub(super) type Refusal = Arc<OnceLock<Reason>>;

/// How the far side is spoken to.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
    said: Said,
}

impl Tls {
    /// Reads certificates and keys.
    ///
    /// # Errors
    /// What is wrong with them, for the reader.
    pub(super) fn new(material: &Material) -> Result<Self, Reason> {
        let AmbassadorTls { server_name, authorities, identity } = material;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (roots, own) = match authorities {
            Some(pem) => own_roots(pem)?,
            None => (host_roots()?, Vec::new()),
        };
        let trust = Trust::new(&provider, roots, own)?;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        // It checks more than the library's own does, and not less.
        let builder = builder.map_err(|error| error.to_string())?.dangerous();
        let builder = builder.with_custom_certificate_verifier(Arc::new(trust));
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key cannot be read: {error}"))?;
                let chain = certificates(chain, "`cert`")?;
                builder.with_client_auth_cert(chain, key).map_err(|error| format!("certificate and key: {error}"))?
            }
        };
        let said = Said { has_ca: authorities.is_some(), has_own: identity.is_some() };
        Ok(Self { config: Arc::new(config), server_name: server_name.clone(), said })
    }

    /// Greets the far side.
    pub(super) async fn connect(&self, far: Far, way: &AmbassadorWay) -> Result<Stream, Reason> {
        let name = self.server_name.clone().unwrap_or_else(|| way.host_name());
        let server_name = ServerName::try_from(name.clone()).map_err(|_| format!("`{name}` is no name of a server"))?;
        let plain = match far {
            Far::Here(stream) => Plain::Here(stream),
            Far::There(stream) => Plain::There(stream),
            Far::Tls(_) => return Err("TLS is not spoken inside TLS".to_owned()),
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let said = self.said;
        let connected = connector.connect(server_name, plain).await;
        let inner = connected.map_err(|error| format!("no TLS with `{name}`: {}", words::words(&error, said)))?;
        Ok(Stream { inner, said, refusal: Refusal::default() })
    }
}

/// Returns what the file gives as authorities: as such, and as the far side's own certificates.
fn own_roots(pem: &[u8]) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Reason> {
    let own = certificates(pem, "`ca`")?;
    let mut roots = RootCertStore::empty();
    for certificate in &own {
        roots.add(certificate.clone()).map_err(|error| format!("a certificate of `ca` cannot be used: {error}"))?;
    }
    Ok((roots, own))
}

fn host_roots() -> Result<RootCertStore, Reason> {
    let found = HOST_AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok());
    let pem = found.ok_or("this host has no file of trusted authorities: name them by `ca`")?;
    let mut roots = RootCertStore::empty();
    // The host's list may hold what this library does not know; one that is missing shows when it is needed.
    roots.add_parsable_certificates(certificates(&pem, "the host's file of authorities")?);
    Ok(roots)
}

fn certificates(pem: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("there is no certificate in {place}")),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("certificates of {place} cannot be read: {error}")),
    }
}

/// What TLS runs over.
#[derive(Debug)]
pub(super) enum Plain {
    /// A socket.
    Here(TcpStream),
    /// A stream to another host.
    There(Box<MeshStream>),
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Here(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::There(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Here(stream) => Pin::new(stream).poll_write(cx, buffer),
            Self::There(stream) => Pin::new(stream).poll_write(cx, buffer),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Here(stream) => Pin::new(stream).poll_flush(cx),
            Self::There(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Here(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::There(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Stream {
    /// Returns where it is noted why the far side ended the connection.
    pub(super) fn refusal(&self) -> Refusal {
        Arc::clone(&self.refusal)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, said, refusal } = self.get_mut();
        let polled = Pin::new(inner).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &polled
            && let Some(reason) = words::late(error, *said)
        {
            refusal.get_or_init(|| reason);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl End for Stream {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn fail(&mut self) {
        match self.inner.get_mut().0 {
            Plain::Here(stream) => stream.fail(),
            Plain::There(stream) => stream.as_mut().fail(),
        }
    }
}

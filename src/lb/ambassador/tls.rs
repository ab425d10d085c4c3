//! TLS to the far side of an ambassador: the far side's certificate is always checked, by name.

mod own;
mod trust;
mod words;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::relay::End;
use super::super::table::{AmbassadorTls, AmbassadorWay};
use super::{Far, Reason};
use crate::mesh::MeshStream;
use crate::model::{Authorities, authorities, certified};

use own::Own;
use trust::Trust;
use words::{Known, Said};

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
    known: Known,
    /// Whether anything came that was sent over it.
    was_answered: bool,
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
        let AmbassadorTls { server_name, authorities: given, identity } = material;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let Authorities { roots, certificates } = match given {
            Some(pem) => authorities(pem).map_err(|error| format!("`ca` cannot be used: {error}"))?,
            None => Authorities { roots: host_roots()?, certificates: Vec::new() },
        };
        let trust = Trust::new(&provider, roots, certificates)?;
        let own = identity.as_ref().map(|(chain, key)| certified(chain, key)).transpose();
        let own = own.map_err(|error| format!("`cert` and `key` cannot be used: {error}"))?;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        // It checks more than the library's own does, and not less.
        let builder = builder.map_err(|error| error.to_string())?.dangerous();
        let builder = builder.with_custom_certificate_verifier(Arc::new(trust));
        let config = builder.with_client_cert_resolver(Arc::new(Own(own.map(Arc::new))));
        let said = Said { has_ca: given.is_some(), has_own: identity.is_some() };
        Ok(Self { config: Arc::new(config), server_name: server_name.clone(), said })
    }

    /// Greets the far side.
    pub(super) async fn connect(&self, far: Far, way: &AmbassadorWay) -> Result<Stream, Reason> {
        let name = self.server_name.clone().unwrap_or_else(|| way.host_name());
        let server_name = ServerName::try_from(name.clone()).map_err(|_| format!("`{name}` is no name of a server"))?;
        let beneath = match far {
            Far::Here(stream) => Beneath::Here(stream),
            Far::There(stream) => Beneath::There(stream),
            Far::Tls(_) => return Err("TLS is not spoken inside TLS".to_owned()),
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let handshake = connector.connect(server_name, Plain { beneath, first: None }).into_fallible();
        let (connected, is_asked) = own::watched(handshake).await;
        let known = |plain: &Plain| Known { said: self.said, is_asked, first: plain.first };
        match connected {
            Ok(inner) => {
                let known = known(inner.get_ref().0);
                Ok(Stream { inner, known, was_answered: false, refusal: Refusal::default() })
            }
            Err((error, plain)) => Err(format!("no TLS with `{name}`: {}", words::words(&error, known(&plain)))),
        }
    }
}

fn host_roots() -> Result<RootCertStore, Reason> {
    let found = HOST_AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok());
    let pem = found.ok_or("this host has no file of trusted authorities: name them by `ca`")?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates =
        certificates.map_err(|error| format!("the host's file of trusted authorities cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    // The host's list may hold what this library does not know; one that is missing shows when it is needed.
    roots.add_parsable_certificates(certificates);
    Ok(roots)
}

/// What TLS runs over, with the first byte that came there.
#[derive(Debug)]
pub(super) struct Plain {
    beneath: Beneath,
    first: Option<u8>,
}

/// The connection itself.
#[derive(Debug)]
enum Beneath {
    /// A socket.
    Here(TcpStream),
    /// A stream to another host.
    There(Box<MeshStream>),
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { beneath, first } = self.get_mut();
        let before = buffer.filled().len();
        let polled = match beneath {
            Beneath::Here(stream) => Pin::new(stream).poll_read(cx, buffer),
            Beneath::There(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        *first = first.or_else(|| buffer.filled().get(before).copied());
        polled
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().beneath {
            Beneath::Here(stream) => Pin::new(stream).poll_write(cx, buffer),
            Beneath::There(stream) => Pin::new(stream).poll_write(cx, buffer),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().beneath {
            Beneath::Here(stream) => Pin::new(stream).poll_flush(cx),
            Beneath::There(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().beneath {
            Beneath::Here(stream) => Pin::new(stream).poll_shutdown(cx),
            Beneath::There(stream) => Pin::new(stream).poll_shutdown(cx),
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
        let Self { inner, known, was_answered, refusal } = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(inner).poll_read(cx, buffer);
        *was_answered |= buffer.filled().len() > before;
        if let Poll::Ready(Err(error)) = &polled
            && let Some(reason) = words::late(error, *known, *was_answered)
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
        match &mut self.inner.get_mut().0.beneath {
            Beneath::Here(stream) => stream.fail(),
            Beneath::There(stream) => stream.as_mut().fail(),
        }
    }
}

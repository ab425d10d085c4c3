//! The certificate of the pod's own, and whether the far side of a handshake asks for one.
//!
//! A far side that gets none may end the connection without a word, or its last word is lost with it: that it had asked is then
//! all that is known.

use std::cell::Cell;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

tokio::task_local! {
    /// Whether the far side of the handshake that goes on in this task has asked.
    static ASKED: Cell<bool>;
}

/// What is shown to who asks; `None`: nothing.
#[derive(Debug)]
pub(super) struct Own(pub(super) Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // All handshakes are watched; of another one nobody wants to know.
        ASKED.try_with(|asked| asked.set(true)).ok();
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// Returns what comes of a handshake, and whether the far side has asked for a certificate in it.
pub(super) async fn watched<T>(handshake: impl Future<Output = T>) -> (T, bool) {
    let watched = async {
        let outcome = handshake.await;
        (outcome, ASKED.with(Cell::get))
    };
    ASKED.scope(Cell::new(false), watched).await
}

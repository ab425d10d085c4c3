//! Certificates are renewed long before they end, without anybody's doing: the seat signs its own and those of the hosts
//! that ask for it on the stream that they tell their picture on.

use crate::ids::HostName;
use crate::mesh::{Mesh, identity};

use super::super::shared::Shared;

/// Renews the seat's own certificate when it is time.
pub fn check(shared: &Shared, mesh: &Mesh) {
    if !shared.fleet().is_seat() || !mesh.wants_renewal() {
        return;
    }
    let renewed = request(shared).and_then(|request| sign(shared, shared.host(), &request)).map(|certificate| {
        take(shared, mesh, &certificate);
    });
    if renewed.is_none() {
        tracing::error!("this host's certificate cannot be renewed");
    }
}

/// Returns a request for this host's next certificate.
pub fn request(shared: &Shared) -> Option<String> {
    let asked = shared.identity.key().map(|key| key.request());
    match asked {
        Ok(Ok(request)) => Some(request),
        Ok(Err(error)) => log(&error),
        Err(error) => log(&error),
    }
}

/// Signs the next certificate of a host that proved who it is; `None` where this is not the seat, or it cannot.
pub fn sign(shared: &Shared, host: &HostName, request: &str) -> Option<String> {
    let authority = match shared.identity.authority() {
        Ok(authority) => authority?,
        Err(error) => return log(&error),
    };
    match authority.sign(request, host, shared.clock.now(), identity::VALIDITY) {
        Ok(signed) => Some(signed.certificate),
        Err(error) => log(&error),
    }
}

/// Takes this host's next certificate into use, and keeps it.
pub fn take(shared: &Shared, mesh: &Mesh, certificate: &str) {
    let kept = shared.identity.keep_certificate(certificate).and_then(|()| shared.identity.identity());
    match kept {
        Ok(Some(identity)) => match mesh.set_identity(identity) {
            Ok(()) => tracing::info!("this host's certificate was renewed"),
            Err(error) => drop(log::<()>(&error)),
        },
        Ok(None) => {}
        Err(error) => drop(log::<()>(&error)),
    }
}

fn log<T>(error: &dyn std::error::Error) -> Option<T> {
    tracing::error!(error = super::super::handler::chain(error), "a certificate cannot be renewed");
    None
}

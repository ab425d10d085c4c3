//! Certificates are renewed long before they end, without anybody's doing: the seat signs its own and those of the hosts
//! that ask for it on the stream that they tell their picture on.

use crate::ids::HostName;
use crate::mesh::{Mesh, identity};

use super::super::shared::Shared;
use super::identity::FilesError;

/// Renews the seat's own certificate when it is time.
pub fn check(shared: &Shared, mesh: &Mesh) {
    if !shared.fleet().is_seat() || !mesh.wants_renewal() {
        return;
    }
    let signed = request(shared).and_then(|request| sign(shared, shared.host(), &request));
    if let Some(Err(error)) = signed.map(|certificate| take(shared, mesh, &certificate)) {
        log::<()>(&error);
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
///
/// # Errors
/// The disk, or a certificate that is not this host's.
pub fn take(shared: &Shared, mesh: &Mesh, certificate: &str) -> Result<(), FilesError> {
    shared.identity.keep_certificate(certificate)?;
    if let Some(identity) = shared.identity.identity()? {
        mesh.set_identity(identity).map_err(|source| shared.identity.unusable(source))?;
        tracing::info!("this host's certificate was renewed");
    }
    Ok(())
}

fn log<T>(error: &dyn std::error::Error) -> Option<T> {
    tracing::error!(error = crate::diag::chain(error), "a certificate cannot be renewed");
    None
}

//! TLS of outgoing connections: rustls on ring, certificates always verified.
//!
//! The crypto provider is passed to each configuration: a host process that installs its own is not disturbed.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::error::{Error, Kind, Result};

/// The configuration of a client: it trusts the certificates of `ca_file` (PEM) and no other, or without
/// one those of the system.
///
/// Works for `tokio-rustls` as it is, and for `reqwest` through `tls_backend_preconfigured` with a clone of
/// its content. Reads files: on a runtime thread use [`load_client_config`].
///
/// # Errors
/// `invalid_config` when the file cannot be read or holds no usable certificate, or when the system has none.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let roots = match ca_file {
        Some(path) => roots_of_file(path)?,
        None => roots_of_system()?,
    };
    with_roots(roots)
}

/// [`client_config`] on a thread where reading files is allowed.
///
/// # Errors
/// As [`client_config`].
pub async fn load_client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let path = ca_file.map(Path::to_owned);
    match tokio::task::spawn_blocking(move || client_config(path.as_deref())).await {
        Ok(config) => config,
        Err(error) => {
            Err(Error::new(Kind::Internal, "the certificates could not be loaded").caused_by(error))
        }
    }
}

/// A configuration that trusts nobody: for HTTP clients that are given plain `http` addresses only, yet need
/// a configuration to be built.
///
/// # Errors
/// `internal` when rustls refuses its own defaults.
pub fn client_config_without_roots() -> Result<Arc<ClientConfig>> {
    with_roots(RootCertStore::empty())
}

fn with_roots(roots: RootCertStore) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Kind::Internal, "TLS cannot be set up").caused_by(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore> {
    let wrong = |what: &str| Error::new(Kind::InvalidConfig, format!("`ca_file` {}: {what}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong("it cannot be read as PEM").caused_by(error))?;
    if certificates.is_empty() {
        return Err(wrong("it holds no certificate"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| wrong("it holds a certificate that cannot be used").caused_by(error))?;
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry some that no library takes: the others are enough.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let error = Error::new(Kind::InvalidConfig, "the system has no root certificates: name a `ca_file`");
        return Err(match found.errors.into_iter().next() {
            Some(cause) => error.caused_by(cause),
            None => error,
        });
    }
    Ok(roots)
}

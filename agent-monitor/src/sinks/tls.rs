//! TLS as a sink's settings want it.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::TlsConfig;
use crate::https::read;

/// A client's settings, its certificates read now.
///
/// # Errors
/// A file cannot be read or holds no certificate or key, in a sentence that holds none either.
pub(super) fn client(tls: &TlsConfig) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot prepare TLS: {error}"))?
        .with_root_certificates(roots(tls)?);
    let config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let ours = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_slice(&read(key)?)
                .map_err(|error| format!("no private key in {}: {error}", key.display()))?;
            builder.with_client_auth_cert(ours, key).map_err(|error| {
                format!(
                    "the key does not go with {}: {error}",
                    certificate.display()
                )
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Who vouches for receivers.
fn roots(tls: &TlsConfig) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &tls.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| {
                format!("a certificate in {} is unusable: {error}", path.display())
            })?;
        }
        return Ok(roots);
    }
    let system = rustls_native_certs::load_native_certs();
    // Systems have some that are of no use; the others serve.
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(
            "this system has no certificates: install ca-certificates, or set tls.ca".to_owned(),
        );
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("no certificates in {}: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("no certificates in {}", path.display()));
    }
    Ok(found)
}

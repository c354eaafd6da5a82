//! Clients of HTTPS: what sinks deliver with, and what asks the Kubernetes API server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Certificate, Client, Identity, redirect};

use crate::config::TlsConfig;

/// Longest wait for a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for the whole answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A client that trusts and shows what `tls` says, its files read now.
///
/// # Errors
/// A file cannot be read or holds no certificate or key, in words.
pub(crate) fn client(tls: &TlsConfig) -> Result<Client, String> {
    // Another sink may have installed it; there is only one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("agent-monitor/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .redirect(redirect::Policy::none())
        .no_proxy();
    if let Some(path) = &tls.ca {
        let pem = read(path)?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|error| format!("no certificates in {}: {error}", path.display()))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        let mut pem = read(certificate)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        let identity = Identity::from_pem(&pem).map_err(|error| {
            let (certificate, key) = (certificate.display(), key.display());
            format!("no certificate and key in {certificate} and {key}: {error}")
        })?;
        builder = builder.identity(identity);
    }
    builder
        .build()
        .map_err(|error| format!("cannot prepare TLS: {error}"))
}

/// A header that holds a secret: it is in no log of the client's.
///
/// # Errors
/// The secret has characters that no header may hold, in words.
pub(crate) fn secret(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| "the secret has characters that no header may hold".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Why there is no answer, with the causes below it.
pub(crate) fn no_answer(error: reqwest::Error) -> String {
    // The address may hold a secret.
    let error = error.without_url();
    let cause = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
        error.source()
    })
    .map(ToString::to_string)
    .collect::<Vec<_>>()
    .join(": ");
    format!("no answer: {cause}")
}

/// A file of certificates or keys.
///
/// # Errors
/// It cannot be read, in words.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use reqwest::header;

    use super::*;

    #[test]
    fn a_secret_is_not_in_what_is_logged_of_a_request() {
        let request = client(&TlsConfig::default())
            .unwrap()
            .post("http://127.0.0.1:9/")
            .header(header::AUTHORIZATION, secret("Splunk s3cret").unwrap())
            .build()
            .unwrap();
        assert!(!format!("{request:?}").contains("s3cret"));
        assert!(secret("a\nb").is_err());
    }
}

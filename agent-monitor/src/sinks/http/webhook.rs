//! A webhook: one request an alert, in any format, or in the body that a
//! [template](crate::sinks::template) makes, for chat tools.
//!
//! With a key the request is signed: `X-Agent-Monitor-Timestamp` holds the seconds since
//! 1970, and `X-Agent-Monitor-Signature` holds `sha256=` and the HMAC-SHA-256, in
//! hexadecimal, of that timestamp, a dot, and the body. `X-Agent-Monitor-Id` is the
//! event's id, the same when it is delivered again.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::StatusCode;
use serde_json::Value;
use sha2::Sha256;

use super::Http;
use crate::config::{Secret, WebhookConfig};
use crate::https::secret;
use crate::sinks::{Sink, SinkError, template};
use crate::store::Record;

/// Sends to a webhook.
pub struct WebhookSink {
    config: WebhookConfig,
    http: Http,
}

impl WebhookSink {
    /// A sink that sends to a webhook.
    pub fn new(config: &WebhookConfig) -> Self {
        Self {
            config: config.clone(),
            http: Http::new(&config.tls),
        }
    }

    async fn post(&mut self, record: &Record) -> Result<(), SinkError> {
        let event: Value = serde_json::from_str(&record.json).unwrap_or_default();
        let body = match &self.config.template {
            Some(template) => template::render(template, &event).map_err(SinkError::Refused)?,
            None => self.config.format.line(&record.json),
        };
        let json = self.config.template.is_some() || self.config.format.is_json();
        let url = self.config.url.read().map_err(SinkError::Unavailable)?;
        let key = read(self.config.key.as_ref())?;
        let authorization = read(self.config.authorization.as_ref())?;
        let authorization = authorization.as_deref().map(secret).transpose();
        let authorization = authorization.map_err(SinkError::Unavailable)?;
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        self.http
            .send(move |client| {
                let kind = if json {
                    "application/json"
                } else {
                    "text/plain; charset=utf-8"
                };
                let mut request = client
                    .post(url)
                    .header("Content-Type", kind)
                    .header("X-Agent-Monitor-Id", id);
                if let Some(authorization) = authorization {
                    request = request.header("Authorization", authorization);
                }
                if let Some(key) = key {
                    let now = jiff::Timestamp::now().as_second().to_string();
                    request = request
                        .header("X-Agent-Monitor-Signature", signature(&key, &now, &body))
                        .header("X-Agent-Monitor-Timestamp", now);
                }
                request.body(body)
            })
            .await?
            .success(|answer| {
                // Unlike a wrong address or key, these are about the body.
                matches!(
                    answer.status,
                    StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
                )
            })?;
        Ok(())
    }
}

impl Sink for WebhookSink {
    /// One: what was acknowledged is not sent again when a later one is refused.
    fn most(&self) -> NonZeroU32 {
        NonZeroU32::MIN
    }

    fn reopen(&mut self) {
        self.http.reopen();
    }

    async fn deliver(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        for record in batch {
            self.post(record).await?;
        }
        Ok(())
    }
}

fn read(kept: Option<&Secret>) -> Result<Option<String>, SinkError> {
    kept.map(Secret::read)
        .transpose()
        .map_err(SinkError::Unavailable)
}

fn signature(key: &str, timestamp: &str, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_compute() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            signature("key", "1700000000", "{}"),
            "sha256=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
        );
    }
}

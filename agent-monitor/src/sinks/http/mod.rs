//! Sinks that speak HTTP. Each acknowledges: what was answered with success has
//! arrived, what was not is delivered again.

mod bulk;
mod otlp;
mod splunk;
mod webhook;

use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use reqwest::{Client, RequestBuilder, StatusCode, header};

use super::SinkError;
use crate::config::TlsConfig;
use crate::escape::escape;
use crate::https::{client, no_answer};

pub use bulk::BulkSink;
pub use otlp::OtlpSink;
pub use splunk::SplunkSink;
pub use webhook::WebhookSink;

/// How much of an answer is read.
const MAX_ANSWER: usize = 4 << 20;
/// How much of an answer goes into an error message.
const QUOTE: usize = 200;

/// A client of one receiver, made on first use and after a failure: certificates
/// are read again then.
struct Http {
    tls: TlsConfig,
    client: Option<Client>,
}

/// What a receiver answered.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: BytesMut,
}

impl Http {
    fn new(tls: &TlsConfig) -> Self {
        Self {
            tls: tls.clone(),
            client: None,
        }
    }

    /// Forgets certificates and connections.
    fn reopen(&mut self) {
        self.client = None;
    }

    /// Sends the request that `make` makes, and reads the answer.
    async fn send(
        &mut self,
        make: impl FnOnce(&Client) -> RequestBuilder,
    ) -> Result<Answer, SinkError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => client(&self.tls).map_err(SinkError::Unavailable)?,
        };
        let answer = exchange(make(&client))
            .await
            .map_err(|error| SinkError::Unavailable(no_answer(error)))?;
        self.client = Some(client);
        Ok(answer)
    }
}

impl Answer {
    /// Passes a success on.
    ///
    /// # Errors
    /// Anything else. `refuses` says whether the receiver means the records.
    fn success(self, refuses: impl FnOnce(&Self) -> bool) -> Result<Self, SinkError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(&self.body);
        let quote: String = text.chars().take(QUOTE).collect();
        let message = format!("the receiver answered {}: {}", self.status, escape(&quote));
        if self.status == StatusCode::PAYLOAD_TOO_LARGE || refuses(&self) {
            return Err(SinkError::Refused(message));
        }
        Err(match self.retry_after {
            Some(after) => SinkError::Busy(message, after),
            None => SinkError::Unavailable(message),
        })
    }
}

async fn exchange(request: RequestBuilder) -> reqwest::Result<Answer> {
    let mut response = request.send().await?;
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after
        .and_then(|value| value.to_str().ok())
        .and_then(|value| wait(value, SystemTime::now()));
    let mut body = BytesMut::new();
    while body.len() < MAX_ANSWER
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: response.status(),
        retry_after,
        body,
    })
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn wait(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(wait(" 7", now), Some(Duration::from_secs(7)));
        assert_eq!(
            wait("Sun, 06 Nov 1994 08:49:47 GMT", now),
            Some(Duration::from_secs(10))
        );
        assert_eq!(
            wait("Sun, 06 Nov 1994 08:49:30 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(wait("-1", now), None);
        assert_eq!(wait("soon", now), None);
    }
}

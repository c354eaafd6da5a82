//! Elasticsearch's and OpenSearch's `POST /_bulk`.
//!
//! Each document is created under the event's own id: what is delivered again is
//! answered with 409 for being there already, which is a success.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Http;
use crate::config::ElasticsearchConfig;
use crate::escape::escape;
use crate::https::secret;
use crate::sinks::{Sink, SinkError};
use crate::store::Record;

/// Sends to a cluster.
pub struct BulkSink {
    config: ElasticsearchConfig,
    http: Http,
}

#[derive(Deserialize)]
struct Reply {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    #[serde(default)]
    error: Value,
}

impl BulkSink {
    /// A sink that sends to a cluster.
    pub fn new(config: &ElasticsearchConfig) -> Self {
        Self {
            config: config.clone(),
            http: Http::new(&config.tls),
        }
    }

    fn body(&self, batch: &[Record]) -> String {
        let mut body = String::new();
        for record in batch {
            let event: Value = serde_json::from_str(&record.json).unwrap_or_default();
            let mut create = json!({ "_index": self.config.index });
            if let Some(id) = event["id"].as_str() {
                create["_id"] = id.into();
            }
            let document = self.config.format.line(&record.json);
            // Writing to a String cannot fail.
            let _ = writeln!(body, "{}\n{document}", json!({ "create": create }));
        }
        body
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, SinkError> {
        let (scheme, kept) = match (&self.config.api_key, &self.config.basic) {
            (Some(key), _) => ("ApiKey", key),
            (None, Some(basic)) => ("Basic", basic),
            (None, None) => return Ok(None),
        };
        let mut credentials = kept.read().map_err(SinkError::Unavailable)?;
        if scheme == "Basic" {
            credentials = BASE64.encode(credentials);
        }
        secret(&format!("{scheme} {credentials}"))
            .map(Some)
            .map_err(SinkError::Unavailable)
    }
}

impl Sink for BulkSink {
    fn reopen(&mut self) {
        self.http.reopen();
    }

    async fn deliver(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        let body = self.body(batch);
        let authorization = self.authorization()?;
        let url = format!("{}/_bulk", self.config.url.trim_end_matches('/'));
        let answer = self
            .http
            .send(move |client| {
                let mut request = client
                    .post(url)
                    .header("Content-Type", "application/x-ndjson")
                    .body(body);
                if let Some(authorization) = authorization {
                    request = request.header("Authorization", authorization);
                }
                request
            })
            .await?
            .success(|answer| answer.status == StatusCode::BAD_REQUEST)?;
        let reply: Reply = serde_json::from_slice(&answer.body).map_err(|error| {
            SinkError::Unavailable(format!("the answer to _bulk cannot be read: {error}"))
        })?;
        judge(&reply, batch.len())
    }
}

/// A cluster answers a batch with success and each document for itself.
fn judge(reply: &Reply, sent: usize) -> Result<(), SinkError> {
    let mut refused = None;
    for item in &reply.items {
        let Outcome { status, error } = &item.create;
        match status {
            200..=299 | 409 => {}
            // Out of room, or not ready: tried again, whatever else is wrong.
            429 | 500..=599 => {
                return Err(SinkError::Unavailable(message(*status, error)));
            }
            _ => refused = Some(message(*status, error)),
        }
    }
    if let Some(message) = refused {
        return Err(SinkError::Refused(message));
    }
    if reply.items.len() < sent {
        return Err(SinkError::Unavailable(format!(
            "the cluster answered for {} documents of {sent}",
            reply.items.len()
        )));
    }
    Ok(())
}

fn message(status: u16, error: &Value) -> String {
    let text: String = error.to_string().chars().take(super::QUOTE).collect();
    format!(
        "the cluster answered {status} for a document: {}",
        escape(&text)
    )
}

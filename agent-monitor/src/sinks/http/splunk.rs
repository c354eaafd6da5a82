//! Splunk's HTTP Event Collector: `POST /services/collector/event`, JSON objects
//! one after the other.
//!
//! A success means that Splunk has the events in memory. With `ack = true` the
//! sink also waits until the indexers have them, by asking
//! `/services/collector/ack` on a channel of its own.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Answer, Http};
use crate::config::SplunkConfig;
use crate::https::secret;
use crate::sinks::{Sink, SinkError};
use crate::store::Record;

/// Longest wait for an acknowledgement.
const ACK: Duration = Duration::from_secs(60);
/// Pause between two questions for it.
const ACK_POLL: Duration = Duration::from_millis(500);
/// The codes by which the collector refuses events for what they are: invalid data format,
/// event field required, event field blank, error in handling indexed fields.
const REFUSALS: [u64; 4] = [6, 12, 13, 15];

/// Sends to a collector.
pub struct SplunkSink {
    config: SplunkConfig,
    http: Http,
    /// Names our acknowledgements, a GUID.
    channel: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reply {
    code: u64,
    #[serde(rename = "ackId")]
    ack: Option<u64>,
}

impl SplunkSink {
    /// A sink that sends to a collector.
    pub fn new(config: &SplunkConfig) -> Self {
        Self {
            config: config.clone(),
            http: Http::new(&config.tls),
            channel: guid(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!(
            "{}/services/collector/{path}",
            self.config.url.trim_end_matches('/')
        )
    }

    async fn post(&mut self, path: &str, body: String) -> Result<Answer, SinkError> {
        let token = self.config.token.read().map_err(SinkError::Unavailable)?;
        let authorization = secret(&format!("Splunk {token}")).map_err(SinkError::Unavailable)?;
        let (url, channel, ack) = (self.url(path), self.channel.clone(), self.config.ack);
        let answer = self
            .http
            .send(move |client| {
                let request = client
                    .post(url)
                    .header("Authorization", authorization)
                    .header("Content-Type", "application/json")
                    .body(body);
                if ack {
                    request.header("X-Splunk-Request-Channel", channel)
                } else {
                    request
                }
            })
            .await?;
        answer.success(|answer| {
            answer.status == StatusCode::BAD_REQUEST && REFUSALS.contains(&reply(answer).code)
        })
    }

    async fn acknowledged(&mut self, id: u64) -> Result<(), SinkError> {
        let start = Instant::now();
        while start.elapsed() < ACK {
            let answer = self
                .post("ack", json!({ "acks": [id] }).to_string())
                .await?;
            let reply: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if reply["acks"][id.to_string()] == true {
                return Ok(());
            }
            sleep(ACK_POLL).await;
        }
        // A new channel: what the old one acknowledges late is not ours any more.
        self.channel = guid();
        Err(SinkError::Unavailable(format!(
            "the indexers did not acknowledge within {} s; the alerts will be sent again",
            ACK.as_secs()
        )))
    }

    /// A record as the collector wants it, its time and host beside the event.
    fn event(&self, record: &Record) -> Value {
        let native: Value = serde_json::from_str(&record.json).unwrap_or_default();
        let line = self.config.format.line(&record.json);
        let event = match serde_json::from_str::<Value>(&line) {
            Ok(event) if self.config.format.is_json() => event,
            _ => Value::String(line),
        };
        let mut object = json!({
            "source": "agent-monitor",
            "sourcetype": format!("agent-monitor:{}", record.kind),
            "event": event,
        });
        if let Some(node) = native["node"].as_str() {
            object["host"] = node.into();
        }
        let time = native["time"].as_str().and_then(|time| time.parse().ok());
        if let Some(time) = time.map(jiff::Timestamp::as_millisecond) {
            // Seconds with three decimals; as text, for no digit to be lost.
            object["time"] =
                format!("{}.{:03}", time.div_euclid(1000), time.rem_euclid(1000)).into();
        }
        if let Some(index) = &self.config.index {
            object["index"] = index.as_str().into();
        }
        object
    }
}

impl Sink for SplunkSink {
    fn reopen(&mut self) {
        self.http.reopen();
    }

    async fn deliver(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        let events: Vec<String> = batch
            .iter()
            .map(|record| self.event(record).to_string())
            .collect();
        let answer = self.post("event", events.join("\n")).await?;
        if !self.config.ack {
            return Ok(());
        }
        match reply(&answer).ack {
            Some(id) => self.acknowledged(id).await,
            None => Err(SinkError::Unavailable(
                "the collector gave no ackId: enable acknowledgements for the token, or set ack = false"
                    .to_owned(),
            )),
        }
    }
}

fn reply(answer: &Answer) -> Reply {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// A random GUID (RFC 9562, version 4).
fn guid() -> String {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

//! OTLP logs (opentelemetry-proto, `ExportLogsServiceRequest`), protobuf over HTTP.
//!
//! A log record's body is the alert's summary, its event name
//! `agent_monitor.alert`; every member of the event is an attribute under its path.

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use reqwest::StatusCode;
use serde_json::Value;

use super::Http;
use crate::config::OtlpConfig;
use crate::escape::escape;
use crate::event::Timestamp;
use crate::https::secret;
use crate::sinks::{Sink, SinkError};
use crate::store::Record;

/// Sends to a collector.
pub struct OtlpSink {
    config: OtlpConfig,
    http: Http,
}

impl OtlpSink {
    /// A sink that sends to a collector.
    pub fn new(config: &OtlpConfig) -> Self {
        Self {
            config: config.clone(),
            http: Http::new(&config.tls),
        }
    }
}

impl Sink for OtlpSink {
    fn reopen(&mut self) {
        self.http.reopen();
    }

    async fn deliver(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        let body = request(batch).encode_to_vec();
        let authorization = match &self.config.authorization {
            Some(kept) => {
                let kept = kept.read().and_then(|kept| secret(&kept));
                Some(kept.map_err(SinkError::Unavailable)?)
            }
            None => None,
        };
        let url = self.config.url.clone();
        let answer = self
            .http
            .send(move |client| {
                let mut request = client
                    .post(url)
                    .header("Content-Type", "application/x-protobuf")
                    .body(body);
                if let Some(authorization) = authorization {
                    request = request.header("Authorization", authorization);
                }
                request
            })
            .await?
            .success(|answer| answer.status == StatusCode::BAD_REQUEST)?;
        // An empty answer is a full success, and so is one in another encoding.
        let response = ExportLogsServiceResponse::decode(&answer.body[..]).unwrap_or_default();
        match response.partial_success {
            Some(partial) if partial.rejected_log_records > 0 => {
                let text: String = partial.error_message.chars().take(super::QUOTE).collect();
                Err(SinkError::Refused(format!(
                    "the collector rejected {} records: {}",
                    partial.rejected_log_records,
                    escape(&text)
                )))
            }
            _ => Ok(()),
        }
    }
}

fn request(batch: &[Record]) -> ExportLogsServiceRequest {
    let events: Vec<Value> = batch
        .iter()
        .map(|record| serde_json::from_str(&record.json).unwrap_or_default())
        .collect();
    let node = events
        .iter()
        .find_map(|event| event["node"].as_str())
        .unwrap_or_default();
    let resource = Resource {
        attributes: vec![
            attribute("service.name", Any::StringValue("agent-monitor".into())),
            attribute(
                "service.version",
                Any::StringValue(env!("CARGO_PKG_VERSION").into()),
            ),
            attribute("host.name", Any::StringValue(node.into())),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "agent-monitor".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let now = Timestamp::now().0;
    let log_records = events.iter().map(|event| log(event, now)).collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

fn log(event: &Value, now: u64) -> LogRecord {
    let kind = event["kind"].as_str().unwrap_or_default();
    let body = &event[kind];
    // SeverityNumber of the log data model: INFO 9, INFO2 10, WARN 13, ERROR 17, FATAL 21.
    let (severity_number, severity_text) = match body["severity"].as_str() {
        Some("low") => (10, "low"),
        Some("medium") => (13, "medium"),
        Some("high") => (17, "high"),
        Some("critical") => (21, "critical"),
        _ => (9, "info"),
    };
    let time = event["time"]
        .as_str()
        .and_then(|time| time.parse::<jiff::Timestamp>().ok())
        .and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    let mut attributes = Vec::new();
    flatten("", event, &mut attributes);
    let summary = body["summary"].as_str().unwrap_or(kind);
    LogRecord {
        time_unix_nano: time.unwrap_or_default(),
        observed_time_unix_nano: now,
        severity_number,
        severity_text: severity_text.into(),
        body: Some(AnyValue {
            value: Some(Any::StringValue(summary.into())),
        }),
        attributes,
        event_name: format!("agent_monitor.{kind}"),
        ..LogRecord::default()
    }
}

/// Each member of `value` under its path.
fn flatten(path: &str, value: &Value, attributes: &mut Vec<KeyValue>) {
    if let Value::Object(members) = value {
        for (name, value) in members {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            flatten(&path, value, attributes);
        }
    } else if let Some(value) = any(value) {
        attributes.push(attribute(path, value));
    }
}

fn any(value: &Value) -> Option<Any> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => Any::BoolValue(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Any::IntValue(number),
            None => Any::StringValue(number.to_string()),
        },
        Value::String(text) => Any::StringValue(text.clone()),
        Value::Array(items) => Any::ArrayValue(ArrayValue {
            values: items
                .iter()
                .map(|item| AnyValue { value: any(item) })
                .collect(),
        }),
        // Objects inside a list: as text, which every backend shows.
        Value::Object(_) => Any::StringValue(value.to_string()),
    })
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

//! The HTTP sinks against receivers that are written from the published protocols and
//! check every request: `_bulk`, OTLP, a webhook. Splunk has a file of its own.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::IntoResponse as _;
use common::http::{LIMIT, Monitor, Receiver, Request, answer};
use common::receivers::{Child, certificates};
use common::{EPOCH_NS, alert, id, wait_for};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use prost::Message as _;
use serde_json::{Value, json};

#[test]
fn a_busy_receiver_is_left_alone_for_as_long_as_it_says() {
    let receiver = Receiver::start(|before, _| {
        if before == 0 {
            let busy = answer(503, &json!({ "text": "Server is busy", "code": 9 }));
            return ([("retry-after", "2")], busy).into_response();
        }
        answer(200, &json!({ "code": 0 }))
    });
    let sink = format!("kind = \"splunk\"\nurl = \"{}\"\ntoken = $", receiver.url());
    let start = std::time::Instant::now();
    let monitor = Monitor::start(&sink, 1..=3);
    monitor.wait_until_delivered();
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(receiver.requests().len(), 2);
    monitor.stop();
}

#[test]
fn a_receiver_that_takes_a_request_and_never_answers_delays_only_its_own_sink() {
    let stalls = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Receiver::start(|_, _| answer(200, &json!({ "code": 0 })));
    let stuck = format!(
        "kind = \"splunk\"\nurl = \"http://{}\"\ntoken = $",
        stalls.local_addr().unwrap()
    );
    let monitor = Monitor::start(&stuck, 1..=3);
    // It has the whole request, and says nothing.
    let (mut taken, _) = stalls.accept().unwrap();
    std::io::Read::read_exact(&mut taken, &mut [0; 100]).unwrap();
    let mut configs = vec![monitor.config.clone()];
    let well = format!(
        "name = \"well\"\nkind = \"webhook\"\nurl = \"{}\"",
        receiver.url()
    );
    configs.push(toml::from_str(&well).unwrap());
    monitor.sinks.replace(&configs);
    for n in 4..=20 {
        monitor.store.append(&alert(n)).unwrap();
    }
    let start = std::time::Instant::now();
    let statuses = wait_for("the other sink's delivery", LIMIT, || {
        let statuses = monitor.sinks.statuses();
        (statuses[1].lag == 0).then_some(statuses)
    });
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert_eq!((statuses[0].cursor, statuses[0].lag), (0, 20));
    assert_eq!(receiver.requests().len(), 20);
    monitor.stop();
}

#[test]
fn a_template_s_filter_keeps_text_from_calling_everybody_in_a_chat() {
    let receiver = Receiver::start(|_, _| answer(200, &json!({})));
    let sink = format!(
        "kind = \"webhook\"\nurl = \"{}\"\ntemplate = '{{\"text\": {{{{ alert.summary | slack }}}}}}'",
        receiver.url()
    );
    let monitor = Monitor::start(&sink, 2..=2);
    monitor
        .store
        .append(&common::alert_saying(1, "a", "<!channel> & \"x\""))
        .unwrap();
    wait_for("the request", LIMIT, || {
        (receiver.requests().len() == 2).then_some(())
    });
    let body: Value = serde_json::from_slice(&receiver.requests()[1].body).unwrap();
    assert_eq!(body, json!({ "text": "&lt;!channel&gt; &amp; \"x\"" }));
    monitor.stop();
}

/// Checks a `_bulk` body: pairs of lines, each a creation under the document's own id.
fn bulk_documents(request: &Request) -> Vec<(String, Value)> {
    assert_eq!(request.path, "/_bulk");
    assert_eq!(request.header("content-type"), "application/x-ndjson");
    assert_eq!(request.body.last(), Some(&b'\n'));
    let lines = request.lines();
    assert_eq!(lines.len() % 2, 0);
    lines
        .chunks(2)
        .map(|pair| {
            let create = &pair[0]["create"];
            assert_eq!(pair[0].as_object().unwrap().len(), 1);
            assert_eq!(create["_index"], "alerts-agents");
            (create["_id"].as_str().unwrap().to_owned(), pair[1].clone())
        })
        .collect()
}

#[test]
fn a_cluster_gets_every_document_once_whatever_is_delivered_again() {
    let index = Arc::new(Mutex::new(BTreeMap::<String, Value>::new()));
    let kept = Arc::clone(&index);
    let receiver = Receiver::start(move |before, request| {
        assert_eq!(request.header("authorization"), "ApiKey s3cret");
        let mut index = kept.lock().unwrap();
        let items: Vec<_> = bulk_documents(request)
            .into_iter()
            .enumerate()
            .map(|(n, (id, document))| {
                // At first every other document meets a full queue.
                let status = if before == 0 && n % 2 == 1 {
                    429
                } else if index.contains_key(&id) {
                    409
                } else {
                    index.insert(id.clone(), document);
                    201
                };
                let error = json!({ "type": "es_rejected_execution_exception" });
                json!({ "create": { "_id": id, "status": status, "error": error } })
            })
            .collect();
        answer(
            200,
            &json!({ "took": 1, "errors": before == 0, "items": items }),
        )
    });
    let sink = format!(
        "kind = \"elasticsearch\"\nurl = \"{}/\"\nindex = \"alerts-agents\"\napi_key = $",
        receiver.url()
    );
    let monitor = Monitor::start(&sink, 1..=20);
    monitor.wait_until_delivered();
    assert_eq!(monitor.status().dead_letters, 0);
    monitor.stop();
    let index = index.lock().unwrap();
    assert_eq!(index.len(), 20);
    assert_eq!(index[&id(3)]["event"]["kind"], "alert");
    assert!(index[&id(3)]["@timestamp"].is_string());
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn a_document_that_does_not_fit_the_mapping_becomes_a_dead_letter() {
    let receiver = Receiver::start(|_, request| {
        let items: Vec<_> = bulk_documents(request)
            .into_iter()
            .map(|(it, _)| {
                let error = json!({ "type": "document_parsing_exception", "reason": "x" });
                if it == id(2) {
                    json!({ "create": { "_id": it, "status": 400, "error": error } })
                } else {
                    json!({ "create": { "_id": it, "status": 201 } })
                }
            })
            .collect();
        answer(200, &json!({ "errors": true, "items": items }))
    });
    let sink = format!(
        "kind = \"elasticsearch\"\nurl = \"{}\"\nindex = \"alerts-agents\"",
        receiver.url()
    );
    let monitor = Monitor::start(&sink, 1..=4);
    monitor.wait_until_delivered();
    let letters = monitor.store.dead_letters("siem", 0, 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].record.seq, 2);
    monitor.stop();
}

#[test]
fn an_answer_for_half_a_batch_is_no_delivery() {
    let receiver = Receiver::start(|before, request| {
        let documents = bulk_documents(request);
        let take = if before == 0 { 2 } else { documents.len() };
        let items: Vec<_> = documents
            .into_iter()
            .take(take)
            .map(|(id, _)| json!({ "create": { "_id": id, "status": 201 } }))
            .collect();
        answer(200, &json!({ "errors": false, "items": items }))
    });
    let sink = format!(
        "kind = \"elasticsearch\"\nurl = \"{}\"\nindex = \"alerts-agents\"",
        receiver.url()
    );
    let monitor = Monitor::start(&sink, 1..=4);
    monitor.wait_until_delivered();
    assert_eq!(monitor.status().retries, 1);
    monitor.stop();
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn otlp_logs_are_read_by_the_published_protocol() {
    let receiver = Receiver::start(|before, request| {
        assert_eq!(request.path, "/v1/logs");
        assert_eq!(request.header("content-type"), "application/x-protobuf");
        assert_eq!(request.header("authorization"), "s3cret");
        if before == 0 {
            return answer(429, &json!({}));
        }
        ([("content-type", "application/x-protobuf")], Vec::new()).into_response()
    });
    let sink = format!(
        "kind = \"otlp\"\nurl = \"{}/v1/logs\"\nauthorization = $",
        receiver.url()
    );
    let monitor = Monitor::start(&sink, 1..=5);
    monitor.wait_until_delivered();
    monitor.stop();
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    let logs = ExportLogsServiceRequest::decode(&requests[1].body[..]).unwrap();
    // A decoder skips fields that the protocol does not have: none were there.
    assert_eq!(logs.encode_to_vec(), requests[1].body);
    let [resource_logs] = &logs.resource_logs[..] else {
        panic!("one resource: {logs:?}");
    };
    let [scope_logs] = &resource_logs.scope_logs[..] else {
        panic!("one scope: {logs:?}");
    };
    let scope = scope_logs.scope.as_ref().unwrap();
    assert_eq!((&*scope.name, &*scope.version), ("agent-monitor", VERSION));
    let resource = resource_logs.resource.as_ref().unwrap();
    assert_eq!(
        attributes(&resource.attributes),
        json!({ "service.name": "agent-monitor", "service.version": VERSION, "host.name": "node-1" })
    );
    assert_eq!(scope_logs.log_records.len(), 5);
    for (n, record) in (1..).zip(&scope_logs.log_records) {
        assert_eq!(record.time_unix_nano, EPOCH_NS + n * 1_000_000_000);
        assert!(record.observed_time_unix_nano > 1_700_000_000_000_000_000);
        // FATAL and its range in the log data model.
        assert_eq!(
            (record.severity_number, &*record.severity_text),
            (21, "critical")
        );
        assert_eq!(record.event_name, "agent_monitor.alert");
        let body = record.body.as_ref().and_then(|it| it.value.as_ref());
        let summary = "it did what it should not".to_owned();
        assert_eq!(body, Some(&any_value::Value::StringValue(summary)));
        assert_eq!(
            attributes(&record.attributes),
            flat(&serde_json::to_value(alert(n)).unwrap())
        );
        assert_eq!((record.flags, record.dropped_attributes_count), (0, 0));
        assert!(record.trace_id.is_empty() && record.span_id.is_empty());
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Attributes as an object; fails when one is there twice.
fn attributes(attributes: &[KeyValue]) -> Value {
    let mut object = serde_json::Map::new();
    for attribute in attributes {
        let value = plain(attribute.value.as_ref().unwrap().value.as_ref().unwrap());
        let twice = object.insert(attribute.key.clone(), value);
        assert_eq!(twice, None, "{}", attribute.key);
    }
    Value::Object(object)
}

fn plain(value: &any_value::Value) -> Value {
    match value {
        any_value::Value::StringValue(text) => text.as_str().into(),
        any_value::Value::IntValue(number) => (*number).into(),
        any_value::Value::BoolValue(truth) => (*truth).into(),
        any_value::Value::ArrayValue(list) => {
            let items = list
                .values
                .iter()
                .map(|it| plain(it.value.as_ref().unwrap()));
            items.collect()
        }
        other => panic!("not in an alert: {other:?}"),
    }
}

/// The members of `event` by their paths.
fn flat(event: &Value) -> Value {
    let mut out = serde_json::Map::new();
    let mut waiting = vec![(String::new(), event)];
    while let Some((path, value)) = waiting.pop() {
        match value {
            Value::Object(members) => waiting.extend(members.iter().map(|(name, value)| {
                let dot = if path.is_empty() { "" } else { "." };
                (format!("{path}{dot}{name}"), value)
            })),
            value => {
                out.insert(path, value.clone());
            }
        }
    }
    Value::Object(out)
}

#[test]
fn otlp_records_that_are_rejected_become_dead_letters() {
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    let receiver = Receiver::start(|_, request| {
        let logs = ExportLogsServiceRequest::decode(&request.body[..]).unwrap();
        let records = &logs.resource_logs[0].scope_logs[0].log_records;
        let bad = any_value::Value::StringValue(id(3));
        let rejected = records
            .iter()
            .filter(|record| {
                record.attributes.iter().any(|it| {
                    it.key == "id"
                        && it.value.as_ref().and_then(|it| it.value.as_ref()) == Some(&bad)
                })
            })
            .count();
        let partial = (rejected > 0).then(|| ExportLogsPartialSuccess {
            rejected_log_records: 1,
            error_message: "no".into(),
        });
        let response = ExportLogsServiceResponse {
            partial_success: partial,
        };
        response.encode_to_vec().into_response()
    });
    let sink = format!("kind = \"otlp\"\nurl = \"{}/v1/logs\"", receiver.url());
    let monitor = Monitor::start(&sink, 1..=4);
    monitor.wait_until_delivered();
    let letters = monitor.store.dead_letters("siem", 0, 10).unwrap();
    assert_eq!(
        letters.iter().map(|it| it.record.seq).collect::<Vec<_>>(),
        [3]
    );
    monitor.stop();
}

#[test]
fn a_webhook_gets_one_signed_request_an_alert() {
    let receiver = Receiver::start(|_, _| answer(200, &json!({ "ok": true })));
    let sink = format!(
        "kind = \"webhook\"\nurl = \"{}/hook\"\nkey = $\ntemplate = '{{\"text\": {{{{ alert.summary }}}}}}'",
        receiver.url()
    );
    let monitor = Monitor::start(&sink, 1..=2);
    monitor.wait_until_delivered();
    monitor.stop();
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    for (n, request) in (1..).zip(&requests) {
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("x-agent-monitor-id"), id(n));
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert!(body["text"].is_string());
        let signature = request.header("x-agent-monitor-signature");
        assert_eq!(signature.len(), "sha256=".len() + 64);
        let time = request.header("x-agent-monitor-timestamp");
        assert!(time.parse::<u64>().is_ok());
        // As a receiver would check it, with another implementation.
        let signed = format!("{time}.{}", std::str::from_utf8(&request.body).unwrap());
        assert_eq!(
            signature,
            format!("sha256={}", openssl_hmac("s3cret", &signed))
        );
    }
}

fn openssl_hmac(key: &str, text: &str) -> String {
    use std::io::Write as _;
    let mut openssl = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", key])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("openssl runs");
    openssl
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = openssl.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn a_filter_keeps_back_what_is_not_wanted_and_the_cursor_moves_on() {
    let receiver = Receiver::start(|_, _| answer(200, &json!({})));
    let sink = format!(
        "kind = \"webhook\"\nurl = \"{}\"\nfilter = {{ rules = [\"mining-*\"] }}",
        receiver.url()
    );
    let monitor = Monitor::start(&sink, 1..=50);
    monitor.wait_until_delivered();
    monitor.stop();
    assert!(receiver.requests().is_empty());
}

/// Answers 200 to whatever comes over TLS from a client with a certificate of the CA;
/// says its port first, then each body.
const TLS_RECEIVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(body.decode(), flush=True)
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
context.load_verify_locations("ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

#[test]
fn tls_trusts_the_configured_ca_alone_and_shows_our_certificate() {
    use std::io::BufRead as _;
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let mut receiver = Child(
        std::process::Command::new("python3")
            .args(["-c", TLS_RECEIVER])
            .current_dir(folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3 runs"),
    );
    let mut lines = std::io::BufReader::new(receiver.0.stdout.take().unwrap()).lines();
    let port = lines.next().unwrap().unwrap();
    let sink = |tls: &str| {
        format!("kind = \"webhook\"\nurl = \"https://127.0.0.1:{port}/\"\n{tls}")
            .replace('@', folder.path().to_str().unwrap())
    };

    // The system's certificates do not know the CA, and without ours we are not let in.
    for tls in ["", "tls = { ca = \"@/ca.pem\" }"] {
        let monitor = Monitor::start(&sink(tls), 1..=1);
        let error = wait_for("an error", LIMIT, || monitor.status().last_error);
        assert!(error.starts_with("no answer"), "{error}");
        assert_eq!(monitor.status().cursor, 0);
        monitor.stop();
    }
    let ours =
        "tls = { ca = \"@/ca.pem\", certificate = \"@/client.pem\", key = \"@/client.key\" }";
    let monitor = Monitor::start(&sink(ours), 1..=1);
    monitor.wait_until_delivered();
    let body = lines.next().unwrap().unwrap();
    assert!(body.contains(&id(1)), "{body}");
    monitor.stop();
}

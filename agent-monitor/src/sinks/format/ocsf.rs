//! OCSF 1.8.0, the Open Cybersecurity Schema Framework (schema.ocsf.io), with
//! the profiles `host` and `container`.
//!
//! | event | class |
//! |---|---|
//! | `alert` | Detection Finding 2004: `finding_info.uid` is the incident; its first revision is a Create, later ones are Updates |
//! | `exec`, `exit` | Process Activity 1007 |
//! | `connect`, `accept`, `bind`, `listen`, `send`, `flow` | Network Activity 4001 |
//! | `dns` | DNS Activity 4003 |
//! | `device` | File System Activity 1001, a character device opened |
//! | the rest | Base Event 0, the body under `unmapped` |

use serde_json::Value;

use super::build::Object;
use super::view::View;

/// Version of the schema.
const VERSION: &str = "1.8.0";

/// Class, category and activity of an event, each an id and its caption.
struct Class {
    category: (u64, &'static str),
    class: (u64, &'static str),
    activity: (u64, &'static str),
}

const SYSTEM: (u64, &str) = (1, "System Activity");
const FINDINGS: (u64, &str) = (2, "Findings");
const NETWORK: (u64, &str) = (4, "Network Activity");

/// `event` as an OCSF event.
pub(super) fn map(event: View<'_>) -> Value {
    match event.kind() {
        "alert" => finding(event),
        "exec" | "exit" => process_activity(event),
        "connect" | "accept" | "bind" | "listen" | "send" | "flow" => network_activity(event),
        "dns" => dns_activity(event),
        "device" => device_activity(event),
        _ => base_event(event),
    }
    .into_value()
}

fn finding(event: View<'_>) -> Object {
    let alert = event.body();
    let activity = match alert.number("revision") {
        Some(0 | 1) | None => (1, "Create"),
        Some(_) => (2, "Update"),
    };
    let class = Class {
        category: FINDINGS,
        class: (2004, "Detection Finding"),
        activity,
    };
    let severity = match alert.text("severity") {
        Some("info") => (1, "Informational"),
        Some("low") => (2, "Low"),
        Some("medium") => (3, "Medium"),
        Some("high") => (4, "High"),
        Some("critical") => (5, "Critical"),
        _ => (0, "Unknown"),
    };
    let confidence = match alert.text("confidence") {
        Some("low") => Some((1u64, "Low")),
        Some("medium") => Some((2, "Medium")),
        Some("high") => Some((3, "High")),
        _ => None,
    };
    let (first, last) = (alert.millis("first_seen"), alert.millis("last_seen"));
    let attacks = alert
        .texts("attack")
        .into_iter()
        .map(attack)
        .collect::<Vec<_>>();
    let related = alert
        .texts("events")
        .into_iter()
        .map(|id| Object::new().with("uid", id))
        .collect::<Vec<_>>();
    let rule = alert.text("rule");
    let info = Object::new()
        .with("uid", alert.text("incident"))
        .with("title", alert.text("title"))
        .with("desc", alert.text("summary"))
        .with("types", rule.map(|rule| vec![rule]))
        .with(
            "analytic",
            Object::new()
                .with("type_id", 1u64)
                .with("type", "Rule")
                .with("uid", rule)
                .with("name", alert.text("title")),
        )
        .with("attacks", attacks)
        .with("created_time", first)
        .with("first_seen_time", first)
        .with("last_seen_time", last)
        .with("modified_time", event.millis("time"))
        .with("related_events", related);
    let evidence = Object::new()
        .with(
            "data",
            Object::new()
                .with("facts", alert.at("evidence").value())
                .with("coverage", alert.text("coverage")),
        )
        .with("process", event_process(event))
        .with("container", container(event));
    base(event, &class, severity)
        .with("message", alert.text("summary"))
        .with("is_alert", true)
        .with("confidence_id", confidence.map(|(id, _)| id))
        .with("confidence", confidence.map(|(_, caption)| caption))
        .with("count", alert.number("count"))
        .with("start_time", first)
        .with("end_time", last)
        .with("status_id", if activity.0 == 1 { 1u64 } else { 2 })
        .with(
            "status",
            if activity.0 == 1 {
                "New"
            } else {
                "In Progress"
            },
        )
        .with("finding_info", info)
        .with("evidences", vec![evidence])
        .with("actor", actor(event))
        .with(
            "unmapped",
            unmapped(event).with("revision", alert.number("revision")),
        )
}

/// A technique, or a sub-technique with its technique: `T1021.004`.
fn attack(id: &str) -> Object {
    let (technique, sub) = match id.split_once('.') {
        Some((technique, _)) => (technique, Some(id)),
        None => (id, None),
    };
    Object::new()
        .with("technique", Object::new().with("uid", technique))
        .with("sub_technique", sub.map(|id| Object::new().with("uid", id)))
}

fn process_activity(event: View<'_>) -> Object {
    let body = event.body();
    let activity = if event.kind() == "exec" {
        (1, "Launch")
    } else {
        (2, "Terminate")
    };
    let class = Class {
        category: SYSTEM,
        class: (1007, "Process Activity"),
        activity,
    };
    // For a program that was started, the actor is who started it.
    let by = if activity.0 == 1 {
        parent(event.at("process"))
    } else {
        event_process(event)
    };
    let exit_code = body.at("code").value().and_then(Value::as_i64);
    base(event, &class, INFORMATIONAL)
        .with(
            "actor",
            by.map_or_else(
                || Object::new().with("app_name", "unknown"),
                |by| Object::new().with("process", by),
            ),
        )
        .with(
            "process",
            event_process(event).unwrap_or_else(|| Object::new().with("uid", "unknown")),
        )
        .with("exit_code", exit_code)
        .with("unmapped", unmapped(event).with(event.kind(), body.value()))
}

fn network_activity(event: View<'_>) -> Object {
    let body = event.body();
    let result = body.text("result");
    let activity = match (event.kind(), body.text("state"), result) {
        ("listen", ..) => (7, "Listen"),
        ("bind", ..) => (99, "Other"),
        ("send", ..) => (6, "Traffic"),
        (_, _, Some("refused")) => (5, "Refuse"),
        (_, _, Some("reset")) => (3, "Reset"),
        (_, Some("failed"), _)
        | (_, _, Some("unreachable" | "timed_out" | "abandoned" | "failed_locally")) => (4, "Fail"),
        (_, Some("closed"), _) => (2, "Close"),
        (_, Some("identified" | "update"), _) => (6, "Traffic"),
        _ => (1, "Open"),
    };
    let class = Class {
        category: NETWORK,
        class: (4001, "Network Activity"),
        activity,
    };
    let (source, destination) = event.ends();
    let traffic = Object::new()
        .with("bytes_out", body.number("bytes_out"))
        .with("bytes_in", body.number("bytes_in"))
        .with("packets_out", body.number("packets_out"))
        .with("packets_in", body.number("packets_in"));
    let name = body.text("server_name");
    // Type 1 is JA4 itself, of its family. For HASSH this class has no place.
    let fingerprints = body.text("ja4").map(|ja4| {
        let fingerprint = Object::new()
            .with("type_id", 1u64)
            .with("type", "JA4")
            .with("value", ja4);
        vec![fingerprint]
    });
    // One of the two has to be there: an event without addresses still has a node.
    let source = endpoint(source, None).or_else(|| node(event));
    base(event, &class, INFORMATIONAL)
        .with(
            "activity_name",
            (activity.0 == 99).then(|| event.kind().to_owned()),
        )
        .with("src_endpoint", source)
        .with("dst_endpoint", endpoint(destination, name))
        .with("connection_info", connection(event))
        .with("traffic", traffic)
        .with("app_protocol_name", body.text("protocol"))
        .with("ja4_fingerprint_list", fingerprints)
        .with("status_detail", result)
        .with(
            "duration",
            body.number("duration_ns").map(|ns| ns / 1_000_000),
        )
        .with("actor", actor(event))
        .with("unmapped", unmapped(event).with(event.kind(), body.value()))
}

fn dns_activity(event: View<'_>) -> Object {
    let body = event.body();
    let answered = body.at("answers").exists();
    let class = Class {
        category: NETWORK,
        class: (4003, "DNS Activity"),
        activity: if answered {
            (2, "Response")
        } else {
            (1, "Query")
        },
    };
    let query = body.text("question").map(|question| {
        Object::new()
            .with("hostname", question)
            .with("type", body.text("type"))
    });
    let answers = body
        .texts("answers")
        .into_iter()
        .map(|data| Object::new().with("rdata", data))
        .collect::<Vec<_>>();
    let (source, destination) = event.ends();
    base(event, &class, INFORMATIONAL)
        .with("query", query)
        .with("answers", answers)
        .with(
            "src_endpoint",
            endpoint(source, None).or_else(|| node(event)),
        )
        .with("dst_endpoint", endpoint(destination, None))
        .with("actor", actor(event))
        .with("unmapped", unmapped(event).with("dns", body.value()))
}

fn device_activity(event: View<'_>) -> Object {
    let body = event.body();
    let class = Class {
        category: SYSTEM,
        class: (1001, "File System Activity"),
        activity: (14, "Open"),
    };
    let name = body.text("name").map_or_else(
        || {
            let number = |name| body.number(name).unwrap_or_default();
            format!("{}:{}", number("major"), number("minor"))
        },
        str::to_owned,
    );
    let file = Object::new()
        .with("name", name)
        .with("type_id", 3u64)
        .with("type", "Character Device");
    base(event, &class, INFORMATIONAL)
        .with("file", file)
        .with(
            "actor",
            actor(event).unwrap_or_else(|| Object::new().with("app_name", "unknown")),
        )
        .with("unmapped", unmapped(event).with("device", body.value()))
}

fn base_event(event: View<'_>) -> Object {
    let class = Class {
        category: (0, "Uncategorized"),
        class: (0, "Base Event"),
        activity: (99, "Other"),
    };
    // An `agent` event has its body in the agent itself, which is there anyway.
    let body = (event.kind() != "agent").then(|| event.body().value());
    base(event, &class, INFORMATIONAL)
        .with("activity_name", event.kind())
        .with(
            "message",
            event.body().text("reason").unwrap_or(event.kind()),
        )
        .with(
            "unmapped",
            unmapped(event)
                .with(event.kind(), body)
                .with("process", event.at("process").value()),
        )
}

const INFORMATIONAL: (u64, &str) = (1, "Informational");

/// What every class has.
fn base(event: View<'_>, class: &Class, severity: (u64, &str)) -> Object {
    let product = Object::new()
        .with("name", "agent-monitor")
        .with("vendor_name", "agent-monitor")
        .with("version", env!("CARGO_PKG_VERSION"));
    let metadata = Object::new()
        .with("version", VERSION)
        .with("product", product)
        .with("uid", event.text("id"))
        .with("event_code", event.kind())
        .with("original_time", event.text("time"));
    let profiled = class.class.0 != 0;
    let metadata = metadata.with("profiles", profiled.then(|| vec!["host", "container"]));
    let (uid, class_name) = class.class;
    let (activity, activity_name) = class.activity;
    Object::new()
        .with("category_uid", class.category.0)
        .with("category_name", class.category.1)
        .with("class_uid", uid)
        .with("class_name", class_name)
        .with("activity_id", activity)
        .with("activity_name", activity_name)
        .with("type_uid", uid * 100 + activity)
        .with("type_name", format!("{class_name}: {activity_name}"))
        .with("severity_id", severity.0)
        .with("severity", severity.1)
        .with("time", event.millis("time").unwrap_or_default())
        .with("metadata", metadata)
        .with("device", profiled.then(|| device(event)))
}

/// The node, and the container on it.
fn device(event: View<'_>) -> Object {
    Object::new()
        .with("type_id", 1u64)
        .with("type", "Server")
        .with("hostname", event.text("node"))
        .with("name", event.text("node"))
        .with("container", container(event))
}

fn node(event: View<'_>) -> Option<Object> {
    let name = event.text("node")?;
    Some(Object::new().with("hostname", name))
}

fn container(event: View<'_>) -> Option<Object> {
    let container = event.at("agent.container");
    container.exists().then(|| {
        let image = container
            .text("image")
            .map(|name| Object::new().with("uid", name).with("name", name));
        let pod = event.at("agent.pod");
        Object::new()
            .with("uid", container.text("id"))
            .with("name", container.text("name"))
            .with("image", image)
            .with("runtime", container.text("runtime"))
            .with("orchestrator", pod.exists().then_some("kubernetes"))
    })
}

fn actor(event: View<'_>) -> Option<Object> {
    event_process(event).map(|process| Object::new().with("process", process))
}

/// The event's process, with its ancestors.
fn event_process(event: View<'_>) -> Option<Object> {
    let process = event.at("process");
    if !process.exists() {
        return None;
    }
    let uid = format!(
        "{}-{}",
        process.number("pid").unwrap_or_default(),
        process.number("start").unwrap_or_default()
    );
    let user = process
        .number("uid")
        .map(|uid| Object::new().with("uid", uid.to_string()));
    let ancestry = process
        .items("ancestors")
        .map(|ancestor| {
            Object::new()
                .with("pid", ancestor.number("pid"))
                .with("name", ancestor.text("comm"))
                .with("path", ancestor.text("exe"))
        })
        .collect::<Vec<_>>();
    Some(
        Object::new()
            .with("pid", process.number("pid"))
            .with("uid", uid)
            .with("name", process.text("comm"))
            .with("path", process.text("exe"))
            .with("file", process.text("exe").map(executable))
            .with("cmd_line", process.command_line("argv"))
            .with("user", user)
            .with("parent_process", parent(process))
            .with("ancestry", ancestry),
    )
}

fn parent(process: View<'_>) -> Option<Object> {
    let parent = process.items("ancestors").next();
    let exe = parent.and_then(|parent| parent.text("exe"));
    let pid = parent
        .and_then(|parent| parent.number("pid"))
        .or(process.number("ppid"))?;
    Some(
        Object::new()
            .with("pid", pid)
            .with("name", parent.and_then(|parent| parent.text("comm")))
            .with("path", exe)
            .with("file", exe.map(executable)),
    )
}

fn executable(path: &str) -> Object {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty());
    Object::new()
        .with("name", name.unwrap_or(path))
        .with("path", path)
        .with("type_id", 1u64)
        .with("type", "Regular File")
}

fn endpoint(address: View<'_>, name: Option<&str>) -> Option<Object> {
    let ip = address.text("ip")?;
    Some(
        Object::new()
            .with("ip", ip)
            .with("port", address.number("port"))
            .with("hostname", name),
    )
}

fn connection(event: View<'_>) -> Object {
    let body = event.body();
    let (direction_id, direction) = if event.inbound() {
        (1u64, "Inbound")
    } else {
        (2, "Outbound")
    };
    // IANA's protocol numbers.
    let protocol = match body.text("transport") {
        Some("icmp") => Some(1u64),
        Some("tcp") => Some(6),
        Some("udp") => Some(17),
        Some("icmp6") => Some(58),
        _ => None,
    };
    Object::new()
        .with("uid", body.text("flow"))
        .with("direction_id", direction_id)
        .with("direction", direction)
        .with("protocol_name", body.text("transport"))
        .with("protocol_num", protocol)
}

/// Who the agent is: OCSF's own `agent` is the monitoring one.
fn unmapped(event: View<'_>) -> Object {
    Object::new().with("agent", event.at("agent").value())
}

//! Elastic Common Schema 9 (elastic.co/guide/en/ecs). What has no field of its
//! own is under `agent_monitor`: ECS's `agent` is the program that reports.

use serde_json::Value;

use super::build::Object;
use super::view::View;

/// Version of the schema.
const VERSION: &str = "9.0.0";

/// `event` as an ECS document.
pub(super) fn map(event: View<'_>) -> Value {
    let body = event.body();
    let kind = event.kind();
    let reporter = Object::new()
        .with("type", "agent-monitor")
        .with("version", env!("CARGO_PKG_VERSION"));
    let own = Object::new()
        .with("agent", event.at("agent").value())
        .with(kind, (kind != "agent").then(|| body.value()));
    Object::new()
        .with("@timestamp", event.text("time"))
        .with("ecs", Object::new().with("version", VERSION))
        .with("event", event_fields(event))
        .with("message", message(event))
        .with("agent", reporter)
        .with(
            "host",
            Object::new()
                .with("name", event.text("node"))
                .with("hostname", event.text("node")),
        )
        .with("process", process(event))
        .with(
            "user",
            event
                .number("process.uid")
                .map(|uid| Object::new().with("id", uid.to_string())),
        )
        .and(container(event))
        .and(network(event))
        .and(rule(event))
        .with("dns", dns(event))
        .with("agent_monitor", own)
        .into_value()
}

fn message(event: View<'_>) -> Option<&str> {
    let body = event.body();
    body.text("summary").or(body.text("reason"))
}

/// `event.kind`, `.category` and `.type` take the values that ECS lists for them.
fn event_fields(event: View<'_>) -> Object {
    let body = event.body();
    let kind = event.kind();
    let (category, types): (&[&str], &[&str]) = match kind {
        "alert" => (&["intrusion_detection"], &["info"]),
        "exec" => (&["process"], &["start"]),
        "exit" => (&["process"], &["end"]),
        "connect" | "accept" => (&["network"], &["connection", "start"]),
        "bind" | "listen" | "socket" | "send" => (&["network"], &["info"]),
        "flow" => match body.text("state") {
            Some("closed" | "failed") => (&["network"], &["connection", "end"]),
            Some("open") => (&["network"], &["connection", "start"]),
            _ => (&["network"], &["connection", "info"]),
        },
        "dns" => (&["network"], &["protocol", "info"]),
        "device" => (&["file"], &["access"]),
        "sysctl" => (&["configuration"], &["change"]),
        _ => (&["host"], &["info"]),
    };
    let outcome = match body.text("result") {
        Some("established") => Some("success"),
        Some("attempted") => Some("unknown"),
        Some(_) => Some("failure"),
        None => None,
    };
    // Higher is worse; the numbers are ours, as ECS wants it.
    let severity = match body.text("severity") {
        Some("info") => Some(1u64),
        Some("low") => Some(2),
        Some("medium") => Some(3),
        Some("high") => Some(4),
        Some("critical") => Some(5),
        _ => None,
    };
    Object::new()
        .with("kind", if kind == "alert" { "alert" } else { "event" })
        .with("category", category.to_vec())
        .with("type", types.to_vec())
        .with("action", body.text("rule").unwrap_or(kind))
        .with("id", event.text("id"))
        .with("provider", "agent-monitor")
        .with("dataset", format!("agent_monitor.{kind}"))
        .with("severity", severity)
        .with("outcome", outcome)
        .with("reason", message(event))
        .with("start", body.text("first_seen").or(body.text("from")))
        .with("end", body.text("last_seen").or(body.text("to")))
        .with("duration", body.number("duration_ns"))
}

fn process(event: View<'_>) -> Option<Object> {
    let process = event.at("process");
    let pid = process.number("pid")?;
    let start = process.number("start").unwrap_or_default();
    let argv = process.texts("argv");
    let parent = process.items("ancestors").next();
    let parent = Object::new()
        .with(
            "pid",
            parent
                .and_then(|parent| parent.number("pid"))
                .or(process.number("ppid")),
        )
        .with("name", parent.and_then(|parent| parent.text("comm")))
        .with("executable", parent.and_then(|parent| parent.text("exe")));
    let count = u64::try_from(argv.len()).ok().filter(|count| *count > 0);
    let exit_code = event.at("exit.code").value();
    Some(
        Object::new()
            .with("pid", pid)
            .with(
                "entity_id",
                format!("{}-{pid}-{start}", event.text("node").unwrap_or_default()),
            )
            .with("name", process.text("comm"))
            .with("executable", process.text("exe"))
            .with("command_line", process.command_line("argv"))
            .with("args_count", count)
            .with("args", argv)
            .with("exit_code", exit_code)
            .with("parent", parent),
    )
}

fn container(event: View<'_>) -> Object {
    let container = event.at("agent.container");
    let pod = event.at("agent.pod");
    let orchestrator = pod.exists().then(|| {
        let resource = Object::new()
            .with("type", "pod")
            .with("name", pod.text("name"));
        Object::new()
            .with("type", "kubernetes")
            .with("namespace", pod.text("namespace"))
            .with("resource", resource)
    });
    let image = Object::new().with("name", container.text("image"));
    let container = Object::new()
        .with("id", container.text("id"))
        .with("name", container.text("name"))
        .with("image", image)
        .with("runtime", container.text("runtime"));
    Object::new()
        .with("container", container)
        .with("orchestrator", orchestrator)
}

fn network(event: View<'_>) -> Object {
    let body = event.body();
    let (source, destination) = event.ends();
    if !source.exists() && !destination.exists() {
        return Object::new();
    }
    let inbound = event.inbound();
    let (from_agent, to_agent) = (
        (body.number("bytes_out"), body.number("packets_out")),
        (body.number("bytes_in"), body.number("packets_in")),
    );
    let (sent, received) = if inbound {
        (to_agent, from_agent)
    } else {
        (from_agent, to_agent)
    };
    let remote_ip = body.text("remote.ip");
    let sum = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.saturating_add(b));
    let network = Object::new()
        .with("transport", body.text("transport"))
        .with("protocol", body.text("protocol"))
        .with(
            "type",
            remote_ip.map(|ip| if ip.contains(':') { "ipv6" } else { "ipv4" }),
        )
        .with("direction", if inbound { "ingress" } else { "egress" })
        .with("bytes", sum(from_agent.0, to_agent.0))
        .with("packets", sum(from_agent.1, to_agent.1));
    let ips = [source.text("ip"), destination.text("ip")]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    let hosts = body.text("server_name").map(|name| vec![name]);
    let (source_name, destination_name) = if inbound {
        (body.text("server_name"), None)
    } else {
        (None, body.text("server_name"))
    };
    Object::new()
        .with("network", network)
        .with("source", end(source, source_name, sent))
        .with("destination", end(destination, destination_name, received))
        .with(
            "related",
            Object::new().with("ip", ips).with("hosts", hosts),
        )
}

fn end(address: View<'_>, name: Option<&str>, sent: (Option<u64>, Option<u64>)) -> Option<Object> {
    let ip = address.text("ip")?;
    Some(
        Object::new()
            .with("address", name.unwrap_or(ip))
            .with("ip", ip)
            .with("port", address.number("port"))
            .with("domain", name)
            .with("bytes", sent.0)
            .with("packets", sent.1),
    )
}

fn rule(event: View<'_>) -> Object {
    let alert = event.at("alert");
    let Some(rule) = alert.text("rule") else {
        return Object::new();
    };
    // A sub-technique goes beside its technique.
    let (mut techniques, mut subtechniques) = (Vec::new(), Vec::new());
    for id in alert.texts("attack") {
        let technique = id.split('.').next().unwrap_or(id);
        if !techniques.contains(&technique) {
            techniques.push(technique);
        }
        if technique != id {
            subtechniques.push(id);
        }
    }
    let technique = Object::new()
        .with("id", techniques)
        .with("subtechnique", Object::new().with("id", subtechniques));
    Object::new()
        .with(
            "rule",
            Object::new()
                .with("id", rule)
                .with("name", alert.text("title"))
                .with("ruleset", "agent-monitor"),
        )
        .with(
            "threat",
            Object::new()
                .with("framework", "MITRE ATT&CK")
                .with("technique", technique),
        )
}

fn dns(event: View<'_>) -> Option<Object> {
    let body = event.at("dns");
    if !body.exists() {
        return None;
    }
    let question = Object::new()
        .with("name", body.text("question"))
        .with("type", body.text("type"));
    let answers = body.texts("answers");
    let ips = answers
        .iter()
        .filter(|answer| answer.parse::<std::net::IpAddr>().is_ok())
        .copied()
        .collect::<Vec<_>>();
    let kind = if body.at("answers").exists() {
        "answer"
    } else {
        "query"
    };
    let answers = answers
        .into_iter()
        .map(|data| Object::new().with("data", data))
        .collect::<Vec<_>>();
    Some(
        Object::new()
            .with("type", kind)
            .with("question", question)
            .with("answers", answers)
            .with("resolved_ip", ips),
    )
}

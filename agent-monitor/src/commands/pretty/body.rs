//! What is essential of each kind of event, in one line.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::text::{bytes, command_line, count, duration, number};
use super::{BOLD, DIM, Line, PLAIN, WARNING, between, color, integer, string, strings};

/// The style of a kind's name.
pub(super) fn style(kind: &str) -> Style {
    match kind {
        "exec" => color(AnsiColor::Green),
        "connect" | "accept" | "send" | "bind" | "listen" | "dns" => color(AnsiColor::Cyan),
        "flow" => color(AnsiColor::Blue),
        "device" | "sysctl" => color(AnsiColor::Yellow),
        "agent" | "cgroup" => color(AnsiColor::Magenta),
        "loss" | "gap" => WARNING,
        _ => DIM,
    }
}

/// Adds what is essential of an event that is not an alert.
pub(super) fn write(line: &mut Line, kind: &str, event: &Value) {
    match kind {
        "exec" => exec(line, event),
        "exit" => exit(line, event),
        "connect" | "send" => network(line, &event[kind], "→"),
        "accept" => network(line, &event[kind], "←"),
        "socket" => socket(line, &event[kind]),
        "bind" | "listen" => {
            line.push(BOLD, &address(&event[kind]["local"]));
            line.push(PLAIN, " ");
            line.push(PLAIN, string(&event[kind], "/transport"));
        }
        "dns" => dns(line, &event[kind]),
        "flow" => flow(line, &event[kind]),
        "device" => device(line, event),
        "sysctl" => sysctl(line, &event[kind]),
        "cgroup" => {
            line.push(PLAIN, string(event, "/cgroup/action"));
            line.push(PLAIN, " ");
            line.push(PLAIN, string(event, "/cgroup/path"));
        }
        "agent" => agent(line, &event[kind]),
        "loss" => loss(line, &event[kind]),
        "gap" => gap(line, event),
        // A kind of a newer daemon.
        _ => line.push(
            PLAIN,
            &event.get(kind).map(Value::to_string).unwrap_or_default(),
        ),
    }
}

fn exec(line: &mut Line, event: &Value) {
    let filename = string(event, "/exec/filename");
    let first = strings(event, "/exec/argv").next();
    let argv = command_line(strings(event, "/exec/argv"));
    line.push(PLAIN, if argv.is_empty() { filename } else { &argv });
    if event.pointer("/exec/argv_truncated").is_some() {
        line.push(DIM, " …");
    }
    let last = |path: &str| path.rsplit('/').next().map(str::to_owned);
    let is_script = event.pointer("/exec/interpreter").is_some();
    // A script's name is among its interpreter's arguments.
    if !is_script && first.is_some_and(|first| last(first) != last(filename)) {
        line.push(DIM, "  runs ");
        line.push(PLAIN, &command_line([filename].into_iter()));
    }
    if event.pointer("/exec/memfd").is_some() {
        line.push(WARNING, "  from memory or a deleted file");
    }
    let sockets = event
        .pointer("/exec/stdio_sockets")
        .and_then(Value::as_array);
    if let Some(sockets) = sockets {
        let list: Vec<_> = sockets.iter().map(Value::to_string).collect();
        line.push(WARNING, &format!("  socket as fd {}", list.join(", ")));
    }
    let euid = |name| integer(event, name);
    if let Some((before, now)) = euid("/exec/euid_before").zip(euid("/exec/euid")) {
        line.push(WARNING, &format!("  as user {now}, was {before}"));
    }
}

fn exit(line: &mut Line, event: &Value) {
    if let Some(signal) = integer(event, "/exit/signal") {
        line.push(WARNING, &format!("killed by signal {signal}"));
    } else if let Some(code) = event.pointer("/exit/code") {
        line.push(PLAIN, &format!("code {code}"));
    }
    if let Some(runtime) = integer(event, "/exit/runtime_ns") {
        line.push(
            DIM,
            &format!(" after {}", duration(Duration::from_nanos(runtime))),
        );
    }
}

/// Whom, over what, and what became of it.
fn network(line: &mut Line, body: &Value, arrow: &str) {
    peer(line, body, arrow);
    let result = string(body, "/result");
    let style = if result == "established" { PLAIN } else { DIM };
    line.push(style, &format!(" {result}"));
}

fn peer(line: &mut Line, body: &Value, arrow: &str) {
    line.push(PLAIN, arrow);
    line.push(PLAIN, " ");
    line.push(BOLD, &address(&body["remote"]));
    line.push(PLAIN, " ");
    if let Some(name) = body.pointer("/server_name").and_then(Value::as_str) {
        line.push(BOLD, name);
        line.push(PLAIN, " ");
    }
    line.push(PLAIN, string(body, "/transport"));
}

fn socket(line: &mut Line, socket: &Value) {
    let what = ["/family", "/type", "/protocol"].map(|name| string(socket, name));
    let style = if socket.pointer("/raw").is_some() {
        WARNING
    } else {
        PLAIN
    };
    line.push(style, &what.join(" "));
}

fn address(address: &Value) -> String {
    let (ip, port) = (
        string(address, "/ip"),
        integer(address, "/port").unwrap_or_default(),
    );
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

/// What is asked of whom, or what is answered.
fn dns(line: &mut Line, body: &Value) {
    line.push(BOLD, string(body, "/question"));
    line.push(PLAIN, " ");
    line.push(PLAIN, string(body, "/type"));
    let rcode = string(body, "/rcode");
    if rcode.is_empty() {
        line.push(DIM, &format!("  asked of {}", address(&body["remote"])));
        return;
    }
    line.push(PLAIN, " = ");
    let answers: Vec<_> = strings(body, "/answers").collect();
    if answers.is_empty() {
        let nothing = if rcode == "NOERROR" { "nothing" } else { rcode };
        line.push(DIM, nothing);
    } else {
        line.push(PLAIN, &answers.join(", "));
    }
    if body.pointer("/truncated").is_some() {
        line.push(DIM, " …");
    }
}

fn flow(line: &mut Line, body: &Value) {
    peer(
        line,
        body,
        if string(body, "/direction") == "inbound" {
            "←"
        } else {
            "→"
        },
    );
    if let Some(protocol) = body.pointer("/protocol").and_then(Value::as_str) {
        line.push(PLAIN, " ");
        line.push(BOLD, protocol);
    }
    if let Some(name) = body.pointer("/server_name").and_then(Value::as_str) {
        line.push(PLAIN, " ");
        line.push(PLAIN, name);
    }
    let facts: Vec<_> = strings(body, "/facts").collect();
    if !facts.is_empty() {
        // What is new; sizes so far are told when it closes.
        line.push(PLAIN, &format!("  {}", facts.join("; ")));
        return;
    }
    line.push(PLAIN, " ");
    line.push(PLAIN, string(body, "/state"));
    let result = string(body, "/result");
    if !matches!(result, "" | "attempted" | "established") {
        line.push(PLAIN, ": ");
        line.push(PLAIN, &result.replace('_', " "));
    }
    let [sent, received] =
        ["/bytes_out", "/bytes_in"].map(|size| integer(body, size).unwrap_or_default());
    if sent + received > 0 {
        line.push(
            DIM,
            &format!("  sent {}, received {}", bytes(sent), bytes(received)),
        );
    }
    if let Some(lasted) = integer(body, "/duration_ns") {
        line.push(
            DIM,
            &format!(" in {}", duration(Duration::from_nanos(lasted))),
        );
    }
}

fn device(line: &mut Line, event: &Value) {
    let number = |member: &str| integer(event, member).unwrap_or_default();
    let name = string(event, "/device/name");
    if !name.is_empty() {
        line.push(BOLD, name);
        line.push(PLAIN, " ");
    }
    line.push(
        PLAIN,
        &format!(
            "{} {}:{} {}",
            string(event, "/device/type"),
            number("/device/major"),
            number("/device/minor"),
            string(event, "/device/access"),
        ),
    );
    line.push(DIM, " ");
    line.push(DIM, string(event, "/device/result"));
}

fn sysctl(line: &mut Line, body: &Value) {
    line.push(BOLD, string(body, "/name"));
    line.push(PLAIN, " = ");
    line.push(PLAIN, string(body, "/value"));
    if body["value_truncated"] == true {
        line.push(DIM, "…");
    }
}

fn agent(line: &mut Line, agent: &Value) {
    line.push(PLAIN, string(agent, "/state"));
    line.push(PLAIN, " ");
    line.push(PLAIN, string(agent, "/cgroup"));
    let details = ["/container/runtime", "/container/image", "/pod/namespace"];
    for detail in details.map(|pointer| string(agent, pointer)) {
        if !detail.is_empty() {
            line.push(DIM, &format!("  {detail}"));
        }
    }
}

fn loss(line: &mut Line, loss: &Value) {
    let records = integer(loss, "/records").unwrap_or_default();
    let stage = match string(loss, "/stage") {
        "tail" => "tail, which was read too slowly",
        stage => stage,
    };
    line.push(
        WARNING,
        &format!("{} lost at {stage}", count(records, "record")),
    );
    let kinds: Vec<_> = loss["kinds"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(kind, records)| format!("{kind} {}", number(records.as_u64().unwrap_or_default())))
        .collect();
    if !kinds.is_empty() {
        line.push(DIM, &format!("  {}", kinds.join(", ")));
    }
}

fn gap(line: &mut Line, event: &Value) {
    line.push(WARNING, "not covered");
    if let Some(length) = between(event, "/gap/from", "/gap/to") {
        line.push(WARNING, &format!(" for {}", duration(length)));
    }
    line.push(WARNING, ": ");
    line.push(WARNING, string(event, "/gap/reason"));
}

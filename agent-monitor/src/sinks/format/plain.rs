//! A line for people: `critical reverse-ssh-tunnel agent-7: ssh[4242] lets … (incident …, revision 3)`,
//! `connect agent-7: ssh[4242] → 198.51.100.1:22 tcp established`.

use super::view::View;
use crate::escape::escape;

/// `event` as one line.
pub(super) fn map(event: View<'_>) -> String {
    let alert = event.at("alert");
    let mut line = String::new();
    for part in [
        alert.text("severity"),
        alert.text("rule").or(event.text("kind")),
        event.text("agent.name"),
    ]
    .into_iter()
    .flatten()
    {
        if !line.is_empty() {
            line.push(' ');
        }
        line += &escape(part);
    }
    let what = alert.text("summary").map(str::to_owned);
    if let Some(what) = what.or_else(|| in_words(event)) {
        line += ": ";
        line += &escape(&what);
    }
    if let Some((incident, revision)) = alert.text("incident").zip(alert.number("revision")) {
        line += &format!(" (incident {}, revision {revision})", escape(incident));
    }
    line
}

/// What an event that is no alert tells: who, what, and with whom.
fn in_words(event: View<'_>) -> Option<String> {
    let (process, body) = (event.at("process"), event.body());
    let who = process
        .text("comm")
        .zip(process.number("pid"))
        .map(|(comm, pid)| format!("{comm}[{pid}]"));
    let command = body.command_line("argv");
    let (source, destination) = event.ends();
    let (sign, other) = match event.kind() {
        "listen" | "bind" => ("at", body.at("local")),
        _ if event.inbound() => ("←", source),
        _ => ("→", destination),
    };
    let other = other
        .text("ip")
        .map(|ip| format!("{sign} {ip}:{}", other.number("port").unwrap_or_default()));
    let rest = [
        "question",
        "name",
        "action",
        "path",
        "stage",
        "reason",
        "transport",
        "protocol",
        "state",
        "result",
    ];
    let rest = rest
        .iter()
        .filter_map(|name| body.text(name))
        .map(str::to_owned);
    let parts: Vec<_> = [who, command, other]
        .into_iter()
        .flatten()
        .chain(rest)
        .collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

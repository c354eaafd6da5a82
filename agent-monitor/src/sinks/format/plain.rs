//! A line for people: `critical reverse-ssh-tunnel agent-7: ssh[4242] lets … (incident …, revision 3)`.

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
    if let Some(summary) = alert.text("summary").or(event.body().text("reason")) {
        line += ": ";
        line += &escape(summary);
    }
    if let Some((incident, revision)) = alert.text("incident").zip(alert.number("revision")) {
        line += &format!(" (incident {}, revision {revision})", escape(incident));
    }
    line
}

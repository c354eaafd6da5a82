//! What is printed where there is no terminal: one look, in plain text.

use std::time::Duration;

use anyhow::Result;

use super::app::App;
use super::columns::{COLUMNS, per_second};
use super::look::{self, Alert};
use super::session::Asked;
use super::text;
use crate::commands::table::table;
use crate::escape::escape;

/// Alerts that are printed.
const ALERTS: usize = 20;

/// Looks twice, an interval apart, and gives what there is to print.
///
/// # Errors
/// There is no daemon, or it does not answer.
pub async fn take(asked: &Asked, mut app: App) -> Result<String> {
    app.take(look::sample(&asked.client).await?);
    tokio::time::sleep(asked.interval).await;
    let (sample, alerts) = tokio::try_join!(
        look::sample(&asked.client),
        look::alerts(&asked.client, &asked.agents)
    )?;
    app.take(sample);
    app.take_alerts(alerts);
    Ok(print(&app))
}

fn print(app: &App) -> String {
    let overview = &app.overview;
    let status = &overview.status;
    let up = text::duration(Duration::from_secs(status.uptime_seconds));
    let state = crate::commands::status::word(status.state);
    let mut lines = vec![
        format!(
            "{}  {state}, up {up}  agent-monitor {}",
            status.node, status.version
        ),
        format!(
            "seen      {} events/s  {} lost/s  {}",
            per_second(overview.events),
            per_second(overview.losses),
            text::count(overview.rows.len() as u64, "agent"),
        ),
        format!(
            "coverage  {}",
            match overview.missing.is_empty() {
                true => "complete".to_owned(),
                false => overview.missing.join("; "),
            }
        ),
    ];
    for sink in &status.sinks {
        let error = sink.last_error.as_ref();
        let error = error.map_or_else(String::new, |error| format!(": {error}"));
        let lag = text::number(sink.lag);
        lines.push(format!("sink      {} {lag} behind{error}", sink.name));
    }
    let mut out: String = lines
        .iter()
        .map(|line| escape(line).into_owned() + "\n")
        .collect();
    out.push('\n');
    let head = COLUMNS.map(|column| column.title());
    let rows = app.rows();
    let rows = rows
        .into_iter()
        .map(|row| COLUMNS.map(|column| column.text(row)).to_vec());
    out += &table(&head, rows);
    let alerts = app.shown_alerts();
    if !alerts.is_empty() {
        out.push('\n');
        let head = [
            "LATEST ALERTS (UTC)",
            "SEVERITY",
            "AGENT",
            "RULE",
            "SUMMARY",
        ];
        out += &table(&head, alerts.into_iter().take(ALERTS).map(cells));
    }
    out
}

fn cells(alert: &Alert) -> Vec<String> {
    let body = &alert.alert;
    let severity = body.severity.map_or("?", |severity| severity.name());
    // To the second: what is between day and time zone.
    let time = alert.time.get(..19).unwrap_or_default();
    vec![
        time.replace('T', " "),
        format!("{severity}/{}", body.confidence),
        alert.agent.name.clone(),
        body.rule.clone(),
        body.summary.clone(),
    ]
}

//! `agent-monitor alerts`: stored alerts, in a table, or one incident in full.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::pretty::{Pretty, integer, string};
use super::table::{print, table};
use crate::api::client::Client;
use crate::cli::{AlertsArgs, Output};

/// Runs the command.
///
/// # Errors
/// When there is no daemon, it refuses, or the incident is not stored.
pub fn run(args: &AlertsArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let lines = runtime.block_on(async {
        let client = Client::new(&args.socket.socket);
        let mut stream = client
            .stream_lines(&format!("/v1/alerts?{}", query(args)))
            .await?;
        let mut lines = Vec::new();
        while let Some(line) = stream.next().await? {
            lines.push(line);
        }
        anyhow::Ok(lines)
    })?;
    if let (Some(incident), true) = (&args.incident, lines.is_empty()) {
        bail!("no alert of the incident {incident:?} is stored: see `agent-monitor alerts`");
    }
    let mut text = String::new();
    match args.output.format() {
        Output::Json => {
            for line in &lines {
                text += std::str::from_utf8(line).context("the daemon sent what is no text")?;
                text.push('\n');
            }
        }
        Output::Pretty => {
            let alerts = lines.iter().map(|line| serde_json::from_slice(line));
            let alerts: Vec<Value> = alerts
                .collect::<Result<_, _>>()
                .context("the daemon sent what is no JSON")?;
            if args.incident.is_some() {
                let pretty = Pretty::for_stdout();
                text.extend(alerts.iter().map(|alert| pretty.show(alert)));
            } else if alerts.is_empty() {
                text += "no alerts\n";
            } else {
                text = list(&alerts);
            }
        }
    }
    // Colours only where they are wanted.
    let mut stdout = anstream::AutoStream::auto(std::io::stdout());
    print(&mut stdout, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn query(args: &AlertsArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("n", &args.n.to_string());
    query.extend_pairs(args.since.map(|since| ("since", since.to_string())));
    query.extend_pairs(args.rule.iter().map(|rule| ("rule", rule)));
    query.extend_pairs(args.incident.iter().map(|id| ("incident", id)));
    query.extend_pairs(args.agents.iter().map(|agent| ("agent", agent)));
    let severity = args.min_severity.iter();
    query.extend_pairs(severity.map(|severity| ("min_severity", severity)));
    query.finish()
}

/// One line an incident; ids last, because they are long.
fn list(alerts: &[Value]) -> String {
    let rows = alerts.iter().map(|event| {
        let alert = &event["alert"];
        let word = |member: &str| string(alert, member).to_owned();
        // To the second: what is between day and time zone.
        let time = string(alert, "/last_seen").get(..19).unwrap_or_default();
        vec![
            time.replace('T', " "),
            format!("{}/{}", word("/severity"), word("/confidence")),
            string(event, "/agent/name").to_owned(),
            integer(alert, "/count").unwrap_or_default().to_string(),
            word("/incident"),
            word("/summary"),
        ]
    });
    let head = [
        "LAST SEEN (UTC)",
        "SEVERITY",
        "AGENT",
        "SEEN",
        "INCIDENT",
        "SUMMARY",
    ];
    table(&head, rows)
}

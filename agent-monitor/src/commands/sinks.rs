//! `agent-monitor sinks`: how sinks are doing, and orders about their dead letters.

use std::io;
use std::process::ExitCode;

use anyhow::Result;

use super::table::{print, table};
use crate::api::client::Client;
use crate::api::status::{SinkStatus, Status};
use crate::cli::{Output, SinksArgs, SinksCommand, SinksListArgs, SinksOrderArgs};
use crate::sinks::Done;

/// Runs the command.
///
/// # Errors
/// When there is no daemon, there is no such sink, or its receiver is not there.
pub fn run(args: &SinksArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let text = runtime.block_on(async {
        match &args.command {
            SinksCommand::List(args) => show(args, list).await,
            SinksCommand::Status(args) => show(args, status).await,
            SinksCommand::Retry(args) => {
                let done = order(args, "retry").await?;
                let Done {
                    delivered, refused, ..
                } = done;
                Ok(format!(
                    "{delivered} dead letters delivered, {refused} refused again\n"
                ))
            }
            SinksCommand::DropDeadLetters(args) => {
                let done = order(args, "drop-dead-letters").await?;
                Ok(format!("{} dead letters deleted\n", done.dropped))
            }
        }
    })?;
    print(&mut io::stdout(), &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &SinksListArgs, pretty: fn(&[SinkStatus]) -> String) -> Result<String> {
    let client = Client::new(&args.socket.socket);
    let sinks = client.get_json::<Status>("/v1/status").await?.sinks;
    match args.output.format() {
        Output::Pretty if sinks.is_empty() => {
            Ok("there are no sinks: alerts stay in the store; see docs/sinks.md\n".to_owned())
        }
        Output::Pretty => Ok(pretty(&sinks)),
        Output::Json => {
            let mut text = String::new();
            for sink in &sinks {
                text += &serde_json::to_string(sink)?;
                text.push('\n');
            }
            Ok(text)
        }
    }
}

async fn order(args: &SinksOrderArgs, what: &str) -> Result<Done> {
    let client = Client::new(&args.socket.socket);
    let name = form_urlencoded::byte_serialize(args.name.as_bytes()).collect::<String>();
    // In a path a space is %20.
    let name = name.replace('+', "%20");
    Ok(client
        .post_json(&format!("/v1/sinks/{name}/{what}"))
        .await?)
}

fn list(sinks: &[SinkStatus]) -> String {
    let rows = sinks.iter().map(|sink| {
        let state = match (&sink.last_error, sink.dead_letters) {
            (Some(_), _) => "failing",
            (None, 0) => "well",
            (None, _) => "well, with dead letters",
        };
        vec![sink.name.clone(), sink.kind.clone(), state.to_owned()]
    });
    table(&["NAME", "KIND", "STATE"], rows)
}

fn status(sinks: &[SinkStatus]) -> String {
    let rows = sinks.iter().map(|sink| {
        vec![
            sink.name.clone(),
            sink.cursor.to_string(),
            sink.lag.to_string(),
            sink.retries.to_string(),
            sink.unconfirmed.to_string(),
            sink.dead_letters.to_string(),
            sink.last_error.clone().unwrap_or_else(|| "–".to_owned()),
        ]
    });
    let head = [
        "NAME",
        "DELIVERED UP TO",
        "BEHIND",
        "FAILED TRIES",
        "UNCONFIRMED",
        "DEAD LETTERS",
        "LAST ERROR",
    ];
    table(&head, rows)
}

//! `agent-monitor top`: what every agent does at the moment, on one screen.
//!
//! A client of the API like the others: [`look`] asks, [`rates`] compares two answers,
//! [`app`] is what is shown and what keys do to it, [`view`] draws it, [`session`] owns
//! the terminal. Where there is none, [`snapshot`] prints one look and ends.

mod app;
mod columns;
#[cfg(test)]
mod fixture;
mod look;
mod rates;
mod session;
mod snapshot;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::pretty::text;
use super::table::print;
use crate::api::client::Client;
use crate::api::query::AgentPattern;
use crate::cli::TopArgs;
use app::App;
use session::Asked;

/// Runs the command until the user ends it, or for one look if stdout is no terminal.
///
/// # Errors
/// When there is no daemon at the start, or the terminal is gone.
pub fn run(args: TopArgs) -> Result<ExitCode> {
    let patterns = args.agents.iter().map(|text| AgentPattern::parse(text));
    let patterns = patterns.collect::<Result<Vec<_>, _>>();
    let app = App::new(patterns.map_err(anyhow::Error::msg)?);
    let asked = Asked {
        client: Client::new(&args.socket.socket),
        agents: args.agents,
        interval: args.interval,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        if !std::io::stdout().is_terminal() {
            let text = snapshot::take(&asked, app).await?;
            return print(&mut std::io::stdout(), &text);
        }
        // Without a daemon it says so and ends, as other commands do; later it waits.
        look::sample(&asked.client).await?;
        session::run(asked, app).await
    })?;
    Ok(ExitCode::SUCCESS)
}

//! `rules reload`: has the daemon read its rules again.

use std::process::ExitCode;

use anyhow::Result;

use super::print;
use crate::api::client::Client;
use crate::cli::RulesReloadArgs;
use crate::rules::reload::Loaded;

/// Runs the command.
///
/// # Errors
/// There is no daemon, this is not root, or the rules cannot be used: then the
/// daemon goes on with those it has.
pub fn run(args: &RulesReloadArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = Client::new(&args.socket.socket);
    let answer: Loaded = runtime.block_on(client.post_json("/v1/rules/reload"))?;
    let mut text = format!("{} rules are enabled", answer.enabled);
    match answer.left_out {
        0 => {}
        some => text += &format!(", {some} in SigmaHQ's form were left out"),
    }
    print(&(text + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

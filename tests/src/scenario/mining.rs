//! Miners and pools.

use anyhow::{Result, ensure};

use super::{Outcome, explain};
use crate::agent::Agent;
use crate::paths;
use crate::process::Process;
use crate::services::address;
use crate::traffic::Exchanged;
use crate::world::OTHER_SERVER;

const SHARES: u32 = 4;
const PORT: u16 = 3333;

pub(super) fn bitcoin(agent: &Agent) -> Result<Outcome> {
    mine(agent, &["--dialect", "bitcoin"], pool(agent)?)
}

pub(super) fn monero(agent: &Agent) -> Result<Outcome> {
    mine(agent, &["--dialect", "monero"], pool(agent)?)
}

pub(super) fn monero_one_byte_writes(agent: &Agent) -> Result<Outcome> {
    mine(
        agent,
        &["--dialect", "monero", "--one-byte-writes"],
        pool(agent)?,
    )
}

pub(super) fn third_party(agent: &Agent) -> Result<Outcome> {
    let modules = paths::npm()?;
    let script = paths::scenarios().join("third_party_pool.js");
    let pool = agent.world().spawn(&[
        "env",
        &format!("NODE_PATH={}", modules.display()),
        "node",
        &script.display().to_string(),
        OTHER_SERVER,
        &PORT.to_string(),
    ])?;
    mine(agent, &["--dialect", "bitcoin"], pool)
}

fn pool(agent: &Agent) -> Result<Process> {
    let program = paths::bin()?.join("pool").display().to_string();
    let listen = format!("{OTHER_SERVER}:{PORT}");
    agent.world().spawn(&[&program, "--listen", &listen])
}

/// Runs a miner until `pool` has accepted its shares.
fn mine(agent: &Agent, options: &[&str], pool: Process) -> Result<Outcome> {
    explain(agent.world().net().wait_for_listener(PORT), &pool)?;
    let program = format!("{}/miner", paths::INSIDE_BIN);
    let address_of_pool = format!("pool.example:{PORT}");
    let shares = SHARES.to_string();
    let miner = [&program, "--pool", &address_of_pool, "--shares", &shares];
    let output = explain(agent.run(&[&miner, options].concat()), &pool)?;
    let accepted = pool.output().matches("share accepted").count();
    ensure!(
        accepted == SHARES as usize,
        "the pool accepted {accepted} shares: {output}"
    );
    Ok(Outcome {
        remote: address(OTHER_SERVER, PORT)?,
        service: None,
        // The length of the protocol's messages is not counted.
        exchanged: Exchanged {
            exchanges: SHARES,
            bytes: 0,
        },
    })
}

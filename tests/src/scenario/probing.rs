//! Many private hosts: whoever looks around, and whoever belongs there.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Outcome, done, explain};
use crate::agent::Agent;
use crate::services::{address, python};

const TIMEOUT: Duration = Duration::from_secs(20);
const PORT: u16 = 6379;

/// Half of the hosts refuse; nobody answers for the others.
pub(super) fn scan(agent: &Agent) -> Result<Outcome> {
    for number in 1..=12 {
        agent.world().add_address(&format!("10.50.0.{number}/32"))?;
    }
    let mut scan = agent.python("scan.py", &[])?;
    let exchanged = done(&scan.finish(TIMEOUT)?)?;
    ensure!(exchanged.exchanges == 24, "{exchanged:?}");
    Ok(Outcome {
        remote: address("10.50.0.1", 22)?,
        service: None,
        exchanged,
    })
}

/// As Ray and NCCL do: a connection to each peer.
pub(super) fn peers(agent: &Agent) -> Result<Outcome> {
    let hosts: Vec<_> = (1..=24).map(|number| format!("10.60.0.{number}")).collect();
    for host in &hosts {
        agent.world().add_address(&format!("{host}/32"))?;
    }
    let port = PORT.to_string();
    let server = python(agent.world(), "peers.py", &["serve", &port])?;
    explain(agent.world().net().wait_for_listener(PORT), &server)?;
    let mut arguments = vec!["join", &port];
    arguments.extend(hosts.iter().map(String::as_str));
    let mut member = agent.python("peers.py", &arguments)?;
    Ok(Outcome {
        remote: address(&hosts[0], PORT)?,
        service: None,
        exchanged: done(&member.finish(TIMEOUT)?)?,
    })
}

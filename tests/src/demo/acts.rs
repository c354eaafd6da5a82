//! What the agent does in the demo, in order.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::judge::Incident;

/// A part of the demo, with a heading of its own.
#[derive(Debug)]
pub struct Act {
    /// Its name in `tests/demo/expected.json`.
    pub id: &'static str,
    /// The heading.
    pub title: &'static str,
    /// What happens, in a line.
    pub about: &'static str,
    /// The scenarios that are run, by name.
    pub scenarios: &'static [&'static str],
}

/// The whole demo.
pub static ACTS: &[Act] = &[
    Act {
        id: "ordinary-work",
        title: "Ordinary work: must raise nothing",
        about: "curl downloads, Python asks a package registry, MCP tools are called by JSON-RPC",
        scenarios: &["ordinary_work", "mcp"],
    },
    Act {
        id: "reverse-ssh-tunnel",
        title: "A reverse SSH tunnel: must be found",
        about: "ssh -N -R to a server outside; then visitors come in through the tunnel",
        scenarios: &["ssh_reverse_tunnel_with_traffic"],
    },
    Act {
        id: "bitcoin-pool",
        title: "A Bitcoin mining pool: must be found",
        about: "a program speaks Stratum v1 with a pool outside, which accepts its shares",
        scenarios: &["stratum_bitcoin"],
    },
    Act {
        id: "monero-pool",
        title: "A Monero mining pool: must be found",
        about: "a program logs in to a pool outside as XMRig does",
        scenarios: &["stratum_monero"],
    },
];

/// The incidents of each act of [`ACTS`], from `tests/demo/expected.json`.
///
/// # Errors
/// When the file is not valid or does not name exactly the acts there are.
pub fn expected() -> Result<Vec<Vec<Incident>>> {
    let text = include_str!("../../demo/expected.json");
    let mut by_id: BTreeMap<String, Vec<Incident>> =
        serde_json::from_str(text).context("tests/demo/expected.json")?;
    let expected = ACTS.iter().map(|act| {
        by_id
            .remove(act.id)
            .with_context(|| format!("tests/demo/expected.json lacks the act {:?}", act.id))
    });
    let expected = expected.collect::<Result<_>>()?;
    ensure!(
        by_id.is_empty(),
        "tests/demo/expected.json names acts that there are not: {:?}",
        by_id.keys()
    );
    Ok(expected)
}

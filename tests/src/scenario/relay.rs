//! Tunnels that are nobody's tool.

use std::net::SocketAddr;

use anyhow::Result;

use super::ordinary::curl;
use super::{Outcome, explain};
use crate::agent::Agent;
use crate::services::{TRUST, address, inside_web, python, trust, web};
use crate::traffic::{SIZES, fetch};
use crate::world::OTHER_SERVER;

const SERVICE: u16 = 8000;
const ENTRANCE: u16 = 9100;
const HUB: u16 = 443;
const LOCAL: u16 = 8001;

pub(super) fn connection_per_stream(agent: &Agent) -> Result<Outcome> {
    reverse(agent, "relay.py", ["hub", "agent"])
}

pub(super) fn multiplexed(agent: &Agent) -> Result<Outcome> {
    reverse(agent, "mux.py", ["accept", "dial"])
}

/// Runs `script` as a hub outside and as a tunnel's end inside, with a visitor.
fn reverse(agent: &Agent, script: &str, [outside, inside]: [&str; 2]) -> Result<Outcome> {
    let world = agent.world();
    let [option, cert, key] = trust(agent)?;
    let entrance = SocketAddr::from(([127, 0, 0, 1], ENTRANCE));
    let hub = format!("{OTHER_SERVER}:{HUB}");
    let listen = entrance.to_string();
    let server = [outside, &hub, "--listen", &listen, &option, &cert, &key];
    let server = python(world, script, &server)?;
    explain(world.net().wait_for_listener(HUB), &server)?;
    let _service = inside_web(agent, SERVICE)?;
    let connect = format!("127.0.0.1:{SERVICE}");
    let hub = format!("hub.example:{HUB}");
    let client = agent.python(
        script,
        &[inside, &hub, "--connect", &connect, "--trust", TRUST],
    )?;
    // The hub opens the entrance when the agent has come.
    explain(world.net().wait_for_listener(ENTRANCE), &client)?;
    let exchanged = explain(world.net().run(|| fetch(entrance, &SIZES)), &client)?;
    Ok(Outcome {
        remote: address(OTHER_SERVER, HUB)?,
        service: Some(SocketAddr::from(([127, 0, 0, 1], SERVICE))),
        exchanged,
    })
}

pub(super) fn port_forward(agent: &Agent) -> Result<Outcome> {
    let world = agent.world();
    let [option, cert, key] = trust(agent)?;
    let _web = web(world, "127.0.0.1", 80)?;
    let cluster = format!("{OTHER_SERVER}:{HUB}");
    let server = [
        "accept",
        &cluster,
        "--connect",
        "127.0.0.1:80",
        &option,
        &cert,
        &key,
    ];
    let server = python(world, "mux.py", &server)?;
    explain(world.net().wait_for_listener(HUB), &server)?;
    let cluster = format!("hub.example:{HUB}");
    let listen = format!("127.0.0.1:{LOCAL}");
    let client = ["dial", &cluster, "--listen", &listen, "--trust", TRUST];
    let client = agent.python("mux.py", &client)?;
    explain(agent.netns().wait_for_listener(LOCAL), &client)?;
    let exchanged = curl(agent, &[], &format!("http://{listen}"), &SIZES)?;
    Ok(Outcome {
        remote: address(OTHER_SERVER, HUB)?,
        service: None,
        exchanged,
    })
}

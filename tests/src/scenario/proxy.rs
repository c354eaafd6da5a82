//! SOCKS proxies: one inside, which somebody outside uses, and one outside.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::ordinary::curl;
use super::{Outcome, explain};
use crate::agent::Agent;
use crate::services::{address, inside_web, web};
use crate::traffic::{Exchanged, SIZES};
use crate::world::{GATEWAY, OTHER_SERVER, SERVER};

const PROXY: u16 = 1080;
const SERVICE: u16 = 8000;
/// Who comes in again is the same visitor.
const VISITS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Somebody outside reaches what only the agent's loopback has.
pub(super) fn for_outside(agent: &Agent) -> Result<Outcome> {
    let _service = inside_web(agent, SERVICE)?;
    let port = PROXY.to_string();
    let proxy = agent.spawn(&["microsocks", "-i", agent.address(), "-p", &port])?;
    explain(agent.netns().wait_for_listener(PROXY), &proxy)?;
    let through = format!("socks5h://{}:{PROXY}", agent.address());
    let url = format!("http://127.0.0.1:{SERVICE}/bytes/{}", SIZES[1]);
    for _ in 0..VISITS {
        let argv = [
            "curl",
            "-sS",
            "--fail",
            "--proxy",
            &through,
            "-o",
            "/dev/null",
        ];
        let told = ["-w", "%{size_download}", &url];
        let visitor = agent.world().spawn(&[&argv[..], &told].concat());
        let size = visitor?.finish(TIMEOUT)?;
        ensure!(size.trim() == SIZES[1].to_string(), "{size}");
    }
    Ok(Outcome {
        remote: address(GATEWAY, 0)?,
        service: Some(SocketAddr::from(([127, 0, 0, 1], SERVICE))),
        exchanged: Exchanged {
            exchanges: VISITS,
            bytes: u64::from(VISITS) * SIZES[1] as u64,
        },
    })
}

/// The agent's curl goes through a proxy that is somebody else's.
pub(super) fn outside(agent: &Agent) -> Result<Outcome> {
    let _web = web(agent.world(), SERVER, 80)?;
    let port = PROXY.to_string();
    let proxy = (agent.world()).spawn(&["microsocks", "-i", OTHER_SERVER, "-p", &port])?;
    explain(agent.world().net().wait_for_listener(PROXY), &proxy)?;
    let through = format!("socks5://{OTHER_SERVER}:{PROXY}");
    Ok(Outcome {
        remote: address(OTHER_SERVER, PROXY)?,
        service: None,
        exchanged: curl(agent, &["--proxy", &through], "http://web.example", &SIZES)?,
    })
}

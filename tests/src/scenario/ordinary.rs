//! Work that agents do all day, much of it with the shape of something worse.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Outcome, done, explain};
use crate::agent::Agent;
use crate::services::{TRUST, address, inside_web, python, trust, web};
use crate::traffic::{Exchanged, SIZES};
use crate::world::SERVER;

const TIMEOUT: Duration = Duration::from_secs(10);
const API: u16 = 443;
const DEV: u16 = 3000;
const PROXY: u16 = 8888;
const REDIS: u16 = 6379;
const MIRROR: u16 = 3141;

pub(super) fn llm_harness(agent: &Agent) -> Result<Outcome> {
    harness(agent, &[])
}

pub(super) fn llm_harness_stateful(agent: &Agent) -> Result<Outcome> {
    harness(agent, &["--stateful"])
}

fn harness(agent: &Agent, options: &[&str]) -> Result<Outcome> {
    let _api = api(agent, "llm_api.py")?;
    let _dev = inside_web(agent, DEV)?;
    let dev = DEV.to_string();
    let arguments = ["--api", "api.example", "--trust", TRUST, "--dev-port", &dev];
    let mut harness = agent.python("llm_harness.py", &[&arguments, options].concat())?;
    Ok(Outcome {
        remote: address(SERVER, API)?,
        service: Some(SocketAddr::from(([127, 0, 0, 1], DEV))),
        exchanged: done(&harness.finish(TIMEOUT)?)?,
    })
}

/// Starts a server script with TLS at api.example.
fn api(agent: &Agent, script: &str) -> Result<crate::process::Process> {
    let [option, cert, key] = trust(agent)?;
    let port = API.to_string();
    let arguments = ["--address", SERVER, "--port", &port, &option, &cert, &key];
    let server = python(agent.world(), script, &arguments)?;
    explain(agent.world().net().wait_for_listener(API), &server)?;
    Ok(server)
}

/// Through tinyproxy: plain requests, and TLS by CONNECT.
pub(super) fn http_forward_proxy(agent: &Agent) -> Result<Outcome> {
    let _web = web(agent.world(), SERVER, 80)?;
    let _secure = api(agent, "web.py")?;
    let config =
        format!("Port {PROXY}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nConnectPort 443\n");
    std::fs::write(agent.shared().join("tinyproxy.conf"), config)?;
    let proxy = agent.spawn(&["tinyproxy", "-d", "-c", "/opt/rig/shared/tinyproxy.conf"])?;
    explain(agent.netns().wait_for_listener(PROXY), &proxy)?;
    let through = format!("http://127.0.0.1:{PROXY}");
    let plain = curl(agent, &["--proxy", &through], "http://web.example", &SIZES)?;
    let options = ["--proxy", &through, "--cacert", TRUST];
    let secure = curl(agent, &options, "https://web.example", &SIZES)?;
    Ok(Outcome {
        remote: address(SERVER, 80)?,
        service: Some(SocketAddr::from(([127, 0, 0, 1], PROXY))),
        exchanged: Exchanged {
            exchanges: plain.exchanges + secure.exchanges,
            bytes: plain.bytes + secure.bytes,
        },
    })
}

/// A worker with a real Redis, a connection to it per job.
pub(super) fn db_app(agent: &Agent) -> Result<Outcome> {
    let mut jobs = api(agent, "job_server.py")?;
    let (api, redis) = (API.to_string(), REDIS.to_string());
    let database = agent.spawn(&[
        "redis-server",
        "--bind",
        "127.0.0.1",
        "--port",
        &redis,
        "--save",
        "",
        "--dir",
        "/tmp",
    ])?;
    explain(agent.netns().wait_for_listener(REDIS), &database)?;
    let arguments = [
        "api.example",
        "--port",
        &api,
        "--trust",
        TRUST,
        "--redis-port",
        &redis,
    ];
    let worker = agent.python("db_app.py", &arguments)?;
    let output = explain(jobs.finish(TIMEOUT), &worker)?;
    Ok(Outcome {
        remote: address(SERVER, API)?,
        service: Some(SocketAddr::from(([127, 0, 0, 1], REDIS))),
        exchanged: done(&output)?,
    })
}

/// A mirror that has nothing yet, asked for everything twice: what it has to fetch, and
/// what it has.
pub(super) fn package_mirror(agent: &Agent) -> Result<Outcome> {
    let _upstream = api(agent, "web.py")?;
    let port = MIRROR.to_string();
    let arguments = [&port, "https://web.example", "--trust", TRUST];
    let mirror = agent.python("mirror.py", &arguments)?;
    explain(agent.netns().wait_for_listener(MIRROR), &mirror)?;
    let base = format!("http://127.0.0.1:{MIRROR}");
    let fetched = explain(curl(agent, &[], &base, &SIZES), &mirror)?;
    let kept = explain(curl(agent, &[], &base, &SIZES), &mirror)?;
    Ok(Outcome {
        remote: address(SERVER, API)?,
        service: Some(SocketAddr::from(([127, 0, 0, 1], MIRROR))),
        exchanged: Exchanged {
            exchanges: fetched.exchanges + kept.exchanges,
            bytes: fetched.bytes + kept.bytes,
        },
    })
}

pub(super) fn mcp(agent: &Agent) -> Result<Outcome> {
    let mut total = Exchanged::default();
    for (serve, call, port) in [
        ("serve-tcp", "call-tcp", 7000),
        ("serve-http", "call-http", 7001),
    ] {
        let number = port.to_string();
        let server = python(agent.world(), "mcp.py", &[serve, SERVER, &number])?;
        explain(agent.world().net().wait_for_listener(port), &server)?;
        let mut client = agent.python("mcp.py", &[call, "api.example", &number])?;
        let called = done(&client.finish(TIMEOUT)?)?;
        total.exchanges += called.exchanges;
        total.bytes += called.bytes;
    }
    Ok(Outcome {
        remote: address(SERVER, 7000)?,
        service: None,
        exchanged: total,
    })
}

pub(super) fn work(agent: &Agent) -> Result<Outcome> {
    let _web = web(agent.world(), SERVER, 80)?;
    let _secure = api(agent, "web.py")?;
    let plain = curl(agent, &[], "http://web.example", &SIZES)?;
    let secure = curl(agent, &["--cacert", TRUST], "https://web.example", &SIZES)?;
    let registry = "import json, urllib.request as r\n\
        for name in ('left-pad', 'requests', 'stratum'):\n    \
        found = json.load(r.urlopen('http://web.example/registry/' + name, timeout=5))\n    \
        assert found['name'] == name and len(found['versions']) == 40\n\
        print(len(r.urlopen('http://web.example/document', timeout=5).read()))";
    let output = agent.run(&["python3", "-c", registry])?;
    ensure!(
        output.trim().parse().is_ok_and(|size: u32| size > 200),
        "{output}"
    );
    agent.run(&[
        "sh",
        "-c",
        "cd /tmp && mkdir -p project && seq 100 > project/list && sort -r project/list | wc -l",
    ])?;
    Ok(Outcome {
        remote: address(SERVER, 80)?,
        service: None,
        exchanged: Exchanged {
            exchanges: plain.exchanges + secure.exchanges + 4,
            bytes: plain.bytes + secure.bytes,
        },
    })
}

/// Downloads `<base>/bytes/<size>` for all `sizes` with curl in the agent, over
/// one connection, and checks their sizes.
pub(super) fn curl(
    agent: &Agent,
    options: &[&str],
    base: &str,
    sizes: &[usize],
) -> Result<Exchanged> {
    let urls: Vec<_> = sizes
        .iter()
        .map(|size| format!("{base}/bytes/{size}"))
        .collect();
    let mut argv = vec![
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "8",
        "-w",
        "%{size_download}\n",
    ];
    argv.extend(options);
    for url in &urls {
        argv.extend(["-o", "/dev/null", url]);
    }
    let output = agent.run(&argv)?;
    let got: Vec<usize> = output
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    ensure!(
        got == sizes,
        "curl downloaded {got:?} instead of {sizes:?}: {output}"
    );
    Ok(Exchanged {
        exchanges: got.len().try_into()?,
        bytes: got.iter().sum::<usize>() as u64,
    })
}

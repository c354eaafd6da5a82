//! OpenSSH, dropbear and paramiko against a real sshd.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::ordinary::curl;
use super::{Outcome, explain};
use crate::agent::Agent;
use crate::process::{Process, tool};
use crate::services::{KEY, Sshd, address, inside_web, web};
use crate::traffic::{Exchanged, SIZES, fetch};
use crate::wait;
use crate::world::SERVER;

const TIMEOUT: Duration = Duration::from_secs(10);
/// The agent's service that a tunnel opens to the outside.
const SERVICE: u16 = 8000;
/// The port on the SSH server where visitors come in.
const ENTRANCE: u16 = 9001;
/// `-R` for the two.
const FORWARD: &str = "127.0.0.1:9001:127.0.0.1:8000";
/// A port inside the agent for `-L` and `-D`.
const LOCAL: u16 = 1080;
const LOGIN: &str = "root@git.example";

/// The options every ssh needs here: no question, no known hosts, our key.
const OPTIONS: [&str; 10] = [
    "-o",
    "BatchMode=yes",
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "LogLevel=ERROR",
    "-i",
    KEY,
];

pub(super) fn reverse(agent: &Agent) -> Result<Outcome> {
    let ssh = [&["ssh"][..], &OPTIONS, &["-N", "-R", FORWARD, LOGIN]].concat();
    tunnel(agent, 22, |_| agent.spawn(&ssh))
}

pub(super) fn reverse_by_config_file(agent: &Agent) -> Result<Outcome> {
    let config = format!(
        "Host backup\n HostName {SERVER}\n Port 443\n User root\n IdentityFile {KEY}\n \
         RemoteForward 127.0.0.1:{ENTRANCE} 127.0.0.1:{SERVICE}\n SessionType none\n \
         BatchMode yes\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n"
    );
    fs::write(agent.shared().join("updater.conf"), config)?;
    agent.run(&["cp", "/usr/bin/ssh", "/usr/local/bin/updater"])?;
    tunnel(agent, 443, |_| {
        agent.spawn(&["updater", "-F", "/opt/rig/shared/updater.conf", "backup"])
    })
}

pub(super) fn reverse_by_master(agent: &Agent) -> Result<Outcome> {
    let socket = ["-S", "/opt/rig/shared/master"];
    let master = [&["ssh"][..], &OPTIONS, &socket, &["-M", "-N", LOGIN]].concat();
    let forward = [
        &["ssh"][..],
        &socket,
        &["-O", "forward", "-R", FORWARD, LOGIN],
    ]
    .concat();
    tunnel(agent, 22, |_| {
        let master = agent.spawn(&master)?;
        // It makes its socket when it has logged in.
        let exists = || Ok(agent.shared().join("master").exists().then_some(()));
        explain(wait::until("the master's socket", TIMEOUT, exists), &master)?;
        agent.run(&forward)?;
        Ok(master)
    })
}

pub(super) fn autossh(agent: &Agent) -> Result<Outcome> {
    let autossh = ["autossh", "-M", "0"];
    let command = [&autossh[..], &OPTIONS, &["-N", "-R", FORWARD, LOGIN]].concat();
    tunnel(agent, 22, |_| agent.spawn(&command))
}

pub(super) fn dropbear_reverse(agent: &Agent) -> Result<Outcome> {
    tunnel(agent, 2222, |sshd| {
        let key = "/root/dropbear_key";
        let output = agent.run(&["dropbearkey", "-t", "ed25519", "-f", key])?;
        let public = output.lines().find(|line| line.starts_with("ssh-ed25519 "));
        sshd.authorize(public.unwrap_or_default())?;
        agent.spawn(&[
            "dbclient", "-y", "-y", "-N", "-i", key, "-p", "2222", "-R", FORWARD, LOGIN,
        ])
    })
}

pub(super) fn paramiko_reverse(agent: &Agent) -> Result<Outcome> {
    tunnel(agent, 22, |_| {
        let (remote, local) = (ENTRANCE.to_string(), SERVICE.to_string());
        let mut client = agent.python(
            "paramiko_reverse.py",
            &[
                SERVER,
                "--key",
                KEY,
                "--remote-port",
                &remote,
                "--local-port",
                &local,
            ],
        )?;
        client.wait_for_line("forwarding", TIMEOUT)?;
        Ok(client)
    })
}

/// Runs a reverse tunnel that `start` makes to `port`, with visitors.
fn tunnel(
    agent: &Agent,
    port: u16,
    start: impl FnOnce(&Sshd) -> Result<Process>,
) -> Result<Outcome> {
    let sshd = Sshd::start(agent)?;
    let _service = inside_web(agent, SERVICE)?;
    let client = start(&sshd)?;
    let exchanged = explain(visit(agent), &client)?;
    Ok(Outcome {
        remote: address(SERVER, port)?,
        service: Some(localhost(SERVICE)),
        exchanged,
    })
}

/// Comes in through the tunnel from the internet, twice.
fn visit(agent: &Agent) -> Result<Exchanged> {
    let net = agent.world().net();
    net.wait_for_listener(ENTRANCE)?;
    let first = net.run(|| fetch(localhost(ENTRANCE), &SIZES))?;
    let second = net.run(|| fetch(localhost(ENTRANCE), &SIZES[..2]))?;
    Ok(Exchanged {
        exchanges: first.exchanges + second.exchanges,
        bytes: first.bytes + second.bytes,
    })
}

pub(super) fn local_forward(agent: &Agent) -> Result<Outcome> {
    forward(agent, ["-L", "127.0.0.1:1080:127.0.0.1:80"], |agent| {
        curl(agent, &[], &format!("http://127.0.0.1:{LOCAL}"), &SIZES)
    })
}

pub(super) fn dynamic_forward(agent: &Agent) -> Result<Outcome> {
    forward(agent, ["-D", "127.0.0.1:1080"], |agent| {
        let proxy = ["--socks5-hostname", "127.0.0.1:1080"];
        curl(agent, &proxy, "http://127.0.0.1:80", &SIZES)
    })
}

/// Runs `ssh -N` with a port inside the agent that leads to a web server on the
/// SSH server's own loopback, and uses it.
fn forward(
    agent: &Agent,
    option: [&str; 2],
    work: impl FnOnce(&Agent) -> Result<Exchanged>,
) -> Result<Outcome> {
    let _sshd = Sshd::start(agent)?;
    let _web = web(agent.world(), "127.0.0.1", 80)?;
    let ssh = agent.spawn(&[&["ssh"][..], &OPTIONS, &["-N"], &option, &[LOGIN]].concat())?;
    explain(agent.netns().wait_for_listener(LOCAL), &ssh)?;
    let exchanged = explain(work(agent), &ssh)?;
    Ok(Outcome {
        remote: address(SERVER, 22)?,
        service: None,
        exchanged,
    })
}

/// Clones an empty repository, pushes a commit, clones again.
pub(super) fn git(agent: &Agent) -> Result<Outcome> {
    const SIZE: u64 = 30_000;
    let _sshd = Sshd::start(agent)?;
    let repository = agent
        .world()
        .dir()
        .join("repository.git")
        .display()
        .to_string();
    // Of an earlier run.
    let _ = fs::remove_dir_all(&repository);
    tool("git", &["init", "-q", "--bare", "-b", "main", &repository])?;
    let url = format!("ssh://{LOGIN}{repository}");
    let script = format!(
        "set -e; cd /tmp; rm -rf one two; git config --global user.name agent; \
         git config --global user.email agent@git.example; export GIT_SSH_COMMAND='ssh {}'; git clone -q {url} one; cd one; \
         git checkout -q -b main; head -c {SIZE} /dev/urandom > data; git add data; \
         git commit -q -m Data; \
         git push -q origin main; cd ..; git clone -q {url} two; cmp one/data two/data",
        OPTIONS.join(" ")
    );
    agent.run(&["sh", "-c", &script])?;
    let size = tool("git", &["-C", &repository, "cat-file", "-s", "main:data"])?;
    ensure!(size.trim() == SIZE.to_string(), "pushed {size:?} bytes");
    Ok(Outcome {
        remote: address(SERVER, 22)?,
        service: None,
        exchanged: Exchanged {
            exchanges: 3,
            bytes: 2 * SIZE,
        },
    })
}

fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

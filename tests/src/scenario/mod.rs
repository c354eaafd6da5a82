//! What agents can be made to do: each scenario brings its own servers, runs to
//! completion within seconds, checks that it did what its name says, and ends
//! everything it started.
//!
//! Servers use fixed ports of the world's addresses, so one world runs one
//! scenario at a time; it can run another, or the same again, after that.

mod mining;
mod ordinary;
mod probing;
mod proxy;
mod relay;
mod shell;
mod ssh;

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::process::Process;
use crate::traffic::Exchanged;

/// One thing an agent can do.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub about: &'static str,
    /// The rule of the default pack that must speak, or `None` for work that must
    /// raise no alert of severity medium or more.
    pub alert: Option<&'static str>,
    /// Runs it in an agent that does nothing else.
    pub run: fn(&Agent) -> Result<Outcome>,
}

/// What a scenario did.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The server outside that the agent talked to.
    pub remote: SocketAddr,
    /// The service inside the agent that was used by a relay or an application.
    pub service: Option<SocketAddr>,
    /// What was carried from end to end.
    pub exchanged: Exchanged,
}

/// Every scenario.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ssh_reverse_tunnel_with_traffic",
        about: "ssh -N -R, and visitors who come in through it",
        alert: Some("reverse-ssh-tunnel"),
        run: ssh::reverse,
    },
    Scenario {
        name: "ssh_reverse_by_config_file",
        about: "a renamed ssh, port 443, RemoteForward in a configuration file",
        alert: Some("reverse-ssh-tunnel"),
        run: ssh::reverse_by_config_file,
    },
    Scenario {
        name: "ssh_reverse_by_master",
        about: "an ssh master without any forward, which a second ssh asks for one",
        alert: Some("reverse-ssh-tunnel"),
        run: ssh::reverse_by_master,
    },
    Scenario {
        name: "autossh",
        about: "autossh keeps an ssh -R alive",
        alert: Some("reverse-ssh-tunnel"),
        run: ssh::autossh,
    },
    Scenario {
        name: "dropbear_reverse",
        about: "dropbear's dbclient -R",
        alert: Some("reverse-ssh-tunnel"),
        run: ssh::dropbear_reverse,
    },
    Scenario {
        name: "paramiko_reverse",
        about: "a reverse tunnel by the Python library paramiko",
        alert: Some("reverse-ssh-tunnel"),
        run: ssh::paramiko_reverse,
    },
    Scenario {
        name: "ssh_local_forward",
        about: "ssh -L: the agent reaches a web server behind the SSH server",
        alert: None,
        run: ssh::local_forward,
    },
    Scenario {
        name: "ssh_dynamic_forward",
        about: "ssh -D: the agent's curl uses it as a SOCKS proxy",
        alert: None,
        run: ssh::dynamic_forward,
    },
    Scenario {
        name: "ssh_remote_command",
        about: "git clone and push over ssh",
        alert: None,
        run: ssh::git,
    },
    Scenario {
        name: "tls_relay",
        about: "a reverse tunnel over TLS, a connection per stream",
        alert: Some("reverse-tunnel-relay"),
        run: relay::connection_per_stream,
    },
    Scenario {
        name: "tls_relay_multiplexed",
        about: "a reverse tunnel over TLS, all streams in one connection",
        alert: Some("reverse-tunnel-relay"),
        run: relay::multiplexed,
    },
    Scenario {
        name: "port_forward",
        about: "like kubectl port-forward: a local port leads out over TLS",
        alert: None,
        run: relay::port_forward,
    },
    Scenario {
        name: "stratum_bitcoin",
        about: "a miner logs in to a Stratum v1 pool and has shares accepted",
        alert: Some("mining-pool-protocol"),
        run: mining::bitcoin,
    },
    Scenario {
        name: "stratum_monero",
        about: "a miner logs in to a Monero pool as XMRig does",
        alert: Some("mining-pool-protocol"),
        run: mining::monero,
    },
    Scenario {
        name: "monero_one_byte_writes",
        about: "the same, each byte in a write of its own",
        alert: Some("mining-pool-protocol"),
        run: mining::monero_one_byte_writes,
    },
    Scenario {
        name: "stratum_third_party",
        about: "the pool is made with npm's stratum package",
        alert: Some("mining-pool-protocol"),
        run: mining::third_party,
    },
    Scenario {
        name: "reverse_shell_bash",
        about: "bash -i with /dev/tcp for its input and output",
        alert: Some("reverse-shell"),
        run: shell::bash_dev_tcp,
    },
    Scenario {
        name: "reverse_shell_python",
        about: "Python connects, makes the socket its own input and output, and starts sh -i",
        alert: Some("reverse-shell"),
        run: shell::python_dup2,
    },
    Scenario {
        name: "reverse_shell_python_pty",
        about: "the same with pty.spawn: the shell has a terminal",
        alert: Some("reverse-shell"),
        run: shell::python_pty,
    },
    Scenario {
        name: "reverse_shell_perl",
        about: "Perl connects and becomes sh -i",
        alert: Some("reverse-shell"),
        run: shell::perl,
    },
    Scenario {
        name: "reverse_shell_socat",
        about: "socat starts sh on a socket pair",
        alert: Some("reverse-shell"),
        run: shell::socat,
    },
    Scenario {
        name: "reverse_shell_socat_pty",
        about: "socat starts bash -i at a terminal",
        alert: Some("reverse-shell"),
        run: shell::socat_pty,
    },
    Scenario {
        name: "reverse_shell_nc",
        about: "Debian's netcat-traditional becomes sh",
        alert: Some("reverse-shell"),
        run: shell::nc,
    },
    Scenario {
        name: "reverse_shell_busybox",
        about: "BusyBox's nc becomes sh",
        alert: Some("reverse-shell"),
        run: shell::busybox,
    },
    Scenario {
        name: "reverse_shell_ncat",
        about: "ncat starts sh between two pipes: neither a socket nor a prompt",
        alert: Some("reverse-shell"),
        run: shell::ncat,
    },
    Scenario {
        name: "reverse_shell_pipes",
        about: "sh -i between two pipes, which another program connects",
        alert: Some("reverse-shell"),
        run: shell::pipes,
    },
    Scenario {
        name: "socks_proxy_for_outside",
        about: "a SOCKS proxy inside the agent, through which somebody outside comes in",
        alert: Some("tunnel-tool"),
        run: proxy::for_outside,
    },
    Scenario {
        name: "socks_proxy_outside",
        about: "curl goes out through a SOCKS proxy outside",
        alert: None,
        run: proxy::outside,
    },
    Scenario {
        name: "internal_scan",
        about: "tries a port of many private hosts, which refuse or are not there",
        alert: Some("internal-network-probe"),
        run: probing::scan,
    },
    Scenario {
        name: "peer_fan_out",
        about: "joins a cluster: a connection to each of many private hosts",
        alert: None,
        run: probing::peers,
    },
    Scenario {
        name: "llm_harness",
        about: "asks a model over TLS, calls a local server, sends the conversation back",
        alert: None,
        run: ordinary::llm_harness,
    },
    Scenario {
        name: "llm_harness_stateful",
        about: "the same with an API that is sent only what is new",
        alert: None,
        run: ordinary::llm_harness_stateful,
    },
    Scenario {
        name: "http_forward_proxy",
        about: "curl goes out through a tinyproxy inside the agent",
        alert: None,
        run: ordinary::http_forward_proxy,
    },
    Scenario {
        name: "db_app",
        about: "a worker gets jobs from outside and asks its Redis",
        alert: None,
        run: ordinary::db_app,
    },
    Scenario {
        name: "package_mirror",
        about: "packages from a mirror inside the agent, which fetches them from outside",
        alert: None,
        run: ordinary::package_mirror,
    },
    Scenario {
        name: "mcp",
        about: "an MCP client calls tools over TCP and over HTTP",
        alert: None,
        run: ordinary::mcp,
    },
    Scenario {
        name: "ordinary_work",
        about: "downloads, a package registry, a document on mining protocols, a script",
        alert: None,
        run: ordinary::work,
    },
];

/// Finds a scenario by its name.
///
/// # Errors
/// When there is none, with the names there are.
pub fn find(name: &str) -> Result<&'static Scenario> {
    let names = || SCENARIOS.iter().map(|it| it.name).collect::<Vec<_>>();
    SCENARIOS
        .iter()
        .find(|it| it.name == name)
        .with_context(|| format!("no scenario {name:?}; there are: {}", names().join(", ")))
}

/// Reads the `<count> calls, <n> bytes` of a script's last line `done: …`.
fn done(output: &str) -> Result<Exchanged> {
    let read = || {
        let line = output
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("done: "))?;
        let mut numbers = line.split(' ').filter_map(|word| word.parse::<u64>().ok());
        let exchanges = numbers.next()?.try_into().ok()?;
        let bytes = numbers.next()?;
        Some(Exchanged { exchanges, bytes })
    };
    read().with_context(|| format!("no result in:\n{output}"))
}

/// Adds what a process has said to the error of something that needed it.
fn explain<T>(result: Result<T>, process: &Process) -> Result<T> {
    result.with_context(|| format!("the process said:\n{}", process.output()))
}

//! Real servers on the internet side, and services inside an agent.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::paths;
use crate::process::{Process, tool};
use crate::world::{NAMES, SERVER, World};

/// Where an agent finds the certificate to trust: see [`trust`].
pub const TRUST: &str = "/opt/rig/shared/ca.pem";
/// Where an agent finds its SSH key: see [`Sshd::start`].
pub const KEY: &str = "/opt/rig/shared/id_ed25519";
/// Where Debian puts sshd, which insists on being called by its path.
const SSHD: &str = "/usr/sbin/sshd";

/// `ip:port` as an address.
///
/// # Errors
/// When `ip` is not an IP address.
pub fn address(ip: &str, port: u16) -> Result<SocketAddr> {
    let ip: IpAddr = ip
        .parse()
        .with_context(|| format!("{ip:?} is no address"))?;
    Ok(SocketAddr::new(ip, port))
}

/// Starts a script of `tests/scenarios` with the host's Python on the internet.
///
/// # Errors
/// When it cannot be started.
pub fn python(world: &World, script: &str, args: &[&str]) -> Result<Process> {
    let path = paths::scenarios().join(script).display().to_string();
    // -B: nothing is written next to the scripts.
    world.spawn(&[&[host_python(), "-B", "-u", &path], args].concat())
}

/// Debian's own rather than the first of PATH, which may be a slow wrapper.
fn host_python() -> &'static str {
    let own = "/usr/bin/python3";
    if Path::new(own).exists() {
        own
    } else {
        "python3"
    }
}

/// The world's certificate and key for all of [`NAMES`], made when first wanted.
///
/// # Errors
/// When `openssl` fails.
pub fn certificate(world: &World) -> Result<(PathBuf, PathBuf)> {
    let (cert, key) = (world.dir().join("cert.pem"), world.dir().join("key.pem"));
    if !cert.exists() {
        let names: Vec<_> = NAMES
            .iter()
            .map(|(name, _)| format!("DNS:{name}"))
            .collect();
        tool(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=example",
                "-addext",
                &format!("subjectAltName={}", names.join(",")),
                "-keyout",
                &key.display().to_string(),
                "-out",
                &cert.display().to_string(),
            ],
        )?;
    }
    Ok((cert, key))
}

/// Gives `agent` the world's certificate to trust, at [`TRUST`], and returns the
/// `--certificate` arguments for a server.
///
/// # Errors
/// When there is no certificate.
pub fn trust(agent: &Agent) -> Result<[String; 3]> {
    let (cert, key) = certificate(agent.world())?;
    let trusted = agent.shared().join("ca.pem");
    // It is the same all the time, and somebody may be reading it.
    if !trusted.exists() {
        fs::copy(&cert, trusted)?;
    }
    Ok([
        "--certificate".to_owned(),
        cert.display().to_string(),
        key.display().to_string(),
    ])
}

/// A web server on the internet, at [`SERVER`] or another of the world's addresses.
///
/// # Errors
/// When it does not come up.
pub fn web(world: &World, ip: &str, port: u16) -> Result<Process> {
    let number = port.to_string();
    let server = python(world, "web.py", &["--address", ip, "--port", &number])?;
    world.net().wait_for_listener(port)?;
    Ok(server)
}

/// A web service inside the agent, on 127.0.0.1.
///
/// # Errors
/// When it does not come up.
pub fn inside_web(agent: &Agent, port: u16) -> Result<Process> {
    let server = agent.python("web.py", &["--port", &port.to_string()])?;
    agent.netns().wait_for_listener(port)?;
    Ok(server)
}

/// A real sshd at [`SERVER`], ports 22, 443 and 2222, that lets root in with the
/// agent's throw-away key.
#[derive(Debug)]
pub struct Sshd {
    /// The server.
    pub process: Process,
    authorized: PathBuf,
}

impl Sshd {
    /// Makes keys, unless an earlier one did, and starts it. The agent's key is at [`KEY`].
    ///
    /// # Errors
    /// When keys cannot be made or it does not come up.
    pub fn start(agent: &Agent) -> Result<Self> {
        let world = agent.world();
        let host_key = world.dir().join("ssh_host_ed25519");
        let authorized = world.dir().join("authorized_keys");
        let user_key = agent.shared().join("id_ed25519");
        for key in [&host_key, &user_key] {
            if key.exists() {
                continue;
            }
            let file = key.display().to_string();
            tool(
                "ssh-keygen",
                &["-q", "-t", "ed25519", "-N", "", "-f", &file],
            )?;
        }
        fs::copy(user_key.with_extension("pub"), &authorized)?;
        let config = world.dir().join("sshd_config");
        fs::write(
            &config,
            format!(
                "ListenAddress {SERVER}:22\nListenAddress {SERVER}:443\nListenAddress {SERVER}:2222\n\
                 HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
                 PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 UsePAM no\nUseDNS no\nAllowTcpForwarding yes\nAllowStreamLocalForwarding yes\n\
                 GatewayPorts clientspecified\n",
                host_key.display(),
                authorized.display(),
            ),
        )?;
        // Its directory for the unprivileged part, made by a service at boot.
        fs::create_dir_all("/run/sshd")?;
        // Sessions get an empty home, not the host's with what its shell's start-up
        // files may do.
        let home = world.dir().join("home");
        fs::create_dir_all(&home)?;
        let script = format!(
            "mount --bind '{}' /root && exec {SSHD} -D -e -f '{}'",
            home.display(),
            config.display()
        );
        let process = world.spawn(&[
            "unshare",
            "--mount",
            "--propagation=private",
            "sh",
            "-c",
            &script,
        ])?;
        for port in [22, 443, 2222] {
            world.net().wait_for_listener(port)?;
        }
        Ok(Self {
            process,
            authorized,
        })
    }

    /// Lets one more public key in: a line as in `id_ed25519.pub`.
    ///
    /// # Errors
    /// When the file of keys cannot be written.
    pub fn authorize(&self, public_key: &str) -> Result<()> {
        let keys = fs::read_to_string(&self.authorized)?;
        fs::write(&self.authorized, format!("{keys}{}\n", public_key.trim()))?;
        Ok(())
    }
}

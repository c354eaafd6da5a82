//! The servers that the works talk to, beside those that scenarios bring, and the
//! sessions that stay open.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::Report;
use crate::agent::Agent;
use crate::paths;
use crate::process::{Process, tool};
use crate::services::{TRUST, certificate, python, trust, web};
use crate::world::{GATEWAY, OTHER_SERVER};

/// What the agent's owner has allowed: curl may ask the metadata service. The path is
/// the host's, of an agent whose root is a folder.
pub(super) const POLICY: &str = "vars:\n  metadata_clients: ['*/usr/bin/curl']\n";
/// The name of the host that they are on.
pub(super) const HOST: &str = "hub.example";
/// A folder over HTTPS.
pub(super) const FILES: u16 = 8443;
/// Where sessions go.
pub(super) const SESSION: u16 = 9443;
/// JSON-RPC over HTTP.
pub(super) const RPC: u16 = 8545;
/// JSON-RPC in lines.
pub(super) const ELECTRUM: u16 = 50001;
/// Redis.
pub(super) const REDIS: u16 = 6380;
/// PostgreSQL.
pub(super) const SQL: u16 = 5432;
/// HTTP.
pub(super) const WEB: u16 = 8080;
/// Where clouds hand out credentials.
pub(super) const METADATA: &str = "169.254.169.254";
/// An address in the agent's private network at which nobody is.
pub(super) const NOBODY: &str = "fd00:db8::dead";

/// Sessions that stay open all the time: their kind, and the pace in seconds.
pub(super) const SESSIONS: [(&str, u32); 6] = [
    ("chat", 8),
    ("irc", 10),
    ("events", 5),
    ("mqtt", 15),
    ("stream", 30),
    ("scrape", 15),
];

/// Everything that runs all the time.
pub(super) struct Services {
    _servers: Vec<Process>,
    sessions: Vec<(&'static str, Process)>,
}

impl Services {
    /// Starts them; sessions end by themselves after `time`.
    pub(super) fn start(agent: &Agent, time: Duration) -> Result<Self> {
        let world = agent.world();
        let [_, cert, key] = trust(agent)?;
        let folder = folder(agent).context("make the folder that is served")?;
        for script in ["json_rpc_client.py", "electrum_client.py"] {
            fs::copy(corpus(script), agent.shared().join(script))?;
        }
        world.add_address(&format!("{METADATA}/32"))?;
        world
            .net()
            .ip(&["-6", "addr", "add", "fd00:db8::1/64", "dev", "br0", "nodad"])?;
        agent.netns().ip(&[
            "-6",
            "addr",
            "add",
            "fd00:db8::10/64",
            "dev",
            "eth0",
            "nodad",
        ])?;
        let rootfs = paths::rootfs()?.display().to_string();
        let scripts = |script: &str, port: u16| {
            let path = corpus(script).display().to_string();
            world.spawn(&["python3", "-B", &path, OTHER_SERVER, &port.to_string()])
        };
        let at = |script: &str, role: &str, port: u16, more: &[&str]| {
            let port = port.to_string();
            python(
                world,
                script,
                &[&[role, OTHER_SERVER, &port], more].concat(),
            )
        };
        let files = [OTHER_SERVER, &FILES.to_string(), &folder, &cert, &key];
        let servers = vec![
            python(world, "files.py", &files)?,
            at(
                "sessions.py",
                "serve",
                SESSION,
                &["--certificate", &cert, &key],
            )?,
            at("sql.py", "serve", SQL, &[])?,
            scripts("json_rpc_server.py", RPC)?,
            scripts("electrum_server.py", ELECTRUM)?,
            // The agents' own Redis, so that the machine needs none.
            world.spawn(&[
                "chroot",
                &rootfs,
                "redis-server",
                "--bind",
                OTHER_SERVER,
                "--port",
                &REDIS.to_string(),
                "--save",
                "",
                "--protected-mode",
                "no",
            ])?,
            python(world, "name_server.py", &[GATEWAY, "53", OTHER_SERVER])?,
            web(world, OTHER_SERVER, WEB)?,
            web(world, METADATA, 8081)?,
        ];
        for port in [FILES, SESSION, SQL, RPC, ELECTRUM, REDIS, 53] {
            world.net().wait_for_listener(port)?;
        }
        let seconds = time.as_secs().to_string();
        let port = SESSION.to_string();
        let sessions = SESSIONS.iter().map(|(kind, every)| {
            let every = every.to_string();
            let options = ["--trust", TRUST, "--for", &seconds, "--every", &every];
            let session = agent.python(
                "sessions.py",
                &[&[kind, HOST, &port], &options[..]].concat(),
            )?;
            Ok((*kind, session))
        });
        Ok(Self {
            sessions: sessions.collect::<Result<_>>()?,
            _servers: servers,
        })
    }

    /// Waits for the sessions' ends, and says what became of them.
    pub(super) fn finish(self, report: &mut Report) -> Result<()> {
        for (kind, mut session) in self.sessions {
            let result = session.finish(Duration::from_secs(30)).map(drop);
            report.done(&format!("session: {kind}"), result);
        }
        Ok(())
    }
}

fn corpus(script: &str) -> std::path::PathBuf {
    paths::scenarios().with_file_name("corpus").join(script)
}

/// A repository, a Python package with its index, an npm package, a Debian package.
fn folder(agent: &Agent) -> Result<String> {
    let folder = agent.world().dir().join("files");
    fs::create_dir_all(&folder)?;
    certificate(agent.world())?;
    let script = r#"
set -e
cd "$1"
git init -q -b main work
cd work
seq 20000 > data
git add data
git -c user.name=x -c user.email=x@example.net commit -q -m Data
cd ..
git clone -q --bare work repository.git
git -C repository.git update-server-info
mkdir -p simple/harmless apt deb/DEBIAN deb/opt
seq 30000 > simple/harmless/harmless-1.tar
echo '<a href="harmless-1.tar">harmless-1.tar</a>' > simple/harmless/index.html
mkdir package
echo '{"name": "harmless", "version": "1.0.0"}' > package/package.json
seq 10000 > package/index.js
tar czf harmless-1.0.0.tgz package
printf 'Package: harmless\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.net>\nDescription: nothing\n' > deb/DEBIAN/control
seq 50000 > deb/opt/harmless
dpkg-deb -b deb apt/harmless_1_all.deb > /dev/null
cd apt
cat ../deb/DEBIAN/control > Packages
printf 'Filename: ./harmless_1_all.deb\nSize: %s\nSHA256: %s\n' \
    "$(stat -c %s harmless_1_all.deb)" "$(sha256sum < harmless_1_all.deb | cut -d' ' -f1)" >> Packages
"#;
    let path = folder.display().to_string();
    tool("sh", &["-c", script, "sh", &path])?;
    Ok(path)
}

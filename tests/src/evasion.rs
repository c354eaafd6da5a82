//! What evasions have in common: the pool they log in to, and what must be seen.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::monitor::SOON;
use crate::netns::Netns;
use crate::paths;
use crate::watched::{Watched, address};

/// What a miner says first: Monero's login, in a form of its own.
pub const LOGIN: &str = concat!(
    r#"{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"#,
    r#""44AFFq5kSiGBoZ4NMDwYtN18obc8AemS33DBLWs3H7otXft3XjrpDtQGv7SqSsaBYBb98uNbr2VBBEt7f2wfn3RVGQBEP3A","#,
    r#""pass":"x","agent":"evade/1.0"}}"#,
    "\n"
);
/// What the pool answers: a job.
pub const JOB: &str = concat!(
    r#"{"id":1,"jsonrpc":"2.0","error":null,"result":{"id":"1","job":{"blob":"#,
    r#""0e0ed286da8006ecdc1aab3033cf1716c52f13f9d8ae0051615a2453643de94643b550d543becd0000000002abc78b0101ffff","#,
    r#""job_id":"7","target":"b88d0600","algo":"rx/0"},"status":"OK"}}"#,
    "\n"
);
/// Where the pool is, on the world's [`crate::world::SERVER`].
pub const POOL: &str = "198.51.100.1:3333";

/// A pool that answers one login after the other.
#[derive(Debug)]
pub struct Pool {
    logins: JoinHandle<Result<()>>,
}

impl Pool {
    /// Listens at `at` in `net` for `logins` logins.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn open(net: &Netns, at: &str, logins: usize) -> Result<Self> {
        let listener = net.run(|| {
            let listener = TcpListener::bind(at).with_context(|| format!("listen at {at}"))?;
            accept_data_with_the_syn(&listener)?;
            Ok(listener)
        })?;
        Ok(Self::serve(listener, logins))
    }

    /// As [`Pool::open`], for clients that speak Multipath TCP.
    ///
    /// # Errors
    /// When the kernel has none of it, or it cannot listen.
    pub fn open_multipath(net: &Netns, at: &str, logins: usize) -> Result<Self> {
        use rustix::net::{AddressFamily, SocketType, bind, ipproto, listen, socket};
        let address: std::net::SocketAddrV4 = at.parse()?;
        let listener = net.run(|| {
            let kind = SocketType::STREAM;
            let listener = socket(AddressFamily::INET, kind, Some(ipproto::MPTCP))?;
            bind(&listener, &address)?;
            listen(&listener, 16)?;
            Ok(TcpListener::from(listener))
        })?;
        Ok(Self::serve(listener, logins))
    }

    fn serve(listener: TcpListener, logins: usize) -> Self {
        let serve = move || {
            for _ in 0..logins {
                let (mut stream, _) = listener.accept()?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                let mut login = String::new();
                let mut lines = BufReader::new(stream.try_clone()?);
                lines.read_line(&mut login)?;
                ensure!(login == LOGIN, "the pool was told {login:?}");
                stream.write_all(JOB.as_bytes())?;
                // Until the miner closes; it may reset.
                let _ = lines.read_line(&mut login);
            }
            Ok(())
        };
        Self {
            logins: std::thread::spawn(serve),
        }
    }

    /// Waits until every login has come.
    ///
    /// # Errors
    /// One was something else.
    pub fn served(self) -> Result<()> {
        match self.logins.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("the pool panicked"),
        }
    }
}

/// RFC 7413; without it a client's data waits for the handshake.
fn accept_data_with_the_syn(listener: &TcpListener) -> Result<()> {
    use std::os::fd::AsRawFd;
    let queue: libc::c_int = 16;
    // SAFETY: `queue` is read as the option's value, of the length given.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            (&raw const queue).cast(),
            size_of_val(&queue) as u32,
        )
    };
    ensure!(result == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}

/// A watched agent and a pool in its internet.
#[derive(Debug)]
pub struct Stage {
    /// The agent.
    pub watched: Watched,
    pool: Option<Pool>,
}

/// What was seen of a login.
#[derive(Debug)]
pub struct Seen {
    /// The `connect` event.
    pub connect: Value,
    /// The end of the flow.
    pub flow: Value,
    /// The alert.
    pub alert: Value,
}

impl Stage {
    /// `name` is for messages; the pool expects so many `logins`.
    ///
    /// # Errors
    /// When there is no root, or agent-monitor does not start.
    pub fn new(name: &str, logins: usize) -> Result<Self> {
        let watched = Watched::cgroup(name)?;
        let pool = Pool::open(watched.world.net(), POOL, logins)?;
        Ok(Self {
            watched,
            pool: Some(pool),
        })
    }

    /// As [`Stage::new`], with a pool of the caller's.
    pub fn with(watched: Watched, pool: Pool) -> Self {
        let pool = Some(pool);
        Self { watched, pool }
    }

    /// Runs `evade MECHANISM POOL ARGUMENTS…` in the agent to its end.
    ///
    /// # Errors
    /// When it fails.
    pub fn evade(&self, mechanism: &str, arguments: &[&str]) -> Result<String> {
        let program = format!("{}/evade", paths::INSIDE_BIN);
        let command = [&[&program, mechanism, POOL], arguments].concat();
        self.watched.agent.run(&command)
    }

    /// Waits for what must be seen of a login: the attempt, the flow with its
    /// exact bytes, and the alert with both sides' words.
    ///
    /// # Errors
    /// When one of them does not come.
    pub fn login_is_seen(&mut self) -> Result<Seen> {
        let seen = self.login_is_seen_again()?;
        ensure!(
            seen.alert["alert"]["coverage"] == "complete",
            "nothing should be missing: {}",
            seen.alert
        );
        Ok(seen)
    }

    /// As [`Stage::login_is_seen`], after something that was not seen.
    ///
    /// # Errors
    /// When something of it does not come.
    pub fn login_is_seen_again(&mut self) -> Result<Seen> {
        if let Some(pool) = self.pool.take() {
            pool.served()?;
        }
        let to_pool = |event: &Value, kind: &str| address(&event[kind]["remote"]) == POOL;
        let monitor = self.watched.monitor();
        let flow = monitor.wait_for("the end of the flow to the pool", SOON, |it| {
            it["flow"]["state"] == "closed" && to_pool(it, "flow")
        })?;
        ensure!(
            flow["flow"]["bytes_out"] == LOGIN.len() && flow["flow"]["bytes_in"] == JOB.len(),
            "{} and {} bytes were said: {flow}",
            LOGIN.len(),
            JOB.len()
        );
        let connect = monitor.wait_for("the attempt", SOON, |it| {
            it["kind"] == "connect" && to_pool(it, "connect")
        })?;
        let alert = monitor.wait_for("the alert", SOON, |it| {
            it["alert"]["rule"] == "mining-pool-protocol" && it["alert"]["severity"] == "critical"
        })?;
        let group = self.watched.agent.group().path();
        for event in [&flow, &connect, &alert] {
            ensure!(event["agent"]["cgroup"] == group, "of whom is {event}?");
        }
        Ok(Seen {
            connect,
            flow,
            alert,
        })
    }
}

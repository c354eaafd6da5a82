//! A miner's conversation with a pool, without the mining: logs in, takes work,
//! submits shares. The nonces are made up.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

/// Exits 0 when the pool has accepted all shares.
#[derive(Parser)]
#[command(about = "A miner's conversation with a pool, for tests")]
struct Options {
    /// `host:port` of the pool.
    #[arg(long)]
    pool: String,
    /// Which protocol to speak.
    #[arg(long, value_enum, default_value_t = Dialect::Bitcoin)]
    dialect: Dialect,
    /// Shares to submit, one per piece of work.
    #[arg(long, default_value_t = 4)]
    shares: u32,
    /// Milliseconds of "work" per share, spent computing.
    #[arg(long, default_value_t = 50)]
    work: u64,
    /// Send every byte in a write of its own.
    #[arg(long)]
    one_byte_writes: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dialect {
    /// Stratum v1.
    Bitcoin,
    /// XMRig's `login` and `submit`.
    Monero,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let stream = TcpStream::connect(&options.pool)
        .with_context(|| format!("connect to the pool {}", options.pool))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut session = Session {
        answers: BufReader::new(stream.try_clone()?),
        stream,
        one_byte_writes: options.one_byte_writes,
        job: None,
        next_id: 1,
    };
    session.log_in(options.dialect)?;
    for share in 0..options.shares {
        let job = session.take_job()?;
        let nonce = work(share, Duration::from_millis(options.work));
        session.submit(options.dialect, &job, nonce)?;
        println!("share {} of {} accepted", share + 1, options.shares);
    }
    Ok(())
}

/// A connection to a pool.
struct Session {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
    one_byte_writes: bool,
    /// The newest work, until it is taken.
    job: Option<String>,
    next_id: u32,
}

impl Session {
    fn log_in(&mut self, dialect: Dialect) -> Result<()> {
        match dialect {
            Dialect::Bitcoin => {
                self.call(|id| json!({"id": id, "method": "mining.subscribe", "params": ["cgminer/4.12.1"]}))?;
                self.call(|id| json!({"id": id, "method": "mining.authorize", "params": ["team.worker1", "x"]}))
            }
            Dialect::Monero => {
                // The shape of a Monero address: 95 characters that begin with 4.
                let login = format!("4{}", "8Ab".repeat(32));
                self.call(|id| json!({"id": id, "jsonrpc": "2.0", "method": "login", "params": {
                    "login": &login[..95], "pass": "x", "agent": "XMRig/6.21.0 (Linux x86_64) libuv/1.44.2",
                    "algo": ["rx/0", "cn/r"]}}))
            }
        }
    }

    fn submit(&mut self, dialect: Dialect, job: &str, nonce: u32) -> Result<()> {
        self.call(|id| match dialect {
            Dialect::Bitcoin => json!({"id": id, "method": "mining.submit",
                "params": ["team.worker1", job, "00000001", "504e86ed", format!("{nonce:08x}")]}),
            Dialect::Monero => json!({"id": id, "jsonrpc": "2.0", "method": "submit", "params": {
                "id": "f3a9", "job_id": job, "nonce": format!("{nonce:08x}"),
                "result": format!("{nonce:08x}").repeat(8)}}),
        })
    }

    /// Waits for work that was not taken yet.
    fn take_job(&mut self) -> Result<String> {
        loop {
            if let Some(job) = self.job.take() {
                return Ok(job);
            }
            self.read()?;
        }
    }

    /// Sends a request and waits for the answer, which must not be a refusal.
    fn call(&mut self, request: impl FnOnce(u32) -> Value) -> Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let line = format!("{}\n", request(id));
        let size = if self.one_byte_writes { 1 } else { line.len() };
        for piece in line.as_bytes().chunks(size) {
            self.stream.write_all(piece)?;
        }
        loop {
            let answer = self.read()?;
            if answer["id"] == json!(id) {
                ensure!(
                    answer["error"].is_null() && answer["result"] != json!(false),
                    "the pool refused: {answer}"
                );
                return Ok(());
            }
        }
    }

    /// Reads one message and remembers the work in it.
    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the pool hung up");
        let message: Value = serde_json::from_str(&line)?;
        let job = match message["method"].as_str() {
            Some("mining.notify") => &message["params"][0],
            Some("job") => &message["params"]["job_id"],
            _ => &message["result"]["job"]["job_id"],
        };
        if let Some(job) = job.as_str() {
            self.job = Some(job.to_owned());
        }
        Ok(message)
    }
}

/// Keeps the processor busy for `time` and returns a number.
fn work(seed: u32, time: Duration) -> u32 {
    let end = Instant::now() + time;
    let mut hash = seed.wrapping_add(0x811c_9dc5);
    while Instant::now() < end {
        for byte in hash.to_le_bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
    hash
}

//! A mining pool that speaks Stratum v1 (Bitcoin) and XMRig's dialect (Monero):
//! hands out work, accepts every well-formed share, pushes new work.
//!
//! The shares are not checked: nothing is mined here.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::{Value, json};

/// Answers on a connection are written to stdout as `share accepted …` and so on.
#[derive(Parser)]
#[command(about = "A mining pool for tests: Stratum v1 and XMRig's dialect")]
struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:3333")]
    listen: SocketAddr,
    /// Milliseconds without a message after which new work is pushed.
    #[arg(long, default_value_t = 2000)]
    job_every: u64,
    /// The algorithm of XMRig's that is asked for.
    #[arg(long, default_value = "rx/0")]
    algo: String,
    /// What its hashes have to be below: hexadecimal, little-endian.
    #[arg(long, default_value = "b88d0600")]
    target: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let listener = TcpListener::bind(options.listen)
        .with_context(|| format!("listen on {}", options.listen))?;
    println!("listening on {}", listener.local_addr()?);
    let options: &'static Options = Box::leak(Box::new(options));
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = Miner::serve(stream, options) {
                println!("miner gone: {error:#}");
            }
        });
    }
    Ok(())
}

/// One connected miner.
struct Miner {
    stream: TcpStream,
    options: &'static Options,
    /// How to push work, known from the first message.
    push: Option<fn(&Options, &str) -> Value>,
}

impl Miner {
    fn serve(stream: TcpStream, options: &'static Options) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(options.job_every)))?;
        stream.set_nodelay(true)?;
        println!("miner from {}", stream.peer_addr()?);
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut miner = Self {
            stream,
            options,
            push: None,
        };
        let mut line = Vec::new();
        loop {
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => bail!("connection closed"),
                Ok(_) => {
                    miner.handle(&serde_json::from_slice(&line)?)?;
                    line.clear();
                }
                // What was read of a line so far stays in it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => miner.push_work()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn handle(&mut self, message: &Value) -> Result<()> {
        let id = &message["id"];
        match message["method"].as_str().unwrap_or_default() {
            "mining.subscribe" => {
                self.push = Some(bitcoin_work);
                let subscriptions = [
                    ["mining.set_difficulty", "b4b6693b72a50c7116db18d6497cac52"],
                    ["mining.notify", "ae6812eb4cd7735a302a8a9dd95cf71f"],
                ];
                self.send(&json!({"id": id, "result": [subscriptions, "08000002", 4], "error": null}))
            }
            "mining.authorize" => {
                self.send(&json!({"id": id, "result": true, "error": null}))?;
                self.send(&json!({"id": null, "method": "mining.set_difficulty", "params": [2048]}))?;
                self.push_work()
            }
            "mining.submit" => {
                println!("share accepted from {}", message["params"][0]);
                self.send(&json!({"id": id, "result": true, "error": null}))?;
                self.push_work()
            }
            "login" => {
                self.push = Some(monero_work);
                let job = monero_job(self.options, &next_job());
                let result = json!({"id": "f3a9", "job": job, "status": "OK",
                    "extensions": ["algo", "nicehash", "keepalive"]});
                self.send(&json!({"id": id, "jsonrpc": "2.0", "error": null, "result": result}))
            }
            "submit" => {
                println!("share accepted for {}", message["params"]["job_id"]);
                self.send(&json!({"id": id, "jsonrpc": "2.0", "error": null, "result": {"status": "OK"}}))?;
                self.push_work()
            }
            "keepalived" => self.send(
                &json!({"id": id, "jsonrpc": "2.0", "error": null, "result": {"status": "KEEPALIVED"}}),
            ),
            other => bail!("unknown method {other:?}"),
        }
    }

    fn push_work(&mut self) -> Result<()> {
        match self.push {
            Some(work) => self.send(&work(self.options, &next_job())),
            None => Ok(()),
        }
    }

    fn send(&mut self, message: &Value) -> Result<()> {
        self.stream.write_all(format!("{message}\n").as_bytes())?;
        Ok(())
    }
}

/// A new job's name.
fn next_job() -> String {
    static JOBS: AtomicU32 = AtomicU32::new(0x4a_0000);
    format!("{:x}", JOBS.fetch_add(1, Ordering::Relaxed))
}

/// Stratum v1's `mining.notify`, with the shape of a real pool's.
fn bitcoin_work(_: &Options, job: &str) -> Value {
    json!({"id": null, "method": "mining.notify", "params": [
        job,
        "4d16b6f85af6e2198f44ae2a6de67f78487ae5611b77c6c0440b921e00000000",
        "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff\
         20020862062f503253482f04b8864e5008",
        "072f736c7573682f000000000100f2052a010000001976a914d23fcdf86f7e756a64a7a9688ef99033\
         27048ed988ac00000000",
        ["57351e8569cb9d036187a79fd1844fd930c1309efcd16c46af9bb9713b6ee734"],
        "00000002", "1c2ac4af", "504e86b9", false
    ]})
}

/// XMRig's `job`.
fn monero_work(options: &Options, job: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "job", "params": monero_job(options, job)})
}

fn monero_job(options: &Options, job: &str) -> Value {
    let blob = format!(
        "1010{}00000000{}01",
        "c4d8f2a6".repeat(9),
        "9b3e71d05fa2".repeat(6)
    );
    json!({"blob": blob, "job_id": job, "id": "f3a9", "target": options.target, "algo": options.algo,
        "height": 3_210_123, "seed_hash": "5e1d".repeat(16)})
}

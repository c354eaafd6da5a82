//! Makes an agent busy in one way, and says exactly how much it did: one JSON
//! object on stdout.
//!
//! ```text
//! load exec --count 1000                  programs, each forked, run and ended
//! load fork --count 20000                 processes that end at once: a bounded fork bomb
//! load connect --count 20000 --to A:P     TCP connections, each made and closed
//! load payload --count 20000 --to A:P     8 KiB in eight datagrams, each time from a new socket
//! load events --count 100000 --to A:P     the smallest event there is: connect() on a UDP socket
//! load flows --count 17000 --to A:P       datagrams of one UDP socket, each to another port from P on
//! ```
//! Every kind stops after `--seconds` too, and keeps to `--rate` a second.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::json;

/// Steps between two looks at the clock, when no rate is kept to.
const UNPACED: u64 = 256;
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Payload of a datagram; eight are the head of a flow.
const DATAGRAM: [u8; 1024] = [0x55; 1024];

#[derive(Parser)]
struct Args {
    /// What to do.
    kind: Kind,
    /// How often.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// For how long at most, seconds.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// How often in a second at most.
    #[arg(long)]
    rate: Option<u64>,
    /// Whom to talk to.
    #[arg(long)]
    to: Option<SocketAddr>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Exec,
    Fork,
    Connect,
    Payload,
    Events,
    Flows,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let to = || args.to.context("--to is needed");
    let begun = Instant::now();
    let done = match args.kind {
        Kind::Exec => repeat(&args, || {
            let status = Command::new("/bin/true").arg("load").status()?;
            ensure!(status.success(), "/bin/true: {status}");
            Ok(())
        })?,
        Kind::Fork => repeat(&args, fork)?,
        Kind::Connect => {
            let to = to()?;
            repeat(&args, || {
                // Refused is as good: the attempt counts.
                match TcpStream::connect_timeout(&to, CONNECT_TIMEOUT) {
                    Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
                        Err(error.into())
                    }
                    _ => Ok(()),
                }
            })?
        }
        Kind::Payload => {
            let to = to()?;
            repeat(&args, || {
                let socket = socket(to)?;
                for _ in 0..8 {
                    // Refused: the answer to an earlier one. It was sent all the same.
                    if socket.send(&DATAGRAM).is_err() {
                        socket.send(&DATAGRAM)?;
                    }
                }
                Ok(())
            })?
        }
        Kind::Flows => {
            let to = to()?;
            let socket = unconnected(to)?;
            let mut port = to.port();
            repeat(&args, || {
                socket.send_to(b"x", SocketAddr::new(to.ip(), port))?;
                port = port.wrapping_add(1).max(1);
                Ok(())
            })?
        }
        Kind::Events => {
            let to = to()?;
            let socket = socket(to)?;
            repeat(&args, || Ok(socket.connect(to)?))?
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    // Sockets for one purpose connect once more.
    let made = match args.kind {
        Kind::Exec => json!({"fork": done, "exec": done, "exit": done}),
        Kind::Fork => json!({"fork": done, "exit": done}),
        Kind::Connect => json!({"connect": done}),
        Kind::Flows => json!({"connect": 0, "send": done}),
        Kind::Payload => json!({"connect": done, "datagrams": done * 8, "bytes": done * 8192}),
        Kind::Events => json!({"connect": done + 1}),
    };
    println!("{}", json!({"done": made, "seconds": seconds}));
    Ok(())
}

/// Calls `work` as often, as long and as quickly as asked for; gives how often.
fn repeat(args: &Args, mut work: impl FnMut() -> Result<()>) -> Result<u64> {
    let begun = Instant::now();
    let end = begun + Duration::try_from_secs_f64(args.seconds)?;
    let mut done = 0;
    while done < args.count {
        match args.rate {
            Some(rate) => {
                // As much as is due by now, then a pause: a sleep for each would be too coarse.
                let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
                if done >= due {
                    std::thread::sleep(Duration::from_millis(1));
                }
                while done < due.min(args.count) {
                    work()?;
                    done += 1;
                }
            }
            None => {
                for _ in 0..UNPACED.min(args.count - done) {
                    work()?;
                    done += 1;
                }
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    Ok(done)
}

fn socket(to: SocketAddr) -> Result<UdpSocket> {
    let socket = unconnected(to)?;
    socket.connect(to)?;
    Ok(socket)
}

fn unconnected(to: SocketAddr) -> Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    Ok(UdpSocket::bind(any)?)
}

/// A process that ends at once; at most one lives at a time.
fn fork() -> Result<()> {
    // SAFETY: this process has one thread; the child calls nothing but _exit().
    let child = unsafe { libc::fork() };
    ensure!(child >= 0, "fork: {}", io::Error::last_os_error());
    if child == 0 {
        // SAFETY: ends the child at once, without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child; the status is a local.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    ensure!(
        waited == child && status == 0,
        "waitpid: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

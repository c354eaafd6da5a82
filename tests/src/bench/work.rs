//! Work that an agent does, in a process of its own: `bench work KIND`.
//!
//! It enters its cgroup, says `ready`, and then does as many operations as each
//! line on its stdin asks for, answering with the nanoseconds they took.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cgroup::Cgroup;

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A TCP connection, made and closed.
    TcpConnect,
    /// connect() on a UDP socket.
    UdpConnect,
    /// A program, started and ended.
    Spawn,
    /// 64 KiB sent over one connection.
    Stream,
    /// 64 bytes to and fro over one connection.
    PingPong,
    /// connect() on a UDP socket, ten thousand a second.
    Paced,
    /// A flow or process that stays.
    Hold,
    /// A miner's first message on a connection of its own, from a process of its own.
    Proof,
}

/// Bytes of each direction that go before what is measured: past a flow's head.
const WARM: usize = 32 << 10;
/// A write of [`Kind::Stream`].
const CHUNK: usize = 64 << 10;
/// What a round of [`Kind::PingPong`] carries each way.
const PING: usize = 64;
/// Operations a second of [`Kind::Paced`], below the quota of an agent.
pub const PACE: u64 = 12_500;
/// What a miner says first.
const SUBSCRIBE: &[u8] = b"{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"miner/1.0\"]}\n";

/// The other end, outside the agent. It listens as long as this process runs.
#[derive(Clone, Copy, Debug)]
pub enum Server {
    /// Closes what it accepts.
    Close,
    /// Keeps what it accepts, and does not read.
    Keep,
    /// Echoes messages of `PING` bytes, and reads streams.
    Serve,
}

impl Server {
    /// Starts it; gives its port on all of loopback.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(self) -> Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            let mut kept = Vec::new();
            for connection in listener.incoming().flatten() {
                match self {
                    Self::Close => drop(connection),
                    Self::Keep => kept.push(connection),
                    // Its errors are the other end's too.
                    Self::Serve => drop(thread::spawn(|| serve(connection))),
                }
            }
        });
        Ok(port)
    }
}

fn serve(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            n if buffer[0] == b'p' => connection.write_all(&buffer[..n])?,
            _ => {}
        }
    }
}

/// A worker that waits for orders. Killed on drop.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one in `cgroup`, under `wrapper` if that is not empty.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(kind: Kind, cgroup: &Cgroup, port: u16, wrapper: &[&str]) -> Result<Self> {
        let own = std::env::current_exe()?;
        let mut command = match wrapper {
            [] => Command::new(&own),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(&own);
                command
            }
        };
        let name = clap::ValueEnum::to_possible_value(&kind).context("a kind has a name")?;
        let mut child = command
            .args([
                "work",
                name.get_name(),
                "--port",
                &port.to_string(),
                "--cgroup",
            ])
            .arg(cgroup.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let orders = child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut worker = Self {
            child,
            orders,
            answers,
        };
        ensure!(worker.answer()? == "ready", "the worker is not ready");
        Ok(worker)
    }

    /// Gives an order without waiting for its end.
    ///
    /// # Errors
    /// When the worker has ended.
    pub fn order(&mut self, count: u64) -> Result<()> {
        writeln!(self.orders, "{count}").context("the worker has ended")
    }

    /// A line of its answer.
    ///
    /// # Errors
    /// When the worker has ended.
    pub fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(
            self.answers.read_line(&mut line)? > 0,
            "the worker has ended, see above"
        );
        Ok(line.trim_end().to_owned())
    }

    /// Lets it do `count` operations; gives nanoseconds.
    ///
    /// # Errors
    /// When the worker has ended.
    pub fn run(&mut self, count: u64) -> Result<u64> {
        self.order(count)?;
        Ok(self.answer()?.parse()?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker's own side.
///
/// # Errors
/// When an operation fails.
pub fn main(kind: Kind, cgroup: &Path, port: u16) -> Result<()> {
    let procs: PathBuf = cgroup.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("write {}", procs.display()))?;
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut work = Work::new(kind, to)?;
    println!("ready");
    for line in io::stdin().lines() {
        let count = line?.parse()?;
        let begun = Instant::now();
        work.repeat(count)?;
        println!("{}", begun.elapsed().as_nanos());
    }
    Ok(())
}

/// What a worker keeps between operations.
struct Work {
    kind: Kind,
    to: SocketAddr,
    stream: Option<TcpStream>,
    datagrams: UdpSocket,
    held: Vec<TcpStream>,
    children: Vec<Child>,
    proofs: u32,
}

impl Work {
    fn new(kind: Kind, to: SocketAddr) -> Result<Self> {
        let stream = match kind {
            Kind::Stream => {
                let mut stream = TcpStream::connect(to)?;
                stream.write_all(&vec![b's'; WARM])?;
                Some(stream)
            }
            Kind::PingPong => {
                let mut stream = TcpStream::connect(to)?;
                stream.set_nodelay(true)?;
                for _ in 0..WARM / PING {
                    ping(&mut stream)?;
                }
                Some(stream)
            }
            _ => None,
        };
        Ok(Self {
            kind,
            to,
            stream,
            datagrams: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            held: Vec::new(),
            children: Vec::new(),
            proofs: 0,
        })
    }

    fn repeat(&mut self, count: u64) -> Result<()> {
        let begun = Instant::now();
        for done in 0..count {
            match self.kind {
                Kind::TcpConnect => {
                    // Waits for the other end: a full queue of connections would
                    // cost a second.
                    let mut stream = TcpStream::connect(self.to)?;
                    ensure!(stream.read(&mut [0])? == 0, "the server said something");
                }
                Kind::UdpConnect => self.datagrams.connect(self.to)?,
                Kind::Spawn => {
                    let status = Command::new("/bin/true").status()?;
                    ensure!(status.success(), "/bin/true: {status}");
                }
                Kind::Stream => {
                    if let Some(stream) = &mut self.stream {
                        stream.write_all(&[b's'; CHUNK])?;
                    }
                }
                Kind::PingPong => {
                    if let Some(stream) = &mut self.stream {
                        ping(stream)?;
                    }
                }
                Kind::Paced => {
                    while begun.elapsed().as_nanos()
                        < u128::from(done) * 1_000_000_000 / u128::from(PACE)
                    {
                        thread::sleep(Duration::from_micros(500));
                    }
                    self.datagrams.connect(self.to)?;
                }
                Kind::Hold => {
                    self.held.push(TcpStream::connect(self.to)?);
                    if done % 5 == 0 {
                        // Ends when its stdin does: with this process.
                        let child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn()?;
                        self.children.push(child);
                    }
                }
                Kind::Proof => self.proof()?,
            }
        }
        Ok(())
    }

    /// Prints where to and when (`CLOCK_MONOTONIC`) the last byte was sent. A
    /// process and an address of its own make it an incident of its own.
    fn proof(&mut self) -> Result<()> {
        self.proofs += 1;
        let [high, low] = (self.proofs as u16).to_be_bytes();
        let ip = Ipv4Addr::new(127, 77, high, low);
        let own = std::env::current_exe()?;
        let status = Command::new(own)
            .args(["prove", &ip.to_string(), &self.to.port().to_string()])
            .stdin(Stdio::null())
            .status()?;
        ensure!(status.success(), "proof: {status}");
        Ok(())
    }
}

/// `bench prove`: says what only a miner says, and when.
///
/// # Errors
/// When the server cannot be reached.
pub fn prove(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let (all_but_one, last) = SUBSCRIBE.split_at(SUBSCRIBE.len() - 1);
    stream.write_all(all_but_one)?;
    let sent = now();
    stream.write_all(last)?;
    println!("{} {sent}", to.ip());
    // The flow stays for a while, as a miner's does.
    thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// Nanoseconds on `CLOCK_MONOTONIC`, the same in every process.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn ping(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[b'p'; PING])?;
    stream.read_exact(&mut [0; PING])
}

//! Ways to do something on the network, or to run something, that a monitor
//! could miss: `evade MECHANISM POOL [ARGUMENT…]`. Most log in to the mining pool
//! at POOL and read its answer. Run by the evasion suite, in an agent.

mod born;
mod code;
mod descriptors;
mod escape;
mod fastopen;
mod links;
mod netns;
mod pass;
mod raw;
mod ring;
mod run;
mod send;
mod unseen;

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use agent_monitor_tests::evasion::LOGIN;
use anyhow::{Context, Result, bail, ensure};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a mechanism has to work with.
struct Task {
    /// The pool, `192.0.2.1:3333`.
    pool: SocketAddrV4,
    /// Whatever else it was given.
    arguments: Vec<String>,
}

impl Task {
    /// The argument at `index`.
    fn argument(&self, index: usize) -> Result<&str> {
        let found = self.arguments.get(index).map(String::as_str);
        found.with_context(|| format!("argument {index} is missing"))
    }
}

/// Name, and what it does.
type Mechanism = (&'static str, fn(&Task) -> Result<()>);

const MECHANISMS: &[Mechanism] = &[
    ("plain", plain),
    ("io-uring", ring::plain),
    ("io-uring-async", ring::worker_thread),
    ("io-uring-poll", ring::kernel_thread),
    ("syscall-instruction", raw::syscall),
    ("int80", raw::int80),
    ("static-program", code::static64),
    ("i386-program", code::static32),
    ("memfd", run::memfd),
    ("new-arguments", run::new_arguments),
    ("sendmsg", send::sendmsg),
    ("sendmmsg", send::sendmmsg),
    ("writev", send::writev),
    ("sendfile", send::sendfile),
    ("splice", send::splice),
    ("zero-copy", send::zero_copy),
    ("byte-by-byte", send::byte_by_byte),
    ("fast-open", fastopen::sendto),
    ("fast-open-connect", fastopen::connect),
    ("to-a-child", pass::to_a_child),
    ("over-a-unix-socket", pass::over_a_unix_socket),
    ("socket-reused", descriptors::reused),
    ("high-descriptor", descriptors::high),
    ("new-cgroup", born::new_cgroup),
    ("clone-into-cgroup", born::clone_into_cgroup),
    ("double-fork", born::double_fork),
    ("pid-reused", born::pid_reused),
    ("own-network", netns::own_network),
    ("mptcp", raw::mptcp),
    ("leave", escape::leave),
    ("born-outside", escape::born_outside),
    ("receive", unseen::receive),
    ("packet-socket", unseen::packet_socket),
    ("tun", unseen::tun),
    ("detach", links::detach),
    ("forget", links::forget),
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().context("which mechanism?")?;
    let pool = arguments.next().context("where is the pool?")?;
    let task = Task {
        pool: pool.parse().with_context(|| pool.clone())?,
        arguments: arguments.collect(),
    };
    match MECHANISMS.iter().find(|(known, _)| *known == name) {
        Some((_, mechanism)) => mechanism(&task).context(name),
        None => bail!("no mechanism is called {name:?}"),
    }
}

/// No evasion at all: what the others are compared with.
fn plain(task: &Task) -> Result<()> {
    let mut stream = TcpStream::connect(task.pool)?;
    stream.write_all(LOGIN.as_bytes())?;
    answered(stream)
}

/// Reads the pool's answer, one line, and closes.
fn answered(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        ensure!(
            stream.read(&mut byte)? == 1,
            "the pool closed after {} bytes",
            answer.len()
        );
        answer.extend(byte);
    }
    Ok(())
}

/// The result of a system call, or its error.
fn check(result: impl Into<i64>, call: &str) -> Result<i64> {
    let result = result.into();
    if result < 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| call.to_owned());
    }
    Ok(result)
}

/// An address as the kernel takes it.
fn kernel_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

/// Forks; gives the child's pid, or 0 in the child.
fn fork() -> Result<i32> {
    // SAFETY: this program has one thread, so the child may do anything.
    let pid = unsafe { libc::fork() };
    check(pid, "fork")?;
    Ok(pid)
}

/// Waits for a child, which must have succeeded.
fn wait(pid: i32) -> Result<()> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) }, "waitpid")?;
    if libc::WIFSIGNALED(status) {
        bail!("the child was killed by signal {}", libc::WTERMSIG(status));
    }
    let code = libc::WEXITSTATUS(status);
    ensure!(code == 0, "the child ended with {code}");
    Ok(())
}

/// Runs `work` in a child process and waits for it.
fn in_child(work: impl FnOnce() -> Result<()>) -> Result<()> {
    match fork()? {
        0 => exit_with(work()),
        pid => wait(pid),
    }
}

/// Ends this process at once with the result.
fn exit_with(result: Result<()>) -> ! {
    if let Err(error) = &result {
        eprintln!("in the child: {error:#}");
    }
    // SAFETY: ends the process without running what belongs to the parent.
    unsafe { libc::_exit(i32::from(result.is_err())) }
}

/// Replaces this process by `evade ARGUMENTS…`; returns only on failure.
fn become_evade(arguments: &[&str]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let program = std::env::current_exe()?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).context("exec")
}

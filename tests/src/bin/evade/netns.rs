//! A network namespace of the agent's own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

use agent_monitor_tests::evasion::JOB;
use anyhow::{Result, ensure};

use crate::{Task, check, in_child, plain};

/// unshare(CLONE_NEWNET), then a pool and a miner inside, over `lo`, which gets
/// the pool's address.
pub fn own_network(task: &Task) -> Result<()> {
    // SAFETY: takes no addresses; this program has one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }, "unshare")?;
    let address = format!("{}/32", task.pool.ip());
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &["addr", "add", &address, "dev", "lo"],
    ] {
        let done = Command::new("ip").args(arguments).status()?;
        ensure!(done.success(), "ip {arguments:?}: {done}");
    }
    let pool = TcpListener::bind(task.pool)?;
    let miner = crate::fork()?;
    if miner == 0 {
        crate::exit_with(in_child(|| plain(task)));
    }
    let (mut stream, _) = pool.accept()?;
    let mut login = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut login)?;
    stream.write_all(JOB.as_bytes())?;
    crate::wait(miner)
}

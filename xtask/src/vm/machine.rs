//! One emulated machine, from power-on to its reboot or its end by force.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::root;
use crate::setup::kernels::Kernel;

/// Longest time without a line; the script's own waits are shorter.
const STALL: Duration = Duration::from_secs(100);
/// Longest time in all: about ten times what an idle machine with two cores takes.
const LIMIT: Duration = Duration::from_secs(240);
/// The emulated machine's memory (MiB) and processors. Two processors, so that
/// both directions of a connection can run at once, as they do in earnest.
const MEMORY: &str = "1024";
const PROCESSORS: &str = "2";

/// Boots the kernel and gives the console's lines, and the file that has them
/// too. How it ended is in the lines: a machine that does not get to its last
/// line has printed a panic, or one is added that says why it was ended.
///
/// # Errors
/// When qemu cannot be started or the log cannot be written.
pub fn boot(kernel: &Kernel, initramfs: &Path) -> Result<(Vec<String>, PathBuf)> {
    let path = root().join(format!("target/xtask/vm-{}.log", kernel.series));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut log =
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let kernel_log = path.with_extension("kernel");
    eprintln!("booting {} …", kernel.release);
    let mut command = Command::new("qemu-system-x86_64");
    command
        // Emulated, not virtualised: /dev/kvm may be missing, or be there and hang.
        .args(["-accel", "tcg", "-m", MEMORY, "-smp", PROCESSORS])
        .args(["-nodefaults", "-nographic", "-no-reboot"])
        // A line of the kernel's own can fall into the middle of another: it has
        // a port to itself.
        .args(["-serial", "stdio", "-serial"])
        .arg(format!("file:{}", kernel_log.display()))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // A panic reboots at once, and a reboot ends qemu. The kernel's check that its
        // timer interrupts in time fails on a busy machine, which emulates late.
        .args(["-append", "console=ttyS1 panic=-1 no_timer_check quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?);
    let mut lines = follow(command, STALL, LIMIT)?;
    let said = fs::read(&kernel_log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    lines.extend(said.lines().map(|line| line.trim_end().to_owned()));
    for line in &lines {
        writeln!(log, "{line}")?;
    }
    Ok((lines, path))
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end, or ends it when it stalls or takes too long, and
/// gives its lines.
fn follow(mut command: Command, stall: Duration, limit: Duration) -> Result<Vec<String>> {
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut child = Running(child);
    let output = child.0.stdout.take().context("its output is not piped")?;
    let received = read_lines(output);
    let began = Instant::now();
    let mut lines = Vec::new();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        match received.recv_timeout(left.min(stall)) {
            // Even a flood of lines does not outlive the limit.
            Ok(line) if !left.is_zero() => lines.push(line),
            Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {
                let why = if left <= stall {
                    "did not end in time"
                } else {
                    "stalled"
                };
                let after = began.elapsed().as_secs();
                lines.push(format!(
                    "@failed the machine {why}: ended by force after {after} s"
                ));
                break;
            }
        }
    }
    Ok(lines)
}

/// Reads lines in a thread of its own, which ends with the output.
fn read_lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        command
    }

    #[test]
    fn a_machine_that_ends_gives_its_lines_without_carriage_returns() {
        let lines = follow(shell(r"printf 'a\r\nb\r\n'"), LONG, LONG).unwrap();
        assert_eq!(lines, ["a", "b"]);
    }

    #[test]
    fn a_machine_that_says_nothing_more_is_ended() {
        let began = Instant::now();
        let script = "echo $$; exec sleep 60";
        let lines = follow(shell(script), Duration::from_millis(200), LONG).unwrap();
        assert!(lines[1].contains("stalled"), "{lines:?}");
        assert!(began.elapsed() < LONG);
        assert!(
            !Path::new("/proc").join(&lines[0]).exists(),
            "it still runs"
        );
    }

    #[test]
    fn a_machine_that_goes_on_for_ever_is_ended() {
        let script = "while :; do echo tick; sleep 0.05; done";
        let lines = follow(shell(script), LONG, Duration::from_millis(300)).unwrap();
        let last = lines.last().unwrap();
        assert!(last.contains("did not end in time"), "{lines:?}");
    }
}

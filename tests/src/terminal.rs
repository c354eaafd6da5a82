//! A terminal and the program that runs in it: what it shows, what is typed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use vt100::Parser;

use crate::wait;

/// A pseudo terminal, interpreted as xterm would, with a program in it. The program is
/// killed on drop.
pub struct Terminal {
    master: File,
    /// The program's end, to look at its modes.
    slave: OwnedFd,
    parser: Arc<Mutex<Parser>>,
    /// Its modes before the program.
    before: Termios,
    child: Child,
}

impl Terminal {
    /// Runs a program in a new terminal of so many columns and lines, its controlling one.
    ///
    /// # Errors
    /// There is no terminal to be had, or the program does not start.
    pub fn run(program: &Command, columns: u16, lines: u16) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).context("open a pseudo terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        tcsetwinsize(&master, size(columns, lines))?;
        let before = tcgetattr(&slave)?;
        // A session of its own, so that the terminal can be its controlling one: only
        // then it hears of a new size.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program());
        command.args(program.get_args()).env("TERM", "xterm");
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave.try_clone()?))
            .spawn()
            .context("start a program in a terminal")?;
        let parser = Parser::new(positive(lines), positive(columns), 0);
        let parser = Arc::new(Mutex::new(parser));
        let master = File::from(master);
        let (shown, mut output) = (Arc::clone(&parser), master.try_clone()?);
        // Ends when the last program has closed the other end.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                lock(&shown).process(&buffer[..read]);
            }
        });
        Ok(Self {
            master,
            slave,
            parser,
            before,
            child,
        })
    }

    /// The lines that are shown.
    pub fn text(&self) -> String {
        lock(&self.parser).screen().contents()
    }

    /// Waits until all of `parts` are shown; gives what is.
    ///
    /// # Errors
    /// After `timeout`, with what is shown.
    pub fn wait_for(&self, parts: &[&str], timeout: Duration) -> Result<String> {
        let found = wait::until(&format!("{parts:?} on the screen"), timeout, || {
            let text = self.text();
            let all = parts.iter().all(|part| text.contains(part));
            Ok(all.then_some(text))
        });
        found.with_context(|| format!("the screen shows:\n{}", self.text()))
    }

    /// Types.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes()).context("type")
    }

    /// Makes it larger or smaller.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let mut parser = lock(&self.parser);
        parser.set_size(positive(lines), positive(columns));
        Ok(tcsetwinsize(&self.master, size(columns, lines))?)
    }

    /// Whether it is as it was before the program: its modes, its ordinary screen, its cursor.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn is_restored(&self) -> Result<bool> {
        let now = tcgetattr(&self.slave)?;
        let parser = lock(&self.parser);
        let screen = parser.screen();
        let modes = |it: &Termios| (it.input_modes, it.output_modes, it.local_modes);
        Ok(modes(&now) == modes(&self.before)
            && !screen.alternate_screen()
            && !screen.hide_cursor())
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("signal the program")
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// After `timeout`, with what is shown.
    pub fn end(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let ended = wait::until("the program's end", timeout, || Ok(child.try_wait()?));
        ended.with_context(|| format!("the screen shows:\n{}", self.text()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn positive(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

fn lock(parser: &Mutex<Parser>) -> MutexGuard<'_, Parser> {
    parser.lock().unwrap_or_else(PoisonError::into_inner)
}

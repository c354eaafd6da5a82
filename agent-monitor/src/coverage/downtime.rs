//! From when to when no daemon was there: a file beside the store that a running
//! daemon writes its time into, because one that is killed can say nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// How often the time is written, in nanoseconds.
const BEAT_EVERY: u64 = 500_000_000;
/// Names this boot; times are since boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The end of the daemon before this one, in this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// It was there until then, nanoseconds since boot.
    pub until: u64,
    /// It ended by itself; otherwise it was killed.
    pub stopped: bool,
}

/// The file of a running daemon. When it cannot be written, that is logged once:
/// only the next daemon knows less, which is no reason not to watch.
#[derive(Debug)]
pub struct Heartbeat {
    file: Option<File>,
    boot: String,
    written: u64,
}

impl Heartbeat {
    /// Begins to write beside `store`, at `now`; gives the end of the daemon before.
    pub fn begin(store: &Path, now: u64) -> (Self, Option<Before>) {
        let mut path = store.as_os_str().to_owned();
        path.push(".alive");
        let path = PathBuf::from(path);
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let boot = boot.trim().to_owned();
        let before = fs::read_to_string(&path).ok();
        let before = before.and_then(|text| parse(&text, &boot));
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(path);
        let mut heartbeat = Self {
            file: file.inspect_err(unwritten).ok(),
            boot,
            written: 0,
        };
        heartbeat.write(now, "running");
        (heartbeat, before)
    }

    /// The daemon is there, at `now`.
    pub fn beat(&mut self, now: u64) {
        if now.saturating_sub(self.written) >= BEAT_EVERY {
            self.write(now, "running");
        }
    }

    /// The daemon ends by itself, at `now`.
    pub fn end(mut self, now: u64) {
        self.write(now, "stopped");
    }

    fn write(&mut self, now: u64, state: &str) {
        self.written = now;
        let Some(file) = &self.file else {
            return;
        };
        // Always of one length, so that a shorter line never ends in an older one.
        let line = format!("{} {now:020} {state}\n", self.boot);
        if let Err(error) = file.write_all_at(line.as_bytes(), 0) {
            unwritten(&error);
            self.file = None;
        }
    }
}

fn unwritten(error: &io::Error) {
    tracing::warn!("if this daemon is killed, the next one will not know since when: {error}");
}

/// Reads the line of a daemon of this boot.
fn parse(text: &str, boot: &str) -> Option<Before> {
    let mut words = text.split_whitespace();
    if words.next()? != boot {
        return None;
    }
    let until = words.next()?.parse().ok()?;
    let stopped = words.next()? == "stopped";
    Some(Before { until, stopped })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_daemon_reads_when_and_how_the_last_one_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = dir.path().join("store.db");
        let begin = |now| Heartbeat::begin(&store, now);
        let (mut first, before) = begin(5);
        assert_eq!(before, None);
        first.beat(6);
        first.beat(5 + BEAT_EVERY);
        drop(first);
        let (second, before) = begin(9 * BEAT_EVERY);
        let until = 5 + BEAT_EVERY;
        assert_eq!(
            before,
            Some(Before {
                until,
                stopped: false
            })
        );
        second.end(10 * BEAT_EVERY);
        let until = 10 * BEAT_EVERY;
        assert_eq!(
            begin(0).1,
            Some(Before {
                until,
                stopped: true
            })
        );
    }

    #[test]
    fn times_of_another_boot_and_what_nobody_wrote_say_nothing() {
        for text in [
            "",
            "x",
            "other 00000000000000000005 running\n",
            "this x running",
        ] {
            assert_eq!(parse(text, "this"), None, "{text:?}");
        }
    }
}

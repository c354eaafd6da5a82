//! Lines on standard output: for whoever runs the daemon in a container or a pipe.
//!
//! A line counts as delivered when the kernel has taken it. What reads the pipe may still
//! lose it, so this is no acknowledgement. A pipe that nobody reads from delays this sink.

use std::io::{self, Write as _};
use std::thread;

use tokio::sync::oneshot;

use super::{Sink, SinkError};
use crate::config::{Format, StdoutConfig};
use crate::store::Record;

/// Writes to standard output.
pub struct StdoutSink {
    format: Format,
}

impl StdoutSink {
    /// A sink that writes to standard output.
    pub fn new(config: &StdoutConfig) -> Self {
        Self {
            format: config.format,
        }
    }
}

impl Sink for StdoutSink {
    async fn deliver(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        let mut lines = String::new();
        for record in batch {
            lines += &self.format.line(&record.json);
            lines.push('\n');
        }
        let failed =
            |error| SinkError::Unavailable(format!("cannot write to standard output: {error}"));
        let (done, written) = oneshot::channel();
        // A thread of its own: a pipe may be full for ever, and the end of the daemon
        // does not wait for a thread as it would for the runtime's.
        thread::Builder::new()
            .name("stdout".to_owned())
            .spawn(move || {
                // Nobody waits any more when the daemon ends.
                let _ = done.send(write(lines.as_bytes()));
            })
            .map_err(failed)?;
        let written = written
            .await
            .map_err(|_| SinkError::Unavailable("writing was cut short".to_owned()))?;
        written.map_err(failed)
    }
}

fn write(lines: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(lines)?;
    out.flush()
}

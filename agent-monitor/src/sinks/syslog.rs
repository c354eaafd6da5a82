//! Syslog over TCP: RFC 5424 messages (see [`super::rfc5424`]), octet-counted (RFC 6587).
//!
//! **Plain TCP syslog has no acknowledgement.** The sender learns that the peer's
//! *kernel* has the bytes, never that the receiver has read, queued or written
//! them. A receiver that is killed takes along what it had in its socket buffer
//! and its queue, and all the sender sees is a connection that ends.
//!
//! What is done about it:
//! 1. A batch counts as delivered only when the peer's kernel has acknowledged its last byte
//!    (`SIOCOUTQ` is 0) and the connection has ended neither way (no FIN, no RST).
//! 2. The cursor moves only when the connection is still alive [`SETTLE`] later. If it ended
//!    before, everything since the cursor is sent again on the next connection, also when
//!    there is nothing new to send, also after a restart of agent-monitor.
//!
//! So a receiver that is killed and restarted loses nothing, provided it had
//! written what it took [`SETTLE`] before it died. What remains: one that reads
//! more slowly than that (stopped, or its disk stalls) and is then killed, or
//! that loses what it had queued without the connection ending. Those who
//! cannot accept that need a receiver that acknowledges.
//!
//! The price is duplicates: up to [`SETTLE`]'s worth of alerts arrive twice when
//! a connection ends. They have the same `id`. A receiver that always closes within
//! [`SETTLE`] gets each alert a few times, see [`super::SinkStatus::unconfirmed`].
//!
//! The receiver's largest message must allow for the alert's JSON, usually a few
//! KiB: for rsyslog `$MaxMessageSize 64k`. What it cuts off is lost unseen.
//!
//! [`SETTLE`]: Sink::SETTLE

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::rfc5424::write_frame;
use super::{Sink, SinkError};
use crate::config::{Format, SyslogConfig};
use crate::store::Record;

/// Longest wait for a connection, name resolution included.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for the peer's kernel to take and acknowledge a batch.
const SEND: Duration = Duration::from_secs(30);
/// Longest pause between two looks at what is not acknowledged.
const POLL_MAX: Duration = Duration::from_millis(50);
/// Reads of 4 KiB in one look for the connection's end. A syslog receiver sends nothing.
const READS: usize = 16;

/// Sends to a syslog receiver.
pub struct SyslogSink {
    address: String,
    format: Format,
    stream: Option<TcpStream>,
}

impl SyslogSink {
    /// A sink that sends to a receiver; connected on the first delivery,
    /// and resolved anew for each connection.
    pub fn new(config: &SyslogConfig) -> Self {
        Self {
            address: config.address.clone(),
            format: config.format,
            stream: None,
        }
    }

    fn error(&self, what: &str, error: &io::Error) -> SinkError {
        SinkError::Unavailable(format!(
            "{what} {}: {error}; check that a syslog receiver listens there for TCP",
            self.address
        ))
    }

    async fn connect(&self) -> Result<TcpStream, SinkError> {
        let connect = async {
            let stream = within(CONNECT, TcpStream::connect(&self.address)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        connect
            .await
            .map_err(|error| self.error("cannot connect to", &error))
    }
}

impl Sink for SyslogSink {
    /// Receivers write within milliseconds; this allows for one that is busy.
    const SETTLE: Duration = Duration::from_secs(5);

    async fn deliver(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        self.check()?;
        let mut frames = String::new();
        for record in batch {
            write_frame(&mut frames, &record.json, self.format);
        }
        // On an error the connection is dropped, and the next delivery makes another.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        within(SEND, send(&mut stream, frames.as_bytes()))
            .await
            .map_err(|error| self.error("cannot send to", &error))?;
        self.stream = Some(stream);
        Ok(())
    }

    fn check(&mut self) -> Result<(), SinkError> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        let alive = alive(stream);
        if alive.is_err() {
            self.stream = None;
        }
        alive.map_err(|error| self.error("lost the connection to", &error))
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Returns when the peer's kernel has all of it.
async fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    let mut pause = Duration::from_millis(1);
    // In this order: a connection that ends after the last acknowledgement is seen.
    while unacknowledged(stream)? > 0 {
        alive(stream)?;
        sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
    alive(stream)
}

/// Bytes written that the peer's kernel has not acknowledged. For TCP the
/// kernel's `tcp_ioctl` answers SIOCOUTQ, which is TIOCOUTQ, with `write_seq - snd_una`.
fn unacknowledged(stream: &TcpStream) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and
    // TIOCOUTQ writes one int to the pointer, which is to a live one.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(bytes)
    }
}

/// Whether neither side has ended the connection. Asks the kernel rather than
/// tokio, whose readiness may be older than a FIN that has just come.
fn alive(stream: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    for _ in 0..READS {
        match recv(stream, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the receiver closed it",
                ));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the receiver sends data, which a syslog receiver does not",
    ))
}

//! Syslog: RFC 5424 messages (see [`super::rfc5424`]) over TCP with their octets counted
//! (RFC 6587, section 3.4.1), over TLS (RFC 5425), in UDP datagrams (RFC 5426), or to a
//! local socket, `/dev/log` for one: datagrams, or a stream whose messages end with a
//! line feed, whichever is there.
//!
//! **Syslog has no acknowledgement.** Over TCP and TLS the sender learns that the peer's
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
//! A local receiver is better: the kernel says when it has *read* a message. UDP is worse:
//! that a datagram left is all there is to know, and at best that nothing listens there.
//!
//! The receiver's largest message must allow for the alert's JSON, usually a few
//! KiB: for rsyslog `$MaxMessageSize 64k`. What it cuts off is lost unseen. What does not
//! fit in a datagram (65,507 bytes for UDP over IPv4) is a dead letter.

mod datagrams;
mod stream;

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::rfc5424::{message, write_frame};
use super::{Sink, SinkError, tls};
use crate::config::{SyslogConfig, Transport};
use crate::store::Record;
use datagrams::Datagrams;
use stream::{Stream, is_refusal};

/// Receivers write within milliseconds; this allows for one that is busy.
const SETTLE: Duration = Duration::from_secs(5);
/// Longest wait for a connection, name resolution included.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for the peer's kernel to take and acknowledge a batch.
const SEND: Duration = Duration::from_secs(30);

/// Sends to a syslog receiver.
pub struct SyslogSink {
    config: SyslogConfig,
    way: Option<Way>,
}

enum Way {
    Stream(Stream),
    Datagrams(Datagrams),
}

impl SyslogSink {
    /// A sink that sends to a receiver; connected on the first delivery,
    /// and resolved anew for each connection.
    pub fn new(config: &SyslogConfig) -> Self {
        Self {
            config: config.clone(),
            way: None,
        }
    }

    fn error(&self, what: &str, error: &io::Error) -> SinkError {
        let by = match self.config.transport {
            Transport::Tcp => " for TCP",
            Transport::Udp => " for UDP",
            Transport::Tls => " for TLS, and the certificates",
            Transport::Local => "",
        };
        let message = format!(
            "{what} {}: {error}; check that a syslog receiver listens there{by}",
            self.config.address
        );
        if is_refusal(error) {
            SinkError::Unwelcome(message)
        } else {
            SinkError::Unavailable(message)
        }
    }

    async fn connect(&self) -> Result<Way, SinkError> {
        let address = &self.config.address;
        let connected = match self.config.transport {
            Transport::Tcp => within(CONNECT, Stream::connect(address, None)).await,
            Transport::Tls => {
                let tls = tls::client(&self.config.tls).map_err(SinkError::Unavailable)?;
                within(CONNECT, Stream::connect(address, Some(tls))).await
            }
            Transport::Udp => {
                let socket = within(CONNECT, Datagrams::udp(address)).await;
                return socket
                    .map(Way::Datagrams)
                    .map_err(|error| self.error("cannot send to", &error));
            }
            Transport::Local => return self.connect_local().await,
        };
        connected
            .map(Way::Stream)
            .map_err(|error| self.error("cannot connect to", &error))
    }

    /// As syslog(3) does: datagrams first, then a stream.
    async fn connect_local(&self) -> Result<Way, SinkError> {
        let path = Path::new(&self.config.address);
        let connected = match Datagrams::local(path) {
            Ok(datagrams) => Ok(Way::Datagrams(datagrams)),
            Err(error) if is(&error, Errno::PROTOTYPE) => {
                let stream = within(CONNECT, UnixStream::connect(path)).await;
                stream.map(|stream| Way::Stream(Stream::Local(stream)))
            }
            Err(error) => Err(error),
        };
        connected.map_err(|error| self.error("cannot connect to", &error))
    }

    async fn send(&self, way: &mut Way, batch: &[Record]) -> Result<(), SinkError> {
        let sent = match way {
            Way::Stream(stream) => {
                let frames = self.frames(batch, matches!(stream, Stream::Local(_)));
                within(SEND, stream.send(frames.as_bytes())).await
            }
            Way::Datagrams(datagrams) => {
                for record in batch {
                    let message = message(&record.json, self.config.format);
                    match within(SEND, datagrams.send(message.as_bytes())).await {
                        Err(error) if is(&error, Errno::MSGSIZE) => {
                            return Err(SinkError::Refused(format!(
                                "the message has {} bytes, which no datagram to {} takes",
                                message.len(),
                                self.config.address
                            )));
                        }
                        sent => sent.map_err(|error| self.error("cannot send to", &error))?,
                    }
                }
                within(SEND, datagrams.sent()).await
            }
        };
        sent.map_err(|error| self.error("cannot send to", &error))
    }

    fn frames(&self, batch: &[Record], lines: bool) -> String {
        let mut frames = String::new();
        for record in batch {
            if lines {
                // No format has a line feed inside.
                frames += &message(&record.json, self.config.format);
                frames.push('\n');
            } else {
                write_frame(&mut frames, &record.json, self.config.format);
            }
        }
        frames
    }
}

impl Sink for SyslogSink {
    fn settles_after(&self) -> Duration {
        match self.way {
            Some(Way::Datagrams(_)) => Duration::ZERO,
            _ => SETTLE,
        }
    }

    async fn deliver(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        self.check().await?;
        // On an error the connection is dropped, and the next delivery makes another.
        let mut way = match self.way.take() {
            Some(way) => way,
            None => self.connect().await?,
        };
        let sent = self.send(&mut way, batch).await;
        if matches!(sent, Ok(()) | Err(SinkError::Refused(_))) {
            self.way = Some(way);
        }
        sent
    }

    async fn check(&mut self) -> Result<(), SinkError> {
        let Some(Way::Stream(stream)) = &mut self.way else {
            return Ok(());
        };
        let alive = stream.alive().await;
        alive.map_err(|error| {
            self.way = None;
            self.error("lost the connection to", &error)
        })
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

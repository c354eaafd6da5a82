//! Syslog over a connection: TCP, TLS, or a local stream socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest pause between two looks at what is not acknowledged.
const POLL_MAX: Duration = Duration::from_millis(50);
/// Reads of 4 KiB in one look for the connection's end. A syslog receiver sends nothing.
const READS: usize = 16;
/// How long what the kernel has may take to come out of TLS; its own records, such as
/// session tickets, do not come out at all.
const READ: Duration = Duration::from_millis(50);

/// A connection to a receiver.
pub(super) enum Stream {
    /// Plain.
    Tcp(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
    /// To a receiver on this node.
    Local(UnixStream),
}

impl Stream {
    /// Connects to `host:port`, with TLS if there are settings for it.
    pub(super) async fn connect(address: &str, tls: Option<Arc<ClientConfig>>) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls else {
            return Ok(Self::Tcp(stream));
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Returns when the peer's kernel has all of it; for a local socket, when the
    /// receiver has read it.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await?,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await?;
            }
            Self::Local(stream) => stream.write_all(bytes).await?,
        }
        let mut pause = Duration::from_millis(1);
        // In this order: a connection that ends after the last acknowledgement is seen.
        while unacknowledged(self.as_fd())? > 0 {
            self.alive().await?;
            sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
        self.alive().await
    }

    /// Whether neither side has ended the connection. Asks the kernel first: tokio's
    /// readiness may be older than a FIN that has just come.
    pub(super) async fn alive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        for _ in 0..READS {
            match recv(
                self.as_fd(),
                &mut buffer[..1],
                RecvFlags::DONTWAIT | RecvFlags::PEEK,
            ) {
                Ok((0, _)) => return Err(closed()),
                // Read, as it may be the last thing before the end.
                Ok(_) => match timeout(READ, self.read(&mut buffer)).await {
                    Ok(Ok(0)) => return Err(closed()),
                    Ok(Err(error)) => return Err(error),
                    Ok(Ok(_)) | Err(_) => {}
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the receiver sends data, which a syslog receiver does not",
        ))
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
            Self::Local(stream) => stream.read(buffer).await,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
            Self::Local(stream) => stream.as_fd(),
        }
    }
}

/// Whether `error` is the receiver's word that it does not want us: TLS's alert.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|it| it.downcast_ref());
    matches!(tls, Some(rustls::Error::AlertReceived(_)))
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the receiver closed the connection",
    )
}

/// Bytes written that the peer's kernel has not acknowledged; of a local socket, that
/// its reader has not read. SIOCOUTQ, which is TIOCOUTQ, is answered by the kernel's
/// `tcp_ioctl` with `write_seq - snd_una`, by `unix_ioctl` with what the socket's
/// messages take in the receiver's queue.
pub(super) fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and
    // TIOCOUTQ writes one int to the pointer, which is to a live one.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(bytes)
    }
}

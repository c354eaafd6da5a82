//! Syslog in datagrams: UDP (RFC 5426), or a local datagram socket. One is one message.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use tokio::net::{UdpSocket, UnixDatagram, lookup_host};
use tokio::time::sleep;

use super::stream::unacknowledged;

/// How long after the last datagram a host may take to say that nothing listens there:
/// an ICMP answer is all that UDP ever gets.
const ANSWER: Duration = Duration::from_millis(100);
/// Pause between two looks whether a local receiver has read.
const POLL: Duration = Duration::from_millis(5);

/// A socket that sends datagrams to a receiver.
pub(super) enum Datagrams {
    /// Over the network.
    Udp(UdpSocket),
    /// To a receiver on this node.
    Local(UnixDatagram),
}

impl Datagrams {
    /// A socket for UDP to `host:port`: the first of its addresses.
    pub(super) async fn udp(address: &str) -> io::Result<Self> {
        let Some(to) = lookup_host(address).await?.next() else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            ));
        };
        let any = match to {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(to).await?;
        Ok(Self::Udp(socket))
    }

    /// One to the socket at `path`.
    pub(super) fn local(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self::Local(socket))
    }

    /// Sends one message. Waits while a local receiver's queue is full.
    pub(super) async fn send(&self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(message).await?,
            Self::Local(socket) => socket.send(message).await?,
        };
        Ok(())
    }

    /// Returns when a local receiver has read everything; for UDP, when no answer has
    /// come that nothing listens there.
    pub(super) async fn sent(&self) -> io::Result<()> {
        match self {
            Self::Udp(socket) => {
                sleep(ANSWER).await;
                socket.take_error()?.map_or(Ok(()), Err)
            }
            Self::Local(socket) => {
                while unacknowledged(socket.as_fd())? > 0 {
                    sleep(POLL).await;
                }
                Ok(())
            }
        }
    }
}

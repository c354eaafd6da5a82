//! The sockets of a process that runs already: what they are, and their cookies.
//!
//! A duplicate of each is fetched with pidfd_getfd(), which works whatever network
//! namespace it is in, asked for its addresses, and closed at once. Nothing is ever
//! read from it, and it is never kept: a process that closes its own meanwhile
//! would otherwise not end its connection.

#![forbid(unsafe_code)]

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::sockopt::{socket_acceptconn, socket_cookie, socket_domain, socket_protocol};
use rustix::net::{AddressFamily, getpeername, getsockname, ipproto};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// An internet socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The kernel's number of it.
    pub cookie: u64,
    /// TCP, else UDP.
    pub is_tcp: bool,
    /// This end.
    pub local: SocketAddr,
    /// What it is for.
    pub role: Role,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepts connections.
    Listener,
    /// It is connected.
    Connected(SocketAddr),
    /// Neither.
    Other,
}

/// The internet sockets among the file descriptors of a process, `limit` sockets
/// at most being looked at, and whether that was all. Empty when the process has
/// gone or may not be looked into.
pub fn of_process(pid: u32, limit: usize) -> (Vec<Socket>, bool) {
    let mut found = Vec::new();
    let Some(process) = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return (found, true);
    };
    for (looked, number) in numbers(pid).enumerate() {
        if looked == limit {
            return (found, false);
        }
        // One that was closed meanwhile is not there any more.
        let fetched = pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty());
        found.extend(
            fetched
                .ok()
                .and_then(|socket: OwnedFd| look(socket.as_fd())),
        );
    }
    (found, true)
}

/// The file descriptors that are sockets.
fn numbers(pid: u32) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok();
    entries.into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        target
            .as_os_str()
            .as_encoded_bytes()
            .starts_with(b"socket:")
            .then(|| entry.file_name().to_str()?.parse().ok())
            .flatten()
    })
}

fn look(socket: BorrowedFd<'_>) -> Option<Socket> {
    let domain = socket_domain(socket).ok()?;
    if domain != AddressFamily::INET && domain != AddressFamily::INET6 {
        return None;
    }
    let is_tcp = match socket_protocol(socket).ok()?? {
        ipproto::TCP | ipproto::MPTCP => true,
        ipproto::UDP => false,
        _ => return None,
    };
    let role = if socket_acceptconn(socket).unwrap_or(false) {
        Role::Listener
    } else {
        let peer = getpeername(socket).ok().flatten();
        peer.and_then(|peer| SocketAddr::try_from(peer).ok())
            .map_or(Role::Other, Role::Connected)
    };
    Some(Socket {
        cookie: socket_cookie(socket).ok()?,
        is_tcp,
        local: SocketAddr::try_from(getsockname(socket).ok()?).ok()?,
        role,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn finds_listeners_connections_and_datagram_sockets_and_leaves_them_open() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("a connection");
        let (server, _) = listener.accept().expect("the connection");
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (found, all) = of_process(std::process::id(), 10_000);
        assert!(all);
        let local = client.local_addr().expect("an address");
        let role = |local, of: &dyn Fn(Role) -> bool| {
            let mut same = found.iter().filter(|it| it.local == local);
            same.any(|it| of(it.role))
        };
        assert!(role(address, &|it| it == Role::Listener));
        assert!(role(address, &|it| it == Role::Connected(local)));
        assert!(role(local, &|it| it == Role::Connected(address)));
        let own = datagrams.local_addr().expect("an address");
        let datagrams = found.iter().find(|it| it.local == own).expect("found");
        assert_eq!((datagrams.role, datagrams.is_tcp), (Role::Other, false));
        for (socket, from) in [(&client, local), (&server, address)] {
            let cookie = socket_cookie(socket).expect("a cookie");
            let one = found.iter().find(|it| it.cookie == cookie);
            assert_eq!(one.map(|it| it.local), Some(from));
        }
    }

    #[test]
    fn looks_at_no_more_sockets_than_it_may_and_says_so() {
        let _one = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let _other = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (found, all) = of_process(std::process::id(), 1);
        assert!(found.len() <= 1 && !all);
    }

    #[test]
    fn a_process_that_is_not_there_has_none() {
        assert_eq!(of_process(u32::MAX, 1), (Vec::new(), true));
    }
}

//! Sockets and the descriptors they are known by.

use std::io::Write;
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Result, ensure};

use crate::{LOGIN, Task, answered, check, kernel_address};

/// A TCP socket that is not connected yet.
pub fn socket() -> Result<TcpStream> {
    // SAFETY: takes no addresses.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    check(socket, "socket")?;
    // SAFETY: a new descriptor, which nothing else owns.
    Ok(unsafe { TcpStream::from_raw_fd(socket) })
}

/// Connects a socket.
pub fn connect(stream: &TcpStream, to: SocketAddrV4) -> Result<()> {
    let address = kernel_address(to);
    // SAFETY: the address lives through the call.
    let result = unsafe {
        libc::connect(
            stream.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    check(result, "connect").map(drop)
}

/// connect() to an ordinary service, connect(AF_UNSPEC), connect() to the pool:
/// all with one socket. Argument: the ordinary service's address.
pub fn reused(task: &Task) -> Result<()> {
    let mut stream = socket()?;
    connect(&stream, task.argument(0)?.parse()?)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let nothing = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as u16,
        sa_data: [0; 14],
    };
    // SAFETY: the address lives through the call.
    let result = unsafe {
        libc::connect(
            stream.as_raw_fd(),
            &raw const nothing,
            size_of_val(&nothing) as u32,
        )
    };
    check(result, "connect(AF_UNSPEC)")?;
    connect(&stream, task.pool)?;
    stream.write_all(LOGIN.as_bytes())?;
    answered(stream)
}

/// A socket with the highest descriptor there can be.
pub fn high(task: &Task) -> Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid place for the limits.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    check(got, "getrlimit")?;
    limit.rlim_cur = limit.rlim_max;
    let far = i32::try_from(limit.rlim_max.min(60_000))? - 1;
    ensure!(far > 1024, "no more than {far} descriptors are allowed");
    let low = socket()?;
    // SAFETY: the limit lives through the call; the new descriptor is nobody's.
    let mut stream = unsafe {
        check(
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit),
            "setrlimit",
        )?;
        check(libc::dup2(low.as_raw_fd(), far), "dup2")?;
        TcpStream::from_raw_fd(far)
    };
    drop(low);
    connect(&stream, task.pool)?;
    stream.write_all(LOGIN.as_bytes())?;
    answered(stream)
}

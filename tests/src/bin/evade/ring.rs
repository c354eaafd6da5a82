//! io_uring (since 5.1; sockets since 5.19): no connect() or send() system call
//! is made.

use std::os::fd::FromRawFd;

use anyhow::{Context, Result, ensure};
use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};

use crate::{LOGIN, Task, answered, kernel_address};

/// The kernel works when the ring is entered.
pub fn plain(task: &Task) -> Result<()> {
    log_in(task, IoUring::new(8), squeue::Flags::empty())
}

/// The kernel leaves the work to threads of its own.
pub fn worker_thread(task: &Task) -> Result<()> {
    log_in(task, IoUring::new(8), squeue::Flags::ASYNC)
}

/// A thread of the kernel's looks for work by itself.
pub fn kernel_thread(task: &Task) -> Result<()> {
    let ring = IoUring::builder().setup_sqpoll(1000).build(8);
    log_in(task, ring, squeue::Flags::empty())
}

fn log_in(task: &Task, ring: std::io::Result<IoUring>, flags: squeue::Flags) -> Result<()> {
    let mut ring = ring.context("the kernel refuses io_uring")?;
    let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0);
    let socket = perform(&mut ring, &socket.build().flags(flags)).context("IORING_OP_SOCKET")?;
    let address = kernel_address(task.pool);
    let size = size_of_val(&address) as u32;
    let connect = opcode::Connect::new(Fd(socket), (&raw const address).cast(), size);
    perform(&mut ring, &connect.build().flags(flags)).context("IORING_OP_CONNECT")?;
    let send = opcode::Send::new(Fd(socket), LOGIN.as_ptr(), LOGIN.len() as u32);
    let sent = perform(&mut ring, &send.build().flags(flags)).context("IORING_OP_SEND")?;
    ensure!(sent as usize == LOGIN.len(), "{sent} bytes were sent");
    // SAFETY: the socket that was just made, which nothing else owns.
    answered(unsafe { std::net::TcpStream::from_raw_fd(socket) })
}

fn perform(ring: &mut IoUring, entry: &squeue::Entry) -> std::io::Result<i32> {
    // SAFETY: what the entry points to lives until its completion, which is waited
    // for before this returns.
    unsafe { ring.submission().push(entry) }.map_err(std::io::Error::other)?;
    ring.submit_and_wait(1)?;
    let done = ring.completion().next();
    let result = done.map_or(-libc::EIO, |done| done.result());
    match result {
        error if error < 0 => Err(std::io::Error::from_raw_os_error(-error)),
        result => Ok(result),
    }
}

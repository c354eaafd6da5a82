//! Every way to say something to a socket.

use std::io::{IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr;

use anyhow::{Result, ensure};

use crate::{LOGIN, Task, answered, check, code};

/// sendmsg() of several pieces.
pub fn sendmsg(task: &Task) -> Result<()> {
    said(task, |stream| {
        let mut pieces = pieces();
        let message = message(&mut pieces);
        // SAFETY: the message and its pieces live through the call.
        let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, 0) };
        check(sent as i64, "sendmsg")
    })
}

/// sendmmsg(): several messages in one call.
pub fn sendmmsg(task: &Task) -> Result<()> {
    said(task, |stream| {
        let mut pieces = pieces();
        let mut messages: Vec<libc::mmsghdr> = pieces
            .chunks_mut(2)
            .map(|pair| libc::mmsghdr {
                msg_hdr: message(pair),
                msg_len: 0,
            })
            .collect();
        let count = messages.len();
        // SAFETY: the messages and their pieces live through the call.
        let done =
            unsafe { libc::sendmmsg(stream.as_raw_fd(), messages.as_mut_ptr(), count as u32, 0) };
        ensure!(
            done as usize == count,
            "{done} of {count} messages were sent"
        );
        Ok(messages.iter().map(|it| i64::from(it.msg_len)).sum())
    })
}

/// writev().
pub fn writev(task: &Task) -> Result<()> {
    said(task, |mut stream| {
        let pieces: Vec<_> = LOGIN.as_bytes().chunks(7).map(IoSlice::new).collect();
        Ok(stream.write_vectored(&pieces)? as i64)
    })
}

/// sendfile() from a file in memory.
pub fn sendfile(task: &Task) -> Result<()> {
    said(task, |stream| {
        let file = code::in_memory(c"login", LOGIN.as_bytes())?;
        let mut offset = 0;
        // SAFETY: `offset` is a valid place.
        let sent = unsafe {
            libc::sendfile(
                stream.as_raw_fd(),
                file.as_raw_fd(),
                &raw mut offset,
                LOGIN.len(),
            )
        };
        check(sent as i64, "sendfile")
    })
}

/// vmsplice() into a pipe, splice() out of it: the bytes are never written.
pub fn splice(task: &Task) -> Result<()> {
    said(task, |stream| {
        let (from, into) = std::io::pipe()?;
        let piece = libc::iovec {
            iov_base: LOGIN.as_ptr().cast_mut().cast(),
            iov_len: LOGIN.len(),
        };
        // SAFETY: the text lives for ever, and is only read.
        let given = unsafe { libc::vmsplice(into.as_raw_fd(), &raw const piece, 1, 0) };
        check(given as i64, "vmsplice")?;
        // SAFETY: no offsets are given.
        let moved = unsafe {
            libc::splice(
                from.as_raw_fd(),
                ptr::null_mut(),
                stream.as_raw_fd(),
                ptr::null_mut(),
                LOGIN.len(),
                0,
            )
        };
        check(moved as i64, "splice")
    })
}

/// MSG_ZEROCOPY (since 4.14): the kernel sends from the program's own memory.
pub fn zero_copy(task: &Task) -> Result<()> {
    said(task, |stream| {
        let on: libc::c_int = 1;
        // SAFETY: the option's value lives through the call, and the text for ever.
        let sent = unsafe {
            let set = libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ZEROCOPY,
                (&raw const on).cast(),
                size_of_val(&on) as u32,
            );
            check(set, "SO_ZEROCOPY")?;
            libc::send(
                stream.as_raw_fd(),
                LOGIN.as_ptr().cast(),
                LOGIN.len(),
                libc::MSG_ZEROCOPY,
            )
        };
        check(sent as i64, "send")
    })
}

/// A segment for each byte.
pub fn byte_by_byte(task: &Task) -> Result<()> {
    said(task, |mut stream| {
        stream.set_nodelay(true)?;
        for byte in LOGIN.as_bytes() {
            stream.write_all(std::slice::from_ref(byte))?;
        }
        Ok(LOGIN.len() as i64)
    })
}

/// Connects, has `say` send the login, and reads the answer.
fn said(task: &Task, say: impl FnOnce(&TcpStream) -> Result<i64>) -> Result<()> {
    let stream = TcpStream::connect(task.pool)?;
    let sent = say(&stream)?;
    ensure!(sent == LOGIN.len() as i64, "{sent} bytes were sent");
    answered(stream)
}

/// The login in pieces of eleven bytes.
fn pieces() -> Vec<libc::iovec> {
    let pieces = LOGIN.as_bytes().chunks(11);
    let piece = |bytes: &[u8]| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    pieces.map(piece).collect()
}

fn message(pieces: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: zeroes are a message without a name, pieces or control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    message
}

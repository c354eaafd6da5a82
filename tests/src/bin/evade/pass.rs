//! Sockets that are used by another process of the agent than made them.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::{LOGIN, Task, answered, descriptors, in_child};

/// The parent connects, the child logs in.
pub fn to_a_child(task: &Task) -> Result<()> {
    let stream = TcpStream::connect(task.pool)?;
    in_child(|| {
        (&stream).write_all(LOGIN.as_bytes())?;
        answered(stream.try_clone()?)
    })
}

/// One process makes the socket, another gets it over a Unix socket, connects it
/// and logs in; the first has closed it.
pub fn over_a_unix_socket(task: &Task) -> Result<()> {
    let (one, other) = UnixStream::pair()?;
    let stream = descriptors::socket()?;
    send(&one, stream.as_fd())?;
    drop(stream);
    in_child(|| {
        let mut stream = TcpStream::from(receive(&other)?);
        descriptors::connect(&stream, task.pool)?;
        stream.write_all(LOGIN.as_bytes())?;
        answered(stream)
    })
}

fn send(over: &UnixStream, fd: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let text = [IoSlice::new(b"x")];
    sendmsg(over, &text, &mut control, SendFlags::empty())?;
    Ok(())
}

/// Receives one descriptor.
pub fn receive(over: &UnixStream) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut text = [IoSliceMut::new(&mut byte)];
    recvmsg(over, &mut text, &mut control, RecvFlags::empty())?;
    let mut messages = control.drain();
    let fds = messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    fds.and_then(|mut fds| fds.next())
        .context("no descriptor came")
}

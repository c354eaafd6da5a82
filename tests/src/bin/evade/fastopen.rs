//! TCP Fast Open (RFC 7413, since 3.7): the first words come with the SYN.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};

use crate::{LOGIN, Task, answered, check, descriptors, kernel_address};

/// sendto(MSG_FASTOPEN) instead of connect(). Twice: the first time the server
/// gives a cookie, the second time the data is in the SYN.
pub fn sendto(task: &Task) -> Result<()> {
    for _ in 0..2 {
        let stream = descriptors::socket()?;
        let address = kernel_address(task.pool);
        // SAFETY: text and address live through the call.
        let sent = unsafe {
            libc::sendto(
                stream.as_raw_fd(),
                LOGIN.as_ptr().cast(),
                LOGIN.len(),
                libc::MSG_FASTOPEN,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        check(sent as i64, "sendto(MSG_FASTOPEN)")?;
        ensure!(sent as usize == LOGIN.len(), "{sent} bytes were sent");
        println!("data with the SYN: {}", data_with_syn(&stream)?);
        answered(stream)?;
    }
    Ok(())
}

/// TCP_FASTOPEN_CONNECT (since 4.11): connect() does nothing yet, write() connects.
pub fn connect(task: &Task) -> Result<()> {
    for _ in 0..2 {
        let mut stream = descriptors::socket()?;
        let on: libc::c_int = 1;
        // SAFETY: the option's value lives through the call.
        let set = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_FASTOPEN_CONNECT,
                (&raw const on).cast(),
                size_of_val(&on) as u32,
            )
        };
        check(set, "TCP_FASTOPEN_CONNECT")?;
        descriptors::connect(&stream, task.pool)?;
        stream.write_all(LOGIN.as_bytes())?;
        println!("data with the SYN: {}", data_with_syn(&stream)?);
        answered(stream)?;
    }
    Ok(())
}

/// TCPI_OPT_SYN_DATA, bit 5 of `tcpi_options`, the sixth byte of struct tcp_info
/// (include/uapi/linux/tcp.h): the other end has taken the SYN's data.
fn data_with_syn(stream: &TcpStream) -> Result<bool> {
    // Wait for the handshake: the peer's name is known before.
    let mut ready = libc::pollfd {
        fd: stream.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let mut info = [0_u8; 104];
    let mut size = info.len() as u32;
    // SAFETY: the places and their sizes are given; the socket lives.
    unsafe {
        check(libc::poll(&raw mut ready, 1, 5000), "poll")?;
        let socket = stream.as_raw_fd();
        let place = info.as_mut_ptr().cast();
        let got = libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            place,
            &raw mut size,
        );
        check(got, "TCP_INFO")?;
    }
    Ok(info[5] & 1 << 5 != 0)
}

//! What no cgroup program sees.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};

use crate::{LOGIN, Task, answered, check, descriptors, escape, pass};

/// Logs in with a socket that came from outside the agent. Argument: the Unix
/// socket where it is handed out.
pub fn receive(task: &Task) -> Result<()> {
    let giver = UnixStream::connect(task.argument(0)?)?;
    let mut stream = TcpStream::from(pass::receive(&giver)?);
    // It may have been connected outside.
    if stream.peer_addr().is_err() {
        descriptors::connect(&stream, task.pool)?;
    }
    stream.write_all(LOGIN.as_bytes())?;
    let copy = stream.try_clone()?;
    answered(stream)?;
    escape::linger(task);
    drop(copy);
    Ok(())
}

/// Sends a datagram as a frame of its own making. Argument: the interface.
pub fn packet_socket(task: &Task) -> Result<()> {
    let interface = std::ffi::CString::new(task.argument(0)?)?;
    // ETH_P_IP and the address of AF_PACKET, packet(7).
    let ethernet = 0x0800_u16.to_be();
    // SAFETY: zeroes are an address; the string is one of C; address and text live
    // through the calls.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0);
        check(socket, "socket(AF_PACKET)")?;
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = ethernet;
        to.sll_ifindex = libc::if_nametoindex(interface.as_ptr()) as i32;
        ensure!(to.sll_ifindex != 0, "no interface {interface:?}");
        to.sll_halen = 6;
        to.sll_addr = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
        let datagram = datagram(task);
        let sent = libc::sendto(
            socket,
            datagram.as_ptr().cast(),
            datagram.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        );
        check(sent as i64, "sendto")?;
        socket
    };
    escape::linger(task);
    // SAFETY: a descriptor of this process.
    check(unsafe { libc::close(socket) }, "close").map(drop)
}

/// An IPv4 datagram of UDP to the pool, without checksums.
fn datagram(task: &Task) -> Vec<u8> {
    let total = (28 + LOGIN.len()) as u16;
    let mut bytes = vec![0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0, 203, 0, 113, 10]);
    bytes.extend(task.pool.ip().octets());
    bytes.extend(4444_u16.to_be_bytes());
    bytes.extend(task.pool.port().to_be_bytes());
    bytes.extend((total - 20).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(LOGIN.as_bytes());
    bytes
}

/// Opens a TUN device and sends a datagram of its own making by it.
pub fn tun(task: &Task) -> Result<()> {
    let mut device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .context("/dev/net/tun")?;
    // SAFETY: zeroes are a request; IFF_TUN and IFF_NO_PI of linux/if_tun.h.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..4].copy_from_slice(&[b't' as i8, b'u' as i8, b'n' as i8, b'9' as i8]);
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        let set = libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request);
        check(set, "TUNSETIFF")?;
    }
    let up = std::process::Command::new("ip")
        .args(["link", "set", "tun9", "up"])
        .status()?;
    ensure!(up.success(), "ip link set tun9 up: {up}");
    device.write_all(&datagram(task))?;
    escape::linger(task);
    Ok(())
}

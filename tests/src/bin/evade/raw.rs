//! System calls without the C library, by the 64-bit and the 32-bit gate.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Context, Result, ensure};

use crate::{LOGIN, Task, answered, check, kernel_address};

/// Numbers of arch/x86/entry/syscalls/syscall_64.tbl.
const SOCKET: usize = 41;
const CONNECT: usize = 42;
const SENDTO: usize = 44;
/// Numbers of arch/x86/entry/syscalls/syscall_32.tbl.
const GETPID_32: usize = 20;
const SOCKET_32: usize = 359;
const CONNECT_32: usize = 362;
const SENDTO_32: usize = 369;

/// The `syscall` instruction.
pub fn syscall(task: &Task) -> Result<()> {
    let address = kernel_address(task.pool);
    let size = size_of_val(&address);
    // SAFETY: the addresses given live through the calls, and the kernel only
    // reads what they point to.
    let socket = unsafe {
        let socket = result(gate64(SOCKET, [2, 1, 0, 0, 0, 0]), "socket")?;
        let at = (&raw const address) as usize;
        result(gate64(CONNECT, [socket, at, size, 0, 0, 0]), "connect")?;
        let said = [socket, LOGIN.as_ptr() as usize, LOGIN.len(), 0, 0, 0];
        result(gate64(SENDTO, said), "sendto")?;
        socket
    };
    // SAFETY: the socket that was just made, which nothing else owns.
    answered(unsafe { TcpStream::from_raw_fd(socket as i32) })
}

/// `int 0x80`, which takes 32-bit system calls from 64-bit programs too.
pub fn int80(task: &Task) -> Result<()> {
    // The kernel kills who uses a gate that it does not have.
    crate::in_child(|| {
        // SAFETY: getpid takes nothing.
        let pid = unsafe { gate32(GETPID_32, [0; 4]) };
        ensure!(pid == std::process::id() as isize, "getpid gave {pid}");
        Ok(())
    })
    .context("the kernel takes no 32-bit system calls (CONFIG_IA32_EMULATION)")?;
    // SAFETY: a new private mapping, below 4 GiB, where 32-bit addresses reach.
    let low = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        )
    };
    ensure!(low != libc::MAP_FAILED, "no memory below 4 GiB");
    let address = kernel_address(task.pool);
    let size = size_of_val(&address);
    let at = low as usize;
    // SAFETY: the mapping has room for both; nothing else refers to it. The calls
    // only read what they are given the addresses of.
    let socket = unsafe {
        low.cast::<libc::sockaddr_in>().write(address);
        let login = low.cast::<u8>().add(size);
        login.copy_from_nonoverlapping(LOGIN.as_ptr(), LOGIN.len());
        let socket = result(gate32(SOCKET_32, [2, 1, 0, 0]), "socket")?;
        result(gate32(CONNECT_32, [socket, at, size, 0]), "connect")?;
        let said = [socket, at + size, LOGIN.len(), 0];
        result(gate32(SENDTO_32, said), "sendto")?;
        socket
    };
    // SAFETY: the socket that was just made, which nothing else owns.
    answered(unsafe { TcpStream::from_raw_fd(socket as i32) })
}

/// Multipath TCP (since 5.6): the program's socket is not the one that carries.
pub fn mptcp(task: &Task) -> Result<()> {
    use std::io::Write;
    // SAFETY: takes no addresses.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) };
    check(socket, "socket(IPPROTO_MPTCP)")?;
    // SAFETY: the socket that was just made, which nothing else owns.
    let mut stream = unsafe { TcpStream::from_raw_fd(socket) };
    crate::descriptors::connect(&stream, task.pool)?;
    stream.write_all(LOGIN.as_bytes())?;
    println!("multipath: {}", is_multipath(&stream));
    answered(stream)
}

/// Whether the other end speaks it too: TCP sockets, which it falls back to, know
/// nothing of SOL_MPTCP and MPTCP_INFO (include/uapi/linux/mptcp.h).
fn is_multipath(stream: &TcpStream) -> bool {
    let mut info = [0_u8; 256];
    let mut size = info.len() as u32;
    let place = info.as_mut_ptr().cast();
    // SAFETY: the place and its size are given.
    let got = unsafe { libc::getsockopt(stream.as_raw_fd(), 284, 1, place, &raw mut size) };
    got == 0
}

/// What a gate gives: a value, or an error's negative number.
fn result(value: isize, call: &str) -> Result<usize> {
    match usize::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => {
            Err(std::io::Error::from_raw_os_error(-value as i32)).with_context(|| call.to_owned())
        }
    }
}

/// # Safety
/// As the system call.
unsafe fn gate64(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the calling convention of arch/x86/entry/entry_64.S; the caller
    // vouches for what the call does.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            out("rcx") _, out("r11") _,
        );
    }
    result
}

/// # Safety
/// As the system call, whose addresses are of 32 bits.
unsafe fn gate32(number: usize, arguments: [usize; 4]) -> isize {
    let [a, b, c, d] = arguments;
    let result: i64;
    // SAFETY: the calling convention of arch/x86/entry/entry_64_compat.S; rbx is
    // the compiler's, so it is put back. The caller vouches for what the call does.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {a}",
            "int 0x80",
            "xchg rbx, {a}",
            a = inout(reg) a => _,
            inlateout("rax") number as i64 => result,
            in("rcx") b, in("rdx") c, in("rsi") d, in("rdi") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    // The kernel gives 32 bits.
    result as i32 as isize
}

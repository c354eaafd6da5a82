//! Addresses, protocols' and states' numbers, as hooks give them and as records carry them.

use agent_monitor_common::event::Endpoint;
use aya_ebpf::bindings::bpf_sock;

/// include/uapi/linux/in.h
pub const IPPROTO_TCP: u32 = 6;
/// include/uapi/linux/in.h
pub const IPPROTO_ICMP: u32 = 1;
/// include/uapi/linux/in6.h
pub const IPPROTO_ICMPV6: u32 = 58;
/// include/uapi/linux/in.h
pub const IPPROTO_UDP: u32 = 17;

/// include/uapi/linux/in.h
pub const IPPROTO_MPTCP: u32 = 262;
/// include/linux/net.h
pub const SOCK_RAW: u32 = 3;
/// include/net/tcp_states.h; a datagram socket that is connected has it too.
pub const TCP_ESTABLISHED: u32 = 1;
/// include/net/tcp_states.h
pub const TCP_CLOSE: u32 = 7;
/// include/net/tcp_states.h
pub const TCP_LISTEN: u32 = 10;

/// include/linux/socket.h
const AF_INET: u32 = 2;
/// The third word of a v4-mapped address (RFC 4291, 2.5.5.2), in memory order.
const MAPPED: u32 = 0xffff_0000;

/// An IPv4 address in network order, v4-mapped.
#[inline(always)]
pub fn mapped(ip: u32) -> [u32; 4] {
    [0, 0, MAPPED, ip]
}

/// Whether an address is a v4-mapped one.
#[inline(always)]
pub fn is_mapped(ip: &[u32; 4]) -> bool {
    ip[0] == 0 && ip[1] == 0 && ip[2] == MAPPED
}

/// What a socket is connected to: address, and port in host order.
///
/// # Safety
/// `sk` is a socket pointer from a program's context, checked for null.
#[inline(always)]
pub unsafe fn connected(sk: *mut bpf_sock) -> ([u32; 4], u32) {
    // SAFETY: per this function's contract; members that any socket has, a word at
    // a time.
    unsafe {
        let ip = if (*sk).family == AF_INET {
            mapped((*sk).dst_ip4)
        } else {
            words((&raw const (*sk).dst_ip6).cast())
        };
        (ip, u32::from(u16::from_be((*sk).dst_port)))
    }
}

/// Four words of a hook's context, one at a time: the kernel rewrites each access.
///
/// # Safety
/// `from` points at four words of the context.
#[inline(always)]
pub unsafe fn words(from: *const u32) -> [u32; 4] {
    // SAFETY: per this function's contract.
    unsafe {
        [
            from.read_volatile(),
            from.add(1).read_volatile(),
            from.add(2).read_volatile(),
            from.add(3).read_volatile(),
        ]
    }
}

/// An endpoint from an address in network order and a port in host order.
#[inline(always)]
pub fn endpoint(ip: [u32; 4], port: u16) -> Endpoint {
    // SAFETY: sixteen bytes either way.
    let ip = unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(ip) };
    Endpoint {
        ip,
        port: u32::from(port),
        pad: 0,
    }
}

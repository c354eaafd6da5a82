//! Addresses, protocols' and states' numbers, as hooks give them and as records carry them.

use agent_monitor_common::event::Endpoint;

/// include/uapi/linux/in.h
pub const IPPROTO_TCP: u32 = 6;
/// include/uapi/linux/in.h
pub const IPPROTO_UDP: u32 = 17;

/// include/net/tcp_states.h
pub const TCP_CLOSE: u32 = 7;
/// include/net/tcp_states.h
pub const TCP_LISTEN: u32 = 10;

/// The third word of a v4-mapped address (RFC 4291, 2.5.5.2), in memory order.
const MAPPED: u32 = 0xffff_0000;

/// An IPv4 address in network order, v4-mapped.
#[inline(always)]
pub fn mapped(ip: u32) -> [u32; 4] {
    [0, 0, MAPPED, ip]
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

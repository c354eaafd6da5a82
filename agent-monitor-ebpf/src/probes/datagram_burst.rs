//! What was counted of datagrams, and the end of their sockets.

use agent_monitor_common::event::{Burst, DatagramBurst, FlowId, Released, Spell, kind};
use agent_monitor_common::limits::{BURST_BYTES, PEERS};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;

use crate::address::{IPPROTO_MPTCP, IPPROTO_TCP, endpoint};
use crate::emit;
use crate::maps::{EVENTS, PAYLOAD};
use crate::peers::{self, NOBODY, Peer};
use crate::sock::{CONNECTED, RAW, Sock};

/// Tells of a burst, if there is one. Its first bytes are not kept: datagrams go
/// up by themselves.
#[inline(always)]
pub fn send(socket: &Sock, burst: &Peer, now: u64) {
    if burst.packets == 0 {
        return;
    }
    emit::record::<DatagramBurst>(
        &PAYLOAD,
        kind::DATAGRAM_BURST,
        socket.agent,
        now,
        |record| {
            let len = size_of::<DatagramBurst>();
            let value = DatagramBurst {
                burst: Burst {
                    header: socket.header(kind::DATAGRAM_BURST, len, now),
                    flow: FlowId {
                        cookie: socket.flow.cookie,
                        generation: burst.who.generation,
                    },
                    spell: Spell {
                        first: burst.first,
                        last: burst.last,
                        bytes: burst.count,
                        offset: burst.offset,
                        packets: burst.packets,
                        direction: burst.direction,
                        data_len: 0,
                        pad: 0,
                        data: [0; BURST_BYTES],
                    },
                },
                remote: endpoint(burst.who.ip, burst.who.port as u16),
                protocol: burst.who.protocol,
                pad: 0,
            };
            // SAFETY: the place is a reservation of this type.
            unsafe { record.write(value) };
            true
        },
    );
}

/// Tells of all that was counted on a socket, and forgets its peers.
///
/// # Safety
/// `sk` is a socket pointer from a program's context, checked for null.
#[inline(always)]
pub unsafe fn end(sk: *mut bpf_sock, socket: &Sock, now: u64) {
    // SAFETY: per this function's contract.
    let Some(peers) = (unsafe { peers::get(sk) }) else {
        return;
    };
    for place in 0..PEERS {
        let mut ended = NOBODY;
        peers.forget(place, &mut ended);
        send(socket, &ended, now);
    }
}

/// The socket is gone. Nothing is told of one that was neither connected nor used.
///
/// # Safety
/// As [`end`].
#[inline(always)]
pub unsafe fn released(sk: *mut bpf_sock, socket: &Sock) {
    if socket.flags & RAW == 0
        && (socket.protocol == IPPROTO_TCP || socket.protocol == IPPROTO_MPTCP)
    {
        return;
    }
    // SAFETY: per this function's contract.
    if socket.flags & CONNECTED == 0 && unsafe { peers::get(sk) }.is_none() {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: per this function's contract.
    unsafe { end(sk, socket, now) };
    // The other ring's records of the same time come after this ring's: the last
    // bursts are to be told of first.
    let now = now + 1;
    emit::record::<Released>(&EVENTS, kind::RELEASED, socket.agent, now, |record| {
        let value = Released {
            header: socket.header(kind::RELEASED, size_of::<Released>(), now),
            flow: socket.flow,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}

//! Bursts that end in quick succession are told of several at once: what a record
//! costs is more than what a burst is.
//!
//! A flow's first bursts, and all that come with some quiet between them, are told
//! of one by one as they end. What is kept is told of with the burst that makes it
//! enough or comes late, and at the flow's end.

use agent_monitor_common::event::{Bursts, Spell, kind};
use agent_monitor_common::limits::{BURSTS_AT_ONCE, QUICK_BURSTS, QUICK_NS};
use agent_monitor_common::policy::LossReason;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_sk_storage_get};

use super::burst::Ended;
use crate::emit;
use crate::maps::{BATCHES, PAYLOAD};
use crate::sock::Sock;

/// Bursts in quick succession that count: after some pauses in a row, those that
/// follow are told of one by one again.
const MOST_QUICK: u32 = QUICK_BURSTS << 2;

/// Value of [`BATCHES`]: a record as it is sent. Belongs to who holds the socket.
#[repr(C)]
pub struct Batch {
    bursts: Bursts,
    spells: [Spell; BURSTS_AT_ONCE],
}

/// Keeps a burst that ends now if others ended just before; `false` if it is to be
/// told of by itself.
#[inline(always)]
pub fn keep(sk: *mut bpf_sock, socket: &mut Sock, ended: &Ended, now: u64) -> bool {
    let burst = &mut socket.burst;
    let quick = now.saturating_sub(burst.ended) < QUICK_NS;
    burst.ended = now;
    // A pause halves it: who goes on as before need not begin anew.
    burst.quick = if quick {
        (burst.quick + 1).min(MOST_QUICK)
    } else {
        burst.quick / 2
    };
    if (burst.quick < QUICK_BURSTS || !quick) && burst.held == 0 {
        return false;
    }
    // SAFETY: a socket from the context, checked for null by the caller.
    let Some(batch) = (unsafe { storage(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)).as_mut() })
    else {
        return false;
    };
    if burst.held == 0 {
        burst.held_since = now;
    }
    batch.spells[burst.held as usize % BURSTS_AT_ONCE] = ended.spell(burst);
    burst.held += 1;
    let late = now.saturating_sub(burst.held_since) >= QUICK_NS;
    if burst.held >= BURSTS_AT_ONCE as u64 || late || !quick {
        send(socket, batch, now);
    }
    true
}

/// Tells of what is kept.
#[inline(always)]
pub fn flush(sk: *mut bpf_sock, socket: &mut Sock, now: u64) {
    if socket.burst.held == 0 {
        return;
    }
    // SAFETY: as in `keep`.
    if let Some(batch) = unsafe { storage(sk, 0).as_mut() } {
        send(socket, batch, now);
    }
}

#[inline(always)]
fn send(socket: &mut Sock, batch: &mut Batch, now: u64) {
    let count = core::mem::replace(&mut socket.burst.held, 0) as usize;
    let Some(allowed) = emit::allowed(&PAYLOAD, socket.agent, kind::BURSTS, now) else {
        return;
    };
    let len = size_of::<Bursts>() + count * size_of::<Spell>();
    batch.bursts = Bursts {
        header: socket.header(kind::BURSTS, len, now),
        flow: socket.flow,
        count: count as u32,
        pad: 0,
    };
    // SAFETY: a map value. Behind the last burst lie earlier ones of the same
    // socket, which user space does not read.
    let failed = unsafe {
        bpf_ringbuf_output(
            (&raw const PAYLOAD).cast_mut().cast(),
            (&raw mut *batch).cast(),
            size_of::<Batch>() as u64,
            emit::wake(now),
        )
    };
    if failed == 0 {
        allowed.sent();
    } else {
        allowed.lost(LossReason::Ring);
    }
}

/// # Safety
/// `sk` is a socket pointer from a program's context, checked for null.
#[inline(always)]
unsafe fn storage(sk: *mut bpf_sock, flags: u64) -> *mut Batch {
    // SAFETY: the loader puts the map in BATCHES' place; the caller vouches for `sk`.
    unsafe {
        bpf_sk_storage_get(
            (&raw const BATCHES).cast_mut().cast(),
            sk.cast(),
            core::ptr::null_mut(),
            flags,
        )
    }
    .cast()
}

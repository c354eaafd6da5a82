//! Atomic operations on map values.
//!
//! core has no read-modify-write atomics for BPF targets, but the instructions
//! exist since 5.12 (Documentation/bpf/standardization/instruction-set.rst,
//! "Atomic operations"). They are fully ordered.

use core::arch::asm;

/// Adds, and gives the value before.
///
/// # Safety
/// `to` points at an aligned integer in a map value or ring reservation.
#[inline(always)]
pub unsafe fn fetch_add(to: *mut u64, mut value: u64) -> u64 {
    // SAFETY: per this function's contract; one instruction that touches `to` only.
    unsafe {
        asm!("{value} = atomic_fetch_add((u64 *)({to} + 0), {value})",
             to = in(reg) to, value = inout(reg) value);
    }
    value
}

/// Stores, and gives the value before.
///
/// # Safety
/// As [`fetch_add`].
#[inline(always)]
pub unsafe fn swap(to: *mut u64, mut value: u64) -> u64 {
    // SAFETY: per this function's contract; one instruction that touches `to` only.
    unsafe {
        asm!("{value} = xchg_64({to} + 0, {value})",
             to = in(reg) to, value = inout(reg) value);
    }
    value
}

/// Stores `value` if `to` is `expected`; gives the value before.
///
/// # Safety
/// As [`fetch_add`].
#[inline(always)]
pub unsafe fn compare_exchange(to: *mut u64, expected: u64, value: u64) -> u64 {
    let before;
    // SAFETY: per this function's contract; one instruction that touches `to`
    // only, and r0, which it always compares with.
    unsafe {
        asm!("r0 = cmpxchg_64({to} + 0, r0, {value})",
             to = in(reg) to, value = in(reg) value, inout("r0") expected => before);
    }
    before
}

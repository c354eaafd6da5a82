//! Kernel objects whose type the verifier knows: reading a member of one is a
//! load, where `bpf_probe_read_kernel` is a call that takes as long as thirty.
//!
//! The verifier follows each pointer from the hook's own arguments on
//! (check_ptr_to_btf_access, kernel/bpf/verifier.c, since 5.5) and refuses a
//! program that reads what is no member there; the kernel turns a load that
//! faults into zero. So a pointer must stay in registers or on the stack.

/// A kernel object that is there.
#[derive(Clone, Copy)]
pub struct Object(*const u8);

impl Object {
    /// # Safety
    /// `pointer` comes from a hook's arguments, or from a helper that gives a typed
    /// object.
    #[inline(always)]
    pub unsafe fn new(pointer: *const u8) -> Option<Self> {
        (!pointer.is_null()).then_some(Self(pointer))
    }

    /// Where it is, as a mere number.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// A member: an integer of the member's size, or part of an array.
    #[inline(always)]
    pub fn get<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the verifier checks the offset against the object's type, and the
        // load cannot fault. Volatile, so that it is one load of this size.
        unsafe { self.0.add(offset as usize).cast::<T>().read_volatile() }
    }

    /// The object that a member points at.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Option<Self> {
        let pointer: *const u8 = self.get(offset);
        (!pointer.is_null()).then_some(Self(pointer))
    }
}

//! The path of an executable: what d_path() finds (fs/d_path.c), over mount points.

use core::ffi::c_void;
use core::ptr::null_mut;

use agent_monitor_common::limits::{PATH_CAP, PATH_COMPONENTS};
use aya_ebpf::helpers::generated::bpf_loop;

use super::{Scratch, read_str};
use crate::maps::{EXEC_SCRATCH, global};
use crate::object::Object;
use crate::task::{self, Address};

/// Bytes of one path component: NAME_MAX and a NUL (include/uapi/linux/limits.h).
const COMPONENT: usize = 256;
/// Room for names: a power of two.
const NAMES: usize = (PATH_COMPONENTS as usize).next_power_of_two();

/// A walk from a file up. In a map, because the verifier follows every value on
/// the stack from step to step, and none in a map.
pub struct Walk {
    /// The dentry to look at next.
    dentry: Address,
    /// The `vfsmount` it is seen through.
    mount: Address,
    /// How many names were found.
    count: u32,
    /// How many of them were copied.
    copied: u32,
    /// Bytes of [`Scratch::data`] in use.
    used: u64,
    /// `qstr.name` of what was passed, the leaf first.
    names: [Address; NAMES],
}

/// Writes the components of a file's path, from the leaf up to the root of its
/// mount namespace, each with a NUL, from `used` on; gives the end.
#[inline(always)]
pub fn write(scratch: &mut Scratch, used: usize, file: Object) -> usize {
    let walk = &mut scratch.walk;
    let first = file.follow(global!(OFFSETS.file_dentry));
    let mount = file.follow(global!(OFFSETS.file_mnt));
    let (Some(mut dentry), Some(mount)) = (first, mount) else {
        return used;
    };
    walk.count = 0;
    walk.copied = 0;
    walk.used = used as u64;
    walk.mount = mount.address();
    // Inside the file's own mount each step is a few loads.
    let root: Address = mount.get(global!(OFFSETS.vfsmount_root));
    for n in 0..PATH_COMPONENTS {
        if dentry.address() == root {
            break;
        }
        let Some(parent) = dentry.follow(global!(OFFSETS.dentry_parent)) else {
            break;
        };
        // A memfd lies in no directory: its only component is its own name.
        if parent.address() == dentry.address() && n > 0 {
            break;
        }
        walk.names[n as usize] = dentry.get(global!(OFFSETS.dentry_name));
        walk.count = n + 1;
        dentry = parent;
    }
    walk.dentry = dentry.address();
    // SAFETY: the kernel calls the two at most so often, one after the other.
    unsafe {
        bpf_loop(PATH_COMPONENTS, climb as *mut c_void, null_mut(), 0);
        bpf_loop(PATH_COMPONENTS, copy as *mut c_void, null_mut(), 0);
    }
    // SAFETY: a member of a map value, which the calls have changed.
    let end = unsafe { (&raw const scratch.walk.used).read_volatile() } as usize;
    if end < used || end > 3 * PATH_CAP {
        return used;
    }
    end
}

/// The walk that [`write`] has begun.
#[inline(always)]
fn scratch<'a>() -> Option<&'a mut Scratch> {
    let scratch = EXEC_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: `write` waits in its bpf_loop() meanwhile, and nobody else uses it.
    Some(unsafe { &mut *scratch })
}

/// One step up, from one mount to that above it where it has to be; 1 ends the walk.
/// Called by the kernel, so that the verifier follows it once and not for each step.
unsafe extern "C" fn climb(_index: u64, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else {
        return 1;
    };
    let walk = &mut scratch.walk;
    let root: Address = task::read(walk.mount, global!(OFFSETS.vfsmount_root));
    if walk.dentry == root {
        let inside = u64::from(global!(OFFSETS.mount_mnt));
        let mount = walk.mount.wrapping_sub(inside);
        let above: Address = task::read(mount, global!(OFFSETS.mount_parent));
        if above == mount || above == 0 {
            return 1;
        }
        walk.dentry = task::read(mount, global!(OFFSETS.mount_mountpoint));
        walk.mount = above.wrapping_add(inside);
        return 0;
    }
    let parent: Address = task::read(walk.dentry, global!(OFFSETS.dentry_parent));
    let n = walk.count as usize;
    if walk.dentry == 0 || (parent == walk.dentry && n > 0) || n >= PATH_COMPONENTS as usize {
        return 1;
    }
    walk.names[n & (NAMES - 1)] = task::read(walk.dentry, global!(OFFSETS.dentry_name));
    walk.count += 1;
    walk.dentry = parent;
    0
}

/// Copies one name; 1 after the last.
unsafe extern "C" fn copy(_index: u64, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else {
        return 1;
    };
    let walk = &mut scratch.walk;
    let (n, used) = (walk.copied, walk.used as usize);
    if n >= walk.count || used > 3 * PATH_CAP - COMPONENT {
        return 1;
    }
    // SAFETY: COMPONENT bytes from `used` on lie inside the first 3 × PATH_CAP.
    let to = unsafe { scratch.data.as_mut_ptr().add(used) };
    let name = walk.names[n as usize & (NAMES - 1)];
    walk.used += read_str(to, COMPONENT as u32, name) as u64;
    walk.copied += 1;
    i64::from(walk.copied == walk.count)
}

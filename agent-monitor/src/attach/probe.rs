//! Tries each kind of program that agent-monitor attaches: loads one that does
//! nothing, attaches it, detaches it.
//!
//! Whether a kernel knows a program type says little: configuration, security
//! modules and lockdown decide at load or only at attach. The program is two
//! instructions, so that nothing but the hook itself is tried.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use aya_obj::btf::{Btf, BtfError, BtfKind};
use aya_obj::generated::bpf_cmd;
use bytemuck::NoUninit;

use super::programs::Hook;
use super::sys;
use crate::enrich::cgroupfs::CgroupFs;

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The hook is not in the kernel's types.
    #[error("not found in the kernel's BTF: {0}")]
    Btf(#[from] BtfError),
    /// The program was refused.
    #[error("load refused: {0}")]
    Load(#[source] io::Error),
    /// The program could not be put on the hook.
    #[error("attach refused: {0}")]
    Attach(#[source] io::Error),
}

/// Loads, attaches and detaches a program that does nothing: on `cgroup`, or for
/// a tracepoint on the whole machine, for an instant.
///
/// # Errors
/// Which step the kernel refused, and why.
pub fn try_hook(hook: Hook, cgroup: BorrowedFd<'_>) -> Result<(), ProbeError> {
    let program = load(hook)?;
    let link = sys::attach(hook, program.as_fd(), cgroup);
    // Closing the link, the only reference to it, detaches the program.
    link.map(drop).map_err(ProbeError::Attach)
}

/// A cgroup of our own, empty, removed when this is dropped.
#[derive(Debug)]
pub struct ScratchCgroup {
    path: PathBuf,
    dir: File,
}

impl ScratchCgroup {
    /// Makes it at the top of the hierarchy.
    ///
    /// # Errors
    /// When the hierarchy cannot be written to.
    pub fn make(cgroups: &CgroupFs) -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = cgroups.dir(&format!(
            "/agent-monitor-doctor-{}-{number}",
            std::process::id()
        ));
        fs::create_dir(&path)?;
        match File::open(&path) {
            Ok(dir) => Ok(Self { path, dir }),
            Err(error) => fs::remove_dir(&path).and(Err(error)),
        }
    }

    /// Its directory, to attach to.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for ScratchCgroup {
    fn drop(&mut self) {
        // Nothing can be in it; should it fail, an empty cgroup stays behind.
        let _ = fs::remove_dir(&self.path);
    }
}

/// `r0 = 1; exit`: "allow" for the cgroup hooks, ignored by the others. An
/// instruction is a code, two registers, a 16-bit offset and a 32-bit immediate
/// (Documentation/bpf/standardization/instruction-set.rst).
const ALLOW: [[u8; 8]; 2] = {
    let one = 1_i32.to_ne_bytes();
    // BPF_ALU64 | BPF_MOV | BPF_K, then BPF_JMP | BPF_EXIT.
    [
        [0xb7, 0, 0, 0, one[0], one[1], one[2], one[3]],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ]
};
const LICENSE: &CStr = c"Dual MIT/GPL";

fn load(hook: Hook) -> Result<OwnedFd, ProbeError> {
    let (prog_type, attach_type) = hook.kind();
    let attach_btf_id = match hook {
        Hook::Tracepoint(point) => Btf::from_sys_fs()?
            .id_by_type_name_kind(&format!("btf_trace_{point}"), BtfKind::Typedef)?,
        Hook::Iterator(of) => {
            Btf::from_sys_fs()?.id_by_type_name_kind(&format!("bpf_iter_{of}"), BtfKind::Func)?
        }
        _ => 0,
    };
    let attr = ProgLoad {
        prog_type: prog_type as u32,
        insn_cnt: ALLOW.len() as u32,
        insns: ALLOW.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        expected_attach_type: attach_type as u32,
        attach_btf_id,
        ..ProgLoad::default()
    };
    sys::open(bpf_cmd::BPF_PROG_LOAD, &attr).map_err(ProbeError::Load)
}

/// The part of `union bpf_attr` for `BPF_PROG_LOAD`, up to the last member used
/// (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Default, NoUninit)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_laid_out_as_the_kernel_s() {
        use aya_obj::generated::bpf_attr__bindgen_ty_4 as Load;
        use std::mem::offset_of;
        assert_eq!(offset_of!(ProgLoad, prog_name), offset_of!(Load, prog_name));
        assert_eq!(
            offset_of!(ProgLoad, expected_attach_type),
            offset_of!(Load, expected_attach_type)
        );
        assert_eq!(
            offset_of!(ProgLoad, attach_btf_id),
            offset_of!(Load, attach_btf_id)
        );
    }
}

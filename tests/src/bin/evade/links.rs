//! Detaching somebody's programs, as root may.

use anyhow::{Result, ensure};

use crate::{Task, check};

/// Commands of bpf(2), include/uapi/linux/bpf.h.
const OBJ_GET_INFO_BY_FD: i32 = 15;
const LINK_GET_FD_BY_ID: i32 = 30;
const LINK_GET_NEXT_ID: i32 = 31;
const LINK_DETACH: i32 = 34;
/// BPF_LINK_TYPE_CGROUP.
const CGROUP: u32 = 3;

/// Detaches every program that is linked to one cgroup. Argument: its id.
pub fn detach(task: &Task) -> Result<()> {
    let cgroup: u64 = task.argument(0)?.parse()?;
    let mut detached = 0;
    let mut id = 0_u32;
    loop {
        let mut attr = [id, 0, 0];
        if bpf(LINK_GET_NEXT_ID, &mut attr).is_err() {
            break;
        }
        id = attr[1];
        // It may have gone meanwhile.
        let Ok(link) = bpf(LINK_GET_FD_BY_ID, &mut [id, 0, 0]) else {
            continue;
        };
        if is_of(link as u32, cgroup)? {
            bpf(LINK_DETACH, &mut [link as u32])?;
            detached += 1;
        }
        // SAFETY: a descriptor of this process.
        unsafe { libc::close(link as i32) };
    }
    ensure!(detached > 0, "nothing is linked to the cgroup {cgroup}");
    println!("detached {detached}");
    Ok(())
}

/// Whether a link is one to this cgroup, by its struct bpf_link_info: type, id,
/// prog_id, and for a cgroup's the cgroup's id at byte 16.
fn is_of(link: u32, cgroup: u64) -> Result<bool> {
    let mut info = [0_u64; 4];
    let at = info.as_mut_ptr() as u64;
    let mut attr = [
        link,
        size_of_val(&info) as u32,
        at as u32,
        (at >> 32) as u32,
    ];
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info[0] as u32 == CGROUP && info[2] == cgroup)
}

fn bpf<const N: usize>(command: i32, attr: &mut [u32; N]) -> Result<i64> {
    // SAFETY: the kernel reads and writes the words given, and for the information
    // of an object the place that they name, of the size that they name.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    check(result, "bpf")
}

/// Takes an agent out of the kernel map `WATCHED`. Argument: its cgroup's id.
pub fn forget(task: &Task) -> Result<()> {
    const MAP_DELETE_ELEM: i32 = 3;
    const MAP_GET_NEXT_ID: i32 = 12;
    const MAP_GET_FD_BY_ID: i32 = 14;
    let cgroup: u64 = task.argument(0)?.parse()?;
    let key = &raw const cgroup as u64;
    let mut forgotten = 0;
    let mut id = 0_u32;
    loop {
        let mut attr = [id, 0, 0];
        if bpf(MAP_GET_NEXT_ID, &mut attr).is_err() {
            break;
        }
        id = attr[1];
        let Ok(map) = bpf(MAP_GET_FD_BY_ID, &mut [id, 0, 0]) else {
            continue;
        };
        // struct bpf_map_info: the key's size at byte 8, the name at byte 24.
        let mut info = [0_u64; 5];
        let at = info.as_mut_ptr() as u64;
        let size = size_of_val(&info) as u32;
        let mut attr = [map as u32, size, at as u32, (at >> 32) as u32];
        bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
        let name = info[3].to_ne_bytes();
        if name == *b"WATCHED\0" && info[1] as u32 == size_of_val(&cgroup) as u32 {
            let mut attr = [map as u32, 0, key as u32, (key >> 32) as u32];
            forgotten += u32::from(bpf(MAP_DELETE_ELEM, &mut attr).is_ok());
        }
        // SAFETY: a descriptor of this process.
        unsafe { libc::close(map as i32) };
    }
    ensure!(forgotten > 0, "nobody watches the cgroup {cgroup}");
    Ok(())
}

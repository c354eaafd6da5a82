//! Static programs of a few instructions, without libraries or an interpreter,
//! for both architectures that the kernel runs.

use std::os::fd::FromRawFd;

use anyhow::{Context, Result, ensure};

use crate::{LOGIN, Task, check, in_child, kernel_address};

/// Where the file is in memory, and where in the file things are.
const BASE: u32 = 0x40_0000;
const CODE: usize = 0x80;
const ADDRESS: usize = 0x400;
const LENGTH: usize = 0x410;
const TEXT: usize = 0x420;
const SIZE: usize = 0x800;

// socket, connect, write, read the answer, exit(0); exit(errno) when connect fails.
// Addresses are BASE and the places above; what is read goes behind the file.
std::arch::global_asm!(
    ".pushsection .rodata.evade, \"a\"",
    ".global evade_code64, evade_code64_end, evade_code32, evade_code32_end",
    "evade_code64:",
    "mov eax, 41",
    "mov edi, 2",
    "mov esi, 1",
    "xor edx, edx",
    "syscall",
    "mov r12d, eax",
    "mov eax, 42",
    "mov edi, r12d",
    "mov esi, 0x400400",
    "mov edx, 16",
    "syscall",
    "mov edi, eax",
    "neg edi",
    "jnz 2f",
    "mov eax, 1",
    "mov edi, r12d",
    "mov esi, 0x400420",
    "mov edx, dword ptr [0x400410]",
    "syscall",
    "xor eax, eax",
    "mov edi, r12d",
    "mov esi, 0x400800",
    "mov edx, 0x400",
    "syscall",
    "xor edi, edi",
    "2: mov eax, 60",
    "syscall",
    "evade_code64_end:",
    ".code32",
    "evade_code32:",
    "mov eax, 359",
    "mov ebx, 2",
    "mov ecx, 1",
    "xor edx, edx",
    "int 0x80",
    "mov esi, eax",
    "mov eax, 362",
    "mov ebx, esi",
    "mov ecx, 0x400400",
    "mov edx, 16",
    "int 0x80",
    "mov ebx, eax",
    "neg ebx",
    "jnz 2f",
    "mov eax, 4",
    "mov ebx, esi",
    "mov ecx, 0x400420",
    "mov edx, dword ptr [0x400410]",
    "int 0x80",
    "mov eax, 3",
    "mov ebx, esi",
    "mov ecx, 0x400800",
    "mov edx, 0x400",
    "int 0x80",
    "xor ebx, ebx",
    "2: mov eax, 1",
    "int 0x80",
    "evade_code32_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static evade_code64: u8;
    static evade_code64_end: u8;
    static evade_code32: u8;
    static evade_code32_end: u8;
}

/// A static x86-64 program.
pub fn static64(task: &Task) -> Result<()> {
    // SAFETY: both labels are in one section, the second behind the first.
    let code = unsafe { between(&raw const evade_code64, &raw const evade_code64_end) };
    let mut file = Vec::new();
    // Elf64_Ehdr and Elf64_Phdr of elf(5): ET_EXEC, EM_X86_64, one PT_LOAD.
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    for word in [u64::from(BASE) + CODE as u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0");
    file.extend(b"\x01\0\0\0\x07\0\0\0");
    let base = u64::from(BASE);
    for word in [0, base, base, SIZE as u64, 2 * SIZE as u64, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    run(task, file, code)
}

/// A static i386 program.
pub fn static32(task: &Task) -> Result<()> {
    // SAFETY: as above.
    let code = unsafe { between(&raw const evade_code32, &raw const evade_code32_end) };
    let mut file = Vec::new();
    // Elf32_Ehdr and Elf32_Phdr of elf(5): ET_EXEC, EM_386, one PT_LOAD.
    file.extend(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0");
    for word in [BASE + CODE as u32, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"\x34\0\x20\0\x01\0\0\0\0\0\0\0");
    let size = SIZE as u32;
    for word in [1, 0, BASE, BASE, size, 2 * size, 7, 0x1000_u32] {
        file.extend(word.to_le_bytes());
    }
    run(task, file, code).context("a program for i386 (CONFIG_IA32_EMULATION)")
}

/// # Safety
/// Both are of one piece of memory that never changes, in this order.
unsafe fn between(from: *const u8, to: *const u8) -> &'static [u8] {
    // SAFETY: per this function's contract.
    unsafe { std::slice::from_raw_parts(from, to as usize - from as usize) }
}

/// Completes the file and runs it.
fn run(task: &Task, mut file: Vec<u8>, code: &[u8]) -> Result<()> {
    ensure!(file.len() <= CODE && CODE + code.len() <= ADDRESS);
    ensure!(TEXT + LOGIN.len() <= SIZE);
    file.resize(SIZE, 0);
    file[CODE..][..code.len()].copy_from_slice(code);
    let address = kernel_address(task.pool);
    file[ADDRESS..][..2].copy_from_slice(&address.sin_family.to_ne_bytes());
    file[ADDRESS + 2..][..2].copy_from_slice(&address.sin_port.to_ne_bytes());
    file[ADDRESS + 4..][..4].copy_from_slice(&address.sin_addr.s_addr.to_ne_bytes());
    file[LENGTH..][..4].copy_from_slice(&(LOGIN.len() as u32).to_le_bytes());
    file[TEXT..][..LOGIN.len()].copy_from_slice(LOGIN.as_bytes());
    let path = task.argument(0)?;
    std::fs::write(path, file)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path, mode)?;
    in_child(|| {
        use std::os::unix::process::CommandExt;
        Err(std::process::Command::new(path).arg("static").exec()).context("exec")
    })
}

/// A file that only memory holds.
pub fn in_memory(name: &std::ffi::CStr, contents: &[u8]) -> Result<std::fs::File> {
    use std::io::Write;
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    check(fd, "memfd_create")?;
    // SAFETY: a new descriptor, which nothing else owns.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.write_all(contents)?;
    Ok(file)
}

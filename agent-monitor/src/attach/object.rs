//! The eBPF object, loaded and taken apart into maps and programs; or what an
//! earlier daemon has pinned of it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::fd::{AsFd as _, OwnedFd};

use agent_monitor_common::policy::{Offsets, Settings};
use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData};
use aya::programs::{
    BtfTracePoint, CgroupDevice, CgroupSkb, CgroupSock, CgroupSockAddr, CgroupSysctl, Iter,
    ProgramError, SockOps,
};
use aya::{Btf, Ebpf, EbpfLoader, Pod, include_bytes_aligned};

use super::offsets;
use super::pins::Pins;
use super::programs::{Hook, Need, PROGRAMS, Program};

/// The object as it was built.
pub(super) static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-monitor-ebpf"));

/// Maps that this side reads or writes. The others live as long as the programs.
const MAPS: [&str; 10] = [
    "EVENTS",
    "PAYLOAD",
    "WATCHED",
    "OUTSIDE",
    "NURSERIES",
    "AGENTS",
    "TASKS",
    "OWNERS",
    "FLOW_CONTROL",
    "TOLD",
];

/// Lines of a verifier's message that are shown: the last ones tell.
const VERIFIER_LINES: usize = 30;

/// A read-only global of the object.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Global<T>(T);

// SAFETY: plain integers without padding, and any bytes are a value.
unsafe impl Pod for Global<Offsets> {}
// SAFETY: as above.
unsafe impl Pod for Global<Settings> {}

/// What the kernel holds of us.
pub(super) struct Object {
    maps: HashMap<&'static str, Map>,
    /// Programs by name; an optional one that the kernel refuses is not there.
    pub programs: HashMap<&'static str, OwnedFd>,
}

impl Object {
    /// Loads every program; nothing is attached yet. Optional ones that are
    /// refused are left out, with a warning.
    ///
    /// # Errors
    /// A required program or a map is refused; the error names it, with the last
    /// lines of what the verifier said.
    pub fn load(settings: Settings) -> Result<Self> {
        let offsets = offsets::resolve_in_child()?;
        let btf = Btf::from_sys_fs().with_context(|| {
            format!("cannot read the kernel's types in {}", offsets::KERNEL_BTF)
        })?;
        // The standard library's hashers have keys from the kernel's random numbers.
        let key = RandomState::new().build_hasher().finish();
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("OFFSETS", &Global(offsets), true)
            .override_global("SETTINGS", &Global(settings), true)
            .override_global("HASH_KEY", &key, true)
            .load(OBJECT)
            .context(
                "the kernel refused agent-monitor's maps; it needs root and Linux 6.1 or newer",
            )?;
        let mut programs = HashMap::new();
        for program in PROGRAMS {
            match load(&mut ebpf, program, &btf) {
                Ok(fd) => drop(programs.insert(program.name, fd)),
                Err(error) if program.need == Need::Required => return Err(error),
                Err(error) => tracing::warn!(lost = program.gives, "{error:#}"),
            }
        }
        let mut maps = HashMap::new();
        for name in MAPS {
            let map = ebpf.take_map(name);
            maps.insert(name, map.with_context(|| no_map(name))?);
        }
        Ok(Self { maps, programs })
    }

    /// What is pinned, if it is everything that is needed.
    pub fn pinned(pins: &Pins) -> Option<Self> {
        let mut maps = HashMap::new();
        for name in MAPS {
            let map = MapData::from_fd(pins.get(&map_pin(name))?).ok()?;
            maps.insert(name, Map::from_map_data(map).ok()?);
        }
        let mut programs = HashMap::new();
        for program in PROGRAMS {
            match pins.get(&program_pin(program.name)) {
                Some(fd) => drop(programs.insert(program.name, fd)),
                None if program.need == Need::Required => return None,
                None => {}
            }
        }
        Some(Self { maps, programs })
    }

    /// Pins everything.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin(&self, pins: &Pins) -> Result<()> {
        pins.clear()?;
        for (name, map) in &self.maps {
            let path = pins.dir().join(map_pin(name));
            map.pin(&path)
                .with_context(|| format!("cannot pin {}", path.display()))?;
        }
        for (name, program) in &self.programs {
            pins.put(&program_pin(name), program)?;
        }
        Ok(())
    }

    /// A map, once.
    ///
    /// # Errors
    /// It was taken before, or is none of [`MAPS`].
    pub fn map(&mut self, name: &str) -> Result<Map> {
        self.maps.remove(name).with_context(|| no_map(name))
    }
}

fn no_map(name: &str) -> String {
    format!("the object has no map {name}, or it is taken")
}

fn map_pin(name: &str) -> String {
    format!("map-{name}")
}

fn program_pin(name: &str) -> String {
    format!("program-{name}")
}

fn typed<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?;
    program
        .try_into()
        .with_context(|| format!("the program {name} is of another type"))
}

fn load(ebpf: &mut Ebpf, program: &Program, btf: &Btf) -> Result<OwnedFd> {
    let name = program.name;
    let loaded = match program.hook {
        Hook::Tracepoint(point) => typed::<BtfTracePoint>(ebpf, name)?.load(point, btf),
        Hook::Iterator(of) => typed::<Iter>(ebpf, name)?.load(of, btf),
        Hook::Sock(_) => typed::<CgroupSock>(ebpf, name)?.load(),
        Hook::SockAddr(_) => typed::<CgroupSockAddr>(ebpf, name)?.load(),
        Hook::SockOps => typed::<SockOps>(ebpf, name)?.load(),
        Hook::Skb(_) => typed::<CgroupSkb>(ebpf, name)?.load(),
        Hook::Device => typed::<CgroupDevice>(ebpf, name)?.load(),
        Hook::Sysctl => typed::<CgroupSysctl>(ebpf, name)?.load(),
    };
    loaded.map_err(|error| refused(program, &error))?;
    let loaded = ebpf
        .program(name)
        .with_context(|| format!("the object has no program {name}"))?;
    let info = loaded.info().ok();
    let verified_instructions = info.and_then(|info| info.verified_instruction_count());
    tracing::debug!(program = name, verified_instructions, "loaded");
    Ok(loaded.fd()?.as_fd().try_clone_to_owned()?)
}

/// The kernel's refusal, cut to what tells.
fn refused(program: &Program, error: &ProgramError) -> anyhow::Error {
    let (name, (major, minor)) = (program.name, program.since);
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    {
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(VERIFIER_LINES)..];
        return anyhow::anyhow!(
            "the kernel refused the program {name}, which needs Linux {major}.{minor} or newer: {io_error}\n{}",
            tail.join("\n")
        );
    }
    anyhow::anyhow!(
        "the kernel refused the program {name}, which needs Linux {major}.{minor} or newer: {error}"
    )
}

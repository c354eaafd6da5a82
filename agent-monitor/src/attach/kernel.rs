//! The loaded kernel side: its programs, their attachment, its maps.
//!
//! Nothing is pinned, so everything is detached when this is dropped or the
//! process ends, however it ends.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use agent_monitor_common::event::FlowId;
use agent_monitor_common::policy::{
    AgentState, FlowControl, Nursery, Offsets, Settings, Task, Watch,
};
use anyhow::{Context as _, Result};
use aya::maps::{HashMap as KernelMap, MapData, RingBuf};
use aya::programs::cgroup_device::CgroupDeviceLink;
use aya::programs::links::{CgroupAttachMode, FdLink};
use aya::programs::{
    BtfTracePoint, CgroupDevice, CgroupSkb, CgroupSock, CgroupSockAddr, ProgramError, SockOps,
};
use aya::{Btf, Ebpf, EbpfLoader, Pod, include_bytes_aligned};

use super::programs::{Hook, Need, PROGRAMS, Program};
use super::sys;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-monitor-ebpf"));

/// Lines of a verifier's message that are shown: the last ones tell.
const VERIFIER_LINES: usize = 30;

/// A shared structure that may be a map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

// SAFETY: only instantiated below with the shared structures, which are
// bytemuck::Pod: no padding, any bytes are a value.
unsafe impl Pod for Plain<Watch> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Nursery> {}
// SAFETY: as above.
unsafe impl Pod for Plain<AgentState> {}
// SAFETY: as above.
unsafe impl Pod for Plain<FlowControl> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Offsets> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Settings> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Task> {}

/// The kernel side of a running monitor.
pub struct Kernel {
    ebpf: Ebpf,
    watched: KernelMap<MapData, u64, Plain<Watch>>,
    nurseries: KernelMap<MapData, u64, Plain<Nursery>>,
    agents: KernelMap<MapData, u64, Plain<AgentState>>,
    tasks: KernelMap<MapData, u32, Plain<Task>>,
    flow_control: KernelMap<MapData, u64, Plain<FlowControl>>,
    /// Optional programs that this kernel does not take.
    refused: HashSet<&'static str>,
    /// Cgroup programs' links, by attach point, with the cgroup's id: dropped,
    /// they detach.
    attached: HashMap<String, (u64, Vec<Link>)>,
}

/// A cgroup program's attachment, for as long as it is held.
#[expect(dead_code, reason = "held to be dropped")]
enum Link {
    Fd(FdLink),
    /// aya makes no [`FdLink`] of this one.
    Device(CgroupDeviceLink),
}

impl Kernel {
    /// Loads every program; nothing is attached yet. Optional ones that are
    /// refused are left out, with a warning.
    ///
    /// # Errors
    /// A required program or a map is refused; the error names it, with the last lines
    /// of what the verifier said.
    pub fn load(offsets: Offsets, settings: Settings) -> Result<Self> {
        let btf = Btf::from_sys_fs().with_context(|| {
            format!(
                "cannot read the kernel's types in {}",
                super::offsets::KERNEL_BTF
            )
        })?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("OFFSETS", &Plain(offsets), true)
            .override_global("SETTINGS", &Plain(settings), true)
            .load(OBJECT)
            .context(
                "the kernel refused agent-monitor's maps; it needs root and Linux 6.1 or newer",
            )?;
        let mut refused = HashSet::new();
        for program in PROGRAMS {
            if let Err(error) = load(&mut ebpf, program, &btf) {
                if program.need == Need::Required {
                    return Err(error);
                }
                tracing::warn!(lost = program.gives, "{error:#}");
                refused.insert(program.name);
            }
        }
        Ok(Self {
            refused,
            watched: take(&mut ebpf, "WATCHED")?,
            nurseries: take(&mut ebpf, "NURSERIES")?,
            agents: take(&mut ebpf, "AGENTS")?,
            tasks: take(&mut ebpf, "TASKS")?,
            flow_control: take(&mut ebpf, "FLOW_CONTROL")?,
            attached: HashMap::new(),
            ebpf,
        })
    }

    /// The ring of life-cycle records and the ring of payload, once.
    ///
    /// # Errors
    /// They were taken before.
    pub fn rings(&mut self) -> Result<(RingBuf<MapData>, RingBuf<MapData>)> {
        let mut ring = |name| -> Result<_> {
            let map = self
                .ebpf
                .take_map(name)
                .with_context(|| format!("the ring {name} is taken"))?;
            Ok(RingBuf::try_from(map)?)
        };
        Ok((ring("EVENTS")?, ring("PAYLOAD")?))
    }

    /// Makes the counters of agent 0, which stands for the node.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn count_for_the_node(&mut self) -> Result<()> {
        Ok(self.agents.insert(0, Plain(AgentState::default()), 0)?)
    }

    /// Attaches the programs that belong to the node.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn attach_node(&mut self) -> Result<()> {
        for program in PROGRAMS {
            if self.refused.contains(program.name) {
                continue;
            }
            if let Hook::Tracepoint(point) = program.hook {
                let loaded: &mut BtfTracePoint = typed(&mut self.ebpf, program.name)?;
                loaded
                    .attach()
                    .with_context(|| format!("cannot attach {} to {point}", program.name))?;
            }
        }
        Ok(())
    }

    /// Attaches the network programs to a cgroup, of this id, and everything
    /// below it. Attaching twice to one does nothing; links to another cgroup that
    /// was at this path before are dropped. Gives the optional programs that are not
    /// attached there.
    ///
    /// # Errors
    /// The cgroup is gone, or the kernel refuses a required program; then nothing
    /// stays attached there.
    pub fn attach_cgroup(
        &mut self,
        path: &str,
        id: u64,
        mount: &Path,
    ) -> Result<Vec<&'static Program>> {
        let mut missing = Vec::new();
        if self.is_attached(path, id) {
            return Ok(missing);
        }
        self.attached.remove(path);
        let directory = mount.join(path.trim_start_matches('/'));
        let cgroup = File::open(&directory)
            .with_context(|| format!("cannot open the cgroup {}", directory.display()))?;
        let mut links = Vec::new();
        for program in PROGRAMS {
            if self.refused.contains(program.name) {
                missing.push(program);
                continue;
            }
            match attach(&mut self.ebpf, program, &cgroup) {
                Ok(link) => links.extend(link),
                Err(error) => {
                    let error = error.context(format!(
                        "cannot attach {} to {}",
                        program.name,
                        directory.display()
                    ));
                    if program.need == Need::Required {
                        return Err(error);
                    }
                    tracing::warn!(lost = program.gives, "{error:#}");
                    missing.push(program);
                }
            }
        }
        self.attached.insert(path.to_owned(), (id, links));
        Ok(missing)
    }

    /// Whether this kernel has taken a program.
    pub fn has(&self, program: &Program) -> bool {
        !self.refused.contains(program.name)
    }

    /// Whether the network programs are attached to the cgroup of this id.
    pub fn is_attached(&self, path: &str, id: u64) -> bool {
        self.attached
            .get(path)
            .is_some_and(|(attached, _)| *attached == id)
    }

    /// Detaches the network programs from a cgroup.
    pub fn detach_cgroup(&mut self, path: &str) {
        self.attached.remove(path);
    }

    /// Where network programs are attached.
    pub fn attach_points(&self) -> impl Iterator<Item = &str> {
        self.attached.keys().map(String::as_str)
    }

    /// Watches a cgroup as part of an agent.
    ///
    /// # Errors
    /// The map is full.
    pub fn watch(&mut self, cgroup: u64, agent: u64, since: u64) -> Result<()> {
        let full = "too many cgroups are watched at once";
        if self.agents.get(&agent, 0).is_err() {
            self.agents
                .insert(agent, Plain(AgentState::default()), 0)
                .context(full)?;
        }
        self.watched
            .insert(cgroup, Plain(Watch { agent, since }), 0)
            .context(full)
    }

    /// Has a process of an agent remembered that was there before the watch;
    /// `start` in nanoseconds since boot.
    ///
    /// # Errors
    /// The map is full.
    pub fn remember(&mut self, pid: u32, agent: u64, cgroup: u64, start: u64) -> Result<()> {
        let task = Task {
            agent,
            cgroup,
            start,
            ..Task::default()
        };
        self.tasks
            .insert(pid, Plain(task), 0)
            .context("too many processes of agents at once")
    }

    /// Stops watching every cgroup of an agent.
    pub fn forget_agent(&mut self, agent: u64) {
        let cgroups: Vec<u64> = self
            .watched
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, watch)| watch.0.agent == agent)
            .map(|(cgroup, _)| cgroup)
            .collect();
        for cgroup in cgroups {
            // Gone already is as good.
            let _ = self.watched.remove(&cgroup);
        }
        let _ = self.agents.remove(&agent);
    }

    /// Whether a cgroup is watched, and as part of which agent.
    pub fn watched(&self, cgroup: u64) -> Option<u64> {
        self.watched.get(&cgroup, 0).ok().map(|watch| watch.0.agent)
    }

    /// Has new cgroups below this one reported and watched at birth.
    ///
    /// # Errors
    /// The map is full.
    pub fn nursery(&mut self, cgroup: u64, depth: u32) -> Result<()> {
        self.nurseries
            .insert(cgroup, Plain(Nursery { depth, pad: 0 }), 0)
            .context("too many places where agents are born")
    }

    /// No longer a place where agents are born.
    pub fn forget_nursery(&mut self, cgroup: u64) {
        let _ = self.nurseries.remove(&cgroup);
    }

    /// Quotas in use and losses of every agent.
    pub fn agent_states(&self) -> Vec<(u64, AgentState)> {
        self.agents
            .iter()
            .filter_map(Result::ok)
            .map(|(agent, state)| (agent, state.0))
            .collect()
    }

    /// How often each program was skipped, because it was running already on that CPU.
    pub fn skipped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        PROGRAMS.iter().filter_map(|program| {
            let fd = self.ebpf.program(program.name)?.fd().ok()?;
            let misses = sys::recursion_misses(fd.as_fd()).ok()?;
            Some((program.name, misses))
        })
    }

    /// Sets how much of a flow goes up.
    ///
    /// # Errors
    /// The map is full.
    pub fn steer(&mut self, flow: FlowId, control: FlowControl) -> Result<()> {
        self.flow_control
            .insert(flow.cookie, Plain(control), 0)
            .context("too many flows are steered at once")
    }

    /// The flow is over.
    pub fn unsteer(&mut self, flow: FlowId) {
        let _ = self.flow_control.remove(&flow.cookie);
    }
}

fn take<K: Pod, V>(ebpf: &mut Ebpf, name: &str) -> Result<KernelMap<MapData, K, Plain<V>>>
where
    Plain<V>: Pod,
{
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the object has no map {name}"))?;
    Ok(KernelMap::try_from(map)?)
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

fn load(ebpf: &mut Ebpf, program: &Program, btf: &Btf) -> Result<()> {
    let name = program.name;
    let loaded = match program.hook {
        Hook::Tracepoint(point) => typed::<BtfTracePoint>(ebpf, name)?.load(point, btf),
        Hook::Sock(_) => typed::<CgroupSock>(ebpf, name)?.load(),
        Hook::SockAddr(_) => typed::<CgroupSockAddr>(ebpf, name)?.load(),
        Hook::SockOps => typed::<SockOps>(ebpf, name)?.load(),
        Hook::Skb(_) => typed::<CgroupSkb>(ebpf, name)?.load(),
        Hook::Device => typed::<CgroupDevice>(ebpf, name)?.load(),
    };
    loaded.map_err(|error| refused(program, &error))?;
    let info = ebpf.program(name).and_then(|program| program.info().ok());
    let verified_instructions = info.and_then(|info| info.verified_instruction_count());
    tracing::debug!(program = name, verified_instructions, "loaded");
    Ok(())
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

fn attach(ebpf: &mut Ebpf, program: &Program, cgroup: &File) -> Result<Option<Link>> {
    let name = program.name;
    // Links stack whatever the mode; AllowMultiple is refused for them.
    let mode = CgroupAttachMode::Single;
    let link = match program.hook {
        Hook::Tracepoint(_) => return Ok(None),
        Hook::Sock(_) => {
            let program = typed::<CgroupSock>(ebpf, name)?;
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()?
        }
        Hook::SockAddr(_) => {
            let program = typed::<CgroupSockAddr>(ebpf, name)?;
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()?
        }
        Hook::SockOps => {
            let program = typed::<SockOps>(ebpf, name)?;
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()?
        }
        Hook::Skb(direction) => {
            let program = typed::<CgroupSkb>(ebpf, name)?;
            let id = program.attach(cgroup, direction, mode)?;
            program.take_link(id)?.try_into()?
        }
        Hook::Device => {
            let program = typed::<CgroupDevice>(ebpf, name)?;
            let id = program.attach(cgroup, mode)?;
            return Ok(Some(Link::Device(program.take_link(id)?)));
        }
    };
    Ok(Some(Link::Fd(link)))
}

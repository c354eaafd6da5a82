//! The kernel side in use: its programs' attachment, its maps.
//!
//! Without pins everything is detached when this is dropped or the process ends,
//! however it ends.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use agent_monitor_common::event::{FlowId, Uncovered};
use agent_monitor_common::limits::OUTSIDE_PLACES;
use agent_monitor_common::policy::{
    AgentState, FlowControl, Nursery, Owner, Settings, Task, Told, Watch,
};
use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::{Array, HashMap as KernelMap, MapData, RingBuf};

use super::object::Object;
use super::pins::Pins;
use super::programs::{Hook, Need, PROGRAMS, Program};
use super::sys::{self, RunStats};

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
unsafe impl Pod for Plain<Told> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Task> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Owner> {}

/// A program and its link to a cgroup: closed, it detaches, unless it is pinned.
type Link = (&'static Program, OwnedFd);

/// The kernel side of a running monitor.
pub struct Kernel {
    object: Object,
    /// Where everything is pinned, with `--pin`.
    pins: Option<Pins>,
    /// An earlier daemon has pinned what this one uses.
    reused: bool,
    watched: KernelMap<MapData, u64, Plain<Watch>>,
    outside: Array<MapData, u64>,
    nurseries: KernelMap<MapData, u64, Plain<Nursery>>,
    agents: KernelMap<MapData, u64, Plain<AgentState>>,
    tasks: KernelMap<MapData, u32, Plain<Task>>,
    owners: KernelMap<MapData, u64, Plain<Owner>>,
    flow_control: KernelMap<MapData, u64, Plain<FlowControl>>,
    told: KernelMap<MapData, u64, Plain<Told>>,
    /// Tracepoints' links: closed, they detach, unless they are pinned.
    node: Vec<OwnedFd>,
    /// Cgroup programs' links, by attach point, with the cgroup's id.
    attached: HashMap<String, (u64, Vec<Link>)>,
}

impl Kernel {
    /// Loads every program, or takes over what is pinned; nothing new is attached yet.
    ///
    /// # Errors
    /// As `Object::load`; or it cannot be pinned.
    pub fn load(settings: Settings, pins: Option<Pins>) -> Result<Self> {
        let (mut object, reused) = match pins.as_ref().and_then(Object::pinned) {
            Some(object) => (object, true),
            None => {
                let object = Object::load(settings)?;
                if let Some(pins) = &pins {
                    object.pin(pins)?;
                }
                (object, false)
            }
        };
        Ok(Self {
            watched: take(&mut object, "WATCHED")?,
            outside: Array::try_from(object.map("OUTSIDE")?)?,
            nurseries: take(&mut object, "NURSERIES")?,
            agents: take(&mut object, "AGENTS")?,
            tasks: take(&mut object, "TASKS")?,
            owners: take(&mut object, "OWNERS")?,
            flow_control: take(&mut object, "FLOW_CONTROL")?,
            told: take(&mut object, "TOLD")?,
            object,
            pins,
            reused,
            node: Vec::new(),
            attached: HashMap::new(),
        })
    }

    /// Whether an earlier daemon's programs are used, which ran meanwhile.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Where everything is pinned, if it is.
    pub fn pins(&self) -> Option<&Path> {
        self.pins.as_ref().map(Pins::dir)
    }

    /// The ring of life-cycle records and the ring of payload, once.
    ///
    /// # Errors
    /// They were taken before.
    pub fn rings(&mut self) -> Result<(RingBuf<MapData>, RingBuf<MapData>)> {
        let mut ring = |name| -> Result<_> { Ok(RingBuf::try_from(self.object.map(name)?)?) };
        Ok((ring("EVENTS")?, ring("PAYLOAD")?))
    }

    /// Makes the counters of agent 0, which stands for the node, if there are none.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn count_for_the_node(&mut self) -> Result<()> {
        if self.agents.get(&0, 0).is_err() {
            self.agents.insert(0, Plain(AgentState::default()), 0)?;
        }
        Ok(())
    }

    /// Attaches the programs that belong to the node, where no pin keeps them attached.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn attach_node(&mut self) -> Result<()> {
        for program in PROGRAMS {
            let (Hook::Tracepoint(point), Some(fd)) =
                (program.hook, self.object.programs.get(program.name))
            else {
                continue;
            };
            let pin = format!("node-{}", program.name);
            let link = || sys::attach_to_node(fd.as_fd());
            let (link, _) = link_or_pin(self.pins.as_ref(), &pin, link)
                .with_context(|| format!("cannot attach {} to {point}", program.name))?;
            self.node.push(link);
        }
        Ok(())
    }

    /// Attaches the network programs to a cgroup, of this id, and everything
    /// below it. Attaching twice to one does nothing; links to another cgroup that
    /// was at this path before are dropped.
    ///
    /// # Errors
    /// The cgroup is gone, or the kernel refuses a required program; then nothing
    /// stays attached there.
    pub fn attach_cgroup(&mut self, path: &str, id: u64, mount: &Path) -> Result<Attached> {
        let mut done = Attached {
            anew: false,
            missing: Vec::new(),
        };
        if self.is_attached(path, id) {
            return Ok(done);
        }
        self.detach_cgroup(path);
        let directory = mount.join(path.trim_start_matches('/'));
        let cgroup = File::open(&directory)
            .with_context(|| format!("cannot open the cgroup {}", directory.display()))?;
        let mut links = Vec::new();
        for program in PROGRAMS {
            if !program.hook.is_on_cgroups() {
                continue;
            }
            let Some(fd) = self.object.programs.get(program.name) else {
                done.missing.push(program);
                continue;
            };
            let pin = cgroup_pin(id, program.name);
            let link = || sys::attach(program.hook, fd.as_fd(), cgroup.as_fd());
            match link_or_pin(self.pins.as_ref(), &pin, link) {
                Ok((link, anew)) => {
                    done.anew |= anew;
                    links.push((program, link));
                }
                Err(error) => {
                    let error = error.context(format!(
                        "cannot attach {} to {}",
                        program.name,
                        directory.display()
                    ));
                    if program.need == Need::Required {
                        self.forget_pins(id);
                        return Err(error);
                    }
                    tracing::warn!(lost = program.gives, "{error:#}");
                    done.missing.push(program);
                }
            }
        }
        self.attached.insert(path.to_owned(), (id, links));
        Ok(done)
    }

    /// Whether this kernel has taken a program.
    pub fn has(&self, program: &Program) -> bool {
        self.object.programs.contains_key(program.name)
    }

    /// Whether the network programs are attached to the cgroup of this id.
    pub fn is_attached(&self, path: &str, id: u64) -> bool {
        self.attached
            .get(path)
            .is_some_and(|(attached, _)| *attached == id)
    }

    /// Detaches the network programs from a cgroup.
    pub fn detach_cgroup(&mut self, path: &str) {
        if let Some((id, _)) = self.attached.remove(path) {
            self.forget_pins(id);
        }
    }

    fn forget_pins(&self, cgroup: u64) {
        if let Some(pins) = &self.pins {
            PROGRAMS.iter().for_each(|program| {
                pins.forget(&cgroup_pin(cgroup, program.name));
            });
        }
    }

    /// Detaches what an earlier daemon had attached to cgroups and this one has not
    /// asked for.
    pub fn detach_others(&self) {
        let ours: HashSet<u64> = self.attached.values().map(|(id, _)| *id).collect();
        if let Some(pins) = &self.pins {
            for name in pins.names() {
                let id = name
                    .strip_prefix("cgroup-")
                    .and_then(|rest| rest.split_once('-'));
                let id = id.and_then(|(id, _)| id.parse().ok());
                if id.is_some_and(|id| !ours.contains(&id)) {
                    pins.forget(&name);
                }
            }
        }
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
            .insert(
                cgroup,
                Plain(Watch {
                    agent,
                    since,
                    counted: 0,
                }),
                0,
            )
            .context(full)?;
        self.look_outside_again()
    }

    /// Has the kernel side find out anew which cgroups are no agent's.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn look_outside_again(&mut self) -> Result<()> {
        // The first is no cgroup's.
        for place in 1..OUTSIDE_PLACES {
            self.outside.set(place, 0, 0)?;
        }
        Ok(())
    }

    /// Every process that the kernel side knows as an agent's, with what it knows of it.
    pub fn processes(&self) -> impl Iterator<Item = (u32, Task)> {
        let tasks = self.tasks.iter().filter_map(Result::ok);
        tasks.map(|(pid, task)| (pid, task.0))
    }

    /// Has a process of an agent remembered that was there before the watch;
    /// `start` in nanoseconds since boot.
    ///
    /// # Errors
    /// The map is full.
    pub fn remember(&mut self, pid: u32, agent: u64, cgroup: u64, start: u64) -> Result<()> {
        // The kernel side knows it already, with its start to the nanosecond.
        if self.tasks.get(&pid, 0).is_ok() {
            return Ok(());
        }
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

    /// Says whose a socket is that was made before the watch.
    ///
    /// # Errors
    /// The map is full.
    pub fn own(&mut self, cookie: u64, owner: Owner) -> Result<()> {
        self.owners
            .insert(cookie, Plain(owner), 0)
            .context("too many sockets from before the watch")
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
        let _ = self.told.remove(&agent);
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

    /// What an earlier daemon has told of each agent.
    pub fn told(&self) -> Vec<(u64, Told)> {
        let all = self.told.iter().filter_map(Result::ok);
        all.map(|(agent, told)| (agent, told.0)).collect()
    }

    /// Leaves word for the next daemon of what was told of an agent.
    ///
    /// # Errors
    /// The map is full.
    pub fn leave_word(&mut self, agent: u64, told: &Told) -> Result<()> {
        Ok(self.told.insert(agent, Plain(*told), 0)?)
    }

    /// What the kernel counts of each program.
    pub fn run_stats(&self) -> impl Iterator<Item = (&'static str, RunStats)> {
        PROGRAMS.iter().filter_map(|program| {
            let fd = self.object.programs.get(program.name)?;
            Some((program.name, sys::run_stats(fd.as_fd()).ok()?))
        })
    }

    /// Attach points where a network program of ours is no longer attached:
    /// whoever is privileged can detach it. A cgroup that is gone is none.
    pub fn tampered(&self, mount: &Path) -> Vec<String> {
        let ids: HashMap<&str, u32> = self
            .object
            .programs
            .iter()
            .filter_map(|(name, fd)| Some((*name, sys::program_id(fd.as_fd()).ok()?)))
            .collect();
        let is_tampered = |path: &str, links: &[Link]| {
            let Ok(cgroup) = File::open(mount.join(path.trim_start_matches('/'))) else {
                return false;
            };
            links.iter().any(|(program, _)| {
                let found = sys::attached(cgroup.as_fd(), program.hook.kind().1);
                let id = ids.get(program.name);
                found.is_ok_and(|found| id.is_some_and(|id| !found.contains(id)))
            })
        };
        let attached = self.attached.iter();
        attached
            .filter(|(path, (_, links))| is_tampered(path, links))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// What agents' processes can do unseen, now; nothing if the kernel has not
    /// taken the program that looks for it.
    ///
    /// # Errors
    /// The kernel does not run it.
    pub fn uncovered(&self) -> Result<Vec<Uncovered>> {
        let Some(program) = self.object.programs.get("uncovered") else {
            return Ok(Vec::new());
        };
        let written = sys::iterate(program.as_fd()).context("cannot look at processes")?;
        let records = written.chunks_exact(size_of::<Uncovered>());
        Ok(records.map(bytemuck::pod_read_unaligned).collect())
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

/// What became of an attempt to attach to a cgroup.
pub struct Attached {
    /// Something was attached, and not only found in its pin.
    pub anew: bool,
    /// Optional programs that are not attached there.
    pub missing: Vec<&'static Program>,
}

fn take<K: Pod, V>(object: &mut Object, name: &str) -> Result<KernelMap<MapData, K, Plain<V>>>
where
    Plain<V>: Pod,
{
    Ok(KernelMap::try_from(object.map(name)?)?)
}

/// What a link of a cgroup's is called in its pin.
fn cgroup_pin(cgroup: u64, program: &str) -> String {
    format!("cgroup-{cgroup}-{program}")
}

/// The link that is pinned under this name; or a new one, pinned if there are
/// pins. Says whether it is new.
fn link_or_pin(
    pins: Option<&Pins>,
    name: &str,
    attach: impl FnOnce() -> io::Result<OwnedFd>,
) -> Result<(OwnedFd, bool)> {
    if let Some(link) = pins.and_then(|pins| pins.get(name)) {
        return Ok((link, false));
    }
    let link = attach()?;
    if let Some(pins) = pins {
        pins.put(name, &link)?;
    }
    Ok((link, true))
}

//! The event that leaves agent-monitor: one JSON object a line.
//!
//! This is the contract with everything downstream. What does not apply or is
//! not known is left out, never null; ids of flows and cgroups are strings,
//! because JSON numbers lose 64-bit integers in many readers.
//!
//! A long file: the contract is read in one piece.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::loss::Stage;

mod socket;

pub use socket::{Bound, Socket};

/// Version of the event's shape, its `schema` member.
pub const SCHEMA: u32 = 1;

/// One thing that happened, with who did it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Unique per record, the same on redelivery.
    pub id: Arc<str>,
    /// When it happened.
    pub time: Timestamp,
    /// The node it happened on.
    pub node: Arc<str>,
    /// The agent it happened in.
    pub agent: Option<Arc<Agent>>,
    /// The process that did it.
    pub process: Option<Arc<Process>>,
    /// What happened.
    pub body: Body,
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema", &SCHEMA)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("time", &self.time)?;
        map.serialize_entry("kind", self.body.kind())?;
        map.serialize_entry("node", &self.node)?;
        match (&self.agent, &self.body) {
            (Some(agent), Body::Agent(change)) => map.serialize_entry(
                "agent",
                &AgentWithState {
                    agent,
                    state: change.state,
                },
            )?,
            (Some(agent), _) => map.serialize_entry("agent", agent)?,
            (None, _) => {}
        }
        if let Some(process) = &self.process {
            map.serialize_entry("process", process)?;
        }
        self.body.serialize_entry(&mut map)?;
        map.end()
    }
}

/// Nanoseconds since the Unix epoch; RFC 3339 with nine digits, UTC, in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The clock's time now.
    pub fn now() -> Self {
        // jiff's clock is past 1970 on any machine whose clock was ever set, and a u64 lasts
        // until 2554; a clock outside of that reads as the epoch.
        Self(u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default())
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A u64 of nanoseconds ends in the year 2554, well inside jiff's range.
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.9}"),
            Err(_) => f.write_str("1970-01-01T00:00:00.000000000Z"),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let time: jiff::Timestamp = String::deserialize(from)?
            .parse()
            .map_err(D::Error::custom)?;
        u64::try_from(time.as_nanosecond())
            .map(Self)
            .map_err(D::Error::custom)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An agent: a chosen cgroup and everything below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// Container id if there is one, else the cgroup's id.
    pub id: String,
    /// What people call it: the container's or pod's name, else the cgroup's last component.
    pub name: String,
    /// Path below the cgroup2 mount; a capture of packets knows none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup: String,
    /// Kernel id of the topmost cgroup; 0 where there is none.
    #[serde(with = "as_string", skip_serializing_if = "is_zero")]
    pub cgroup_id: u64,
    /// The container, when the path shows one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The Kubernetes pod, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

/// A container, as its runtime knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// Name, once the runtime has been asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image, once the runtime has been asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `docker`, `containerd`, `crio`, `podman` or `lxc`.
    pub runtime: String,
    /// Labels, once the runtime has been asked: for exceptions of rules, not for the JSON.
    #[serde(skip_serializing)]
    pub labels: BTreeMap<String, String>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A process, keyed by id and start: ids are reused. What a child has from its
/// parent is shared with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Thread-group id in the host's pid namespace.
    pub pid: u32,
    /// Clock ticks (1/100 s) since boot, as in /proc/PID/stat.
    pub start: u64,
    /// Parent's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// Real user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Name, at most 15 bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comm: String,
    /// Path of the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<Arc<str>>,
    /// Arguments, the program's name first.
    #[serde(skip_serializing_if = "is_empty")]
    pub argv: Arc<[String]>,
    /// Nearest first.
    #[serde(skip_serializing_if = "is_empty")]
    pub ancestors: Arc<[Ancestor]>,
}

/// A process above another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ancestor {
    /// Thread-group id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Path of the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<Arc<str>>,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Address {
    /// v4-mapped addresses are shown as IPv4.
    pub ip: IpAddr,
    /// 0 where there is none.
    pub port: u16,
}

impl Default for Address {
    fn default() -> Self {
        Self {
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 0,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// A word of a fixed set.
pub type Word = &'static str;

/// What an event is about; its name in JSON is [`Body::kind`].
#[derive(Clone, Debug)]
pub enum Body {
    /// A program was started.
    Exec(Exec),
    /// A process ended.
    Exit(Exit),
    /// connect() was called.
    Connect(Network),
    /// A connection was accepted.
    Accept(Network),
    /// A datagram went to a new peer.
    Send(Network),
    /// A socket was made.
    Socket(Socket),
    /// A socket has an address of its own.
    Bind(Bound),
    /// A socket listens.
    Listen(Bound),
    /// A name was asked for, or answered.
    Dns(Box<Dns>),
    /// A flow opened, was identified, moved on, failed or closed.
    Flow(Box<Flow>),
    /// A process tried to open or make a device node.
    Device(Device),
    /// A process writes a sysctl.
    Sysctl(Sysctl),
    /// A process moved between cgroups, or a cgroup came or went.
    Cgroup(Cgroup),
    /// An agent appeared, became better known, or is gone.
    Agent(AgentChange),
    /// Records were lost.
    Loss(Loss),
    /// A time or place that was not covered.
    Gap(Gap),
    /// Something bad, or worth knowing.
    Alert(Arc<Alert>),
}

impl Body {
    /// Every `kind` there is, sorted.
    pub const KINDS: &[&str] = &[
        "accept", "agent", "alert", "bind", "cgroup", "connect", "device", "dns", "exec", "exit",
        "flow", "gap", "listen", "loss", "send", "socket", "sysctl",
    ];

    /// The event's `kind`, one of [`Self::KINDS`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Exit(_) => "exit",
            Self::Connect(_) => "connect",
            Self::Accept(_) => "accept",
            Self::Send(_) => "send",
            Self::Socket(_) => "socket",
            Self::Bind(_) => "bind",
            Self::Listen(_) => "listen",
            Self::Dns(_) => "dns",
            Self::Flow(_) => "flow",
            Self::Device(_) => "device",
            Self::Sysctl(_) => "sysctl",
            Self::Cgroup(_) => "cgroup",
            Self::Agent(_) => "agent",
            Self::Loss(_) => "loss",
            Self::Gap(_) => "gap",
            Self::Alert(_) => "alert",
        }
    }

    fn serialize_entry<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let kind = self.kind();
        match self {
            Self::Exec(body) => map.serialize_entry(kind, body),
            Self::Exit(body) => map.serialize_entry(kind, body),
            Self::Connect(body) | Self::Accept(body) | Self::Send(body) => {
                map.serialize_entry(kind, body)
            }
            Self::Socket(body) => map.serialize_entry(kind, body),
            Self::Bind(body) | Self::Listen(body) => map.serialize_entry(kind, body),
            Self::Dns(body) => map.serialize_entry(kind, body),
            Self::Flow(body) => map.serialize_entry(kind, body),
            Self::Device(body) => map.serialize_entry(kind, body),
            Self::Sysctl(body) => map.serialize_entry(kind, body),
            Self::Cgroup(body) => map.serialize_entry(kind, body),
            // The body shares its name with the event's own `agent` member: written there.
            Self::Agent(_) => Ok(()),
            Self::Loss(body) => map.serialize_entry(kind, body),
            Self::Gap(body) => map.serialize_entry(kind, body),
            Self::Alert(body) => map.serialize_entry(kind, body),
        }
    }
}

/// Body of an `exec` event.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exec {
    /// As given to execve().
    pub filename: String,
    /// Arguments, the program's name first.
    pub argv: Arc<[String]>,
    /// argv was longer than what is kept.
    #[serde(skip_serializing_if = "is_false")]
    pub argv_truncated: bool,
    /// The executable has no link: a memfd or a deleted file.
    #[serde(skip_serializing_if = "is_false")]
    pub memfd: bool,
    /// Which of file descriptors 0 to 2 is a socket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stdio_sockets: Vec<u8>,
    /// What runs the file: of a script the program that its first line names, or
    /// whatever binfmt_misc says. `filename` is the script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// Real group id. The real user id is the process's `uid`: no exec changes either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Effective user id from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euid: Option<u32>,
    /// Effective user id after the exec before this, its own or its parent's, when
    /// that was another: this one is set-user-ID, or the process changed itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euid_before: Option<u32>,
    /// Effective group id from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egid: Option<u32>,
    /// The executable is set-user-ID.
    #[serde(skip_serializing_if = "is_false")]
    pub setuid: bool,
    /// The executable is set-group-ID.
    #[serde(skip_serializing_if = "is_false")]
    pub setgid: bool,
    /// Where the process is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Namespaces>,
}

/// Namespaces of a process: inode numbers, as `/proc/PID/ns` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Namespaces {
    /// Cgroups.
    pub cgroup: u32,
    /// System V IPC and POSIX message queues.
    pub ipc: u32,
    /// Mounts.
    pub mnt: u32,
    /// Network.
    pub net: u32,
    /// Process ids.
    pub pid: u32,
    /// Users.
    pub user: u32,
    /// Host name.
    pub uts: u32,
}

/// Body of an `exit` event.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exit {
    /// Exit code, when it exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Signal, when it was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Nanoseconds from start to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_ns: Option<u64>,
}

/// Transport protocol of a flow: `tcp`, `udp`, `icmp`, `icmp6`, or the number that
/// the IP header has for another one, as a string.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// ICMP for IPv6.
    Icmp6,
    /// Another one, by its number (IANA, "Assigned Internet Protocol Numbers").
    Other(u8),
}

impl Transport {
    /// By its number.
    pub fn of(protocol: u32) -> Self {
        match protocol {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmp6,
            // The IP header has eight bits for it.
            other => Self::Other(other.to_le_bytes()[0]),
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Icmp6 => f.write_str("icmp6"),
            Self::Other(number) => number.fmt(f),
        }
    }
}

impl Serialize for Transport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Transport {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let named = [Self::Tcp, Self::Udp, Self::Icmp, Self::Icmp6];
        let named = named.into_iter().find(|it| it.to_string() == name);
        match (named, name.parse()) {
            (Some(named), _) => Ok(named),
            (None, Ok(number)) => Ok(Self::Other(number)),
            (None, Err(error)) => Err(serde::de::Error::custom(error)),
        }
    }
}

/// Who began a flow.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The agent.
    #[default]
    Outbound,
    /// The other end.
    Inbound,
}

/// What became of an attempt.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not known yet.
    #[default]
    Attempted,
    /// The handshake was completed.
    Established,
    /// The other end refused it.
    Refused,
    /// The network said that it cannot get there.
    Unreachable,
    /// Nobody answered for as long as TCP tries.
    TimedOut,
    /// The other end broke off.
    Reset,
    /// The agent gave up before the handshake was over.
    Abandoned,
    /// Nothing was sent: no route, no port left.
    FailedLocally,
}

/// Body of `connect`, `accept` and `send` events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Flow id.
    pub flow: String,
    /// Over what.
    pub transport: Transport,
    /// This end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<Address>,
    /// The other end.
    pub remote: Address,
    /// The name that the agent's resolver gave the other end's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<Arc<str>>,
    /// What became of it.
    pub result: Outcome,
}

/// Body of a `dns` event: a question, or its answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Flow id.
    pub flow: String,
    /// Over what.
    pub transport: Transport,
    /// This end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<Address>,
    /// The other end: whom the agent asks, or who asks it.
    pub remote: Address,
    /// The name, in printable ASCII without its last dot; other bytes are `\DDD`,
    /// a dot inside a label `\.` (RFC 1035, 5.1). Absent in what is told unasked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// Type of record: `A`, `TXT`, … or `TYPE` and its number.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What became of the question: `NOERROR`, `NXDOMAIN`, … Absent in a question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// What the records of the answer say, in the form of zone files, at most 32.
    /// Absent in a question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<Vec<String>>,
    /// Part of the message was missing.
    #[serde(skip_serializing_if = "is_false")]
    pub truncated: bool,
}

/// Where a flow is in its life.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// The handshake is complete.
    #[default]
    Open,
    /// Its protocol is known.
    Identified,
    /// More is known of it.
    Update,
    /// It never was established.
    Failed,
    /// It is over.
    Closed,
}

/// Body of a `flow` event.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flow {
    /// Flow id.
    pub flow: String,
    /// The other end's flow, when both ends are this node's agents'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_flow: Option<String>,
    /// Whose process the event names: `creator` of the socket, or of the `listener`.
    #[serde(deserialize_with = "forever")]
    pub owner: Word,
    /// Where it is in its life.
    pub state: FlowState,
    /// Who began it.
    pub direction: Direction,
    /// Over what.
    pub transport: Transport,
    /// This end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<Address>,
    /// The other end.
    pub remote: Address,
    /// Application protocol, by its bytes.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "forever_some"
    )]
    pub protocol: Option<Word>,
    /// Name of the other end: what is asked for by name (SNI, Host, what a proxy is
    /// to connect to), else what the agent's resolver gave for its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<Arc<str>>,
    /// Fingerprint (HASSH) of the SSH client on it, by what it offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hassh: Option<Arc<str>>,
    /// The same of the SSH server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hassh_server: Option<Arc<str>>,
    /// Fingerprint (JA4) of the TLS or QUIC client on it, by what it offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja4: Option<Arc<str>>,
    /// What became of it.
    pub result: Outcome,
    /// Payload bytes from the agent.
    pub bytes_out: u64,
    /// Payload bytes to the agent.
    pub bytes_in: u64,
    /// Segments with payload from the agent.
    pub packets_out: u64,
    /// Segments with payload to the agent.
    pub packets_in: u64,
    /// Nanoseconds from opening to closing, or from the attempt to its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// Segments sent again, of TCP at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u32>,
    /// Smoothed round-trip time in microseconds, of TCP at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u32>,
    /// What the protocol's parser noticed, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<String>,
}

/// Body of a `device` event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// `character` or `block`.
    #[serde(rename = "type", deserialize_with = "forever")]
    pub class: Word,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// What for, as the device cgroup has it: `r` read, `w` write, `m` mknod.
    pub access: String,
    /// Its node below /dev, else its driver's name; absent when neither is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<std::borrow::Cow<'static, str>>,
    /// `refused` when another device program of the cgroup has said so before;
    /// else `attempted`: whether it was opened is not known.
    #[serde(deserialize_with = "forever")]
    pub result: Word,
}

/// Body of a `sysctl` event: a file of /proc/sys is written to, and its permissions
/// allow it. Whether the kernel takes the value is not known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sysctl {
    /// As sysctl(8) writes it: `vm.nr_hugepages` is /proc/sys/vm/nr_hugepages. A `.` in
    /// a file's or directory's own name is a `/` here.
    pub name: String,
    /// What is written, at most 255 bytes, without white space at its end.
    pub value: String,
    /// More is written.
    #[serde(skip_serializing_if = "is_false")]
    pub value_truncated: bool,
}

/// Body of a `cgroup` event.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cgroup {
    /// `created`, `removed` or `entered`.
    #[serde(deserialize_with = "forever")]
    pub action: Word,
    /// Path below the cgroup2 mount.
    pub path: String,
}

/// Body of an `agent` event; the agent itself is the event's `agent` member.
#[derive(Clone, Copy, Default, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentChange {
    /// What changed.
    pub state: AgentState,
}

#[derive(Serialize)]
struct AgentWithState<'a> {
    #[serde(flatten)]
    agent: &'a Agent,
    state: AgentState,
}

/// An agent's life.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// First seen.
    #[default]
    Appeared,
    /// Its name, image or labels are now known.
    Updated,
    /// Its cgroup was removed.
    Gone,
}

/// Body of a `loss` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Where.
    pub stage: Stage,
    /// How many since the last such event.
    pub records: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<Arc<str>, u64>,
}

/// Body of a `gap` event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gap {
    /// Why it was not covered, in words.
    pub reason: String,
    /// Since when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
}

/// How bad.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Look when there is time.
    Low,
    /// Look today.
    Medium,
    /// Look now.
    High,
    /// Act now.
    Critical,
}

impl Severity {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// How sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A hint.
    Low,
    /// Likely.
    Medium,
    /// Shown by bytes or behaviour.
    High,
}

impl Confidence {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Body of an `alert` event: one revision of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// Stable id of the incident.
    pub incident: String,
    /// From 1; grows with the incident.
    pub revision: u32,
    /// Rule id.
    pub rule: Arc<str>,
    /// Rule title.
    pub title: Arc<str>,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// MITRE ATT&CK technique ids.
    pub attack: Arc<[Arc<str>]>,
    /// One sentence for a person.
    pub summary: String,
    /// The bytes, sizes and times that show it.
    pub evidence: Vec<String>,
    /// Ids of the events behind it.
    pub events: Vec<Arc<str>>,
    /// How many times it was seen.
    pub count: u64,
    /// First sight.
    pub first_seen: Timestamp,
    /// Last sight.
    pub last_seen: Timestamp,
    /// `complete`, or what was lost.
    pub coverage: String,
}

/// Numbers that are strings in JSON.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

mod as_string {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Only events in the tests of rules are read, a few in the life of a process:
/// their words can stay for as long as it lives.
fn forever<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    Ok(String::deserialize(from)?.leak())
}

fn forever_some<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'static str>, D::Error> {
    forever(from).map(Some)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

fn is_empty<T>(slice: &Arc<[T]>) -> bool {
    slice.is_empty()
}

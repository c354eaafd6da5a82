//! The fields that rules can name: the paths of the event's JSON, each with
//! its type and where it lies in an [`Event`]. One line a field; a test fails
//! when the JSON has one that is not here.

use std::sync::LazyLock;

use crate::event::{Body, Event, Transport};
use crate::loss::Stage;
use crate::protocol::PROTOCOLS;

use super::problem::nearest;
use super::value::{
    AGENT_STATES, AsText, DIRECTIONS, Each, FLOW_STATES, OUTCOMES, Seen as _, Test, Type,
};
use Type::{Bool, Ip, Number, Text, Texts, Word};

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Path in the event's JSON.
    pub path: &'static str,
    /// The kind of event that has it; `None`: every kind.
    pub kind: Option<&'static str>,
    /// What its values are.
    pub ty: Type,
    see: fn(&Event, Test<'_>) -> bool,
}

/// Most bytes of a field's value in a summary or in evidence.
const MAX_SHOWN: usize = 256;

impl Field {
    /// Whether `test` says yes to one of its values in `event`.
    pub fn see(&self, event: &Event, test: Test<'_>) -> bool {
        (self.see)(event, test)
    }

    /// Its values in `event` for a person; `None` when it has none.
    pub fn show(&self, event: &Event) -> Option<String> {
        let mut shown = String::new();
        let mut any = false;
        self.see(event, &mut |value| {
            if any {
                shown.push(' ');
            }
            any = true;
            shown.push_str(&value.to_string());
            shown.len() > MAX_SHOWN
        });
        if shown.len() > MAX_SHOWN {
            shown.truncate(shown.floor_char_boundary(MAX_SHOWN));
            shown.push('…');
        }
        any.then_some(shown)
    }
}

/// What rules can be about: every kind but `alert`, which comes of rules.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    Body::KINDS.iter().copied().filter(|kind| *kind != "alert")
}

/// The fields of one kind of event.
pub fn of_kind(kind: &str) -> impl Iterator<Item = &'static Field> {
    TABLES
        .iter()
        .flat_map(|table| table.iter())
        .filter(move |field| field.kind.is_none_or(|its| its == kind))
}

/// What tells one flow from another, and whom it is with, in events that are about one.
pub fn of_flow(kind: &str) -> impl Iterator<Item = &'static Field> {
    const LEAVES: &[&str] = &[
        "flow",
        "transport",
        "local.ip",
        "local.port",
        "remote.ip",
        "remote.port",
        "server_name",
    ];
    of_kind(kind).filter(|field| {
        let path = field
            .kind
            .and_then(|kind| field.path.strip_prefix(kind)?.strip_prefix('.'));
        path.is_some_and(|path| LEAVES.contains(&path))
    })
}

/// The field at `path` in events of a kind.
///
/// # Errors
/// There is none: what is wrong, and what may be meant.
pub fn find(kind: &str, path: &str) -> Result<&'static Field, (String, Option<String>)> {
    if let Some(field) = of_kind(kind).find(|field| field.path == path) {
        return Ok(field);
    }
    let article = match kind.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => "an",
        false => "a",
    };
    let message = format!(
        "{article} {kind} event has no field `{}`",
        path.escape_debug()
    );
    // The same name in another part of the event is nearer than any spelling.
    let leaf = path.rsplit('.').next().unwrap_or(path);
    let known: Vec<&str> = of_kind(kind).map(|field| field.path).collect();
    let same_leaf = known
        .iter()
        .find(|known| known.rsplit('.').next() == Some(leaf));
    let help = match same_leaf {
        Some(known) => Some(format!("did you mean `{known}`?")),
        None => nearest(path, known),
    };
    Err((message, help))
}

macro_rules! fields {
    ($($path:literal $type:expr, $event:ident => $value:expr;)*) => {
        &[$(Field {
            path: $path,
            kind: None,
            ty: $type,
            see: |$event, test| {
                let value = || Some($value);
                value().see(test)
            },
        }),*]
    };
    ($kind:literal $variant:ident; $($path:expr, $type:expr, $body:ident => $value:expr;)*) => {
        &[$(Field {
            path: $path,
            kind: Some($kind),
            ty: $type,
            see: |event, test| match &event.body {
                Body::$variant($body) => {
                    let value = || Some($value);
                    value().see(test)
                }
                _ => false,
            },
        }),*]
    };
}

macro_rules! network {
    ($kind:literal $variant:ident) => {
        fields! { $kind $variant;
            concat!($kind, ".flow"), Text, b => &b.flow;
            concat!($kind, ".transport"), TRANSPORT, b => b.transport;
            concat!($kind, ".local.ip"), Ip, b => b.local?.ip;
            concat!($kind, ".local.port"), Number, b => b.local?.port;
            concat!($kind, ".remote.ip"), Ip, b => b.remote.ip;
            concat!($kind, ".remote.port"), Number, b => b.remote.port;
            concat!($kind, ".server_name"), Text, b => &b.server_name;
            concat!($kind, ".result"), RESULT, b => b.result;
        }
    };
}

macro_rules! bound {
    ($kind:literal $variant:ident) => {
        fields! { $kind $variant;
            concat!($kind, ".flow"), Text, b => &b.flow;
            concat!($kind, ".transport"), TRANSPORT, b => b.transport;
            concat!($kind, ".local.ip"), Ip, b => b.local.ip;
            concat!($kind, ".local.port"), Number, b => b.local.port;
        }
    };
}

/// A word, or the number of a protocol that has none here.
const TRANSPORT: Type = Word(|| TRANSPORTS.iter().map(String::as_str).collect());
static TRANSPORTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let named = [6, 17, 1, 58];
    let numbered = (0..=255).filter(|it| !named.contains(it));
    named
        .into_iter()
        .chain(numbered)
        .map(|it| Transport::of(it).to_string())
        .collect()
});

const RESULT: Type = Word(|| OUTCOMES.to_vec());
const PROTOCOL: Type = Word(|| PROTOCOLS.iter().map(|protocol| protocol.name).collect());

/// All there are. `time` is compared by correlations alone, and `schema` and
/// `kind` are given with the rule.
static TABLES: &[&[Field]] = &[
    fields! {
        "id" Text, e => &e.id;
        "node" Text, e => &e.node;
        "agent.id" Text, e => &e.agent.as_ref()?.id;
        "agent.name" Text, e => &e.agent.as_ref()?.name;
        "agent.cgroup" Text, e => &e.agent.as_ref()?.cgroup;
        "agent.cgroup_id" Text, e => AsText(e.agent.as_ref()?.cgroup_id);
        "agent.container.id" Text, e => &e.agent.as_ref()?.container.as_ref()?.id;
        "agent.container.name" Text, e => &e.agent.as_ref()?.container.as_ref()?.name;
        "agent.container.image" Text, e => &e.agent.as_ref()?.container.as_ref()?.image;
        "agent.container.runtime" Text, e => &e.agent.as_ref()?.container.as_ref()?.runtime;
        "agent.pod.namespace" Text, e => &e.agent.as_ref()?.pod.as_ref()?.namespace;
        "agent.pod.name" Text, e => &e.agent.as_ref()?.pod.as_ref()?.name;
        "process.pid" Number, e => e.process.as_ref()?.pid;
        "process.start" Number, e => e.process.as_ref()?.start;
        "process.ppid" Number, e => e.process.as_ref()?.ppid;
        "process.uid" Number, e => e.process.as_ref()?.uid;
        "process.comm" Text, e => &e.process.as_ref()?.comm;
        "process.exe" Text, e => &e.process.as_ref()?.exe;
        "process.argv" Texts, e => &e.process.as_ref()?.argv;
        "process.ancestors.pid" Number, e => Each(&e.process.as_ref()?.ancestors, |a, test| a.pid.see(test));
        "process.ancestors.comm" Texts, e => Each(&e.process.as_ref()?.ancestors, |a, test| a.comm.see(test));
        "process.ancestors.exe" Texts, e => Each(&e.process.as_ref()?.ancestors, |a, test| a.exe.see(test));
        // The parent, as jq writes it.
        "process.ancestors.0.pid" Number, e => e.process.as_ref()?.ancestors.first()?.pid;
        "process.ancestors.0.comm" Text, e => &e.process.as_ref()?.ancestors.first()?.comm;
        "process.ancestors.0.exe" Text, e => &e.process.as_ref()?.ancestors.first()?.exe;
    },
    fields! { "exec" Exec;
        "exec.filename", Text, b => &b.filename;
        "exec.argv", Texts, b => &b.argv;
        "exec.argv.0", Text, b => b.argv.first()?;
        "exec.argv.1", Text, b => b.argv.get(1)?;
        "exec.argv.2", Text, b => b.argv.get(2)?;
        "exec.argv_truncated", Bool, b => b.argv_truncated;
        "exec.memfd", Bool, b => b.memfd;
        "exec.stdio_sockets", Number, b => &b.stdio_sockets;
        "exec.interpreter", Text, b => &b.interpreter;
        "exec.gid", Number, b => b.gid;
        "exec.euid", Number, b => b.euid;
        "exec.euid_before", Number, b => b.euid_before;
        "exec.egid", Number, b => b.egid;
        "exec.setuid", Bool, b => b.setuid;
        "exec.setgid", Bool, b => b.setgid;
        "exec.namespaces.cgroup", Number, b => b.namespaces?.cgroup;
        "exec.namespaces.ipc", Number, b => b.namespaces?.ipc;
        "exec.namespaces.mnt", Number, b => b.namespaces?.mnt;
        "exec.namespaces.net", Number, b => b.namespaces?.net;
        "exec.namespaces.pid", Number, b => b.namespaces?.pid;
        "exec.namespaces.user", Number, b => b.namespaces?.user;
        "exec.namespaces.uts", Number, b => b.namespaces?.uts;
    },
    fields! { "exit" Exit;
        "exit.code", Number, b => b.code;
        "exit.signal", Number, b => b.signal;
        "exit.runtime_ns", Number, b => b.runtime_ns;
    },
    network!("connect" Connect),
    network!("accept" Accept),
    network!("send" Send),
    fields! { "socket" Socket;
        "socket.flow", Text, b => &b.flow;
        "socket.family", Text, b => &*b.family;
        "socket.type", Text, b => &*b.kind;
        "socket.protocol", Text, b => &*b.protocol;
        "socket.transport", TRANSPORT, b => b.transport;
        "socket.raw", Bool, b => b.raw;
    },
    bound!("bind" Bind),
    bound!("listen" Listen),
    fields! { "dns" Dns;
        "dns.flow", Text, b => &b.flow;
        "dns.transport", TRANSPORT, b => b.transport;
        "dns.local.ip", Ip, b => b.local?.ip;
        "dns.local.port", Number, b => b.local?.port;
        "dns.remote.ip", Ip, b => b.remote.ip;
        "dns.remote.port", Number, b => b.remote.port;
        "dns.question", Text, b => &b.question;
        "dns.type", Text, b => &b.kind;
        "dns.rcode", Text, b => &b.rcode;
        "dns.answers", Texts, b => &b.answers;
        "dns.truncated", Bool, b => b.truncated;
    },
    fields! { "flow" Flow;
        "flow.flow", Text, b => &b.flow;
        "flow.peer_flow", Text, b => &b.peer_flow;
        "flow.owner", Word(|| vec!["creator", "listener"]), b => b.owner;
        "flow.state", Word(|| FLOW_STATES.to_vec()), b => b.state;
        "flow.direction", Word(|| DIRECTIONS.to_vec()), b => b.direction;
        "flow.transport", TRANSPORT, b => b.transport;
        "flow.local.ip", Ip, b => b.local?.ip;
        "flow.local.port", Number, b => b.local?.port;
        "flow.remote.ip", Ip, b => b.remote.ip;
        "flow.remote.port", Number, b => b.remote.port;
        "flow.protocol", PROTOCOL, b => b.protocol;
        "flow.server_name", Text, b => &b.server_name;
        "flow.hassh", Text, b => &b.hassh;
        "flow.hassh_server", Text, b => &b.hassh_server;
        "flow.ja4", Text, b => &b.ja4;
        "flow.result", RESULT, b => b.result;
        "flow.bytes_out", Number, b => b.bytes_out;
        "flow.bytes_in", Number, b => b.bytes_in;
        "flow.packets_out", Number, b => b.packets_out;
        "flow.packets_in", Number, b => b.packets_in;
        "flow.duration_ns", Number, b => b.duration_ns;
        "flow.retransmits", Number, b => b.retransmits;
        "flow.rtt_us", Number, b => b.rtt_us;
        "flow.facts", Texts, b => &b.facts;
    },
    fields! { "device" Device;
        "device.type", Word(|| vec!["character", "block"]), b => b.class;
        "device.major", Number, b => b.major;
        "device.minor", Number, b => b.minor;
        "device.access", Text, b => &b.access;
        "device.name", Text, b => b.name.as_deref()?;
        "device.result", Word(|| vec!["attempted", "refused"]), b => b.result;
    },
    fields! { "sysctl" Sysctl;
        "sysctl.name", Text, b => &b.name;
        "sysctl.value", Text, b => &b.value;
        "sysctl.value_truncated", Bool, b => b.value_truncated;
    },
    fields! { "cgroup" Cgroup;
        "cgroup.action", Word(|| vec!["created", "removed", "entered"]), b => b.action;
        "cgroup.path", Text, b => &b.path;
    },
    fields! { "agent" Agent;
        "agent.state", Word(|| AGENT_STATES.to_vec()), b => b.state;
    },
    fields! { "loss" Loss;
        "loss.stage", Word(|| Stage::ALL.map(Stage::name).to_vec()), b => b.stage.name();
        "loss.records", Number, b => b.records;
    },
    fields! { "gap" Gap;
        "gap.reason", Text, b => &b.reason;
    },
];

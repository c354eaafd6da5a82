//! How many events a second go into the store on one core: `cargo bench -p agent-monitor
//! --bench store`. Results, with conditions, are in `docs/store.md`. `TMPDIR` says on which disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_monitor::event::{
    Address, Agent, Body, Direction, Event, Flow, FlowState, Outcome, Process, Timestamp, Transport,
};
use agent_monitor::store::{Limits, Store};
use rustix::time::{ClockId, clock_gettime};

/// Events of a run.
const EVENTS: usize = 1_000_000;
/// Events that are written together, as the daemon does under load.
const BATCH: usize = 4_096;

fn main() {
    // Cargo's test runs build and start benches, too: there is nothing to test.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    run("nothing to delete", Limits::default());
    let limits = Limits {
        max_bytes: 256 << 20,
        ..Limits::default()
    };
    run("256 MiB, so the oldest go", limits);
}

fn run(what: &str, limits: Limits) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("store.db")).expect("the folder is ours");
    store.set_limits(limits).expect("the store is open");
    store.set_sinks(Vec::new());
    let event = sample();
    let bytes = serde_json::to_string(&event).expect("it is JSON").len();
    let (start, cpu) = (Instant::now(), cpu_time());
    for first in (0..EVENTS).step_by(BATCH) {
        let batch: Vec<Event> = (first..(first + BATCH).min(EVENTS))
            .map(|number| Event {
                id: format!("6713fd2a9c00-{number}").into(),
                time: Timestamp(event.time.0 + number as u64 * 10_000),
                ..event.clone()
            })
            .collect();
        let batch: Vec<&Event> = batch.iter().collect();
        store.append_all(&batch).expect("there is room");
        store.make_room().expect("there is room");
    }
    let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
    let rate = |time: Duration| EVENTS as f64 / time.as_secs_f64();
    println!(
        "{what}: {EVENTS} events of {bytes} bytes, {:.0} a second of processor time, {:.0} a second",
        rate(cpu),
        rate(wall)
    );
}

/// What this thread has used of processors.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}

/// An end of a flow, with all that belongs to it.
fn sample() -> Event {
    let address = |text: &str| -> Address {
        let address: std::net::SocketAddr = text.parse().expect("an address");
        Address {
            ip: address.ip(),
            port: address.port(),
        }
    };
    let agent = Agent {
        id: "3f2a9c".repeat(10),
        name: "agent-7".into(),
        cgroup: format!("/system.slice/docker-{}.scope", "3f2a9c".repeat(10)),
        cgroup_id: 48_211,
        ..Agent::default()
    };
    let process = Process {
        pid: 41_230,
        start: 1_830_211,
        ppid: Some(41_001),
        uid: Some(1_000),
        comm: "python3".into(),
        exe: Some("/usr/bin/python3.11".into()),
        argv: ["python3", "-m", "agent", "--task", "fetch"]
            .map(str::to_owned)
            .into(),
        ..Process::default()
    };
    let flow = Flow {
        flow: "1311768467463790320-1".into(),
        peer_flow: None,
        owner: "creator",
        state: FlowState::Closed,
        direction: Direction::Outbound,
        transport: Transport::Tcp,
        local: Some(address("172.17.0.4:51822")),
        remote: address("192.0.2.10:443"),
        protocol: Some("tls"),
        server_name: Some("api.example.net".into()),
        hassh: None,
        hassh_server: None,
        ja4: None,
        result: Outcome::Established,
        bytes_out: 1_822,
        bytes_in: 92_310,
        packets_out: 21,
        packets_in: 70,
        duration_ns: Some(412_000_000),
        retransmits: Some(0),
        rtt_us: Some(18_200),
        facts: Vec::new(),
    };
    Event {
        id: "".into(),
        time: Timestamp(1_893_456_000_000_000_000),
        node: "node-1".into(),
        agent: Some(Arc::new(agent)),
        process: Some(Arc::new(process)),
        body: Body::Flow(Box::new(flow)),
    }
}

//! Processes and connections that were there before the watch: who holds them,
//! and that what comes on them later is judged. Needs root.

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, SOON};
use agent_monitor_tests::process::Process;
use agent_monitor_tests::watched::{Events, address};
use agent_monitor_tests::world::{SERVER, World};
use serde_json::Value;

/// Listens on the address given, tells so, and sends a mining job to whoever is
/// connected when a line comes on its own standard input's file.
const POOL: &str = r#"
import os, socket, sys, time
listener = socket.create_server((sys.argv[1], 3333))
print('listening', flush=True)
connection, _ = listener.accept()
while not os.path.exists(sys.argv[2]): time.sleep(0.005)
job = b'{"id":null,"method":"mining.notify","params":["1f","%s","01000000","ffffffff",[],"20000000","1d00ffff","65a1b2c3",true]}\n' % (b'0' * 64)
connection.sendall(job)
connection.recv(1)
"#;

/// Has a connection to the pool, a listener of its own, a connection to that and a
/// connected datagram socket, and serves one more connection.
const AGENT: &str = r"
import socket, sys
pool = socket.create_connection((sys.argv[1], 3333))
listener = socket.create_server(('0.0.0.0', 4444))
one = socket.create_connection(('127.0.0.1', 4444))
other, _ = listener.accept()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.connect((sys.argv[1], 5555))
print('ready', pool.getsockname()[1], one.getsockname()[1], flush=True)
later, _ = listener.accept()
later.sendall(b'hello')
later.close()
pool.recv(1)
pool.recv(65536)
print('done', flush=True)
sys.stdin.read()
";

struct Before {
    world: std::sync::Arc<World>,
    agent: Agent,
    pool: Process,
    holder: Process,
    go: std::path::PathBuf,
}

fn before(name: &str) -> Before {
    let world = World::new(name).unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let go = world.dir().join("go");
    let mut pool = world
        .spawn(&["/usr/bin/python3", "-c", POOL, SERVER, go.to_str().unwrap()])
        .unwrap();
    pool.wait_for_line("listening", SOON).unwrap();
    let mut holder = agent.spawn(&["python3", "-c", AGENT, SERVER]).unwrap();
    holder.wait_for_line("ready", SOON).unwrap();
    Before {
        world,
        agent,
        pool,
        holder,
        go,
    }
}

/// The open flow from before with this other end.
fn open(monitor: &Monitor, remote: &str, local_port: Option<u16>) -> Value {
    monitor
        .wait_for("an open flow", SOON, |it| {
            it["flow"]["state"] == "open"
                && address(&it["flow"]["remote"]).starts_with(remote)
                && local_port.is_none_or(|port| it["flow"]["local"]["port"] == port)
        })
        .unwrap()
}

#[test]
fn connections_from_before_are_told_with_their_holder_and_a_guessed_direction() {
    let it = before("takeover");
    let pid = it.holder.pid().unwrap();
    let monitor = Monitor::of(&it.agent).unwrap();
    let pool = open(&monitor, &format!("{SERVER}:3333"), None);
    let client = open(&monitor, "127.0.0.1:4444", None);
    let server = open(&monitor, "127.0.0.1:", Some(4444));
    let datagrams = open(&monitor, &format!("{SERVER}:5555"), None);
    for (flow, direction) in [
        (&pool, "outbound"),
        (&client, "outbound"),
        (&server, "inbound"),
        (&datagrams, "outbound"),
    ] {
        assert_eq!(flow["process"]["pid"], pid, "{flow}");
        let body = &flow["flow"];
        assert_eq!(body["direction"], direction, "{flow}");
        let facts = body["facts"].as_array().unwrap();
        assert!(
            facts.contains(&"open before the watch began".into()),
            "{flow}"
        );
        let guess = facts.iter().filter_map(Value::as_str);
        assert_eq!(
            guess.filter(|it| it.contains("guessed")).count(),
            1,
            "{flow}"
        );
    }
    assert_eq!(pool["flow"]["local"]["ip"], it.agent.address());
    assert_eq!(datagrams["flow"]["transport"], "udp");
    // Each end of the one on loopback knows the other.
    let peers = [&client, &server].map(|it| it["flow"]["peer_flow"].clone());
    assert!(
        peers.contains(&client["flow"]["flow"]) || peers.contains(&server["flow"]["flow"]),
        "{peers:?}"
    );
    drop(it.pool);
    let _ = it.world;
    monitor.stop().unwrap();
}

#[test]
fn what_a_listener_from_before_accepts_is_its_holders() {
    let it = before("listener");
    let pid = it.holder.pid().unwrap();
    let monitor = Monitor::of(&it.agent).unwrap();
    let connect =
        "import socket, sys; s = socket.create_connection((sys.argv[1], 4444)); s.recv(5)";
    it.world
        .spawn(&["/usr/bin/python3", "-c", connect, it.agent.address()])
        .unwrap()
        .finish(SOON)
        .unwrap();
    let accept = monitor
        .wait_for("an accept", SOON, |it| it["kind"] == "accept")
        .unwrap();
    assert_eq!(accept["process"]["pid"], pid, "{accept}");
    assert_eq!(accept["accept"]["local"]["port"], 4444);
    let closed = monitor
        .wait_for("its end", SOON, |it| it["flow"]["state"] == "closed")
        .unwrap();
    assert_eq!(closed["flow"]["bytes_out"], 5, "{closed}");
    monitor.stop().unwrap();
}

#[test]
fn the_ends_of_connections_from_before_are_told_also_of_those_that_were_idle() {
    let mut it = before("ends");
    let pid = it.holder.pid().unwrap();
    let monitor = Monitor::of(&it.agent).unwrap();
    let open = [
        open(&monitor, &format!("{SERVER}:3333"), None),
        open(&monitor, "127.0.0.1:4444", None),
        open(&monitor, "127.0.0.1:", Some(4444)),
    ];
    it.holder.stop().unwrap();
    for open in open {
        let closed = monitor
            .wait_for("its end", SOON, |it| {
                it["flow"]["state"] == "closed" && it["flow"]["flow"] == open["flow"]["flow"]
            })
            .unwrap();
        assert_eq!(closed["process"]["pid"], pid, "{closed}");
        assert_eq!(closed["flow"]["remote"], open["flow"]["remote"]);
        assert_eq!(closed["flow"]["result"], "established");
        assert_eq!(closed["flow"].get("duration_ns"), None, "{closed}");
    }
    drop(it.pool);
    monitor.stop().unwrap();
}

#[test]
fn mining_on_a_connection_from_before_is_found_and_names_its_process() {
    let it = before("mining");
    let pid = it.holder.pid().unwrap();
    let monitor = Monitor::of(&it.agent).unwrap();
    std::fs::write(&it.go, "").unwrap();
    let alert = monitor
        .wait_for("an alert", SOON, |it| {
            it["alert"]["rule"] == "mining-pool-protocol"
        })
        .unwrap();
    assert_eq!(alert["process"]["pid"], pid, "{alert:#}");
    assert_eq!(alert["process"]["comm"], "python3", "{alert:#}");
    let pool = open(&monitor, &format!("{SERVER}:3333"), None);
    assert!(
        alert["alert"]["events"]
            .as_array()
            .unwrap()
            .contains(&pool["id"])
            || alert.to_string().contains(&SERVER.to_string()),
        "{alert:#}"
    );
    let events = Events(monitor.stop().unwrap());
    assert!(events.of_kind("loss").is_empty());
}

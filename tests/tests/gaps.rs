//! What cannot be seen is said: a `gap` event and an alert within a second. Needs root.

use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::cgroup::Cgroup;
use agent_monitor_tests::evasion::{POOL, Pool, Stage};
use agent_monitor_tests::monitor::{Monitor, SOON, Site};
use agent_monitor_tests::paths::{INSIDE_BIN, INSIDE_SHARED};
use agent_monitor_tests::process::Process;
use agent_monitor_tests::watched::Watched;
use agent_monitor_tests::world::World;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

/// How long something may go on before it is said.
const AT_ONCE: Duration = Duration::from_secs(1);

fn evade(agent: &Agent, mechanism: &str, arguments: &[&str]) -> Process {
    let program = format!("{INSIDE_BIN}/evade");
    let command = [&[&program, mechanism, POOL], arguments].concat();
    agent.spawn(&command).unwrap()
}

fn time(event: &Value, member: &str) -> jiff::Timestamp {
    let time = if member == "time" {
        &event["time"]
    } else {
        &event["gap"][member]
    };
    time.as_str().unwrap().parse().unwrap()
}

/// The gap that says so, of this agent, and its alert.
fn told(monitor: &Monitor, agent: &Agent, words: &str) -> Value {
    let gap = monitor
        .wait_for(&format!("a gap that says {words:?}"), SOON, |it| {
            it["gap"]["reason"]
                .as_str()
                .is_some_and(|it| it.contains(words))
        })
        .unwrap();
    assert_eq!(gap["agent"]["cgroup"], agent.group().path());
    let alert = monitor
        .wait_for("its alert", SOON, |it| {
            let events = it["alert"]["events"].as_array();
            it["alert"]["rule"] == "monitoring-loss"
                && events.is_some_and(|it| it.contains(&gap["id"]))
        })
        .unwrap();
    assert_eq!(alert["alert"]["severity"], "medium");
    assert_eq!(alert["alert"]["confidence"], "high");
    assert_ne!(alert["alert"]["coverage"], "complete");
    assert_eq!(alert["agent"]["cgroup"], agent.group().path());
    gap
}

/// Lets a process go that waits for the file `go`.
fn let_go(agent: &Agent, process: &mut Process) {
    std::fs::write(agent.shared().join("go"), "").unwrap();
    process.finish(SOON).unwrap();
}

/// The file `go`, as a process in an agent names it.
fn go() -> String {
    format!("{INSIDE_SHARED}/go")
}

fn outside(watched: &Watched) -> Cgroup {
    Cgroup::create(&format!("outside.{}", watched.world.id())).unwrap()
}

#[test]
fn a_process_that_leaves_its_cgroup_is_told_with_its_name() {
    let stage = Stage::new("leave", 1).unwrap();
    let agent = &stage.watched.agent;
    let outside = outside(&stage.watched);
    let mut process = evade(agent, "leave", &[outside.path(), &go()]);
    let monitor = stage.watched.monitor();
    let gap = told(monitor, agent, "has left the agent's cgroup");
    let pid = process.pid().unwrap();
    assert_eq!(gap["process"]["pid"], pid);
    let left = monitor.wait_for("the move", SOON, |it| {
        it["cgroup"]["path"] == outside.path() && it["process"]["pid"] == pid
    });
    let left = time(&left.unwrap(), "time");
    assert!(time(&gap, "to").duration_since(left) < AT_ONCE.try_into().unwrap());
    assert!(time(&gap, "from") <= left);
    let_go(agent, &mut process);
    // Told again with its whole length, once it is over.
    let whole = monitor.wait_for("the gap's end", SOON, |it| {
        it["gap"]["reason"] == gap["gap"]["reason"] && it["id"] != gap["id"]
    });
    let whole = whole.unwrap();
    assert_eq!(whole["gap"]["from"], gap["gap"]["from"]);
    assert!(time(&whole, "to") > time(&gap, "to"));
    outside.remove().unwrap();
}

#[test]
fn a_child_that_is_born_outside_is_told_however_short_it_lives() {
    let stage = Stage::new("born-outside", 1).unwrap();
    let outside = outside(&stage.watched);
    stage.evade("born-outside", &[outside.path()]).unwrap();
    let agent = &stage.watched.agent;
    told(
        stage.watched.monitor(),
        agent,
        "has left the agent's cgroup",
    );
    outside.remove().unwrap();
}

/// Gives a socket made here, in the agent's network, to whoever connects to the
/// Unix socket `giver` in the agent's shared folder.
fn give_a_socket(agent: &Agent) -> std::thread::JoinHandle<()> {
    use std::io::IoSlice;
    let socket = agent.netns().run(|| Ok(foreign_socket())).unwrap();
    let giver = UnixListener::bind(agent.shared().join("giver")).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = giver.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [socket.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(
            &stream,
            &[IoSlice::new(b"x")],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
    })
}

fn foreign_socket() -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketType, socket};
    socket(AddressFamily::INET, SocketType::STREAM, None).unwrap()
}

#[test]
fn a_socket_from_outside_is_told_with_where_it_leads() {
    let stage = Stage::new("receive", 1).unwrap();
    let agent = &stage.watched.agent;
    let given = give_a_socket(agent);
    let began = jiff::Timestamp::now();
    let mut process = evade(
        agent,
        "receive",
        &[&format!("{INSIDE_SHARED}/giver"), &go()],
    );
    let gap = told(
        stage.watched.monitor(),
        agent,
        "that was not made in the agent",
    );
    assert!(time(&gap, "to").duration_since(began) < (2 * AT_ONCE).try_into().unwrap());
    assert_eq!(gap["process"]["pid"], process.pid().unwrap());
    let reason = gap["gap"]["reason"].as_str().unwrap();
    assert!(reason.contains("TCP socket"), "{reason}");
    let_go(agent, &mut process);
    given.join().unwrap();
}

#[test]
fn a_socket_from_outside_is_told_however_short_its_user_lives() {
    let stage = Stage::new("receive-short", 1).unwrap();
    let agent = &stage.watched.agent;
    let given = give_a_socket(agent);
    let giver = format!("{INSIDE_SHARED}/giver");
    // The pool closes first, so that the socket is still open at the end.
    let script = "
import array, os, socket, sys
giver = socket.socket(socket.AF_UNIX)
giver.connect(sys.argv[1])
_, control, _, _ = giver.recvmsg(1, 64)
fd, = array.array('i', control[0][2])
s = socket.socket(fileno=fd)
s.connect(('198.51.100.1', 3333))
os._exit(0)
";
    stage.watched.python(script, &[&giver]).unwrap();
    let monitor = stage.watched.monitor();
    told(monitor, agent, "that was not made in the agent");
    // Perhaps a second time, once it was connected.
    monitor
        .wait_for("where it leads", SOON, |it| {
            it["gap"]["reason"]
                .as_str()
                .is_some_and(|it| it.contains(POOL))
        })
        .unwrap();
    given.join().unwrap();
}

#[test]
fn a_socket_that_was_there_at_the_program_s_start_is_told() {
    let watched = Watched::cgroup("activation").unwrap();
    let socket = watched.agent.netns().run(|| Ok(foreign_socket())).unwrap();
    // Without close-on-exec, for the program that is started next.
    let inherited = rustix::io::dup(&socket).unwrap();
    let script = "import os, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.005)";
    let mut process = watched
        .agent
        .spawn(&["python3", "-c", script, &go()])
        .unwrap();
    drop(inherited);
    told(
        watched.monitor(),
        &watched.agent,
        "that was not made in the agent",
    );
    let_go(&watched.agent, &mut process);
}

#[test]
fn a_packet_socket_is_told() {
    let watched = Watched::cgroup("packet").unwrap();
    let began = jiff::Timestamp::now();
    let mut process = evade(&watched.agent, "packet-socket", &["eth0", &go()]);
    let gap = told(watched.monitor(), &watched.agent, "a packet socket");
    assert!(time(&gap, "to").duration_since(began) < (2 * AT_ONCE).try_into().unwrap());
    let_go(&watched.agent, &mut process);
}

#[test]
fn a_packet_socket_that_is_open_at_the_end_of_a_short_process_is_told() {
    let watched = Watched::cgroup("packet-short").unwrap();
    let script = "
import os, socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
s.send(b'\\xff' * 12 + b'\\x08\\x00' + bytes(60))
os._exit(0)
";
    watched.python(script, &[]).unwrap();
    told(watched.monitor(), &watched.agent, "a packet socket");
}

#[test]
fn a_vsock_socket_is_told() {
    let watched = Watched::cgroup("vsock").unwrap();
    let script = "import os, socket; s = socket.socket(socket.AF_VSOCK); os._exit(0)";
    watched.python(script, &[]).unwrap();
    told(watched.monitor(), &watched.agent, "a vsock socket");
}

#[test]
fn a_tun_device_is_told() {
    let watched = Watched::cgroup("tun").unwrap();
    let mut process = evade(&watched.agent, "tun", &["-", &go()]);
    let gap = told(watched.monitor(), &watched.agent, "a TUN device");
    assert_eq!(gap["process"]["pid"], process.pid().unwrap());
    let_go(&watched.agent, &mut process);
}

#[test]
fn programs_that_an_agent_detaches_are_attached_again_and_it_is_told() {
    let mut stage = Stage::new("detach", 1).unwrap();
    let id = stage.watched.agent.group().id().unwrap().to_string();
    let began = jiff::Timestamp::now();
    stage.evade("detach", &[&id]).unwrap();
    let gap = told(
        stage.watched.monitor(),
        &stage.watched.agent,
        "were detached from the agent, and attached again",
    );
    assert!(time(&gap, "to").duration_since(began) < (2 * AT_ONCE).try_into().unwrap());
    stage.evade("plain", &[]).unwrap();
    stage.login_is_seen_again().unwrap();
}

#[test]
fn an_agent_that_takes_itself_off_the_kernel_s_map_is_put_back_and_it_is_told() {
    let mut stage = Stage::new("forget", 1).unwrap();
    let id = stage.watched.agent.group().id().unwrap().to_string();
    stage.evade("forget", &[&id]).unwrap();
    told(
        stage.watched.monitor(),
        &stage.watched.agent,
        "was taken out of the kernel's map",
    );
    // Meanwhile the kernel side has noted that the cgroup is no agent's.
    let agent = &stage.watched.agent;
    agent.run(&["true", "once put back"]).unwrap();
    let is_it = |it: &Value| it["kind"] == "exec" && it["process"]["argv"][1] == "once put back";
    let monitor = stage.watched.monitor();
    monitor.wait_for("programs as before", SOON, is_it).unwrap();
    stage.evade("plain", &[]).unwrap();
    stage.login_is_seen_again().unwrap();
}

#[test]
fn a_daemon_that_is_killed_says_from_when_on_it_was_not_there() {
    let world = World::new("killed").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let site = Arc::new(Site::new().unwrap());
    let first = Monitor::start_at(&site, &[&agent.selector()], "").unwrap();
    first.catch_up(&agent).unwrap();
    let killed = jiff::Timestamp::now();
    agent
        .run(&["kill", "-9", &first.pid().to_string()])
        .unwrap();
    first.ended().unwrap();
    let pool = Pool::open(world.net(), POOL, 1).unwrap();
    evade(&agent, "plain", &[]).finish(SOON).unwrap();
    pool.served().unwrap();
    let second = Monitor::start_at(&site, &[&agent.selector()], "").unwrap();
    let gap = second
        .wait_for("the gap", SOON, |it| {
            let says = |it: &str| it.contains("agent-monitor was killed");
            it["agent"]["cgroup"] == agent.group().path()
                && it["gap"]["reason"].as_str().is_some_and(says)
        })
        .unwrap();
    let before = killed.duration_since(time(&gap, "from"));
    assert!(before.abs() < AT_ONCE.try_into().unwrap(), "{gap}");
    assert!(time(&gap, "to") > killed);
    let alert = second.wait_for("the alert", SOON, |it| it["kind"] == "alert");
    let alert = &alert.unwrap()["alert"];
    assert_eq!(alert["rule"], "monitoring-loss");
    let summary = alert["summary"].as_str().unwrap();
    assert!(summary.contains("was killed"), "{summary}");
    second.stop().unwrap();
}

#[test]
fn a_daemon_that_was_stopped_tells_a_gap_and_no_alert() {
    let world = World::new("stopped").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let site = Arc::new(Site::new().unwrap());
    let first = Monitor::start_at(&site, &[&agent.selector()], "").unwrap();
    first.stop().unwrap();
    let second = Monitor::start_at(&site, &[&agent.selector()], "").unwrap();
    second
        .wait_for("the gap", SOON, |it| {
            it["gap"]["reason"]
                .as_str()
                .is_some_and(|it| it.contains("agent-monitor was stopped"))
        })
        .unwrap();
    second.catch_up(&agent).unwrap();
    assert_eq!(second.alerts(), Vec::<Value>::new());
    second.stop().unwrap();
}

#[test]
fn ordinary_sockets_make_no_gap() {
    let watched = Watched::cgroup("ordinary").unwrap();
    let listener = watched
        .world
        .net()
        .run(|| Ok(TcpListener::bind("198.51.100.1:7080")?))
        .unwrap();
    let script = "
import array, os, socket, sys, time
tcp = socket.create_connection(('198.51.100.1', 7080))
udp = socket.socket(type=socket.SOCK_DGRAM)
six = socket.socket(socket.AF_INET6)
ours = socket.create_server(('127.0.0.1', 7081))
client = socket.create_connection(('127.0.0.1', 7081))
accepted, _ = ours.accept()
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
one, other = socket.socketpair()
one.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [tcp.fileno()]))])
os.mkdir('/tmp/x') if not os.path.exists('/tmp/x') else None
while not os.path.exists(sys.argv[1]): time.sleep(0.005)
";
    let mut process = watched
        .agent
        .spawn(&["python3", "-c", script, &go()])
        .unwrap();
    let (_stream, _) = listener.accept().unwrap();
    assert!(listener.as_raw_fd() > 0);
    // Long enough to be looked at more than once.
    std::thread::sleep(2 * AT_ONCE);
    let_go(&watched.agent, &mut process);
    watched.monitor().catch_up(&watched.agent).unwrap();
    let reasons: Vec<_> = watched
        .monitor()
        .of_kind("gap")
        .into_iter()
        .map(|it| it["gap"]["reason"].clone())
        .filter(|it| it != "the agent was there before the watch began")
        .filter(|it| it != "network programs were attached after the agent's birth")
        .collect();
    assert_eq!(reasons, Vec::<Value>::new());
}

//! The rig's foundations: agents, their network, their removal.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::leftovers;
use agent_monitor_tests::world::{SERVER, World};

/// Everything an agent is for, whatever its kind.
fn behaves(world: &Arc<World>, agent: &Agent) {
    let mut sleep = agent.spawn(&["sleep", "60"]).unwrap();
    let pid = sleep.pid().unwrap();
    assert!(agent.group().processes().unwrap().contains(&pid));
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(comm.trim(), "sleep");
    let line = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(
        line.contains(&format!("0::{}\n", agent.group().path())),
        "{line}"
    );
    sleep.stop().unwrap();
    assert!(!agent.group().processes().unwrap().contains(&pid));

    // The agent reaches the internet, and is seen there by its address.
    let listener = world
        .net()
        .run(|| Ok(TcpListener::bind((SERVER, 8080))?))
        .unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        stream.write_all(b"hello\n").unwrap();
        from.ip().to_string()
    });
    let said = agent
        .run(&["socat", "-u", &format!("TCP:{SERVER}:8080"), "STDOUT"])
        .unwrap();
    assert_eq!(said, "hello\n");
    assert_eq!(server.join().unwrap(), agent.address());

    // The internet reaches the agent.
    let _service = agent
        .spawn(&["socat", "TCP-LISTEN:9000,reuseaddr", "EXEC:cat"])
        .unwrap();
    agent.netns().wait_for_listener(9000).unwrap();
    let echo = world
        .net()
        .run(|| {
            let mut stream = TcpStream::connect((agent.address(), 9000))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"ping")?;
            let mut answer = [0; 4];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        })
        .unwrap();
    assert_eq!(&echo, b"ping");

    // Files can be handed over, and a failure is told with its output.
    std::fs::write(agent.shared().join("note"), "from outside").unwrap();
    let note = agent.run(&["cat", "/opt/rig/shared/note"]).unwrap();
    assert_eq!(note, "from outside");
    let error = agent.run(&["cat", "/nowhere"]).unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn a_cgroup_agent_behaves() {
    let world = World::new("cgroup").unwrap();
    let agent = Agent::cgroup(&world, "coder").unwrap();
    assert!(
        agent
            .group()
            .path()
            .starts_with("/agent-monitor-test/coder.")
    );
    behaves(&world, &agent);
}

#[test]
fn a_docker_agent_behaves() {
    let world = World::new("docker").unwrap();
    let agent = Agent::docker(&world, "coder").unwrap();
    let id = agent.container_id().unwrap();
    assert_eq!(agent.group().path(), format!("/docker/{id}"));
    behaves(&world, &agent);
}

#[test]
fn two_agents_of_one_world_have_their_own_addresses() {
    let world = World::new("two").unwrap();
    let one = Agent::cgroup(&world, "one").unwrap();
    let two = Agent::cgroup(&world, "two").unwrap();
    assert_ne!(one.address(), two.address());
    assert_ne!(one.group().id().unwrap(), two.group().id().unwrap());
}

#[test]
fn dropping_a_world_leaves_nothing_even_with_processes_running() {
    let world = World::new("dropped").unwrap();
    let id = world.id().to_owned();
    let agent = Agent::cgroup(&world, "busy").unwrap();
    // A process that the rig does not know: no parent, no mark in its environment.
    agent
        .run(&["env", "-i", "sh", "-c", "sleep 300 &"])
        .unwrap();
    let orphans = agent.group().processes().unwrap();
    let _listener = world.spawn(&["sleep", "300"]).unwrap();
    assert!(!orphans.is_empty());
    assert!(!leftovers::of(&id).is_empty());
    drop((agent, world));
    let left = leftovers::of(&id);
    assert!(left.is_empty(), "{left:?}");
    for pid in orphans {
        // A zombie that waits for the host's init has an empty command line.
        let file = format!("/proc/{pid}/cmdline");
        let line = std::fs::read_to_string(file).unwrap_or_default();
        assert_eq!(line, "", "{pid} still runs");
    }
}

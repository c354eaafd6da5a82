//! Writes to sysctls as the running kernel's hook shows them, and that watching them
//! changes nothing. Needs root.

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, SOON};
use agent_monitor_tests::wait;
use agent_monitor_tests::watched::{Events, Watched};
use agent_monitor_tests::world::World;
use aya::sys::{Stats, enable_stats};
use serde_json::{Value, json};

/// Writes a sysctl, or reads it; prints what came of it. Those of the network are the
/// network namespace's own.
const TRY: &str = "
import errno, os, sys
def attempt(path, value=None):
    try:
        descriptor = os.open('/proc/sys/' + path, os.O_RDONLY if value is None else os.O_WRONLY)
        try:
            done = os.read(descriptor, 99) if value is None else os.write(descriptor, value)
        finally:
            os.close(descriptor)
        print(path, done, flush=True)
    except OSError as error:
        print(path, errno.errorcode[error.errno], flush=True)
";

fn script(body: &str) -> String {
    format!("{TRY}{body}")
}

/// What was told, in order, without its process.
fn told(events: &Events) -> Vec<Value> {
    let writes = events.of_kind("sysctl");
    writes.iter().map(|it| it["sysctl"].clone()).collect()
}

#[test]
fn what_an_agent_writes_is_told_and_what_it_reads_is_not() {
    let watched = Watched::cgroup("sysctls").unwrap();
    let netns = watched.agent.netns();
    netns.ip(&["link", "add", "a.b", "type", "bridge"]).unwrap();
    let said = watched
        .python(
            &script(
                r"
attempt('net/ipv4/ip_default_ttl')
attempt('kernel/osrelease')
attempt('net/ipv4/ip_default_ttl', b'61\n')
attempt('net/ipv4/ip_default_ttl')
attempt('net/ipv4/conf/a.b/forwarding', b'1')
attempt('net/ipv4/ip_default_ttl', b' ' * 300 + b'62')
attempt('net/ipv4/ip_default_ttl', b'0' * 254 + b'9')
attempt('net/ipv4/tcp_congestion_control', b'\x1b[2J\xff')
attempt('net/ipv4/ip_default_ttl', b'')
os.setuid(65534)
attempt('net/ipv4/ip_default_ttl', b'63')
",
            ),
            &[],
        )
        .unwrap();
    // Everything has its way, or not, as without anybody watching.
    let expected = "net/ipv4/ip_default_ttl b'64\\n'\n";
    assert!(said.starts_with(expected), "{said}");
    assert!(
        said.contains("ip_default_ttl 3\nnet/ipv4/ip_default_ttl b'61\\n'\n"),
        "{said}"
    );
    assert!(said.contains("tcp_congestion_control ENOENT\n"), "{said}");
    assert!(said.ends_with("ip_default_ttl EACCES\n"), "{said}");
    let events = watched.events().unwrap();
    let write = |name: &str, value: &str| json!({"name": name, "value": value});
    let cut = |value: &str| json!({"name": "net.ipv4.ip_default_ttl", "value": value, "value_truncated": true});
    assert_eq!(
        told(&events),
        [
            write("net.ipv4.ip_default_ttl", "61"),
            write("net.ipv4.conf.a/b.forwarding", "1"),
            cut(""),
            write("net.ipv4.ip_default_ttl", &format!("{}9", "0".repeat(254))),
            write("net.ipv4.tcp_congestion_control", "\u{1b}[2J\u{fffd}"),
            write("net.ipv4.ip_default_ttl", ""),
        ]
    );
    let event = events.of_kind("sysctl")[0];
    assert_eq!(event["process"]["comm"], "python3", "{event}");
    assert!(event["process"]["argv"].is_array(), "{event}");
    assert!(events.of_kind("alert").is_empty());
}

#[test]
fn what_is_written_outside_of_agents_is_not_told() {
    let world = World::new("outside").unwrap();
    let other = Agent::cgroup(&world, "other").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let monitor = Monitor::of(&agent).unwrap();
    let write = script("attempt('net/ipv4/ip_default_ttl', b'61')");
    other.run(&["python3", "-c", &write]).unwrap();
    world
        .spawn(&["/usr/bin/python3", "-c", &write])
        .unwrap()
        .finish(SOON)
        .unwrap();
    agent.run(&["python3", "-c", &write]).unwrap();
    monitor.catch_up(&agent).unwrap();
    let events = Events(monitor.stop().unwrap());
    let event = events.only("sysctl", |_| true).unwrap();
    assert_eq!(event["agent"]["cgroup"], agent.group().path());
}

#[test]
fn a_program_runs_for_what_agents_read_and_none_for_what_others_do() {
    const READS: u64 = 1_000;
    let watched = Watched::cgroup("reads").unwrap();
    let _counting = enable_stats(Stats::RunTime).unwrap();
    for _ in 0..100 * READS {
        std::fs::read("/proc/sys/kernel/osrelease").unwrap();
    }
    let read = format!(
        "for _ in range({READS}):\n    with open('/proc/sys/kernel/osrelease') as file: file.read()"
    );
    watched.python(&read, &[]).unwrap();
    // The status is made anew every now and then.
    let runs = wait::until("the program to be counted", SOON, || {
        let status = watched.monitor().status()?;
        let runs = status["run_times"]["sysctl"]["runs"].as_u64();
        Ok(runs.filter(|runs| *runs >= READS))
    });
    // A read to the file's end is two or three.
    assert!(runs.unwrap() < 10 * READS);
    assert!(watched.events().unwrap().of_kind("sysctl").is_empty());
}

#[test]
fn what_is_over_the_quota_is_counted() {
    const WRITES: u64 = 8_000;
    let watched = Watched::cgroup("quota").unwrap();
    watched
        .python(
            &format!(
                "
import os
descriptor = os.open('/proc/sys/net/ipv4/ip_default_ttl', os.O_WRONLY)
for _ in range({WRITES}):
    os.pwrite(descriptor, b'61', 0)
"
            ),
            &[],
        )
        .unwrap();
    let events = watched.events().unwrap();
    let told = events.of_kind("sysctl").len() as u64;
    let losses = events.of_kind("loss");
    assert!(
        losses.iter().all(|it| it["loss"]["stage"] == "quota"),
        "{losses:?}"
    );
    let lost = losses
        .iter()
        .filter_map(|it| it["loss"]["kinds"]["sysctl"].as_u64());
    let lost: u64 = lost.sum();
    assert!(lost > 0 && told > 0, "{told} told, {lost} lost");
    assert_eq!(told + lost, WRITES);
}

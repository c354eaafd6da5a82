//! How soon events are told that the kernel side wakes nobody for. Needs root.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::bench::daemon::Daemon;
use agent_monitor_tests::world::World;
use jiff::Timestamp;
use serde_json::Value;

const ROUNDS: usize = 20;
/// The second of two that follow closely wakes nobody: who has taken the first looks
/// for more. Then comes a pause longer than the daemon's longest sleep.
const PAIRS: &str = "
import socket, sys, time
s = socket.socket(type=socket.SOCK_DGRAM)
for turn in range(int(sys.argv[1])):
    s.connect(('127.0.0.1', 9))
    time.sleep(0.004)
    s.connect(('127.0.0.1', 10))
    time.sleep(0.2)
";
/// Half of what an event would wait on average if nobody looked; ten times what it
/// takes on a quiet machine.
const SOON: Duration = Duration::from_millis(50);

#[test]
fn the_second_of_two_events_in_quick_succession_is_told_soon() {
    let world = World::new("prompt").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let daemon = Daemon::watching(&[&agent.selector()]).unwrap();
    let mut tail = daemon
        .site()
        .command(&["tail", "-n", "99", "--output", "json", "--kind", "connect"])
        .unwrap()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut work = agent
        .spawn(&["python3", "-c", PAIRS, &ROUNDS.to_string()])
        .unwrap();
    let mut took = Vec::new();
    for line in lines {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["connect"]["remote"]["port"] == 10 {
            let made: Timestamp = event["time"].as_str().unwrap().parse().unwrap();
            took.push(Timestamp::now().duration_since(made).unsigned_abs());
        }
        if took.len() == ROUNDS {
            break;
        }
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
    work.finish(SOON * 100).unwrap();
    took.sort();
    let median = took[ROUNDS / 2];
    assert!(median < SOON, "half of them took longer than {median:?}");
}

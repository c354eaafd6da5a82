//! What the daemon answers about agents, and what of events outlives it. Needs root.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, SOON, Site};
use agent_monitor_tests::wait;
use agent_monitor_tests::world::{SERVER, World};
use serde_json::{Value, json};

/// The body of an answer, as any client of HTTP gets it.
fn get(monitor: &Monitor, path: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(monitor.site().socket())?;
    stream.set_read_timeout(Some(SOON))?;
    // Of version 1.0: the answer ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: agent-monitor\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    anyhow::ensure!(head.contains(" 200 "), "{path}: {answer}");
    Ok(body.to_owned())
}

fn list(monitor: &Monitor, path: &str) -> anyhow::Result<Vec<Value>> {
    Ok(serde_json::from_str(&get(monitor, path)?)?)
}

#[test]
fn an_agents_processes_and_flows_are_listed_while_they_last() {
    let world = World::new("asked").unwrap();
    let agent = Agent::cgroup(&world, "asked").unwrap();
    let monitor = Monitor::of(&agent).unwrap();
    let at = format!("{SERVER}:7003");
    let listener = world.net().run(|| Ok(TcpListener::bind(&at)?)).unwrap();
    let client = "
import socket, sys
s = socket.create_connection((sys.argv[1], 7003), 5)
s.sendall(b'hello')
s.recv(1)
";
    let mut process = agent.spawn(&["python3", "-c", client, SERVER]).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    let agents = list(&monitor, "/v1/agents").unwrap();
    let id = agents[0]["id"].as_str().unwrap();
    let processes = format!("/v1/agents/{id}/processes");
    let flows = format!("/v1/agents/{id}/flows");
    let flow = wait::until("the flow", SOON, || {
        let listed = list(&monitor, &flows)?;
        let is_it = |it: &Value| it["remote"]["port"] == 7003 && it["result"] == "established";
        Ok(listed.into_iter().find(is_it))
    })
    .unwrap();
    assert_eq!(flow["remote"], json!({"ip": SERVER, "port": 7003}));
    assert_eq!(flow["direction"], "outbound");
    let activity: Value = serde_json::from_str(&get(&monitor, "/v1/activity").unwrap()).unwrap();
    let does = &activity["agents"][0];
    assert_eq!(does["id"].as_str(), Some(id));
    assert_eq!(does["flows"], 1);
    assert!(does["processes"].as_u64() >= Some(1), "{activity:#}");
    assert!(does["connects"].as_u64() >= Some(1), "{activity:#}");
    assert!(activity["events"].as_u64() >= Some(2), "{activity:#}");
    for what in [&flows, &processes] {
        assert_eq!(
            list(&monitor, &format!("{what}?n=0")).unwrap(),
            [Value::Null; 0]
        );
        assert!(get(&monitor, &format!("{what}?n=few")).is_err());
        assert!(get(&monitor, &format!("{what}?m=1")).is_err());
    }
    let is_client = |it: &Value| it["argv"].to_string().contains("7003");
    let listed = list(&monitor, &processes).unwrap();
    assert!(listed.iter().any(is_client), "{listed:#?}");
    drop(stream);
    process.wait(SOON).unwrap();
    wait::until("both to be gone", SOON, || {
        let gone = !list(&monitor, &processes)?.iter().any(is_client)
            && list(&monitor, &flows)?.is_empty();
        Ok(gone.then_some(()))
    })
    .unwrap();
    assert!(get(&monitor, "/v1/agents/nobody/flows").is_err());
    monitor.stop().unwrap();
}

#[test]
fn a_reader_goes_on_by_number_through_a_kill_and_reads_what_the_daemon_forgot() {
    let world = World::new("resumed").unwrap();
    let agent = Agent::cgroup(&world, "resumed").unwrap();
    let site = Arc::new(Site::new().unwrap());
    let all = "events = \"all\"";
    let monitor = Monitor::start_at(&site, &[&agent.selector()], all).unwrap();
    agent.run(&["/bin/true", "before"]).unwrap();
    monitor.catch_up(&agent).unwrap();
    let line = |monitor: &Monitor, after: i64, word: &str| -> (i64, usize) {
        let found = wait::until(word, SOON, || {
            let text = get(monitor, &format!("/v1/events?after={after}&follow=false"))?;
            let lines: Vec<Value> = text
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?;
            let numbers: Vec<i64> = lines.iter().filter_map(|it| it["seq"].as_i64()).collect();
            anyhow::ensure!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
            let exec = lines
                .iter()
                .find(|it| it["event"]["exec"]["argv"][1] == word);
            let seq = exec.and_then(|it| it["seq"].as_i64());
            Ok(seq.map(|seq| (seq, lines.len())))
        });
        found.unwrap()
    };
    let (before, _) = line(&monitor, 0, "before");
    monitor.kill().unwrap();
    let monitor = Monitor::start_at(&site, &[&agent.selector()], all).unwrap();
    agent.run(&["/bin/true", "after"]).unwrap();
    assert_eq!(line(&monitor, 0, "before").0, before, "it kept its number");
    let (after, lines) = line(&monitor, before, "after");
    assert!(after > before && lines >= 2, "{before} {after} {lines}");
    // Its memory begins with its start.
    for query in ["since=1h", "since=1h&n=1000"] {
        let text = get(
            &monitor,
            &format!("/v1/events?{query}&kind=exec&follow=false"),
        )
        .unwrap();
        let events = text.lines().map(serde_json::from_str::<Value>);
        let events: Vec<Value> = events.collect::<Result<_, _>>().unwrap();
        let of = |word: &str| {
            let said = events.iter().filter(|it| it["exec"]["argv"][1] == word);
            said.count()
        };
        assert_eq!((of("before"), of("after")), (1, 1), "{query}: {text}");
    }
    monitor.stop().unwrap();
}

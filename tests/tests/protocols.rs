//! Captured sessions of real programs, said again between an agent and the internet
//! on the running kernel. Needs root.

use std::fs;

use agent_monitor_tests::paths;
use agent_monitor_tests::process::Process;
use agent_monitor_tests::watched::{Events, Watched, address};
use agent_monitor_tests::world::SERVER;
use serde_json::Value;

/// Plays one side of a session: sends what is its own, and waits for the other's.
const PLAYER: &str = "
import json, socket, sys, time
end, side, transport, host, port, path = sys.argv[1:]
at = (host, int(port))
udp = transport == 'udp'
kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
if end == 'server':
    if udp:
        s = socket.socket(type=kind)
        s.bind(at)
    ready = socket.create_server(at)
    if not udp:
        s = ready.accept()[0]
else:
    s = socket.socket(type=kind)
    s.connect(at)
s.settimeout(10)
if not udp:
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
peer = None
for part in json.load(open(path)):
    data = bytes.fromhex(part.get('hex', '')) + bytes(part.get('encrypted', 0))
    if part['side'] == side:
        time.sleep(0.005)
        s.sendto(data, peer) if peer else s.send(data)
    elif not udp:
        left = len(data)
        while left:
            got = len(s.recv(left))
            assert got, 'the other end is gone'
            left -= got
    elif end == 'server':
        _, peer = s.recvfrom(2000)
    else:
        s.recv(2000)
";

/// Has the agent play `side` of a session of `tests/data` to a server on the internet;
/// gives what was told of it.
fn played(name: &str, side: &str, transport: &str, port: u16) -> Events {
    let watched = Watched::cgroup(&format!("played-{port}")).unwrap();
    let data = paths::data().join(format!("{name}.json"));
    fs::copy(&data, watched.agent.shared().join("session.json")).unwrap();
    let other = match side {
        "initiator" => "responder",
        _ => "initiator",
    };
    let number = port.to_string();
    let file = data.display().to_string();
    let server = [
        "/usr/bin/python3",
        "-c",
        PLAYER,
        "server",
        other,
        transport,
        SERVER,
        &number,
        &file,
    ];
    let mut server: Process = watched.world.spawn(&server).unwrap();
    watched.world.net().wait_for_listener(port).unwrap();
    let inside = format!("{}/session.json", paths::INSIDE_SHARED);
    let client = ["client", side, transport, SERVER, &number, &inside];
    watched.python(PLAYER, &client).unwrap();
    server.finish(agent_monitor_tests::monitor::SOON).unwrap();
    watched.events().unwrap()
}

/// Bodies of the events of the flow to `port`, in order.
fn flow(events: &Events, port: u16) -> Vec<Value> {
    let remote = format!("{SERVER}:{port}");
    let flows = events.of_kind("flow").into_iter().map(|it| &it["flow"]);
    let flows = flows.filter(|it| address(&it["remote"]) == remote);
    flows.cloned().collect()
}

/// Rule, severity and confidence of each alert, and its evidence.
fn alerts(events: &Events) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts = events.of_kind("alert").into_iter().map(|it| &it["alert"]);
    let alerts = alerts.map(|it| {
        let judged = [&it["rule"], &it["severity"], &it["confidence"]].map(text);
        (judged.join(" "), it["evidence"].to_string())
    });
    alerts.collect()
}

#[test]
fn a_quic_client_is_told_with_the_name_it_asks_for() {
    let events = played("quic/aioquic-long", "initiator", "udp", 7443);
    let told = flow(&events, 7443);
    let end = told.last().unwrap();
    assert_eq!(end["protocol"], "quic");
    assert_eq!(end["server_name"], "quic.cftunnel.com");
    assert!(end["ja4"].as_str().unwrap().starts_with("q13d"), "{end}");
    let alerts = alerts(&events);
    let [(judged, evidence)] = &alerts[..] else {
        panic!("{alerts:?}")
    };
    assert_eq!(judged, "tunnel-tool medium high");
    assert!(evidence.contains("argotunnel"), "{evidence}");
}

#[test]
fn wireguards_handshake_is_told() {
    let events = played("wireguard/wireguard-go", "initiator", "udp", 7444);
    let told = flow(&events, 7444);
    assert_eq!(told.last().unwrap()["protocol"], "tunnel-tool");
    let alerts = alerts(&events);
    let [(judged, evidence)] = &alerts[..] else {
        panic!("{alerts:?}")
    };
    assert_eq!(judged, "tunnel-tool medium high");
    assert!(evidence.contains("WireGuard (a handshake"), "{evidence}");
}

#[test]
fn a_reverse_tunnel_through_a_proxy_is_told_by_its_sizes() {
    for (name, port) in [("ssh-connect", 7445), ("ssh-websocket", 7446)] {
        let events = played(&format!("carried/{name}"), "initiator", "tcp", port);
        let told = flow(&events, port);
        let end = told.last().unwrap();
        assert_eq!(end["protocol"], "ssh", "{name}");
        assert_eq!(end["hassh"], "472b5de333ad665af5cbf10ff892c4df", "{name}");
        let alerts = alerts(&events);
        let tunnel = (alerts.iter()).find(|(judged, _)| judged.starts_with("reverse-ssh-tunnel"));
        let (judged, evidence) = tunnel.unwrap_or_else(|| panic!("{name}: {alerts:?} {told:?}"));
        assert_eq!(judged, "reverse-ssh-tunnel high medium", "{name}");
        assert!(evidence.contains("HASSH of the client"), "{evidence}");
    }
}

#[test]
fn an_ssh_server_that_connects_out_is_told() {
    // The agent says what the server said.
    let events = played("ssh/chacha20-shell", "responder", "tcp", 7447);
    let told = flow(&events, 7447);
    let facts: String = told.iter().map(|it| it["facts"].to_string()).collect();
    assert!(
        facts.contains("the SSH client is the accepting side"),
        "{facts}"
    );
    assert!(facts.contains("session with a terminal"), "{facts}");
    let alerts = alerts(&events);
    let inverted = alerts
        .iter()
        .find(|(judged, _)| judged.starts_with("reverse-ssh-tunnel"));
    let (judged, evidence) = inverted.unwrap_or_else(|| panic!("{alerts:?}"));
    assert_eq!(judged, "reverse-ssh-tunnel high medium");
    assert!(evidence.contains("roles of SSH are reversed"), "{evidence}");
}

//! Evasions that must not work: each uses its real mechanism in an agent, and the
//! mining pool's protocol is alerted on with nothing missing. Needs root.

use std::fs;

use agent_monitor_tests::evasion::{JOB, LOGIN, POOL, Pool, Seen, Stage};
use agent_monitor_tests::paths::{INSIDE_BIN, INSIDE_SHARED};
use agent_monitor_tests::watched::Watched;
use agent_monitor_tests::world::OTHER_SERVER;
use serde_json::{Value, json};

/// Evades by `mechanism` and has everything of it seen; gives that, and what the
/// mechanism said.
fn seen(mechanism: &str, arguments: &[&str]) -> (Stage, Seen, String) {
    let mut stage = Stage::new(mechanism, 1).unwrap();
    let said = stage.evade(mechanism, arguments).unwrap();
    let seen = stage.login_is_seen().unwrap();
    (stage, seen, said)
}

/// The executable of the process an event names; an agent's root is a folder of
/// the host.
fn exe(event: &Value) -> &str {
    event["process"]["exe"].as_str().unwrap()
}

/// The arguments of the process an event names.
fn arguments(event: &Value) -> Vec<String> {
    let argv = event["process"]["argv"].as_array();
    let argv = argv.into_iter().flatten();
    argv.map(|it| it.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_login_without_any_evasion_is_seen() {
    let (_, seen, _) = seen("plain", &[]);
    assert_eq!(seen.connect["process"]["comm"], "evade");
}

#[test]
fn io_uring_is_seen() {
    let (_, seen, _) = seen("io-uring", &[]);
    assert_eq!(arguments(&seen.connect)[1], "io-uring");
}

#[test]
fn io_uring_by_worker_threads_is_seen() {
    let (_, seen, _) = seen("io-uring-async", &[]);
    assert_eq!(arguments(&seen.connect)[1], "io-uring-async");
}

#[test]
fn io_uring_by_a_polling_kernel_thread_is_seen() {
    let (_, seen, _) = seen("io-uring-poll", &[]);
    assert_eq!(arguments(&seen.connect)[1], "io-uring-poll");
}

#[test]
fn raw_system_calls_are_seen() {
    seen("syscall-instruction", &[]);
}

#[test]
fn thirty_two_bit_system_calls_of_a_64_bit_program_are_seen() {
    seen("int80", &[]);
}

#[test]
fn a_static_program_is_seen() {
    let file = format!("{INSIDE_SHARED}/static");
    let (_, seen, _) = seen("static-program", &[&file]);
    assert!(exe(&seen.connect).ends_with(&file));
}

#[test]
fn an_i386_program_is_seen() {
    let file = format!("{INSIDE_SHARED}/i386");
    let (_, seen, _) = seen("i386-program", &[&file]);
    assert!(exe(&seen.connect).ends_with(&file));
    assert_eq!(arguments(&seen.connect), [file.as_str(), "static"]);
}

#[test]
fn a_renamed_program_that_calls_itself_something_else_is_seen_and_its_file_is_named() {
    let mut stage = Stage::new("renamed", 1).unwrap();
    let program = agent_monitor_tests::paths::bin().unwrap().join("evade");
    fs::copy(program, stage.watched.agent.shared().join("systemd-helper")).unwrap();
    let file = format!("{INSIDE_SHARED}/systemd-helper");
    let script = "import os, sys; os.execv(sys.argv[1], ['[kworker/0:1]', 'plain', sys.argv[2]])";
    stage.watched.python(script, &[&file, POOL]).unwrap();
    let seen = stage.login_is_seen().unwrap();
    for event in [&seen.connect, &seen.flow, &seen.alert] {
        assert!(exe(event).ends_with(&file), "{event}");
        assert_eq!(arguments(event)[0], "[kworker/0:1]");
    }
}

#[test]
fn a_program_that_no_file_holds_is_seen_and_flagged() {
    let (stage, seen, _) = seen("memfd", &[]);
    let pid = &seen.connect["process"]["pid"];
    let events = stage.watched.events().unwrap();
    let exec = events.only("exec", |it| it["process"]["pid"] == *pid);
    assert_eq!(exec.unwrap()["exec"]["memfd"], true);
}

#[test]
fn arguments_that_were_overwritten_are_known_as_they_were() {
    let (_, seen, _) = seen("new-arguments", &[]);
    let program = format!("{INSIDE_BIN}/evade");
    let started_with = [program.as_str(), "new-arguments", POOL];
    for event in [&seen.connect, &seen.flow, &seen.alert] {
        assert_eq!(arguments(event), started_with);
        assert_eq!(event["process"]["comm"], "evade");
    }
}

#[test]
fn sendmsg_is_read() {
    seen("sendmsg", &[]);
}

#[test]
fn sendmmsg_is_read() {
    seen("sendmmsg", &[]);
}

#[test]
fn writev_is_read() {
    seen("writev", &[]);
}

#[test]
fn sendfile_is_read() {
    seen("sendfile", &[]);
}

#[test]
fn splice_is_read() {
    seen("splice", &[]);
}

#[test]
fn zero_copy_is_read() {
    seen("zero-copy", &[]);
}

#[test]
fn one_byte_at_a_time_is_read() {
    let (_, seen, _) = seen("byte-by-byte", &[]);
    let packets = seen.flow["flow"]["packets_out"].as_u64().unwrap();
    // The kernel sends what has gathered when it comes to it.
    assert!(packets > 10, "{packets} segments");
}

/// The events to the pool, of one kind.
fn to_the_pool(stage: &Stage, kind: &str) -> Vec<Value> {
    let mut events = stage.watched.monitor().of_kind(kind);
    events.retain(|it| agent_monitor_tests::watched::address(&it[kind]["remote"]) == POOL);
    events
}

fn fast_open_is_seen(mechanism: &str) {
    let mut stage = Stage::new(mechanism, 2).unwrap();
    // Bit 1: servers take data with the SYN (Documentation/networking/ip-sysctl.rst).
    let allow = || Ok(fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3")?);
    stage.watched.world.net().run(allow).unwrap();
    let said = stage.evade(mechanism, &[]).unwrap();
    assert_eq!(
        said, "data with the SYN: false\ndata with the SYN: true\n",
        "the mechanism itself must work"
    );
    stage.login_is_seen().unwrap();
    stage
        .watched
        .monitor()
        .catch_up(&stage.watched.agent)
        .unwrap();
    assert_eq!(to_the_pool(&stage, "connect").len(), 2);
    let mut ends = to_the_pool(&stage, "flow");
    ends.retain(|it| it["flow"]["state"] == "closed");
    let said = |end: &Value| {
        (
            end["flow"]["bytes_out"].clone(),
            end["flow"]["bytes_in"].clone(),
        )
    };
    let whole = (json!(LOGIN.len()), json!(JOB.len()));
    assert_eq!(
        ends.iter().map(said).collect::<Vec<_>>(),
        [whole.clone(), whole]
    );
    assert_eq!(
        stage
            .watched
            .monitor()
            .alerts()
            .iter()
            .filter(|it| it["alert"]["severity"] == "critical")
            .count(),
        2
    );
}

#[test]
fn data_in_the_syn_is_read() {
    fast_open_is_seen("fast-open");
}

#[test]
fn a_connect_that_is_put_off_until_the_first_write_is_seen() {
    fast_open_is_seen("fast-open-connect");
}

#[test]
fn a_socket_that_a_child_uses_is_seen() {
    seen("to-a-child", &[]);
}

#[test]
fn a_socket_that_was_passed_within_the_agent_is_seen_and_its_user_is_named() {
    let (stage, seen, _) = seen("over-a-unix-socket", &[]);
    // The connect is the child's, who got the socket, not its maker's.
    let connector = seen.connect["process"]["pid"].as_u64().unwrap();
    let maker = seen.connect["process"]["ppid"].as_u64().unwrap();
    assert_ne!(connector, maker);
    let events = stage.watched.events().unwrap();
    events
        .only("exec", |it| it["process"]["pid"] == maker)
        .unwrap();
}

#[test]
fn a_socket_that_is_reused_after_af_unspec_is_seen() {
    let mut stage = Stage::new("reused", 1).unwrap();
    let ordinary = format!("{OTHER_SERVER}:8080");
    let listener = stage
        .watched
        .world
        .net()
        .run(|| Ok(std::net::TcpListener::bind(&ordinary)?))
        .unwrap();
    stage.evade("socket-reused", &[&ordinary]).unwrap();
    drop(listener);
    let seen = stage.login_is_seen().unwrap();
    let (first, second) = (
        stage.watched.end_of_flow(&ordinary).unwrap(),
        &seen.flow["flow"]["flow"],
    );
    let cookie = |flow: &Value| {
        let id = flow.as_str().unwrap();
        id.rsplit_once('-').unwrap().0.to_owned()
    };
    assert_eq!(cookie(&first["flow"]["flow"]), cookie(second));
    assert_ne!(first["flow"]["flow"], *second);
}

#[test]
fn a_descriptor_far_from_the_others_is_seen() {
    seen("high-descriptor", &[]);
}

#[test]
fn a_cgroup_that_is_made_and_entered_at_once_is_seen() {
    let mut stage = Stage::new("new-cgroup", 1).unwrap();
    let own = stage.watched.agent.group().path().to_owned();
    let said = stage.evade("new-cgroup", &[&own]).unwrap();
    let made = said.split_whitespace().nth(3).unwrap();
    let seen = stage.login_is_seen().unwrap();
    let events = stage.watched.events().unwrap();
    let quick = json!({"action": "entered", "path": format!("{own}/{made}")});
    let entered = events.only("cgroup", |it| it["cgroup"] == quick).unwrap();
    assert_eq!(entered["process"]["pid"], seen.connect["process"]["pid"]);
}

#[test]
fn a_process_that_is_born_in_another_cgroup_of_the_agent_is_seen() {
    let mut stage = Stage::new("clone-into-cgroup", 1).unwrap();
    let own = stage.watched.agent.group().path().to_owned();
    stage.evade("clone-into-cgroup", &[&own]).unwrap();
    let seen = stage.login_is_seen().unwrap();
    assert_eq!(arguments(&seen.connect)[1], "plain");
}

#[test]
fn who_forked_twice_is_seen_with_the_ancestors_it_had() {
    let (_, seen, _) = seen("double-fork", &[]);
    let ancestors = seen.connect["process"]["ancestors"].as_array().unwrap();
    // The one that was left without a parent, the middle one that ended, the first.
    let names: Vec<_> = ancestors.iter().map(|it| &it["comm"]).take(3).collect();
    assert_eq!(names, ["evade"; 3], "{ancestors:?}");
}

#[test]
fn a_pid_that_is_used_again_at_once_is_another_process() {
    let (stage, seen, said) = seen("pid-reused", &[]);
    let pid: u64 = said.trim().strip_prefix("pid ").unwrap().parse().unwrap();
    for event in [&seen.connect, &seen.flow, &seen.alert] {
        assert_eq!(event["process"]["pid"], pid);
        assert_eq!(arguments(event)[1], "pid-reused", "{event}");
    }
    let events = stage.watched.events().unwrap();
    let exec = events.exec("first").unwrap();
    assert_eq!(exec["process"]["comm"], "true");
}

#[test]
fn multipath_tcp_is_seen() {
    let (_, _, said) = seen("mptcp", &[]);
    assert_eq!(said, "multipath: false\n");
}

#[test]
fn multipath_tcp_is_seen_when_the_other_end_speaks_it_too() {
    let watched = Watched::cgroup("multipath").unwrap();
    let pool = Pool::open_multipath(watched.world.net(), POOL, 1).unwrap();
    let mut stage = Stage::with(watched, pool);
    let said = stage.evade("mptcp", &[]).unwrap();
    assert_eq!(said, "multipath: true\n");
    stage.login_is_seen().unwrap();
}

#[test]
fn a_network_namespace_of_its_own_does_not_hide_an_agent() {
    let mut stage = Stage::new("own-network", 0).unwrap();
    stage.evade("own-network", &[]).unwrap();
    stage.login_is_seen().unwrap();
}

//! The command line: what is typed, what is said, which code comes back.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_monitor::api::hub::Hub;
use agent_monitor::api::server::serve;
use agent_monitor::api::socket::Socket;
use agent_monitor::api::status::{State, Status};
use agent_monitor::event::{Body, Event, Exec, Timestamp};
use agent_monitor::rules::reload::Loaded;
use agent_monitor::store::Store;
use assert_cmd::cargo::cargo_bin_cmd;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

fn agent_monitor(args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = cargo_bin_cmd!("agent-monitor");
    command
        .env_remove("AGENT_MONITOR_SOCKET")
        .args(args)
        .assert()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &[][..],
        &["nonsense"],
        &["tail", "--kind", "nope"],
        &["tail", "--since", "yesterdayish"],
        &["tail", "-n", "-1"],
        &["tail", "--min-severity", "bad"],
        &["tail", "--color", "sometimes"],
        &["tail", "--agent", "["],
        &["top", "--agent", "["],
        &["top", "--interval", "1ms"],
        &["top", "--interval", "2h"],
        &["status", "--wait", "soon"],
        &["status", "--output", "xml"],
        &["replay"],
        &["rules"],
        &["rules", "check"],
        &["rules", "explain"],
        &["rules", "test", "--expect", "ssh-outbound"],
        &["record"],
    ] {
        let assert = agent_monitor(args).code(2);
        let output = assert.get_output();
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_on_stdout() {
    let version = agent_monitor(&["--version"]).success();
    let expected = format!("agent-monitor {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&version.get_output().stdout), expected);
    let help = text(&agent_monitor(&["--help"]).success().get_output().stdout);
    for command in [
        "run", "tail", "top", "status", "doctor", "record", "replay", "rules",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    let help = text(
        &agent_monitor(&["tail", "--help"])
            .success()
            .get_output()
            .stdout,
    );
    for part in [
        "Filters:",
        "Output:",
        "Where to begin:",
        "Examples:",
        "AGENT_MONITOR_SOCKET",
    ] {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn manual_pages_and_completions_need_nothing_but_the_binary() {
    let page = text(&agent_monitor(&["man"]).success().get_output().stdout);
    assert!(page.contains(".SH FILES"), "{page}");
    let dir = tempfile::tempdir().expect("a folder");
    let place = dir.path().join("man1").display().to_string();
    let assert = agent_monitor(&["man", "--dir", &place]).success();
    assert!(assert.get_output().stdout.is_empty());
    assert!(
        Path::new(&place)
            .join("agent-monitor-rules-test.1")
            .exists()
    );
    let script = agent_monitor(&["completions", "bash"]).success();
    // What the shell itself makes of it.
    let file = dir.path().join("completions");
    std::fs::write(&file, &script.get_output().stdout).expect("a file");
    let ask = "source \"$1\"; COMP_WORDS=(agent-monitor rec) COMP_CWORD=1; \
               _agent__monitor agent-monitor rec agent-monitor; echo \"${COMPREPLY[*]}\"";
    let bash = Command::new("bash")
        .args(["-c", ask, "bash"])
        .arg(&file)
        .output()
        .expect("bash");
    assert_eq!(text(&bash.stdout), "record\n", "{}", text(&bash.stderr));
    agent_monitor(&["completions", "cmd"]).code(2);
}

#[test]
fn without_a_daemon_it_says_how_to_start_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("none.sock").display().to_string();
    for args in [
        &["status"][..],
        &["tail"],
        &["top"],
        &["status", "--wait", "300ms"],
    ] {
        let args = [args, &["--socket", &socket]].concat();
        let assert = agent_monitor(&args).code(1);
        let stderr = text(&assert.get_output().stderr);
        let sentence =
            format!("no agent-monitor listens on {socket}: start it with `agent-monitor run`\n");
        assert!(stderr.ends_with(&sentence), "{stderr}");
        assert!(assert.get_output().stdout.is_empty());
    }
}

/// A daemon without a kernel side.
struct Daemon {
    runtime: Runtime,
    hub: Hub,
    state: Arc<Mutex<State>>,
    socket: PathBuf,
    store: Store,
    stop: Option<oneshot::Sender<()>>,
    server: Option<tokio::task::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    fn start(state: State) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let dir = tempfile::tempdir().expect("a folder for the socket");
        let path = dir.path().join("api.sock");
        let hub = Hub::new("node-1".into());
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = oneshot::channel::<()>();
        let guard = runtime.enter();
        let socket = Socket::bind(&path, None).expect("the folder is empty");
        let shared = Arc::clone(&state);
        let status = Arc::new(move || Status {
            state: *shared.lock().expect("nobody panics"),
            ..Status::default()
        });
        let reload = Arc::new(|| Ok(Loaded::default()));
        let sources = common::sources(dir.path(), hub.clone(), status, reload);
        let store = sources.store.clone();
        let server = runtime.spawn(serve(socket, sources, async {
            let _ = stopped.await;
        }));
        drop(guard);
        let (stop, server) = (Some(stop), Some(server));
        Self {
            runtime,
            hub,
            state,
            socket: path,
            store,
            stop,
            server,
            _dir: dir,
        }
    }

    fn publish(&self, filename: &str) {
        let exec = Exec {
            filename: filename.into(),
            ..Exec::default()
        };
        self.hub.publish(
            Arc::new(Event {
                id: filename.into(),
                time: Timestamp::now(),
                node: "node-1".into(),
                agent: None,
                process: None,
                body: Body::Exec(exec),
            }),
            None,
        );
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            self.runtime
                .block_on(server)
                .expect("the server does not panic");
        }
    }
}

fn spawn(socket: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_agent-monitor"))
        .args(args)
        .arg("--socket")
        .arg(socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built")
}

/// The process's end, which must come soon.
fn end(mut child: Child) -> Output {
    let limit = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("the child is ours").is_none() {
        if Instant::now() > limit {
            child.kill().expect("the child is ours");
            panic!("the command did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("the child is ours")
}

#[test]
fn tail_shows_past_and_present_and_says_when_the_daemon_goes() {
    let mut daemon = Daemon::start(State::Attached);
    daemon.publish("/bin/past");
    let mut child = spawn(&daemon.socket, &["tail", "--output", "pretty"]);
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert!(
        line.ends_with("/bin/past\n") && line.contains("  exec     "),
        "{line}"
    );
    assert!(!line.contains('\x1b'), "no colours in a pipe: {line:?}");
    daemon.publish("/bin/present");
    line.clear();
    stdout.read_line(&mut line).expect("a line");
    assert!(line.ends_with("/bin/present\n"), "{line}");
    daemon.stop();
    let output = end(child);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "error: agent-monitor closed the stream\n"
    );
}

#[test]
fn tail_in_a_pipe_is_json_as_the_daemon_sent_it() {
    let daemon = Daemon::start(State::Attached);
    for name in ["/bin/a", "/bin/b", "/bin/c"] {
        daemon.publish(name);
    }
    let mut child = spawn(&daemon.socket, &["tail", "-n", "2", "--kind", "exec,exit"]);
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let ids: Vec<_> = stdout
        .lines()
        .take(2)
        .map(|line| {
            let event: serde_json::Value =
                serde_json::from_str(&line.expect("a line")).expect("a line is JSON");
            event["id"].clone()
        })
        .collect();
    assert_eq!(ids, ["/bin/b", "/bin/c"]);
    // The reader is gone: the next line finds a closed pipe, which is no failure.
    daemon.publish("/bin/d");
    let output = end(child);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn tail_colours_a_pipe_only_when_told_to() {
    let daemon = Daemon::start(State::Attached);
    daemon.publish("/bin/a");
    let args = ["tail", "--output", "pretty", "--color", "always"];
    let mut child = spawn(&daemon.socket, &args);
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("a line");
    assert!(line.contains("\x1b[32mexec"), "{line:?}");
    child.kill().expect("the child is ours");
    child.wait().expect("the child is ours");
}

#[test]
fn tail_ends_cleanly_on_interrupt_even_while_nobody_reads_its_output() {
    let daemon = Daemon::start(State::Attached);
    let long = "x".repeat(4000);
    for _ in 0..100 {
        daemon.publish(&long);
    }
    // A pipe holds 64 KiB: the command is blocked in a write.
    let mut child = spawn(&daemon.socket, &["tail", "-n", "100"]);
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut String::new()).expect("a line");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("the child is ours");
    assert_eq!(end(child).status.code(), Some(0));
}

#[test]
fn status_waits_until_everything_is_attached() {
    let daemon = Daemon::start(State::Attaching);
    let output = end(spawn(&daemon.socket, &["status", "--wait", "300ms"]));
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert_eq!(
        stderr,
        "error: agent-monitor is still attaching after 0.3 s\n"
    );

    let child = spawn(&daemon.socket, &["status", "--wait", "20s"]);
    *daemon.state.lock().expect("nobody panics") = State::Attached;
    let output = end(child);
    assert_eq!(output.status.code(), Some(0));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON in a pipe");
    assert_eq!(status["state"], "attached");
}

#[test]
fn config_says_what_is_wrong_and_shows_where_each_value_is_from() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let file = dir.path().join("config.toml");
    let default = agent_monitor(&["config", "default"]).success();
    std::fs::write(&file, &default.get_output().stdout).unwrap();
    let ok = agent_monitor(&["config", "check", place]).success();
    assert_eq!(
        text(&ok.get_output().stdout),
        format!("ok: {}\n", file.display())
    );

    let sink = "[[sink]]\nkind = 'webhook'\nname = 'chat'\nurl = 'https://hooks.example'\n";
    let secret = "key = { env = 'AGENT_MONITOR_NO_SUCH_KEY' }\n";
    std::fs::write(
        &file,
        format!("[api]\ngroup = 'no-such-group'\n{sink}{secret}"),
    )
    .unwrap();
    let refused = agent_monitor(&["config", "check", place]).code(1);
    let said = text(&refused.get_output().stderr);
    for part in [
        "no-such-group",
        "sink \"chat\"",
        "AGENT_MONITOR_NO_SUCH_KEY",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }

    let shown = agent_monitor(&["config", "show", place, "--output", "pretty"]).success();
    let shown = text(&shown.get_output().stdout);
    let origin = format!("# {}:2", file.display());
    for (value, origin) in [
        ("group = \"no-such-group\"", origin.as_str()),
        ("path = \"/var/lib/agent-monitor/store.db\"", "# default"),
    ] {
        let line = shown.lines().find(|line| line.starts_with(value));
        assert!(
            line.is_some_and(|line| line.ends_with(origin)),
            "{value}: {shown}"
        );
    }
    let json = agent_monitor(&["config", "show", place, "--output", "json"]).success();
    let json: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(
        json["settings"]["sink.chat.key"]["value"]["env"],
        "AGENT_MONITOR_NO_SUCH_KEY"
    );

    std::fs::write(&file, "[api]\ngruop = 'x'\n").unwrap();
    let refused = agent_monitor(&["config", "check", place]).code(1);
    let said = text(&refused.get_output().stderr);
    assert!(said.contains("did you mean `group`?"), "{said}");
}

#[test]
fn alerts_are_listed_and_chosen_and_one_incident_is_shown_in_full() {
    let daemon = Daemon::start(State::Attached);
    for (n, agent) in [(1, "web"), (2, "db"), (3, "web")] {
        let alert = common::alert_saying(n, agent, &format!("deed \u{1b}[2J {n}"));
        daemon.store.append(&alert).expect("a store of its own");
    }
    let told = |args: &[&str]| {
        let output = end(spawn(&daemon.socket, &[&["alerts"], args].concat()));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(told(&[]).lines().count(), 3, "JSON in a pipe");
    assert_eq!(told(&["--agent", "web"]).lines().count(), 2);
    assert_eq!(
        told(&["--rule", "reverse-shell", "-n", "1"])
            .lines()
            .count(),
        1
    );
    for nothing in [
        ["--rule", "no-such-rule"],
        ["--since", "2031-01-01T00:00:00Z"],
        ["--agent", "nobody"],
    ] {
        assert_eq!(told(&nothing), "", "{nothing:?}");
    }
    let table = told(&["--output", "pretty", "--min-severity", "critical"]);
    let mut lines = table.lines();
    assert!(
        lines
            .next()
            .is_some_and(|it| it.contains("LAST SEEN (UTC)")),
        "{table}"
    );
    let first = lines.next().unwrap_or_default();
    for part in ["critical/high", "web", "incident-1", r"deed \u{1b}[2J 1"] {
        assert!(first.contains(part), "no {part} in {table}");
    }
    let shown = told(&["--output", "pretty", "incident-2"]);
    assert!(
        shown.contains("ALERT critical/high reverse-shell"),
        "{shown}"
    );

    let output = end(spawn(&daemon.socket, &["alerts", "no-such-incident"]));
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("no alert of the incident"), "{stderr}");
}

#[test]
fn sinks_that_are_not_there_are_said_so() {
    let daemon = Daemon::start(State::Attached);
    let output = end(spawn(
        &daemon.socket,
        &["sinks", "list", "--output", "pretty"],
    ));
    assert!(text(&output.stdout).starts_with("there are no sinks"));
    for order in ["retry", "drop-dead-letters"] {
        let output = end(spawn(&daemon.socket, &["sinks", order, "a b/c"]));
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert!(stderr.contains("there is no sink \"a b/c\""), "{stderr}");
    }
}

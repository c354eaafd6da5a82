//! The daemon's interface over a real socket: server, client, and who is let in.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_monitor::api::client::{Client, ClientError, Lines};
use agent_monitor::api::hub::{HISTORY, Hub};
use agent_monitor::api::probes;
use agent_monitor::api::server::{MAX_CLIENTS, serve};
use agent_monitor::api::socket::{BindError, Socket};
use agent_monitor::api::status::{State, Status};
use agent_monitor::event::{Body, Cgroup, Event, Timestamp};
use agent_monitor::rules::reload::Loaded;
use agent_monitor::store::Store;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Bounds every wait for something that must happen.
const SOON: Duration = Duration::from_secs(20);
/// A user and a group that are nobody's.
const STRANGER: u32 = 54_321;
const GROUP: u32 = 54_322;

struct Daemon {
    store: Store,
    hub: Hub,
    path: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    fn start(group: Option<u32>) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the socket");
        let everyone = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), everyone).expect("the folder is ours");
        let path = dir.path().join("api.sock");
        let socket = Socket::bind(&path, group).expect("the folder is empty");
        let hub = Hub::new("node-1".into());
        let (stop, stopped) = oneshot::channel();
        let status = Arc::new(|| Status {
            node: "node-1".into(),
            state: State::Attached,
            ..Status::default()
        });
        // Fails the second time.
        let reloads = AtomicUsize::new(0);
        let reload = Arc::new(move || match reloads.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(Loaded {
                enabled: 7,
                ..Loaded::default()
            }),
            _ => Err("x.yaml:3: a rule has no `id`".to_owned()),
        });
        let sources = common::sources(dir.path(), hub.clone(), status, reload);
        let store = sources.store.clone();
        let server = tokio::spawn(serve(socket, sources, async {
            let _ = stopped.await;
        }));
        Self {
            hub,
            store,
            path,
            stop,
            server,
            _dir: dir,
        }
    }

    fn publish(&self, id: &str) {
        let body = Body::Cgroup(Cgroup {
            action: "created",
            path: "/a".into(),
        });
        let (id, node) = (id.into(), "node-1".into());
        let time = Timestamp::now();
        self.hub.publish(
            Arc::new(Event {
                id,
                time,
                node,
                agent: None,
                process: None,
                body,
            }),
            None,
        );
    }

    /// Stores an event and tells of it, as the daemon does.
    fn store(&self, event: Event) {
        let seq = self.store.append(&event).expect("a store of its own");
        self.hub.publish(Arc::new(event), Some(seq));
    }

    fn client(&self) -> Client {
        Client::new(&self.path)
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        within(self.server)
            .await
            .expect("the server does not panic");
        assert!(!self.path.exists(), "the socket is removed");
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .expect("this takes no time")
}

#[tokio::test]
async fn status_comes_over_the_socket() {
    let daemon = Daemon::start(None);
    let mode = std::fs::metadata(&daemon.path)
        .expect("the socket is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let status: Status = daemon
        .client()
        .get_json("/v1/status")
        .await
        .expect("an answer");
    assert_eq!(
        (status.node.as_str(), status.state),
        ("node-1", State::Attached)
    );
    daemon.stop().await;
}

#[tokio::test]
async fn events_stream_as_lines_and_end_when_the_daemon_stops() {
    let daemon = Daemon::start(None);
    daemon.publish("past");
    let mut lines = daemon
        .client()
        .stream_lines("/v1/events?n=1")
        .await
        .expect("a stream");
    daemon.publish("present");
    for expected in ["past", "present"] {
        let line = within(lines.next())
            .await
            .expect("no error")
            .expect("a line");
        let event: Value = serde_json::from_slice(&line).expect("a line is JSON");
        assert_eq!(
            (&event["id"], &event["kind"]),
            (&expected.into(), &"cgroup".into())
        );
    }
    daemon.stop().await;
    assert!(within(lines.next()).await.expect("a clean end").is_none());
}

#[tokio::test]
async fn events_without_follow_end_by_themselves() {
    let daemon = Daemon::start(None);
    daemon.publish("a");
    daemon.publish("b");
    let mut lines = daemon
        .client()
        .stream_lines("/v1/events?follow=false&kind=cgroup")
        .await
        .expect("a stream");
    let mut count = 0;
    while within(lines.next()).await.expect("no error").is_some() {
        count += 1;
    }
    assert_eq!(count, 2);
    daemon.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_what_it_missed() {
    let daemon = Daemon::start(None);
    let mut lines = daemon
        .client()
        .stream_lines("/v1/events")
        .await
        .expect("a stream");
    // More than the socket's buffers and the queue hold together.
    let published = 50_000;
    for number in 0..published {
        daemon.publish(&number.to_string());
        if number % 1000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (mut read, mut lost) = (0, 0);
    while read + lost < published {
        let line = within(lines.next())
            .await
            .expect("no error")
            .expect("a line");
        let event: Value = serde_json::from_slice(&line).expect("a line is JSON");
        match event["loss"]["records"].as_u64() {
            Some(records) => {
                assert_eq!(event["loss"]["stage"], "tail");
                assert_eq!(event["loss"]["kinds"]["cgroup"], records);
                lost += records;
            }
            None => read += 1,
        }
    }
    assert_eq!(read + lost, published);
    assert!(lost > 0);
    daemon.stop().await;
}

#[tokio::test]
async fn a_wrong_question_is_answered_with_a_sentence() {
    let daemon = Daemon::start(None);
    for (path, word) in [
        ("/v1/events?kind=nope", "nope"),
        ("/v1/nothing", "/v1/status"),
    ] {
        let error = daemon
            .client()
            .stream_lines(path)
            .await
            .expect_err(path)
            .to_string();
        assert!(error.contains(word), "{error}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_request_without_end_is_not_read_for_ever() {
    let daemon = Daemon::start(None);
    let mut stream = UnixStream::connect(&daemon.path)
        .await
        .expect("the daemon listens");
    let head = format!(
        "GET /v1/status?{} HTTP/1.1\r\nhost: a\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    // The daemon may hang up before it took all of it.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    daemon.stop().await;
}

#[tokio::test]
async fn too_many_clients_are_told_so_and_places_come_free_again() {
    let daemon = Daemon::start(None);
    let mut streams = Vec::new();
    for _ in 0..MAX_CLIENTS {
        streams.push(
            daemon
                .client()
                .stream_lines("/v1/events")
                .await
                .expect("a place"),
        );
    }
    let refused = daemon.client().get_json::<Value>("/v1/status").await;
    assert!(matches!(refused, Err(ClientError::Refused { status, .. }) if status == 503));
    drop(streams);
    within(async {
        while daemon
            .client()
            .get_json::<Value>("/v1/status")
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    daemon.stop().await;
}

/// Asks for the status as another user; answers what curl printed.
async fn ask_as(path: &Path, identity: &[&str]) -> String {
    curl_as(path, identity, &["http://localhost/v1/status"]).await
}

async fn post_as(path: &Path, identity: &[&str], what: &str) -> String {
    let url = format!("http://localhost{what}");
    curl_as(path, identity, &["--request", "POST", &url]).await
}

async fn curl_as(path: &Path, identity: &[&str], request: &[&str]) -> String {
    let output = tokio::process::Command::new("setpriv")
        .args(identity)
        .args([
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            "--unix-socket",
        ])
        .arg(path)
        .args(request)
        .output();
    let output = within(output).await.expect("setpriv is there");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root; `cargo xtask test --no-root` leaves it out"
    );
}

#[tokio::test]
async fn strangers_are_refused_even_where_the_file_lets_them_in() {
    need_root();
    let daemon = Daemon::start(Some(GROUP));
    let user = format!("--reuid={STRANGER}");
    let own_group = format!("--regid={STRANGER}");
    let (group, groups) = (format!("--regid={GROUP}"), format!("--groups={GROUP}"));
    let stranger = [user.as_str(), &own_group, "--clear-groups"];

    assert!(
        !ask_as(&daemon.path, &stranger).await.contains("node-1"),
        "the mode keeps them out"
    );
    let member = ask_as(&daemon.path, &[&user, &group, "--clear-groups"]).await;
    assert!(member.contains(r#""node":"node-1""#), "{member}");
    let supplementary = ask_as(&daemon.path, &[&user, &own_group, &groups]).await;
    assert!(
        supplementary.contains(r#""node":"node-1""#),
        "{supplementary}"
    );

    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(&daemon.path, open).expect("the socket is ours");
    let refused = ask_as(&daemon.path, &stranger).await;
    assert!(
        refused.contains(&format!("uid {STRANGER} may not talk to agent-monitor")),
        "{refused}"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn rules_are_reloaded_for_root_alone_and_problems_are_told() {
    need_root();
    let daemon = Daemon::start(Some(GROUP));
    let (user, group) = (format!("--reuid={STRANGER}"), format!("--regid={GROUP}"));
    let member = [user.as_str(), &group, "--clear-groups"];
    let refused = post_as(&daemon.path, &member, "/v1/rules/reload").await;
    assert!(
        refused.contains("may not reload rules: be root"),
        "{refused}"
    );
    let client = Client::new(&daemon.path);
    let loaded: Loaded = client
        .post_json("/v1/rules/reload")
        .await
        .expect("root may");
    assert_eq!(loaded.enabled, 7);
    let failed = client.post_json::<Loaded>("/v1/rules/reload").await;
    let message = failed.expect_err("the second one fails").to_string();
    for part in ["422", "the old ones stay", "x.yaml:3: a rule has no `id`"] {
        assert!(message.contains(part), "{message}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_second_daemon_is_told_who_listens() {
    let daemon = Daemon::start(None);
    let error = Socket::bind(&daemon.path, None).expect_err("the first one listens");
    let pid = std::process::id();
    assert_eq!(
        error.to_string(),
        format!(
            "another agent-monitor (pid {pid}) already listens on {}; stop it or use --socket",
            daemon.path.display()
        )
    );
    daemon
        .client()
        .get_json::<Value>("/v1/status")
        .await
        .expect("the first one is left alone");
    daemon.stop().await;
}

#[tokio::test]
async fn the_socket_of_a_dead_daemon_is_replaced_and_other_files_are_not() {
    let dir = tempfile::tempdir().expect("a folder for the socket");
    let path = dir.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("the folder is empty"));
    assert!(path.exists(), "a listener leaves its file");
    drop(Socket::bind(&path, None).expect("nobody listens"));
    assert!(!path.exists());

    std::fs::write(&path, "precious").expect("the folder is ours");
    assert!(matches!(
        Socket::bind(&path, None),
        Err(BindError::NotASocket(_))
    ));
    assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
}

#[tokio::test]
async fn a_successors_socket_is_not_removed() {
    let dir = tempfile::tempdir().expect("a folder for the socket");
    let path = dir.path().join("api.sock");
    let first = Socket::bind(&path, None).expect("the folder is empty");
    std::fs::remove_file(&path).expect("the socket is ours");
    let _second = Socket::bind(&path, None).expect("the file is gone");
    drop(first);
    assert!(path.exists());
}

#[tokio::test]
async fn who_is_kept_out_by_the_mode_is_told_so() {
    need_root();
    let daemon = Daemon::start(None);
    let binary = daemon.path.with_file_name("agent-monitor");
    std::fs::copy(env!("CARGO_BIN_EXE_agent-monitor"), &binary).expect("the binary is built");
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={STRANGER}"), format!("--regid={STRANGER}")]);
    command
        .arg("--clear-groups")
        .arg(binary)
        .arg("status")
        .arg("--socket")
        .arg(&daemon.path);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = within(output)
        .await
        .expect("no panic")
        .expect("setpriv is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("permission denied on"), "{stderr}");
    daemon.stop().await;
}

#[tokio::test]
async fn metrics_and_probes_are_served_over_tcp() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(std::sync::Mutex::new(State::Attaching));
    let status = {
        let state = state.clone();
        Arc::new(move || Status {
            state: *state.lock().unwrap(),
            ..Status::default()
        })
    };
    let server = tokio::spawn(probes::serve(listener, status));
    let get = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    assert!(get("/readyz").await.starts_with("HTTP/1.1 503 "));
    assert!(get("/readyz").await.ends_with("attaching\n"));
    assert!(get("/livez").await.starts_with("HTTP/1.1 200 "));
    *state.lock().unwrap() = State::Attached;
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200 "));
    let metrics = get("/metrics").await;
    assert!(
        metrics.contains("content-type: application/openmetrics-text"),
        "{metrics}"
    );
    assert!(metrics.contains("\nagent_monitor_ready 1.0\n"), "{metrics}");
    assert!(
        get("/v1/status").await.starts_with("HTTP/1.1 404 "),
        "events are not served there"
    );
    server.abort();
}

/// Numbers and ids of the next lines.
async fn read_lines(lines: &mut Lines, count: usize) -> Vec<(Option<i64>, String)> {
    let mut read = Vec::new();
    while read.len() < count {
        let line = within(lines.next()).await.expect("no error");
        let line: Value = serde_json::from_slice(&line.expect("a line")).expect("JSON");
        let event = &line["event"];
        let id = match event["gap"]["reason"].as_str() {
            Some(reason) => reason.to_owned(),
            None => event["id"].as_str().expect("an id").to_owned(),
        };
        read.push((line["seq"].as_i64(), id));
    }
    read
}

#[tokio::test]
async fn a_stream_resumes_after_a_number_from_the_store_and_then_from_memory() {
    let daemon = Daemon::start(None);
    // Stored by an earlier daemon: not in this one's memory.
    for n in 1..=1_200 {
        daemon.store.append(&common::alert(n)).unwrap();
    }
    daemon.publish("unstored");
    daemon.store(common::alert(1_201));
    let stream = |query: &str| {
        let (client, path) = (daemon.client(), format!("/v1/events?{query}"));
        async move { client.stream_lines(&path).await.expect("a stream") }
    };
    let numbered = |n: u64| (i64::try_from(n).ok(), common::id(n));
    let mut lines = stream("after=2").await;
    let read = read_lines(&mut lines, 1_199).await;
    assert_eq!(read, (3..=1_201).map(numbered).collect::<Vec<_>>());
    daemon.store(common::alert(1_202));
    daemon.publish("later");
    let expected = [numbered(1_202), (None, "later".to_owned())];
    assert_eq!(read_lines(&mut lines, 2).await, expected);

    let mut ended = stream("after=1200&follow=false&kind=alert").await;
    let read = read_lines(&mut ended, 2).await;
    assert_eq!(read, [numbered(1_201), numbered(1_202)]);
    assert!(within(ended.next()).await.expect("a clean end").is_none());

    let mut ahead = stream("after=5000").await;
    let read = read_lines(&mut ahead, 2).await;
    assert!(read[0].1.contains("begun anew"), "{read:?}");
    assert_eq!(read[1], numbered(1));
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_no_longer_stored_is_told_to_who_resumes_before_it() {
    let daemon = Daemon::start(None);
    for n in 1..=10 {
        daemon.store.append(&common::alert(n)).unwrap();
    }
    daemon.store.set_sinks(Vec::new());
    daemon.store.prune(Timestamp(u64::MAX)).unwrap();
    daemon.store.append(&common::alert(11)).unwrap();
    let client = daemon.client();
    let mut lines = client.stream_lines("/v1/events?after=4").await.unwrap();
    let read = read_lines(&mut lines, 2).await;
    assert_eq!(
        read[0].1,
        "6 events after number 4 are no longer in the store"
    );
    assert_eq!(read[1].0, Some(11));
    daemon.stop().await;
}

#[tokio::test]
async fn a_past_that_memory_no_longer_has_comes_from_the_store_and_nothing_twice() {
    let daemon = Daemon::start(None);
    for n in 0..20 {
        daemon.store(common::alert(n));
    }
    // Later than those: alerts here are of 2030.
    for n in 0..HISTORY - 5 {
        daemon.publish(&format!("n-{n}"));
    }
    let since = common::alert(3).time;
    let path = format!("/v1/events?follow=false&kind=alert&since={since}");
    let mut lines = daemon.client().stream_lines(&path).await.expect("a stream");
    let mut ids = Vec::new();
    while let Some(line) = within(lines.next()).await.expect("no error") {
        ids.push(common::id_of(std::str::from_utf8(&line).unwrap()).unwrap());
    }
    assert_eq!(ids, (3..20).map(common::id).collect::<Vec<_>>());
    daemon.stop().await;
}

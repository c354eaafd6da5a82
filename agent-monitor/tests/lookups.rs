//! Questions to container runtimes, over real Unix sockets, with servers of
//! every kind behind them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agent_monitor::enrich::cgroup_path::{ContainerRef, Runtime};
use agent_monitor::enrich::lookups::{Answer, Lookups, Patience};
use agent_monitor::enrich::runtime::Api;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Long enough for a loaded machine, short enough for a test.
const SOON: Duration = Duration::from_secs(20);

fn container(runtime: Runtime, id: &str) -> ContainerRef {
    ContainerRef {
        runtime,
        id: id.to_owned(),
        pod_uid: None,
    }
}

/// Documented shape of `GET /containers/{id}/json` (Docker Engine API 1.44,
/// ContainerInspectResponse), shortened.
fn inspected(id: &str) -> String {
    serde_json::json!({
        "Id": id,
        "Created": "2026-01-02T03:04:05.678901234Z",
        "Path": "/bin/sh",
        "Args": ["-c", "exit 9"],
        "State": {"Status": "running", "Running": true, "Pid": 4321, "ExitCode": 0},
        "Image": "sha256:72297848456d5d37d1262630108ab308d3e9ec7ed1c3286a32fe09856619a782",
        "Name": "/agent-1",
        "RestartCount": 0,
        "HostConfig": {"NetworkMode": "default", "Privileged": false},
        "Config": {
            "Hostname": "ba033ac44011",
            "Image": "registry.example.com/agents/worker:1",
            "Labels": {
                "role": "agent",
                "not-asked-for": "x",
                "io.kubernetes.pod.namespace": "agents",
                "io.kubernetes.pod.name": "worker-1"
            }
        },
        "NetworkSettings": {"Bridge": ""}
    })
    .to_string()
}

fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn not_found() -> Vec<u8> {
    let body = format!(r#"{{"message":"No such container: {ID}"}}"#);
    format!(
        "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

struct Server {
    socket: PathBuf,
    requests: Arc<AtomicUsize>,
    _dir: TempDir,
}

impl Server {
    /// Answers the n-th request, counted from 0, with `answer(n, request line)`
    /// and closes; the empty answer is silence.
    fn start(answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("runtime.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, answer) = (requests.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let n = count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, n, answer.clone()));
            }
        });
        Self {
            socket,
            requests,
            _dir: dir,
        }
    }

    fn api(&self, timeout: Duration) -> Api {
        Api::new(["role"]).with(self.socket.clone(), self.socket.clone(), timeout)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: UnixStream, n: usize, answer: Arc<impl Fn(usize, &str) -> Vec<u8>>) {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let bytes = answer(n, request.lines().next().unwrap_or_default());
    if bytes.is_empty() {
        // Silence until the client gives up.
        let _ = stream.read(&mut part).await;
    }
    let _ = stream.write_all(&bytes).await;
}

#[tokio::test]
async fn a_container_s_name_image_labels_pod_and_pid_are_read() {
    let server = Server::start(|_, request| {
        assert_eq!(request, format!("GET /containers/{ID}/json HTTP/1.1"));
        ok(&inspected(ID))
    });
    for runtime in [Runtime::Docker, Runtime::Podman] {
        let info = server.api(SOON).inspect(&container(runtime, ID)).await;
        let info = info.expect("an answer").expect("a container");
        assert_eq!((info.name.as_str(), info.pid), ("agent-1", Some(4321)));
        assert_eq!(
            info.image.as_deref(),
            Some("registry.example.com/agents/worker:1")
        );
        assert_eq!(info.labels.get("role").map(String::as_str), Some("agent"));
        assert!(!info.labels.contains_key("not-asked-for"));
        let pod = info.pod().expect("a pod");
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str()),
            ("agents", "worker-1")
        );
    }
}

#[tokio::test]
async fn a_container_without_labels_or_process_is_read_too() {
    let body = format!(
        r#"{{"Id":"{ID}","Name":"/x","Config":{{"Image":"","Labels":null}},"State":{{"Pid":0}}}}"#
    );
    let server = Server::start(move |_, _| ok(&body));
    let info = server
        .api(SOON)
        .inspect(&container(Runtime::Docker, ID))
        .await;
    let info = info.expect("an answer").expect("a container");
    assert_eq!(
        (info.name.as_str(), info.image.clone(), info.pid, info.pod()),
        ("x", None, None, None)
    );
}

#[tokio::test]
async fn another_container_s_answer_is_not_this_one_s() {
    let server = Server::start(|_, _| ok(&inspected(&"f".repeat(64))));
    assert_eq!(
        server
            .api(SOON)
            .inspect(&container(Runtime::Docker, ID))
            .await,
        Ok(None)
    );
}

#[tokio::test]
async fn an_id_that_would_change_the_request_is_never_sent() {
    let server = Server::start(|_, _| ok("{}"));
    for id in ["../images", "x y", "x\r\nEvil: 1", "x?a=b"] {
        assert_eq!(
            server
                .api(SOON)
                .inspect(&container(Runtime::Docker, id))
                .await,
            Ok(None),
            "{id}"
        );
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn hostile_answers_are_errors_that_name_the_socket() {
    let huge = format!(r#"{{"Id":"{ID}","Name":"{}"}}"#, "x".repeat(2 << 20));
    let endless_head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20)).into_bytes();
    let deep = format!(r#"{{"Id":{}"#, "[".repeat(100_000));
    let chunked = {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..300 {
            bytes.extend_from_slice(format!("2000\r\n{}\r\n", " ".repeat(0x2000)).as_bytes());
        }
        bytes
    };
    for answer in [
        ok(&huge),
        chunked,
        endless_head,
        ok(&deep),
        ok("not json"),
        ok("{}"),
        ok("[]"),
        ok(r#"{"Id":7}"#),
        b"\x00\xff garbage\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut".to_vec(),
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 301 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".to_vec(),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        let server = Server::start(move |_, _| answer.clone());
        let problem = server
            .api(SOON)
            .inspect(&container(Runtime::Docker, ID))
            .await
            .expect_err(&shown);
        assert!(problem.contains("runtime.sock: "), "{problem}");
        assert!(!problem.contains("no answer within"), "{shown}: {problem}");
        assert!(problem.len() < 1000, "{shown}: {problem}");
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let server = Server::start(|_, _| Vec::new());
    let began = Instant::now();
    let answer = server
        .api(Duration::from_millis(100))
        .inspect(&container(Runtime::Docker, ID))
        .await;
    assert!(answer.is_err_and(|problem| problem.contains("no answer within 100ms")));
    assert!(began.elapsed() < SOON);
}

fn start(api: Api, tries: Duration) -> (Lookups, mpsc::Receiver<(ContainerRef, Answer)>) {
    let (sender, answers) = mpsc::channel(16);
    let patience = Patience {
        tries,
        ..Patience::default()
    };
    (Lookups::start(api, patience, sender), answers)
}

async fn next(answers: &mut mpsc::Receiver<(ContainerRef, Answer)>) -> (ContainerRef, Answer) {
    tokio::time::timeout(SOON, answers.recv())
        .await
        .expect("in time")
        .expect("an answer")
}

#[tokio::test]
async fn a_container_that_is_just_being_made_is_found_by_asking_again() {
    let server = Server::start(|n, _| match n {
        0 => not_found(),
        1 => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok(&inspected(ID)),
    });
    let (lookups, mut answers) = start(server.api(SOON), SOON);
    assert!(lookups.ask(container(Runtime::Docker, ID)));
    let (asked, answer) = next(&mut answers).await;
    assert_eq!(asked.id, ID);
    assert!(matches!(answer, Answer::Found(info) if info.name == "agent-1"));
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn an_answer_is_kept_also_after_the_container_is_gone() {
    let server = Server::start(|n, _| {
        if n == 0 {
            ok(&inspected(ID))
        } else {
            not_found()
        }
    });
    let (lookups, mut answers) = start(server.api(SOON), Duration::ZERO);
    for _ in 0..3 {
        assert!(lookups.ask(container(Runtime::Docker, ID)));
        assert!(matches!(next(&mut answers).await.1, Answer::Found(_)));
        lookups.gone(container(Runtime::Docker, ID));
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_container_that_the_runtime_does_not_know_is_not_found() {
    let server = Server::start(|_, _| not_found());
    let (lookups, mut answers) = start(server.api(SOON), Duration::from_millis(100));
    assert!(lookups.ask(container(Runtime::Docker, ID)));
    assert_eq!(next(&mut answers).await.1, Answer::NotFound);
    let requests = server.requests();
    assert!(requests >= 2, "it was tried again");
    assert!(lookups.ask(container(Runtime::Docker, ID)));
    assert_eq!(next(&mut answers).await.1, Answer::NotFound);
    assert_eq!(
        server.requests(),
        requests,
        "and is not asked for anew at once"
    );
}

#[tokio::test]
async fn a_runtime_that_is_not_there_or_cannot_be_asked_is_unreachable() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("none.sock");
    let api = Api::new([]).with(socket.clone(), socket, SOON);
    let (lookups, mut answers) = start(api, Duration::ZERO);
    assert!(lookups.ask(container(Runtime::Docker, ID)));
    let (_, answer) = next(&mut answers).await;
    assert!(
        matches!(answer, Answer::Unreachable(reason) if reason.contains("none.sock: cannot connect"))
    );
    assert!(lookups.ask(container(Runtime::Crio, ID)));
    let (_, answer) = next(&mut answers).await;
    assert!(
        matches!(answer, Answer::Unreachable(reason) if reason.contains("crio containers cannot be asked"))
    );
}

#[tokio::test]
async fn slow_answers_hold_up_neither_the_asker_nor_each_other_for_long() {
    // Ids that begin with `0` are never answered.
    let server = Server::start(|_, request| {
        if request.contains("/containers/0") {
            Vec::new()
        } else {
            ok(&inspected(&"f".repeat(64)))
        }
    });
    let (lookups, mut answers) = start(server.api(Duration::from_millis(200)), Duration::ZERO);
    for n in 0..40 {
        assert!(lookups.ask(container(Runtime::Docker, &format!("{n:064x}"))));
    }
    assert!(lookups.ask(container(Runtime::Docker, &"f".repeat(64))));
    let (mut found, mut unreachable) = (0, 0);
    for _ in 0..41 {
        match next(&mut answers).await.1 {
            Answer::Found(_) => found += 1,
            Answer::Unreachable(_) => unreachable += 1,
            Answer::NotFound => panic!("nothing says so"),
        }
    }
    assert_eq!((found, unreachable), (1, 40));
}

#[tokio::test]
async fn too_many_questions_are_refused_not_queued_without_end() {
    let server = Server::start(|_, _| Vec::new());
    let (lookups, _answers) = start(server.api(SOON), SOON);
    let mut refused = 0;
    for n in 0..10_000 {
        refused += u32::from(!lookups.ask(container(Runtime::Docker, &format!("{n:064x}"))));
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(refused >= 10_000 - 3 * 1024, "{refused}");
}

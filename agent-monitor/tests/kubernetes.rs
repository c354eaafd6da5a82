//! Questions to the Kubernetes API server, over TLS on loopback. The receiver is
//! written from the published API and refuses what a cluster would refuse; what it
//! lists is checked against Kubernetes' own schema.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_monitor::enrich::cgroup_path::{ContainerRef, Runtime, container_of};
use agent_monitor::enrich::kubernetes::ApiServer;
use agent_monitor::enrich::lookups::{Answer, Lookups, Patience};
use agent_monitor::enrich::runtime::Api;
use common::receivers::certificates;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

const UID: &str = "3f1b2c44-9a0e-4f57-8a55-0d2b6f1c7e21";
const NODE: &str = "node-1.example.com";
/// Long enough for a loaded machine, short enough for a test.
const SOON: Duration = Duration::from_secs(20);

/// The id of the container `n`.
fn id(n: u64) -> String {
    format!("{n:064x}")
}

/// A container of the pod [`UID`], as its cgroup shows it.
fn container(n: u64) -> ContainerRef {
    let pod = UID.replace('-', "_");
    let path = format!(
        "/kubepods.slice/kubepods-pod{pod}.slice/cri-containerd-{}.scope",
        id(n)
    );
    container_of(&path).expect("a container").1
}

fn status(name: &str, container_id: &str) -> Value {
    json!({
        "name": name,
        "image": format!("registry.example.com/agents/{name}:1"),
        "imageID": "registry.example.com/agents/worker@sha256:00",
        "containerID": container_id,
        "ready": true,
        "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}
    })
}

/// A `PodList` with the pod [`UID`] of the containers `statuses` (by list), and another
/// pod whose container is still being made.
fn pods(statuses: &Value) -> Value {
    let mut status = json!({"phase": "Running", "hostIP": "192.0.2.7"});
    for (list, statuses) in statuses.as_object().expect("lists") {
        status[list] = statuses.clone();
    }
    json!({
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "10245"},
        "items": [
            {
                "metadata": {
                    "name": "worker-1",
                    "namespace": "agents",
                    "uid": UID,
                    "labels": {
                        "role": "agent",
                        "not-asked-for": "x",
                        "io.kubernetes.pod.namespace": "kube-system"
                    }
                },
                "spec": {"containers": [{"name": "worker", "env": [{"name": "KEY", "value": "s3cret"}]}]},
                "status": status
            },
            {
                "metadata": {"name": "new", "namespace": "agents", "uid": "0a1b2c44-9a0e-4f57-8a55-0d2b6f1c7e21"},
                "spec": {"containers": [{"name": "worker"}]},
                "status": {"phase": "Pending", "containerStatuses": [{
                    "name": "worker", "image": "worker", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "ContainerCreating"}}
                }]}
            }
        ]
    })
}

fn worker() -> Value {
    json!({"containerStatuses": [status("worker", &format!("containerd://{}", id(1)))]})
}

/// An answer: its status and its body; the empty body is silence.
type Said = (&'static str, String);

fn ok(body: &Value) -> Said {
    ("200 OK", body.to_string())
}

/// `Status` (meta/v1), as the API server refuses with.
fn refused(status: &'static str, message: &str) -> Said {
    let body =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message});
    (status, body.to_string())
}

/// An API server with one token, and the folder that a pod would have.
struct Cluster {
    url: String,
    token: Arc<Mutex<String>>,
    /// The first line of each request that was let in.
    requests: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Cluster {
    async fn start(answer: impl Fn(usize) -> Said + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        certificates(folder.path());
        let acceptor = acceptor(folder.path());
        fs::rename(folder.path().join("ca.pem"), folder.path().join("ca.crt")).expect("a CA");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let cluster = Self {
            url,
            token: Arc::default(),
            requests: Arc::default(),
            folder,
        };
        cluster.accept("first");
        cluster.give("first");
        let (token, requests) = (cluster.token.clone(), cluster.requests.clone());
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                let (token, requests) = (token.clone(), requests.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    let request = String::from_utf8(request).expect("text");
                    let (status, body) = match judge(&request, &token.lock().expect("a token")) {
                        Some(refusal) => refusal,
                        None => {
                            let mut requests = requests.lock().expect("requests");
                            requests.push(request.lines().next().unwrap_or_default().to_owned());
                            answer(requests.len() - 1)
                        }
                    };
                    if body.is_empty() {
                        // Silence until the client gives up.
                        let _ = stream.read_u8().await;
                        return;
                    }
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(body.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        cluster
    }

    /// The token that is let in from now on.
    fn accept(&self, token: &str) {
        token.clone_into(&mut self.token.lock().expect("a token"));
    }

    /// The token in the pod's folder from now on.
    fn give(&self, token: &str) {
        fs::write(self.account().join("token"), token).expect("a token");
    }

    fn account(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn server(&self, timeout: Duration) -> ApiServer {
        let labels = ["role".to_owned()].into();
        ApiServer::new(
            self.url.clone(),
            NODE.to_owned(),
            &self.account(),
            labels,
            timeout,
        )
    }

    fn requests(&self) -> usize {
        self.requests.lock().expect("requests").len()
    }
}

fn acceptor(folder: &Path) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    TlsAcceptor::from(Arc::new(config))
}

/// Refuses what is not the one request with the one permission.
fn judge(request: &str, token: &str) -> Option<Said> {
    let mut lines = request.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target, version) = (first.next()?, first.next()?, first.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let header = |name: &str| {
        let mut all = headers.iter().filter(|(have, _)| have == name);
        let value = all.next().map(|(_, value)| *value);
        assert!(all.next().is_none(), "{name} twice");
        value
    };
    if header("authorization") != Some(&format!("Bearer {token}")) {
        return Some(refused("401 Unauthorized", "Unauthorized"));
    }
    if (method, path, version) != ("GET", "/api/v1/pods", "HTTP/1.1") {
        return Some(refused("403 Forbidden", "only pods may be listed"));
    }
    let mut query: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    query.sort();
    let selector = format!("spec.nodeName={NODE}");
    let expected = [
        ("fieldSelector", selector.as_str()),
        ("resourceVersion", "0"),
    ];
    let same = query
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .eq(expected);
    if !same || header("accept") != Some("application/json") {
        return Some(refused("400 Bad Request", &format!("{query:?}")));
    }
    None
}

#[test]
fn what_the_receiver_lists_is_a_list_of_pods_by_kubernetes_own_schema() {
    let data = "tests/data/kubernetes-1.37/definitions.json";
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(data)).expect(data);
    let mut schema: Value = serde_json::from_str(&text).expect("JSON");
    schema["$ref"] = "#/$defs/io.k8s.api.core.v1.PodList".into();
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    let problems = |list: &Value| -> Vec<String> {
        schema
            .iter_errors(list)
            .map(|it| format!("{}: {it}", it.instance_path()))
            .collect()
    };
    assert_eq!(problems(&pods(&worker())), Vec::<String>::new());
    assert!(!problems(&pods(&json!({"containers": []}))).is_empty());
}

#[tokio::test]
async fn a_container_s_name_image_labels_and_pod_are_read_of_any_kind_of_container() {
    let lists = json!({
        "containerStatuses": [status("worker", &format!("containerd://{}", id(1)))],
        "initContainerStatuses": [status("setup", &format!("containerd://{}", id(2)))],
        "ephemeralContainerStatuses": [status("debug", &format!("cri-o://{}", id(3)))],
    });
    let cluster = Cluster::start(move |_| ok(&pods(&lists))).await;
    let server = cluster.server(SOON);
    for (n, name) in [(1, "worker"), (2, "setup"), (3, "debug")] {
        let info = server
            .find(&container(n))
            .await
            .expect("an answer")
            .expect("a container");
        assert_eq!(info.name, name);
        assert_eq!(
            info.image,
            Some(format!("registry.example.com/agents/{name}:1"))
        );
        assert_eq!(info.labels.get("role").map(String::as_str), Some("agent"));
        assert!(!info.labels.contains_key("not-asked-for"));
        // What the pod's own labels say of where it is does not count.
        let pod = info.pod().expect("a pod");
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str()),
            ("agents", "worker-1")
        );
    }
    assert_eq!(server.count().await, Ok(3));
}

#[tokio::test]
async fn a_container_that_its_pod_does_not_name_has_the_pod_s_labels_and_no_name() {
    let cluster = Cluster::start(|_| ok(&pods(&worker()))).await;
    let server = cluster.server(SOON);
    let sandbox = server
        .find(&container(9))
        .await
        .expect("an answer")
        .expect("its pod");
    assert_eq!((sandbox.name.as_str(), sandbox.image.clone()), ("", None));
    assert_eq!(sandbox.pod().expect("a pod").name, "worker-1");
    let mut stranger = container(9);
    stranger.pod_uid = Some("9".repeat(32));
    assert_eq!(server.find(&stranger).await, Ok(None));
}

#[tokio::test]
async fn the_token_is_read_for_each_request_because_it_rotates() {
    let cluster = Cluster::start(|_| ok(&pods(&worker()))).await;
    let server = cluster.server(SOON);
    assert_eq!(server.count().await, Ok(1));
    cluster.accept("second");
    let problem = server.count().await.expect_err("an old token");
    assert!(
        problem.contains("401 Unauthorized: the service account's token"),
        "{problem}"
    );
    // The kubelet's files end without a newline; people's do not.
    cluster.give("second\n");
    assert_eq!(server.count().await, Ok(1));
    assert_eq!(cluster.requests(), 2);
    fs::remove_file(cluster.account().join("token")).expect("it is there");
    let problem = server.count().await.expect_err("no token");
    assert!(
        problem.contains("cannot read") && problem.contains("token"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let said = "pods is forbidden: User \"system:serviceaccount:agent-monitor:agent-monitor\" cannot list\u{1b}[2J";
    let cluster = Cluster::start(move |_| refused("403 Forbidden", said)).await;
    let problem = cluster
        .server(SOON)
        .find(&container(1))
        .await
        .expect_err("a refusal");
    for part in [
        &*cluster.url,
        "403 Forbidden",
        "lacks the permission to `list` `pods`",
        "cannot list",
    ] {
        assert!(problem.contains(part), "{problem}");
    }
    assert!(!problem.contains('\u{1b}'), "{problem:?}");
}

#[tokio::test]
async fn hostile_answers_are_errors_that_name_the_server() {
    let one: &[(&'static str, String, &str)] = &[
        (
            "200 OK",
            format!("{{\"items\":[\"{}\"]}}", "x".repeat(33 << 20)),
            "over 32 MiB",
        ),
        (
            "200 OK",
            format!("{{\"items\":{}", "[".repeat(100_000)),
            "no list of pods",
        ),
        ("200 OK", "not json".to_owned(), "no list of pods"),
        ("200 OK", "{}".to_owned(), "no list of pods"),
        (
            "200 OK",
            r#"{"items":[{"metadata":{"name":7}}]}"#.to_owned(),
            "no list of pods",
        ),
        (
            "500 Internal Server Error",
            "x".repeat(1 << 20),
            "answered 500",
        ),
        (
            "302 Found\r\nLocation: /elsewhere",
            "x".to_owned(),
            "answered 302",
        ),
    ];
    for (status, body, part) in one.iter().cloned() {
        let cluster = Cluster::start(move |_| (status, body.clone())).await;
        let problem = cluster
            .server(SOON)
            .find(&container(1))
            .await
            .expect_err(part);
        assert!(
            problem.contains(part) && problem.contains(&cluster.url),
            "{problem}"
        );
        assert!(problem.len() < 1000, "{problem}");
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let cluster = Cluster::start(|_| ("200 OK", String::new())).await;
    let server = cluster.server(Duration::from_millis(300));
    let problem = server.find(&container(1)).await.expect_err("no answer");
    assert!(problem.contains("no answer within 300ms"), "{problem}");
}

#[tokio::test]
async fn the_token_is_not_given_to_a_server_that_the_pod_s_ca_does_not_vouch_for() {
    let cluster = Cluster::start(|_| ok(&pods(&worker()))).await;
    let other = tempfile::tempdir().expect("a folder");
    certificates(other.path());
    fs::copy(
        other.path().join("ca.pem"),
        cluster.account().join("ca.crt"),
    )
    .expect("another CA");
    let problem = cluster
        .server(SOON)
        .find(&container(1))
        .await
        .expect_err("another CA");
    assert!(problem.contains("certificate"), "{problem}");
    assert_eq!(cluster.requests(), 0);
}

fn start(cluster: &Cluster, tries: Duration) -> (Lookups, mpsc::Receiver<(ContainerRef, Answer)>) {
    let (sender, answers) = mpsc::channel(128);
    let patience = Patience {
        tries,
        ..Patience::default()
    };
    let api = Api::new([]).with_kubernetes(cluster.server(SOON));
    (Lookups::start(api, patience, sender), answers)
}

async fn next(answers: &mut mpsc::Receiver<(ContainerRef, Answer)>) -> (ContainerRef, Answer) {
    let answer = tokio::time::timeout(SOON, answers.recv()).await;
    answer.expect("in time").expect("an answer")
}

#[tokio::test]
async fn a_burst_of_new_containers_is_one_request() {
    let all: Vec<_> = (0..100)
        .map(|n| status(&format!("c{n}"), &format!("containerd://{}", id(n))))
        .collect();
    let cluster = Cluster::start(move |_| ok(&pods(&json!({"containerStatuses": all})))).await;
    let (lookups, mut answers) = start(&cluster, SOON);
    let began = Instant::now();
    for n in 0..100 {
        assert!(lookups.ask(container(n)));
    }
    for _ in 0..100 {
        let (asked, answer) = next(&mut answers).await;
        let n = u64::from_str_radix(&asked.id, 16).expect("a number");
        assert!(matches!(answer, Answer::Found(info) if info.name == format!("c{n}")));
    }
    // One, but for a machine that is too busy to hand it out within a second.
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a few");
    assert!(cluster.requests() <= 1 + seconds, "{}", cluster.requests());
}

#[tokio::test]
async fn a_container_that_is_not_told_of_yet_is_asked_for_again_a_second_later() {
    // First not even its pod, then the pod without a status, then both.
    let cluster = Cluster::start(|n| {
        ok(&match n {
            0 => json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}),
            1 => pods(&json!({})),
            _ => pods(&worker()),
        })
    })
    .await;
    let (lookups, mut answers) = start(&cluster, SOON);
    let began = Instant::now();
    assert!(lookups.ask(container(1)));
    assert!(matches!(next(&mut answers).await.1, Answer::Found(info) if info.name == "worker"));
    assert_eq!(cluster.requests(), 3);
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "at most one request a second"
    );
}

#[tokio::test]
async fn of_a_container_that_is_never_told_of_the_pod_is_known_in_the_end() {
    let cluster = Cluster::start(|_| ok(&pods(&worker()))).await;
    let (lookups, mut answers) = start(&cluster, Duration::from_millis(100));
    assert!(lookups.ask(container(9)));
    let Answer::Found(info) = next(&mut answers).await.1 else {
        panic!("its pod is known");
    };
    assert_eq!(
        (info.name.as_str(), info.pod().expect("a pod").name.as_str()),
        ("", "worker-1")
    );
    let mut stranger = container(8);
    stranger.pod_uid = Some("9".repeat(32));
    assert!(lookups.ask(stranger));
    assert_eq!(next(&mut answers).await.1, Answer::NotFound);
}

#[tokio::test]
async fn containers_that_are_in_no_pod_are_not_asked_for() {
    let cluster = Cluster::start(|_| ok(&pods(&worker()))).await;
    let (lookups, mut answers) = start(&cluster, Duration::ZERO);
    let nerdctl = ContainerRef {
        runtime: Runtime::Containerd,
        id: id(1),
        pod_uid: None,
    };
    assert!(lookups.ask(nerdctl));
    assert!(
        matches!(next(&mut answers).await.1, Answer::Unreachable(why) if why.contains("containerd containers cannot be asked"))
    );
    assert_eq!(cluster.requests(), 0);
}

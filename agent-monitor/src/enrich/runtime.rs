//! What a container runtime says of a container: Docker's API over its Unix
//! socket, which Podman speaks too. For containerd and CRI-O in Kubernetes, the API
//! server speaks ([`super::kubernetes`]).

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::cgroup_path::{ContainerRef, Runtime};
use super::kubernetes::ApiServer;
use crate::event::Pod;

/// Most bytes of an answer's body: an inspected container is 10 to 20 KiB, but
/// labels come from its image too, which may be hostile.
const BODY_CAP: usize = 1 << 20;
/// Most bytes of an answer's head.
const HEAD_CAP: usize = 64 << 10;

/// Labels that the kubelet's runtimes set (k8s.io/kubelet, pkg/types/labels.go).
pub(super) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(super) const POD_NAME: &str = "io.kubernetes.pod.name";

/// A container, as its runtime knows it; empty when the runtime does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Name, without Docker's leading `/`; empty when only its pod is known.
    pub name: String,
    /// Image, as it was named when the container was made.
    pub image: Option<String>,
    /// The labels that selectors and pods need; no others are kept.
    pub labels: BTreeMap<String, String>,
    /// First process, in the host's pid namespace, while it runs.
    pub pid: Option<u32>,
}

impl RuntimeInfo {
    /// The pod it belongs to, by its labels.
    pub fn pod(&self) -> Option<Pod> {
        Some(Pod {
            namespace: self.labels.get(POD_NAMESPACE)?.clone(),
            name: self.labels.get(POD_NAME)?.clone(),
        })
    }
}

/// How runtimes are asked.
#[derive(Clone, Debug)]
pub struct Api {
    docker: Result<PathBuf, String>,
    podman: PathBuf,
    kubernetes: Result<Option<Arc<ApiServer>>, String>,
    labels: BTreeSet<String>,
    timeout: Duration,
}

impl Api {
    /// The usual sockets; Docker's as `DOCKER_HOST` says if it is set; in a pod, the
    /// API server too. Of labels, `labels` and a pod's are kept.
    pub fn new<'a>(labels: impl IntoIterator<Item = &'a str>) -> Self {
        let labels: BTreeSet<String> = labels
            .into_iter()
            .chain([POD_NAMESPACE, POD_NAME])
            .map(str::to_owned)
            .collect();
        Self {
            docker: docker_socket(std::env::var_os("DOCKER_HOST")),
            podman: PathBuf::from("/run/podman/podman.sock"),
            kubernetes: ApiServer::of_this_pod(labels.clone()).map(|it| it.map(Arc::new)),
            labels,
            timeout: Duration::from_secs(2),
        }
    }

    /// With other sockets and another limit of time for one request.
    pub fn with(mut self, docker: PathBuf, podman: PathBuf, timeout: Duration) -> Self {
        (self.docker, self.podman, self.timeout) = (Ok(docker), podman, timeout);
        self
    }

    /// With this API server.
    pub fn with_kubernetes(mut self, server: ApiServer) -> Self {
        self.kubernetes = Ok(Some(Arc::new(server)));
        self
    }

    /// The API server of the cluster that this process is a pod of, if it is one.
    ///
    /// # Errors
    /// It is one, but may not ask; in words.
    pub fn kubernetes(&self) -> Result<Option<&ApiServer>, &str> {
        match &self.kubernetes {
            Ok(server) => Ok(server.as_deref()),
            Err(problem) => Err(problem),
        }
    }

    /// The API server, if it knows `container`: one of containerd's or CRI-O's in a
    /// pod. Others of theirs (nerdctl's) are in no pod.
    fn api_server(&self, container: &ContainerRef) -> Option<&ApiServer> {
        let its = matches!(container.runtime, Runtime::Containerd | Runtime::Crio)
            && container.pod_uid.is_some();
        self.kubernetes().ok().flatten().filter(|_| its)
    }

    /// Whether there is someone to ask for `container`.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn can_ask(&self, container: &ContainerRef) -> Result<(), String> {
        match self.api_server(container) {
            Some(_) => Ok(()),
            None => self.socket(container.runtime).map(drop),
        }
    }

    /// The socket on which `runtime` is asked, or why there is none.
    pub fn socket(&self, runtime: Runtime) -> Result<&Path, String> {
        match runtime {
            Runtime::Docker => self.docker.as_deref().map_err(Clone::clone),
            Runtime::Podman => Ok(&self.podman),
            Runtime::Containerd | Runtime::Crio | Runtime::Lxc => Err(format!(
                "{} containers cannot be asked for names and labels here; choose them with \
                 `container:<id glob>` or `cgroup:<path glob>`",
                runtime.as_str()
            )),
        }
    }

    /// Asks once. `None`: the runtime does not know the container.
    ///
    /// # Errors
    /// When there is no usable answer, in words.
    pub async fn inspect(&self, container: &ContainerRef) -> Result<Option<RuntimeInfo>, String> {
        if let Some(server) = self.api_server(container) {
            return server.find(container).await;
        }
        let socket = self.socket(container.runtime)?;
        let answer = tokio::time::timeout(self.timeout, get(socket, &container.id)).await;
        let body = match answer {
            Ok(Ok(Some(body))) => body,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(problem)) => return Err(format!("{}: {problem}", socket.display())),
            Err(_) => {
                return Err(format!(
                    "{}: no answer within {:?}",
                    socket.display(),
                    self.timeout
                ));
            }
        };
        let inspected: Inspected = serde_json::from_slice(&body).map_err(|error| {
            format!(
                "{}: not the answer of Docker's API: {error}",
                socket.display()
            )
        })?;
        // The API also looks up names and beginnings of ids.
        if inspected.id != container.id {
            return Ok(None);
        }
        Ok(Some(self.info(inspected)))
    }

    fn info(&self, inspected: Inspected) -> RuntimeInfo {
        let config = inspected.config.unwrap_or_default();
        let mut labels = config.labels.unwrap_or_default();
        labels.retain(|key, _| self.labels.contains(key));
        RuntimeInfo {
            name: inspected.name.trim_start_matches('/').to_owned(),
            image: config.image.filter(|image| !image.is_empty()),
            labels,
            pid: inspected
                .state
                .and_then(|state| state.pid)
                .filter(|pid| *pid != 0),
        }
    }
}

/// `GET /containers/<id>/json`: the body, or `None` for 404.
async fn get(socket: &Path, id: &str) -> Result<Option<Bytes>, String> {
    // A cgroup's name ends up in the request line.
    if !id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    {
        return Ok(None);
    }
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_CAP)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = Request::get(format!("/containers/{id}/json"))
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(format!("answered {status}")),
        }
        let body = Limited::new(response.into_body(), BODY_CAP).collect().await;
        Ok(Some(body.map_err(|error| error.to_string())?.to_bytes()))
    };
    // The connection only moves bytes while it is polled; its end, good or bad,
    // reaches the exchange.
    let drive = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = exchange => answer,
        () = drive => unreachable!("it is pending for ever"),
    }
}

/// Docker's socket, as its own client finds it. Only Unix sockets: a daemon
/// elsewhere knows nothing of this machine's cgroups.
fn docker_socket(docker_host: Option<OsString>) -> Result<PathBuf, String> {
    let Some(host) = docker_host.filter(|host| !host.is_empty()) else {
        return Ok(PathBuf::from("/var/run/docker.sock"));
    };
    let host = host.to_string_lossy();
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err(format!(
            "DOCKER_HOST is `{host}`, which is no socket of this machine; set it to unix:///<path> or unset it"
        )),
    }
}

/// What is read of the answer, by Docker's API reference (ContainerInspect).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    name: String,
    config: Option<InspectedConfig>,
    state: Option<InspectedState>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    pid: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_socket_is_the_usual_one_or_as_docker_host_says() {
        let socket = |host: &str| docker_socket(Some(host.into()));
        assert_eq!(
            docker_socket(None),
            Ok(PathBuf::from("/var/run/docker.sock"))
        );
        assert_eq!(socket(""), Ok(PathBuf::from("/var/run/docker.sock")));
        assert_eq!(
            socket("unix:///run/user/1/d.sock"),
            Ok(PathBuf::from("/run/user/1/d.sock"))
        );
        for elsewhere in ["tcp://192.0.2.1:2375", "unix://relative", "ssh://host"] {
            assert!(socket(elsewhere).is_err_and(|problem| problem.contains(elsewhere)));
        }
    }

    #[test]
    fn runtimes_without_this_api_say_what_to_use_instead() {
        let problem = Api::new([])
            .socket(Runtime::Containerd)
            .expect_err("no socket");
        assert!(problem.contains("container:<id glob>"), "{problem}");
    }
}

//! What the Kubernetes API server says of the containers of this node: names and
//! labels that containerd and CRI-O have no simple interface for.
//!
//! One request lists the pods of the node ("List Pods" in the API reference of
//! core/v1, with the field selector `spec.nodeName`, as the kubelet does it); the
//! address, the token and the CA are those that every pod is given ("Accessing the
//! Kubernetes API from a Pod" in Kubernetes' documentation). It needs the permission
//! to `list` `pods` in all namespaces, which `deploy/kubernetes` gives, and no other.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::cgroup_path::ContainerRef;
use super::pods::Node;
use super::runtime::RuntimeInfo;
use crate::config::TlsConfig;
use crate::escape::escape;
use crate::https;

/// Where the kubelet puts a pod's token and the API server's CA.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Longest wait for the whole answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For how long an answer, good or bad, serves all who ask.
const FRESH: Duration = Duration::from_secs(1);
/// Most bytes of an answer: a pod is 5 to 20 KiB, a node has 110 of them unless it
/// was set up for more (the kubelet's `maxPods`).
const BODY_CAP: usize = 32 << 20;
/// How much of a refusal is read, and how much of its message is told.
const REFUSAL_CAP: usize = 16 << 10;
const QUOTE: usize = 300;

/// The API server, asked for the pods of one node.
#[derive(Debug)]
pub struct ApiServer {
    /// `https://host:port`.
    url: String,
    node: String,
    /// The folder of `token` and `ca.crt`.
    account: PathBuf,
    /// Keys of labels that are kept.
    labels: BTreeSet<String>,
    timeout: Duration,
    /// The last answer and when it came; locked while the next one is on its way,
    /// so that a burst of questions is one request.
    last: Mutex<Option<(Instant, Result<Node, String>)>>,
}

impl ApiServer {
    /// The API server of the cluster that this process is a pod of; `None` outside.
    ///
    /// # Errors
    /// It is a pod, but not one that may ask; in words.
    pub fn of_this_pod(labels: BTreeSet<String>) -> Result<Option<Self>, String> {
        Self::from_environment(|name| std::env::var(name).ok(), Path::new(ACCOUNT), labels)
    }

    fn from_environment(
        get: impl Fn(&str) -> Option<String>,
        account: &Path,
        labels: BTreeSet<String>,
    ) -> Result<Option<Self>, String> {
        let get = |name| get(name).filter(|value| !value.is_empty());
        let (Some(host), Some(port)) = (
            get("KUBERNETES_SERVICE_HOST"),
            get("KUBERNETES_SERVICE_PORT"),
        ) else {
            return Ok(None);
        };
        let missing = |what: &str| {
            format!(
                "this pod cannot ask the API server for pods' names and labels, because {what}; \
                 see deploy/kubernetes/agent-monitor.yaml"
            )
        };
        let node = get("NODE_NAME")
            .ok_or_else(|| missing("NODE_NAME is not set to the node's name (spec.nodeName)"))?;
        for name in ["token", "ca.crt"] {
            let file = account.join(name);
            if !file.exists() {
                return Err(missing(&format!("there is no {}", file.display())));
            }
        }
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host,
        };
        let url = format!("https://{host}:{port}");
        Ok(Some(Self::new(url, node, account, labels, TIMEOUT)))
    }

    /// The API server at `url` (`https://host:port`), asked for the pods of `node`
    /// with `token`, trusted by `ca.crt`, both in the folder `account`, both read for
    /// each request; of labels, `labels` are kept; a request may take `timeout`.
    pub fn new(
        url: String,
        node: String,
        account: &Path,
        labels: BTreeSet<String>,
        timeout: Duration,
    ) -> Self {
        Self {
            url,
            node,
            account: account.to_owned(),
            labels,
            timeout,
            last: Mutex::default(),
        }
    }

    /// What is known of a container, by an answer that is at most a second old. A
    /// container of a known pod that is not in the pod's status, because the kubelet
    /// has not told of it yet or it is the pod's sandbox, has no name.
    ///
    /// # Errors
    /// When there is no usable answer, in words.
    pub async fn find(&self, container: &ContainerRef) -> Result<Option<RuntimeInfo>, String> {
        let mut last = self.last.lock().await;
        let fresh = last.take().filter(|(at, _)| at.elapsed() < FRESH);
        let (_, answer) = last.insert(match fresh {
            Some(fresh) => fresh,
            None => {
                let answer = self.list().await;
                (Instant::now(), answer)
            }
        });
        match answer {
            Ok(node) => Ok(node.find(container)),
            Err(problem) => Err(problem.clone()),
        }
    }

    /// Asks now: how many containers the node's pods have.
    ///
    /// # Errors
    /// When there is no usable answer, in words.
    pub async fn count(&self) -> Result<usize, String> {
        Ok(self.list().await?.containers())
    }

    /// Where it is asked.
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn list(&self) -> Result<Node, String> {
        let told = |problem| format!("the API server at {}: {problem}", self.url);
        let body = tokio::time::timeout(self.timeout, self.get())
            .await
            .map_err(|_| told(format!("no answer within {:?}", self.timeout)))?
            .map_err(told)?;
        Node::parse(&body, &self.labels)
            .map_err(|error| told(format!("its answer is no list of pods: {error}")))
    }

    async fn get(&self) -> Result<BytesMut, String> {
        let token = self.account.join("token");
        let token = fs::read_to_string(&token)
            .map_err(|error| format!("cannot read {}: {error}", token.display()))?;
        let client = https::client(&TlsConfig {
            ca: Some(self.account.join("ca.crt")),
            ..TlsConfig::default()
        })?;
        // Version 0 is "whatever you have in memory": a list that may be a moment
        // old spares the cluster's database, and who is not in it is asked for again.
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("fieldSelector", &format!("spec.nodeName={}", self.node))
            .append_pair("resourceVersion", "0")
            .finish();
        let authorization = https::secret(&format!("Bearer {}", token.trim()))
            .map_err(|_| "the token has characters that no header may hold".to_owned())?;
        let response = client
            .get(format!("{}/api/v1/pods?{query}", self.url))
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/json")
            .send()
            .await
            .map_err(https::no_answer)?;
        match response.status() {
            StatusCode::OK => read(response, BODY_CAP).await?.ok_or_else(|| {
                format!("its answer is over {} MiB and was not read", BODY_CAP >> 20)
            }),
            status => Err(refusal(status, response).await),
        }
    }
}

/// The body; `None` when it is longer than `cap`.
async fn read(mut response: Response, cap: usize) -> Result<Option<BytesMut>, String> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(https::no_answer)? {
        if body.len() + chunk.len() > cap {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// What an answer other than 200 means, with the message of its `Status`
/// (meta/v1) if it has one.
async fn refusal(status: StatusCode, response: Response) -> String {
    let hint = match status {
        StatusCode::FORBIDDEN => {
            ": the service account lacks the permission to `list` `pods` in all namespaces, \
             which the ClusterRole in deploy/kubernetes/agent-monitor.yaml gives"
        }
        StatusCode::UNAUTHORIZED => ": the service account's token is not accepted",
        _ => "",
    };
    let body = read(response, REFUSAL_CAP).await.ok().flatten();
    let said = body.and_then(|body| serde_json::from_slice::<Refusal>(&body).ok());
    let said = said.map_or_else(String::new, |refusal| {
        let quote: String = refusal.message.chars().take(QUOTE).collect();
        format!(" ({})", escape(&quote))
    });
    format!("it answered {status}{hint}{said}")
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why a pod with these variables, and a folder with these files, cannot ask; or where it does.
    fn in_pod(variables: &[(&str, &str)], files: &[&str]) -> Result<Option<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            fs::write(folder.path().join(file), "x").expect("a file");
        }
        let get = |name: &str| {
            let mut variables = variables.iter();
            variables
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let server = ApiServer::from_environment(get, folder.path(), BTreeSet::new())?;
        Ok(server.map(|server| server.url))
    }

    #[test]
    fn the_api_server_is_where_the_pod_s_environment_says() {
        const FILES: [&str; 2] = ["token", "ca.crt"];
        let host = ("KUBERNETES_SERVICE_HOST", "192.0.2.1");
        let port = ("KUBERNETES_SERVICE_PORT", "443");
        let node = ("NODE_NAME", "node-1");
        assert_eq!(in_pod(&[], &[]), Ok(None));
        assert_eq!(in_pod(&[node], &FILES), Ok(None));
        assert_eq!(
            in_pod(&[host, port, node], &FILES),
            Ok(Some("https://192.0.2.1:443".to_owned()))
        );
        let six = ("KUBERNETES_SERVICE_HOST", "2001:db8::1");
        assert_eq!(
            in_pod(&[six, port, node], &FILES),
            Ok(Some("https://[2001:db8::1]:443".to_owned()))
        );
        for (variables, files, missing) in [
            (&[host, port][..], &FILES[..], "NODE_NAME"),
            (&[host, port, ("NODE_NAME", "")], &FILES, "NODE_NAME"),
            (&[host, port, node], &FILES[..1], "ca.crt"),
            (&[host, port, node], &FILES[1..], "token"),
        ] {
            let problem = in_pod(variables, files).expect_err("it may not ask");
            assert!(problem.contains(missing), "{problem}");
        }
    }
}

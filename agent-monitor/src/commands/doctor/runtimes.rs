//! Who is asked for containers' names, and whether they answer.

#![forbid(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Check, State};
use crate::enrich::cgroup_path::Runtime;
use crate::enrich::runtime::Api;

pub(super) fn check(api: &Api) -> Check {
    let answers = [Runtime::Docker, Runtime::Podman].map(|runtime| {
        let socket = api.socket(runtime);
        let connected = socket.clone().and_then(connect);
        (
            runtime,
            socket.map(|path| path.display().to_string()),
            connected,
        )
    });
    let mut found = Vec::new();
    for (runtime, socket, connected) in &answers {
        found.push(match (socket, connected) {
            (Ok(socket), Ok(())) => format!("{} at {socket}", runtime.as_str()),
            (Ok(socket), Err(problem)) => {
                format!("no {} at {socket} ({problem})", runtime.as_str())
            }
            (Err(problem), _) => problem.clone(),
        });
    }
    let kubernetes = kubernetes(api);
    // In a pod it is the API server that knows most containers.
    let answered = match &kubernetes {
        Some(answer) => answer.is_ok(),
        None => answers.iter().any(|(_, _, connected)| connected.is_ok()),
    };
    found.extend(kubernetes.map(|answer| answer.unwrap_or_else(|problem| problem)));
    let found = found.join(", ");
    let name = "container runtime";
    if answered {
        return Check::ok(name, found);
    }
    Check::failed(
        State::Warn,
        name,
        found,
        "containers' names and images in events, and selectors docker:, label:, pod: and container:<name>",
        "start Docker, or enable podman.socket; set DOCKER_HOST=unix:///<path> if the socket is elsewhere; \
         in Kubernetes, apply deploy/kubernetes/agent-monitor.yaml",
    )
}

/// Asks the API server, in a pod.
fn kubernetes(api: &Api) -> Option<Result<String, String>> {
    let server = match api.kubernetes() {
        Ok(server) => server?,
        Err(problem) => return Some(Err(problem.to_owned())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    Some(match runtime {
        Ok(runtime) => runtime.block_on(server.count()).map(|count| {
            format!(
                "the API server at {} knows {count} containers of this node",
                server.url()
            )
        }),
        Err(error) => Err(format!("the API server was not asked: {error}")),
    })
}

fn connect(socket: &Path) -> Result<(), String> {
    UnixStream::connect(socket)
        .map(drop)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::kubernetes::ApiServer;

    #[test]
    fn a_runtime_that_answers_is_enough() {
        let dir = tempfile::tempdir().expect("a directory");
        let (here, nowhere) = (
            dir.path().join("here.sock"),
            dir.path().join("nowhere.sock"),
        );
        let _listener = std::os::unix::net::UnixListener::bind(&here).expect("a socket");
        let second = std::time::Duration::from_secs(1);
        let found = check(&Api::new([]).with(nowhere.clone(), here, second));
        assert_eq!(found.state, State::Ok);
        assert!(
            found.found.contains("no docker at") && found.found.contains("podman at"),
            "{}",
            found.found
        );
        let none = check(&Api::new([]).with(nowhere.clone(), nowhere, second));
        assert_eq!(none.state, State::Warn);
    }

    #[test]
    fn in_a_pod_the_api_server_has_to_answer() {
        let dir = tempfile::tempdir().expect("a directory");
        let here = dir.path().join("here.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&here).expect("a socket");
        let second = std::time::Duration::from_secs(1);
        let server = ApiServer::new(
            "https://127.0.0.1:9".to_owned(),
            "node-1".to_owned(),
            dir.path(),
            std::collections::BTreeSet::new(),
            second,
        );
        let api = Api::new([]).with(here.clone(), here, second);
        let found = check(&api.with_kubernetes(server));
        assert_eq!(found.state, State::Warn);
        assert!(
            found
                .found
                .contains("the API server at https://127.0.0.1:9: cannot read"),
            "{}",
            found.found
        );
    }
}

//! The pods of a node, as the Kubernetes API lists them (`PodList` in the API
//! reference of core/v1).

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use super::cgroup_path::ContainerRef;
use super::runtime::{POD_NAME, POD_NAMESPACE, RuntimeInfo};

/// The containers of a node's pods by id, and the labels of its pods by uid.
#[derive(Debug)]
pub(super) struct Node {
    containers: HashMap<String, RuntimeInfo>,
    pods: HashMap<String, BTreeMap<String, String>>,
}

impl Node {
    /// Reads a `PodList`; of labels, `keep` are kept.
    pub(super) fn parse(body: &[u8], keep: &BTreeSet<String>) -> serde_json::Result<Self> {
        let list: PodList = serde_json::from_slice(body)?;
        let (mut containers, mut pods) = (HashMap::new(), HashMap::new());
        for Pod { metadata, status } in list.items {
            let mut labels = metadata.labels;
            labels.retain(|key, _| keep.contains(key));
            // After the pod's own, which may say what they like.
            labels.insert(POD_NAMESPACE.to_owned(), metadata.namespace);
            labels.insert(POD_NAME.to_owned(), metadata.name);
            let all = [
                status.init_container_statuses,
                status.container_statuses,
                status.ephemeral_container_statuses,
            ];
            for container in all.into_iter().flatten() {
                // `<runtime>://<id>`; not there while the container is made.
                let Some((_, id)) = container.container_id.split_once("://") else {
                    continue;
                };
                let info = RuntimeInfo {
                    name: container.name,
                    image: Some(container.image).filter(|image| !image.is_empty()),
                    labels: labels.clone(),
                    pid: None,
                };
                containers.insert(id.to_owned(), info);
            }
            pods.insert(metadata.uid, labels);
        }
        Ok(Self { containers, pods })
    }

    /// How many containers there are.
    pub(super) fn containers(&self) -> usize {
        self.containers.len()
    }

    /// What is known of a container; of one that its pod does not name, the pod.
    pub(super) fn find(&self, container: &ContainerRef) -> Option<RuntimeInfo> {
        if let Some(known) = self.containers.get(&container.id) {
            return Some(known.clone());
        }
        let labels = self.pods.get(container.pod_uid.as_ref()?)?.clone();
        Some(RuntimeInfo {
            labels,
            ..RuntimeInfo::default()
        })
    }
}

/// What is read of a `PodList` (core/v1); lists and maps that are empty are left out.
#[derive(Deserialize)]
struct PodList {
    items: Vec<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    init_container_statuses: Vec<Container>,
    container_statuses: Vec<Container>,
    ephemeral_container_statuses: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    #[serde(default)]
    image: String,
    #[serde(rename = "containerID", default)]
    container_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"a",
        "namespace":"b","uid":"c","labels":{"d":"e"}},"spec":{"x":[1,{"y":null}]},"status":
        {"containerStatuses":[{"name":"f","image":"g","containerID":"containerd://h"}]}}]}"#;

    #[test]
    fn every_beginning_of_a_list_is_an_error_and_no_panic() {
        let keep = BTreeSet::new();
        assert_eq!(
            Node::parse(LIST.as_bytes(), &keep)
                .map(|node| node.containers())
                .ok(),
            Some(1)
        );
        for cut in 0..LIST.len() {
            assert!(
                Node::parse(&LIST.as_bytes()[..cut], &keep).is_err(),
                "{cut}"
            );
        }
    }
}

//! Containers, as the path of their cgroup shows them.
//!
//! Paths are below the cgroup2 mount and begin with `/`. A container may hold
//! cgroups of its own, and even containers of its own: its agent is the topmost
//! one, [`agent_root`]; [`container_of`] looks from the leaf up.

#![forbid(unsafe_code)]

/// A runtime whose containers are recognised by their cgroup's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// containerd, under Kubernetes or nerdctl.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
    /// LXC.
    Lxc,
}

impl Runtime {
    /// The name in events: `docker`, `containerd`, `crio`, `podman` or `lxc`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
        }
    }
}

/// A container, as far as a path tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    /// Who runs it.
    pub runtime: Runtime,
    /// 64 hexadecimal digits; for LXC the container's name.
    pub id: String,
    /// Uid of the Kubernetes pod, with dashes, when the path shows one.
    pub pod_uid: Option<String>,
}

/// Prefixes of cgroup names that are followed by a container's id, with or
/// without `.scope` after it: Docker, containerd's CRI plugin, nerdctl, CRI-O
/// and Podman with the systemd cgroup driver, the last two with cgroupfs too.
const PREFIXES: [(&str, Runtime); 5] = [
    ("docker-", Runtime::Docker),
    ("cri-containerd-", Runtime::Containerd),
    ("nerdctl-", Runtime::Containerd),
    ("crio-", Runtime::Crio),
    ("libpod-", Runtime::Podman),
];

const LXC_PREFIX: &str = "lxc.payload.";
/// Digits of a container's id: SHA-256 sized in every runtime but LXC.
const ID_LEN: usize = 64;

/// The container nearest to the leaf of `path`, and the path of its cgroup.
pub fn container_of(path: &str) -> Option<(&str, ContainerRef)> {
    let mut paths: Vec<&str> = self_and_ancestors(path).collect();
    paths.reverse();
    paths.into_iter().find_map(with_container)
}

/// The topmost container on `path`, and the path of its cgroup: everything
/// below it, containers in the container too, is one agent.
pub fn agent_root(path: &str) -> Option<(&str, ContainerRef)> {
    self_and_ancestors(path).find_map(with_container)
}

/// Whether a new cgroup's last name may be a container's: the kernel side's
/// test, which must not miss a container but may take others for one.
///
/// Known to be missed at birth, and found by scanning only: containerd's
/// `…:cri-containerd:<id>`, and CRI-O's `crio-<id>` with the cgroupfs driver.
pub fn looks_like_container(name: &str) -> bool {
    if name.contains("conmon") {
        return false;
    }
    let scope = ["docker-", "cri-containerd-", "crio-", "libpod-", "nerdctl-"];
    is_id(name)
        || (name.ends_with(".scope") && scope.iter().any(|prefix| name.starts_with(prefix)))
        || name.starts_with("libpod-")
        || name.starts_with(LXC_PREFIX)
}

/// The paths of `path`'s ancestors below the root and `path` itself, topmost first.
pub(crate) fn self_and_ancestors(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_end_matches('/');
    path.match_indices('/')
        .map(|(at, _)| &path[..at])
        .chain(std::iter::once(path))
        .filter(|prefix| !prefix.is_empty())
}

/// The path above `path`; `/` above a top-level one.
pub(crate) fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((above, _)) if !above.is_empty() => above,
        _ => "/",
    }
}

fn with_container(path: &str) -> Option<(&str, ContainerRef)> {
    Some((path, container_at(path)?))
}

/// The container whose own cgroup `path` is.
fn container_at(path: &str) -> Option<ContainerRef> {
    let (above, name) = path.rsplit_once('/')?;
    let pod_uid = || self_and_ancestors(path).filter_map(pod_uid).last();
    if let Some(id) = name.strip_prefix(LXC_PREFIX).filter(|id| !id.is_empty()) {
        return Some(ContainerRef {
            runtime: Runtime::Lxc,
            id: id.to_owned(),
            pod_uid: None,
        });
    }
    // containerd with the systemd driver's path but without its handling of it.
    if let Some((_, id)) = name
        .rsplit_once(":cri-containerd:")
        .filter(|(_, id)| is_id(id))
    {
        return Some(ContainerRef {
            runtime: Runtime::Containerd,
            id: id.to_owned(),
            pod_uid: pod_uid(),
        });
    }
    for (prefix, runtime) in PREFIXES {
        let Some(rest) = name.strip_prefix(prefix) else {
            continue;
        };
        // `crio-conmon-<id>` and `libpod-conmon-<id>` hold the container's
        // monitor: what follows the prefix there is no id.
        let id = rest.strip_suffix(".scope").unwrap_or(rest);
        return is_id(id).then(|| ContainerRef {
            runtime,
            id: id.to_owned(),
            pod_uid: pod_uid(),
        });
    }
    if !is_id(name) {
        return None;
    }
    // A bare id: containerd's in a Kubernetes pod, else Docker's with the
    // cgroupfs driver, in `/docker` or in what --cgroup-parent names.
    let pod_uid = pod_uid();
    let in_pod = above.split('/').any(|part| part.contains("kubepods")) || pod_uid.is_some();
    let runtime = if in_pod {
        Runtime::Containerd
    } else {
        Runtime::Docker
    };
    Some(ContainerRef {
        runtime,
        id: name.to_owned(),
        pod_uid,
    })
}

/// The pod's uid in the last name of `path`: `pod<uid>` (cgroupfs driver) or
/// `[…-]kubepods-<class>-pod<uid with underscores>.slice[:…]` (systemd driver).
fn pod_uid(path: &str) -> Option<String> {
    let (_, name) = path.rsplit_once('/')?;
    let name = name.split(':').next().unwrap_or(name);
    let uid = match name.strip_suffix(".slice") {
        Some(slice) if slice.contains("kubepods") => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        Some(_) => return None,
        None => name.strip_prefix("pod")?.to_owned(),
    };
    // A uid has 36 characters (RFC 9562); a static pod's is a hash of 32.
    let known = matches!(uid.len(), 32 | 36);
    (known && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')).then_some(uid)
}

fn is_id(name: &str) -> bool {
    name.len() == ID_LEN && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    const UID: &str = "3f1b2c44-9a0e-4f57-8a55-0d2b6f1c7e21";
    const UID_SLICE: &str = "3f1b2c44_9a0e_4f57_8a55_0d2b6f1c7e21";

    fn found(path: &str) -> Option<(Runtime, String, Option<String>)> {
        container_of(path).map(|(_, c)| (c.runtime, c.id, c.pod_uid))
    }

    fn plain(runtime: Runtime) -> Option<(Runtime, String, Option<String>)> {
        Some((runtime, ID.to_owned(), None))
    }

    fn in_pod(runtime: Runtime) -> Option<(Runtime, String, Option<String>)> {
        Some((runtime, ID.to_owned(), Some(UID.to_owned())))
    }

    #[test]
    fn docker_by_either_cgroup_driver_and_under_a_custom_parent() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"),
            format!("/agents/{ID}"),
        ] {
            assert_eq!(found(&path), plain(Runtime::Docker), "{path}");
        }
    }

    #[test]
    fn containerd_by_every_shape_it_has() {
        for path in [
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}/{ID}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_SLICE}.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{UID_SLICE}.slice/cri-containerd-{ID}.scope"),
            format!(
                "/system.slice/containerd.service/kubepods-besteffort-pod{UID_SLICE}.slice:cri-containerd:{ID}"
            ),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_SLICE}.slice/pod{UID}/{ID}"
            ),
        ] {
            assert_eq!(found(&path), in_pod(Runtime::Containerd), "{path}");
        }
        assert_eq!(
            found(&format!("/system.slice/nerdctl-{ID}.scope")),
            plain(Runtime::Containerd)
        );
    }

    #[test]
    fn crio_by_either_cgroup_driver() {
        for path in [
            format!("/kubepods.slice/kubepods-pod{UID_SLICE}.slice/crio-{ID}.scope"),
            format!("/kubepods/besteffort/pod{UID}/crio-{ID}"),
        ] {
            assert_eq!(found(&path), in_pod(Runtime::Crio), "{path}");
        }
    }

    #[test]
    fn podman_with_and_without_its_container_subgroup() {
        for path in [
            format!("/machine.slice/libpod-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/libpod_parent/libpod-{ID}"),
        ] {
            assert_eq!(found(&path), plain(Runtime::Podman), "{path}");
        }
        let path = format!("/machine.slice/libpod-{ID}.scope/container");
        let root = agent_root(&path).map(|(root, _)| root.to_owned());
        assert_eq!(root, Some(format!("/machine.slice/libpod-{ID}.scope")));
    }

    #[test]
    fn lxc_by_its_payload() {
        let (root, container) = agent_root("/lxc.payload.box/init.scope").expect("a container");
        assert_eq!((root, container.id.as_str()), ("/lxc.payload.box", "box"));
        assert_eq!(container.runtime, Runtime::Lxc);
        assert_eq!(container_of("/lxc.monitor.box"), None);
        assert_eq!(container_of("/lxc.payload."), None);
    }

    #[test]
    fn monitors_of_containers_and_other_cgroups_are_no_containers() {
        for path in [
            "/".to_owned(),
            String::new(),
            "/system.slice/ssh.service".to_owned(),
            "/system.slice/docker.service".to_owned(),
            format!("/system.slice/crio-conmon-{ID}.scope"),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/docker/{}", &ID[1..]),
            format!("/docker/{}", ID.to_uppercase()),
            "/system.slice/docker-short.scope".to_owned(),
            format!("/kubepods/burstable/pod{UID}"),
        ] {
            assert_eq!(container_of(&path), None, "{path}");
        }
    }

    #[test]
    fn the_topmost_container_is_the_agent_and_the_lowest_is_the_process_s() {
        let path = format!("/docker/{ID}/docker/{OTHER}/inner");
        let (root, outer) = agent_root(&path).expect("a container");
        assert_eq!((root, outer.id.as_str()), (&*format!("/docker/{ID}"), ID));
        let (leaf, inner) = container_of(&path).expect("a container");
        assert_eq!(
            (leaf, inner.id.as_str()),
            (&*format!("/docker/{ID}/docker/{OTHER}"), OTHER)
        );
    }

    #[test]
    fn a_pod_in_a_container_does_not_lend_its_uid_to_the_container() {
        let path = format!("/docker/{ID}/kubepods/pod{UID}/{OTHER}");
        let (_, outer) = agent_root(&path).expect("a container");
        assert_eq!(outer.pod_uid, None);
        assert_eq!(outer.runtime, Runtime::Docker);
    }

    #[test]
    fn what_the_kernel_takes_for_a_container_includes_what_is_one() {
        for name in [
            ID.to_owned(),
            format!("docker-{ID}.scope"),
            format!("cri-containerd-{ID}.scope"),
            format!("nerdctl-{ID}.scope"),
            format!("crio-{ID}.scope"),
            format!("libpod-{ID}.scope"),
            format!("libpod-{ID}"),
            "lxc.payload.box".to_owned(),
        ] {
            assert!(container_of(&format!("/x/{name}")).is_some(), "{name}");
            assert!(looks_like_container(&name), "{name}");
        }
        for name in [
            format!("crio-conmon-{ID}.scope"),
            "ssh.service".to_owned(),
            "container".to_owned(),
            ID[1..].to_owned(),
        ] {
            assert!(!looks_like_container(&name), "{name}");
        }
    }
}

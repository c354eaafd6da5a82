//! Which cgroups are agents: the `--agent` selectors.
//!
//! A selector is one of
//! - `cgroup:<path glob below the cgroup2 mount>`, `systemd:<unit glob>`, which
//!   the path decides,
//! - `container:<id or name glob>`, `docker:<name glob>`,
//!   `label:<key>[=<value glob>]`, `pod:<namespace>/<name glob>`, which need the
//!   container runtime's answer.
//!
//! In globs `*` and `?` stop at `/`; `[…]` and `{a,b}` work as in a shell; a
//! backslash is itself, because systemd's unit names contain it.

#![forbid(unsafe_code)]

use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};

use super::cgroup_path::{ContainerRef, Runtime};
use super::runtime::RuntimeInfo;
use crate::event::Agent;

/// One selector.
#[derive(Clone, Debug)]
pub enum Selector {
    /// By path below the cgroup2 mount.
    Cgroup(PathGlob),
    /// By name of a Docker container.
    Docker(GlobMatcher),
    /// By a container's label.
    Label {
        /// Exact key.
        key: String,
        /// Pattern of the value; any value without it.
        value: Option<GlobMatcher>,
    },
    /// By a container's id or name.
    Container(GlobMatcher),
    /// By Kubernetes pod.
    Pod {
        /// Pattern of the namespace.
        namespace: GlobMatcher,
        /// Pattern of the name.
        name: GlobMatcher,
    },
    /// By systemd unit.
    Systemd(UnitGlob),
}

/// A selector that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("agent selector `{text}`: {problem}; write for example `{example}`")]
pub struct SelectorError {
    text: String,
    problem: String,
    example: &'static str,
}

/// Whether a cgroup is an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// It depends on what the container's runtime will answer.
    Undecided,
}

impl From<bool> for Decision {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// Pattern of a path, component by component, so that nothing matches a `/`.
#[derive(Clone, Debug)]
pub struct PathGlob {
    pub(super) components: Vec<Component>,
}

#[derive(Clone, Debug)]
pub(super) struct Component {
    pub(super) text: String,
    pub(super) glob: GlobMatcher,
}

impl Component {
    pub(super) fn is_literal(&self) -> bool {
        is_literal(&self.text)
    }
}

impl PathGlob {
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        self.components
            .iter()
            .all(|c| names.next().is_some_and(|name| c.glob.is_match(name)))
            && names.next().is_none()
    }
}

/// Pattern of a unit's name.
#[derive(Clone, Debug)]
pub struct UnitGlob {
    pub(super) text: String,
    pub(super) glob: GlobMatcher,
}

impl UnitGlob {
    /// Whether `path` is the cgroup of a matching unit. systemd puts units below
    /// slices only, and a user's below their manager: what an agent names like a
    /// unit in its own cgroup is none.
    fn matches(&self, path: &str) -> bool {
        let Some((above, name)) = path.rsplit_once('/') else {
            return false;
        };
        let manager = |part: &str| part.starts_with("user@") && part.ends_with(".service");
        self.glob.is_match(name)
            && above
                .split('/')
                .skip(1)
                .all(|part| part.ends_with(".slice") || manager(part))
    }
}

/// Types of units that have a cgroup (systemd.unit(5), systemd.resource-control(5)).
const UNIT_TYPES: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let fail = |problem: String, example| SelectorError {
            text: text.to_owned(),
            problem,
            example,
        };
        let (kind, rest) = text
            .split_once(':')
            .ok_or_else(|| fail("it names no kind before a `:`".to_owned(), "docker:agent-*"))?;
        let example = match kind {
            "cgroup" => "cgroup:/agents/*",
            "docker" => "docker:agent-*",
            "label" => "label:role=agent",
            "container" => "container:agent-*",
            "pod" => "pod:agents/worker-*",
            "systemd" => "systemd:agent-*.service",
            _ => {
                return Err(fail(
                    format!(
                        "`{kind}` is none of the kinds cgroup, docker, label, container, pod, systemd"
                    ),
                    "docker:agent-*",
                ));
            }
        };
        let fail = |problem: String| fail(problem, example);
        if rest.is_empty() {
            return Err(fail(format!("nothing follows `{kind}:`")));
        }
        let glob = |pattern: &str| glob(pattern).map_err(fail);
        Ok(match kind {
            "cgroup" => Self::Cgroup(path_glob(rest).map_err(fail)?),
            "docker" => Self::Docker(glob(rest)?),
            "label" => match rest.split_once('=') {
                Some(("", _)) => return Err(fail("the label has no key before `=`".to_owned())),
                Some((key, value)) => Self::Label {
                    key: key.to_owned(),
                    value: Some(any_text_glob(value).map_err(fail)?),
                },
                None => Self::Label {
                    key: rest.to_owned(),
                    value: None,
                },
            },
            "container" => Self::Container(glob(rest)?),
            "pod" => match rest.split_once('/') {
                Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Self::Pod {
                    namespace: glob(namespace)?,
                    name: glob(name)?,
                },
                _ => return Err(fail("a pod is named by <namespace>/<name glob>".to_owned())),
            },
            _ => Self::Systemd(unit_glob(rest).map_err(fail)?),
        })
    }
}

impl Selector {
    /// Whether it chooses an agent, by what is known of it.
    pub fn chooses(&self, agent: &Agent) -> bool {
        let container = agent.container.as_ref();
        let named = |glob: &GlobMatcher| {
            container.is_some_and(|it| it.name.as_ref().is_some_and(|name| glob.is_match(name)))
        };
        match self {
            Self::Cgroup(glob) => glob.matches(&agent.cgroup),
            Self::Systemd(glob) => glob.matches(&agent.cgroup),
            Self::Docker(glob) => {
                container.is_some_and(|it| it.runtime == Runtime::Docker.as_str()) && named(glob)
            }
            Self::Container(glob) => {
                container.is_some_and(|it| glob.is_match(&it.id)) || named(glob)
            }
            Self::Label { key, value } => container.is_some_and(|it| {
                let have = it.labels.get(key);
                have.is_some_and(|have| value.as_ref().is_none_or(|glob| glob.is_match(have)))
            }),
            Self::Pod { namespace, name } => agent
                .pod
                .as_ref()
                .is_some_and(|pod| namespace.is_match(&pod.namespace) && name.is_match(&pod.name)),
        }
    }

    /// The key of the label that it asks for.
    pub fn label_key(&self) -> Option<&str> {
        match self {
            Self::Label { key, .. } => Some(key),
            _ => None,
        }
    }

    fn decide(
        &self,
        path: &str,
        container: Option<&ContainerRef>,
        known: Option<&RuntimeInfo>,
    ) -> Decision {
        let container = match self {
            Self::Cgroup(glob) => return glob.matches(path).into(),
            Self::Systemd(glob) => return glob.matches(path).into(),
            _ => match container {
                Some(container) => container,
                None => return Decision::No,
            },
        };
        let ask = |matches: &dyn Fn(&RuntimeInfo) -> bool| match known {
            Some(info) => matches(info).into(),
            None => Decision::Undecided,
        };
        match self {
            Self::Docker(_) if container.runtime != Runtime::Docker => Decision::No,
            Self::Docker(glob) => ask(&|info| glob.is_match(&info.name)),
            Self::Container(glob) if glob.is_match(&container.id) => Decision::Yes,
            Self::Container(glob) => ask(&|info| glob.is_match(&info.name)),
            Self::Label { key, value } => ask(&|info| {
                info.labels
                    .get(key)
                    .is_some_and(|have| value.as_ref().is_none_or(|glob| glob.is_match(have)))
            }),
            Self::Pod { namespace, name } => ask(&|info| {
                info.pod().is_some_and(|pod| {
                    namespace.is_match(&pod.namespace) && name.is_match(&pod.name)
                })
            }),
            Self::Cgroup(_) | Self::Systemd(_) => Decision::No,
        }
    }
}

/// All selectors of a run. None: every container.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    pub(super) list: Vec<Selector>,
}

impl Selectors {
    /// A cgroup that any of them chooses is an agent.
    pub fn new(list: Vec<Selector>) -> Self {
        Self { list }
    }

    /// Whether the cgroup `path` is an agent's topmost one. `container` is the
    /// one whose own cgroup `path` is. `known` is what its runtime answered:
    /// `None` while it was not asked or has not answered, an empty
    /// [`RuntimeInfo`] when it will not.
    pub fn decide(
        &self,
        path: &str,
        container: Option<&ContainerRef>,
        known: Option<&RuntimeInfo>,
    ) -> Decision {
        if self.list.is_empty() {
            return container.is_some().into();
        }
        let mut decision = Decision::No;
        for selector in &self.list {
            match selector.decide(path, container, known) {
                Decision::Yes => return Decision::Yes,
                Decision::Undecided => decision = Decision::Undecided,
                Decision::No => {}
            }
        }
        decision
    }

    /// Whether containers can be agents whatever their path is: new cgroups that
    /// look like one are then to be watched from birth (`Settings::watch_containers`).
    pub fn chooses_containers(&self) -> bool {
        self.list.is_empty()
            || self
                .list
                .iter()
                .any(|s| !matches!(s, Selector::Cgroup(_) | Selector::Systemd(_)))
    }

    /// Keys of the labels that decisions need.
    pub fn label_keys(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter_map(Selector::label_key)
    }
}

pub(super) fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '[', '{'])
}

fn glob(pattern: &str) -> Result<GlobMatcher, String> {
    if pattern.contains('/') {
        return Err("a name contains no `/`".to_owned());
    }
    any_text_glob(pattern)
}

fn any_text_glob(pattern: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(pattern)
        .backslash_escape(false)
        .empty_alternates(true)
        .build();
    match glob {
        Ok(glob) => Ok(glob.compile_matcher()),
        Err(error) => Err(format!("`{pattern}` is no pattern: {}", error.kind())),
    }
}

fn path_glob(pattern: &str) -> Result<PathGlob, String> {
    let mut components = Vec::new();
    for text in pattern.split('/').filter(|text| !text.is_empty()) {
        if text == "." || text == ".." {
            return Err(format!("a cgroup's path has no `{text}`"));
        }
        if text.contains("**") {
            return Err("`**` has no use: all that lies below a match belongs to it".to_owned());
        }
        components.push(Component {
            text: text.to_owned(),
            glob: glob(text)?,
        });
    }
    if components.is_empty() {
        return Err("the root cgroup is the whole machine".to_owned());
    }
    Ok(PathGlob { components })
}

fn unit_glob(pattern: &str) -> Result<UnitGlob, String> {
    // As systemctl does: a plain name without a type is a service's.
    let typed = !is_literal(pattern) || UNIT_TYPES.iter().any(|kind| pattern.ends_with(kind));
    let text = if typed {
        pattern.to_owned()
    } else {
        format!("{pattern}.service")
    };
    Ok(UnitGlob {
        glob: glob(&text)?,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::cgroup_path::agent_root;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn selectors(texts: &[&str]) -> Selectors {
        Selectors::new(
            texts
                .iter()
                .map(|text| text.parse().expect("a selector"))
                .collect(),
        )
    }

    fn decide(text: &str, path: &str, known: Option<&RuntimeInfo>) -> Decision {
        let container = agent_root(path).map(|(_, container)| container);
        selectors(&[text]).decide(path, container.as_ref(), known)
    }

    fn info(name: &str, labels: &[(&str, &str)]) -> RuntimeInfo {
        RuntimeInfo {
            name: name.to_owned(),
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..RuntimeInfo::default()
        }
    }

    #[test]
    fn by_default_every_container_and_nothing_else_is_an_agent() {
        let none = Selectors::default();
        let docker = format!("/docker/{ID}");
        let (_, container) = agent_root(&docker).expect("a container");
        assert_eq!(none.decide(&docker, Some(&container), None), Decision::Yes);
        assert_eq!(
            none.decide("/system.slice/ssh.service", None, None),
            Decision::No
        );
        assert!(none.chooses_containers());
    }

    #[test]
    fn a_path_glob_matches_component_by_component() {
        for (text, path, want) in [
            ("cgroup:/agents/*", "/agents/one", Decision::Yes),
            ("cgroup:agents/*", "/agents/one", Decision::Yes),
            ("cgroup:/agents/*", "/agents", Decision::No),
            ("cgroup:/agents/*", "/agents/one/two", Decision::No),
            ("cgroup:/agents/*", "/other/one", Decision::No),
            ("cgroup:/a-{x,y}/b?/[cd]", "/a-y/b1/d", Decision::Yes),
            ("cgroup:/a-{x,y}/b?/[cd]", "/a-z/b1/d", Decision::No),
            ("cgroup:/a\\x2db", "/a\\x2db", Decision::Yes),
        ] {
            assert_eq!(decide(text, path, None), want, "{text} {path}");
        }
    }

    #[test]
    fn a_container_is_chosen_by_id_at_once_and_by_name_when_it_is_known() {
        let path = format!("/docker/{ID}");
        assert_eq!(decide("container:0123*", &path, None), Decision::Yes);
        assert_eq!(
            decide("container:agent-*", &path, None),
            Decision::Undecided
        );
        assert_eq!(
            decide("container:agent-*", &path, Some(&info("agent-1", &[]))),
            Decision::Yes
        );
        assert_eq!(
            decide("container:agent-*", &path, Some(&info("web", &[]))),
            Decision::No
        );
        assert_eq!(
            decide("container:agent-*", "/agents/one", None),
            Decision::No
        );
    }

    #[test]
    fn docker_names_are_asked_for_docker_s_containers_only() {
        let path = format!("/docker/{ID}");
        assert_eq!(decide("docker:agent-*", &path, None), Decision::Undecided);
        assert_eq!(
            decide("docker:agent-*", &path, Some(&info("agent-1", &[]))),
            Decision::Yes
        );
        assert_eq!(
            decide("docker:agent-*", &path, Some(&RuntimeInfo::default())),
            Decision::No
        );
        let podman = format!("/machine.slice/libpod-{ID}.scope");
        assert_eq!(decide("docker:agent-*", &podman, None), Decision::No);
    }

    #[test]
    fn labels_match_by_key_and_by_value() {
        let path = format!("/docker/{ID}");
        let labelled = info("x", &[("role", "agent/7"), ("empty", "")]);
        for (text, want) in [
            ("label:role", Decision::Yes),
            ("label:role=agent*", Decision::Yes),
            ("label:role=web", Decision::No),
            ("label:empty=", Decision::Yes),
            ("label:role=", Decision::No),
            ("label:other", Decision::No),
        ] {
            assert_eq!(decide(text, &path, Some(&labelled)), want, "{text}");
            assert_eq!(decide(text, &path, None), Decision::Undecided, "{text}");
        }
    }

    #[test]
    fn pods_match_by_the_labels_that_kubernetes_sets() {
        let path = format!("/kubepods/pod3f1b2c44-9a0e-4f57-8a55-0d2b6f1c7e21/{ID}");
        let pod = info(
            "x",
            &[
                ("io.kubernetes.pod.namespace", "agents"),
                ("io.kubernetes.pod.name", "worker-1"),
            ],
        );
        assert_eq!(
            decide("pod:agents/worker-*", &path, Some(&pod)),
            Decision::Yes
        );
        assert_eq!(
            decide("pod:other/worker-*", &path, Some(&pod)),
            Decision::No
        );
        assert_eq!(
            decide("pod:agents/worker-*", &path, None),
            Decision::Undecided
        );
    }

    #[test]
    fn units_match_where_systemd_puts_them_and_not_inside_agents() {
        for (text, path, want) in [
            (
                "systemd:agent-*.service",
                "/system.slice/agent-1.service",
                Decision::Yes,
            ),
            (
                "systemd:agent",
                "/system.slice/agent.service",
                Decision::Yes,
            ),
            (
                "systemd:agent@*",
                "/system.slice/system-agent.slice/agent@1.service",
                Decision::Yes,
            ),
            ("systemd:a.slice", "/a.slice", Decision::Yes),
            (
                "systemd:agent",
                "/user.slice/user-1.slice/user@1.service/app.slice/agent.service",
                Decision::Yes,
            ),
            (
                "systemd:agent",
                "/system.slice/other.service/agent.service",
                Decision::No,
            ),
            (
                "systemd:agent",
                "/docker/x/system.slice/agent.service",
                Decision::No,
            ),
            ("systemd:agent", "/system.slice/agent.scope", Decision::No),
        ] {
            assert_eq!(decide(text, path, None), want, "{text} {path}");
        }
    }

    #[test]
    fn any_selector_s_yes_wins_over_another_s_doubt() {
        let path = format!("/docker/{ID}");
        let (_, container) = agent_root(&path).expect("a container");
        let both = selectors(&["docker:agent-*", "cgroup:/docker/*"]);
        assert_eq!(both.decide(&path, Some(&container), None), Decision::Yes);
    }

    #[test]
    fn errors_name_the_selector_the_problem_and_an_example() {
        for (text, problem, example) in [
            ("agent-1", "names no kind", "docker:agent-*"),
            (
                "dokcer:x",
                "`dokcer` is none of the kinds",
                "docker:agent-*",
            ),
            ("docker:", "nothing follows `docker:`", "docker:agent-*"),
            ("docker:a/b", "no `/`", "docker:agent-*"),
            ("docker:[a", "`[a` is no pattern", "docker:agent-*"),
            ("cgroup:/", "whole machine", "cgroup:/agents/*"),
            ("cgroup:/a/../b", "no `..`", "cgroup:/agents/*"),
            ("cgroup:/a/**", "`**` has no use", "cgroup:/agents/*"),
            ("cgroup:/a/{b/c,d}", "no pattern", "cgroup:/agents/*"),
            ("label:=x", "no key", "label:role=agent"),
            (
                "pod:worker-*",
                "<namespace>/<name glob>",
                "pod:agents/worker-*",
            ),
            ("systemd:a/b", "no `/`", "systemd:agent-*.service"),
        ] {
            let message = text.parse::<Selector>().expect_err(text).to_string();
            for part in [text, problem, example] {
                assert!(message.contains(part), "{message} lacks {part}");
            }
        }
    }
}

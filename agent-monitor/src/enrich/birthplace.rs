//! Where agents are born, and where network and device programs are attached
//! for them.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::cgroup_path::{agent_root, parent, self_and_ancestors};
use super::selector::{PathGlob, Selector, Selectors, UnitGlob, is_literal};

/// A cgroup below which agents are born: what the kernel's `Nursery` is made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Birthplace {
    /// Path of the cgroup, `/` for the root.
    pub base: String,
    /// How many levels below it agents are: 1 for its children.
    pub depth: u32,
}

impl Birthplace {
    /// This birthplace, or while its base does not exist the nearest ancestor
    /// that does, as many levels deeper.
    pub fn existing(&self, exists: impl Fn(&str) -> bool) -> Self {
        let mut base = self.base.as_str();
        let mut depth = self.depth;
        while base != "/" && !exists(base) {
            base = parent(base);
            depth += 1;
        }
        Self {
            base: base.to_owned(),
            depth,
        }
    }
}

impl Selectors {
    /// Where the agents of `cgroup:` and `systemd:` selectors are born, each base
    /// once, with the least depth: what lies below an agent belongs to it.
    ///
    /// Units are expected where systemd puts them by default: services and scopes
    /// in `system.slice`, instances of `a@.service` in its `system-a.slice`,
    /// `a-b.slice` in `a.slice`. Others (`Slice=`, users' units) have their
    /// slice for a birthplace only once it is known: [`Selectors::nursery_depth`].
    pub fn birthplaces(&self) -> Vec<Birthplace> {
        let mut bases: BTreeMap<String, u32> = BTreeMap::new();
        for selector in &self.list {
            let found = match selector {
                Selector::Cgroup(glob) => path_birthplaces(glob),
                Selector::Systemd(unit) => unit_birthplaces(unit),
                _ => continue,
            };
            for (base, depth) in found {
                bases
                    .entry(base)
                    .and_modify(|least| *least = depth.min(*least))
                    .or_insert(depth);
            }
        }
        bases
            .into_iter()
            .map(|(base, depth)| Birthplace { base, depth })
            .collect()
    }

    /// How many levels below the cgroup `path` agents may be born, if any may:
    /// to be asked of every cgroup that exists or is reported.
    pub fn nursery_depth(&self, path: &str) -> Option<u32> {
        let slice = path.ends_with(".slice")
            && self
                .list
                .iter()
                .any(|selector| matches!(selector, Selector::Systemd(_)));
        let paths = self.list.iter().filter_map(|selector| match selector {
            Selector::Cgroup(glob) => glob.levels_below(path),
            _ => None,
        });
        paths.chain(slice.then_some(1)).min()
    }

    /// The cgroup at which network and device programs are attached for the agent
    /// at `path`: the root of the subtree of agents that it was born in, so that
    /// the next one is covered from its first packet, else its own cgroup. Never
    /// the root of the hierarchy.
    pub fn attach_point<'p>(&self, path: &'p str) -> &'p str {
        let subtrees = self.list.iter().filter_map(|selector| match selector {
            Selector::Cgroup(glob) => glob.subtree(path),
            _ => None,
        });
        let containers = self
            .chooses_containers()
            .then(|| containers_root(path))
            .flatten();
        let root = subtrees.chain(containers).min_by_key(|root| root.len());
        root.filter(|root| root.len() > 1).unwrap_or(path)
    }
}

impl PathGlob {
    /// How many levels below `path` matches lie.
    fn levels_below(&self, path: &str) -> Option<u32> {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let levels = self
            .components
            .len()
            .checked_sub(names.len())
            .filter(|levels| *levels > 0)?;
        let matches = names
            .iter()
            .zip(&self.components)
            .all(|(name, c)| c.glob.is_match(name));
        matches.then_some(u32::try_from(levels).unwrap_or(u32::MAX))
    }

    /// For a `path` that matches, the ancestor all of whose descendants at the
    /// pattern's depth match: what is left without trailing `*`s.
    fn subtree<'p>(&self, path: &'p str) -> Option<&'p str> {
        if !self.matches(path) {
            return None;
        }
        let any = self
            .components
            .iter()
            .rev()
            .take_while(|c| c.text == "*")
            .count();
        Some((0..any).fold(path, |path, _| parent(path)))
    }
}

fn path_birthplaces(glob: &PathGlob) -> Vec<(String, u32)> {
    let last = glob.components.len() - 1;
    let literal = glob.components[..last]
        .iter()
        .take_while(|c| c.is_literal());
    let base: Vec<&str> = literal.map(|c| c.text.as_str()).collect();
    let depth = glob.components.len() - base.len();
    vec![(
        format!("/{}", base.join("/")),
        u32::try_from(depth).unwrap_or(u32::MAX),
    )]
}

fn unit_birthplaces(unit: &UnitGlob) -> Vec<(String, u32)> {
    if let Some(name) = unit.text.strip_suffix(".slice") {
        return vec![(slice_path(name), 1)];
    }
    let mut found = vec![("/system.slice".to_owned(), 1)];
    if let Some((template, _)) = unit.text.split_once('@')
        && is_literal(template)
    {
        // systemd escapes the dashes of a template's name in its slice's.
        let slice = template.replace('-', "\\x2d");
        found.push((format!("/system.slice/system-{slice}.slice"), 1));
    }
    found
}

/// The cgroup of the slice that holds the slice `name`: `a-b-*` is in
/// `/a.slice/a-b.slice`.
fn slice_path(name: &str) -> String {
    let literal = name
        .find(['*', '?', '[', '{'])
        .map_or(name, |at| &name[..at]);
    let mut path = String::new();
    for (at, _) in literal.match_indices('-') {
        path.push_str(&format!("/{}.slice", &literal[..at]));
    }
    if path.is_empty() {
        "/".to_owned()
    } else {
        path
    }
}

/// The cgroup that holds nothing but containers, for a container in one: Docker's
/// with the cgroupfs driver, or the kubelet's.
fn containers_root(path: &str) -> Option<&str> {
    let (root, _) = agent_root(path)?;
    let pods = self_and_ancestors(root).find(|above| {
        let name = above.rsplit('/').next().unwrap_or_default();
        *above != root
            && (name == "kubepods" || name == "kubepods.slice" || name.ends_with("-kubepods.slice"))
    });
    pods.or_else(|| Some(parent(root)).filter(|above| *above == "/docker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "3f1b2c44-9a0e-4f57-8a55-0d2b6f1c7e21";

    fn selectors(texts: &[&str]) -> Selectors {
        Selectors::new(
            texts
                .iter()
                .map(|text| text.parse().expect("a selector"))
                .collect(),
        )
    }

    fn birthplaces(texts: &[&str]) -> Vec<(String, u32)> {
        selectors(texts)
            .birthplaces()
            .into_iter()
            .map(|b| (b.base, b.depth))
            .collect()
    }

    #[test]
    fn agents_are_born_below_the_literal_part_of_a_path() {
        for (text, base, depth) in [
            ("cgroup:/agents/*", "/agents", 1),
            ("cgroup:/agents/one", "/agents", 1),
            ("cgroup:/agents/*/job-*", "/agents", 2),
            ("cgroup:/a/b/*/c", "/a/b", 2),
            ("cgroup:/x-*", "/", 1),
            ("systemd:agent-*.service", "/system.slice", 1),
            ("systemd:agents-*.slice", "/agents.slice", 1),
            ("systemd:a-b-*.slice", "/a.slice/a-b.slice", 1),
            ("systemd:agents.slice", "/", 1),
        ] {
            assert_eq!(birthplaces(&[text]), [(base.to_owned(), depth)], "{text}");
        }
    }

    #[test]
    fn instances_of_a_template_are_born_in_its_slice() {
        let found = birthplaces(&["systemd:my-agent@*.service"]);
        assert!(
            found.contains(&("/system.slice/system-my\\x2dagent.slice".to_owned(), 1)),
            "{found:?}"
        );
    }

    #[test]
    fn a_base_is_listed_once_with_its_least_depth() {
        let found = birthplaces(&["cgroup:/agents/*/*", "cgroup:/agents/*"]);
        assert_eq!(found, [("/agents".to_owned(), 1)]);
        assert!(birthplaces(&["docker:x", "label:y"]).is_empty());
    }

    #[test]
    fn a_base_that_does_not_exist_yet_is_awaited_from_above() {
        let place = Birthplace {
            base: "/a/b".to_owned(),
            depth: 1,
        };
        assert_eq!(place.existing(|_| true), place);
        let lifted = place.existing(|path| path == "/a");
        assert_eq!((lifted.base.as_str(), lifted.depth), ("/a", 2));
        let lifted = place.existing(|_| false);
        assert_eq!((lifted.base.as_str(), lifted.depth), ("/", 3));
    }

    #[test]
    fn cgroups_that_may_hold_agents_say_how_deep() {
        let paths = selectors(&["cgroup:/agents/*/job-*"]);
        for (path, depth) in [
            ("/", Some(3)),
            ("/agents", Some(2)),
            ("/agents/x", Some(1)),
            ("/agents/x/job-1", None),
            ("/other", None),
        ] {
            assert_eq!(paths.nursery_depth(path), depth, "{path}");
        }
        let units = selectors(&["systemd:agent-*"]);
        assert_eq!(units.nursery_depth("/custom.slice"), Some(1));
        assert_eq!(units.nursery_depth("/system.slice/ssh.service"), None);
    }

    #[test]
    fn programs_are_attached_at_the_subtree_of_agents_or_at_the_agent_never_at_the_root() {
        let docker = format!("/docker/{ID}");
        let scope = format!("/system.slice/docker-{ID}.scope");
        let pod = format!("/kubepods/burstable/pod{UID}/{ID}");
        let systemd_pod = format!(
            "/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{ID}.scope",
            UID.replace('-', "_")
        );
        let kind =
            format!("/kubelet.slice/kubelet-kubepods.slice/x.slice/cri-containerd-{ID}.scope");
        let top = format!("/{ID}");
        for (texts, path, point) in [
            (&[][..], docker.as_str(), "/docker"),
            (&["docker:x"][..], &docker, "/docker"),
            (&[], &scope, &scope),
            (&[], &pod, "/kubepods"),
            (&[], &systemd_pod, "/kubepods.slice"),
            (&[], &kind, "/kubelet.slice/kubelet-kubepods.slice"),
            (&[], &top, &top),
            (&[], "/lxc.payload.box", "/lxc.payload.box"),
            (&["cgroup:/agents/*"], "/agents/one", "/agents"),
            (&["cgroup:/agents/*/*"], "/agents/one/two", "/agents"),
            (&["cgroup:/agents/a-*/*"], "/agents/a-1/two", "/agents/a-1"),
            (&["cgroup:/agents/a-*"], "/agents/a-1", "/agents/a-1"),
            (&["cgroup:/agents/one"], "/agents/one", "/agents/one"),
            (&["cgroup:/*"], "/one", "/one"),
            (&["cgroup:/*/*"], "/one/two", "/one/two"),
            (
                &["systemd:agent-*"],
                "/system.slice/agent-1.service",
                "/system.slice/agent-1.service",
            ),
            (
                &["cgroup:/agents/a-*", "cgroup:/agents/*"],
                "/agents/a-1",
                "/agents",
            ),
            (&["cgroup:/x-*"], &docker, &docker),
        ] {
            assert_eq!(
                selectors(texts).attach_point(path),
                point,
                "{texts:?} {path}"
            );
        }
    }
}

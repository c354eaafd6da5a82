//! Names that tell who made a thing, and the removal of what a killed run left.

use std::fs;
use std::path::Path;
use std::sync::Once;

use crate::process::MARKER;
use crate::{cgroup, netns};

/// Prefix of an agent's network namespace.
pub const AGENT_NETNS: &str = "am-agent-";
/// Prefix of a world's own network namespace, the "internet".
pub const NET_NETNS: &str = "am-net-";
/// Prefix of a world's folder in the temporary directory.
pub const FOLDER: &str = "am-world-";

/// This process as `<pid>-<start>`: a pid alone may be another process later.
pub(crate) fn owner() -> String {
    let pid = std::process::id();
    let start = start_of(pid).unwrap_or_default();
    format!("{pid}-{start}")
}

/// True when `id`, which starts with an [`owner`], was made by a process that has ended.
/// A text of any other shape is nobody's leftover.
pub(crate) fn owner_is_dead(id: &str) -> bool {
    let mut parts = id.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (parts.next(), parts.next()) else {
        return false;
    };
    u32::try_from(pid).is_ok_and(|pid| start_of(pid) != Some(start))
}

/// Start time of a process in ticks since boot: field 22 of proc_pid_stat(5).
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may contain spaces; it ends at the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Removes namespaces, cgroups and folders of runs whose process has ended.
/// Done once per process. Containers: see [`crate::docker`].
pub fn remove() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for group in cgroup::existing().unwrap_or_default() {
            let id = group.path().rsplit_once('.').map(|(_, id)| id);
            if id.is_some_and(owner_is_dead) {
                report(group.remove());
            }
        }
        for name in netns::names() {
            let id = name
                .strip_prefix(AGENT_NETNS)
                .or_else(|| name.strip_prefix(NET_NETNS));
            if id.is_some_and(owner_is_dead) {
                report(netns::remove(&name));
            }
        }
        let folders = fs::read_dir(std::env::temp_dir()).into_iter().flatten();
        for folder in folders.flatten() {
            let name = folder.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
            if id.is_some_and(owner_is_dead) {
                report(fs::remove_dir_all(folder.path()).map_err(Into::into));
            }
        }
    });
}

fn report(result: anyhow::Result<()>) {
    if let Err(error) = result {
        eprintln!("rig: a leftover of an earlier run stays: {error:#}");
    }
}

/// Everything that exists now of the world (or worlds) whose id contains `id`:
/// cgroups, namespaces, folders and processes. For tests that nothing stays behind.
pub fn of(id: &str) -> Vec<String> {
    let groups = cgroup::existing().unwrap_or_default();
    let mut found: Vec<String> = groups.iter().map(|group| group.path().to_owned()).collect();
    found.extend(netns::names());
    found.extend(listing(&std::env::temp_dir()));
    found.retain(|name| name.contains(id));
    let mark = format!("{MARKER}={id}");
    found.extend(listing(Path::new("/proc")).into_iter().filter(|process| {
        fs::read(format!("{process}/environ"))
            .is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(&mark))
    }));
    found
}

fn listing(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path().display().to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_owns_what_it_makes() {
        assert!(!owner_is_dead(&format!("{}-1", owner())));
    }

    #[test]
    fn a_reused_pid_is_not_the_owner() {
        let pid = std::process::id();
        assert!(owner_is_dead(&format!("{pid}-0-1")));
    }

    #[test]
    fn a_name_of_another_shape_is_nobodys_leftover() {
        for name in ["", "coder", "12", "12-x-1", "99999999999999999999-1"] {
            assert!(!owner_is_dead(name), "{name}");
        }
    }
}

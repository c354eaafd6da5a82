//! The packages from npm that tests run, as programs of their own.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{root, step};

/// Names the packages, and why their licence is no concern of agent-monitor's. It
/// overrides what the pool asks for in any version, because the newest releases
/// no longer run on Debian 12's Node.js 18: they are ES modules, or need Node.js 20.
const MANIFEST: &str = "package.json";
/// Holds the version and the hash of every package. It lies in the finished
/// folder too, and tells by which versions that was made.
const LOCK: &str = "package-lock.json";

/// Makes `target/npm/node_modules` when it is missing or made by another lock file.
/// It is built beside its place and renamed, so that what is there is always whole.
///
/// # Errors
/// When npm fails, or the folder cannot be written.
pub fn install() -> Result<()> {
    let wanted = root().join("tests/npm");
    let place = root().join("target/npm");
    let lock = read(&wanted.join(LOCK))?;
    if fs::read(place.join(LOCK)).is_ok_and(|made_by| made_by == lock) {
        return Ok(());
    }
    let partial = root().join("target/npm.partial");
    remove(&partial)?;
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    for (name, content) in [(MANIFEST, read(&wanted.join(MANIFEST))?), (LOCK, lock)] {
        let file = partial.join(name);
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut command = Command::new("npm");
    // Nothing here needs to be compiled: no package's own scripts are run.
    command
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .arg("--prefix")
        .arg(&partial);
    step::run("npm", "installing the packages of tests/npm", &mut command)?;
    remove(&place)?;
    fs::rename(&partial, &place).with_context(|| format!("cannot make {}", place.display()))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Removes a folder, unless it is not there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_locked_package_has_a_hash_and_comes_from_the_registry_the_user_has_set() {
        let lock = fs::read_to_string(root().join("tests/npm").join(LOCK)).unwrap();
        let packages = lock.matches("\"node_modules/").count();
        assert!(packages > 0);
        assert_eq!(lock.matches("\"integrity\": \"sha512-").count(), packages);
        // npm writes addresses unless `omit-lockfile-registry-resolved` is set.
        assert!(!lock.contains("\"resolved\""));
    }
}

//! Device numbers → names.
//!
//! Assigned numbers are known by heart (Documentation/admin-guide/devices.txt);
//! of the others the driver's name is in /proc/devices, which changes as drivers
//! are loaded. Node names are the agent's to choose, so they tell nothing.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::decode::DeviceClass;

/// How often /proc is read for a number that is not known.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Names of this machine's devices.
#[derive(Debug, Default)]
pub struct Devices {
    /// Where procfs is; nowhere: only assigned numbers have names.
    procfs: Option<PathBuf>,
    drivers: HashMap<(DeviceClass, u32), String>,
    /// Minors of major 10.
    misc: HashMap<u32, String>,
    read: Option<Instant>,
}

/// Major of devices that have only a minor each (`MISC_MAJOR`).
const MISC: u32 = 10;

impl Devices {
    /// Those of the machine whose procfs is at `procfs`.
    pub fn at(procfs: impl Into<PathBuf>) -> Self {
        Self {
            procfs: Some(procfs.into()),
            ..Self::default()
        }
    }

    /// What a device is called: its usual node below /dev, or its driver's name.
    pub fn name(
        &mut self,
        class: DeviceClass,
        major: u32,
        minor: u32,
    ) -> Option<Cow<'static, str>> {
        if let Some(name) = assigned(class, major, minor) {
            return Some(name);
        }
        self.known(class, major, minor)
            .or_else(|| {
                self.read();
                self.known(class, major, minor)
            })
            .map(Cow::Owned)
    }

    fn known(&self, class: DeviceClass, major: u32, minor: u32) -> Option<String> {
        if (class, major) == (DeviceClass::Character, MISC) {
            return self.misc.get(&minor).cloned();
        }
        self.drivers.get(&(class, major)).cloned()
    }

    /// Reads what drivers there are, unless that was done a moment ago.
    fn read(&mut self) {
        let Some(procfs) = &self.procfs else {
            return;
        };
        if self.read.is_some_and(|read| read.elapsed() < READ_EVERY) {
            return;
        }
        self.read = Some(Instant::now());
        let text = |name| fs::read_to_string(procfs.join(name)).unwrap_or_default();
        self.drivers = drivers(&text("devices"));
        self.misc = text("misc").lines().filter_map(numbered).collect();
    }
}

/// /proc/devices: two lists, each below its title.
fn drivers(text: &str) -> HashMap<(DeviceClass, u32), String> {
    let mut class = None;
    let mut drivers = HashMap::new();
    for line in text.lines() {
        match line {
            "Character devices:" => class = Some(DeviceClass::Character),
            "Block devices:" => class = Some(DeviceClass::Block),
            _ => {
                if let (Some(class), Some((major, name))) = (class, numbered(line)) {
                    // A major that several share is called after the first.
                    drivers.entry((class, major)).or_insert(name);
                }
            }
        }
    }
    drivers
}

/// `232 kvm`
fn numbered(line: &str) -> Option<(u32, String)> {
    let (number, name) = line.trim_start().split_once(' ')?;
    Some((number.parse().ok()?, name.trim().to_owned()))
}

/// What the kernel's list of assigned numbers says of those that matter here.
fn assigned(class: DeviceClass, major: u32, minor: u32) -> Option<Cow<'static, str>> {
    if class == DeviceClass::Block {
        return None;
    }
    let name = match (major, minor) {
        (1, 1) => "mem",
        (1, 2) => "kmem",
        (1, 4) => "port",
        (1, 11) => "kmsg",
        (5, 1) => "console",
        (MISC, 200) => "net/tun",
        (MISC, 229) => "fuse",
        (MISC, 232) => "kvm",
        (195, 254) => "nvidia-modeset",
        (195, 255) => "nvidiactl",
        (195, _) => return Some(format!("nvidia{minor}").into()),
        (202, _) => return Some(format!("cpu/{minor}/msr").into()),
        // Minors 0-63 are cards, from 128 on their render nodes (drivers/gpu/drm/drm_drv.c).
        (226, 0..64) => return Some(format!("dri/card{minor}").into()),
        (226, 128..192) => return Some(format!("dri/renderD{minor}").into()),
        _ => return None,
    };
    Some(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeviceClass::{Block, Character};

    #[test]
    fn assigned_numbers_have_names_on_every_machine() {
        let mut devices = Devices::default();
        for (major, minor, name) in [
            (195, 0, "nvidia0"),
            (195, 255, "nvidiactl"),
            (226, 1, "dri/card1"),
            (226, 128, "dri/renderD128"),
            (10, 232, "kvm"),
            (10, 200, "net/tun"),
            (1, 1, "mem"),
            (202, 3, "cpu/3/msr"),
        ] {
            assert_eq!(devices.name(Character, major, minor).as_deref(), Some(name));
        }
        assert_eq!(devices.name(Block, 195, 0), None);
        assert_eq!(devices.name(Character, 240, 0), None);
    }

    #[test]
    fn drivers_with_a_number_of_the_day_are_called_after_proc() {
        let proc = tempfile::tempdir().expect("a directory");
        let devices = "Character devices:\n  1 mem\n235 kfd\n511 nvidia-uvm\n\nBlock devices:\n  8 sd\n235 other\n";
        fs::write(proc.path().join("devices"), devices).expect("a file");
        fs::write(proc.path().join("misc"), "130 watchdog\n 61 my misc\n").expect("a file");
        let mut devices = Devices::at(proc.path());
        for (class, major, minor, name) in [
            (Character, 235, 0, Some("kfd")),
            (Block, 235, 7, Some("other")),
            (Character, 511, 1, Some("nvidia-uvm")),
            (Character, 10, 61, Some("my misc")),
            (Character, 10, 62, None),
            (Block, 8, 1, Some("sd")),
            (Character, 236, 0, None),
        ] {
            assert_eq!(
                devices.name(class, major, minor).as_deref(),
                name,
                "{major}:{minor}"
            );
        }
    }

    #[test]
    fn what_is_no_list_of_devices_names_none() {
        assert!(drivers("Character devices:\nx y\n99\n-1 z\n\u{0}").is_empty());
        assert!(drivers("1 mem").is_empty());
    }
}

//! agent-monitor as it is shipped, without anyone who listens to it.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cgroup::PARENT;
use crate::monitor::Site;
use crate::process::checked;
use crate::wait;

/// How long it may take to attach.
const START: &str = "30s";
/// Ticks of the clock of `/proc/PID/stat` a second (`USER_HZ`).
const USER_HZ: f64 = 100.0;

/// A running daemon. Killed on drop.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    site: Site,
}

impl Daemon {
    /// Starts one that watches every agent of the rig, and waits until it is attached.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub fn start() -> Result<Self> {
        Self::watching(&[&format!("cgroup:{PARENT}/*")])
    }

    /// As [`Daemon::start`], for what these selectors choose.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn watching(selectors: &[&str]) -> Result<Self> {
        let site = Site::new()?;
        let config = site.configure("")?;
        let log = fs::File::create(site.dir().join("log"))?;
        let child = site
            .command(&["run", "--config"])?
            .arg(config)
            .args(selectors.iter().flat_map(|selector| ["--agent", selector]))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start agent-monitor")?;
        let daemon = Self { child, site };
        checked(&mut daemon.site.command(&["status", "--wait", START])?).with_context(|| {
            fs::read_to_string(daemon.site.dir().join("log")).unwrap_or_default()
        })?;
        Ok(daemon)
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it is.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// What `status` says.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Value> {
        let told = checked(&mut self.site.command(&["status", "--output", "json"])?)?;
        Ok(serde_json::from_str(&told)?)
    }

    /// Records it has taken from the kernel, and records that were lost.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn records(&self) -> Result<(u64, u64)> {
        let status = self.status()?;
        let losses = status["counters"]["losses"].as_object();
        let lost = losses.map_or(0, |losses| losses.values().filter_map(Value::as_u64).sum());
        let records = status["counters"]["records"]
            .as_u64()
            .context("status has no counters.records")?;
        Ok((records, lost))
    }

    /// Waits until it has handed on what there is: no record comes for a while.
    ///
    /// # Errors
    /// When records keep coming.
    pub fn settle(&self) -> Result<(u64, u64)> {
        let mut before = self.records()?;
        wait::until("the daemon to catch up", Duration::from_secs(60), || {
            // Losses are read from the kernel twice a second.
            std::thread::sleep(Duration::from_millis(600));
            let now = self.records()?;
            Ok((std::mem::replace(&mut before, now).0 == now.0).then_some(now))
        })
    }

    /// Seconds of processor time so far.
    ///
    /// # Errors
    /// When it has gone.
    pub fn processor_time(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // After the name, which may hold anything: utime and stime are the 14th
        // and 15th (proc_pid_stat(5)).
        let (_, rest) = text.rsplit_once(") ").context("no name in stat")?;
        let ticks: u64 = rest
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(ticks as f64 / USER_HZ)
    }

    /// Resident memory, MiB.
    ///
    /// # Errors
    /// When it has gone.
    pub fn resident(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"))
            .context("no VmRSS")?;
        Ok(kib.trim().parse::<f64>()? / 1024.0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

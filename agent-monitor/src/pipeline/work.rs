//! What agents work with: devices, the kernel's settings, processor time, huge pages.

use super::{Pipeline, known};
use crate::capture::recording::Holding;
use crate::decode::{self, DeviceClass, ProcessKey, Record};
use crate::detect::{huge_pages, pool_shape};
use crate::event::{self, Event};

impl Pipeline {
    pub(super) fn device(
        &mut self,
        record: &Record,
        device: &decode::Device,
        out: &mut Vec<Event>,
    ) {
        let process = self.process(record.process, record.time);
        let letters = [(2, 'r'), (4, 'w'), (1, 'm')];
        let body = event::Device {
            class: match device.class {
                DeviceClass::Character => "character",
                DeviceClass::Block => "block",
            },
            major: device.major,
            minor: device.minor,
            access: letters
                .iter()
                .filter(|(bit, _)| device.access & bit != 0)
                .map(|(_, letter)| letter)
                .collect(),
            name: self.devices.name(device.class, device.major, device.minor),
            result: if device.refused {
                "refused"
            } else {
                "attempted"
            },
        };
        let finding = body.name.as_ref().filter(|_| body.class == "character");
        let finding = finding.and_then(|name| {
            let pools = &mut self.detectors.pools;
            let (agent, time) = (record.agent, record.time);
            let (of, key) = (process.as_ref(), record.process);
            pool_shape::registers(agent, of, key, name, &body.access, time)
                .or_else(|| pools.device(agent, name, time))
        });
        let body = event::Body::Device(body);
        let id = self.emit(record.agent, record.time, process, body, out);
        if let Some(finding) = finding {
            self.find(&finding, &[id], out);
        }
    }

    pub(super) fn sysctl(
        &mut self,
        record: &Record,
        sysctl: &decode::Sysctl,
        out: &mut Vec<Event>,
    ) {
        let process = self.process(record.process, record.time);
        let (agent, time) = (record.agent, record.time);
        let finding = huge_pages::reserves(agent, process.as_ref(), record.process, sysctl, time);
        let body = event::Body::Sysctl(event::Sysctl {
            name: sysctl.name.clone(),
            value: sysctl.value.clone(),
            value_truncated: sysctl.truncated,
        });
        let id = self.emit(agent, time, process, body, out);
        if let Some(finding) = finding {
            self.find(&finding, &[id], out);
        }
    }

    /// Agents of which [`Pipeline::used`] should be told every few seconds.
    pub fn suspects(&self) -> Vec<u64> {
        self.detectors.pools.suspects().collect()
    }

    /// An agent's cgroup has used this many nanoseconds of processor time so far.
    pub fn used(&mut self, agent: u64, nanoseconds: u64, time: u64, out: &mut Vec<Event>) {
        let finding = self.detectors.pools.used(agent, nanoseconds, time);
        if let Some(finding) = finding {
            self.find(&finding, &[], out);
        }
    }

    /// Bytes of huge pages from which on [`Pipeline::holds`] should be told what a process
    /// holds, every few seconds.
    pub fn many_huge_pages(&self) -> u64 {
        self.detectors.holders.least()
    }

    /// Whether it should be told of this process in any case: it was, and has not been told
    /// of less since. Without a process, of any.
    pub fn follows_holder(&self, process: Option<ProcessKey>) -> bool {
        let holders = &self.detectors.holders;
        process.map_or(!holders.is_empty(), |process| holders.follows(process))
    }

    /// A process of an agent holds so many huge pages.
    pub fn holds(&mut self, holding: &Holding, out: &mut Vec<Event>) {
        let Self {
            detectors,
            processes,
            ..
        } = self;
        let who = || known(processes, holding.process, holding.time);
        if let Some(finding) = detectors.holders.holds(holding, who) {
            self.find(&finding, &[], out);
        }
    }
}

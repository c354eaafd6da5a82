//! What agents work with: devices, and processor time.

use super::Pipeline;
use crate::decode::{self, DeviceClass, Record};
use crate::detect::pool_shape;
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
}

//! What a table of processes takes in memory, estimated. What several of them
//! share counts once.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::{Ancestor, Process};

/// Bytes of a process without what it may share: the struct, and its places in
/// the maps of the table and of the footprint, which are up to half empty.
pub const ENTRY_BYTES: usize = 384;
/// Bytes that an allocation takes besides its contents.
const ALLOCATION_BYTES: usize = 16;

/// Something that may be shared: its address, which nothing else has while it is
/// held, and its bytes.
pub type Share = (usize, usize);

/// Estimated bytes of the processes that were added and not removed.
#[derive(Debug, Default)]
pub struct Footprint {
    bytes: usize,
    /// How many hold what is at an address.
    holders: HashMap<usize, u32>,
}

impl Footprint {
    /// The estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a process.
    pub fn add(&mut self, process: &Process) {
        self.bytes += ENTRY_BYTES + process.comm.len();
        for share in shares(process) {
            self.hold(share);
        }
    }

    /// Removes a process that was added, unchanged.
    pub fn remove(&mut self, process: &Process) {
        self.bytes -= ENTRY_BYTES + process.comm.len();
        for share in shares(process) {
            self.release(share);
        }
    }

    /// Adds one who holds something.
    pub fn hold(&mut self, (address, bytes): Share) {
        let holders = self.holders.entry(address).or_default();
        if *holders == 0 {
            self.bytes += bytes;
        }
        *holders += 1;
    }

    /// Removes one who held something.
    pub fn release(&mut self, (address, bytes): Share) {
        if let Some(holders) = self.holders.get_mut(&address) {
            *holders -= 1;
            if *holders == 0 {
                self.holders.remove(&address);
                self.bytes -= bytes;
            }
        }
    }
}

/// A lineage, as something to share.
pub fn lineage(ancestors: &Arc<[Ancestor]>) -> Share {
    let each = ancestors.iter().map(|ancestor| {
        let exe = ancestor.exe.as_ref().map_or(0, |exe| exe.len());
        size_of::<Ancestor>() + ALLOCATION_BYTES + ancestor.comm.len() + exe
    });
    (address(ancestors), each.sum())
}

fn shares(process: &Process) -> impl Iterator<Item = Share> {
    let argv = process
        .argv
        .iter()
        .map(|argument| size_of::<String>() + ALLOCATION_BYTES + argument.len());
    let argv = (address(&process.argv), argv.sum());
    let exe = process
        .exe
        .as_ref()
        .map(|exe| (address(exe), ALLOCATION_BYTES + exe.len()));
    [argv, lineage(&process.ancestors)].into_iter().chain(exe)
}

fn address<T: ?Sized>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).cast::<()>().addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(argv: &Arc<[String]>) -> Process {
        Process {
            comm: "sh".into(),
            exe: Some("/bin/sh".into()),
            argv: argv.clone(),
            ..Process::default()
        }
    }

    #[test]
    fn what_is_shared_counts_once_and_until_its_last_holder_is_gone() {
        let argv: Arc<[String]> = [String::from("x"), "y".repeat(1_000)].into();
        let (one, other) = (process(&argv), process(&argv));
        let mut footprint = Footprint::default();
        footprint.add(&one);
        let alone = footprint.bytes();
        assert!(alone > ENTRY_BYTES + 1_000);
        footprint.add(&other);
        assert!(footprint.bytes() < alone + ENTRY_BYTES + 100);
        footprint.remove(&one);
        assert_eq!(footprint.bytes(), alone);
        footprint.remove(&other);
        assert_eq!((footprint.bytes(), footprint.holders.len()), (0, 0));
    }

    #[test]
    fn an_empty_argument_counts_with_what_it_takes() {
        let argv: Arc<[String]> = vec![String::new(); 256].into();
        let mut footprint = Footprint::default();
        footprint.add(&process(&argv));
        assert!(footprint.bytes() > 256 * size_of::<String>());
    }
}

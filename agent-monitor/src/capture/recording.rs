//! Recordings, format version 1: what the kernel sent, to look at again later.
//!
//! ```text
//! file  = "AGMR" version:u32 frame*
//! frame = length:u32 crc32:u32 type:u32 payload[length]
//! ```
//! Integers are little-endian; the CRC-32 (IEEE 802.3) is over type and
//! payload. The first frame is a [`About`] as JSON, agents come as JSON when
//! they are first seen and when more is known of them, what a suspected agent used
//! is a [`Usage`] in three u64, a process's huge pages are a [`Holding`] in six, and the
//! rest are records as the kernel wrote them (`agent_monitor_common::event`), in order
//! of time.

#![forbid(unsafe_code)]

mod looks;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use looks::{Holding, Usage};

use super::payload;
use crate::event::{Agent, Container, Pod};

/// What every recording begins with.
pub const MAGIC: &[u8; 4] = b"AGMR";
const VERSION: u32 = 1;
/// No frame is longer: the largest record is below 8 KiB.
const MAX_FRAME: u32 = 64 << 10;

const ABOUT: u32 = 0;
const RECORD: u32 = 1;
const AGENT: u32 = 2;
const USAGE: u32 = 3;
const HOLDING: u32 = 4;

/// Where and when a recording was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Node name.
    pub node: String,
    /// Kernel release.
    pub kernel: String,
    /// Nanoseconds from the Unix epoch to boot.
    pub boot_epoch: u64,
}

/// An agent in a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedAgent {
    /// Cgroup id of its topmost cgroup.
    pub cgroup_id: u64,
    /// Container id, or the cgroup's.
    pub id: String,
    /// Name.
    pub name: String,
    /// Path below the cgroup2 mount.
    pub cgroup: String,
    /// Its container, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The container's labels, which its JSON leaves out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

impl RecordedAgent {
    /// An agent as it is known now.
    pub fn new(cgroup_id: u64, agent: &Agent) -> Self {
        let labels = agent.container.as_ref().map(|it| it.labels.clone());
        Self {
            cgroup_id,
            id: agent.id.clone(),
            name: agent.name.clone(),
            cgroup: agent.cgroup.clone(),
            container: agent.container.clone(),
            labels: labels.unwrap_or_default(),
            pod: agent.pod.clone(),
        }
    }
}

impl From<RecordedAgent> for Agent {
    fn from(recorded: RecordedAgent) -> Self {
        let container = recorded.container.map(|container| Container {
            labels: recorded.labels,
            ..container
        });
        Self {
            id: recorded.id,
            name: recorded.name,
            cgroup: recorded.cgroup,
            cgroup_id: recorded.cgroup_id,
            container,
            pod: recorded.pod,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A record of the kernel's.
    Record(Bytes),
    /// An agent that later records belong to, or what is known of it by now.
    Agent(Box<RecordedAgent>),
    /// What an agent has used.
    Usage(Usage),
    /// What a process holds of huge pages.
    Holding(Holding),
}

/// Why a recording cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not a recording, or of another version.
    #[error("this is not a recording of agent-monitor (version {VERSION})")]
    NotARecording,
    /// Damage.
    #[error("the recording is damaged at byte {0}")]
    Damaged(u64),
}

/// Makes a new file that only its owner can read and write. A file of this user's
/// that was there is removed, not written over: others may be able to read it, or
/// have it open.
///
/// # Errors
/// What was there is a link, no regular file, or another user's; it stays as it
/// is. Or the directory cannot be written to.
pub fn create(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(old) if old.is_file() && old.uid() == rustix::process::geteuid().as_raw() => {
            fs::remove_file(path)?;
        }
        Ok(_) => {
            let why = "it exists and is not a regular file of this user's; name another";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // O_EXCL follows no link that came in between (open(2)).
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// What a recording may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the file.
    pub size: u64,
    /// Whether what agents said is kept, as far as it was captured.
    pub payload: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            size: u64::MAX,
            payload: true,
        }
    }
}

/// Writes a recording.
pub struct Writer<W: Write> {
    to: W,
    bounds: Bounds,
    written: u64,
    is_full: bool,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// Writing failed.
    pub fn new(mut to: W, about: &About, bounds: Bounds) -> io::Result<Self> {
        to.write_all(MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        let mut writer = Self {
            to,
            bounds,
            written: 8,
            is_full: false,
        };
        writer.frame(ABOUT, &serde_json::to_vec(about)?)?;
        Ok(writer)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// Writing failed.
    pub fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        match payload::removed(bytes) {
            Some(removed) if !self.bounds.payload => self.frame(RECORD, &removed),
            _ => self.frame(RECORD, bytes),
        }
    }

    /// Whether something did not fit: the recording ended before it.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Adds an agent.
    ///
    /// # Errors
    /// Writing failed.
    pub fn agent(&mut self, agent: &RecordedAgent) -> io::Result<()> {
        let json = serde_json::to_vec(agent)?;
        self.frame(AGENT, &json)
    }

    /// Adds what an agent has used.
    ///
    /// # Errors
    /// Writing failed.
    pub fn usage(&mut self, usage: Usage) -> io::Result<()> {
        self.frame(USAGE, usage.to_bytes().as_flattened())
    }

    /// Adds what a process holds of huge pages.
    ///
    /// # Errors
    /// Writing failed.
    pub fn holding(&mut self, holding: &Holding) -> io::Result<()> {
        self.frame(HOLDING, holding.to_bytes().as_flattened())
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// Writing failed.
    pub fn finish(mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn frame(&mut self, kind: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let size = self.written + 12 + u64::from(length);
        self.is_full |= size > self.bounds.size;
        if self.is_full {
            return Ok(());
        }
        self.written = size;
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(&checksum(kind, payload).to_le_bytes())?;
        self.to.write_all(&kind.to_le_bytes())?;
        self.to.write_all(payload)
    }
}

/// Reads a recording, frame by frame.
pub struct Reader<R: Read> {
    from: R,
    at: u64,
    /// Where and when it was made.
    pub about: About,
}

impl<R: Read> Reader<R> {
    /// Opens a recording.
    ///
    /// # Errors
    /// It is none, or damaged.
    pub fn new(mut from: R) -> Result<Self, Error> {
        let mut start = [0; 8];
        from.read_exact(&mut start)
            .map_err(|_| Error::NotARecording)?;
        if start[..4] != *MAGIC || start[4..] != VERSION.to_le_bytes() {
            return Err(Error::NotARecording);
        }
        let mut at = 8;
        let Some((ABOUT, payload)) = frame(&mut from, &mut at)? else {
            return Err(Error::Damaged(8));
        };
        let about = serde_json::from_slice(&payload).map_err(|_| Error::Damaged(8))?;
        Ok(Self { from, at, about })
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Frame, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let begin = self.at;
        let (kind, payload) = match frame(&mut self.from, &mut self.at) {
            Ok(frame) => frame?,
            Err(error) => return Some(Err(error)),
        };
        Some(match kind {
            RECORD => Ok(Frame::Record(payload)),
            AGENT => serde_json::from_slice(&payload)
                .map(Frame::Agent)
                .map_err(|_| Error::Damaged(begin)),
            USAGE => Usage::from_bytes(&payload)
                .map(Frame::Usage)
                .ok_or(Error::Damaged(begin)),
            HOLDING => Holding::from_bytes(&payload)
                .map(Frame::Holding)
                .ok_or(Error::Damaged(begin)),
            _ => Err(Error::Damaged(begin)),
        })
    }
}

/// Reads one frame; nothing at the end of the file.
fn frame(from: &mut impl Read, at: &mut u64) -> Result<Option<(u32, Bytes)>, Error> {
    let begin = *at;
    let mut head = [0; 12];
    match from.read(&mut head[..1])? {
        0 => return Ok(None),
        _ => from
            .read_exact(&mut head[1..])
            .map_err(|_| Error::Damaged(begin))?,
    }
    let word = |n: usize| u32::from_le_bytes([head[n], head[n + 1], head[n + 2], head[n + 3]]);
    let (length, crc, kind) = (word(0), word(4), word(8));
    if length > MAX_FRAME {
        return Err(Error::Damaged(begin));
    }
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload)
        .map_err(|_| Error::Damaged(begin))?;
    if checksum(kind, &payload) != crc {
        return Err(Error::Damaged(begin));
    }
    *at += 12 + u64::from(length);
    Ok(Some((kind, payload.into())))
}

fn checksum(kind: u32, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&kind.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::ProcessKey;
    use std::os::unix::fs::PermissionsExt as _;

    fn agent() -> Agent {
        Agent {
            id: "7".into(),
            name: "a".into(),
            cgroup: "/a".into(),
            cgroup_id: 7,
            container: Some(Container {
                id: "c".into(),
                image: Some("image".into()),
                labels: [("team".to_owned(), "x".to_owned())].into(),
                ..Container::default()
            }),
            pod: Some(Pod {
                namespace: "n".into(),
                name: "p".into(),
            }),
        }
    }

    fn recording() -> Vec<u8> {
        let about = About {
            node: "n".into(),
            kernel: "6.1".into(),
            boot_epoch: 5,
        };
        let agent = RecordedAgent::new(7, &agent());
        let mut bytes = Vec::new();
        let mut writer =
            Writer::new(&mut bytes, &about, Bounds::default()).expect("a Vec takes all");
        writer.agent(&agent).expect("a Vec takes all");
        writer.record(b"one").expect("a Vec takes all");
        writer.record(b"two").expect("a Vec takes all");
        writer.finish().expect("a Vec takes all");
        bytes
    }

    #[test]
    fn only_the_owner_can_read_a_recording_even_where_others_could_read_an_older_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.agmr");
        fs::write(&path, "old").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        let mut reader = File::open(&path).expect("it can be read");
        let mut file = create(&path).expect("it is ours");
        file.write_all(b"new").expect("it can be written");
        let new = fs::metadata(&path).expect("it is there");
        assert_eq!((new.mode() & 0o7777, new.len()), (0o600, 3));
        let mut seen = String::new();
        reader.read_to_string(&mut seen).expect("it can be read");
        assert_eq!(seen, "old");
    }

    #[test]
    fn a_link_or_what_is_no_regular_file_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "kept").expect("a file");
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        for path in [link.as_path(), dir.path(), Path::new("/dev/null")] {
            let error = create(path).expect_err("it is no regular file");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{path:?}");
        }
        assert_eq!(fs::read(&target).expect("it is there"), b"kept");
        assert!(link.is_symlink());
    }

    #[test]
    fn what_an_agent_used_is_read_as_it_was_written() {
        let about = About {
            node: "n".into(),
            kernel: "6.1".into(),
            boot_epoch: 5,
        };
        let usage = Usage {
            agent: 7,
            time: u64::MAX,
            used: 9,
        };
        let mut bytes = Vec::new();
        let mut writer =
            Writer::new(&mut bytes, &about, Bounds::default()).expect("a Vec takes all");
        writer.usage(usage).expect("a Vec takes all");
        writer.frame(USAGE, &[0; 23]).expect("a Vec takes all");
        let mut reader = Reader::new(&bytes[..]).expect("a recording");
        assert!(matches!(reader.next(), Some(Ok(Frame::Usage(read))) if read == usage));
        assert!(matches!(reader.next(), Some(Err(Error::Damaged(_)))));
    }

    #[test]
    fn what_a_process_holds_is_read_as_it_was_written() {
        let about = About {
            node: "n".into(),
            kernel: "6.1".into(),
            boot_epoch: 5,
        };
        let process = ProcessKey { pid: 5, start: 6 };
        let holding = Holding {
            agent: 7,
            process,
            time: u64::MAX,
            held: 8,
            used: 9,
        };
        let mut bytes = Vec::new();
        let mut writer =
            Writer::new(&mut bytes, &about, Bounds::default()).expect("a Vec takes all");
        writer.holding(&holding).expect("a Vec takes all");
        writer.frame(HOLDING, &[0; 47]).expect("a Vec takes all");
        writer.frame(HOLDING, &[0xff; 48]).expect("a Vec takes all");
        let mut reader = Reader::new(&bytes[..]).expect("a recording");
        assert!(matches!(reader.next(), Some(Ok(Frame::Holding(read))) if read == holding));
        for _ in ["too short", "no process has that id"] {
            assert!(matches!(reader.next(), Some(Err(Error::Damaged(_)))));
        }
    }

    #[test]
    fn a_recording_ends_before_what_does_not_fit() {
        let about = About {
            node: "n".into(),
            kernel: "6.1".into(),
            boot_epoch: 5,
        };
        let written = |size| {
            let bounds = Bounds {
                size,
                payload: true,
            };
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, &about, bounds).expect("a Vec takes all");
            for record in [&b"a record"[..], &[b'x'; 40], b"a"] {
                writer.record(record).expect("a Vec takes all");
            }
            (writer.is_full(), bytes)
        };
        let (_, whole) = written(u64::MAX);
        for size in 8..=whole.len() {
            let (is_full, bytes) = written(size as u64);
            assert_eq!(is_full, size < whole.len(), "{size}");
            assert!(bytes.len() <= size && whole.starts_with(&bytes), "{size}");
            if let Ok(reader) = Reader::new(&bytes[..]) {
                reader.for_each(|frame| drop(frame.expect("every frame is whole")));
            }
        }
    }

    #[test]
    fn reads_back_what_was_written() {
        let bytes = recording();
        let reader = Reader::new(&bytes[..]).expect("it is a recording");
        assert_eq!(reader.about.boot_epoch, 5);
        let frames: Vec<Frame> = reader.map(|frame| frame.expect("it is whole")).collect();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2], Frame::Record(Bytes::from_static(b"two")));
        let Frame::Agent(read) = &frames[0] else {
            panic!("{frames:?}");
        };
        // Labels and all: rules may make exceptions of them.
        assert_eq!(Agent::from((**read).clone()), agent());
    }

    #[test]
    fn reports_damage_wherever_a_byte_is_changed() {
        let whole = recording();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x41;
            let outcome =
                Reader::new(&bytes[..]).map(|reader| reader.collect::<Result<Vec<_>, _>>());
            assert!(
                !matches!(outcome, Ok(Ok(_))),
                "a changed byte {place} went unnoticed"
            );
        }
    }

    #[test]
    fn gives_whole_frames_before_a_cut() {
        let whole = recording();
        let frames: Vec<_> = Reader::new(&whole[..whole.len() - 1])
            .expect("the start is there")
            .collect();
        assert!(matches!(frames[..], [Ok(_), Ok(_), Err(Error::Damaged(_))]));
    }
}

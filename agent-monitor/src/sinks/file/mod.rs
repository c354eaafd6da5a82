//! Lines appended to a file: one alert a line.
//!
//! A batch is written and synced before the cursor moves. After a crash between
//! the two the last batch is written again: its lines appear twice.
//!
//! What a full disk took of a batch is taken back. A line that a crash or a power
//! cut left without its end is cut off when the file is next opened: the cursor
//! is still before that alert, so it follows whole. Every line of the file is
//! thus a whole alert.
//!
//! The file is created with mode 0600 (alerts quote what agents did). When it is
//! renamed or removed, as logrotate does, the next batch begins a new one, and SIGHUP
//! lets go of the old one at once. Or it is rotated by the sink itself: see [`rotate`].

mod rotate;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use super::{Sink, SinkError};
use crate::config::{FileConfig, Format, RotateConfig};
use crate::store::Record;

/// How much is read at a time to find the end of the last whole line.
const BLOCK: u64 = 64 * 1024;

/// Appends to a file.
pub struct FileSink {
    path: PathBuf,
    format: Format,
    rotate: RotateConfig,
    file: Option<File>,
    /// Compresses earlier files meanwhile.
    tidying: Option<JoinHandle<()>>,
}

impl FileSink {
    /// A sink that appends to a file, which is opened on the first delivery.
    pub fn new(config: &FileConfig) -> Self {
        Self {
            path: config.path.clone(),
            format: config.format,
            rotate: config.rotate,
            file: None,
            tidying: None,
        }
    }

    /// Sees to earlier files, unless that is being done.
    fn tidy(&mut self) {
        if self.tidying.as_ref().is_some_and(|it| !it.is_finished()) {
            return;
        }
        let (path, rotate) = (self.path.clone(), self.rotate);
        // A thread of its own: the end of the daemon does not wait for it.
        let begun = thread::Builder::new().name("rotation".to_owned()).spawn(move || {
            if let Err(error) = rotate::tidy(&path, &rotate) {
                tracing::warn!(
                    file = %path.display(), %error,
                    "earlier files could not all be compressed or deleted; the next rotation tries again"
                );
            }
        });
        self.tidying = begun.ok();
    }
}

impl Sink for FileSink {
    async fn deliver(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        let mut lines =
            String::with_capacity(batch.iter().map(|record| record.json.len() + 1).sum());
        for record in batch {
            lines.push_str(&self.format.line(&record.json));
            lines.push('\n');
        }
        let path = self.path.clone();
        // On an error the file is dropped and opened anew.
        let file = self.file.take();
        let (rotate, first) = (self.rotate, file.is_none());
        let append = move || append(&path, file, lines.as_bytes(), &rotate);
        let written = tokio::task::spawn_blocking(append)
            .await
            .map_err(|error| SinkError::Unavailable(format!("writing was cut short: {error}")))?;
        let (file, rotated) = written.map_err(|error| {
            SinkError::Unavailable(format!(
                "cannot write to {}: {error}; check the folder, its permissions and its free space",
                self.path.display()
            ))
        })?;
        self.file = Some(file);
        let rotates = self.rotate.size.is_some() || self.rotate.age.is_some();
        if rotated || (first && rotates) {
            self.tidy();
        }
        Ok(())
    }

    fn reopen(&mut self) {
        self.file = None;
    }
}

/// Appends to the file, or to a new one where that is due. Gives the file, and whether
/// it is a new one.
fn append(
    path: &Path,
    file: Option<File>,
    lines: &[u8],
    rotate: &RotateConfig,
) -> io::Result<(File, bool)> {
    let mut file = match file {
        Some(file) if is_still_at(path, &file) => file,
        _ => open(path)?,
    };
    let rotated = rotate::is_due(rotate, &file.metadata()?, lines.len(), SystemTime::now());
    if rotated {
        rotate::aside(path)?;
        file = open(path)?;
    }
    let before = file.metadata()?.len();
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // The batch comes again whole. Where this fails too, opening anew mends the
        // last line, and the lines before it are there twice.
        let _ = file.set_len(before);
        return Err(error);
    }
    Ok((file, rotated))
}

fn is_still_at(path: &Path, file: &File) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    cut_partial_line(path, &mut file)?;
    // So that a power cut does not take the new name away.
    rotate::sync_folder(path)?;
    Ok(file)
}

fn cut_partial_line(path: &Path, file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let whole = end_of_last_line(file, length)?;
    if whole < length {
        tracing::warn!(
            file = %path.display(), bytes = length - whole,
            "the last line has no end: it was cut off, its alert follows whole"
        );
        file.set_len(whole)?;
    }
    Ok(())
}

fn end_of_last_line(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        (&*file).take(end - start).read_to_end(&mut block)?;
        if let Some(index) = memchr::memrchr(b'\n', &block) {
            // An index in a block of at most 64 KiB.
            return Ok(start + index as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

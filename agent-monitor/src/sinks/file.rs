//! NDJSON appended to a file: one alert a line.
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
//! renamed or removed, as log rotation does, the next batch begins a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{Sink, SinkError};
use crate::config::{FileConfig, Format};
use crate::store::Record;

/// How much is read at a time to find the end of the last whole line.
const BLOCK: u64 = 64 * 1024;

/// Appends to a file.
pub struct FileSink {
    path: PathBuf,
    format: Format,
    file: Option<File>,
}

impl FileSink {
    /// A sink that appends to a file, which is opened on the first delivery.
    pub fn new(config: &FileConfig) -> Self {
        Self {
            path: config.path.clone(),
            format: config.format,
            file: None,
        }
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
        let written = tokio::task::spawn_blocking(move || append(&path, file, lines.as_bytes()))
            .await
            .map_err(|error| SinkError::Unavailable(format!("writing was cut short: {error}")))?;
        let file = written.map_err(|error| {
            SinkError::Unavailable(format!(
                "cannot write to {}: {error}; check the folder, its permissions and its free space",
                self.path.display()
            ))
        })?;
        self.file = Some(file);
        Ok(())
    }
}

fn append(path: &Path, file: Option<File>, lines: &[u8]) -> io::Result<File> {
    let mut file = match file {
        Some(file) if is_still_at(path, &file) => file,
        _ => open(path)?,
    };
    let before = file.metadata()?.len();
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // The batch comes again whole. Where this fails too, opening anew mends the
        // last line, and the lines before it are there twice.
        let _ = file.set_len(before);
        return Err(error);
    }
    Ok(file)
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
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        File::open(folder)?.sync_all()?;
    }
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

//! Where rules are read from: the pack in the binary, and directories.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::problem::{Problems, Source};
use super::yaml::MAX_BYTES;

/// Files of one directory and those below.
const MAX_FILES: usize = 20_000;
/// Bytes of all files together: all of SigmaHQ's rules for Linux have less than one
/// megabyte. Values that are as short as can be take some 25 times as much memory.
const MAX_TOTAL: usize = 16 << 20;
/// Deepest directory.
const MAX_DEPTH: usize = 16;

/// The YAML files of a directory and those below it, by name. Links to
/// directories are not followed.
pub fn read(dir: &Path, problems: &mut Problems) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(dir, 0, &mut paths, problems);
    paths.sort();
    let mut sources = Vec::new();
    let mut total = 0;
    for path in paths {
        match read_file(&path) {
            Ok(text) => {
                total += text.len();
                if total > MAX_TOTAL {
                    let message = format!("the rules have more than {MAX_TOTAL} bytes together");
                    tell(&path, message, problems);
                    break;
                }
                sources.push(Source::new(&path, text));
            }
            Err(message) => tell(&path, message, problems),
        }
    }
    sources
}

fn tell(path: &Path, message: String, problems: &mut Problems) {
    let empty = Source::new(path, String::new());
    problems.add(&empty, &(0..0), message, None);
}

fn collect(dir: &Path, depth: usize, paths: &mut Vec<PathBuf>, problems: &mut Problems) {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return tell(dir, format!("cannot be read: {error}"), problems),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                tell(dir, format!("cannot be read: {error}"), problems);
                continue;
            }
        };
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let yaml = path
            .extension()
            .is_some_and(|it| it == "yaml" || it == "yml");
        if hidden || (!is_dir && !yaml) {
            continue;
        }
        if paths.len() >= MAX_FILES || depth >= MAX_DEPTH {
            let message =
                format!("more than {MAX_FILES} files or {MAX_DEPTH} levels of directories");
            return tell(dir, message, problems);
        }
        match is_dir {
            true => collect(&path, depth + 1, paths, problems),
            false => paths.push(path),
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // A pipe that nobody writes to would keep open() waiting, and a device the reader.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err("is no file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() > MAX_BYTES {
        return Err(format!(
            "has more than the {MAX_BYTES} bytes that are read of a file"
        ));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

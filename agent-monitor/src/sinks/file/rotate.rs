//! Rotation: a file that is large or old enough is renamed, those before it are
//! compressed, and the oldest deleted.
//!
//! An earlier file is named `PATH.20300102T030405.000006Z`, with `.gz` once it is
//! compressed: the time of its end, in UTC, so that names sort as the files followed.
//! Nothing but files with such names is ever touched. Compression writes and syncs
//! `….gz.partial` before it takes the name `….gz` and only then removes what it read: after
//! a crash between any two steps the next round ends what this one began, and no
//! line is lost.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::RotateConfig;

/// The time in a name.
const TIME: &str = "%Y%m%dT%H%M%S%.6fZ";
/// What compression ends with.
const COMPRESSED: &str = ".gz";
/// What it has not ended.
const PARTIAL: &str = ".gz.partial";

/// Whether a file has to make room for a new one before `more` bytes are appended.
pub(super) fn is_due(config: &RotateConfig, file: &Metadata, more: usize, now: SystemTime) -> bool {
    let length = file.len();
    if length == 0 {
        return false;
    }
    let more = u64::try_from(more).unwrap_or(u64::MAX);
    let large = |size: u64| length.saturating_add(more) > size;
    // Where the file system knows no birth, the last line is the best that it knows.
    let begun = file.created().or_else(|_| file.modified());
    let age = begun.ok().and_then(|begun| now.duration_since(begun).ok());
    config.size.is_some_and(|size| large(size.0))
        || config
            .age
            .is_some_and(|most| age.is_some_and(|age| age >= most.0))
}

/// Renames the file at `path`.
pub(super) fn aside(path: &Path) -> io::Result<()> {
    loop {
        let time = jiff::Timestamp::now().strftime(TIME).to_string();
        let name = beside(path, &format!(".{time}"));
        if !name.try_exists()? && !beside(&name, COMPRESSED).try_exists()? {
            return fs::rename(path, name);
        }
    }
}

/// Deletes earlier files beyond those to keep, and compresses the others.
pub(super) fn tidy(path: &Path, config: &RotateConfig) -> io::Result<()> {
    let mut times = Vec::new();
    for name in earlier(path)? {
        if name.partial {
            fs::remove_file(beside(path, &format!(".{}{PARTIAL}", name.time)))?;
        } else {
            times.push(name.time);
        }
    }
    times.sort();
    times.dedup();
    let keep = usize::try_from(config.keep.get()).unwrap_or(usize::MAX);
    let kept = times.split_off(times.len().saturating_sub(keep));
    for time in times {
        let plain = beside(path, &format!(".{time}"));
        for file in [beside(&plain, COMPRESSED), plain] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    if config.gzip {
        for time in kept {
            compress(&beside(path, &format!(".{time}")))?;
        }
    }
    Ok(())
}

fn compress(plain: &Path) -> io::Result<()> {
    let mut from = match File::open(plain) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let compressed = beside(plain, COMPRESSED);
    if !compressed.try_exists()? {
        let partial = beside(plain, PARTIAL);
        let to = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)?;
        let mut encoder = GzEncoder::new(to, Compression::default());
        let written = io::copy(&mut from, &mut encoder).and_then(|_| encoder.finish()?.sync_all());
        if let Err(error) = written {
            // A full disk gets its room back.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        fs::rename(&partial, &compressed)?;
        sync_folder(plain)?;
    }
    fs::remove_file(plain)
}

/// Makes names in the file's folder last through a power cut.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// The name of an earlier file.
struct Earlier {
    time: String,
    partial: bool,
}

fn earlier(path: &Path) -> io::Result<Vec<Earlier>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    let Some(name) = name.to_str() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?.file_name();
        let rest = entry.to_str().and_then(|entry| entry.strip_prefix(name));
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        let partial = rest.strip_suffix(PARTIAL);
        let time = partial
            .or_else(|| rest.strip_suffix(COMPRESSED))
            .unwrap_or(rest);
        if is_time(time) {
            found.push(Earlier {
                time: time.to_owned(),
                partial: partial.is_some(),
            });
        }
    }
    Ok(found)
}

/// Whether it is as [`TIME`] writes it.
fn is_time(text: &str) -> bool {
    let pattern = "00000000T000000.000000Z";
    text.len() == pattern.len()
        && text
            .chars()
            .zip(pattern.chars())
            .all(|(c, like)| match like {
                '0' => c.is_ascii_digit(),
                like => c == like,
            })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::config::{Size, Span};

    fn config(keep: u32) -> RotateConfig {
        RotateConfig {
            size: Some(Size(100)),
            keep: NonZeroU32::new(keep).unwrap(),
            ..RotateConfig::default()
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_due_when_it_would_be_too_large_or_is_too_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = File::create(&path).unwrap();
        let now = SystemTime::now();
        let due = |config: &RotateConfig, more, now| {
            is_due(config, &fs::metadata(&path).unwrap(), more, now)
        };
        assert!(!due(&config(1), 1000, now), "an empty file has room");
        file.write_all(&[b'x'; 60]).unwrap();
        assert!(!due(&config(1), 40, now));
        assert!(due(&config(1), 41, now));
        let old = RotateConfig {
            age: Some(Span(Duration::from_secs(3600))),
            ..RotateConfig::default()
        };
        assert!(!due(&old, 1000, now));
        assert!(due(&old, 1, now + Duration::from_secs(3601)));
        assert!(!due(
            &RotateConfig::default(),
            1000,
            now + Duration::from_secs(1 << 30)
        ));
    }

    #[test]
    fn a_round_that_a_crash_cut_short_is_ended_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ndjson");
        let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        // Compressed, and not yet removed; half compressed; not begun; too many.
        file("a.ndjson.20300102T000003.000000Z", "three");
        file("a.ndjson.20300102T000003.000000Z.gz", "is there");
        file("a.ndjson.20300102T000004.000000Z", "four");
        file("a.ndjson.20300102T000004.000000Z.gz.partial", "fo");
        file("a.ndjson.20300102T000002.000000Z.gz", "two");
        file("a.ndjson.20300102T000001.000000Z", "one");
        // Not ours.
        for other in [
            "a.ndjson",
            "a.ndjson.1",
            "a.ndjson.20300102T000001.gz",
            "b.20300102T000001.000000Z",
        ] {
            file(other, "kept");
        }
        tidy(&path, &config(2)).unwrap();
        assert_eq!(
            names(folder.path()),
            [
                "a.ndjson",
                "a.ndjson.1",
                "a.ndjson.20300102T000001.gz",
                "a.ndjson.20300102T000003.000000Z.gz",
                "a.ndjson.20300102T000004.000000Z.gz",
                "b.20300102T000001.000000Z",
            ]
        );
        let four = File::open(folder.path().join("a.ndjson.20300102T000004.000000Z.gz")).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(four)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "four");
    }
}

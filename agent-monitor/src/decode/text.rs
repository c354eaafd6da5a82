//! Bytes of kernel strings → text. Bytes that are not UTF-8 become U+FFFD; what
//! is dangerous to show is escaped where it is shown.

use std::sync::Arc;

/// Arguments that are kept of a program. Each takes tens of bytes however short
/// it is, so thousands of empty ones would take far more than their own bytes.
pub const MAX_ARGUMENTS: usize = 256;

/// The bytes before the first NUL.
pub fn until_nul(bytes: &[u8]) -> String {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    lossy(&bytes[..end])
}

/// The first [`MAX_ARGUMENTS`] of arguments as they lie in memory, and whether
/// there were more. Each ends with a NUL, the last perhaps not.
pub fn arguments(bytes: &[u8]) -> (Arc<[String]>, bool) {
    let mut parts = parts(bytes).map(lossy);
    let kept = parts.by_ref().take(MAX_ARGUMENTS).collect();
    (kept, parts.next().is_some())
}

/// A path whose components come with a NUL after each, the last one first.
pub fn path_from_leaf(bytes: &[u8]) -> String {
    let components: Vec<_> = parts(bytes).collect();
    let mut path = String::new();
    for component in components.into_iter().rev() {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(component));
    }
    path
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What lies between NULs. Of no bytes there are no parts, not an empty one.
fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    (!bytes.is_empty())
        .then(|| whole.split(|byte| *byte == 0))
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_may_be_empty_and_the_last_may_be_cut() {
        for (bytes, expected) in [
            (&b"a\0\0b\0"[..], &["a", "", "b"][..]),
            (b"a\0b", &["a", "b"]),
            (b"\0", &[""]),
            (b"", &[]),
            (b"\xff\0", &["\u{fffd}"]),
        ] {
            let (argv, more) = arguments(bytes);
            assert_eq!((&argv[..] == expected, more), (true, false), "{argv:?}");
        }
    }

    #[test]
    fn keeps_256_arguments_and_tells_that_there_were_more() {
        let (argv, more) = arguments(&[0; MAX_ARGUMENTS]);
        assert_eq!((argv.len(), more), (MAX_ARGUMENTS, false));
        let (argv, more) = arguments(&[0; 4095]);
        assert_eq!((argv.len(), more), (MAX_ARGUMENTS, true));
    }

    #[test]
    fn a_path_keeps_its_root_however_many_components_it_has() {
        let path = path_from_leaf(&b"x\0".repeat(300));
        assert_eq!(path, "/x".repeat(300));
        assert_eq!(path_from_leaf(b"ssh\0bin\0"), "/bin/ssh");
        assert_eq!(path_from_leaf(b""), "");
    }
}

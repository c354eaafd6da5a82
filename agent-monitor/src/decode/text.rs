//! Bytes of kernel strings → text. Bytes that are not UTF-8 become U+FFFD; what
//! is dangerous to show is escaped where it is shown.

/// The bytes before the first NUL.
pub fn until_nul(bytes: &[u8]) -> String {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Arguments with a NUL after each. The last may be cut.
pub fn arguments(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes
        .split(|byte| *byte == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

/// A path whose components come with a NUL after each, the last one first.
pub fn path_from_leaf(bytes: &[u8]) -> String {
    let mut path = String::new();
    for component in arguments(bytes).iter().rev() {
        path.push('/');
        path.push_str(component);
    }
    path
}

//! tmp
pub struct RemoteForward { pub program: &'static str, pub spec: String }
pub fn remote_forward(_argv: &[String]) -> Option<RemoteForward> { None }

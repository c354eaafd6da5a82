//! syslog-ng, for tests. Debian installs either it or rsyslog, so its package is
//! unpacked into a folder instead; its libraries are installed.

use anyhow::Result;

use super::apt;
use crate::{root, step};

/// Where tests find it.
const PLACE: &str = "target/tools/syslog-ng";

/// Takes the package apart without installing it. On a fresh machine the lists of
/// packages may be missing, on any other old.
const UNPACK: &str = r#"
final=$1
download() { apt-get -o APT::Sandbox::User=root download syslog-ng-core; }
partial=$final.partial
trap 'exit 130' INT TERM
trap 'rm -rf "$partial"' EXIT
rm -rf "$partial"
mkdir -p "$partial/package"
cd "$partial"
if ! download; then
    apt-get -o DPkg::Lock::Timeout=600 update
    download
fi
dpkg-deb --extract ./*.deb package
chmod -R a+rX package
rm -rf "$final"
mv package "$final"
"#;

/// Brings it, unless it is there.
///
/// # Errors
/// When this machine's apt cannot download it.
pub fn unpack() -> Result<()> {
    let place = root().join(PLACE);
    if place.join("usr/sbin/syslog-ng").is_file() {
        return Ok(());
    }
    eprintln!("downloading syslog-ng: receives forwarded alerts");
    let mut command = apt::as_root("sh")?;
    command.args(["-euc", UNPACK, "syslog-ng"]).arg(place);
    step::run("syslog-ng", "downloading syslog-ng", &mut command)
}

//! What the machine boots into: the binary, busybox and a script.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::setup::cargo;
use crate::{root, step};

/// Links nothing anew: the binary that is tested here is the one that the other
/// suites run on this machine, with the libraries that it is linked with. The
/// symbols stay out, which the machine would have to unpack into its memory.
const MAKE: &str = r#"
init=$1 binary=$2 final=$3
stage=$final.stage
trap 'exit 130' INT TERM
trap 'rm -rf "$stage"' EXIT
rm -rf "$stage"
for dir in bin dev proc run sys tmp; do
    mkdir -p "$stage/$dir"
done
cp "$(command -v busybox)" "$stage/bin/busybox"
strip -o "$stage/bin/agent-monitor" "$binary"
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    cp --dereference --parents "$library" "$stage"
done
cp "$init" "$stage/init"
chmod 755 "$stage/init"
(cd "$stage" && find . | cpio --quiet --create --format newc --owner 0:0) > "$final"
"#;

/// Builds the binary and packs the initramfs; gives its path.
///
/// # Errors
/// When the build or the packing fails.
pub fn make() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--package", "agent-monitor", "--locked"]);
    step::run("vm-build", "building agent-monitor", &mut build)?;
    let initramfs = root().join("target/vm/initramfs.cpio");
    let mut pack = Command::new("sh");
    pack.args(["-euc", MAKE, "initramfs"])
        .arg(root().join("xtask/src/vm/init.sh"))
        .arg(root().join("target/debug/agent-monitor"))
        .arg(&initramfs);
    step::run("vm-initramfs", "packing the initramfs", &mut pack)?;
    Ok(initramfs)
}

//! The kernels that agent-monitor is tried on besides the machine's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::apt;
use crate::{root, step};

/// The kernel series that are tried: the oldest that agent-monitor runs on, and
/// the long-term one after it. Both are Debian 12's.
pub const SERIES: [&str; 2] = ["6.1", "6.12"];

/// The folder that holds a folder of each series.
const PLACE: &str = "target/vm/kernels";

/// Takes the newest kernel of the series from the package, and nothing else of
/// it. On a fresh machine the lists of packages may be missing, on any other old.
const FETCH: &str = r#"
series=$1 final=$2
download() {
    package=$(apt-cache search --names-only \
        "^linux-image-${series%.*}\.${series#*.}\.[0-9].*-cloud-amd64\$" |
        cut -d ' ' -f 1 | sort -V | tail -n 1)
    [ -n "$package" ] && apt-get -o APT::Sandbox::User=root download "$package"
}
partial=$final.partial
trap 'exit 130' INT TERM
trap 'rm -rf "$partial"' EXIT
rm -rf "$partial"
mkdir -p "$partial/package"
cd "$partial"
if ! download; then
    apt-get -o DPkg::Lock::Timeout=600 update
    if ! download; then
        echo "apt cannot bring linux-image-$series.*-cloud-amd64: add Debian 12 (bookworm" \
            "and bookworm-security, amd64) to the apt sources"
        exit 1
    fi
fi
dpkg-deb --extract ./*.deb package
cp package/boot/vmlinuz-* vmlinuz
printf '%s' "${package#linux-image-}" > release
chmod -R a+rX .
rm -rf package ./*.deb
rm -rf "$final"
mv "$partial" "$final"
"#;

/// A kernel to boot.
pub struct Kernel {
    /// The series, one of [`SERIES`].
    pub series: String,
    /// What `uname -r` says in it.
    pub release: String,
    /// The compressed image.
    pub image: PathBuf,
}

impl Kernel {
    /// The kernel of a series that [`fetch`] has brought.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of(series: &str) -> Result<Self> {
        Self::in_folder(&root().join(PLACE), series)
    }

    fn in_folder(place: &Path, series: &str) -> Result<Self> {
        let release = place.join(series).join("release");
        Ok(Self {
            series: series.to_owned(),
            release: fs::read_to_string(&release)
                .with_context(|| format!("cannot read {}", release.display()))?,
            image: place.join(series).join("vmlinuz"),
        })
    }
}

/// Downloads the kernels that are missing. One that is there stays as it is;
/// to have the newest of its series, remove `target/vm/kernels`.
///
/// # Errors
/// When this machine's apt has no such kernel, or it cannot be downloaded.
pub fn fetch() -> Result<()> {
    for series in SERIES {
        if Kernel::of(series).is_ok_and(|kernel| kernel.image.is_file()) {
            continue;
        }
        eprintln!("downloading Linux {series}: tries the kernel side on a stock kernel");
        let mut command = apt::as_root("sh")?;
        command
            .args(["-euc", FETCH, "kernel", series])
            .arg(root().join(PLACE).join(series));
        let what = format!("downloading Debian's Linux {series}");
        step::run(&format!("kernel-{series}"), &what, &mut command)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_the_release_beside_its_image() {
        let place = tempfile::tempdir().unwrap();
        assert!(Kernel::in_folder(place.path(), "6.1").is_err());
        fs::create_dir(place.path().join("6.1")).unwrap();
        fs::write(place.path().join("6.1/release"), "6.1.0-1-cloud-amd64").unwrap();
        let kernel = Kernel::in_folder(place.path(), "6.1").unwrap();
        assert_eq!(kernel.release, "6.1.0-1-cloud-amd64");
        assert_eq!(kernel.image, place.path().join("6.1/vmlinuz"));
    }
}

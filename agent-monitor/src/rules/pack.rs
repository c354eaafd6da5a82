//! The default pack: the files of `rules/`, in the binary.

use std::collections::BTreeSet;
use std::path::Path;

use super::problem::Source;
use super::yaml::{self, Value};

macro_rules! files {
    ($($name:literal)*) => {
        /// Names and contents.
        static FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../rules/", $name)))),*];
    };
}

files! {
    "cgroup-escape.yaml"
    "dns-tunnel.yaml"
    "gpu-device-open.yaml"
    "internal-network-probe.yaml"
    "memfd-exec.yaml"
    "metadata-service-access.yaml"
    "miner-process.yaml"
    "mining-pool-protocol.yaml"
    "monitoring-loss.yaml"
    "reverse-shell.yaml"
    "reverse-ssh-tunnel.yaml"
    "reverse-tunnel-relay.yaml"
    "ssh-outbound.yaml"
    "tunnel-tool.yaml"
    "vars.yaml"
}

/// Where messages say that a rule of the pack is from.
pub const ORIGIN: &str = "built-in";

/// Whether a file is one of the pack's.
pub fn is_of_pack(source: &Source) -> bool {
    source.path().starts_with(ORIGIN)
}

/// Its files.
pub fn sources() -> Vec<Source> {
    FILES
        .iter()
        .map(|(name, text)| Source::new(&Path::new(ORIGIN).join(name), (*text).to_owned()))
        .collect()
}

/// The variables that it defines, whether or not a rule that uses them was replaced.
pub fn variables() -> BTreeSet<String> {
    let vars = FILES.iter().filter(|(name, _)| *name == "vars.yaml");
    let documents = vars.flat_map(|(_, text)| yaml::documents(text).unwrap_or_default());
    let names = documents.flat_map(|document| match document.get("vars").map(|it| &it.value) {
        Some(Value::Map(members)) => members
            .iter()
            .filter_map(|(name, _)| name.text().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_pack_is_in_the_binary() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
        let mut there: Vec<_> = std::fs::read_dir(dir)
            .expect("the pack")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        there.sort();
        let here: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(here, there);
    }
}

//! Pieces of work for an agent, short and complete in themselves.

use std::sync::Arc;

use anyhow::ensure;

use super::Work;
use super::services::{ELECTRUM, FILES, HOST, METADATA, NOBODY, REDIS, RPC, SQL, WEB};
use crate::agent::Agent;
use crate::paths::{INSIDE_SCENARIOS, INSIDE_SHARED};
use crate::services::TRUST;

/// Every one: a name, and a shell's script, of which each command must succeed.
fn scripts() -> Vec<(&'static str, String)> {
    let https = format!("https://{HOST}:{FILES}");
    let curl = format!("curl -sS --fail --max-time 15 --cacert {TRUST}");
    let shared = format!("python3 {INSIDE_SHARED}");
    let scenario = format!("python3 {INSIDE_SCENARIOS}");
    vec![
        (
            "git over https",
            format!(
                "cd /tmp; rm -rf clone; export GIT_SSL_CAINFO={TRUST}; \
                 git clone -q {https}/repository.git clone; cd clone; git fetch -q; git ls-remote -q"
            ),
        ),
        (
            "Python package",
            format!(
                "cd /tmp; {curl} {https}/simple/harmless/ | grep -q harmless-1.tar; \
                 {curl} -o wheel {https}/simple/harmless/harmless-1.tar; tail -n 1 wheel | grep -q 30000"
            ),
        ),
        (
            "npm package",
            format!(
                "cd /tmp; {curl} http://{HOST}:{WEB}/registry/harmless > /dev/null; \
                 {curl} {https}/harmless-1.0.0.tgz | tar xz; node_modules=package; test -s $node_modules/index.js"
            ),
        ),
        (
            "Debian package",
            format!(
                "mkdir -p /tmp/apt/lists/partial /tmp/apt/archives/partial; cd /tmp; \
                 echo 'deb [trusted=yes] {https}/apt ./' > /tmp/apt/sources; \
                 set -- -q -o Dir::Etc::sourcelist=/tmp/apt/sources -o Dir::State::lists=/tmp/apt/lists \
                 -o Dir::Cache=/tmp/apt -o APT::Sandbox::User=root -o Acquire::https::CaInfo={TRUST}; \
                 apt-get \"$@\" update; rm -f harmless_1_all.deb; apt-get \"$@\" download harmless; \
                 dpkg-deb -x harmless_1_all.deb /tmp/unpacked; test -s /tmp/unpacked/opt/harmless"
            ),
        ),
        (
            "Redis",
            format!(
                "set -- redis-cli -h {HOST} -p {REDIS}; \"$@\" SET key value; \"$@\" -r 20 -i 0.05 LPUSH jobs job; \
                 \"$@\" LRANGE jobs 0 -1 | grep -q job; \"$@\" DEL jobs"
            ),
        ),
        ("PostgreSQL", format!("{scenario}/sql.py ask {HOST} {SQL}")),
        (
            "Ethereum RPC",
            format!("{shared}/json_rpc_client.py http://{HOST}:{RPC}/ ethereum"),
        ),
        (
            "Odoo login",
            format!("{shared}/json_rpc_client.py http://{HOST}:{RPC}/jsonrpc odoo"),
        ),
        ("Electrum", format!("{shared}/electrum_client.py {HOST} {ELECTRUM}")),
        (
            "names and both families",
            format!(
                "getent ahosts {HOST}; getent ahosts elsewhere.example; getent ahosts nothing.example; \
                 {scenario}/eyeballs.py unknown.example {WEB} {NOBODY}"
            ),
        ),
        (
            "metadata, allowed",
            format!("{curl} http://{METADATA}:8081/registry/role > /dev/null"),
        ),
        (
            "build",
            "cd /tmp; rm -rf image; mkdir image; \
             for n in $(seq 60); do seq 200 | sort -r | head -n 5 > image/$n; done; \
             tar c image | gzip | tar tz | wc -l; find image -name '1*' -exec wc -l {} +; rm -r image"
                .to_owned(),
        ),
        (
            "builds side by side",
            "for n in $(seq 8); do (for m in $(seq 10); do expr $n \\* $m > /dev/null; done) & done; wait".to_owned(),
        ),
        (
            "model's API",
            format!(
                "for n in 300 4000 900; do head -c $n /dev/zero | {curl} --data-binary @- http://{HOST}:{WEB}/v1; \
                 {curl} {https}/simple/harmless/ > /dev/null; done"
            ),
        ),
    ]
}

pub(super) fn all(agent: &Arc<Agent>) -> Vec<Work> {
    let works = scripts().into_iter().map(|(name, script)| {
        let agent = Arc::clone(agent);
        let work = move || {
            let output = agent.run(&["sh", "-ec", &script])?;
            ensure!(!output.contains("Traceback"), "{output}");
            Ok(())
        };
        (name, Box::new(work) as Box<_>)
    });
    works.collect()
}

//! Each scenario does what it says, in a container and in a plain cgroup. Needs root.

use std::fs;
use std::time::Duration;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::scenario::{SCENARIOS, find};
use agent_monitor_tests::wait;
use agent_monitor_tests::world::World;

/// Bytes that went through the agent's `eth0`, both ways: proc_pid_net(5) has
/// received bytes in the first column and sent ones in the ninth.
fn carried(agent: &Agent) -> u64 {
    let read = || Ok(fs::read_to_string("/proc/thread-self/net/dev")?);
    let table = agent.netns().run(read).unwrap();
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"));
    let columns: Vec<u64> = line
        .unwrap()
        .split_whitespace()
        .map(|column| column.parse().unwrap())
        .collect();
    columns[0] + columns[8]
}

fn check(name: &str, make: impl FnOnce(&std::sync::Arc<World>) -> anyhow::Result<Agent>) {
    let world = World::new(name).unwrap();
    let agent = make(&world).unwrap();
    let idle = agent.group().processes().unwrap();
    let before = carried(&agent);
    let outcome = (find(name).unwrap().run)(&agent).unwrap();
    // Scenarios check contents; here it is what the kernel has counted.
    let carried = carried(&agent) - before;
    assert!(outcome.exchanged.exchanges >= 3, "{outcome:?}");
    // Half, because dropbear compresses.
    assert!(
        carried > outcome.exchanged.bytes / 2,
        "{carried} {outcome:?}"
    );
    assert!(carried > 1_000, "{carried} bytes");
    // A killed process is listed until its memory has been freed.
    let settled = wait::until("the agent to be idle", Duration::from_secs(5), || {
        Ok((agent.group().processes()? == idle).then_some(()))
    });
    assert!(
        settled.is_ok(),
        "{:?} were {idle:?}",
        agent.group().processes()
    );
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        mod in_a_cgroup {
            $(#[test] fn $name() { super::check(stringify!($name), |world| super::Agent::cgroup(world, "agent")); })*
        }
        mod in_docker {
            $(#[test] fn $name() { super::check(stringify!($name), |world| super::Agent::docker(world, "agent")); })*
        }
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

scenarios! {
    ssh_reverse_tunnel_with_traffic ssh_reverse_by_config_file ssh_reverse_by_master autossh
    dropbear_reverse paramiko_reverse ssh_local_forward ssh_dynamic_forward ssh_remote_command
    tls_relay tls_relay_multiplexed port_forward
    stratum_bitcoin stratum_monero monero_one_byte_writes stratum_third_party
    reverse_shell_bash reverse_shell_python reverse_shell_python_pty reverse_shell_perl
    reverse_shell_socat reverse_shell_socat_pty
    reverse_shell_nc reverse_shell_busybox reverse_shell_ncat reverse_shell_pipes
    socks_proxy_for_outside socks_proxy_outside internal_scan peer_fan_out
    llm_harness llm_harness_stateful http_forward_proxy db_app package_mirror mcp ordinary_work
}

#[test]
fn every_scenario_is_tested() {
    let names: Vec<_> = SCENARIOS.iter().map(|it| it.name).collect();
    assert_eq!(names, TESTED);
}

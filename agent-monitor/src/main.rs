//! The `agent-monitor` binary.
use agent_monitor::attach::{Kernel, offsets};
use agent_monitor_common::policy::Settings;
fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(offsets::COMMAND) {
        return offsets::print();
    }
    let offsets = offsets::resolve_in_child()?;
    println!("{offsets:?}");
    let mut kernel = Kernel::load(offsets, Settings { quota: [10000; 4], watch_containers: 1, pad: 0 })?;
    kernel.attach_node()?;
    println!("attached");
    Ok(())
}

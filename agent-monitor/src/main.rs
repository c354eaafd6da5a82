//! The `agent-monitor` binary.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use agent_monitor::attach::offsets;
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if args[1] == offsets::COMMAND {
        return offsets::print();
    }
    if args[1] == "replay" {
        return agent_monitor::commands::replay::replay(args[2].as_ref(), |e| { println!("{}", serde_json::to_string(e)?); Ok(()) });
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let rt = tokio::runtime::Runtime::new()?;
    let _g = rt.enter();
    let stop = Arc::new(AtomicBool::new(false));
    let s2 = stop.clone();
    rt.spawn(async move { let _ = tokio::signal::ctrl_c().await; s2.store(true, Ordering::Relaxed); });
    agent_monitor::commands::record::record(vec![args[2].parse()?], args[1].as_ref(), None, &stop)
}

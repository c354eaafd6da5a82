//! Nothing: the benchmark is `cargo bench -p agent-monitor-rules-bench`.

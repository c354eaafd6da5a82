//! The status as Prometheus reads it: OpenMetrics text, made anew for each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::status::{State, Status};
use crate::loss::Stage;

/// What [`encode`] writes, as HTTP names it (OpenMetrics 1.0.0, "Overall Structure").
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes the metrics of a status.
///
/// # Errors
/// None that writing to memory does not have.
pub fn encode(status: &Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("agent_monitor");
    registry.register_collector(Box::new(Snapshot(metrics(status))));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// One metric: all series of a name.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    /// Whether it only grows.
    counts: bool,
    series: Vec<Series>,
}

impl Metric {
    fn encode(&self, value: f64, encoder: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
        if self.counts {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        } else {
            encoder.encode_gauge(&value)
        }
    }
}

type Series = (Vec<(&'static str, String)>, f64);

#[derive(Debug)]
struct Snapshot(Vec<Metric>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            let ty = if metric.counts {
                MetricType::Counter
            } else {
                MetricType::Gauge
            };
            let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, ty)?;
            for (labels, value) in &metric.series {
                // An empty set of labels would be written as empty braces.
                if labels.is_empty() {
                    metric.encode(*value, &mut encoder)?;
                } else {
                    metric.encode(*value, &mut encoder.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn metrics(status: &Status) -> Vec<Metric> {
    let mut metrics = Vec::new();
    let mut add = |name, help, counts, series| {
        metrics.push(Metric {
            name,
            help,
            counts,
            series,
        });
    };
    let about = vec![
        ("version", status.version.clone()),
        ("kernel", status.kernel.clone()),
    ];
    add(
        "build_info",
        "The daemon and its kernel",
        false,
        vec![(about, 1.0)],
    );
    let ready = f64::from(u8::from(status.state == State::Attached));
    add("ready", "Whether everything is attached", false, one(ready));
    add(
        "uptime_seconds",
        "Time since the daemon started",
        false,
        one(number(status.uptime_seconds)),
    );
    add(
        "agents",
        "Agents that are watched",
        false,
        one(count(status.agents.len())),
    );
    add(
        "records",
        "Records read from the kernel",
        true,
        one(number(status.counters.records)),
    );
    add(
        "events",
        "Events made of records",
        true,
        one(number(status.counters.events)),
    );
    let lost = Stage::ALL.iter().map(|stage| {
        let records = status.counters.losses.get(stage.name()).copied();
        (
            vec![("stage", stage.name().to_owned())],
            number(records.unwrap_or_default()),
        )
    });
    add(
        "lost_records",
        "Records lost, by the stage that lost them",
        true,
        lost.collect(),
    );
    let per_agent = status
        .agents
        .iter()
        .map(|agent| (vec![("agent", agent.name.clone())], agent));
    let per_agent: Vec<_> = per_agent.collect();
    let of_agents = |value: fn(&super::status::AgentStatus) -> u64| {
        let series = per_agent.iter().map(|(labels, agent)| {
            let mut labels = labels.clone();
            labels.push(("id", agent.id.clone()));
            (labels, number(value(agent)))
        });
        series.collect()
    };
    add(
        "agent_events",
        "Records emitted of an agent",
        true,
        of_agents(|it| it.events),
    );
    add(
        "agent_lost_records",
        "Records lost of an agent",
        true,
        of_agents(|it| it.lost),
    );
    let covered = of_agents(|it| u64::from(it.attached));
    add(
        "agent_covered",
        "Whether network programs cover an agent",
        false,
        covered,
    );
    let places = status.programs.iter();
    let places = places.map(|(name, places)| (program(name), f64::from(*places)));
    add(
        "program_places",
        "Places a program is attached to",
        false,
        places.collect(),
    );
    let times = status.run_times.iter();
    let times = times.map(|(name, time)| (program(name), time.nanoseconds as f64 / 1e9));
    add(
        "program_run_seconds",
        "Time spent in a program; 0 unless the sysctl kernel.bpf_stats_enabled is 1",
        true,
        times.collect(),
    );
    let runs = status.run_times.iter();
    let runs = runs.map(|(name, time)| (program(name), number(time.runs)));
    add(
        "program_runs",
        "Runs of a program; counted under the same condition",
        true,
        runs.collect(),
    );
    let queues = status.queues.iter();
    let queues = queues.map(|(name, depth)| (vec![("queue", name.clone())], number(*depth)));
    add(
        "queue_records",
        "Records that wait in a queue",
        false,
        queues.collect(),
    );
    add(
        "rules",
        "Rules in use",
        false,
        one(count(status.rules.enabled)),
    );
    let refused = f64::from(u8::from(status.rules.error.is_some()));
    add(
        "rules_refused",
        "Whether the rules could not be read when last tried",
        false,
        one(refused),
    );
    let store = &status.store;
    add(
        "store_failing",
        "Whether the store could not be opened or written when last tried",
        false,
        one(f64::from(u8::from(!store.well))),
    );
    add(
        "store_bytes",
        "Size of the store that is in use",
        false,
        one(number(store.bytes)),
    );
    add(
        "store_records",
        "Alerts and events stored",
        true,
        one(number(store.stored)),
    );
    add(
        "store_pending_records",
        "Alerts and events that wait until the store can be written",
        false,
        one(number(store.pending)),
    );
    add(
        "store_context_missing",
        "Events that an alert refers to and that were forgotten before they could be stored",
        true,
        one(number(store.context_missing)),
    );
    let of_sinks = |value: fn(&super::status::SinkStatus) -> f64| {
        let series = status
            .sinks
            .iter()
            .map(|it| (vec![("sink", it.name.clone())], value(it)));
        series.collect::<Vec<Series>>()
    };
    add(
        "sink_lag_records",
        "Alerts not yet delivered",
        false,
        of_sinks(|it| number(it.lag)),
    );
    add(
        "sink_lag_seconds",
        "Age of the oldest alert that is not yet delivered",
        false,
        of_sinks(|it| number(it.lag_seconds)),
    );
    add(
        "sink_retries",
        "Deliveries that failed",
        true,
        of_sinks(|it| number(it.retries)),
    );
    let dead = of_sinks(|it| number(it.dead_letters));
    add(
        "sink_dead_letters",
        "Alerts that a receiver refused for good",
        false,
        dead,
    );
    let failing = of_sinks(|it| f64::from(u8::from(it.last_error.is_some())));
    add(
        "sink_failing",
        "Whether the last delivery failed",
        false,
        failing,
    );
    metrics
}

fn program(name: &str) -> Vec<(&'static str, String)> {
    vec![("program", name.to_owned())]
}

fn one(value: f64) -> Vec<Series> {
    vec![(Vec::new(), value)]
}

/// Exact below 2⁵³, which no counter here reaches in a century.
fn number(value: u64) -> f64 {
    value as f64
}

fn count(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::{AgentStatus, Counters, RunTime, SinkStatus};

    fn status() -> Status {
        Status {
            version: "1.2.3".into(),
            state: State::Attached,
            agents: vec![AgentStatus {
                id: "a\"1".into(),
                name: "web\n".into(),
                lost: 3,
                ..AgentStatus::default()
            }],
            counters: Counters {
                records: 1 << 40,
                losses: [("ring".to_owned(), 7)].into(),
                ..Counters::default()
            },
            run_times: [(
                "connect4".to_owned(),
                RunTime {
                    runs: 2,
                    nanoseconds: 1_500_000_000,
                },
            )]
            .into(),
            queues: [("held".to_owned(), 5)].into(),
            sinks: vec![SinkStatus {
                name: "siem".into(),
                lag: 4,
                lag_seconds: 9,
                last_error: Some("down".into()),
                ..SinkStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn every_loss_point_queue_program_and_sink_has_its_series() {
        let text = encode(&status()).unwrap();
        for line in [
            "agent_monitor_ready 1.0",
            "agent_monitor_records_total 1099511627776.0",
            "agent_monitor_lost_records_total{stage=\"ring\"} 7.0",
            "agent_monitor_lost_records_total{stage=\"quota\"} 0.0",
            "agent_monitor_program_run_seconds_total{program=\"connect4\"} 1.5",
            "agent_monitor_queue_records{queue=\"held\"} 5.0",
            "agent_monitor_sink_lag_records{sink=\"siem\"} 4.0",
            "agent_monitor_sink_lag_seconds{sink=\"siem\"} 9.0",
            "agent_monitor_sink_failing{sink=\"siem\"} 1.0",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
        }
        for stage in Stage::ALL {
            assert!(
                text.contains(&format!("stage=\"{}\"", stage.name())),
                "{}",
                stage.name()
            );
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_agents_are_called_cannot_make_lines() {
        let text = encode(&status()).unwrap();
        let line = "agent_monitor_agent_lost_records_total{agent=\"web\\n\",id=\"a\\\"1\"} 3.0";
        assert!(text.lines().any(|it| it == line), "{text}");
    }
}

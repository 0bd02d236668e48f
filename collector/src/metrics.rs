//! What the collector counts about itself, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

use shared::Millis;

/// Counters and gauges by name and labels.
#[derive(Debug, Default)]
pub struct Metrics {
    values: Mutex<BTreeMap<(&'static str, String), f64>>,
    durations: Mutex<BTreeMap<(&'static str, String), Durations>>,
}

/// Upper bounds of a histogram's buckets in seconds.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// How long something took, each time.
#[derive(Debug, Default)]
struct Durations {
    /// Those within each bucket's bound, but not within the one before.
    within: [u64; BUCKETS.len()],
    count: u64,
    sum_seconds: f64,
}

/// Every metric, with its type and what it means.
const HELP: &[(&str, &str, &str)] = &[
    ("ward_payloads_total", "counter", "Payloads that were taken, by lane."),
    ("ward_payloads_refused_total", "counter", "Payloads that were refused, by reason."),
    ("ward_deltas_total", "counter", "Ledger entries that were taken."),
    ("ward_gaps_total", "counter", "Gaps that were recorded."),
    ("ward_batches_redated_total", "counter", "Batches from ahead of our clock, which their agents date anew."),
    (
        "ward_batches_held_total",
        "counter",
        "Batches that were not taken because our clock is behind our own ledger, or has jumped ahead.",
    ),
    ("ward_batches_undatable_total", "counter", "Batches that can't be dated: what they held is a gap."),
    ("ward_clock_doubted", "gauge", "1 while batches wait because our clock has jumped ahead and nothing speaks for that."),
    ("ward_clock_behind", "gauge", "1 while batches wait because our clock is behind our own ledger."),
    ("ward_inventory_failing", "gauge", "1 while a changed inventory can't be read, and the one before is in force."),
    (
        "ward_outgoing_dropped_total",
        "counter",
        "Acks and configs that were left to the next time because the broker takes nothing.",
    ),
    ("ward_broker_connected", "gauge", "1 while the collector is connected to its broker."),
    ("ward_agents_contending", "gauge", "Branches for which two agents spoke in the last ten minutes."),
    ("ward_agents_contending_total", "counter", "Times that a second agent was found to speak for a branch."),
    ("ward_unknown_devices_total", "counter", "Entries about devices that the inventory doesn't know."),
    ("ward_ledger_errors_total", "counter", "Commits that failed: what they held is sent again."),
    ("ward_ledger_failing", "gauge", "1 while the newest commit has failed."),
    ("ward_ledger_reads_total", "counter", "Questions of the API to the collector's file."),
    ("ward_inbox_bytes", "gauge", "Bytes of batches that wait for the ledger's thread."),
    (
        "ward_ack_lag_seconds",
        "histogram",
        "From a batch's arrival until it is durable and acknowledged, the slowest of those taken together.",
    ),
    ("ward_ledger_lag_seconds", "gauge", "Age of the oldest ledger among branches that can be heard."),
    ("ward_ledger_commit_ms", "gauge", "How long the newest commit took."),
    ("ward_remote_write_samples_total", "counter", "Samples that VictoriaMetrics has taken, by endpoint."),
    ("ward_remote_write_errors_total", "counter", "Tries to write to VictoriaMetrics that failed, by endpoint."),
    ("ward_remote_write_rejected_total", "counter", "Samples that VictoriaMetrics refused for good, by endpoint."),
    ("ward_remote_write_dropped_total", "counter", "Samples dropped because the queue was full, by endpoint."),
    ("ward_remote_write_queue_bytes", "gauge", "Bytes that wait for VictoriaMetrics, by endpoint."),
    ("ward_remote_write_failing", "gauge", "1 while the newest try to write to VictoriaMetrics has failed, by endpoint."),
    ("ward_websocket_connections_active", "gauge", "Open live feeds."),
    ("websocket_connections_active", "gauge", "The same, by the name that dashboards know."),
    ("ward_websocket_dropped_total", "counter", "Live feeds that were closed because they didn't read."),
    ("ward_logins_total", "counter", "Tries to come in, by outcome."),
    ("ward_api_requests_total", "counter", "HTTP requests, by route and status."),
    ("ward_api_connections_active", "gauge", "Open connections that ask and are answered, without live feeds."),
    ("ward_api_connections_dropped_total", "counter", "Connections that were dropped, by reason."),
    ("ward_api_certificate_failing", "gauge", "1 while the API's new certificate can't be used, and the one before is shown."),
    ("api_request_duration_seconds", "histogram", "How long answers took until their head was ready, by route."),
    ("cache_requests_total", "counter", "Reads that a cache might answer, by cache."),
    ("cache_hits_total", "counter", "Reads that a cache answered, by cache."),
    ("ward_shared_cache_up", "gauge", "1 while the shared cache can be used."),
    ("ward_shared_cache_errors_total", "counter", "Questions to the shared cache that failed."),
    ("vm_query_duration_seconds", "histogram", "How long questions to VictoriaMetrics took, tries again included."),
    ("vm_query_errors_total", "counter", "Questions to VictoriaMetrics that failed, by endpoint and reason."),
    ("vm_breaker_open", "gauge", "1 while VictoriaMetrics isn't asked because it doesn't answer, by endpoint."),
    ("ward_devices", "gauge", "Devices by status."),
    ("ward_branches", "gauge", "Branches by contact."),
    ("ward_oldest_observation_seconds", "gauge", "Age of the oldest observation among branches that were ever heard."),
    ("ward_job_last_success_timestamp_seconds", "gauge", "When each periodic job last succeeded."),
];

/// A label as it stands in a metric's braces.
pub fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

impl Metrics {
    /// Adds to a counter.
    pub fn add(&self, name: &'static str, labels: &str, amount: u64) {
        *self.lock().entry((name, labels.to_owned())).or_default() += amount as f64;
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, labels: &str, value: f64) {
        self.lock().insert((name, labels.to_owned()), value);
    }

    /// A periodic job has done what it is for.
    pub fn has_run(&self, job: &str, now: Millis) {
        self.set("ward_job_last_success_timestamp_seconds", &label("job", job), (now.0 / 1000) as f64);
    }

    /// Moves a gauge.
    pub fn shift(&self, name: &'static str, by: f64) {
        *self.lock().entry((name, String::new())).or_default() += by;
    }

    /// Counts how long something took.
    pub fn observe(&self, name: &'static str, labels: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut all = self.durations.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let durations = all.entry((name, labels.to_owned())).or_default();
        durations.count += 1;
        durations.sum_seconds += seconds;
        if let Some(within) = BUCKETS.iter().position(|bound| seconds <= *bound).and_then(|at| durations.within.get_mut(at)) {
            *within += 1;
        }
    }

    /// A counter's or gauge's value, zero before the first.
    pub fn value(&self, name: &'static str, labels: &str) -> f64 {
        self.lock().get(&(name, labels.to_owned())).copied().unwrap_or_default()
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        let values = self.lock();
        let mut out = String::new();
        for (name, kind, help) in HELP {
            // Writing to a String can't fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            if *kind == "histogram" {
                self.render_durations(name, &mut out);
                continue;
            }
            let mut any = false;
            for ((_, labels), value) in values.iter().filter(|((found, _), _)| found == name) {
                any = true;
                let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
                let _ = writeln!(out, "{name}{braces} {value}");
            }
            if !any {
                let _ = writeln!(out, "{name} 0");
            }
        }
        out
    }

    fn render_durations(&self, name: &str, out: &mut String) {
        let all = self.durations.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for ((_, labels), durations) in all.iter().filter(|((found, _), _)| *found == name) {
            let (comma, braces) = if labels.is_empty() { ("", String::new()) } else { (",", format!("{{{labels}}}")) };
            let mut sum = 0;
            for (bound, within) in BUCKETS.iter().zip(durations.within) {
                sum += within;
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {sum}");
            }
            let Durations { count, sum_seconds, .. } = durations;
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "{name}_sum{braces} {sum_seconds}\n{name}_count{braces} {count}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(&'static str, String), f64>> {
        // A panic elsewhere can't leave a half-written number.
        self.values.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_written_with_its_labels_and_one_that_never_counted_as_zero() {
        let metrics = Metrics::default();
        metrics.add("ward_payloads_refused_total", "reason=\"checksum\"", 2);
        metrics.add("ward_payloads_refused_total", "reason=\"checksum\"", 1);
        let text = metrics.render();
        assert!(text.contains("ward_payloads_refused_total{reason=\"checksum\"} 3\n"), "{text}");
        assert!(text.contains("ward_deltas_total 0\n"), "{text}");
    }

    #[test]
    fn each_metric_is_documented_and_no_other() {
        let docs = include_str!("../../docs/api.md");
        let (_, docs) = docs.split_once("\n## GET /metrics\n").expect("a section");
        let (docs, _) = docs.split_once("\n## ").expect("another section");
        let rows = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
        let mut documented: Vec<(String, &str)> = rows
            .flat_map(|(names, rest)| {
                let kind = rest.split(" | ").next().unwrap_or_default();
                names.split(", ").map(move |name| (name.trim_matches('`').to_owned(), kind))
            })
            .collect();
        documented.sort();
        let mut known: Vec<(String, &str)> = HELP.iter().map(|(name, kind, _)| ((*name).to_owned(), *kind)).collect();
        known.sort();
        assert_eq!(documented, known);
    }

    #[test]
    fn a_label_is_one_whatever_stands_in_it() {
        assert_eq!(label("endpoint", "a\"b\\c\nd"), r#"endpoint="a\"b\\c\nd""#);
    }

    #[test]
    fn a_histogram_has_what_is_within_each_bound() {
        let metrics = Metrics::default();
        for ms in [1, 3, 30_000] {
            metrics.observe("api_request_duration_seconds", "route=\"/\"", Duration::from_millis(ms));
        }
        let text = metrics.render();
        for line in [
            "bucket{route=\"/\",le=\"0.0005\"} 0",
            "bucket{route=\"/\",le=\"0.001\"} 1",
            "bucket{route=\"/\",le=\"10\"} 2",
            "bucket{route=\"/\",le=\"+Inf\"} 3",
            "sum{route=\"/\"} 30.004",
            "count{route=\"/\"} 3",
        ] {
            assert!(text.contains(&format!("api_request_duration_seconds_{line}\n")), "{line}: {text}");
        }
    }
}

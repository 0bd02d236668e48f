//! A real VictoriaMetrics on loopback.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::http;
use crate::eventually;
use crate::process::{Process, free_port};

const PROGRAM: &str = "/usr/bin/victoria-metrics";

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// One series: its labels, and its samples as (UTC in ms, value).
pub type Series = (BTreeMap<String, String>, Vec<(i64, f64)>);

/// A server in the network namespace of the thread that started it.
pub struct Victoria {
    // Dropped in this order: the process ends, and shows its log, before its folder goes.
    process: Process,
    folder: TempDir,
    port: u16,
    http: reqwest::Client,
}

impl Victoria {
    /// Whether there is one on this machine.
    pub fn is_installed() -> bool {
        std::path::Path::new(PROGRAM).exists()
    }

    /// A server without data that keeps 13 months.
    pub async fn start() -> Self {
        // Between finding a free port and listening on it, someone else may take it.
        eventually(START_LIMIT, "VictoriaMetrics listens", async || {
            let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
            let port = free_port(Ipv4Addr::LOCALHOST.into());
            let process = spawn(&folder, port);
            let mut server = Self { folder, port, process, http: http() };
            server.ready().await?;
            Ok(server)
        })
        .await
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it at once. What it took within the last five seconds is gone, though it was answered with 204 and flushed.
    pub fn kill(&mut self) {
        self.process.kill_hard();
    }

    /// Asks it to end, so that all it has taken is on disk, and waits.
    pub async fn stop(&mut self) {
        let status = self.process.stop().await;
        assert!(status.success(), "VictoriaMetrics ended with {status}");
    }

    /// Starts it again on its port and data.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.folder, self.port);
        self.ready().await.expect("its port was its own before");
    }

    /// Makes all it has taken visible to queries.
    pub async fn flush(&self) -> Result<()> {
        self.get("/internal/force_flush", &[]).await.map(drop)
    }

    /// Writes samples in Prometheus' text format: `name{label="value"} 1 1795442400000`.
    pub async fn import(&self, text: &str) -> Result<()> {
        let response = self.http.post(format!("{}/api/v1/import/prometheus", self.url())).body(text.to_owned()).send().await?;
        response.error_for_status().context("importing").map(drop)
    }

    /// What `query_range` answers, series by series, past any cache.
    pub async fn query_range(&self, query: &str, start_ms: i64, end_ms: i64, step_s: u32) -> Result<Vec<Series>> {
        self.flush().await?;
        let (start, end, step) = (seconds(start_ms), seconds(end_ms), format!("{step_s}s"));
        let parameters = [("query", query), ("start", &start), ("end", &end), ("step", &step), ("nocache", "1")];
        let text = self.get("/api/v1/query_range", &parameters).await?;
        let answer: Value = serde_json::from_str(&text)?;
        let series = answer["data"]["result"].as_array().with_context(|| format!("no result in {text}"))?;
        series
            .iter()
            .map(|one| Some((labels(&one["metric"])?, points(&one["values"])?)))
            .collect::<Option<_>>()
            .context("a matrix")
    }

    /// The samples themselves, as they are stored.
    pub async fn export(&self, selector: &str) -> Result<Vec<Series>> {
        self.flush().await?;
        let text = self.get("/api/v1/export", &[("match[]", selector)]).await?;
        let line = |line: &str| -> Result<Series> {
            let one: Value = serde_json::from_str(line)?;
            let numbers = |key: &str| one[key].as_array().cloned().unwrap_or_default();
            let times = numbers("timestamps").into_iter().filter_map(|v| v.as_i64());
            let samples = times.zip(numbers("values").into_iter().filter_map(|v| v.as_f64())).collect();
            Ok((labels(&one["metric"]).context("no labels")?, samples))
        };
        text.lines().map(line).collect()
    }

    /// The labels of all series that a selector matches.
    pub async fn series(&self, selector: &str) -> Result<Vec<BTreeMap<String, String>>> {
        self.flush().await?;
        let text = self.get("/api/v1/series", &[("match[]", selector), ("start", "0")]).await?;
        let answer: Value = serde_json::from_str(&text)?;
        let series = answer["data"].as_array().with_context(|| format!("no series in {text}"))?;
        series.iter().map(labels).collect::<Option<_>>().context("labels")
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let response = self.http.get(format!("{}{path}", self.url())).query(parameters).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(text)
    }

    async fn ready(&mut self) -> Result<()> {
        eventually(START_LIMIT, "VictoriaMetrics answers", async || match self.process.ended() {
            Some(status) => Ok(Err(anyhow::anyhow!("it ended with {status}: {}", self.process.log()))),
            None => self.get("/health", &[]).await.map(|_| Ok(())),
        })
        .await
    }
}

fn spawn(folder: &TempDir, port: u16) -> Process {
    let mut command = Command::new(PROGRAM);
    command.args([
        &format!("-httpListenAddr=127.0.0.1:{port}"),
        &format!("-storageDataPath={}", folder.path().join("data").display()),
        "-retentionPeriod=13",
        "-dedup.minScrapeInterval=1ms",
        // Otherwise the newest 30 s are hidden.
        "-search.latencyOffset=0s",
        "-memory.allowedBytes=100MB",
    ]);
    Process::spawn(&mut command, &folder.path().join("victoria.log"))
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

fn labels(metric: &Value) -> Option<BTreeMap<String, String>> {
    metric.as_object()?.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn points(values: &Value) -> Option<Vec<(i64, f64)>> {
    #[expect(clippy::cast_possible_truncation, reason = "a time in ms has 42 bits")]
    let point = |pair: &Value| Some(((pair[0].as_f64()? * 1000.0).round() as i64, pair[1].as_str()?.parse().ok()?));
    values.as_array()?.iter().map(point).collect()
}

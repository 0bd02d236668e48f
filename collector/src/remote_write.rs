//! Sends what waits in the outbox to VictoriaMetrics, oldest first, until it has it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use shared::Millis;

use crate::clock;
use crate::inbox::{Gone, Sender};
use crate::ingest::Command;
use crate::metrics::Metrics;
use crate::store::{self, Readers, Waiting};
use crate::victoria::Victoria;

/// How often an empty outbox is looked at.
const IDLE: Duration = Duration::from_millis(250);
/// Time for one request.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// VictoriaMetrics answers before it has written: killed, it loses the newest seconds. What it took is kept for so
/// long, in ms, and sent again after any failure; the same sample twice does no harm.
const SETTLE_MS: i64 = 15_000;
/// How often the server is asked when it was started, in ms: more often than what it took is let go.
const ASK_MS: i64 = 5_000;

/// Sends until the thread that owns the file is gone.
///
/// `victoria` is told of what is taken: it keeps answers.
pub async fn run(url: String, victoria: Arc<Victoria>, readers: Arc<Readers>, commands: Sender, metrics: Arc<Metrics>) {
    let mut writer = Writer {
        victoria,
        url: format!("{url}/api/v1/write"),
        client: client(),
        readers,
        commands,
        metrics,
        after: 0,
        taken: VecDeque::new(),
        metrics_url: format!("{url}/metrics"),
        asked_at: Millis(0),
        server_start: None,
        alive_at: Millis(0),
    };
    let mut backoff = BACKOFF.0;
    let mut said = false;
    loop {
        let wait = match writer.send_next().await {
            Ok(true) => {
                if said {
                    tracing::info!("VictoriaMetrics takes samples again");
                }
                (backoff, said) = (BACKOFF.0, false);
                Duration::ZERO
            }
            Ok(false) => IDLE,
            Err(error) => {
                writer.metrics.add("ward_remote_write_errors_total", "", 1);
                if !said {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "VictoriaMetrics takes nothing: samples wait in the collector's file"
                    );
                    said = true;
                }
                // What it took shortly before may be lost with it.
                writer.start_over();
                let wait = backoff;
                backoff = (backoff * 2).min(BACKOFF.1);
                wait
            }
        };
        if writer.has_restarted().await {
            tracing::warn!("VictoriaMetrics has been started anew: the newest samples are sent again");
            writer.start_over();
        }
        if writer.settle().await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// A client for VictoriaMetrics: it keeps few connections, since the server closes idle ones.
pub fn client() -> reqwest::Client {
    // Already installed by another client is as good.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().timeout(REQUEST_LIMIT).pool_idle_timeout(Duration::from_secs(60)).no_proxy();
    builder.build().expect("a client without files or certificates of its own can be built")
}

struct Writer {
    url: String,
    client: reqwest::Client,
    readers: Arc<Readers>,
    commands: Sender,
    metrics: Arc<Metrics>,
    victoria: Arc<Victoria>,
    after: i64,
    taken: VecDeque<(i64, Millis)>,
    metrics_url: String,
    asked_at: Millis,
    server_start: Option<String>,
    /// When it was last heard, and had not been started anew.
    alive_at: Millis,
}

impl Writer {
    /// Sends the next request; `false` when none waits.
    async fn send_next(&mut self) -> anyhow::Result<bool> {
        let (readers, after) = (Arc::clone(&self.readers), self.after);
        let read = move || readers.read(|db| store::peek(db, after));
        let next = tokio::task::spawn_blocking(read).await.context("reading the outbox")??;
        let Some(Waiting { id, samples, body }) = next else { return Ok(false) };
        let body = bytes::Bytes::from(body);
        let request = self.client.post(&self.url).body(body.clone());
        let request = request.header("content-encoding", "snappy").header("content-type", "application/x-protobuf");
        let response = request.header("x-prometheus-remote-write-version", "0.1.0").send().await.context("sending samples")?;
        let status = response.status();
        if status.is_success() {
            self.victoria.has_taken(&body, clock::now());
            self.metrics.add("ward_remote_write_samples_total", "", samples);
        } else {
            let text: String = response.text().await.unwrap_or_default().chars().take(300).collect();
            if status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 408 {
                bail!("{status}: {text}");
            }
            // It will never take this one, and what comes after must not wait for it.
            self.metrics.add("ward_remote_write_rejected_total", "", samples);
            tracing::error!(%status, text, samples, "VictoriaMetrics refuses samples");
        }
        self.after = id;
        self.taken.push_back((id, clock::now()));
        Ok(true)
    }

    /// Whether the server has been started anew since it was last asked. A server that is killed and back between two
    /// requests would otherwise go unnoticed; one that doesn't say when it started is believed.
    async fn has_restarted(&mut self) -> bool {
        let now = clock::now();
        if self.taken.is_empty() || now.since(self.asked_at) < ASK_MS {
            return false;
        }
        self.asked_at = now;
        let Ok(response) = self.client.get(&self.metrics_url).send().await else { return false };
        let Ok(text) = response.text().await else { return false };
        let start = text.lines().find_map(|line| line.strip_prefix("vm_app_start_timestamp ")).map(str::to_owned);
        let before = std::mem::replace(&mut self.server_start, start);
        let has_restarted = before.is_some() && before != self.server_start;
        if !has_restarted {
            self.alive_at = now;
        }
        has_restarted
    }

    fn start_over(&mut self) {
        if let Some((first, _)) = self.taken.front() {
            self.after = first - 1;
        }
        self.taken.clear();
    }

    /// Lets go of what was taken long enough before the server was last heard: one that has died since may have lost it.
    async fn settle(&mut self) -> Result<(), Gone> {
        while let Some((id, at)) = self.taken.front().copied()
            && self.alive_at.since(at) >= SETTLE_MS
        {
            self.commands.send(Command::Sent(id)).await?;
            self.taken.pop_front();
        }
        Ok(())
    }
}

//! Sends what waits in the outbox to VictoriaMetrics, oldest first, until it has it. Where there are several, each has a
//! writer of its own.

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
use crate::victoria::{Endpoint, Victoria};

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

/// Sends to the endpoint at an index until the thread that owns the file is gone.
///
/// `victoria` is told of what is taken: it keeps answers.
pub async fn run(victoria: Arc<Victoria>, index: usize, readers: Arc<Readers>, commands: Sender, metrics: Arc<Metrics>) {
    let mut writer = Writer {
        victoria,
        index,
        client: client(),
        readers,
        commands,
        metrics,
        after: None,
        taken: VecDeque::new(),
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
                    tracing::info!(endpoint = writer.endpoint().name(), "VictoriaMetrics takes samples again");
                }
                writer.says_failing(false);
                (backoff, said) = (BACKOFF.0, false);
                Duration::ZERO
            }
            Ok(false) => {
                // While it could not be reached nobody knows whether that is all.
                writer.endpoint().set_behind(said);
                IDLE
            }
            Err(error) => {
                writer.endpoint().set_behind(true);
                writer.says_failing(true);
                writer.metrics.add("ward_remote_write_errors_total", writer.endpoint().label(), 1);
                if !said {
                    tracing::warn!(
                        endpoint = writer.endpoint().name(),
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
            let endpoint = writer.endpoint();
            endpoint.set_behind(true);
            tracing::warn!(
                endpoint = endpoint.name(),
                "VictoriaMetrics has been started anew: the newest samples are sent again"
            );
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
    client: reqwest::Client,
    readers: Arc<Readers>,
    commands: Sender,
    metrics: Arc<Metrics>,
    victoria: Arc<Victoria>,
    /// Which of the endpoints it writes to.
    index: usize,
    /// The last request that was sent; unknown until the file has said it.
    after: Option<i64>,
    taken: VecDeque<(i64, Millis)>,
    asked_at: Millis,
    server_start: Option<String>,
    /// When it was last heard, and had not been started anew.
    alive_at: Millis,
}

impl Writer {
    fn endpoint(&self) -> &Endpoint {
        &self.victoria.endpoints()[self.index]
    }

    fn says_failing(&self, is_failing: bool) {
        self.metrics.set("ward_remote_write_failing", self.endpoint().label(), f64::from(u8::from(is_failing)));
    }

    /// Sends the next request; `false` when none waits.
    async fn send_next(&mut self) -> anyhow::Result<bool> {
        let (readers, known, name) = (Arc::clone(&self.readers), self.after, self.endpoint().name().to_owned());
        let read = move || {
            readers.read(|db| {
                let after = known.map_or_else(|| store::outbox_through(db, &name), Ok)?;
                Ok((after, store::peek(db, after)?))
            })
        };
        let (after, next) = tokio::task::spawn_blocking(read).await.context("reading the outbox")??;
        self.after = Some(after);
        let Some(Waiting { id, samples, body }) = next else { return Ok(false) };
        let body = bytes::Bytes::from(body);
        let request = self.client.post(format!("{}/api/v1/write", self.endpoint().url())).body(body.clone());
        let request = request.header("content-encoding", "snappy").header("content-type", "application/x-protobuf");
        let response = request.header("x-prometheus-remote-write-version", "0.1.0").send().await.context("sending samples")?;
        let status = response.status();
        if status.is_success() {
            self.victoria.has_taken(&body, clock::now()).await;
            self.metrics.add("ward_remote_write_samples_total", self.endpoint().label(), samples);
        } else {
            let text: String = response.text().await.unwrap_or_default().chars().take(300).collect();
            if status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 408 {
                bail!("{status}: {text}");
            }
            // It will never take this one, and what comes after must not wait for it.
            self.metrics.add("ward_remote_write_rejected_total", self.endpoint().label(), samples);
            tracing::error!(%status, text, samples, endpoint = self.endpoint().name(), "VictoriaMetrics refuses samples");
        }
        self.after = Some(id);
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
        let Ok(response) = self.client.get(format!("{}/metrics", self.endpoint().url())).send().await else { return false };
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
            self.after = Some(first - 1);
        }
        self.taken.clear();
    }

    /// Lets go of what was taken long enough before the server was last heard: one that has died since may have lost it.
    async fn settle(&mut self) -> Result<(), Gone> {
        while let Some((id, at)) = self.taken.front().copied()
            && self.alive_at.since(at) >= SETTLE_MS
        {
            self.commands.send(Command::Sent(self.index, id)).await?;
            self.taken.pop_front();
        }
        Ok(())
    }
}

//! Asks VictoriaMetrics. Selectors are made in one place, by id, with every value quoted.

use anyhow::{Context, bail};
use serde::Deserialize;
use shared::{DeviceId, Millis};

use crate::history::Point;
use crate::remote_write;

/// A server to ask.
#[derive(Clone)]
pub struct Victoria {
    url: String,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    values: Vec<(f64, String)>,
}

/// A PromQL selector of one device's metric.
pub fn selector(metric: &str, device: &DeviceId) -> String {
    format!("{metric}{{device_id={}}}", quote(device.as_str()))
}

/// A PromQL string literal.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

impl Victoria {
    /// A server at a base URL.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: remote_write::client() }
    }

    /// Round trips and loss of a device, a point a step; see [`Point`].
    ///
    /// # Errors
    /// When the server can't be asked, with what it says.
    pub async fn points(&self, device: &DeviceId, from: Millis, to: Millis, step_ms: i64) -> anyhow::Result<Vec<Point>> {
        let ask = |function: &'static str, metric| {
            self.range(format!("{function}({}[{step_ms}ms])", selector(metric, device)), from, to, step_ms)
        };
        let (loss, average, min, max) = tokio::try_join!(
            ask("avg_over_time", "device_ping_packet_loss"),
            ask("avg_over_time", "device_ping_rtt_ms"),
            ask("min_over_time", "device_ping_rtt_min_ms"),
            ask("max_over_time", "device_ping_rtt_max_ms"),
        )?;
        let at = |series: &[(Millis, f64)], at: Millis| series.iter().find(|(t, _)| *t == at).map(|(_, value)| *value);
        Ok(loss
            .iter()
            .map(|(t, loss)| Point {
                at: *t,
                packet_loss: *loss,
                rtt_min_ms: at(&min, *t),
                rtt_avg_ms: at(&average, *t),
                rtt_max_ms: at(&max, *t),
            })
            .collect())
    }

    /// One expression at the end of each step, told by the step's start.
    async fn range(&self, query: String, from: Millis, to: Millis, step_ms: i64) -> anyhow::Result<Vec<(Millis, f64)>> {
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        let parameters = [
            ("query", query),
            ("start", seconds(from.plus(step_ms).0)),
            ("end", seconds(to.0)),
            ("step", format!("{step_ms}ms")),
            // Late data may have changed what was cached, and the newest minute counts.
            ("nocache", "1".to_owned()),
            ("latency_offset", "1ms".to_owned()),
        ];
        let request = self.client.get(format!("{}/api/v1/query_range", self.url)).query(&parameters);
        let response = request.send().await.context("asking VictoriaMetrics")?;
        let status = response.status();
        let text = response.text().await.context("reading VictoriaMetrics' answer")?;
        let answer: Answer = serde_json::from_str(&text)
            .with_context(|| format!("VictoriaMetrics answers {status}: {}", text.chars().take(300).collect::<String>()))?;
        let Some(data) = answer.data.filter(|_| answer.status == "success") else {
            bail!("VictoriaMetrics answers {status}: {}", answer.error);
        };
        let values = data.result.into_iter().flat_map(|series| series.values);
        values
            .map(|(t, value)| Ok((Millis((t * 1000.0).round() as i64).plus(-step_ms), value.parse::<f64>().context("a value")?)))
            .filter(|point| point.as_ref().map_or(true, |(_, value)| value.is_finite()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_quoted() {
        let device = "vake.atm-1".parse().expect("a valid id");
        assert_eq!(selector("m", &device), "m{device_id=\"vake.atm-1\"}");
        assert_eq!(quote("a\"b\\.c\nd"), "\"a\\\"b\\\\.c\\nd\"");
    }
}

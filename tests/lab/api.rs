//! A client of the collector's API.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared::Millis;

use crate::mqtt::use_ring;
use crate::socket::Socket;

/// Devices asked for at a time: fewer than a large branch has, so that tests turn pages.
const PAGE: usize = 25;

/// The API of one collector.
#[derive(Clone)]
pub struct Api {
    address: String,
    token: String,
    http: reqwest::Client,
}

/// An interval in which a device was down, as the API says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// First miss, UTC in ms.
    pub from_ms: i64,
    /// First reply, unless it goes on.
    pub to_ms: Option<i64>,
}

impl Api {
    /// The API at `address`, such as `127.0.0.1:8080`.
    pub fn new(address: &str, token: &str) -> Self {
        Self { address: address.to_owned(), token: token.to_owned(), http: http() }
    }

    /// The body of a GET; anything but a 2xx is an error.
    pub async fn text(&self, path: &str) -> Result<String> {
        let response = self.http.get(format!("http://{}{path}", self.address)).bearer_auth(&self.token).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(text)
    }

    /// A request that shows the token, for what the other methods don't ask.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address)).bearer_auth(&self.token)
    }

    /// Where it listens, such as `127.0.0.1:8080`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The answer of a GET as JSON.
    pub async fn json(&self, path: &str) -> Result<Value> {
        let text = self.text(path).await?;
        serde_json::from_str(&text).with_context(|| format!("{path} answered {text}"))
    }

    /// All devices by id, page by page.
    pub async fn devices(&self) -> Result<BTreeMap<String, Value>> {
        let mut devices = BTreeMap::new();
        let mut path = format!("/api/v1/devices?limit={PAGE}");
        loop {
            let page = self.json(&path).await?;
            for device in page["devices"].as_array().context("a page has devices")? {
                let before = devices.insert(id(device)?, device.clone());
                ensure!(before.is_none(), "{} is on two pages", id(device)?);
            }
            match &page["next_cursor"] {
                Value::Null => {
                    let total = page["total"].as_u64().context("a page has the total")?;
                    ensure!(devices.len() as u64 == total, "{} devices on all pages, {total} in total", devices.len());
                    return Ok(devices);
                }
                cursor => path = format!("/api/v1/devices?limit={PAGE}&cursor={}", cursor.as_str().context("a cursor is text")?),
            }
        }
    }

    /// One device with its outages.
    pub async fn device(&self, id: &str) -> Result<Value> {
        self.json(&format!("/api/v1/devices/{id}")).await
    }

    /// A device's status: `up`, `down` or `unknown`.
    pub async fn status(&self, id: &str) -> Result<String> {
        status(&self.device(id).await?)
    }

    /// A device's outages in the order of time.
    pub async fn outages(&self, id: &str) -> Result<Vec<Outage>> {
        let device = self.device(id).await?;
        let outage = |value: &Value| -> Result<Outage> {
            let to_ms = if value["to_ms"].is_null() { None } else { Some(moment(&value["to_ms"])?) };
            Ok(Outage { from_ms: moment(&value["from_ms"])?, to_ms })
        };
        let mut outages: Vec<Outage> =
            device["outages"].as_array().context("a device has outages")?.iter().map(outage).collect::<Result<_>>()?;
        outages.sort_by_key(|outage| outage.from_ms);
        Ok(outages)
    }

    /// The dashboard's numbers.
    pub async fn stats(&self) -> Result<Value> {
        self.json("/api/v1/dashboard/stats").await
    }

    /// A device's history between two moments.
    pub async fn history(&self, id: &str, from_ms: i64, to_ms: i64) -> Result<Value> {
        self.json(&format!("/api/v1/devices/{id}/history?from={from_ms}&to={to_ms}")).await
    }

    /// The sum of a counter over all its labels, zero where it has never counted.
    pub async fn counter(&self, selector: &str) -> Result<f64> {
        let text = self.text("/metrics").await?;
        let (name, label) = selector.split_once('{').map_or((selector, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
        let ours = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label);
        let value = |line: &str| -> Result<f64> { Ok(line.rsplit(' ').next().context("a line has a value")?.parse()?) };
        text.lines().filter(ours).try_fold(0.0, |sum, line| Ok(sum + value(line)?))
    }

    /// A connection that gets all updates from now on.
    pub async fn websocket(&self) -> Result<Socket> {
        Socket::connect(&format!("ws://{}/ws/updates", self.address), &self.token).await
    }
}

/// A device's id.
pub fn id(device: &Value) -> Result<String> {
    Ok(device["id"].as_str().with_context(|| format!("no id in {device}"))?.to_owned())
}

/// A device's status.
pub fn status(device: &Value) -> Result<String> {
    Ok(device["status"].as_str().with_context(|| format!("no status in {device}"))?.to_owned())
}

/// A moment in ms: the API writes integer UTC milliseconds; RFC 3339 would do as well.
pub fn moment(value: &Value) -> Result<i64> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(text.parse::<Millis>()?.0)
}

pub(crate) fn http() -> reqwest::Client {
    use_ring();
    // What the environment says about proxies is not meant for loopback.
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build();
    client.expect("a client without special wishes can be built")
}

//! All branches come back at once: how long until the screen is right, and until nothing is missing.
//!
//! `--branches N` (128), `--hours H` (6), `--devices D` (7 a branch), `--victoria` (with VictoriaMetrics), `--json`.
//! With `ingest` as the first word the same backlogs go to the ledger's thread without a broker: deltas a second.
//!
//! Each branch is an agent's production outbox with hours of backlog, behind the back-off of its link, over a real
//! mosquitto to a real collector. Up to 500 branches have a connection each; of more than that, 100 share one, since one
//! process stands for all of them: then the broker's own work for connections is left out, and branches that share one
//! come back together.

#![expect(clippy::print_stderr, reason = "it says what it leaves out")]
#![allow(missing_docs, reason = "a program")]

mod broker;
mod ingest;
mod link;
mod site;
mod vmagent;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use ward_tests::collector::{Broker, CollectorSettings};
use ward_tests::figure::{Figure, print, quantile};
use ward_tests::program::Probe;
use ward_tests::{Api, Collector, Victoria, Watched, now_ms};

use broker::Mosquitto;
use link::{Link, Progress};
use site::{Past, Site, Told, estate};

/// Most branches with a connection of their own.
const OWN_CONNECTION_LIMIT: usize = 500;
/// Branches of one connection beyond that.
const CONNECTION_SHARE: usize = 100;
/// How long a storm may last.
const STORM_LIMIT: Duration = Duration::from_secs(900);

struct Arguments {
    branches: usize,
    hours: i64,
    devices: usize,
    victoria: bool,
    ingest: bool,
    json: bool,
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments { branches: 128, hours: 6, devices: 7, victoria: false, ingest: false, json: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse::<usize>().ok()).with_context(|| format!("{word} takes a number"));
        match word.as_str() {
            "--branches" => found.branches = number()?,
            "--hours" => found.hours = i64::try_from(number()?)?,
            "--devices" => found.devices = number()?,
            "ingest" => found.ingest = true,
            "--victoria" => found.victoria = true,
            "--json" => found.json = true,
            // What cargo adds for its own benches.
            "--bench" => {}
            other => bail!("{other} is unknown: --branches N --hours H --devices D --victoria --json"),
        }
    }
    ensure!(found.branches > 0 && found.devices > 0 && found.devices < 250, "at least one branch, and 1 to 249 devices in each");
    Ok(found)
}

/// What the API says: when each branch was first seen as current, and when all were.
async fn watch_screen(api: Api, branches: usize, down: u64, total: u64) -> Result<(Vec<i64>, i64)> {
    let mut seen: HashMap<String, i64> = HashMap::new();
    // A large list costs the collector more than it tells.
    let pause = Duration::from_millis(if branches > 1_000 { 1_000 } else { 100 });
    loop {
        tokio::time::sleep(pause).await;
        let listed = api.json("/api/v1/branches").await?;
        let now = now_ms();
        for branch in listed["branches"].as_array().context("a list")? {
            let is_known = branch["counts"]["unknown"].as_u64() == Some(0) && branch["contact"] == "connected";
            if is_known {
                seen.entry(branch["id"].as_str().context("an id")?.to_owned()).or_insert(now);
            }
        }
        if seen.len() == branches {
            let stats = api.stats().await?;
            if stats["down"].as_u64() == Some(down) && stats["up"].as_u64() == Some(total - down) {
                return Ok((seen.into_values().collect(), now_ms()));
            }
        }
    }
}

async fn storm(arguments: &Arguments) -> Result<Vec<Figure>> {
    let Arguments { branches, hours, devices, .. } = *arguments;
    let broker = Mosquitto::start().await?;
    let victoria = if arguments.victoria { Some(Victoria::start().await) } else { None };
    let collector = Collector::start(CollectorSettings {
        tables: String::new(),
        data_dir: None,
        report: None,
        broker: Broker::External(broker.access.clone()),
        victoria_metrics: victoria.iter().map(Victoria::url).collect(),
        probe: Probe { interval_ms: 2_000, timeout_ms: 500, retry_ms: 500, fall: 3, rise: 2 },
        silent_after: Duration::from_secs(30),
        estate: estate(branches, branches * devices),
    })
    .await;
    let watched = Watched::child("ward-collector")?;
    let mut rng = SmallRng::seed_from_u64(7);
    let now = now_ms();
    let mut sites: Vec<(usize, Site)> =
        (0..branches).map(|number| (number, Site::new(number, devices, Past::outage_of(hours), now, &mut rng))).collect();
    let down = sites.iter().map(|(_, site)| site.down()).sum();
    let told = sites.iter().fold(Told::default(), |sum, (_, site)| Told {
        entries: sum.entries + site.told.entries,
        deltas: sum.deltas + site.told.deltas,
    });
    let progress = Arc::new(Progress { branches: (0..branches).map(|_| Default::default()).collect(), ..Progress::default() });
    let (cpu_before, start_mb) = (watched.cpu_s()?, watched.peak_mb()?);
    watched.forget_peak()?;

    let share = if branches <= OWN_CONNECTION_LIMIT { 1 } else { CONNECTION_SHARE };
    let began = now_ms();
    let mut links = JoinSet::new();
    while !sites.is_empty() {
        let rest = sites.split_off(sites.len().min(share));
        let link = Link {
            name: sites[0].0.to_string(),
            access: broker.access.clone(),
            sites: std::mem::replace(&mut sites, rest),
            progress: Arc::clone(&progress),
            orders: mpsc::channel(1).1,
        };
        links.spawn(link.run());
    }
    let total = (branches * devices) as u64;
    let screen = tokio::spawn(watch_screen(collector.api.clone(), branches, down, total));
    let all_told = async {
        while progress.done.load(Ordering::Relaxed) < branches {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let limit = tokio::time::timeout(STORM_LIMIT, all_told).await;
    let done = progress.done.load(Ordering::Relaxed);
    ensure!(limit.is_ok(), "after {STORM_LIMIT:?} {done} of {branches} branches have told everything");
    let (mut shown, current) = tokio::time::timeout(STORM_LIMIT, screen).await.context("the screen is never right")???;

    let s = |ms: i64| ms as f64 / 1000.0;
    let (mut connected, mut history, mut own): (Vec<f64>, Vec<f64>, Vec<f64>) = Default::default();
    for (from, to) in &progress.branches {
        let (from, to) = (from.load(Ordering::Relaxed), to.load(Ordering::Relaxed));
        connected.push(s(from - began));
        history.push(s(to - began));
        own.push(s(to - from));
    }
    let mut live: Vec<f64> = shown.drain(..).map(|at| s(at - began)).collect();
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let busy = worst(&history) - connected.iter().copied().fold(f64::MAX, f64::min);
    let is_estate = branches == 128 && hours == 6;
    let figure = Figure::low;
    Ok(vec![
        figure("storm_live_current", s(current - began), "s", is_estate.then_some(10.0)),
        figure("storm_history_complete", worst(&history), "s", is_estate.then_some(120.0)),
        figure("storm_last_connected", worst(&connected), "s", None),
        figure("storm_branch_live_median", quantile(&mut live, 0.5), "s", None),
        figure("storm_branch_history_median", quantile(&mut own, 0.5), "s", None),
        figure("storm_branch_history_worst", worst(&own), "s", None),
        figure("storm_collector_start_peak", start_mb, "MB", None),
        figure("storm_collector_peak", watched.peak_mb()?, "MB", None),
        figure("storm_collector_cpu", watched.cpu_s()? - cpu_before, "s", None),
        figure("storm_entries", told.entries as f64 / busy, "/s", None),
        figure("storm_deltas", told.deltas as f64 / busy, "/s", None),
        figure("storm_deltas_told", told.deltas as f64, "", None),
        figure("storm_connections_lost", progress.lost.load(Ordering::Relaxed) as f64, "", None),
    ])
}

fn main() -> Result<ExitCode> {
    let arguments = arguments()?;
    let figures = if arguments.ingest {
        ingest::run(arguments.branches, arguments.devices, arguments.hours)?
    } else {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(storm(&arguments))?
    };
    let anchors = serde_json::json!({ "branches": arguments.branches, "hours": arguments.hours, "devices": arguments.devices });
    Ok(print(&figures, &anchors, arguments.json))
}

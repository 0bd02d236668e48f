//! What a collector answers with, and how fast, at 877, 10,000 and 100,000 devices: one table, from one run on one machine.
//!
//! `--devices N,N` (877,10000,100000), `--parts A,B` (reads, history, feed, cache, hostile, ingest: all), `--days N` (30) of
//! the past, `--json`. Where VictoriaMetrics is installed, histories are also told from it, by a second collector.
//!
//! The collector is a real process behind a real mosquitto. Its file is filled through its own ledger: each branch is an
//! agent's production outbox that comes back with the days that it has to tell of. All changes since then come the same way.
//! Clients are bare sockets that keep their connections, and run on the same cores as the collector: what they cost is in
//! the figures.

#![expect(clippy::print_stderr, reason = "it says how far it is")]
#![allow(missing_docs, reason = "a program")]

mod asker;
#[path = "../storm/broker.rs"]
mod broker;
mod cache;
mod feed;
mod history;
#[path = "../storm/ingest.rs"]
mod ingest;
#[path = "../storm/link.rs"]
mod link;
mod reads;
#[path = "../storm/site.rs"]
mod site;
#[path = "../storm/vmagent.rs"]
mod vmagent;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use ward_tests::figure::print;
use ward_tests::{Figure, Victoria};

use world::World;

/// The sizes that goals are agreed for.
pub(crate) const SMALL: usize = 877;
pub(crate) const LARGE: usize = 10_000;
const ALL_SIZES: [usize; 3] = [SMALL, LARGE, 100_000];
const ALL_PARTS: [&str; 6] = ["reads", "history", "feed", "cache", "hostile", "ingest"];
/// What is over when nothing comes any more for so long.
const SETTLED: Duration = Duration::from_secs(3);

struct Arguments {
    devices: Vec<usize>,
    parts: Vec<String>,
    days: i64,
    json: bool,
}

fn arguments() -> Result<Arguments> {
    let mut found =
        Arguments { devices: ALL_SIZES.to_vec(), parts: ALL_PARTS.map(str::to_owned).to_vec(), days: 30, json: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} takes a value"));
        match word.as_str() {
            "--devices" => {
                found.devices = value()?.split(',').map(str::parse).collect::<Result<_, _>>().context("numbers with commas")?
            }
            "--parts" => found.parts = value()?.split(',').map(str::to_owned).collect(),
            "--days" => found.days = value()?.parse()?,
            "--json" => found.json = true,
            // What cargo adds for its own benches.
            "--bench" => {}
            other => bail!("{other} is unknown: --devices N,N --parts A,B --days N --json"),
        }
    }
    ensure!(found.devices.iter().all(|devices| (1..=100_000).contains(devices)), "1 to 100,000 devices");
    let unknown = found.parts.iter().find(|part| !ALL_PARTS.contains(&part.as_str()));
    ensure!(unknown.is_none(), "parts are {}", ALL_PARTS.join(", "));
    ensure!((1..=90).contains(&found.days), "1 to 90 days");
    Ok(found)
}

/// A goal that was agreed for one size.
pub(crate) fn at(devices: usize, goals: &[(usize, f64)]) -> Option<f64> {
    goals.iter().find(|(size, _)| *size == devices).map(|(_, goal)| *goal)
}

async fn measure(arguments: &Arguments, devices: usize) -> Result<Vec<Figure>> {
    let wants = |part: &str| arguments.parts.iter().any(|wanted| wanted == part);
    // What history is measured at needs every minute of it; elsewhere the changes are enough.
    let is_whole = devices <= SMALL && wants("history");
    let world = World::start(devices, arguments.days, is_whole, false).await?;
    tokio::time::sleep(SETTLED).await;
    let mut figures =
        vec![Figure::low(format!("memory_{devices}"), world.collector.resident_mb()?, "MB", at(devices, &[(LARGE, 128.0)]))];
    if is_whole {
        figures.extend(history::measure(&world).await?);
    }
    if wants("reads") {
        figures.extend(reads::measure(&world).await?);
    }
    if wants("hostile") {
        figures.extend(reads::measure_beside_hostile(&world).await?);
    }
    if wants("cache") {
        figures.push(cache::measure(&world).await?);
    }
    if wants("feed") && devices <= LARGE {
        figures.extend(feed::measure(&world).await?);
    }
    figures.push(Figure::low(format!("memory_peak_{devices}"), world.collector.peak_mb()?, "MB", None));
    drop(world);
    if is_whole && Victoria::is_installed() {
        let world = World::start(devices, arguments.days, is_whole, true).await?;
        history::comes_from_victoria(&world).await?;
        figures.extend(history::measure(&world).await?);
    } else if is_whole {
        eprintln!("VictoriaMetrics isn't installed: histories aren't held against it");
    }
    Ok(figures)
}

fn main() -> Result<ExitCode> {
    let arguments = arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut figures = Vec::new();
    for devices in &arguments.devices {
        figures.extend(runtime.block_on(measure(&arguments, *devices))?);
    }
    if arguments.parts.iter().any(|part| part == "ingest") {
        eprintln!("ingest");
        figures.extend(ingest::run(128, 7, 6)?);
    }
    let anchors = json!({ "devices": arguments.devices, "days": arguments.days });
    Ok(print(&figures, &anchors, arguments.json))
}

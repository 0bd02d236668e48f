//! Histories of one device, and what they take of the file; beside VictoriaMetrics, where it runs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ward_tests::figure::quantile;
use ward_tests::{Figure, Victoria, now_ms};

use crate::asker::Asker;
use crate::world::World;

/// Questions of each range.
const TIMES: usize = 200;
/// Range, its length and step as the API has them, and the goal in ms.
const RANGES: [(&str, i64, u32, f64); 3] =
    [("24h", 86_400_000, 300, 2.0), ("7d", 604_800_000, 900, 3.0), ("30d", 2_592_000_000, 3_600, 5.0)];
/// What a history may take for each ms that VictoriaMetrics itself takes for its series.
const RATIO_GOAL: f64 = 1.3;
/// How long the past may take on its way to VictoriaMetrics.
const FILL_LIMIT: Duration = Duration::from_secs(1_800);
/// Bytes of the file that a month of a device may take.
const DEVICE_MONTH_GOAL_KB: f64 = 55.0;

pub(crate) async fn measure(world: &World) -> Result<Vec<Figure>> {
    eprintln!("histories");
    let n = world.devices;
    let mut figures = Vec::new();
    if world.victoria.is_none() {
        let month = world.device_month_bytes()? / 1_000.0;
        figures.push(Figure::low(format!("device_month_{n}"), month, "kB", Some(DEVICE_MONTH_GOAL_KB)));
    }
    let mut asker = Asker::connect(world.api.address()).await?;
    for (range, length_ms, step_s, goal) in RANGES {
        let (mut ours, mut alone) = (Vec::new(), Vec::new());
        for time in 0..TIMES {
            let device = world.any_device();
            // Each asks for another time, so no answer can be at hand.
            let to = now_ms() - i64::try_from(time)? - 1_000;
            let path = format!("/api/v1/devices/{device}/history?from={}&to={to}&step={}m", to - length_ms, step_s / 60);
            let answered = asker.get(&path).await?;
            anyhow::ensure!(answered.status == 200, "{path}: {}", answered.status);
            ours.push(answered.took.as_secs_f64() * 1_000.0);
            if let Some(victoria) = &world.victoria {
                alone.push(of_victoria(victoria, &device, (to - length_ms, to), step_s).await?);
            }
        }
        let (p95, alone) = (quantile(&mut ours, 0.95), quantile(&mut alone, 0.95));
        let source = if world.victoria.is_some() { "victoria" } else { "embedded" };
        let goal = world.victoria.is_none().then_some(goal);
        figures.push(Figure::low(format!("history_{range}_p50_{source}_{n}"), quantile(&mut ours, 0.5), "ms", None));
        figures.push(Figure::low(format!("history_{range}_p95_{source}_{n}"), p95, "ms", goal));
        if world.victoria.is_some() {
            figures.push(Figure::low(format!("history_{range}_p95_victoria_alone_{n}"), alone, "ms", None));
            figures.push(Figure::low(format!("history_{range}_to_victoria_alone_{n}"), p95 / alone, "", Some(RATIO_GOAL)));
        }
    }
    Ok(figures)
}

/// Waits until VictoriaMetrics has the past: as long as it lacks some of it, histories come from the collector's own file.
pub(crate) async fn comes_from_victoria(world: &World) -> Result<()> {
    eprintln!("VictoriaMetrics is given the past");
    let path = format!("/api/v1/devices/{}/history", world.next_device());
    let began = Instant::now();
    loop {
        if world.api.json(&path).await?["source"] == "victoria_metrics" {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < FILL_LIMIT, "VictoriaMetrics doesn't get what it is to have");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How long VictoriaMetrics itself takes for the series of a history, in ms: all four of them at once, as a chart would ask.
async fn of_victoria(victoria: &Victoria, device: &str, (from, to): (i64, i64), step_s: u32) -> Result<f64> {
    let host = victoria.url().strip_prefix("http://").context("a plain address")?.to_owned();
    let names = "device_ping_rtt_ms|device_ping_rtt_min_ms|device_ping_rtt_max_ms|device_ping_packet_loss";
    let query = format!(
        "avg_over_time%28%7B__name__%3D~%22{}%22%2Cdevice_id%3D%22{device}%22%7D%5B{step_s}s%5D%29%20keep_metric_names",
        names.replace('|', "%7C")
    );
    let path = format!("/api/v1/query_range?query={query}&start={}&end={}&step={step_s}s&nocache=1", from / 1_000, to / 1_000);
    let mut asker = Asker::connect(&host).await?;
    let began = Instant::now();
    let answered = asker.get(&path).await?;
    anyhow::ensure!(answered.status == 200, "VictoriaMetrics: {}", answered.status);
    Ok(began.elapsed().as_secs_f64() * 1_000.0)
}

//! What VictoriaMetrics has, whatever happens to it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ward_tests::collector::CollectorSettings;
use ward_tests::{Net, Victoria, eventually, lasting, now_ms};

use crate::world::{World, takes_down};

const MINUTE_MS: i64 = 60_000;

/// Longer than the collector keeps what VictoriaMetrics has taken (15 s).
const GONE: Duration = Duration::from_secs(20);

#[test]
fn what_victoria_metrics_took_just_before_it_was_killed_is_sent_again_when_it_comes_back() {
    let net = Net::new(1, 2);
    net.at_the_centre(async || {
        let mut world = World::start(&net, Duration::from_secs(30)).await;
        // Each minute's end brings samples, and one that is refused would show that it is gone. Without them nothing does.
        eventually(Duration::from_secs(90), "a minute has just begun", async || {
            let into_ms = now_ms() % MINUTE_MS;
            ensure!((3_000..12_000).contains(&into_ms), "{into_ms} ms of it are over");
            Ok(())
        })
        .await;
        takes_down(&world, 0).await;
        net.restore(1, 0);
        world.becomes("b1-d00", "up").await;
        lasting(Duration::from_millis(500)).await;
        world.victoria.kill();
        lasting(GONE).await;
        world.victoria.start_again().await;
        let outages = world.api().outages("b1-d00").await.expect("the API answers");
        let to_ms = outages.first().and_then(|outage| outage.to_ms).expect("it is over");
        eventually(Duration::from_secs(30), "VictoriaMetrics has the end of the outage", async || {
            has_status(&world.victoria, to_ms, 1.0).await
        })
        .await;
    });
}

#[test]
fn of_two_victoria_metrics_one_that_dies_holds_back_nobody_and_gets_what_it_missed() {
    let net = Net::new(1, 2);
    net.at_the_centre(async || {
        let second = Victoria::start().await;
        let also = |settings: &mut CollectorSettings| settings.victoria_metrics.push(second.url());
        let mut world = World::start_with(&net, Duration::from_secs(30), also, |_| {}).await;
        world.victoria.kill();
        takes_down(&world, 0).await;
        let outages = world.api().outages("b1-d00").await.expect("the API answers");
        let from_ms = outages.first().expect("it is down").from_ms;
        eventually(Duration::from_secs(30), "the one that lives has the outage", || has_status(&second, from_ms, 0.0)).await;
        let history = world.api().json("/api/v1/devices/b1-d01/history?time_range=1h").await.expect("the API answers");
        assert_eq!(history["source"], "victoria_metrics", "the one that lives is asked");
        let health = world.api().json("/health").await.expect("the API answers");
        let takes = |at: usize| health["victoria_metrics"]["endpoints"][at]["takes_samples"].clone();
        assert_eq!((takes(0), takes(1)), (false.into(), true.into()), "{health}");
        for metric in [
            "ward_deltas_total",
            "ward_ack_lag_seconds_count",
            "ward_remote_write_samples_total",
            "ward_remote_write_errors_total",
            "ward_remote_write_queue_bytes",
            "ward_ledger_reads_total",
            "api_request_duration_seconds_count",
            "cache_requests_total{cache=\"series\"}",
            "vm_query_duration_seconds_count",
            "ward_oldest_observation_seconds",
            "ward_ledger_lag_seconds",
            "ward_job_last_success_timestamp_seconds{job=\"tick\"}",
            "ward_job_last_success_timestamp_seconds{job=\"inventory\"}",
            "ward_job_last_success_timestamp_seconds{job=\"seal\"}",
        ] {
            assert!(world.api().counter(metric).await.expect("the API answers") > 0.0, "{metric} has not moved");
        }
        // What waits for one of them is still known after the collector has started anew.
        world.collector.start_again().await;
        world.victoria.start_again().await;
        eventually(Duration::from_secs(60), "the other has it as well", || has_status(&world.victoria, from_ms, 0.0)).await;
        eventually(Duration::from_secs(30), "both take samples", async || {
            let health = world.api().json("/health").await?;
            let endpoints = health["victoria_metrics"]["endpoints"].as_array().context("endpoints")?.clone();
            ensure!(endpoints.iter().all(|endpoint| endpoint["takes_samples"] == true), "{health}");
            Ok(())
        })
        .await;
    });
}

async fn has_status(victoria: &Victoria, at_ms: i64, value: f64) -> Result<()> {
    let series = victoria.export("device_ping_status{device_id=\"b1-d00\"}").await?;
    let samples = series.into_iter().next().context("no status")?.1;
    ensure!(samples.contains(&(at_ms, value)), "no {value} at {at_ms}: {samples:?}");
    Ok(())
}

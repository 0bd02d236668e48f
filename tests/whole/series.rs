//! What VictoriaMetrics has, whatever happens to it.

use std::time::Duration;

use anyhow::{Context, ensure};
use ward_tests::{Net, eventually, lasting, now_ms};

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
            let series = world.victoria.export("device_ping_status{device_id=\"b1-d00\"}").await?;
            let samples = series.into_iter().next().context("no status")?.1;
            ensure!(samples.contains(&(to_ms, 1.0)), "no sample at {to_ms}: {samples:?}");
            Ok(())
        })
        .await;
    });
}

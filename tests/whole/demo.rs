//! The demo: what a newcomer sees first.

use std::time::Duration;

use anyhow::ensure;
use ward_tests::{Demo, Net, eventually};

const MEMORY_LIMIT_BYTES: u64 = 300_000_000;

#[test]
fn the_demo_is_live_within_ten_seconds_and_stops_on_ctrl_c() {
    // A world without branches: the demo's ports are its own there.
    let net = Net::new(0, 0);
    net.at_the_centre(async || {
        let mut demo = Demo::start();
        eventually(Duration::from_secs(10), "devices of the demo are up", async || {
            let stats = demo.api.stats().await?;
            ensure!(stats["up"].as_u64() > Some(0), "{stats}");
            Ok(())
        })
        .await;
        let page = demo.api.text("/").await.expect("a page");
        assert!(page.to_lowercase().contains("<!doctype html"), "{page}");
        eventually(Duration::from_secs(60), "a fault of the demo's script is seen", async || {
            let stats = demo.api.stats().await?;
            ensure!(stats["down"].as_u64() > Some(0), "{stats}");
            Ok(())
        })
        .await;
        let bytes = demo.process().resident_bytes();
        assert!(bytes < MEMORY_LIMIT_BYTES, "{bytes} B");
        let status = demo.process().interrupt().await;
        assert!(status.success(), "{status}");
    });
}

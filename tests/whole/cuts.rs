//! A branch that nobody hears: its line or its power. What it is taken for, and what it turns out to be.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use ward_tests::clocks::other_boot;
use ward_tests::collector::CollectorSettings;
use ward_tests::{Change, Net, eventually, lasting, now_ms};

use crate::world::{SOON, World};

const SILENT_AFTER: Duration = Duration::from_secs(8);
const DEVICES: u8 = 4;

/// Waits until the branch can't be heard, and that is taken for the line until it is known better.
async fn is_silent(world: &World<'_>) {
    eventually(SOON, "the branch is silent", async || {
        let device = world.api().device("b1-d00").await?;
        let view = json!([device["status"], device["cause"], device["verdict"], device["is_provisional"]]);
        ensure!(view == json!(["unknown", "agent_silent", "wan_cut", true]), "{device}");
        let cut = &world.api().json("/api/v1/branches/b1").await?["cut"];
        ensure!(cut["verdict"] == "wan_cut" && cut["is_provisional"] == true && cut["to_ms"].is_null(), "{cut}");
        Ok(())
    })
    .await;
}

/// What the newest cut turned out to be, once the branch is back.
async fn final_cut(world: &World<'_>, count: usize) -> Value {
    world.all_up().await;
    let device = world.api().device("b1-d00").await.expect("the device");
    assert_eq!((&device["verdict"], &device["is_provisional"]), (&Value::Null, &json!(false)), "{device}");
    let told = eventually(SOON, "the cut is written down", async || {
        let told = world.api().json("/api/v1/branches/b1/cuts").await?;
        ensure!(told["cuts"].as_array().is_some_and(|cuts| cuts.len() == count), "{told}");
        Ok(told)
    })
    .await;
    eventually(SOON, "the branch tells the same", async || {
        let cut = &world.api().json("/api/v1/branches/b1").await?["cut"];
        ensure!(cut["is_provisional"] == false, "{cut}");
        ensure!((&cut["verdict"], &cut["reason"]) == (&told["cuts"][0]["verdict"], &told["cuts"][0]["reason"]), "{cut}");
        Ok(())
    })
    .await;
    told["cuts"][0].clone()
}

/// What a cut's reason says was seen meanwhile: for how many seconds, of how many, and what.
fn seen(cut: &Value) -> (u32, u32, String) {
    let reason = cut["reason"].as_str().unwrap_or_default();
    let told = reason.split_once("; in the ").and_then(|(_, told)| told.split_once(" s that the agent observed, "));
    let (spans, rest) = told.unwrap_or_else(|| panic!("{cut}"));
    let (observed, all) = spans.split_once(" of ").unwrap_or_else(|| panic!("{cut}"));
    let seconds = |text: &str| text.parse().unwrap_or_else(|_| panic!("{cut}"));
    (seconds(observed), seconds(all), rest.to_owned())
}

/// When a branch that fell silent at `began` was known to be so, in ms after that.
async fn known_after_ms(world: &World<'_>, device: &str, began: Change, limit: Duration) -> i64 {
    eventually(limit, &format!("{device} is not heard of"), async || {
        let device = world.api().device(device).await?;
        ensure!(device["cause"] == "agent_silent", "{device}");
        Ok(now_ms() - began.after_ms)
    })
    .await
}

#[test]
fn a_silent_branch_is_known_within_half_a_minute_and_on_a_metered_line_within_five() {
    let net = Net::new(2, 2);
    net.at_the_centre(async || {
        // As they are unless somebody sets them: signs of life each 24 s, or each 280 s.
        let change = |collector: &mut CollectorSettings| collector.report = Some("metered = [\"b2\"]");
        let world = World::start_with(&net, Duration::from_secs(30), change, |_| {}).await;
        let (usual, metered) = (net.wan_cut_silently(1), net.wan_cut_silently(2));
        // And what the collector's ticks and a busy machine take.
        let slack_ms = 5_000;
        let after_ms = known_after_ms(&world, "b1-d00", usual, Duration::from_secs(60)).await;
        assert!(after_ms <= 30_000 + slack_ms, "{after_ms} ms");
        assert_eq!(world.api().status("b2-d00").await.expect("the device"), "up", "its signs of life are rarer");
        let after_ms = known_after_ms(&world, "b2-d00", metered, Duration::from_secs(330)).await;
        assert!((60_000..=300_000 + slack_ms).contains(&after_ms), "{after_ms} ms");
    });
}

#[test]
fn a_cut_line_and_a_power_cut_are_told_apart_once_the_branch_is_back() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let state = tempfile::tempdir().expect("the folder for temporary files is writable");
        let place = |agent: &mut ward_tests::agent::AgentSettings| agent.state_dir = Some(state.path().to_owned());
        let mut world = World::start_with(&net, SILENT_AFTER, |_| {}, place).await;

        // The line, without word to anybody. The branch goes on, and a device falls silent in it for a while.
        net.wan_cut_silently(1);
        is_silent(&world).await;
        net.silence(1, 3);
        lasting(Duration::from_secs(4)).await;
        net.restore(1, 3);
        lasting(Duration::from_secs(4)).await;
        net.wan_restore(1);
        let cut = final_cut(&world, 1).await;
        assert_eq!(cut["verdict"], "wan_cut", "{cut}");
        let (observed, all, rest) = seen(&cut);
        assert!(observed == all && all >= 14, "the agent observed all of it: {cut}");
        assert_eq!(rest, "4 of 4 devices answered, 1 of them not all the time", "{cut}");

        // All of the branch at once: no goodbye, no last word of the agent's machine.
        net.wan_cut_silently(1);
        net.lan_cut(1);
        world.agents[0].process().kill_hard();
        is_silent(&world).await;
        net.lan_restore(1);
        lasting(Duration::from_secs(1)).await;
        net.wan_restore(1);
        let boot = other_boot("00000000-0000-4000-8000-000000000002", Duration::from_secs(2));
        world.agents[0].start_elsewhere(state.path(), boot);
        let cut = final_cut(&world, 2).await;
        assert_eq!(cut["verdict"], "power_cut", "{cut}");
        let (observed, all, rest) = seen(&cut);
        assert!(observed + 7 <= all, "nobody observed while the machine was off: {cut}");
        assert_eq!(rest, "4 of 4 devices answered", "{cut}");
        world.only_these_had_outages(&["b1-d03"]).await;
        world.surfaces_agree().await;
    });
}

//! A branch that nobody hears: its line or its power. What it is taken for, and what it turns out to be.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use ward_tests::clocks::other_boot;
use ward_tests::{Net, eventually, lasting};

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
    let branch = world.api().json("/api/v1/branches/b1").await.expect("the branch");
    assert_eq!(branch["cut"]["is_provisional"], false, "{branch}");
    assert_eq!((&branch["cut"]["verdict"], &branch["cut"]["reason"]), (&told["cuts"][0]["verdict"], &told["cuts"][0]["reason"]));
    told["cuts"][0].clone()
}

#[test]
fn a_cut_line_and_a_power_cut_are_told_apart_once_the_branch_is_back() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let state = tempfile::tempdir().expect("the folder for temporary files is writable");
        let place = |agent: &mut ward_tests::agent::AgentSettings| agent.state_dir = Some(state.path().to_owned());
        let mut world = World::start_with(&net, SILENT_AFTER, |_| {}, place).await;

        // The line, without word to anybody.
        net.wan_cut_silently(1);
        is_silent(&world).await;
        net.wan_restore(1);
        let cut = final_cut(&world, 1).await;
        assert_eq!(cut["verdict"], "wan_cut", "{cut}");

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
        world.only_these_had_outages(&[]).await;
        world.surfaces_agree().await;
    });
}

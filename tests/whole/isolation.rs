//! Whose fault silence is: the devices', or the agent's own.

use std::time::Duration;

use anyhow::{Context, ensure};
use ward_tests::estate::device_id;
use ward_tests::{Net, eventually, lasting, now_ms};

use crate::world::{Fault, SOON, World};

const SILENT_AFTER: Duration = Duration::from_secs(60);
const DEVICES: u8 = 6;

/// Waits until each of these devices has a status, and a cause.
async fn are(world: &World<'_>, status: &str, cause: Option<&str>, devices: std::ops::Range<u8>) {
    eventually(SOON, &format!("devices {devices:?} are {status}, {cause:?}"), async || {
        for i in devices.clone() {
            let device = world.api().device(&device_id(1, i)).await?;
            ensure!(device["status"] == status && device["cause"].as_str() == cause, "{device}");
        }
        Ok(())
    })
    .await;
}

#[test]
fn an_agent_whose_cable_is_pulled_says_that_it_knows_nothing_and_no_device_was_down() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let world = World::start(&net, SILENT_AFTER).await;
        let began = net.silence(1, 0);
        world.becomes(&device_id(1, 0), "down").await;
        net.lan_cut(1);
        are(&world, "unknown", Some("agent_isolated"), 0..DEVICES).await;
        lasting(Duration::from_secs(5)).await;
        net.lan_restore(1);
        are(&world, "up", None, 1..DEVICES).await;
        // The one that was down before still is, and has been all the time.
        are(&world, "down", None, 0..1).await;
        let ended = net.restore(1, 0);
        are(&world, "up", None, 0..1).await;
        world.has_one_outage(&device_id(1, 0), &Fault { began, ended }).await;
        world.only_these_had_outages(&[&device_id(1, 0)]).await;
        world.surfaces_agree().await;
    });
}

#[test]
fn devices_that_are_all_silent_are_down_as_long_as_the_centre_can_be_reached() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let world = World::start(&net, SILENT_AFTER).await;
        let began: Vec<_> = (0..DEVICES).map(|i| net.silence(1, i)).collect();
        are(&world, "down", None, 0..DEVICES).await;
        let ended: Vec<_> = (0..DEVICES).map(|i| net.restore(1, i)).collect();
        are(&world, "up", None, 0..DEVICES).await;
        for i in 0..DEVICES {
            let fault = Fault { began: began[usize::from(i)], ended: ended[usize::from(i)] };
            world.has_one_outage(&device_id(1, i), &fault).await;
        }
    });
}

#[test]
fn a_dead_switch_takes_no_agent_for_isolated_whose_broker_answers() {
    const MANY: u8 = 20;
    let net = Net::new(1, MANY);
    net.at_the_centre(async || {
        // As in an estate: they are asked over two seconds, and so are their silences told.
        let usual = ward_tests::program::Probe { interval_ms: 2_000, timeout_ms: 450, ..crate::world::PROBE };
        let world = World::start_with(&net, SILENT_AFTER, |collector| collector.probe = usual, |_| {}).await;
        let began_ms = now_ms();
        (0..MANY).for_each(|i| {
            net.silence(1, i);
        });
        are(&world, "down", None, 0..MANY).await;
        for i in 0..MANY {
            let history = world.api().history(&device_id(1, i), began_ms, now_ms()).await.expect("a history");
            let intervals = history["intervals"].as_array().expect("a history has intervals");
            assert!(intervals.iter().all(|interval| interval["cause"] != "agent_isolated"), "{history}");
        }
    });
}

#[test]
fn an_agent_that_nobody_answers_any_more_knows_nothing_of_its_devices() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let world = World::start(&net, SILENT_AFTER).await;
        net.wan_cut_silently(1);
        (0..DEVICES).for_each(|i| {
            net.silence(1, i);
        });
        let began_ms = now_ms();
        lasting(Duration::from_secs(12)).await;
        (0..DEVICES).for_each(|i| {
            net.restore(1, i);
        });
        lasting(Duration::from_secs(3)).await;
        net.wan_restore(1);
        are(&world, "up", None, 0..DEVICES).await;
        world.only_these_had_outages(&[]).await;
        for i in 0..DEVICES {
            eventually(SOON, "the ledger knows how long nobody could say", async || {
                let history = world.api().history(&device_id(1, i), began_ms - 1_000, now_ms()).await?;
                let intervals = history["intervals"].as_array().context("a history has intervals")?;
                let isolated = intervals.iter().find(|interval| interval["cause"] == "agent_isolated");
                let isolated = isolated.with_context(|| format!("it was never isolated: {history}"))?;
                let ms = |key: &str| isolated[key].as_i64().context("a moment");
                ensure!((9_000..16_000).contains(&(ms("to_ms")? - ms("from_ms")?)), "{isolated}");
                Ok(())
            })
            .await;
        }
    });
}

//! What an agent says of its devices beyond up and down: whose fault it is, what it saw, which box answers.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use ward_tests::estate::device_id;
use ward_tests::{Net, eventually};

use crate::world::{SOON, World};

const SILENT_AFTER: Duration = Duration::from_secs(60);
/// A router, a switch, three devices on it, and another router.
const DEVICES: u8 = 6;

/// Waits until a device has a status and a verdict.
async fn is(world: &World<'_>, device: u8, status: &str, verdict: Option<&str>) {
    eventually(SOON, &format!("device {device} is {status}, {verdict:?}"), async || {
        let device = world.api().device(&device_id(1, device)).await?;
        ensure!(device["status"] == status && device["verdict"].as_str() == verdict, "{device}");
        Ok(())
    })
    .await;
}

async fn post(world: &World<'_>, path: &str, body: Value) -> Value {
    let answer = world.api().request(Method::POST, path).json(&body).send().await.expect("the collector answers");
    let (status, text) = (answer.status(), answer.text().await.expect("a text"));
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).expect("JSON")
}

/// The newest transition of a device.
async fn newest(world: &World<'_>, device: u8) -> Value {
    let path = format!("/api/v1/devices/{}/transitions?limit=1", device_id(1, device));
    world.api().json(&path).await.expect("transitions")["transitions"][0].clone()
}

#[test]
fn a_dead_switch_a_dead_device_and_another_box_are_told_apart() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let world = World::start(&net, SILENT_AFTER).await;
        // The switch, and all that hangs on it.
        for device in 1..=4 {
            net.silence(1, device);
        }
        for device in 1..=4 {
            is(&world, device, "down", Some("lan_fault")).await;
        }
        is(&world, 0, "up", None).await;
        let told = newest(&world, 2).await;
        let probes = told["evidence"]["probes"].as_array().expect("probes").clone();
        let last = probes.last().expect("at least the misses");
        assert_eq!((&told["verdict"], &last["outcome"]), (&json!("lan_fault"), &json!("timeout")), "{told}");
        assert!(probes.iter().any(|probe| probe["outcome"] == "reply"), "{told}");
        let onset = told["onset_ms"].as_i64().expect("a date");
        let is_onset = |probe: &Value| (probe["at_ms"].as_i64().expect("a date") - onset).abs() <= 5;
        assert!(probes.iter().any(|probe| probe["outcome"] == "timeout" && is_onset(probe)), "the onset is a miss: {told}");
        assert!(told["evidence"]["carrier"] == true && told["evidence"]["mac"].is_string(), "{told}");
        for device in 1..=4 {
            net.restore(1, device);
        }
        is(&world, 3, "up", None).await;
        is(&world, 4, "up", None).await;

        net.silence(1, 3);
        is(&world, 3, "down", Some("device_down")).await;
        let path = |what: &str| format!("/api/v1/devices/{}/{what}", device_id(1, 3));
        let probed = post(&world, &path("probe"), json!({"count": 2})).await;
        assert_eq!((&probed["status"], &probed["probes"][1]["outcome"]), (&json!("down"), &json!("timeout")), "{probed}");
        assert!(probed["explanation"].as_str().is_some_and(|text| text.starts_with("the device does not answer")), "{probed}");
        net.restore(1, 3);
        is(&world, 3, "up", None).await;
        let way = post(&world, &path("traceroute"), json!({})).await;
        assert_eq!((&way["reached"], way["hops"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{way}");
        eventually(Duration::from_secs(60), "an agent is asked no more than it can do", async || {
            let answer = world.api().request(Method::POST, &path("traceroute")).send().await?;
            ensure!(answer.status() == 429, "{}", answer.status());
            Ok(())
        })
        .await;

        // All devices are addresses of one box.
        net.swap_boxes(1, "02:00:00:00:00:99");
        eventually(Duration::from_secs(30), "another box is noticed", async || {
            let device = world.api().device(&device_id(1, 2)).await?;
            ensure!(device["flags"] == json!(["identity_changed"]) && device["status"] == "up", "{device}");
            Ok(())
        })
        .await;
        let path = format!("/api/v1/devices/{}/identity", device_id(1, 2));
        let known = world.api().json(&path).await.expect("identities");
        assert_eq!(known["identities"][0]["mac"], "02:00:00:00:00:99", "{known}");
        assert!(known["identities"][0]["before"].is_string() && known["identities"][1]["before"].is_null(), "{known}");
        let accepted = world.api().request(Method::DELETE, &path).send().await.expect("the collector answers");
        assert_eq!(accepted.status(), 204);
        let device = world.api().device(&device_id(1, 2)).await.expect("the device");
        assert_eq!(device["flags"], json!([]), "{device}");
        world.surfaces_agree().await;
    });
}

#[test]
fn another_box_at_a_devices_address_or_beside_it_is_noticed_though_the_kernel_tells_nothing() {
    let net = Net::new(1, 3);
    net.at_the_centre(async || {
        let world = World::start(&net, SILENT_AFTER).await;
        for device in 0..3 {
            is(&world, device, "up", None).await;
        }
        let has_identity = async |device: u8| {
            let told = world.api().json(&format!("/api/v1/devices/{}/identity", device_id(1, device))).await?;
            told["identities"].as_array().filter(|all| !all.is_empty()).cloned().context("no box is known yet")
        };
        for device in 0..3 {
            eventually(Duration::from_secs(90), "each device's box is known", async || has_identity(device).await.map(drop))
                .await;
        }
        net.add_twin(1, 1, "02:00:00:00:00:77");
        eventually(Duration::from_secs(90), "two boxes at one address are noticed", async || {
            let device = world.api().device(&device_id(1, 1)).await?;
            ensure!(device["flags"] == json!(["identity_changed"]) && device["status"] == "up", "{device}");
            let newest = &has_identity(1).await?[0];
            ensure!(newest["is_contested"] == true && newest["mac"] == "02:00:00:00:00:77", "{newest}");
            Ok(())
        })
        .await;
        net.swap_boxes_quietly(1, "02:00:00:00:00:99");
        eventually(SOON, "another box is noticed with the first miss", async || {
            let device = world.api().device(&device_id(1, 2)).await?;
            ensure!(device["flags"] == json!(["identity_changed"]) && device["status"] == "up", "{device}");
            Ok(())
        })
        .await;
        world.only_these_had_outages(&[]).await;
    });
}

#[test]
fn a_branch_of_ipv6_alone_has_its_gateway_its_boxes_and_its_cable() {
    let net = Net::new(1, 4);
    net.at_the_centre(async || {
        net.add_ipv6(1);
        let mut estate = ward_tests::Estate::of(&net);
        for (i, row) in (0..).zip(&mut estate.rows) {
            row.ip = net.address_v6(1, i).into();
        }
        let world = World::start_with(&net, SILENT_AFTER, |collector| collector.estate = estate, |_| {}).await;
        net.silence_v6(1, 3);
        is(&world, 3, "down", Some("device_down")).await;
        let told = newest(&world, 3).await;
        let evidence = &told["evidence"];
        assert_eq!((&evidence["gateway"], &evidence["carrier"]), (&json!("reply"), &json!(true)), "{told}");
        assert!(evidence["mac"].is_string(), "{told}");
        net.restore_v6(1, 3);
        is(&world, 3, "up", None).await;

        net.swap_boxes(1, "02:00:00:00:00:98");
        eventually(Duration::from_secs(30), "another box is noticed", async || {
            let device = world.api().device(&device_id(1, 2)).await?;
            ensure!(device["flags"] == json!(["identity_changed"]) && device["status"] == "up", "{device}");
            Ok(())
        })
        .await;
        let path = format!("/api/v1/devices/{}/identity", device_id(1, 2));
        let known = world.api().json(&path).await.expect("identities");
        assert_eq!(known["identities"][0]["mac"], "02:00:00:00:00:98", "{known}");
        assert_eq!(known["identities"][0]["ip"], json!(net.address_v6(1, 2)), "{known}");

        net.lan_cut(1);
        for device in 0..4 {
            is(&world, device, "unknown", Some("agent_isolated")).await;
        }
        let told = newest(&world, 0).await;
        assert_eq!(told["evidence"]["carrier"], false, "{told}");
        net.lan_restore(1);
        for device in 0..4 {
            is(&world, device, "up", None).await;
        }
        world.only_these_had_outages(&[&device_id(1, 3)]).await;
        world.surfaces_agree().await;
    });
}

#[test]
fn a_sweep_tells_what_answers_and_is_unknown_and_which_devices_never_answered() {
    let net = Net::new(1, 3);
    net.at_the_centre(async || {
        let world = World::start(&net, SILENT_AFTER).await;
        let stranger = net.add_stranger(1, 200);
        // In the inventory, and nowhere else.
        let mut estate = ward_tests::Estate::of(&net);
        let (device, ip) = (device_id(1, 3), std::net::Ipv4Addr::new(192, 168, 1, 77).into());
        estate.rows.push(ward_tests::estate::Row { device: device.clone(), ip, ..estate.rows[0].clone() });
        world.collector.import(&estate.csv()).expect("a good inventory");
        world.becomes(&device, "down").await;
        let swept = post(&world, "/api/v1/branches/b1/discovery", json!({})).await;
        let unknown = swept["answered_unknown"].as_array().expect("a list");
        assert_eq!((unknown.len(), &unknown[0]["ip"]), (1, &json!(stranger)), "{swept}");
        assert!(unknown[0]["mac"].as_str().is_some_and(|mac| mac.len() == 17), "{swept}");
        assert_eq!((&swept["never_answered"], &swept["asked"]), (&json!([device]), &json!(254)), "{swept}");
    });
}

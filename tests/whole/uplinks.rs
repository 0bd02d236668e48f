//! A branch with two providers: each line is probed by its own way out.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use ward_tests::estate::{Row, device_id};
use ward_tests::{Net, eventually, lasting};

use crate::world::{Fault, SOON, World};

const SILENT_AFTER: Duration = Duration::from_secs(60);
/// A router and a switch.
const DEVICES: u8 = 2;

/// Each provider's line: name, status, whether it is in use, whether it is another than the first.
async fn lines(world: &World<'_>, expected: Value) {
    eventually(SOON, &format!("the lines are {expected}"), async || {
        let branch = world.api().json("/api/v1/branches/b1").await?;
        let line = |line: &Value| json!([line["name"], line["status"], line["is_active"], line["is_backup"]]);
        let lines: Value = branch["uplinks"].as_array().context("a branch has lines")?.iter().map(line).collect();
        ensure!(lines == expected, "{lines}");
        Ok(())
    })
    .await;
}

/// How long a provider's line was down and up, in ms.
async fn lost_ms(world: &World<'_>, device: &str, from_ms: i64) -> (i64, i64) {
    let path = format!("/api/v1/availability?by=device&device={device}&from={from_ms}");
    let told = world.api().json(&path).await.expect("the API answers");
    let ms = |key: &str| told["rows"][0][key].as_i64().unwrap_or_else(|| panic!("{key}: {told}"));
    (ms("down_ms"), ms("up_ms"))
}

/// A branch with the lines `fibre` of Silknet, asked by its name, and `lte` of Magti, asked from its address.
async fn two_lines(net: &Net) -> World<'_> {
    net.add_line(1, "fibre", 1);
    net.add_line(1, "lte", 2);
    let mut estate = ward_tests::Estate::of(net);
    for (i, address) in (0..).zip(Net::OUTSIDE) {
        let (device, branch, device_type) = (device_id(1, DEVICES + i), "b1".to_owned(), "uplink".to_owned());
        estate.rows.push(Row { device, branch, device_type, ip: address.into() });
    }
    let tables = "[probe.device.b1-d02]\nuplink = \"Silknet\"\ninterface = \"fibre\"\n\
                  [probe.device.b1-d03]\nuplink = \"Magti\"\nsource = \"172.31.2.2\"\n";
    let change = |collector: &mut ward_tests::collector::CollectorSettings| {
        (collector.tables, collector.estate) = (tables.to_owned(), estate);
    };
    World::start_with(net, SILENT_AFTER, change, |_| {}).await
}

#[test]
fn a_line_whose_modem_has_no_power_is_down_and_one_that_is_plugged_in_again_is_up() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let world = two_lines(&net).await;
        lines(&world, json!([["Silknet", "up", true, false], ["Magti", "up", false, true]])).await;
        let began = net.line_off(1, 1);
        lines(&world, json!([["Silknet", "down", false, false], ["Magti", "up", true, true]])).await;
        lasting(Duration::from_secs(4)).await;
        let ended = net.line_on(1, 1);
        // Its routes went with the carrier.
        net.line_unplug(1, "fibre", 1);
        net.line_plug(1, "fibre", 1);
        lines(&world, json!([["Silknet", "up", true, false], ["Magti", "up", false, true]])).await;
        world.has_one_outage("b1-d02", &Fault { began, ended }).await;
        net.line_unplug(1, "fibre", 1);
        lasting(Duration::from_secs(4)).await;
        assert_ne!(world.api().status("b1-d02").await.expect("the device"), "up");
        net.line_plug(1, "fibre", 1);
        lines(&world, json!([["Silknet", "up", true, false], ["Magti", "up", false, true]])).await;
        // Nobody else had anything to do with it.
        world.only_these_had_outages(&["b1-d02"]).await;
        for device in ["b1-d00", "b1-d01", "b1-d03"] {
            assert_eq!(world.api().status(device).await.expect("the device"), "up", "{device}");
        }
    });
}

#[test]
fn each_providers_line_is_probed_by_its_own_way_and_its_minutes_are_counted() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let world = two_lines(&net).await;
        let from_ms = ward_tests::now_ms();
        lines(&world, json!([["Silknet", "up", true, false], ["Magti", "up", false, true]])).await;

        // Its address is still there by the other line, and has to be down all the same.
        let began = net.line_cut(1, 1);
        lines(&world, json!([["Silknet", "down", false, false], ["Magti", "up", true, true]])).await;
        let told = world.api().device("b1-d02").await.expect("the device");
        assert_eq!(told["verdict"], "device_down", "{told}");
        lasting(Duration::from_secs(2)).await;
        let ended = net.line_restore(1, 1);
        lines(&world, json!([["Silknet", "up", true, false], ["Magti", "up", false, true]])).await;
        let fault = Fault { began, ended };
        let outage = world.has_one_outage("b1-d02", &fault).await;

        let began = net.line_cut(1, 2);
        lines(&world, json!([["Silknet", "up", true, false], ["Magti", "down", false, true]])).await;
        net.line_cut(1, 1);
        lines(&world, json!([["Silknet", "down", false, false], ["Magti", "down", false, true]])).await;
        // The branch is heard by a line that nobody probes, and its devices are what they are.
        assert_eq!(world.api().status("b1-d00").await.expect("the device"), "up");
        net.line_restore(1, 1);
        let ended = net.line_restore(1, 2);
        lines(&world, json!([["Silknet", "up", true, false], ["Magti", "up", false, true]])).await;
        let second = world.has_one_outage("b1-d03", &Fault { began, ended }).await;

        let (down_ms, up_ms) = lost_ms(&world, "b1-d03", from_ms).await;
        assert_eq!(down_ms, second.to_ms.expect("it is over") - second.from_ms);
        assert!(up_ms > 0);
        assert!(lost_ms(&world, "b1-d02", from_ms).await.0 > outage.to_ms.expect("it is over") - outage.from_ms);
        world.only_these_had_outages(&["b1-d02", "b1-d03"]).await;
    });
}

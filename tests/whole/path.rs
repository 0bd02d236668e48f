//! From a ping to the screen: outages look the same on every surface, and as they were.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use ward_tests::api::{Outage, moment};
use ward_tests::collector::CollectorSettings;
use ward_tests::estate::device_id;
use ward_tests::socket::Update;
use ward_tests::victoria::Series;
use ward_tests::{Follower, Net, eventually, now_ms};

use crate::world::{Fault, PROBE, SOON, World, is_at, takes_down};

/// Between a verdict and its arrival at a screen.
const DELIVERY_MS: i64 = 1_500;

#[test]
fn a_device_that_somebody_watches_tells_its_quality_every_few_seconds() {
    let net = Net::new(1, 3);
    net.at_the_centre(async || {
        // Of others it comes every ten minutes.
        let change = |collector: &mut CollectorSettings| collector.report = Some("qualities = \"600s\"");
        let world = World::start_with(&net, Duration::from_secs(30), change, |_| {}).await;
        let mut socket = world.api().websocket().await.expect("live updates");
        socket.snapshot().await.expect("a snapshot");
        let watched = device_id(1, 1);
        socket.say(&json!({ "type": "watch", "devices": [watched] })).await.expect("it listens");
        let (mut told, mut spans_ms) = (0, 0);
        let listen = async {
            while told < 6 {
                let message = socket.next().await.expect("live updates");
                if message["type"] != "watched" {
                    continue;
                }
                let devices = message["devices"].as_array().expect("a list");
                assert!(devices.len() == 1 && devices[0]["id"] == watched.as_str(), "nobody watches others: {message}");
                let device = &devices[0];
                let has_answered = device["sent"].as_u64() > device["lost"].as_u64() && device["rtt_ms"].is_number();
                assert!(has_answered, "it answers all the time: {message}");
                told += 1;
                spans_ms += device["span_ms"].as_u64().expect("a time");
            }
        };
        // Twelve seconds, on a machine that has time for them.
        tokio::time::timeout(Duration::from_secs(40), listen).await.expect("every few seconds");
        assert!((6_000..=40_000).contains(&spans_ms), "{spans_ms} ms are told of, without a hole");
    });
}

#[test]
fn ten_of_sixty_devices_fall_silent_and_every_surface_says_when() {
    let net = Net::new(1, 60);
    net.at_the_centre(async || {
        let world = World::start(&net, Duration::from_secs(30)).await;
        let from_ms = now_ms();
        let follower = Follower::follow(world.api().websocket().await.expect("connected")).await.expect("a snapshot");
        let devices: Vec<u8> = (0..10).map(|n| n * 6).collect();

        // Each falls silent when the one before is known to be down, and comes back two later: three are down at a time.
        let mut began = Vec::new();
        let mut faults = BTreeMap::new();
        for (n, i) in devices.iter().copied().enumerate() {
            began.push((i, takes_down(&world, i).await));
            if n % 4 == 1 {
                world.surfaces_agree().await;
            }
            if let Some((i, began)) = n.checked_sub(2).map(|before| began[before]) {
                faults.insert(device_id(1, i), Fault { began, ended: net.restore(1, i) });
            }
        }
        for (i, began) in began.into_iter().skip(8) {
            faults.insert(device_id(1, i), Fault { began, ended: net.restore(1, i) });
        }
        world.all_up().await;
        world.surfaces_agree().await;

        for (device, fault) in &faults {
            let outage = world.has_one_outage(device, fault).await;
            watched(device, fault, &follower.updates(device).expect("the updates go on without a hole"));
            let history = world.api().history(device, from_ms - 60_000, now_ms()).await.expect("the API answers");
            assert_eq!(downs(&history).expect("intervals"), [outage], "the history of {device}");
        }
        let charted = eventually(SOON, "VictoriaMetrics has the ends of ten outages", async || {
            let series = world.victoria.query_range("device_ping_status{branch=\"b1\"}", from_ms - 60_000, now_ms(), 1).await?;
            let charted = series.iter().map(charted).collect::<Result<BTreeMap<_, _>>>()?;
            ensure!(charted.len() == world.devices().len(), "{} devices", charted.len());
            let over = charted.values().filter(|outages| outages.iter().any(|outage| outage.to_ms.is_some())).count();
            ensure!(over == faults.len(), "{over} outages that are over");
            Ok(charted)
        })
        .await;
        for (device, outages) in &charted {
            match faults.get(device) {
                Some(fault) => {
                    assert_eq!(outages.len(), 1, "{device}: {outages:?}");
                    // A sample shows at the next full second.
                    let to_ms = outages[0].to_ms.map(|ms| ms - 500);
                    fault.check(&format!("the outage of {device} in VictoriaMetrics"), outages[0].from_ms - 500, to_ms);
                }
                None => {
                    assert_eq!(outages, &[], "{device} answered all the time");
                    let updates = follower.updates(device).expect("the updates go on without a hole");
                    assert!(updates.iter().all(|update| update.device["status"] == "up"), "{device}: {updates:?}");
                }
            }
        }
        world.only_these_had_outages(&faults.keys().map(String::as_str).collect::<Vec<_>>()).await;
    });
}

/// The live updates brought a fault's beginning and end in time and with the right dates.
fn watched(device: &str, fault: &Fault, updates: &[Update]) {
    let first = |status: &str, from: usize| {
        let found = updates.iter().enumerate().skip(from).find(|(_, update)| update.device["status"] == status);
        found.unwrap_or_else(|| panic!("no update said that {device} is {status}: {updates:?}"))
    };
    let (at, down) = first("down", 0);
    let (_, up) = first("up", at);
    for (update, change) in [(down, fault.began), (up, fault.ended)] {
        let status = &update.device["status"];
        let since = moment(&update.device["since"]).expect("a device has a since");
        is_at(&format!("that {device} is {status} in the live updates"), since, change);
        let late_ms = update.arrived_ms - change.after_ms;
        assert!(late_ms <= PROBE.verdict_ms() + DELIVERY_MS, "that {device} is {status} arrived {late_ms} ms after the fact");
    }
    let down_since = moment(&down.device["down_since"]).expect("a device that is down has a down_since");
    is_at(&format!("{device}'s down_since"), down_since, fault.began);
}

/// The intervals of a history in which the device was down.
fn downs(history: &Value) -> Result<Vec<Outage>> {
    let intervals = history["intervals"].as_array().context("a history has intervals")?;
    let downs = intervals.iter().filter(|interval| interval["status"] == "down");
    downs
        .map(|interval| Ok(Outage { from_ms: moment(&interval["from_ms"])?, to_ms: Some(moment(&interval["to_ms"])?) }))
        .collect()
}

/// A device and its outages as its series shows them. Where a query finds no sample, nothing is said.
fn charted((labels, points): &Series) -> Result<(String, Vec<Outage>)> {
    for label in ["region", "device_type", "branch"] {
        ensure!(labels.contains_key(label), "no {label} among {labels:?}");
    }
    let mut outages: Vec<Outage> = Vec::new();
    for (ms, value) in points.iter().copied() {
        ensure!(value == 0.0 || value == 1.0, "a status of {value}");
        let open = outages.last_mut().filter(|outage| outage.to_ms.is_none());
        match (open, value == 0.0) {
            (None, true) => outages.push(Outage { from_ms: ms, to_ms: None }),
            (Some(outage), false) => outage.to_ms = Some(ms),
            (None, false) | (Some(_), true) => {}
        }
    }
    Ok((labels.get("device_id").context("a series has a device_id")?.clone(), outages))
}

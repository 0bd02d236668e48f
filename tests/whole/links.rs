//! Bad lines between a branch and the centre: connections that never last, and too little room for what waits.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use shared::delta::{Column, Minute, Qualities, Rtt};
use shared::{Body, BootId, DeviceId, Millis, StreamId, Uptime};
use ward_agent::buffer::{Buffer, GROUP_LIMIT_BYTES, Position};
use ward_agent::dating::Anchor;
use ward_agent::disk::Disk;
use ward_tests::estate::device_id;
use ward_tests::{Change, Follower, Net, Relay, eventually, lasting, now_ms};

use crate::truth::{Spell, has_outages};
use crate::world::{PROBE, World};

/// Long enough for a verdict in either direction.
const LASTING: Duration = Duration::from_millis(PROBE.verdict_ms().unsigned_abs() + 1_000);

/// How long a verdict may take to be shown over a slow line, in ms.
const DELIVERY_MS: i64 = 3_000;

/// Most bytes that a month of such a branch may take on a card.
const MONTH_LIMIT_BYTES: u64 = 16_000_000;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 3_600_000;

#[test]
fn connections_that_last_two_seconds_lose_no_outage_and_repeat_none() {
    let net = Net::new(1, 8);
    net.at_the_centre(async || {
        let mut relay = None;
        let through = |agent: &mut ward_tests::agent::AgentSettings| {
            agent.broker = relay.get_or_insert_with(|| Relay::start(&agent.broker)).access(&agent.broker);
        };
        let world = World::start_with(&net, Duration::from_secs(30), |_| {}, through).await;
        let mut relay = relay.expect("the one agent goes through it");
        relay.cut_every(Duration::from_secs(2));
        let began = Instant::now();
        let mut truth: Vec<Vec<Spell>> = vec![Vec::new(); 7];
        while began.elapsed() < cuts_last() {
            // Two at a time, in turn; the last device never.
            let n = truth.iter().map(Vec::len).sum::<usize>();
            let pair = [n % 7, (n + 1) % 7];
            let fell = pair.map(|i| net.silence(1, i.try_into().expect("small")));
            lasting(LASTING).await;
            for (i, fell) in pair.into_iter().zip(fell) {
                truth[i].push(Spell::of(fell, net.restore(1, i.try_into().expect("small"))));
            }
            lasting(LASTING).await;
        }
        let known = world.api().outages("b1-d00").await.expect("the API answers");
        assert!(!known.is_empty(), "not even the first outage has come through while connections broke");
        assert!(relay.accepted() > 5, "{} connections", relay.accepted());
        relay.leave_in_peace();
        world.all_up().await;
        for (i, truth) in (0..).zip(&truth) {
            has_outages(&world, &device_id(1, i), truth).await;
        }
        assert_eq!(world.api().outages("b1-d07").await.expect("the API answers"), [], "it answered all the time");
        world.surfaces_agree().await;
        let coverage = world.api().json("/api/v1/branches/b1/coverage").await.expect("the API answers");
        assert_eq!(coverage["gaps"], serde_json::json!([]), "nothing was lost");
    });
}

#[test]
fn while_a_months_backlog_drains_over_64_kbit_per_second_the_present_is_shown_at_once() {
    const DEVICES: u8 = 31;
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        leave_behind(folder.path(), DEVICES, 30);
        let bytes = size_on_disk(folder.path());
        assert!(bytes <= MONTH_LIMIT_BYTES, "a month takes {bytes} B");
        net.wan_rate(1, 64);
        let silent_after = Duration::from_secs(15);
        let place = |agent: &mut ward_tests::agent::AgentSettings| agent.state_dir = Some(folder.path().to_owned());
        let world = World::start_with(&net, silent_after, |_| {}, place).await;
        let follower = Follower::follow(world.api().websocket().await.expect("connected")).await.expect("a snapshot");
        let (before, carried) = (branch(&world).await, net.wan_bytes(1));
        let waiting = before["waiting"].as_u64().unwrap_or_default();
        assert!(waiting > 1_000, "{waiting} entries wait");

        let mut truth = Vec::new();
        for i in [0, 10, 20] {
            let fell = net.silence(1, i);
            is_shown(&world, i, "down", fell).await;
            let rose = net.restore(1, i);
            is_shown(&world, i, "up", rose).await;
            truth.push((i, Spell::of(fell, rose)));
            lasting(Duration::from_secs(10)).await;
        }
        for i in (0..DEVICES).filter(|i| truth.iter().all(|(silenced, _)| silenced != i)) {
            let updates = follower.updates(&device_id(1, i)).expect("the updates go on without a hole");
            assert!(updates.iter().all(|update| update.device["status"] == "up"), "it answered all the time: {updates:?}");
        }
        // The line is not wasted on repetitions.
        let (after, now_carried) = (branch(&world).await, net.wan_bytes(1));
        let drained = before["buffer_bytes"].as_u64().unwrap_or_default() - after["buffer_bytes"].as_u64().unwrap_or_default();
        let sent = now_carried.up_bytes - carried.up_bytes;
        assert!(drained > sent / 2, "{sent} bytes went up the line to drain {drained}; {before} {after}");

        net.wan_full_rate(1);
        eventually(Duration::from_secs(120), "the backlog is drained", async || {
            let branch = branch(&world).await;
            ensure!(branch["waiting"].as_u64().is_some_and(|waiting| waiting < 50), "{branch}");
            Ok(())
        })
        .await;
        for (i, spell) in truth {
            has_outages(&world, &device_id(1, i), &[spell]).await;
        }
        world.surfaces_agree().await;
    });
}

#[test]
fn on_a_metered_line_little_is_said_and_a_change_at_once() {
    let net = Net::new(1, 2);
    net.at_the_centre(async || {
        let metered = |collector: &mut ward_tests::collector::CollectorSettings| collector.report = Some("metered = [\"b1\"]");
        let world = World::start_with(&net, Duration::from_secs(30), metered, |_| {}).await;
        for _ in 0..2 {
            let fell = net.silence(1, 0);
            is_shown(&world, 0, "down", fell).await;
            let rose = net.restore(1, 0);
            is_shown(&world, 0, "up", rose).await;
        }
        // For longer than other branches may be silent; a few hundred bytes are what TCP and a word of life take.
        lasting(Duration::from_secs(5)).await;
        let before = net.wan_bytes(1);
        lasting(Duration::from_secs(40)).await;
        let said = net.wan_bytes(1).up_bytes - before.up_bytes;
        assert!(said < 1_000, "{said} bytes went up the line in 40 s in which nothing happened");
        assert_eq!(branch(&world).await["contact"], "connected", "it may be silent for minutes");
        assert_eq!(world.api().status(&device_id(1, 0)).await.expect("the API answers"), "up");
    });
}

/// How long connections are cut: a minute, or as many seconds as `WARD_CUTS_SECONDS` says.
fn cuts_last() -> Duration {
    let seconds = std::env::var("WARD_CUTS_SECONDS").map_or(Ok(60), |text| text.parse());
    Duration::from_secs(seconds.expect("WARD_CUTS_SECONDS is a number"))
}

/// Bytes that a folder takes on its disk.
fn size_on_disk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the folder is the test's own").map(|entry| entry.expect("readable"));
    let size = |entry: std::fs::DirEntry| match entry.metadata().expect("readable") {
        folder if folder.is_dir() => size_on_disk(&entry.path()),
        file => file.blocks() * 512,
    };
    entries.map(size).sum()
}

/// Waits until a change is shown, and says how long that took.
async fn is_shown(world: &World<'_>, i: u8, status: &str, change: Change) {
    world.becomes(&device_id(1, i), status).await;
    let late_ms = now_ms() - change.after_ms;
    assert!(
        late_ms <= PROBE.verdict_ms() + DELIVERY_MS,
        "that {} is {status} was shown {late_ms} ms after the fact",
        device_id(1, i)
    );
}

async fn branch(world: &World<'_>) -> Value {
    world.api().json("/api/v1/branches").await.expect("the API answers")["branches"][0].clone()
}

/// Leaves in a state folder what an agent of an earlier boot had seen in so many days without a link, in blocks of an hour.
fn leave_behind(state_dir: &Path, devices: u8, days: u64) {
    const BLOCK: u64 = 60;
    /// As an agent chooses it for round trips of 10 ms.
    const UNIT_US: u16 = 200;
    let mut random = SmallRng::seed_from_u64(1);
    let boot_at = Millis(now_ms()).plus(-i64::try_from((days + 1) * DAY_MS).expect("small"));
    let disk = Disk::new(state_dir, MONTH_LIMIT_BYTES);
    let limit_bytes = Disk::held_limit(MONTH_LIMIT_BYTES);
    let mut buffer = Buffer::open(disk, StreamId(0x5eed), BootId(0x5eed), limit_bytes, Uptime(0));
    buffer.dated(Anchor::exact(boot_at, Uptime(0)), None, Uptime(0));
    for block in 1..=days * DAY_MS / (BLOCK * MINUTE_MS) {
        let end = Uptime(block * BLOCK * MINUTE_MS);
        let mut minute = || {
            let avg_us = random.random_range(8_000..12_000);
            let rtt = Rtt { min_us: avg_us - 2_000, avg_us, max_us: avg_us + random.random_range(0..9_000), jitter_us: 500 };
            Minute { sent: 30, lost: 0, rtt: Some(rtt) }
        };
        let mut column = |i| {
            let device: DeviceId = device_id(1, i).parse().expect("a valid id");
            let minutes: Vec<Minute> = (0..BLOCK).map(|_| minute()).collect();
            Column::pack(device, &minutes, UNIT_US)
        };
        let first_end = Uptime(end.0 - (BLOCK - 1) * MINUTE_MS);
        for part in [0..devices / 2, devices / 2..devices] {
            let columns = part.map(&mut column).collect();
            buffer.append(Body::Qualities(Qualities { first_end, unit_us: UNIT_US, columns }), end);
        }
        buffer.observed(end);
        buffer.flush(end);
    }
    buffer.close(Uptime(days * DAY_MS));
    let level = buffer.level();
    assert!(!level.volatile && level.bytes > 1_000_000, "{level:?}");
    let mut after = Position::default();
    while let Some(chunk) = buffer.next(after, GROUP_LIMIT_BYTES, Uptime(days * DAY_MS)) {
        let is_thinned = chunk.group.deltas.iter().any(|delta| matches!(delta.body, Body::Gap(_)));
        assert!(!is_thinned, "{:?}", chunk.group);
        after = chunk.end;
    }
}

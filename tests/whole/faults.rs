//! What breaks, and comes back: nothing is lost, nothing is said twice, nothing false is believed.

use std::time::Duration;

use anyhow::{Context, ensure};
use shared::delta::Boot;
use shared::message::PresenceState;
use shared::wire::{Payload, decode, encode};
use shared::{
    Batch, Body, BootId, BranchId, Dating, Delta, DeviceId, Group, Lane, Millis, Presence, Status, StreamId, Transition, Uptime,
};
use ward_tests::{Mqtt, Net, eventually, lasting, now_ms};

use crate::world::{Fault, PROBE, SOON, World, is_at, statuses, takes_down};

const SILENT_AFTER: Duration = Duration::from_secs(30);

/// Long enough for a verdict, and for the agent to have written it down.
const CONFIRMED: Duration = Duration::from_millis(PROBE.verdict_ms().unsigned_abs() + 2_500);

#[test]
fn victoria_metrics_gets_what_happened_while_it_was_gone() {
    let net = Net::new(1, 3);
    net.at_the_centre(async || {
        let mut world = World::start(&net, SILENT_AFTER).await;
        world.victoria.kill();
        let killed_ms = now_ms();
        let began = takes_down(&world, 0).await;
        world.surfaces_agree().await;
        // It is gone for twenty seconds at least, and at the end of a minute.
        let minute_ms = (now_ms() + 1_000) / 60_000 * 60_000 + 60_000;
        eventually(Duration::from_secs(90), "twenty seconds and the end of a minute are over", async || {
            ensure!(now_ms() > (minute_ms + 2_000).max(killed_ms + 20_000), "not yet");
            Ok(())
        })
        .await;
        let ended = net.restore(1, 0);
        world.becomes("b1-d00", "up").await;
        let outage = world.has_one_outage("b1-d00", &Fault { began, ended }).await;
        world.victoria.start_again().await;

        // Qualities are reported each minute, and the writer may be waiting before its next try.
        eventually(Duration::from_secs(150), "the hole in VictoriaMetrics is filled", async || {
            let samples = async |metric: &str, device: &str| {
                let series = world.victoria.export(&format!("{metric}{{device_id=\"{device}\"}}")).await?;
                Ok::<_, anyhow::Error>(series.into_iter().next().with_context(|| format!("no {metric} of {device}"))?.1)
            };
            let down = samples("device_ping_status", "b1-d00").await?;
            ensure!(down.contains(&(outage.from_ms, 0.0)), "no sample at the outage's beginning, {}: {down:?}", outage.from_ms);
            ensure!(
                outage.to_ms.is_some_and(|to| down.contains(&(to, 1.0))),
                "no sample at its end, {:?}: {down:?}",
                outage.to_ms
            );
            ensure!(down.contains(&(minute_ms, 0.0)), "no sample of the minute {minute_ms}: {down:?}");
            let up = samples("device_ping_status", "b1-d01").await?;
            ensure!(up.contains(&(minute_ms, 1.0)), "no sample of the minute {minute_ms}: {up:?}");
            let rtt = samples("device_ping_rtt_ms", "b1-d01").await?;
            ensure!(rtt.iter().any(|(ms, _)| *ms == minute_ms), "no round trip of the minute {minute_ms}: {rtt:?}");
            let loss = samples("device_ping_packet_loss", "b1-d00").await?;
            ensure!(loss.iter().any(|(ms, _)| *ms == minute_ms), "no loss of the minute {minute_ms}: {loss:?}");
            Ok(())
        })
        .await;
        // A minute without a reply has no round trip, least of all one of zero.
        let rtt = world.victoria.export("device_ping_rtt_ms{device_id=\"b1-d00\"}").await.expect("it runs");
        for (ms, value) in rtt.iter().flat_map(|(_, samples)| samples) {
            assert!(*value > 0.0, "{value} at {ms}");
            let within = ms - 60_000 >= outage.from_ms && outage.to_ms.is_none_or(|to| *ms <= to);
            assert!(!within, "a round trip of the minute {ms}, in which nothing answered");
        }
    });
}

#[test]
fn a_broker_that_restarts_loses_no_outage() {
    let net = Net::new(1, 3);
    net.at_the_centre(async || {
        let mut world = World::start(&net, SILENT_AFTER).await;
        world.broker.kill();
        let began = [net.silence(1, 0), net.silence(1, 1)];
        lasting(CONFIRMED).await;
        let whole = Fault { began: began[1], ended: net.restore(1, 1) };
        lasting(CONFIRMED).await;
        world.broker.restart().await;
        world.becomes("b1-d00", "down").await;
        world.has_one_outage("b1-d01", &whole).await;

        let ended = net.restore(1, 0);
        world.broker.restart().await;
        world.has_one_outage("b1-d00", &Fault { began: began[0], ended }).await;
        world.all_up().await;
        world.surfaces_agree().await;
        world.only_these_had_outages(&["b1-d00", "b1-d01"]).await;
    });
}

#[test]
fn a_collector_killed_hard_forgets_nothing_and_counts_nothing_twice() {
    let net = Net::new(1, 5);
    net.at_the_centre(async || {
        let mut world = World::start(&net, SILENT_AFTER).await;
        let first = takes_down(&world, 0).await;
        // Killed right after it has heard of one, it never hears of the end of that and of all of another.
        world.collector.process().kill_hard();
        let began = [net.silence(1, 1), net.silence(1, 2)];
        lasting(CONFIRMED).await;
        let faults = [Fault { began: first, ended: net.restore(1, 0) }, Fault { began: began[0], ended: net.restore(1, 1) }];
        lasting(CONFIRMED).await;
        world.collector.start_again().await;
        world.becomes("b1-d02", "down").await;

        let ended = net.restore(1, 2);
        world.becomes("b1-d02", "up").await;
        world.collector.start_again().await;
        world.all_up().await;
        world.has_one_outage("b1-d00", &faults[0]).await;
        world.has_one_outage("b1-d01", &faults[1]).await;
        world.has_one_outage("b1-d02", &Fault { began: began[1], ended }).await;
        world.only_these_had_outages(&["b1-d00", "b1-d01", "b1-d02"]).await;
        world.surfaces_agree().await;
    });
}

#[test]
fn an_agent_killed_hard_behind_a_cut_wan_still_reports_what_it_had_confirmed() {
    let net = Net::new(1, 3);
    net.at_the_centre(async || {
        let mut world = World::start(&net, Duration::from_secs(60)).await;
        net.wan_cut_silently(1);
        let began = [net.silence(1, 0), net.silence(1, 1)];
        lasting(CONFIRMED).await;
        let over = Fault { began: began[0], ended: net.restore(1, 0) };
        lasting(CONFIRMED).await;
        assert_eq!(world.api().outages("b1-d00").await.expect("the API answers"), [], "the WAN is cut");
        world.agents[0].process().kill_hard();
        // The kernel would still deliver what the dead agent had given to its connection: that must end, too.
        world.broker.restart().await;
        net.wan_restore(1);
        world.agents[0].start_again();

        world.has_one_outage("b1-d00", &over).await;
        world.becomes("b1-d01", "down").await;
        let outages = world.api().outages("b1-d01").await.expect("the API answers");
        is_at("the beginning of the outage that goes on", outages.first().expect("an outage").from_ms, began[1]);
        net.restore(1, 1);
        world.all_up().await;
        world.only_these_had_outages(&["b1-d00", "b1-d01"]).await;
    });
}

#[test]
fn a_branch_that_is_cut_off_is_unknown_and_never_down() {
    let net = Net::new(2, 2);
    net.at_the_centre(async || {
        let world = World::start(&net, Duration::from_secs(10)).await;
        net.wan_cut(1);
        eventually(Duration::from_secs(40), "nobody can say what branch 1 is", async || {
            for id in ["b1-d00", "b1-d01"] {
                let device = world.api().device(id).await?;
                ensure!(device["status"] == "unknown" && device["cause"] == "agent_silent", "{device}");
            }
            Ok(())
        })
        .await;
        assert_eq!(world.api().status("b2-d00").await.expect("the API answers"), "up");
        world.surfaces_agree().await;
        net.wan_restore(1);
        world.all_up().await;
        world.only_these_had_outages(&[]).await;
    });
}

#[test]
fn garbage_on_a_branchs_topic_is_counted_and_changes_nothing() {
    let net = Net::new(2, 2);
    net.at_the_centre(async || {
        let mut world = World::start(&net, SILENT_AFTER).await;
        let before = statuses(world.api()).await.expect("the API answers");
        let mut rogue =
            Mqtt::connect("rogue", &world.broker.access(&world.centre)).await.expect("it has the collector's certificate");
        for (branch, reason, payload) in garbage() {
            let counter = match reason {
                Some(reason) => format!("ward_payloads_refused_total{{reason=\"{reason}\"}}"),
                None => "ward_payloads_refused_total".to_owned(),
            };
            let refused = world.api().counter(&counter).await.expect("metrics");
            rogue.publish(&Lane::Up.topic(&branch_of(branch)), false, payload).await.expect("the broker takes it");
            eventually(SOON, &format!("a payload of {branch} is refused, {reason:?}"), async || {
                let now = world.api().counter(&counter).await?;
                ensure!(now >= refused + 1.0, "{counter} {now}");
                Ok(())
            })
            .await;
        }
        assert!(world.collector.process().ended().is_none(), "it goes on");
        assert_eq!(statuses(world.api()).await.expect("the API answers"), before);
        world.only_these_had_outages(&[]).await;

        // And what is true is still believed.
        let began = takes_down(&world, 0).await;
        let ended = net.restore(1, 0);
        world.has_one_outage("b1-d00", &Fault { began, ended }).await;
    });
}

/// Payloads that must be refused: on which branch's topic, for which reason if the bytes alone give it, and the bytes.
fn garbage() -> Vec<(&'static str, Option<&'static str>, Vec<u8>)> {
    let good = encode(&forged("b1", "b1-d00")).expect("small");
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let presence = Presence { stream: StreamId(7), state: PresenceState::Lost };
    let mut senseless = good[..good.len() - 4].to_vec();
    senseless.extend([0xff; 30]);
    senseless.extend(crc32(&senseless));
    vec![
        ("b1", Some("checksum"), changed(|bytes| bytes.truncate(bytes.len() - 5))),
        ("b1", Some("short"), changed(|bytes| bytes.truncate(3))),
        ("b1", Some("short"), Vec::new()),
        ("b1", Some("checksum"), changed(|bytes| bytes[9] ^= 0x10)),
        ("b1", Some("version"), changed(|bytes| bytes[0] = 200)),
        ("b1", Some("kind"), encode(&presence).expect("small")),
        ("b1", Some("too_large"), vec![1; Batch::LIMIT_BYTES + 1]),
        ("b1", Some("malformed"), senseless),
        // What another branch says of itself, on this one's topic.
        ("b1", None, encode(&forged("b2", "b2-d00")).expect("small")),
        // A branch that is not in the inventory, on its own topic.
        ("b9", None, encode(&forged("b9", "b1-d00")).expect("small")),
    ]
}

#[test]
fn garbage_is_what_it_is_meant_to_be() {
    for (_, reason, payload) in garbage() {
        assert_eq!(decode::<Batch>(&payload).err().map(|error| error.reason()), reason);
    }
}

fn branch_of(text: &str) -> BranchId {
    text.parse().expect("a valid id")
}

/// A batch, good in itself, which says that a device is down.
fn forged(branch: &str, device: &str) -> Batch {
    let device: DeviceId = device.parse().expect("a valid id");
    let at = Uptime(3_600_000);
    let boot = Boot { boot: BootId(9), version: "0.0.0".to_owned(), previous: None };
    let down = Transition { device, from: Status::Up, to: Status::Down, onset: at, last_ok: None, verdict: None, evidence: None };
    let deltas = [Body::Boot(boot), Body::Transition(down)].map(|body| Delta { at, body }).into();
    Batch {
        branch: branch_of(branch),
        stream: StreamId(0x0bad_0bad),
        dating: Dating::Fixed { boot_at: Millis(now_ms() - 3_600_000), error_ms: 5 },
        oldest: 1,
        sent: Some(at),
        observed_through: at,
        group: Group { first: 1, deltas },
    }
}

/// The CRC-32 that ends a payload, bit by bit: a second opinion on the wire's own.
fn crc32(bytes: &[u8]) -> [u8; 4] {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    (!crc).to_le_bytes()
}

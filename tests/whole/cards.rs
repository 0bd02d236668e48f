//! What happens to the disks on which ward keeps things: power cuts, full and failing cards, cards that hang.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use ward_tests::agent::AgentSettings;
use ward_tests::api::moment;
use ward_tests::estate::device_id;
use ward_tests::{Card, Change, Follower, Net, eventually, lasting, now_ms};

use crate::truth::{Spell, Within, has_outages};
use crate::world::{PROBE, SOON, World, takes_down};

/// Size of a card. What an agent keeps in these tests takes a few hundred kB.
const CARD_MB: u32 = 32;

/// Long enough for a verdict, and two seconds on.
const CONFIRMED: Duration = Duration::from_millis(PROBE.verdict_ms().unsigned_abs() + 2_500);

/// Longer than an agent leaves a disk alone that has failed (10 s), and a verdict.
const TRIED_AGAIN: Duration = Duration::from_secs(16);

/// Devices enough that their changes don't fit into the block that the buffer's file has begun: else a full card takes
/// them.
const CROWD: Range<u8> = 4..64;

/// So many times more is written for four changes that have to wait than for eight that don't.
const WORN_LESS: u64 = 3;

/// How long a verdict may take to be shown, in ms.
const DELIVERY_MS: i64 = 2_000;

#[test]
fn what_was_confirmed_two_seconds_before_a_power_cut_in_the_branch_reaches_the_ledger_once() {
    let net = Net::new(1, 4);
    net.at_the_centre(async || {
        // They outlive the agent that uses them.
        let mut cards = vec![Card::new(CARD_MB)];
        let mut world = World::start_with(&net, Duration::from_secs(60), |_| {}, on_a_card(&cards[0])).await;
        let mut truth: [Vec<Spell>; 3] = Default::default();
        // The last change before the cut is unknown, half confirmed, or confirmed and perhaps not yet written.
        for before_cut_ms in [0, 1_000, PROBE.verdict_ms().unsigned_abs()] {
            net.wan_cut_silently(1);
            let (whole, open) = (net.silence(1, 0), net.silence(1, 1));
            lasting(CONFIRMED).await;
            let whole_ended = net.restore(1, 0);
            lasting(CONFIRMED).await;
            let late = net.silence(1, 2);
            lasting(Duration::from_millis(before_cut_ms)).await;
            let copy = cards.last().expect("the first one").power_cut();
            let cut_ms = now_ms();
            world.agents[0].process().kill_hard();
            // The kernel would still deliver what the dead agent had given to its connection: that must end, too.
            world.broker.restart().await;
            net.wan_restore(1);
            lasting(Duration::from_secs(2)).await;
            let start_ms = now_ms();
            world.agents[0].start_elsewhere(&copy.path().join("state"), Vec::new());
            cards.push(copy);
            world.becomes("b1-d01", "down").await;
            world.becomes("b1-d02", "down").await;
            let ended = [net.restore(1, 1), net.restore(1, 2)];
            world.all_up().await;

            truth[0].push(Spell::of(whole, whole_ended));
            truth[1].push(Spell::of(open, ended[0]));
            truth[2].push(Spell { began: Within::of_unseen(late, start_ms), ended: Within::of(ended[1]) });
            for (i, truth) in (0..).zip(&truth) {
                has_outages(&world, &device_id(1, i), truth).await;
            }
            let covered = coverage(&world).await;
            assert!(!covers(&covered, cut_ms + 1_000), "nobody observed anything at {}: {covered}", cut_ms + 1_000);
            assert!(covers(&covered, whole.after_ms), "somebody observed that: {covered}");
        }
        world.only_these_had_outages(&["b1-d00", "b1-d01", "b1-d02"]).await;
        world.surfaces_agree().await;
    });
}

#[test]
fn what_the_collector_has_acknowledged_survives_a_power_cut_and_nothing_counts_twice() {
    let net = Net::new(1, 8);
    net.at_the_centre(async || {
        let mut cards = vec![Card::new(64)];
        let data_dir = cards[0].path().join("data");
        let mut world =
            World::start_with(&net, Duration::from_secs(60), |collector| collector.data_dir = Some(data_dir), |_| {}).await;
        let mut truth: [Vec<Spell>; 7] = Default::default();
        for round in 0..3u8 {
            // Killed as soon as it has shown the one, while the others are arriving: what it has said until now is acknowledged.
            let others = [net.silence(1, 3), net.silence(1, 4), net.silence(1, 5)];
            let began = takes_down(&world, round).await;
            world.collector.process().kill_hard();
            let copy = cards.last().expect("the first one").power_cut();
            let missed = net.silence(1, 6);
            lasting(CONFIRMED).await;
            let ended = net.restore(1, round);
            world.collector.start_elsewhere(&copy.path().join("data")).await;
            cards.push(copy);
            for i in 3..7 {
                world.becomes(&device_id(1, i), "down").await;
            }
            truth[usize::from(round)].push(Spell::of(began, ended));
            for (i, began) in (3..).zip(others.into_iter().chain([missed])) {
                truth[usize::from(i)].push(Spell::of(began, net.restore(1, i)));
            }
            world.all_up().await;
            for (i, truth) in (0..).zip(&truth) {
                has_outages(&world, &device_id(1, i), truth).await;
            }
        }
        world.only_these_had_outages(&["b1-d00", "b1-d01", "b1-d02", "b1-d03", "b1-d04", "b1-d05", "b1-d06"]).await;
        world.surfaces_agree().await;
        let gaps = coverage(&world).await["gaps"].clone();
        assert_eq!(gaps, serde_json::json!([]), "nothing was lost");
    });
}

#[test]
fn while_the_link_is_there_outages_write_nothing_to_the_card() {
    let net = Net::new(1, 4);
    net.at_the_centre(async || {
        let card = Card::new(CARD_MB);
        let world = World::start_with(&net, Duration::from_secs(60), |_| {}, on_a_card(&card)).await;
        // The run, the config and the first dating are written; nothing is left for later.
        let before = card.written_bytes();
        let mut truth = Vec::new();
        for i in 0..4 {
            let began = takes_down(&world, i).await;
            let ended = net.restore(1, i);
            world.becomes(&device_id(1, i), "up").await;
            truth.push(Spell::of(began, ended));
        }
        let written = card.written_bytes() - before;
        for (i, spell) in (0..).zip(truth) {
            has_outages(&world, &device_id(1, i), &[spell]).await;
        }

        // What has to wait is written, each change by itself.
        net.wan_cut_silently(1);
        let before = card.written_bytes();
        for i in 0..2 {
            outages(&net, i..i + 1).await;
        }
        let waiting = card.written_bytes() - before;
        // On a machine that has too much to do an ack may come late, and one or the other change is written as well.
        assert!(
            written * WORN_LESS <= waiting,
            "{written} bytes for eight changes that were acknowledged at once, else {waiting}"
        );
    });
}

#[test]
fn a_full_card_in_the_branch_loses_nothing_and_heals_when_it_has_room() {
    a_harmed_card_loses_nothing_and_heals(Card::fill, |card| card.free_up());
}

#[test]
fn a_card_in_the_branch_that_has_become_read_only_loses_nothing_and_heals_when_it_is_good_again() {
    a_harmed_card_loses_nothing_and_heals(Card::read_only, Card::replace);
}

#[test]
fn a_card_in_the_branch_that_fails_loses_nothing_and_heals_when_it_is_good_again() {
    a_harmed_card_loses_nothing_and_heals(Card::fail, Card::replace);
}

fn a_harmed_card_loses_nothing_and_heals(harm: fn(&Card), heal: fn(&mut Card)) {
    let net = Net::new(1, CROWD.end);
    net.at_the_centre(async || {
        let mut card = Card::new(CARD_MB);
        let mut world = World::start_with(&net, Duration::from_secs(60), |_| {}, on_a_card(&card)).await;
        ensure_volatile(&world, false).await;
        harm(&card);

        // Entries have to wait, and nothing can be written.
        net.wan_cut_silently(1);
        let whole = outages(&net, CROWD).await;
        let open = net.silence(1, 1);
        lasting(CONFIRMED).await;
        net.wan_restore(1);
        ensure_volatile(&world, true).await;
        for i in CROWD {
            has_outages(&world, &device_id(1, i), &[whole[usize::from(i - CROWD.start)]]).await;
        }
        world.becomes("b1-d01", "down").await;
        let open = Spell::of(open, net.restore(1, 1));
        world.becomes("b1-d01", "up").await;
        has_outages(&world, "b1-d01", &[open]).await;

        // The link is there: probing and reporting go on.
        let began = takes_down(&world, 2).await;
        assert!(now_ms() - began.after_ms <= PROBE.verdict_ms() + DELIVERY_MS, "{} ms", now_ms() - began.after_ms);
        let reported = Spell::of(began, net.restore(1, 2));
        world.becomes("b1-d02", "up").await;

        // Once it is good again, what has to wait outlives the agent.
        heal(&mut card);
        net.wan_cut_silently(1);
        let began = net.silence(1, 3);
        lasting(TRIED_AGAIN).await;
        let kept = Spell::of(began, net.restore(1, 3));
        lasting(CONFIRMED).await;
        world.agents[0].process().kill_hard();
        world.broker.restart().await;
        net.wan_restore(1);
        world.agents[0].start_again();
        world.all_up().await;
        has_outages(&world, "b1-d03", &[kept]).await;
        has_outages(&world, "b1-d01", &[open]).await;
        has_outages(&world, "b1-d02", &[reported]).await;
        for i in CROWD {
            has_outages(&world, &device_id(1, i), &[whole[usize::from(i - CROWD.start)]]).await;
        }
        ensure_volatile(&world, false).await;
        assert_eq!(world.api().outages("b1-d00").await.expect("the API answers"), [], "it answered all the time");
        world.surfaces_agree().await;
    });
}

#[test]
fn a_full_card_that_has_room_again_is_said_to_be_good_while_the_link_is_there() {
    let net = Net::new(1, CROWD.end);
    net.at_the_centre(async || {
        let card = Card::new(CARD_MB);
        let world = World::start_with(&net, Duration::from_secs(10), |_| {}, on_a_card(&card)).await;
        card.fill();
        net.wan_cut_silently(1);
        outages(&net, CROWD).await;
        net.wan_restore(1);
        ensure_volatile(&world, true).await;
        world.all_up().await;
        card.free_up();
        // Nothing has to wait any more: an operator who sees the mark stay would replace a good card.
        ensure_volatile(&world, false).await;
    });
}

#[test]
fn while_a_card_in_the_branch_hangs_devices_stay_current_and_outages_are_reported() {
    let net = Net::new(1, 4);
    net.at_the_centre(async || {
        let silent_after = Duration::from_secs(10);
        let card = Card::new(CARD_MB);
        let world = World::start_with(&net, silent_after, |_| {}, on_a_card(&card)).await;
        let frozen = card.freeze();

        // What has to wait a moment is to be written, and the card doesn't take it.
        net.wan_cut_silently(1);
        let began = net.silence(1, 0);
        lasting(CONFIRMED).await;
        net.wan_restore(1);
        world.becomes("b1-d00", "down").await;
        world.becomes("b1-d03", "up").await;

        let follower = Follower::follow(world.api().websocket().await.expect("connected")).await.expect("a snapshot");
        let other = takes_down(&world, 1).await;
        assert!(now_ms() - other.after_ms <= PROBE.verdict_ms() + DELIVERY_MS, "{} ms", now_ms() - other.after_ms);
        lasting(2 * silent_after).await;
        for i in [2, 3] {
            let updates = follower.updates(&device_id(1, i)).expect("the updates go on without a hole");
            assert!(updates.iter().all(|update| update.device["status"] == "up"), "{updates:?}");
        }
        let spells = [Spell::of(began, net.restore(1, 0)), Spell::of(other, net.restore(1, 1))];
        world.all_up().await;
        drop(frozen);

        let after = takes_down(&world, 2).await;
        let after = Spell::of(after, net.restore(1, 2));
        world.all_up().await;
        for (i, spell) in (0..).zip(spells.into_iter().chain([after])) {
            has_outages(&world, &device_id(1, i), &[spell]).await;
        }
        world.only_these_had_outages(&["b1-d00", "b1-d01", "b1-d02"]).await;
    });
}

#[test]
fn a_card_that_hung_and_thawed_keeps_again_what_has_to_wait() {
    let net = Net::new(1, 3);
    net.at_the_centre(async || {
        let card = Card::new(CARD_MB);
        let mut world = World::start_with(&net, Duration::from_secs(60), |_| {}, on_a_card(&card)).await;
        net.wan_cut_silently(1);
        let frozen = card.freeze();
        let whole = outages(&net, 0..1).await;
        drop(frozen);
        let began = net.silence(1, 1);
        lasting(TRIED_AGAIN).await;
        let later = Spell::of(began, net.restore(1, 1));
        lasting(CONFIRMED).await;
        world.agents[0].process().kill_hard();
        world.broker.restart().await;
        net.wan_restore(1);
        world.agents[0].start_again();
        world.all_up().await;
        has_outages(&world, "b1-d00", &whole).await;
        has_outages(&world, "b1-d01", &[later]).await;
        world.only_these_had_outages(&["b1-d00", "b1-d01"]).await;
    });
}

#[test]
fn a_full_disk_at_the_centre_is_said_and_nothing_is_acknowledged_that_is_not_written() {
    let net = Net::new(1, 4);
    net.at_the_centre(async || {
        let silent_after = Duration::from_secs(10);
        let card = Card::new(64);
        let data_dir = card.path().join("data");
        let mut world = World::start_with(&net, silent_after, |collector| collector.data_dir = Some(data_dir), |_| {}).await;
        card.fill();
        let began = [net.silence(1, 0), net.silence(1, 1)];
        eventually(SOON, "the collector says that its ledger can't be written", async || {
            let health = world.api().json("/health").await?;
            let failed = health["ledger"]["failed_commits"].as_f64().unwrap_or_default();
            ensure!(health["status"] != "ok" && failed > 0.0, "{health}");
            Ok(())
        })
        .await;
        // Shown is what is written, and what is old is not shown as current: nobody may read that this one is up.
        eventually(2 * silent_after, "the device that fell silent is not shown as up", async || {
            let status = world.api().status("b1-d00").await?;
            ensure!(status != "up", "it is {status}");
            Ok(())
        })
        .await;
        let over = Spell::of(began[0], net.restore(1, 0));
        lasting(CONFIRMED).await;
        // What it had acknowledged without writing would be gone with it.
        world.collector.process().kill_hard();
        card.free_up();
        world.collector.start_again().await;
        world.becomes("b1-d01", "down").await;
        let other = Spell::of(began[1], net.restore(1, 1));
        world.all_up().await;
        has_outages(&world, "b1-d00", &[over]).await;
        has_outages(&world, "b1-d01", &[other]).await;

        // And without a restart.
        card.fill();
        let began = net.silence(1, 2);
        lasting(CONFIRMED + CONFIRMED).await;
        let ended = net.restore(1, 2);
        lasting(CONFIRMED).await;
        card.free_up();
        world.all_up().await;
        has_outages(&world, "b1-d02", &[Spell::of(began, ended)]).await;
        world.only_these_had_outages(&["b1-d00", "b1-d01", "b1-d02"]).await;
        world.surfaces_agree().await;
        assert_eq!(coverage(&world).await["gaps"], serde_json::json!([]), "nothing was lost");
    });
}

#[test]
fn a_buffer_whose_bytes_are_bent_is_put_aside_and_what_it_held_is_a_gap() {
    let net = Net::new(1, 3);
    net.at_the_centre(async || {
        let state = tempfile::tempdir().expect("the folder for temporary files is writable");
        let place = |agent: &mut AgentSettings| agent.state_dir = Some(state.path().to_owned());
        let mut world = World::start_with(&net, Duration::from_secs(60), |_| {}, place).await;
        net.wan_cut_silently(1);
        let cut_ms = now_ms();
        outages(&net, 0..1).await;
        world.agents[0].process().kill_hard();
        bend(&state.path().join("buffer"));
        world.broker.restart().await;
        net.wan_restore(1);
        world.agents[0].start_again();
        let began_ms = now_ms();

        eventually(SOON, "what is lost is a gap", async || {
            let covered = coverage(&world).await;
            let gaps = covered["gaps"].as_array().context("a coverage has gaps")?;
            let gap = gaps.iter().find(|gap| gap["reason"] == "corrupted").with_context(|| format!("none is: {covered}"))?;
            let (from, to) = (moment(&gap["from_ms"])?, moment(&gap["to_ms"])?);
            ensure!(from <= cut_ms + DELIVERY_MS && (began_ms..=now_ms()).contains(&to), "from {cut_ms} to {began_ms}: {gap}");
            ensure!(!covers(&covered, cut_ms + DELIVERY_MS), "nobody knows of {cut_ms}: {covered}");
            Ok(())
        })
        .await;
        // What comes after it is whole again.
        let began = takes_down(&world, 1).await;
        let after = Spell::of(began, net.restore(1, 1));
        world.all_up().await;
        has_outages(&world, "b1-d01", &[after]).await;
        world.only_these_had_outages(&["b1-d01"]).await;
        world.surfaces_agree().await;
    });
}

/// An agent that keeps its state on a card.
fn on_a_card(card: &Card) -> impl FnMut(&mut AgentSettings) + use<> {
    let state_dir = card.path().join("state");
    move |agent| agent.state_dir = Some(state_dir.clone())
}

/// Turns a bit in each block of every file of a buffer.
fn bend(folder: &Path) {
    let files = fs::read_dir(folder).expect("the agent keeps its buffer here").flatten().map(|entry| entry.path());
    let mut bent = 0;
    for file in files.filter(|path| path.is_file()) {
        let mut bytes = fs::read(&file).expect("the folder is the test's own");
        bytes.iter_mut().step_by(64).for_each(|byte| *byte ^= 0x10);
        bent += bytes.len();
        fs::write(&file, bytes).expect("the folder is the test's own");
    }
    assert!(bent > 0, "{} has files", folder.display());
}

/// An outage of each of these devices of branch 1, long enough at both ends to be confirmed.
async fn outages(net: &Net, devices: Range<u8>) -> Vec<Spell> {
    let began: Vec<Change> = devices.clone().map(|i| net.silence(1, i)).collect();
    lasting(CONFIRMED).await;
    let ended: Vec<Change> = devices.map(|i| net.restore(1, i)).collect();
    lasting(CONFIRMED).await;
    began.into_iter().zip(ended).map(|(began, ended)| Spell::of(began, ended)).collect()
}

/// Waits until the API says so of branch 1's buffer.
async fn ensure_volatile(world: &World<'_>, volatile: bool) {
    eventually(Duration::from_secs(45), &format!("buffer_volatile is {volatile}"), async || -> Result<()> {
        let branches = world.api().json("/api/v1/branches").await?;
        let branch = &branches["branches"][0];
        ensure!(branch["buffer_volatile"] == volatile, "{branch}");
        Ok(())
    })
    .await;
}

async fn coverage(world: &World<'_>) -> Value {
    world.api().json("/api/v1/branches/b1/coverage").await.expect("the API answers")
}

/// Whether a branch was observed at a moment.
fn covers(coverage: &Value, at_ms: i64) -> bool {
    let spans = coverage["covered"].as_array().expect("a coverage has spans");
    spans.iter().any(|span| span["from_ms"].as_i64().is_some_and(|from| from <= at_ms) && span["to_ms"].as_i64() > Some(at_ms))
}

#[test]
fn a_card_that_fails_with_something_on_it_silences_nobody() {
    a_harmed_card_with_something_on_it_silences_nobody(|card| {
        card.fail();
        None
    });
}

#[test]
fn a_card_that_hangs_with_something_on_it_silences_nobody() {
    a_harmed_card_with_something_on_it_silences_nobody(|card| Some(card.freeze()));
}

fn a_harmed_card_with_something_on_it_silences_nobody(harm: for<'a> fn(&'a Card) -> Option<ward_tests::card::Frozen>) {
    let net = Net::new(1, 4);
    net.at_the_centre(async || {
        let card = Card::new(CARD_MB);
        let world = World::start_with(&net, Duration::from_secs(10), |_| {}, on_a_card(&card)).await;
        net.wan_cut_silently(1);
        // TCP has given the connection up: what waits is in the buffer alone.
        lasting(Duration::from_secs(35)).await;
        let first = net.silence(1, 0);
        lasting(CONFIRMED).await;
        let _frozen = harm(&card);
        let second = net.silence(1, 1);
        lasting(CONFIRMED).await;
        net.wan_restore(1);
        eventually(Duration::from_secs(60), "what all devices are is shown", async || {
            for (i, status) in ["down", "down", "up", "up"].into_iter().enumerate() {
                let is = world.api().status(&device_id(1, i.try_into().expect("small"))).await?;
                ensure!(is == status, "device {i} is {is}");
            }
            Ok(())
        })
        .await;
        // What was written is sent from memory, and what came after it follows.
        for (i, began) in [(0, first), (1, second)] {
            let spell = Spell::of(began, net.restore(1, i));
            world.becomes(&device_id(1, i), "up").await;
            has_outages(&world, &device_id(1, i), &[spell]).await;
        }
    });
}

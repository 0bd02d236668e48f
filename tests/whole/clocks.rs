//! Clocks that are wrong in the branch: nothing is dated by them.

use std::time::Duration;

use ward_tests::agent::AgentSettings;
use ward_tests::api::moment;
use ward_tests::clocks::other_boot;
use ward_tests::{Net, WrongClock, lasting, now_ms};

use crate::truth::{Spell, Within, has_outages};
use crate::world::{PROBE, World, takes_down};

const DAY_S: i64 = 24 * 3_600;
const SILENT_AFTER: Duration = Duration::from_secs(30);

/// Long enough for a verdict, and for the agent to have written it down.
const CONFIRMED: Duration = Duration::from_millis(PROBE.verdict_ms().unsigned_abs() + 2_500);

/// How far a date may lie before the beginning of a test, in ms: a minute that had begun.
const EARLIER_MS: i64 = 120_000;

#[test]
fn an_agent_that_is_three_weeks_behind_and_jumps_dates_everything_right() {
    an_agent_by_a_wrong_clock_dates_everything_right(&WrongClock::off_by(-21 * DAY_S));
}

#[test]
fn an_agent_that_believes_in_1970_dates_everything_right() {
    an_agent_by_a_wrong_clock_dates_everything_right(&WrongClock::at_the_epoch());
}

/// From `clock`'s time it jumps to the right one, ahead, and back to where it was.
fn an_agent_by_a_wrong_clock_dates_everything_right(clock: &WrongClock) {
    let net = Net::new(1, 5);
    net.at_the_centre(async || {
        let began_ms = now_ms();
        let wrapped = |agent: &mut AgentSettings| agent.wrapper = clock.wrapper();
        let mut world = World::start_with(&net, SILENT_AFTER, |_| {}, wrapped).await;
        let log = world.agents[0].process().log();
        // Logs are dated by the C library's clock, as certificates are.
        assert!(!log.contains(&today(began_ms)), "the agent doesn't believe the wrong clock: {log}");

        // Each outage begins by one time and ends by another.
        let offsets = [0, 300 * DAY_S, -21 * DAY_S, -3_600];
        let mut truth = Vec::new();
        for (i, offset) in (0..4).zip(offsets) {
            let began = takes_down(&world, i).await;
            clock.set(offset);
            lasting(Duration::from_secs(2)).await;
            let ended = net.restore(1, i);
            world.all_up().await;
            truth.push(Spell::of(began, ended));
        }
        for (i, spell) in (0..).zip(&truth) {
            has_outages(&world, &format!("b1-d0{i}"), &[*spell]).await;
        }
        world.only_these_had_outages(&["b1-d00", "b1-d01", "b1-d02", "b1-d03"]).await;
        // And what an agent tells that is started anew by a wrong clock.
        clock.set(-30 * DAY_S);
        world.agents[0].start_again();
        world.all_up().await;
        let began = takes_down(&world, 4).await;
        let ended = net.restore(1, 4);
        world.all_up().await;
        has_outages(&world, "b1-d04", &[Spell::of(began, ended)]).await;
        everything_is_dated_within(&world, began_ms).await;
        world.surfaces_agree().await;
    });
}

#[test]
fn what_three_boots_have_seen_is_dated_right_though_their_uptimes_differ_and_one_never_heard_the_time() {
    let net = Net::new(1, 4);
    net.at_the_centre(async || {
        let began_ms = now_ms();
        let state = tempfile::tempdir().expect("the folder for temporary files is writable");
        let place = |agent: &mut AgentSettings| agent.state_dir = Some(state.path().to_owned());
        let mut world = World::start_with(&net, SILENT_AFTER, |_| {}, place).await;
        let outage = async |i: u8| {
            let began = net.silence(1, i);
            lasting(CONFIRMED).await;
            let ended = net.restore(1, i);
            lasting(CONFIRMED).await;
            Spell::of(began, ended)
        };
        // The first boot has heard the time before its link was cut.
        net.wan_cut_silently(1);
        let first = outage(0).await;
        world.agents[0].process().kill_hard();
        let between_ms = now_ms();
        // The second never hears it.
        let boot = |n: u32| other_boot(&format!("00000000-0000-4000-8000-{n:012}"), Duration::from_secs(2));
        world.agents[0].start_elsewhere(state.path(), boot(2));
        lasting(CONFIRMED).await;
        let second = outage(1).await;
        world.agents[0].process().kill_hard();
        world.broker.restart().await;
        net.wan_restore(1);
        world.agents[0].start_elsewhere(state.path(), boot(3));
        world.all_up().await;
        let began = takes_down(&world, 2).await;
        let third = Spell::of(began, net.restore(1, 2));
        world.all_up().await;

        has_outages(&world, "b1-d00", &[first]).await;
        has_outages(&world, "b1-d02", &[third]).await;
        // Of the second boot all that anybody knows is that it lay between the others.
        let between = Within { earliest_ms: between_ms - 10_000, latest_ms: now_ms() };
        let bounded = Spell { began: between, ended: between };
        assert!(second.began.latest_ms < second.ended.latest_ms);
        has_outages(&world, "b1-d01", &[bounded]).await;
        world.only_these_had_outages(&["b1-d00", "b1-d01", "b1-d02"]).await;
        everything_is_dated_within(&world, began_ms).await;
        world.surfaces_agree().await;
    });
}

/// Whatever is dated, on whichever surface, lies between the beginning of the test and now.
async fn everything_is_dated_within(world: &World<'_>, began_ms: i64) {
    let mut dates: Vec<(String, i64)> = Vec::new();
    for (id, device) in world.api().devices().await.expect("the API answers") {
        dates.push((format!("since of {id}"), moment(&device["since"]).expect("a device that is up has a since")));
        for outage in world.api().outages(&id).await.expect("the API answers") {
            dates.push((format!("an outage of {id}"), outage.from_ms));
            dates.extend(outage.to_ms.map(|to_ms| (format!("the end of an outage of {id}"), to_ms)));
        }
    }
    let coverage = world.api().json("/api/v1/branches/b1/coverage").await.expect("the API answers");
    for span in coverage["covered"].as_array().into_iter().chain(coverage["gaps"].as_array()).flatten() {
        for end in ["from_ms", "to_ms"] {
            dates.push((format!("the coverage's {end}"), moment(&span[end]).expect("a span has ends")));
        }
    }
    let series = world.victoria.export("{__name__=~\"device_ping_.*\"}").await.expect("VictoriaMetrics answers");
    assert!(!series.is_empty(), "VictoriaMetrics has heard of the devices");
    for (labels, samples) in series {
        dates.extend(samples.into_iter().map(|(ms, _)| (format!("a sample of {labels:?}"), ms)));
    }
    let now_ms = now_ms() + 1_000;
    for (what, ms) in dates {
        assert!((began_ms - EARLIER_MS..=now_ms).contains(&ms), "{what} is dated {ms}; the test ran from {began_ms} to {now_ms}");
    }
}

/// A day as logs write it.
fn today(ms: i64) -> String {
    let output = std::process::Command::new("date").args(["--utc", "--date", &format!("@{}", ms / 1000), "+%F"]).output();
    String::from_utf8_lossy(&output.expect("every machine has date").stdout).trim().to_owned()
}

#[test]
fn an_agent_that_starts_ahead_of_its_certificates_reaches_the_broker() {
    let clock = WrongClock::off_by(500 * DAY_S);
    let net = Net::new(1, 2);
    net.at_the_centre(async || {
        let wrapped = |agent: &mut AgentSettings| agent.wrapper = clock.wrapper();
        let world = World::start_with(&net, SILENT_AFTER, |_| {}, wrapped).await;
        world.all_up().await;
    });
}

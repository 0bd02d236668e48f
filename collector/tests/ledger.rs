//! What the ledger's thread makes of batches that come at the wrong time, in part, or from the wrong clock.

mod desk;

use shared::wire::encode;
use shared::{Batch, Dating, Lane, Millis, Status, Uptime};
use ward_collector::ingest::Command;
use ward_collector::outage;
use ward_collector::store::{self, Store};

use desk::{BOOT, CSV, Desk, batch, boot, change, gap, heartbeat, import, payload};

/// A branch that is heard, m1 and m2 up since 1 s.
fn heard() -> Desk {
    let mut desk = Desk::new();
    let ack =
        desk.take(&batch(1, BOOT, 1, 9_000, vec![boot(1), change("m1", Status::Up, 1_000), change("m2", Status::Up, 1_000)]));
    assert_eq!(ack.map(|ack| (ack.through, ack.restate)), Some((3, false)));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("up", "up"));
    desk
}

#[test]
fn an_inventory_that_changes_beside_a_batch_lets_no_device_take_anothers_place() {
    let mut desk = heard();
    import(&desk.folder, &format!("{CSV}a0,A0,m,M,r,R,atm,10.0.0.9\n"));
    let down = batch(1, BOOT, 4, 10_000, vec![change("m1", Status::Down, 9_500)]);
    desk.handle(vec![payload(Lane::Up, encode(&down).expect("small")), Command::Reload]);
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
    assert_eq!(desk.shown("a0"), "unknown(never_observed)");
}

#[test]
fn a_device_that_was_told_of_before_it_was_imported_is_asked_for() {
    let mut desk = heard();
    desk.take(&batch(1, BOOT, 4, 10_000, vec![change("m3", Status::Down, 9_500)]));
    import(&desk.folder, &format!("{CSV}m3,M3,m,M,r,R,atm,10.0.0.9\n"));
    desk.handle(vec![Command::Reload]);
    assert_eq!(desk.shown("m3"), "unknown(never_observed)");
    let asks = |desk: &mut Desk, at: u64| {
        desk.now = BOOT + i64::try_from(at).expect("small");
        desk.handle(vec![heartbeat(1, BOOT, 4, at)]).is_some_and(|ack| ack.restate)
    };
    assert!(!asks(&mut desk, 20_000), "it may be new to its agent as well");
    assert!(asks(&mut desk, 100_000));
    desk.take(&batch(1, BOOT, 5, 100_500, vec![change("m3", Status::Down, 9_500)]));
    assert_eq!(desk.shown("m3"), "down");
    assert!(!asks(&mut desk, 900_000), "nothing is in doubt any more");
}

#[test]
fn a_batch_from_ahead_of_a_clock_that_was_set_back_is_dated_anew_and_not_lost() {
    let mut desk = heard();
    desk.now -= 3_600_000;
    let down = batch(1, BOOT, 4, 10_000, vec![change("m1", Status::Down, 9_500)]);
    let ack = desk.take(&down).expect("the agent must learn the time");
    assert_eq!((ack.through, ack.now.0, ack.echo), (3, desk.now, Some(Uptime(10_000))));
    desk.tick();
    assert_eq!(desk.shown("m1"), "unknown(agent_silent)", "what was seen by the clock before says nothing");
    let redated = Batch { dating: Dating::Fixed { boot_at: Millis(BOOT - 3_600_000), error_ms: 10 }, ..down };
    assert_eq!(desk.take(&redated).map(|ack| ack.through), Some(4));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
}

#[test]
fn after_lost_transitions_devices_are_unknown_until_the_agent_has_told_again() {
    let mut desk = heard();
    let ack = desk.take(&batch(1, BOOT, 4, 10_000, vec![gap(3, 9_100, 9_900, 1)])).expect("an ack");
    assert_eq!((ack.through, ack.restate), (6, true));
    assert_eq!(desk.shown("m1"), "unknown(never_observed)");
    desk.take(&batch(1, BOOT, 7, 10_000, vec![change("m1", Status::Down, 9_500), change("m2", Status::Up, 1_000)]));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
    // Told anew, an old state is no new outage and no new coverage.
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let covered = store::covered(store.connection(), "m").expect("readable");
    assert!(covered.iter().all(|span| span.to.0 <= BOOT + 9_100 || span.from.0 >= BOOT + 9_900), "{covered:?}");
}

#[test]
fn a_restart_and_late_history_leave_devices_in_doubt() {
    let mut desk = heard();
    desk.take(&batch(1, BOOT, 4, 10_000, vec![gap(3, 9_100, 9_900, 1)]));
    // What yesterday's run tells late says nothing of what was lost today.
    desk.take(&batch(2, BOOT - 86_400_000, 1, 5_000, vec![boot(2), change("m1", Status::Up, 1_000)]));
    assert_eq!(desk.shown("m1"), "unknown(never_observed)");
    let mut desk = desk.restarted();
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("unknown(never_observed)", "unknown(never_observed)"));
    let ack = desk.handle(vec![heartbeat(1, BOOT, 6, 10_000)]).expect("it is asked for its states");
    assert!(ack.restate);
    desk.take(&batch(1, BOOT, 7, 10_000, vec![change("m1", Status::Down, 9_500), change("m2", Status::Up, 1_000)]));
    let desk = desk.restarted();
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
}

#[test]
fn lost_qualities_put_nothing_in_doubt() {
    let mut desk = heard();
    let ack = desk.take(&batch(1, BOOT, 4, 10_000, vec![gap(3, 9_100, 9_900, 0)])).expect("an ack");
    assert!(!ack.restate);
    assert_eq!(desk.shown("m1"), "up");
}

#[test]
fn what_an_agent_no_longer_holds_after_a_restore_is_a_gap_over_the_whole_time() {
    let mut desk = heard();
    desk.now = BOOT + 500_000;
    let ack = desk.take(&batch(1, BOOT, 50, 500_000, vec![change("m1", Status::Up, 499_000)])).expect("an ack");
    assert_eq!((ack.through, ack.restate), (50, true));
    assert_eq!(desk.shown("m2"), "unknown(never_observed)");
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let gaps = store::gaps(store.connection(), "m").expect("readable");
    let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert_eq!((gap.first, gap.last, gap.from.0, gap.to.0), (4, 49, BOOT + 9_000, BOOT + 500_000));
}

#[test]
fn yesterdays_stream_that_comes_late_changes_nothing_of_today() {
    let mut desk = heard();
    desk.take(&batch(1, BOOT, 4, 10_000, vec![change("m1", Status::Down, 9_500)]));
    // Of an earlier boot nobody knows when it is sent.
    let yesterday = batch(2, BOOT - 86_400_000, 1, 5_000, vec![boot(2), change("m1", Status::Up, 1_000)]);
    let yesterday = Batch { sent: None, ..yesterday };
    assert_eq!(desk.take(&yesterday).map(|ack| ack.through), Some(2));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
    let desk = desk.restarted();
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
}

#[test]
fn of_two_agents_of_one_branch_the_one_that_speaks_counts_and_has_to_tell_its_states() {
    let mut desk = heard();
    // A second one comes for a moment, sees m1 up, and is gone.
    desk.now = BOOT + 12_000;
    desk.take(&batch(2, BOOT, 1, 12_000, vec![boot(2), change("m1", Status::Up, 11_000)]));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("up", "unknown(never_observed)"));
    // The first one goes on, and has seen m1 fail in between.
    desk.now = BOOT + 14_000;
    desk.take(&batch(1, BOOT, 4, 11_500, vec![change("m1", Status::Down, 10_500)]));
    let ack = desk.handle(vec![heartbeat(1, BOOT, 4, 14_000)]).expect("it is asked for its states");
    assert!(ack.restate);
    assert_eq!(desk.shown("m1"), "unknown(never_observed)");
    desk.take(&batch(1, BOOT, 5, 14_000, vec![change("m1", Status::Down, 10_500), change("m2", Status::Up, 1_000)]));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
}

#[test]
fn what_a_heartbeat_has_vouched_for_is_known_after_a_power_cut_in_the_branch() {
    let mut desk = heard();
    desk.now = BOOT + 25_000;
    desk.handle(vec![heartbeat(1, BOOT, 3, 25_000)]);
    desk.now += 6_000;
    desk.tick();
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let covered = store::covered(store.connection(), "m").expect("readable");
    assert_eq!(covered.last().map(|span| span.to.0), Some(BOOT + 25_000));
}

#[test]
fn a_restart_keeps_verdicts_and_the_start_of_an_outage() {
    let mut desk = heard();
    desk.take(&batch(1, BOOT, 4, 10_000, vec![change("m1", Status::Down, 9_500)]));
    let desk = desk.restarted();
    assert_eq!(desk.shown("m1"), "down");
    let fleet = desk.live.fleet();
    let at = fleet.device(&"m1".parse().expect("an id")).expect("there");
    assert_eq!(fleet.devices[at].view.down_since, Some(Millis(BOOT + 9_500)));
}

#[test]
fn a_branch_that_moved_its_device_away_says_nothing_of_it() {
    let desk = heard();
    import(&desk.folder, &CSV.replace("m1,M1,m,M,", "m1,M1,n,N,"));
    let desk = desk.restarted();
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("unknown(never_observed)", "up"));
}

#[test]
fn a_device_that_moved_has_no_outage_from_where_it_stood_before() {
    const DAY_MS: i64 = 86_400_000;
    let mut desk = Desk::new();
    import(&desk.folder, &format!("{CSV}n1,N1,n,N,r,R,atm,10.0.0.1\n"));
    desk.handle(vec![Command::Reload]);
    // The agent of n has run for 30 days, that of m for 10. A device of m is down since yesterday.
    let in_n = |first: u64, at: u64, bodies| Batch {
        branch: "n".parse().expect("an id"),
        ..batch(7, BOOT - 30 * DAY_MS, first, 30 * DAY_MS as u64 + at, bodies)
    };
    let tell_n = |desk: &mut Desk, batch: &Batch| {
        let topic = Lane::Up.topic(&batch.branch);
        desk.handle(vec![Command::Payload { topic, bytes: encode(batch).expect("small").into() }])
    };
    tell_n(&mut desk, &in_n(1, 5_000, vec![boot(7)]));
    let since = 10 * DAY_MS as u64;
    desk.take(&batch(1, BOOT - 10 * DAY_MS, 1, since + 5_000, vec![boot(1), change("m1", Status::Up, 1_000)]));
    desk.take(&batch(1, BOOT - 10 * DAY_MS, 3, since + 6_000, vec![change("m1", Status::Down, since - DAY_MS as u64)]));
    // It moves to n, and is up there.
    import(
        &desk.folder,
        &format!("{}n1,N1,n,N,r,R,atm,10.0.0.1\n", CSV.replace("m1,M1,m,M,", "m1,M1,n,N,").replace("10.0.0.1", "10.0.0.5")),
    );
    desk.handle(vec![Command::Reload]);
    tell_n(&mut desk, &in_n(2, 9_000, vec![change("m1", Status::Up, 30 * DAY_MS as u64 + 8_000)]));
    assert_eq!(desk.shown("m1"), "up");
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let (db, now) = (store.connection(), Millis(BOOT + 10_000));
    let changes = store::changes(db, 1, now.plus(-30 * DAY_MS), now).expect("readable");
    let told: Vec<_> = changes.iter().map(|change| (change.to, change.onset.0 - BOOT)).collect();
    assert_eq!(told, [(Status::Up, 8_000)]);
    assert_eq!(store::open_since(db, 1).expect("readable"), None);
    assert_eq!(store::recent_changes(db, 1, 10).expect("readable").changes.len(), 1);
    let covered = store::covered(db, "n").expect("readable");
    assert_eq!(outage::outages(&changes, &covered, now.plus(-30 * DAY_MS), now), []);
    // Nor has it after a restart.
    let desk = desk.restarted();
    let fleet = desk.live.fleet();
    let at = fleet.device(&"m1".parse().expect("an id")).expect("there");
    assert_eq!((desk.shown("m1").as_str(), fleet.devices[at].view.down_since), ("up", None));
}

#[test]
fn a_silent_branch_stays_silent_when_the_clock_is_set_back() {
    let mut desk = heard();
    desk.now -= 3_600_000;
    desk.tick();
    assert_eq!(desk.shown("m1"), "unknown(agent_silent)");
    // A heartbeat dated by the clock before is answered, and says nothing.
    let ack = desk.handle(vec![heartbeat(1, BOOT, 3, 11_000)]);
    assert_eq!(ack.and_then(|ack| ack.echo), Some(Uptime(11_000)));
    assert_eq!(desk.shown("m1"), "unknown(agent_silent)");
}

#[test]
fn a_heartbeat_that_overtakes_its_batches_vouches_for_nothing_they_tell() {
    let mut desk = heard();
    desk.now = BOOT + 60_000;
    desk.tick();
    assert_eq!(desk.shown("m1"), "unknown(agent_silent)");
    // Entries 4 and 5 are on their way: what is known of m1 is old.
    desk.handle(vec![heartbeat(1, BOOT, 5, 60_000)]);
    assert_eq!(desk.shown("m1"), "unknown(agent_silent)");
    let down = batch(1, BOOT, 4, 20_000, vec![change("m1", Status::Down, 19_000)]);
    desk.take(&Batch { observed_through: Uptime(15_000), ..down });
    assert_eq!(desk.shown("m1"), "unknown(agent_silent)");
    desk.take(&batch(1, BOOT, 5, 60_000, vec![change("m1", Status::Up, 58_000)]));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("up", "up"));
    // One that is overtaken says what it would have said before.
    let late = batch(1, BOOT, 6, 60_500, vec![change("m1", Status::Down, 60_200)]);
    desk.handle(vec![payload(Lane::Up, encode(&late).expect("small")), heartbeat(1, BOOT, 5, 60_100)]);
    assert_eq!(desk.shown("m1"), "down");
}

#[test]
fn a_repeated_batch_is_not_acknowledged_before_the_first_is_written() {
    let mut desk = heard();
    let down = batch(1, BOOT, 4, 10_000, vec![change("m1", Status::Down, 9_500)]);
    let bytes = encode(&down).expect("small");
    let acks = desk.acks(vec![payload(Lane::Up, bytes.clone()), payload(Lane::Up, bytes)]);
    assert_eq!(acks.iter().map(|ack| ack.through).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn batches_that_share_a_commit_share_an_ack() {
    let mut desk = heard();
    let one = |seq, to| payload(Lane::Up, encode(&batch(1, BOOT, seq, 10_000, vec![change("m1", to, 9_500)])).expect("small"));
    let acks = desk.acks(vec![one(4, Status::Down), one(5, Status::Up), one(6, Status::Down)]);
    assert_eq!(acks.iter().map(|ack| ack.through).collect::<Vec<_>>(), [6]);
    assert_eq!(desk.shown("m1"), "down");
}

#[test]
fn numbers_that_cannot_be_counted_are_refused() {
    let mut desk = heard();
    let huge = |first, span| batch(1, BOOT, first, 10_000, vec![gap(span, 1, 2, 0), gap(span, 1, 2, u64::MAX)]);
    for (first, span) in [(4, u64::MAX), (u64::MAX, 1), (4, 0), (0, 1), (4, u64::MAX / 2 + 1)] {
        assert_eq!(desk.take(&huge(first, span)), None, "{first} {span}");
    }
    let empty = batch(1, BOOT, 4, 10_000, Vec::new());
    assert_eq!(desk.take(&empty), None);
    assert!(desk.metrics.value("ward_payloads_refused_total", "reason=\"malformed\"") >= 6.0);
    assert_eq!(desk.shown("m1"), "up");
}

#[test]
fn a_batch_of_1970_is_acknowledged_as_a_gap_and_stamped_nowhere() {
    let mut desk = heard();
    let lost = Batch { sent: None, ..batch(7, 1_000, 1, 5_000, vec![boot(7), change("m1", Status::Down, 1_000)]) };
    assert_eq!(desk.take(&lost).map(|ack| ack.through), Some(2));
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let gaps = store::gaps(store.connection(), "m").expect("readable");
    assert!(gaps.iter().any(|gap| gap.reason == "undatable" && gap.dropped.transitions == 1), "{gaps:?}");
    let oldest = |sql: &str| store.connection().query_row(sql, [], |row| row.get::<_, i64>(0)).expect("readable");
    assert!(oldest("select min(onset_ms) from transition") >= BOOT);
    assert!(oldest("select min(began_ms) from stream") >= BOOT);
    assert!(oldest("select min(from_ms) from gap") >= BOOT);
}

#[test]
fn a_collector_that_restarts_before_the_agent_has_told_again_shows_nothing_as_up() {
    let mut desk = heard();
    desk.take(&batch(1, BOOT, 4, 10_000, vec![gap(3, 9_100, 9_900, 1)]));
    let mut desk = desk.restarted();
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("unknown(never_observed)", "unknown(never_observed)"));
    let ack = desk.handle(vec![heartbeat(1, BOOT, 6, 10_000)]).expect("it is asked for its states");
    assert!(ack.restate);
}

#[test]
fn late_history_does_not_bring_back_verdicts_that_are_in_doubt() {
    let mut desk = heard();
    desk.take(&batch(1, BOOT, 4, 10_000, vec![gap(3, 9_100, 9_900, 1)]));
    let yesterday = batch(2, BOOT - 86_400_000, 1, 5_000, vec![boot(2), change("m1", Status::Down, 1_000)]);
    desk.take(&yesterday);
    assert_eq!(desk.shown("m1"), "unknown(never_observed)");
}

#[test]
fn an_agent_whose_batches_go_on_is_still_asked_when_the_first_asking_is_lost() {
    let mut desk = heard();
    desk.take(&batch(1, BOOT, 4, 10_000, vec![gap(3, 9_100, 9_900, 1)]));
    let asked = (7..20).filter(|seq| {
        desk.now += 1_000;
        let more = batch(1, BOOT, *seq, 10_000, vec![gap(1, 9_950, 9_960, 0)]);
        desk.take(&more).is_some_and(|ack| ack.restate)
    });
    assert_eq!(asked.count(), 1);
}

#[test]
fn a_gap_that_has_grown_since_it_was_told_is_recorded_as_it_is_now() {
    let mut desk = heard();
    desk.take(&batch(1, BOOT, 4, 10_000, vec![gap(2, 9_100, 9_200, 1)]));
    // The ack was lost, the agent's buffer went on to overflow, and what was lost since joined the gap.
    assert_eq!(desk.take(&batch(1, BOOT, 4, 10_000, vec![gap(9, 9_100, 9_900, 3)])).map(|ack| ack.through), Some(12));
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let gaps = store::gaps(store.connection(), "m").expect("readable");
    let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert_eq!((gap.first, gap.last, gap.to.0, gap.dropped.transitions), (4, 12, BOOT + 9_910, 3));
}

#[test]
fn what_can_not_be_dated_is_counted_without_what_is_known() {
    let mut desk = heard();
    let known = Batch { sent: None, ..batch(7, BOOT - 86_400_000, 1, 5_000, vec![boot(7), change("m1", Status::Down, 1_000)]) };
    desk.take(&known);
    let mut again = Batch { dating: Dating::Fixed { boot_at: Millis(1_000), error_ms: 0 }, ..known };
    again.group.deltas.push(shared::Delta { at: Uptime(5_000), body: change("m2", Status::Down, 2_000) });
    desk.take(&again);
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let gaps = store::gaps(store.connection(), "m").expect("readable");
    let gap = gaps.iter().find(|gap| gap.reason == "undatable").expect("it is named");
    assert_eq!((gap.first, gap.last, gap.dropped.transitions), (3, 3, 1));
}

/// What the ledger has after an earlier boot, which began between these dates before the present one, told of a failure and
/// of a minute: transitions with their errors, gaps that are undatable, minutes, and for how long m is covered beyond before.
fn told_within_bounds_of(width_ms: i64) -> (Vec<u32>, Vec<shared::Dropped>, usize, i64) {
    let mut desk = heard();
    let covered = |desk: &Desk| -> i64 {
        let store = Store::open(desk.folder.path()).expect("the file opens");
        let spans = store::covered(store.connection(), "m").expect("readable");
        spans.iter().map(|span| span.to.since(span.from)).sum()
    };
    let before = covered(&desk);
    let (not_before, not_after) = (Millis(BOOT - 1_000_000 - width_ms), Millis(BOOT - 1_000_000));
    let column = shared::Column::pack("m1".parse().expect("an id"), &[shared::Minute { sent: 30, lost: 30, rtt: None }], 10);
    let minute = shared::Body::Qualities(shared::Qualities { first_end: Uptime(60_000), unit_us: 10, columns: vec![column] });
    let told = batch(7, 0, 1, 65_000, vec![boot(7), change("m1", Status::Down, 1_000), minute]);
    let mut told = Batch { sent: None, dating: Dating::Bounds { not_before, not_after }, ..told };
    told.group.deltas[0].at = Uptime(0);
    desk.take(&told);
    desk.tick();
    assert_eq!(desk.shown("m1"), "up", "what was says nothing of what is");
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let no = desk.live.fleet().devices.iter().find(|device| device.info.id.as_str() == "m1").expect("m1").no;
    let changes = store::changes_of(store.connection(), &[no], Millis::EARLIEST, Millis(desk.now)).expect("readable");
    let errors = changes.get(&no).into_iter().flatten().filter(|change| change.to == Status::Down).map(|change| change.error_ms);
    let gaps = store::gaps(store.connection(), "m").expect("readable");
    let undatable = gaps.iter().filter(|gap| gap.reason == "undatable").map(|gap| gap.dropped).collect();
    let minutes = store::minutes(store.connection(), no, Millis::EARLIEST, Millis(desk.now)).expect("readable").len();
    (errors.collect(), undatable, minutes, covered(&desk) - before)
}

#[test]
fn what_lies_within_bounds_is_told_with_its_error_and_counts_as_observed_only_within_narrow_ones() {
    const DAY_MS: i64 = 86_400_000;
    let (errors, undatable, minutes, covered) = told_within_bounds_of(30 * DAY_MS);
    assert_eq!((errors, undatable, minutes), (vec![15 * DAY_MS as u32], Vec::new(), 1));
    assert_eq!(covered, 65_000);
    let (errors, undatable, minutes, covered) = told_within_bounds_of(60 * DAY_MS);
    assert_eq!((errors, minutes, covered), (vec![30 * DAY_MS as u32], 0, 0), "it is told, and counts nowhere");
    assert_eq!(undatable, [shared::Dropped { minutes: 1, ..shared::Dropped::default() }], "a minute has no place there");
    let (errors, undatable, ..) = told_within_bounds_of(100 * DAY_MS);
    assert!(errors.is_empty(), "no error states that: {errors:?}");
    assert_eq!(undatable, [shared::Dropped { transitions: 1, minutes: 1, ..shared::Dropped::default() }]);
}

#[test]
fn an_earlier_boot_whose_dates_run_ahead_by_less_than_they_may_be_off_is_dated_and_not_ahead() {
    let mut desk = Desk::new();
    let told = |error_ms| {
        let dating = Dating::Fixed { boot_at: Millis(BOOT + 104_000), error_ms };
        let told = batch(u64::from(error_ms), 0, 1, 5_000, vec![boot(7), change("m1", Status::Down, 4_000)]);
        Batch { sent: None, dating, ..told }
    };
    let undatable = |desk: &Desk| desk.metrics.value("ward_batches_undatable_total", "");
    desk.take(&told(259_000));
    assert!(undatable(&desk) < 0.1);
    desk.take(&told(20_000));
    assert!(undatable(&desk) > 0.9, "by more than that it can't be right");
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let streams = store::streams(store.connection()).expect("readable");
    assert!(streams.iter().all(|row| row.observed.0 <= desk.now && row.began.0 <= desk.now), "{streams:?}");
}

#[test]
fn an_agent_that_is_behind_hears_again_what_has_arrived() {
    let mut desk = heard();
    desk.now += 20_000;
    desk.handle(vec![heartbeat(1, BOOT, 3, 30_000)]);
    // The ack of number 3 was lost, and the card that holds it can't be read: only its states go out.
    let live = |states| {
        let dating = Some(Dating::Fixed { boot_at: Millis(BOOT), error_ms: 10 });
        let (sent, observed_through) = (Uptime(31_000), Uptime(31_000));
        let heartbeat =
            shared::Heartbeat { stream: shared::StreamId(1), sent, dating, last: 5, observed_through, health: None, states };
        payload(Lane::Live, encode(&heartbeat).expect("small"))
    };
    assert_eq!(desk.handle(vec![live(Vec::new())]), None, "its batches are on their way");
    let states = vec![shared::Live::of("m1".parse().expect("an id"), Status::Up, Uptime(1_000))];
    assert_eq!(desk.handle(vec![live(states)]).map(|ack| ack.through), Some(3));
}

#[test]
fn acks_that_the_broker_does_not_take_are_counted_and_told_the_next_time() {
    let mut desk = heard();
    let known = || payload(Lane::Up, encode(&batch(1, BOOT, 1, 9_000, vec![boot(1)])).expect("small"));
    assert_eq!(desk.acks((0..1_200).map(|_| known()).collect()).len(), 1_000, "so many fit");
    assert!((desk.metrics.value("ward_outgoing_dropped_total", "") - 200.0).abs() < 0.1);
    assert_eq!(desk.handle(vec![known()]).map(|ack| ack.through), Some(3));
}

#[test]
fn a_branch_that_fell_silent_by_a_clock_that_was_set_back_does_not_come_back_when_the_old_time_does() {
    let mut desk = heard();
    desk.now -= 3_600_000;
    desk.tick();
    assert_eq!(desk.shown("m1"), "unknown(agent_silent)");
    // Nothing is heard for an hour.
    desk.now += 3_600_000;
    desk.tick();
    assert_eq!(desk.shown("m1"), "unknown(agent_silent)");
}

#[test]
fn a_collector_whose_clock_was_set_back_while_it_was_down_shows_nothing_before_it_is_heard() {
    let mut desk = heard();
    desk.now += 10_000;
    desk.uptime += 10_000;
    desk.handle(vec![heartbeat(1, BOOT, 3, 20_000)]);
    desk.tick();
    let (now, uptime) = (desk.now, desk.uptime);
    let up = "up".to_owned();
    (desk.now, desk.uptime) = (now + 5_000, uptime + 5_000);
    let mut desk = desk.restarted();
    assert_eq!(desk.shown("m1"), up, "it was gone for 5 s");
    // An hour without a collector, and by the clock it was 5 s once more.
    (desk.now, desk.uptime) = (now + 10_000, uptime + 3_600_000);
    let mut desk = desk.restarted();
    assert!(desk.shown("m1").starts_with("unknown"), "{}", desk.shown("m1"));
    desk.handle(vec![heartbeat(1, BOOT, 3, 3_610_000)]);
    assert!(desk.shown("m1").starts_with("unknown"), "the agent's dates are ahead of the clock");
    // The machine has booted, and nobody knows how long that took.
    (desk.now, desk.uptime) = (now + 12_000, 10);
    assert!(desk.restarted().shown("m1").starts_with("unknown"));
}

#[test]
fn what_goes_wrong_is_counted_and_ends_in_health_when_it_does() {
    let mut desk = heard();
    desk.take(&batch(2, BOOT, 1, 12_000, vec![boot(2)]));
    desk.now = BOOT + 14_000;
    desk.handle(vec![heartbeat(1, BOOT, 3, 14_000)]);
    desk.tick();
    assert!((desk.metrics.value("ward_agents_contending", "") - 1.0).abs() < 0.1);
    desk.now += 600_000;
    desk.tick();
    assert!(desk.metrics.value("ward_agents_contending", "").abs() < 0.1);
}

#[test]
fn a_clock_that_jumps_ahead_by_hours_leaves_no_future_in_the_ledger() {
    let mut desk = heard();
    let jump = 5 * 3_600_000;
    desk.set_ahead(jump);
    desk.now += 1_000;
    // By a clock that an agent was taught in the moment before, and by the right one.
    assert_eq!(desk.take(&batch(1, BOOT + jump, 4, 10_500, vec![change("m1", Status::Down, 9_500)])), None);
    assert_eq!(
        desk.take(&batch(1, BOOT, 4, 10_500, vec![change("m1", Status::Down, 9_500)])),
        None,
        "no ack teaches the wrong time"
    );
    assert_eq!(desk.handle(vec![heartbeat(1, 0, 4, 10_600)]), None);
    desk.uptime += 1_000;
    desk.tick();
    assert_eq!(desk.shown("m2"), "up", "what is shown goes on by how long the machine has run");
    assert!(desk.metrics.value("ward_clock_doubted", "") > 0.9);
    // The clock is set right.
    desk.now += 1_000 - jump;
    desk.uptime += 1_000;
    desk.tick();
    let ack = desk.take(&batch(1, BOOT, 4, 11_500, vec![change("m1", Status::Down, 9_500)]));
    assert_eq!(ack.map(|ack| (ack.through, ack.now)), Some((4, Millis(desk.now))));
    assert_eq!(desk.shown("m1"), "down");
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let streams = store::streams(store.connection()).expect("readable");
    assert!(streams.iter().all(|row| row.observed.0 <= desk.now), "{streams:?}");
    assert!(desk.metrics.value("ward_clock_doubted", "") < 0.1);
}

#[test]
fn a_clock_that_jumps_ahead_with_the_agents_is_followed_at_once() {
    let mut desk = heard();
    // The collector's machine stood still for five hours, and the agent's went on.
    let stood_still = 5 * 3_600_000;
    desk.set_ahead(stood_still as i64);
    desk.now += 1_000;
    desk.uptime += 1_000;
    desk.tick();
    assert!(desk.metrics.value("ward_clock_doubted", "") > 0.9);
    desk.handle(vec![heartbeat(1, BOOT, 3, 11_000 + stood_still)]);
    let ack = desk.take(&batch(1, BOOT, 4, 11_000 + stood_still, vec![change("m1", Status::Down, 10_000 + stood_still)]));
    assert_eq!(ack.map(|ack| (ack.through, ack.now)), Some((4, Millis(desk.now))));
    assert!(desk.metrics.value("ward_clock_doubted", "") < 0.1);
}

#[test]
fn an_agent_that_starts_anew_after_the_clock_was_set_back_is_heard_at_once() {
    let mut desk = heard();
    desk.now -= 3_600_000;
    let boot_at = desk.now - 5_000;
    desk.take(&batch(2, boot_at, 1, 4_000, vec![boot(2), change("m1", Status::Down, 1_000)]));
    desk.handle(vec![heartbeat(2, boot_at, 2, 5_000)]);
    desk.take(&batch(2, boot_at, 3, 5_000, vec![change("m1", Status::Down, 1_000), change("m2", Status::Up, 1_000)]));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
}

#[test]
fn a_collector_that_boots_in_1970_destroys_nothing_and_stamps_nothing() {
    let mut desk = heard();
    desk.now = 60_000;
    // An earlier boot's run: it has no `sent`.
    let earlier = Batch { sent: None, ..batch(2, BOOT - 86_400_000, 1, 5_000, vec![boot(2), change("m1", Status::Down, 1_000)]) };
    let ack = desk.take(&earlier);
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let gaps = store::gaps(store.connection(), "m").expect("readable");
    assert!(ack.is_none_or(|ack| ack.through == 0), "acknowledged, and thrown away");
    assert!(gaps.iter().all(|gap| gap.from >= Millis::EARLIEST), "stamped in 1970");
}

#[test]
fn a_collector_whose_clock_is_an_hour_behind_destroys_no_earlier_boot() {
    let mut desk = heard();
    desk.now = BOOT - 3_600_000;
    let earlier = Batch { sent: None, ..batch(2, BOOT - 1_800_000, 1, 5_000, vec![boot(2), change("m1", Status::Down, 1_000)]) };
    let ack = desk.take(&earlier);
    assert!(ack.is_none_or(|ack| ack.through == 0), "acknowledged, and thrown away");
}

#[test]
fn a_clock_that_was_ahead_for_a_moment_covers_nothing_that_nobody_saw() {
    let mut desk = heard();
    let day = 86_400_000;
    // The collector's clock is a day ahead for a moment; the agent learns it by the ack, and dates by it.
    desk.now += day;
    desk.take(&batch(1, BOOT + day, 4, 10_000, vec![change("m1", Status::Down, 9_500)]));
    desk.now -= day;
    // It is right again; the agent learns it, tells that all is well for a minute, and is cut off.
    desk.now += 60_000;
    desk.handle(vec![heartbeat(1, BOOT, 4, 69_000)]);
    desk.take(&batch(1, BOOT, 5, 69_500, vec![change("m1", Status::Up, 69_200)]));
    desk.now += 6_000;
    desk.tick();
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let covered = store::covered(store.connection(), "m").expect("readable");
    assert!(covered.iter().all(|span| span.to.0 <= desk.now), "a day is covered that has not happened");
}

#[test]
fn health_that_nobody_told_since_the_restart_is_not_made_up() {
    let mut desk = heard();
    desk.handle(vec![heartbeat(1, BOOT, 3, 10_000)]);
    let desk = desk.restarted();
    let fleet = desk.live.fleet();
    let shown = ward_collector::surface::branch_json(&fleet, 0);
    assert!(shown["buffer_volatile"].is_null(), "nobody has said that the buffer is good");
}

fn minutes(device: &str, first_end: u64, n: usize) -> shared::Body {
    let minute = shared::Minute { sent: 30, lost: 30, rtt: None };
    let column = shared::Column::pack(device.parse().expect("an id"), &vec![minute; n], 10);
    shared::Body::Qualities(shared::Qualities { first_end: Uptime(first_end), unit_us: 10, columns: vec![column] })
}

#[test]
fn no_minute_is_stamped_in_the_future() {
    let mut desk = heard();
    desk.take(&batch(1, BOOT, 4, 10_000, vec![minutes("m1", 9_000, 1_440)]));
    let at = desk.live.fleet().devices.iter().filter_map(|d| d.quality).map(|q| q.at.0).max();
    assert!(at.is_none_or(|at| at <= desk.now + 60_000), "a minute of tomorrow: {at:?}, now {}", desk.now);
}

#[test]
fn a_batch_that_says_it_was_sent_three_weeks_ago_is_dated_anew() {
    let mut desk = Desk::new();
    let weeks = 21 * 86_400_000;
    // NTP in the branch vouches for a clock three weeks behind; the first batch goes out before the first ack.
    let ack = desk.take(&batch(1, BOOT - weeks, 1, 9_000, vec![boot(1), change("m1", Status::Down, 1_000)]));
    assert_eq!(ack.map(|ack| ack.through), Some(0), "it was sent 1 s ago, and says 21 days");
}

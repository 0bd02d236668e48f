//! What the ledger's thread makes of batches that come at the wrong time, in part, or from the wrong clock.

use std::sync::Arc;

use bytes::Bytes;
use shared::delta::Boot;
use shared::message::Heartbeat;
use shared::wire::encode;
use shared::{
    Ack, Batch, Body, BootId, Dating, Delta, DeviceId, Dropped, Gap, GapReason, Group, Lane, Millis, Status, StreamId,
    Transition, Uptime,
};
use tokio::sync::mpsc;
use ward_collector::feed::{Live, Notes};
use ward_collector::fleet::Fleet;
use ward_collector::ingest::{Command, Ingest, Outgoing};
use ward_collector::inventory::parse_csv;
use ward_collector::metrics::Metrics;
use ward_collector::settings::Rollout;
use ward_collector::store::{self, Store};

/// When the branch's machine booted.
const BOOT: i64 = 1_795_442_400_000;

/// A collector without servers, and one branch `m` with the devices `m1` and `m2`.
struct Desk {
    folder: tempfile::TempDir,
    ingest: Ingest,
    live: Arc<Live>,
    outgoing: mpsc::Receiver<Outgoing>,
    metrics: Arc<Metrics>,
    now: i64,
}

const CSV: &str = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                   m1,M1,m,M,r,R,atm,10.0.0.1\nm2,M2,m,M,r,R,atm,10.0.0.2\n";

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        import(&folder, CSV);
        Self::over(folder, BOOT + 10_000)
    }

    fn over(folder: tempfile::TempDir, now: i64) -> Self {
        let live = Arc::new(Live::new(Fleet::new(30_000), Notes::default()));
        let metrics = Arc::new(Metrics::default());
        let (sender, outgoing) = mpsc::channel(1_000);
        let store = Store::open(folder.path()).expect("the file opens");
        let ingest =
            Ingest::new(store, Arc::clone(&live), Arc::clone(&metrics), sender, Rollout::default(), Some(1 << 20), Millis(now));
        Self { folder, ingest: ingest.expect("a readable file"), live, outgoing, metrics, now }
    }

    fn restarted(self) -> Self {
        let Self { folder, now, ingest, .. } = self;
        drop(ingest);
        Self::over(folder, now)
    }

    /// Handles commands together; the newest ack.
    fn handle(&mut self, commands: Vec<Command>) -> Option<Ack> {
        self.ingest.handle(commands, Millis(self.now));
        let mut newest = None;
        while let Ok(message) = self.outgoing.try_recv() {
            if let Outgoing::Ack(_, ack) = message {
                newest = Some(ack);
            }
        }
        newest
    }

    fn take(&mut self, batch: &Batch) -> Option<Ack> {
        self.handle(vec![payload(Lane::Up, encode(batch).expect("within the limit"))])
    }

    fn tick(&mut self) {
        self.handle(vec![Command::Tick]);
    }

    fn shown(&self, device: &str) -> String {
        let fleet = self.live.fleet();
        let at = fleet.device(&device.parse().expect("an id")).expect("in the inventory");
        fleet.devices[at].view.status.to_string()
    }
}

fn import(folder: &tempfile::TempDir, csv: &str) {
    let inventory = parse_csv("e.csv", csv).expect("good");
    Store::open(folder.path()).and_then(|mut s| s.transaction(|db| store::import(db, &inventory))).expect("imported");
}

fn payload(lane: Lane, bytes: Vec<u8>) -> Command {
    Command::Payload { topic: lane.topic(&"m".parse().expect("an id")), bytes: Bytes::from(bytes) }
}

fn boot(stream: u64) -> Body {
    Body::Boot(Boot { boot: BootId(stream.into()), version: "0".into(), previous: None })
}

fn change(device: &str, to: Status, onset: u64) -> Body {
    let device: DeviceId = device.parse().expect("an id");
    Body::Transition(Transition { device, from: shared::delta::UNOBSERVED, to, onset: Uptime(onset), last_ok: None })
}

fn gap(span: u64, from: u64, to: u64, transitions: u64) -> Body {
    let dropped = Dropped { transitions, ..Dropped::default() };
    Body::Gap(Gap { span, from: Uptime(from), to: Uptime(to), reason: GapReason::BufferFull, dropped })
}

/// A batch of a machine that booted at `boot_at`, told at `at` ms of its uptime.
fn batch(stream: u64, boot_at: i64, first: u64, at: u64, bodies: Vec<Body>) -> Batch {
    Batch {
        branch: "m".parse().expect("an id"),
        stream: StreamId(stream),
        dating: Dating::Fixed { boot_at: Millis(boot_at), error_ms: 10 },
        oldest: first,
        sent: Some(Uptime(at)),
        observed_through: Uptime(at),
        group: Group { first, deltas: bodies.into_iter().map(|body| Delta { at: Uptime(at), body }).collect() },
    }
}

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
    let yesterday = batch(2, BOOT - 86_400_000, 1, 5_000, vec![boot(2), change("m1", Status::Up, 1_000)]);
    assert_eq!(desk.take(&yesterday).map(|ack| ack.through), Some(2));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
    let desk = desk.restarted();
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "up"));
}

fn heartbeat(stream: u64, boot_at: i64, last: u64, at: u64) -> Command {
    let heartbeat = Heartbeat {
        stream: StreamId(stream),
        sent: Uptime(at),
        dating: Some(Dating::Fixed { boot_at: Millis(boot_at), error_ms: 10 }),
        last,
        observed_through: Uptime(at),
        health: None,
        states: Vec::new(),
    };
    payload(Lane::Live, encode(&heartbeat).expect("small"))
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

//! What must hold: of what is shown at every moment, and of both ledgers in the end.

use std::collections::{BTreeMap, HashMap};

use shared::{Millis, Status, StreamId};
use ward_collector::outage::Covered;
use ward_collector::store::{self, GapRow, Store, StreamRow};

use crate::branch::{Branch, CONFIRM_MS, Device, Told, What};
use crate::collector::{Collector, SILENT_AFTER_MS};
use crate::world::STEP_MS;

/// What rounding to whole steps may add to a date's error, in ms.
const SLACK_MS: i64 = 2 * STEP_MS;
/// How long a batch that is dated ahead is still believed, in ms: so much fresher may it look.
const AHEAD_MS: i64 = shared::Millis::AHEAD_LIMIT_MS;
/// How long a batch is on its way at most, in ms.
const WAY_MS: i64 = 3_000;
/// What was told so long before the end must have arrived, in ms.
const ARRIVED_MS: i64 = 100_000;

/// The unforgivable: a device that is shown as what it has not been for longer than silence may last, above all up
/// while it is down; and anything at all said of a branch that can't be heard.
pub(crate) fn check_shown(collector: &Collector, branch: &Branch, cut_ms: i64, now: i64) {
    let Some(fleet) = collector.fleet() else { return };
    // A clock that was set back makes dates look fresher than they are, and what is on its way ages meanwhile.
    let set_back_ms = collector.set_back_ms();
    let fresher_ms = if set_back_ms > 0 { set_back_ms.min(AHEAD_MS) + WAY_MS } else { 0 };
    let limit_ms = i64::from(SILENT_AFTER_MS) + CONFIRM_MS + SLACK_MS + fresher_ms;
    let state = &fleet.branches[fleet.branch(&branch.id).expect("in the inventory")];
    for device in &branch.devices {
        let shown = fleet.device(&device.id).map(|at| fleet.devices[at].view.status).expect("in the inventory");
        if !matches!(shown, Status::Up | Status::Down) {
            continue;
        }
        assert!(cut_ms <= limit_ms, "{} is shown {shown}, and cut off for {cut_ms} ms; at {now}: {state:?}", device.id);
        let known_ms = now - device.judged_at;
        assert!(
            shown == device.verdict || known_ms <= limit_ms,
            "{} is shown {shown}, and has been {} for {known_ms} ms; at {now}: {state:?}",
            device.id,
            device.verdict
        );
    }
}

/// After a while without faults everything is shown as it is.
pub(crate) fn check_settled(collector: &Collector, branch: &Branch) {
    let fleet = collector.fleet().expect("it is calm");
    assert!(branch.is_settled());
    for device in &branch.devices {
        let view = fleet.device(&device.id).map(|at| fleet.devices[at].view).expect("in the inventory");
        let state = &fleet.branches[fleet.branch(&branch.id).expect("in the inventory")];
        assert_eq!(view.status, device.verdict, "{} after the calm: {state:?}", device.id);
    }
}

/// A transition in the collector's file.
#[derive(Debug)]
struct Recorded {
    device: String,
    stream: StreamId,
    seq: u64,
    onset: i64,
    is_up: bool,
    error_ms: i64,
}

/// What the collector's file holds of one branch.
struct Ledger {
    recorded: Vec<Recorded>,
    streams: HashMap<StreamId, StreamRow>,
    gaps: Vec<(StreamId, GapRow)>,
    covered: Vec<Covered>,
}

impl Ledger {
    fn read(store: &Store, branch: &str) -> Self {
        let db = store.connection();
        let streams = store::streams(db).expect("readable").into_iter().filter(|row| row.branch == branch);
        let streams: HashMap<_, _> = streams.map(|row| (row.stream, row)).collect();
        let id = |no| streams.values().find(|row| row.no == no).expect("a gap belongs to a stream").stream;
        let gaps = store::gaps(db, branch).expect("readable").into_iter().map(|gap| (id(gap.stream), gap)).collect();
        let covered = store::covered(db, branch).expect("readable");
        Self { recorded: recorded(db, branch), streams, gaps, covered }
    }

    fn gap(&self, stream: StreamId, seq: u64) -> Option<&GapRow> {
        let found = self.gaps.iter().find(|(id, gap)| *id == stream && (gap.first..=gap.last).contains(&seq));
        found.map(|(_, gap)| gap)
    }

    fn through(&self, stream: StreamId) -> u64 {
        self.streams.get(&stream).map_or(0, |row| row.through)
    }
}

fn recorded(db: &rusqlite::Connection, branch: &str) -> Vec<Recorded> {
    let sql = "select d.id, s.stream, t.seq, t.onset_ms, t.to_status, t.error_ms from transition t
               join stream s on s.no = t.stream join device d on d.no = t.device where s.branch = ?1";
    let mut rows = db.prepare(sql).expect("the schema");
    let rows = rows.query_map([branch], |row| {
        let stream: String = row.get(1)?;
        Ok(Recorded {
            device: row.get(0)?,
            stream: StreamId(u64::from_str_radix(&stream, 16).expect("hexadecimal")),
            seq: row.get::<_, i64>(2)?.unsigned_abs(),
            onset: row.get(3)?,
            is_up: row.get::<_, i64>(4)? == 1,
            error_ms: row.get(5)?,
        })
    });
    rows.expect("readable").collect::<Result<_, _>>().expect("readable")
}

/// Both ledgers are equal, or differ exactly by what is reported as lost.
pub(crate) fn check_ledger(store: &Store, branch: &Branch, skews: (i64, i64), now: i64) {
    let ledger = Ledger::read(store, branch.id.as_str());
    let told: BTreeMap<(StreamId, u64), &Told> = branch.told.iter().map(|told| ((told.stream, told.seq), told)).collect();
    let mut missing = told.clone();
    missing.retain(|_, told| matches!(told.what, What::Change { .. }));
    for row in &ledger.recorded {
        let Some(told) = missing.remove(&(row.stream, row.seq)) else { panic!("invented or recorded twice: {row:?}") };
        check_recorded(row, told, skews);
    }
    for told in missing.values() {
        check_missing(&ledger, told, skews);
    }
    for (stream, gap) in &ledger.gaps {
        check_counts(*stream, gap, &told);
    }
    if skews == (0, 0) {
        check_minutes(store, &ledger, branch);
    }
    check_arrived(&ledger, branch, now);
}

/// What was told is what is recorded, dated by as much as the ledger says that it may be off.
fn check_recorded(row: &Recorded, told: &Told, skews: (i64, i64)) {
    let What::Change { device, to, onset, .. } = &told.what else { panic!("no change: {told:?}") };
    assert_eq!((row.device.as_str(), row.is_up), (device.as_str(), *to == Status::Up), "{told:?}");
    // By whichever clock it was dated.
    let error_ms = (onset + skews.0 - row.onset).max(row.onset - onset - skews.1);
    assert!(error_ms <= row.error_ms + SLACK_MS, "{row:?} is {error_ms} ms off: {told:?} skews {skews:?}");
}

/// What is missing is named by its number, or lies beyond what is known of its run; and the collector doesn't say that
/// it knows that time.
fn check_missing(ledger: &Ledger, told: &Told, skews: (i64, i64)) {
    let through = ledger.through(told.stream);
    let is_named = ledger.gap(told.stream, told.seq).is_some();
    assert!(is_named || told.seq > through, "{told:?} is missing without a gap, and its stream is known through {through}");
    // Dates by different clocks can't be compared, and what is told anew began in a time that may well be known.
    let (What::Change { onset, is_anew: false, .. }, (0, 0)) = (&told.what, skews) else { return };
    let errors = ledger.streams.values().filter(|row| row.error_ms < u32::MAX).map(|row| i64::from(row.error_ms));
    let error_ms = errors.max().unwrap_or(0) + SLACK_MS;
    let known = ledger.covered.iter().find(|span| span.from.0 + error_ms < *onset && onset + error_ms < span.to.0);
    assert!(known.is_none(), "{told:?} is missing, and the collector says that it knows that time: {known:?}");
}

/// A gap says how much it stands for.
fn check_counts(stream: StreamId, gap: &GapRow, told: &BTreeMap<(StreamId, u64), &Told>) {
    let (mut transitions, mut minutes) = (0, 0);
    for (_, told) in told.range((stream, gap.first)..=(stream, gap.last)) {
        match told.what {
            What::Change { .. } => transitions += 1,
            What::Minutes(n) => minutes += n,
            What::Boot => {}
        }
    }
    let lost = gap.dropped;
    assert!(
        lost.transitions <= transitions && lost.minutes <= minutes && transitions <= lost.transitions + lost.unreadable,
        "it stands for {transitions} transitions and {minutes} minutes: {gap:?}"
    );
    if lost.unreadable == 0 {
        assert_eq!((transitions, minutes), (lost.transitions, lost.minutes), "{gap:?}");
    }
}

/// The qualities that were told and aren't lost are there, at their minute.
fn check_minutes(store: &Store, ledger: &Ledger, branch: &Branch) {
    let db = store.connection();
    let number = |device: &Device| {
        let found = db.query_row("select no from device where id = ?1", [device.id.as_str()], |row| row.get::<_, u32>(0));
        found.expect("in the inventory")
    };
    let numbers: Vec<u32> = branch.devices.iter().map(number).collect();
    for told in &branch.told {
        // The others fill buffers, and the inventory doesn't know them.
        let What::Minutes(n) = told.what else { continue };
        let Some(stream) = ledger.streams.get(&told.stream).filter(|row| row.error_ms < u32::MAX) else { continue };
        if n != numbers.len() as u64 || told.seq > stream.through || ledger.gap(told.stream, told.seq).is_some() {
            continue;
        }
        let off_ms = Millis::MINUTE / 2 + i64::from(stream.error_ms) + SLACK_MS;
        let (from, to) = (Millis(told.at - off_ms), Millis(told.at + off_ms));
        for device in &numbers {
            let found = store::minutes(db, *device, from, to).expect("readable");
            assert!(!found.is_empty(), "{told:?} is neither there nor a gap, of device {device}");
        }
    }
}

/// What was told a while ago has arrived, as far as it can: all of the present run, and of earlier ones what was durable.
fn check_arrived(ledger: &Ledger, branch: &Branch, now: i64) {
    let present = branch.outbox.as_ref().expect("it is calm").buffer.run().stream;
    for told in &branch.told {
        let is_due = told.stream == present && told.at < now - ARRIVED_MS;
        if !is_due && told.seq > branch.disk.promised(told.stream) {
            continue;
        }
        let is_there = told.seq <= ledger.through(told.stream) || ledger.gap(told.stream, told.seq).is_some();
        assert!(is_there, "{told:?} never arrived: known through {}", ledger.through(told.stream));
    }
}

//! The ledger's rows: streams, transitions and gaps. Rows are added, never changed; only a stream's mark moves on.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use shared::{BootId, Cause, Millis, Status, StreamId, Uptime};

use super::StoreError;
use crate::clock::Moment;
use crate::outage::{Change, Covered};

pub(super) const ALIVE: &str = "
create table alive (
    one integer primary key check (one = 1), boot text not null, uptime_ms integer not null, at_ms integer not null,
    furthest_ms integer not null
) strict;
";

/// A stream and how far it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRow {
    /// Number in this file.
    pub no: i64,
    /// The branch it came from.
    pub branch: String,
    /// Its id.
    pub stream: StreamId,
    /// Everything up to this sequence number is here.
    pub through: u64,
    /// When its run began.
    pub began: Millis,
    /// Every change before this moment is here.
    pub observed: Millis,
    /// How far these two dates may be off, in ms; the greatest value where nothing can be said.
    pub error_ms: u32,
    /// Before which its boot can't have begun, where that is all that is known of its dates.
    pub not_before: Option<Millis>,
    /// The boot it ran in.
    pub boot: String,
    /// The agent's version.
    pub version: String,
}

/// A transition to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitionRow {
    /// Number of the device in this file.
    pub device: u32,
    /// Number of the stream in this file.
    pub stream: i64,
    /// Its place in the stream.
    pub seq: u64,
    /// What the device was.
    pub from: Status,
    /// What happened.
    pub change: Change,
    /// When it arrived.
    pub received: Millis,
}

/// A gap: sequence numbers whose content is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRow {
    /// Number of the stream in this file.
    pub stream: i64,
    /// First lost sequence number.
    pub first: u64,
    /// Last lost sequence number.
    pub last: u64,
    /// Nothing before is missing.
    pub from: Millis,
    /// Nothing after is missing.
    pub to: Millis,
    /// Why.
    pub reason: String,
    /// What it held, as far as that is known.
    pub dropped: shared::Dropped,
}

fn status_code(status: Status) -> i64 {
    match status {
        Status::Down => 0,
        Status::Up => 1,
        Status::Unknown(Cause::NeverObserved) => 2,
        Status::Unknown(Cause::AgentSilent) => 3,
        Status::Unknown(Cause::AgentIsolated) => 4,
        Status::Unknown(Cause::ProbeError) => 5,
        Status::Unknown(Cause::DnsFailure) => 6,
        Status::Unknown(Cause::Paused) => 7,
    }
}

pub(super) fn status(code: i64) -> Result<Status, StoreError> {
    Ok(match code {
        0 => Status::Down,
        1 => Status::Up,
        2 => Status::Unknown(Cause::NeverObserved),
        3 => Status::Unknown(Cause::AgentSilent),
        4 => Status::Unknown(Cause::AgentIsolated),
        5 => Status::Unknown(Cause::ProbeError),
        6 => Status::Unknown(Cause::DnsFailure),
        7 => Status::Unknown(Cause::Paused),
        other => return Err(StoreError::Content(format!("the status code {other}"))),
    })
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Adds a stream or moves its mark on; the row's number.
pub fn put_stream(db: &Connection, row: &StreamRow) -> Result<i64, StoreError> {
    Ok(db
        .prepare_cached(
            "insert into stream (branch, stream, through, began_ms, observed_ms, error_ms, not_before_ms, boot, version)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             on conflict (branch, stream) do update set through = excluded.through, observed_ms = excluded.observed_ms,
             error_ms = excluded.error_ms
             returning no",
        )?
        .query_row(
            params![
                row.branch,
                row.stream.to_string(),
                signed(row.through),
                row.began.0,
                row.observed.0,
                row.error_ms,
                row.not_before.map(|at| at.0),
                row.boot,
                row.version
            ],
            |row| row.get(0),
        )?)
}

/// A stream as the file names it.
pub(super) fn stream_id(id: &str) -> Result<StreamId, StoreError> {
    u64::from_str_radix(id, 16).map(StreamId).map_err(|_| StoreError::Content(format!("the stream {id:?}")))
}

/// All streams in the order in which they were first heard of.
pub fn streams(db: &Connection) -> Result<Vec<StreamRow>, StoreError> {
    let mut rows =
        db.prepare("select no, branch, stream, through, began_ms, observed_ms, error_ms, not_before_ms, boot, version from stream order by no")?;
    let mut rows = rows.query([])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(2)?;
        let stream = stream_id(&id)?;
        out.push(StreamRow {
            no: row.get(0)?,
            branch: row.get(1)?,
            stream,
            through: row.get::<_, i64>(3)?.unsigned_abs(),
            began: Millis(row.get(4)?),
            observed: Millis(row.get(5)?),
            error_ms: row.get(6)?,
            not_before: row.get::<_, Option<i64>>(7)?.map(Millis),
            boot: row.get(8)?,
            version: row.get(9)?,
        });
    }
    Ok(out)
}

/// Adds a transition.
pub fn add_transition(db: &Connection, row: &TransitionRow) -> Result<(), StoreError> {
    db.prepare_cached("insert or ignore into transition values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?.execute(params![
        row.device,
        row.stream,
        signed(row.seq),
        row.change.onset.0,
        status_code(row.from),
        status_code(row.change.to),
        row.change.last_ok.map(|at| at.0),
        row.change.error_ms,
        row.received.0
    ])?;
    Ok(())
}

/// Adds a gap. One that was told before, and has grown since, is replaced.
pub fn add_gap(db: &Connection, row: &GapRow) -> Result<(), StoreError> {
    db.prepare_cached("delete from gap where stream = ?1 and first_seq >= ?2 and last_seq <= ?3")?.execute(params![
        row.stream,
        signed(row.first),
        signed(row.last)
    ])?;
    db.prepare_cached("insert or ignore into gap values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?.execute(params![
        row.stream,
        signed(row.first),
        signed(row.last),
        row.from.0,
        row.to.0,
        row.reason,
        signed(row.dropped.transitions),
        signed(row.dropped.minutes),
        signed(row.dropped.unreadable)
    ])?;
    Ok(())
}

/// What is told of a device by the branch that it stands in now. What another branch told of it before it was moved stands in
/// an order of its own: that branch's runs may have begun after those of this one and ended long before.
const CHANGE: &str = "select onset_ms, to_status, last_ok_ms, t.error_ms, from_status, s.no, seq
    from transition t join stream s on s.no = t.stream join device d on d.no = t.device
    where device = ?1 and s.branch = d.branch";

fn change(row: &rusqlite::Row<'_>) -> Result<Change, StoreError> {
    Ok(Change {
        onset: Millis(row.get(0)?),
        to: status(row.get(1)?)?,
        last_ok: row.get::<_, Option<i64>>(2)?.map(Millis),
        error_ms: row.get(3)?,
    })
}

/// A device's transitions from `from` to `to`; see [`changes_of`].
pub fn changes(db: &Connection, device: u32, from: Millis, to: Millis) -> Result<Vec<Change>, StoreError> {
    Ok(changes_of(db, &[device], from, to)?.remove(&device).unwrap_or_default())
}

/// Devices' transitions from `from` to `to`, in the order in which they were told by the branches where they stand now, and
/// around them what still counts there: back to the last time that it was up before, and on to the first time that it is up
/// after. One question, however many devices; one without transitions is missing.
///
/// The order is that of the runs, not of the dates: two runs of an agent may be dated by different errors, and what
/// came later must not be taken for what came before. A date that contradicts the order is moved into it.
pub fn changes_of(db: &Connection, devices: &[u32], from: Millis, to: Millis) -> Result<HashMap<u32, Vec<Change>>, StoreError> {
    // Joined in this order: for each device a piece of the index.
    let mut rows = db.prepare_cached(
        "with wanted as materialized (
             select d.no, d.branch,
                 (select onset_ms from transition u cross join stream v on v.no = u.stream where u.device = d.no
                  and onset_ms < ?2 and to_status = 1 and v.branch = d.branch order by onset_ms desc limit 1) as up_before,
                 (select onset_ms from transition u cross join stream v on v.no = u.stream where u.device = d.no
                  and onset_ms >= ?3 and to_status = 1 and v.branch = d.branch order by onset_ms limit 1) as up_after
             from json_each(?1) cross join device d on d.no = value
         )
         select onset_ms, to_status, last_ok_ms, t.error_ms, t.device,
             (select max(to_ms) from gap where stream = s.no and last_seq < t.seq and (transitions > 0 or unreadable > 0))
         from wanted
         cross join transition t on t.device = wanted.no and onset_ms >= coalesce(up_before, -9223372036854775808)
             and onset_ms <= coalesce(up_after, 9223372036854775807)
         cross join stream s on s.no = t.stream and s.branch = wanted.branch
         order by t.device, began_ms, s.no, seq",
    )?;
    let mut rows = rows.query(params![format!("{devices:?}"), from.0, to.0])?;
    let mut all: HashMap<u32, Vec<Change>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let mut next = change(row)?;
        let out = all.entry(row.get(4)?).or_default();
        next.onset = out.last().map_or(next.onset, |before| next.onset.max(before.onset));
        let lost_to = row.get::<_, Option<i64>>(5)?.map(Millis);
        out.push(next.clone());
        // What is told anew after a loss holds from its end on: what was in between nobody saw.
        if let Some(end) = lost_to.filter(|end| *end > next.onset) {
            out.push(Change { onset: end, ..next });
        }
    }
    Ok(all)
}

/// A device's newest transitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    /// Each with what the device was before, in the order in which they were told.
    pub changes: Vec<(Status, Change)>,
    /// Number of the stream that the last of them came from, and its place there.
    pub last: Option<(i64, u64)>,
}

/// A device's newest transitions with what it was before, in the order in which they were told, at most `limit`.
pub fn recent_changes(db: &Connection, device: u32, limit: u32) -> Result<Recent, StoreError> {
    let mut rows = db.prepare_cached(&format!("{CHANGE} order by began_ms desc, s.no desc, seq desc limit ?2"))?;
    let mut rows = rows.query(params![device, limit])?;
    let mut recent = Recent { changes: Vec::new(), last: None };
    while let Some(row) = rows.next()? {
        recent.last.get_or_insert((row.get(5)?, row.get::<_, i64>(6)?.unsigned_abs()));
        recent.changes.push((status(row.get(4)?)?, change(row)?));
    }
    recent.changes.reverse();
    Ok(recent)
}

/// When the outage began that is open at the end of a device's transitions: its first down after the last up.
pub fn open_since(db: &Connection, device: u32) -> Result<Option<Millis>, StoreError> {
    let place = "select began_ms, s.no, seq from transition t join stream s on s.no = t.stream join device d on d.no = t.device
        where device = ?1 and s.branch = d.branch";
    let last_up = db
        .prepare_cached(&format!("{place} and to_status = 1 order by began_ms desc, s.no desc, seq desc limit 1"))?
        .query_row([device], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        .optional()?
        .unwrap_or((i64::MIN, -1, -1));
    let since = db
        .prepare_cached(&format!(
            "{CHANGE} and to_status = 0 and (began_ms, s.no, seq) > (?2, ?3, ?4) order by began_ms, s.no, seq limit 1"
        ))?
        .query_row(params![device, last_up.0, last_up.1, last_up.2], |row| row.get(0))
        .optional()?;
    Ok(since.map(Millis))
}

/// The times in which a branch's agent observed, in order. Transitions that were lost are taken out: nobody can say what
/// the devices were then.
pub fn covered(db: &Connection, branch: &str) -> Result<Vec<Covered>, StoreError> {
    Ok(super::timeline::parts(db, branch)?.iter().map(|part| Covered { from: part.span.from, to: part.span.to }).collect())
}

/// Up to which number of a stream transitions may be lost; 0 where none is.
pub fn lost_through(db: &Connection, stream: i64) -> Result<u64, StoreError> {
    let last: i64 = db
        .prepare_cached("select coalesce(max(last_seq), 0) from gap where stream = ?1 and (transitions > 0 or unreadable > 0)")?
        .query_row([stream], |row| row.get(0))?;
    Ok(last.unsigned_abs())
}

/// A branch's gaps.
pub fn gaps(db: &Connection, branch: &str) -> Result<Vec<GapRow>, StoreError> {
    let mut rows = db.prepare_cached(
        "select g.stream, first_seq, last_seq, from_ms, to_ms, reason, transitions, minutes, unreadable
         from gap g join stream s on s.no = g.stream where s.branch = ?1 order by from_ms",
    )?;
    let rows = rows.query_map([branch], |row| {
        let count = |i| row.get::<_, i64>(i).map(i64::unsigned_abs);
        Ok(GapRow {
            stream: row.get(0)?,
            first: count(1)?,
            last: count(2)?,
            from: Millis(row.get(3)?),
            to: Millis(row.get(4)?),
            reason: row.get(5)?,
            dropped: shared::Dropped { transitions: count(6)?, minutes: count(7)?, unreadable: count(8)? },
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// That there was a collector over this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// Until when, at least.
    pub until: Moment,
    /// The latest date that its clock has ever shown.
    pub furthest: Millis,
}

/// What the last collector over this file has said of itself.
pub fn alive(db: &Connection) -> Result<Option<Alive>, StoreError> {
    let row = |row: &rusqlite::Row<'_>| {
        let (boot, uptime): (String, i64) = (row.get(0)?, row.get(1)?);
        Ok((boot, Uptime(uptime.unsigned_abs()), Millis(row.get(2)?), Millis(row.get(3)?)))
    };
    let found = db.query_row("select boot, uptime_ms, at_ms, furthest_ms from alive", [], row).optional()?;
    let alive = |(boot, uptime, wall, furthest): (String, Uptime, Millis, Millis)| {
        let boot = u128::from_str_radix(&boot, 16).map(BootId).map_err(|_| StoreError::Content(format!("the boot {boot:?}")))?;
        Ok(Alive { until: Moment { wall, boot, uptime }, furthest })
    };
    found.map(alive).transpose()
}

/// Says that there is a collector.
pub fn put_alive(db: &Connection, alive: Alive) -> Result<(), StoreError> {
    let Alive { until: Moment { wall, boot, uptime }, furthest } = alive;
    let uptime = i64::try_from(uptime.0).unwrap_or(i64::MAX);
    let put = "insert or replace into alive (one, boot, uptime_ms, at_ms, furthest_ms) values (1, ?1, ?2, ?3, ?4)";
    db.execute(put, params![boot.to_string(), uptime, wall.0, furthest.0])?;
    Ok(())
}

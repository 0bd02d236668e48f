//! Beside the ledger's transitions: whose fault they are and what speaks for that, what may be said of devices beside their
//! statuses, and which boxes have answered at their addresses. Rows are added, never changed, but for a device's newest flags
//! and for an identity that somebody has accepted.

use rusqlite::{Connection, OptionalExtension, params};
use shared::{Flags, Mac, Millis, Verdict};

use super::StoreError;

/// What another schema adds.
pub(super) const TABLES: &str = "
create table evidence (
    device integer not null, stream integer not null, seq integer not null, at_ms integer not null, verdict integer,
    evidence blob,
    primary key (device, stream, seq)
) strict, without rowid;
create table flagged (
    device integer primary key, stream integer not null, flags integer not null, since_ms integer not null
) strict;
create table identity (
    device integer not null, stream integer not null, seq integer not null, at_ms integer not null, ip text not null,
    mac text not null, before text, is_contested integer not null, accepted_ms integer,
    primary key (device, stream, seq)
) strict, without rowid;
create index identity_by_date on identity (device, at_ms);
create table cut (
    branch text not null, from_ms integer not null, to_ms integer not null, verdict integer not null, reason text not null,
    primary key (branch, from_ms)
) strict, without rowid;
";

fn code(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::DeviceDown => 0,
        Verdict::LanFault => 1,
        Verdict::AgentIsolated => 2,
        Verdict::WanCut => 3,
        Verdict::PowerCut => 4,
    }
}

pub(super) fn verdict(code: i64) -> Result<Verdict, StoreError> {
    Ok(match code {
        0 => Verdict::DeviceDown,
        1 => Verdict::LanFault,
        2 => Verdict::AgentIsolated,
        3 => Verdict::WanCut,
        4 => Verdict::PowerCut,
        other => return Err(StoreError::Content(format!("the verdict code {other}"))),
    })
}

/// What goes with a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofRow {
    /// The device's number.
    pub device: u32,
    /// Number of the stream.
    pub stream: i64,
    /// The transition's place in it.
    pub seq: u64,
    /// When the agent was sure.
    pub at: Millis,
    /// Whose fault it is.
    pub verdict: Option<Verdict>,
    /// What speaks for it, in postcard.
    pub evidence: Option<Vec<u8>>,
}

/// Adds what goes with a transition.
pub fn add_proof(db: &Connection, row: &ProofRow) -> Result<(), StoreError> {
    let seq = i64::try_from(row.seq).unwrap_or(i64::MAX);
    db.prepare_cached("insert or ignore into evidence values (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
        row.device,
        row.stream,
        seq,
        row.at.0,
        row.verdict.map(code),
        row.evidence
    ])?;
    Ok(())
}

/// The verdict that went with a device's transition at a place.
pub fn verdict_at(db: &Connection, device: u32, (stream, seq): (i64, u64)) -> Result<Option<Verdict>, StoreError> {
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let found: Option<Option<i64>> = db
        .prepare_cached("select verdict from evidence where device = ?1 and stream = ?2 and seq = ?3")?
        .query_row(params![device, stream, seq], |row| row.get(0))
        .optional()?;
    found.flatten().map(verdict).transpose()
}

/// Keeps a device's newest flags.
pub fn put_flags(db: &Connection, device: u32, stream: i64, flags: Flags, since: Millis) -> Result<(), StoreError> {
    db.prepare_cached("insert or replace into flagged values (?1, ?2, ?3, ?4)")?.execute(params![
        device,
        stream,
        flags.bits(),
        since.0
    ])?;
    Ok(())
}

/// The newest flags of all devices: device, stream, flags.
pub fn flags(db: &Connection) -> Result<Vec<(u32, i64, Flags)>, StoreError> {
    let mut rows = db.prepare("select device, stream, flags from flagged")?;
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, Flags::of_bits(row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Which box an agent has found at a device's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRow {
    /// The device's number.
    pub device: u32,
    /// Number of the stream.
    pub stream: i64,
    /// Its place in it.
    pub seq: u64,
    /// When it was found.
    pub at: Millis,
    /// The address that the device had then.
    pub ip: std::net::IpAddr,
    /// What was found.
    pub mac: Mac,
    /// Two boxes answer by turns.
    pub is_contested: bool,
}

/// Adds what was found at a device's address, if it is anything new; whether another box answers there now than before.
pub fn add_identity(db: &Connection, row: &IdentityRow) -> Result<bool, StoreError> {
    let (mac, ip) = (row.mac.to_string(), row.ip.to_string());
    let newest = |which: &str| -> Result<Option<String>, StoreError> {
        let sql = format!(
            "select mac from identity where device = ?1 and ip = ?2 {which} order by at_ms desc, stream desc, seq desc limit 1"
        );
        Ok(db.prepare_cached(&sql)?.query_row(params![row.device, ip], |row| row.get(0)).optional()?)
    };
    // Of two that answer by turns or together neither has taken the other's place.
    let before = newest("and is_contested = 0")?;
    let is_known = before.as_ref() == Some(&mac) || newest("")?.as_ref() == Some(&mac);
    if is_known && !row.is_contested {
        return Ok(false);
    }
    let seq = i64::try_from(row.seq).unwrap_or(i64::MAX);
    let added = db
        .prepare_cached("insert or ignore into identity values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, null)")?
        .execute(params![row.device, row.stream, seq, row.at.0, ip, mac, before, row.is_contested])?;
    Ok(added > 0 && (before.is_some() || row.is_contested))
}

/// Devices at whose addresses another box answers than before, which nobody has accepted.
pub fn changed_identities(db: &Connection) -> Result<Vec<u32>, StoreError> {
    let mut rows = db
        .prepare("select distinct device from identity where (before is not null or is_contested = 1) and accepted_ms is null")?;
    let rows = rows.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Somebody has accepted the box that answers at a device's address now; whether there was anything to accept.
pub fn accept_identity(db: &Connection, device: u32, now: Millis) -> Result<bool, StoreError> {
    let accepted = db
        .prepare_cached(
            "update identity set accepted_ms = ?2 where device = ?1 and accepted_ms is null and (before is not null or is_contested = 1)",
        )?
        .execute(params![device, now.0])?;
    Ok(accepted > 0)
}

/// A box that was found at a device's address, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// When.
    pub at: Millis,
    /// The address.
    pub ip: String,
    /// The box.
    pub mac: String,
    /// The box before.
    pub before: Option<String>,
    /// Two boxes answer by turns.
    pub is_contested: bool,
    /// When somebody accepted it.
    pub accepted: Option<Millis>,
}

/// The boxes that were found at a device's address, newest first, at most `limit`.
pub fn identities(db: &Connection, device: u32, limit: usize) -> Result<Vec<Found>, StoreError> {
    let mut rows = db.prepare_cached(
        "select at_ms, ip, mac, before, is_contested, accepted_ms from identity where device = ?1
         order by at_ms desc, stream desc, seq desc limit ?2",
    )?;
    let rows = rows.query_map(params![device, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(Found {
            at: Millis(row.get(0)?),
            ip: row.get(1)?,
            mac: row.get(2)?,
            before: row.get(3)?,
            is_contested: row.get(4)?,
            accepted: row.get::<_, Option<i64>>(5)?.map(Millis),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A time in which a branch could not be heard, and why, as it was found when it came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutRow {
    /// The branch.
    pub branch: String,
    /// What was known of it until then.
    pub from: Millis,
    /// When it was heard again.
    pub to: Millis,
    /// Whose fault it was.
    pub verdict: Verdict,
    /// What speaks for that.
    pub reason: String,
}

/// Adds such a time.
pub fn add_cut(db: &Connection, row: &CutRow) -> Result<(), StoreError> {
    db.prepare_cached("insert or replace into cut values (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        row.branch,
        row.from.0,
        row.to.0,
        code(row.verdict),
        row.reason
    ])?;
    Ok(())
}

/// A branch's newest cuts, newest first, at most `limit`.
pub fn cuts(db: &Connection, branch: &str, limit: usize) -> Result<Vec<CutRow>, StoreError> {
    let mut rows =
        db.prepare_cached("select from_ms, to_ms, verdict, reason from cut where branch = ?1 order by from_ms desc limit ?2")?;
    let mut rows = rows.query(params![branch, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(CutRow {
            branch: branch.to_owned(),
            from: Millis(row.get(0)?),
            to: Millis(row.get(1)?),
            verdict: verdict(row.get(2)?)?,
            reason: row.get(3)?,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn another_box_at_the_same_address_is_a_change_until_somebody_accepts_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path()).expect("a file");
        let row = |seq, ip: [u8; 4], last: u8, is_contested| IdentityRow {
            device: 7,
            stream: 1,
            seq,
            at: Millis(1_795_442_400_000 + i64::try_from(seq).unwrap_or(0)),
            ip: ip.into(),
            mac: Mac([2, 0, 0, 0, 0, last]),
            is_contested,
        };
        let mut add = |row: IdentityRow| store.transaction(|db| add_identity(db, &row)).expect("written");
        assert!(!add(row(1, [10, 0, 0, 1], 1, false)), "the first is no change");
        assert!(!add(row(2, [10, 0, 0, 1], 1, false)), "the same again");
        assert!(add(row(3, [10, 0, 0, 1], 2, false)));
        assert!(!add(row(3, [10, 0, 0, 1], 2, false)), "told twice");
        assert!(!add(row(4, [10, 0, 0, 9], 3, false)), "the device moved to another address");
        assert_eq!(changed_identities(store.connection()).expect("read"), [7]);
        let accept = |store: &mut Store| store.transaction(|db| accept_identity(db, 7, Millis(9))).expect("written");
        assert_eq!((accept(&mut store), accept(&mut store)), (true, false));
        assert!(changed_identities(store.connection()).expect("read").is_empty());
        let found = identities(store.connection(), 7, 10).expect("read");
        let befores: Vec<Option<&str>> = found.iter().map(|found| found.before.as_deref()).collect();
        assert_eq!(befores, [None, Some("02:00:00:00:00:01"), None]);
        assert!(
            store.transaction(|db| add_identity(db, &row(5, [10, 0, 0, 9], 3, true))).expect("written"),
            "two boxes by turns"
        );
    }
}

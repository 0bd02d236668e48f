//! Transitions as they stand in the ledger, newest first, a page at a time.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use shared::{Evidence, Millis, Status, Verdict};

use super::StoreError;
use super::evidence::verdict;
use super::ledger::status;
use crate::accounts::Reach;

/// What the schema of events adds: those of all devices are found by their moment. It also holds the key, so they come in order.
pub(super) const INDEX: &str = "create index transition_by_moment on transition (onset_ms);";

/// A transition with where it stands and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Its place in the order: onset, device, stream, sequence number.
    pub place: [i64; 4],
    /// The device.
    pub device: String,
    /// The branch that the device stands in now.
    pub branch: String,
    /// The region of the branch.
    pub region: String,
    /// What it was.
    pub from: Status,
    /// What it is from then on.
    pub to: Status,
    /// When that began.
    pub onset: Millis,
    /// The last reply before it, if it is a failure.
    pub last_ok: Option<Millis>,
    /// How far the onset's date may be off, in ms.
    pub error_ms: u32,
    /// When it arrived.
    pub received: Millis,
    /// When the agent was sure, where it said so.
    pub confirmed: Option<Millis>,
    /// Whose fault it is, of a failure.
    pub verdict: Option<Verdict>,
    /// What speaks for it.
    pub evidence: Option<Evidence>,
}

/// Of which devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Whose {
    /// One device, by its number.
    pub device: Option<u32>,
    /// The devices of a branch.
    pub branch: Option<String>,
    /// The devices of a region.
    pub region: Option<String>,
    /// The devices of these regions.
    pub reach: Reach,
}

/// Transitions from `from` to before `to`, newest first; those that come after `place` in this order, at most `limit`.
pub fn events(
    db: &Connection,
    whose: &Whose,
    (from, to): (Millis, Millis),
    place: Option<[i64; 4]>,
    limit: usize,
) -> Result<Vec<EventRow>, StoreError> {
    // Of one device, or of a branch's, a piece of the index each; of all, by the moment.
    let from_tables = match (whose.device, &whose.branch) {
        (None, None) => {
            "transition t indexed by transition_by_moment cross join device d on d.no = t.device cross join branch b on b.id = d.branch"
        }
        _ => "device d join branch b on b.id = d.branch join transition t on t.device = d.no",
    };
    let mut sql = format!(
        "select t.onset_ms, t.device, t.stream, t.seq, d.id, d.branch, b.region, t.from_status, t.to_status,
         t.last_ok_ms, t.error_ms, t.received_ms, e.verdict, e.evidence, e.at_ms
         from {from_tables}
         left join evidence e on e.device = t.device and e.stream = t.stream and e.seq = t.seq
         where t.onset_ms >= ? and t.onset_ms < ?"
    );
    let mut values = vec![Value::from(from.0), Value::from(to.0)];
    let texts = [(" and d.branch = ?", &whose.branch), (" and b.region = ?", &whose.region)];
    for (clause, text) in texts {
        if let Some(text) = text {
            sql.push_str(clause);
            values.push(Value::from(text.clone()));
        }
    }
    if let Reach::Regions(regions) = &whose.reach {
        let marks = vec!["?"; regions.len()].join(",");
        sql.push_str(&format!(" and b.region in ({marks})"));
        values.extend(regions.iter().map(|region| Value::from(region.to_string())));
    }
    if let Some(device) = whose.device {
        sql.push_str(" and d.no = ?");
        values.push(Value::from(i64::from(device)));
    }
    if let Some(place) = place {
        // The first bound is for the index, the other for the place within one moment.
        sql.push_str(" and t.onset_ms <= ? and (t.onset_ms, t.device, t.stream, t.seq) < (?, ?, ?, ?)");
        values.push(Value::from(place[0]));
        values.extend(place.map(Value::from));
    }
    sql.push_str(" order by t.onset_ms desc, t.device desc, t.stream desc, t.seq desc limit ?");
    values.push(Value::from(i64::try_from(limit).unwrap_or(i64::MAX)));
    let mut rows = db.prepare_cached(&sql)?;
    let mut rows = rows.query(params_from_iter(values))?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(EventRow {
            place: [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?],
            device: row.get(4)?,
            branch: row.get(5)?,
            region: row.get(6)?,
            from: status(row.get(7)?)?,
            to: status(row.get(8)?)?,
            onset: Millis(row.get(0)?),
            last_ok: row.get::<_, Option<i64>>(9)?.map(Millis),
            error_ms: row.get(10)?,
            received: Millis(row.get(11)?),
            verdict: row.get::<_, Option<i64>>(12)?.map(verdict).transpose()?,
            confirmed: row.get::<_, Option<i64>>(14)?.map(Millis),
            // One that a later version wrote is not shown rather than guessed at.
            evidence: row.get::<_, Option<Vec<u8>>>(13)?.and_then(|bytes| postcard::from_bytes(&bytes).ok()),
        });
    }
    Ok(out)
}

//! Minutes of quality: rows while a day is young, columns packed by pco once it is over.

use pco::standalone::{simple_compress, simple_decompress};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use shared::delta::Rtt;
use shared::{Millis, Minute};

use super::StoreError;

/// Minutes of a day.
const DAY_MINUTES: i64 = 1440;

/// A device's minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinuteRow {
    /// The end of the minute, a full minute of UTC.
    pub end: Millis,
    /// What it was like.
    pub minute: Minute,
}

/// A day of one device, each column by itself. Round trips stand only where there was a reply.
#[derive(Serialize, Deserialize)]
struct Day {
    minutes: Vec<u8>,
    sent: Vec<u8>,
    lost: Vec<u8>,
    min: Vec<u8>,
    average: Vec<u8>,
    max: Vec<u8>,
    jitter: Vec<u8>,
}

fn number(end: Millis) -> i64 {
    end.0.div_euclid(Millis::MINUTE)
}

/// Adds a device's minutes. What comes twice for one minute of a young day, because a clock was corrected, is joined.
pub fn add_minutes(db: &Connection, device: u32, rows: &[MinuteRow]) -> Result<(), StoreError> {
    let mut insert = db.prepare_cached(
        "insert into minute values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         on conflict (device, minute) do update set
           avg_us = case when avg_us is null then excluded.avg_us when excluded.avg_us is null then avg_us
                    else (avg_us * (sent - lost) + excluded.avg_us * (excluded.sent - excluded.lost))
                         / (sent - lost + excluded.sent - excluded.lost) end,
           min_us = min(coalesce(min_us, excluded.min_us), coalesce(excluded.min_us, min_us)),
           max_us = max(coalesce(max_us, excluded.max_us), coalesce(excluded.max_us, max_us)),
           jitter_us = max(coalesce(jitter_us, excluded.jitter_us), coalesce(excluded.jitter_us, jitter_us)),
           sent = min(65535, sent + excluded.sent), lost = min(65535, lost + excluded.lost)",
    )?;
    for MinuteRow { end, minute } in rows.iter().filter(|row| row.minute.sent > 0) {
        let rtt = minute.rtt;
        insert.execute(params![
            device,
            number(*end),
            minute.sent,
            minute.lost,
            rtt.map(|r| r.min_us),
            rtt.map(|r| r.avg_us),
            rtt.map(|r| r.max_us),
            rtt.map(|r| r.jitter_us)
        ])?;
    }
    Ok(())
}

/// A device's minutes that end in `from..=to`, in order. Where nothing was observed there is none.
pub fn minutes(db: &Connection, device: u32, from: Millis, to: Millis) -> Result<Vec<MinuteRow>, StoreError> {
    let (first, last) = (number(from.plus(Millis::MINUTE - 1)), number(to));
    let mut out = Vec::new();
    let mut days =
        db.prepare_cached("select columns from minute_day where device = ?1 and day between ?2 and ?3 order by day")?;
    let mut days = days.query(params![device, first.div_euclid(DAY_MINUTES), last.div_euclid(DAY_MINUTES)])?;
    while let Some(row) = days.next()? {
        out.extend(unpack(&row.get::<_, Vec<u8>>(0)?)?);
    }
    out.extend(young(db, device, first, last)?);
    out.retain(|row| (first..=last).contains(&number(row.end)));
    out.sort_by_key(|row| row.end);
    out.dedup_by_key(|row| row.end);
    Ok(out)
}

fn young(db: &Connection, device: u32, first: i64, last: i64) -> Result<Vec<MinuteRow>, StoreError> {
    let mut rows = db.prepare_cached(
        "select minute, sent, lost, min_us, avg_us, max_us, jitter_us from minute
         where device = ?1 and minute between ?2 and ?3 order by minute",
    )?;
    let rows = rows.query_map(params![device, first, last], |row| {
        let rtt = match row.get::<_, Option<u32>>(4)? {
            Some(avg_us) => Some(Rtt { min_us: row.get(3)?, avg_us, max_us: row.get(5)?, jitter_us: row.get(6)? }),
            None => None,
        };
        let end = Millis(row.get::<_, i64>(0)?.saturating_mul(Millis::MINUTE));
        Ok(MinuteRow { end, minute: Minute { sent: row.get(1)?, lost: row.get(2)?, rtt } })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Packs the device-days that ended before `before`, at most `limit` of them; how many there were.
pub fn seal(db: &Connection, before: Millis, limit: u32) -> Result<usize, StoreError> {
    let today = number(before).div_euclid(DAY_MINUTES);
    let mut due = db.prepare_cached("select distinct device, minute / 1440 from minute where minute < ?1 limit ?2")?;
    let due: Vec<(u32, i64)> =
        due.query_map(params![today * DAY_MINUTES, limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (device, day) in &due {
        let (first, last) = (day * DAY_MINUTES, (day + 1) * DAY_MINUTES - 1);
        let rows = minutes(db, *device, Millis(first * Millis::MINUTE), Millis(last * Millis::MINUTE))?;
        db.prepare_cached("insert or replace into minute_day values (?1, ?2, ?3)")?.execute(params![
            device,
            day,
            pack(&rows)?
        ])?;
        db.prepare_cached("delete from minute where device = ?1 and minute between ?2 and ?3")?
            .execute(params![device, first, last])?;
    }
    Ok(due.len())
}

fn pack(rows: &[MinuteRow]) -> Result<Vec<u8>, StoreError> {
    let column = |values: Vec<u32>| {
        simple_compress(&values, &pco::ChunkConfig::default())
            .map_err(|error| StoreError::Content(format!("a column that can't be packed: {error}")))
    };
    let of = |value: &dyn Fn(&Minute) -> u32| column(rows.iter().map(|row| value(&row.minute)).collect());
    let rtt = |value: &dyn Fn(&Rtt) -> u32| column(rows.iter().filter_map(|row| row.minute.rtt.as_ref()).map(value).collect());
    let day = Day {
        minutes: column(rows.iter().map(|row| u32::try_from(number(row.end)).unwrap_or(0)).collect())?,
        sent: of(&|m| m.sent.into())?,
        lost: of(&|m| m.lost.into())?,
        min: rtt(&|r| r.min_us / 10)?,
        average: rtt(&|r| r.avg_us / 10)?,
        max: rtt(&|r| r.max_us / 10)?,
        jitter: rtt(&|r| r.jitter_us / 10)?,
    };
    postcard::to_stdvec(&day).map_err(|error| StoreError::Content(format!("a day that can't be packed: {error}")))
}

fn unpack(bytes: &[u8]) -> Result<Vec<MinuteRow>, StoreError> {
    let bad = |what: String| StoreError::Content(format!("a packed day that can't be read: {what}"));
    let day: Day = postcard::from_bytes(bytes).map_err(|error| bad(error.to_string()))?;
    let column = |bytes: &[u8]| simple_decompress::<u32>(bytes).map_err(|error| bad(error.to_string()));
    let (ends, sent, lost) = (column(&day.minutes)?, column(&day.sent)?, column(&day.lost)?);
    let (min, average, max, jitter) = (column(&day.min)?, column(&day.average)?, column(&day.max)?, column(&day.jitter)?);
    if sent.len() != ends.len() || lost.len() != ends.len() {
        return Err(bad("its columns have different lengths".to_owned()));
    }
    let mut replies = min.iter().zip(&average).zip(max.iter().zip(&jitter));
    let mut out = Vec::with_capacity(ends.len());
    for ((end, sent), lost) in ends.iter().zip(&sent).zip(&lost) {
        let narrow = |n: u32| u16::try_from(n).map_err(|_| bad("a count is out of range".to_owned()));
        let rtt = if sent > lost {
            let ((min, average), (max, jitter)) = replies.next().ok_or_else(|| bad("round trips are missing".to_owned()))?;
            Some(Rtt { min_us: min * 10, avg_us: average * 10, max_us: max * 10, jitter_us: jitter * 10 })
        } else {
            None
        };
        let end = Millis(i64::from(*end) * Millis::MINUTE);
        out.push(MinuteRow { end, minute: Minute { sent: narrow(*sent)?, lost: narrow(*lost)?, rtt } });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn row(minute: i64, lost: u16) -> MinuteRow {
        let us = 1_000 + u32::try_from(minute % 50).expect("small") * 10;
        let rtt = (lost < 30).then_some(Rtt { min_us: us, avg_us: us + 50, max_us: us + 900, jitter_us: 40 });
        MinuteRow { end: Millis(minute * Millis::MINUTE), minute: Minute { sent: 30, lost, rtt } }
    }

    #[test]
    fn a_day_reads_the_same_before_and_after_it_is_packed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path()).expect("a new file");
        let first = 20_000 * DAY_MINUTES;
        // Ten minutes are missing, and in ten nothing answered.
        let rows: Vec<MinuteRow> = (first..first + DAY_MINUTES)
            .filter(|m| !(100..110).contains(&(m - first)))
            .map(|m| row(m, if (200..210).contains(&(m - first)) { 30 } else { 1 }))
            .collect();
        let day = |db: &Connection| {
            minutes(db, 7, Millis(first * Millis::MINUTE), Millis((first + DAY_MINUTES) * Millis::MINUTE)).expect("readable")
        };
        store.transaction(|db| add_minutes(db, 7, &rows)).expect("added");
        assert_eq!(day(store.connection()), rows);
        let tomorrow = Millis((first + DAY_MINUTES + 60) * Millis::MINUTE);
        assert_eq!(store.transaction(|db| seal(db, tomorrow, 100)).expect("packed"), 1);
        assert_eq!(day(store.connection()), rows);
        // A late minute of a packed day.
        let late = row(first + 105, 2);
        store.transaction(|db| add_minutes(db, 7, &[late])).expect("added");
        assert_eq!(store.transaction(|db| seal(db, tomorrow, 100)).expect("packed"), 1);
        assert_eq!(day(store.connection()).len(), rows.len() + 1);
        let bytes: i64 =
            store.connection().query_row("select sum(length(columns)) from minute_day", [], |r| r.get(0)).expect("a sum");
        assert!(bytes < 4_000, "{bytes} B a device-day");
    }

    #[test]
    fn two_halves_of_one_minute_are_joined() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path()).expect("a new file");
        let half = |lost| MinuteRow { minute: Minute { sent: 15, ..row(30_000_000, lost).minute }, ..row(30_000_000, lost) };
        store.transaction(|db| add_minutes(db, 7, &[half(0)])).expect("added");
        store.transaction(|db| add_minutes(db, 7, &[half(5)])).expect("added");
        let all = minutes(store.connection(), 7, Millis(0), Millis(i64::MAX / 2)).expect("readable");
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].minute.sent, all[0].minute.lost), (30, 5));
    }
}

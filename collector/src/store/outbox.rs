//! Samples on their way to VictoriaMetrics, kept until it has them.

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;

/// A request that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its number.
    pub id: i64,
    /// How many samples it holds.
    pub samples: u64,
    /// The body, ready to be sent.
    pub body: Vec<u8>,
}

/// Adds a request.
pub fn push(db: &Connection, samples: u64, body: &[u8]) -> Result<(), StoreError> {
    db.prepare_cached("insert into outbox (samples, body) values (?1, ?2)")?.execute(params![samples.cast_signed(), body])?;
    Ok(())
}

/// The oldest request after the one numbered `after`.
pub fn peek(db: &Connection, after: i64) -> Result<Option<Waiting>, StoreError> {
    let row = db
        .prepare_cached("select id, samples, body from outbox where id > ?1 order by id limit 1")?
        .query_row([after], |row| {
            Ok(Waiting { id: row.get(0)?, samples: row.get::<_, i64>(1)?.unsigned_abs(), body: row.get(2)? })
        })
        .optional()?;
    Ok(row)
}

/// Removes a request that was taken; how many bytes it had, none if it is gone already.
pub fn remove(db: &Connection, id: i64) -> Result<u64, StoreError> {
    let mut remove = db.prepare_cached("delete from outbox where id = ?1 returning length(body)")?;
    Ok(remove.query_row([id], |row| row.get::<_, i64>(0)).optional()?.unwrap_or(0).unsigned_abs())
}

/// Bytes that wait. It looks at each request: for the start, when nobody has counted yet.
pub fn outbox_bytes(db: &Connection) -> Result<u64, StoreError> {
    let bytes: i64 = db.query_row("select coalesce(sum(length(body)), 0) from outbox", [], |row| row.get(0))?;
    Ok(bytes.unsigned_abs())
}

/// Drops the oldest requests until at most `limit_bytes` of the `bytes` wait: how many wait then, and how many samples
/// were lost.
pub fn drop_oldest(db: &Connection, mut bytes: u64, limit_bytes: u64) -> Result<(u64, u64), StoreError> {
    let mut lost = 0;
    while bytes > limit_bytes {
        let Some(oldest) = peek(db, 0)? else { return Ok((0, lost)) };
        bytes = bytes.saturating_sub(remove(db, oldest.id)?);
        lost += oldest.samples;
    }
    Ok((bytes, lost))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn at_the_limit_the_oldest_samples_go_and_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path()).expect("a new file");
        store.transaction(|db| (1..=5u8).try_for_each(|n| push(db, n.into(), &[n; 100]))).expect("added");
        assert_eq!(store.transaction(|db| drop_oldest(db, 500, 250)).expect("dropped"), (200, 1 + 2 + 3));
        assert_eq!(peek(store.connection(), 0).expect("readable").map(|w| w.samples), Some(4));
        assert_eq!(outbox_bytes(store.connection()).expect("readable"), 200);
    }
}

//! Samples on their way to VictoriaMetrics, kept until each of those that are to have them does.
//!
//! Requests stand there once, in their order; each reader has a mark of how far it has them, so that one that is away
//! holds back nobody else.

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;

pub(super) const TABLES: &str = "
create table outbox_reader (name text primary key, through integer not null) strict, without rowid;
";

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

/// Who is to have the requests, and how many may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The readers' names.
    pub readers: Vec<String>,
    /// Most bytes of requests that are kept.
    pub limit_bytes: u64,
}

/// One that is to have the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxReader {
    /// What it is known by from one start to the next.
    pub name: String,
    /// It has all requests up to this one.
    pub through: i64,
    /// Bytes that wait for it.
    pub bytes: u64,
    /// Samples that it will never get, since the queue was full.
    pub lost: u64,
}

/// What waits, counted: the sums follow the file from one transaction to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    /// Everybody who is to have the requests, in the order of the config.
    pub readers: Vec<OutboxReader>,
    /// Bytes of all requests that somebody waits for.
    pub bytes: u64,
    limit_bytes: u64,
}

impl Outbox {
    /// What waits. A reader that is new gets what waits for others; nothing waits any longer for one that isn't named.
    pub fn open(db: &Connection, Queue { readers: names, limit_bytes }: Queue) -> Result<Self, StoreError> {
        let mut known = db.prepare("select name from outbox_reader")?;
        let known = known.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        for gone in known.iter().filter(|known| !names.contains(known)) {
            db.execute("delete from outbox_reader where name = ?1", [gone])?;
        }
        let mut readers = Vec::new();
        for name in &names {
            db.execute("insert into outbox_reader values (?1, 0) on conflict do nothing", [name])?;
            let through = outbox_through(db, name)?;
            readers.push(OutboxReader { name: name.clone(), through, bytes: bytes_within(db, through, i64::MAX)?, lost: 0 });
        }
        let mut outbox = Self { readers, bytes: bytes_within(db, 0, i64::MAX)?, limit_bytes };
        outbox.let_go(db)?;
        Ok(outbox)
    }

    /// Adds a request; beyond the limit the oldest ones go, and are counted for whoever didn't have them.
    pub fn push(&mut self, db: &Connection, samples: u64, body: &[u8]) -> Result<(), StoreError> {
        let mut insert = db.prepare_cached("insert into outbox (samples, body) values (?1, ?2)")?;
        insert.execute(params![samples.cast_signed(), body])?;
        let bytes = body.len() as u64;
        self.bytes += bytes;
        self.readers.iter_mut().for_each(|reader| reader.bytes += bytes);
        while self.bytes > self.limit_bytes {
            let Some(oldest) = peek(db, 0)? else { break };
            db.prepare_cached("delete from outbox where id = ?1")?.execute([oldest.id])?;
            let bytes = oldest.body.len() as u64;
            self.bytes = self.bytes.saturating_sub(bytes);
            for reader in self.readers.iter_mut().filter(|reader| reader.through < oldest.id) {
                reader.bytes = reader.bytes.saturating_sub(bytes);
                reader.lost += oldest.samples;
            }
        }
        Ok(())
    }

    /// The reader at an index has all requests up to one; those that everybody has are gone.
    pub fn sent(&mut self, db: &Connection, index: usize, through: i64) -> Result<(), StoreError> {
        let Some(reader) = self.readers.get_mut(index).filter(|reader| reader.through < through) else { return Ok(()) };
        reader.bytes = reader.bytes.saturating_sub(bytes_within(db, reader.through, through)?);
        reader.through = through;
        db.prepare_cached("update outbox_reader set through = ?2 where name = ?1")?.execute(params![reader.name, through])?;
        self.let_go(db)
    }

    fn let_go(&mut self, db: &Connection) -> Result<(), StoreError> {
        let Some(everybody) = self.readers.iter().map(|reader| reader.through).min() else { return Ok(()) };
        self.bytes = self.bytes.saturating_sub(bytes_within(db, 0, everybody)?);
        db.prepare_cached("delete from outbox where id <= ?1")?.execute([everybody])?;
        Ok(())
    }
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

/// The last of the requests that a reader has, 0 before the first.
pub fn outbox_through(db: &Connection, name: &str) -> Result<i64, StoreError> {
    let mut ask = db.prepare_cached("select through from outbox_reader where name = ?1")?;
    Ok(ask.query_row([name], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Bytes of the requests after one and up to another.
fn bytes_within(db: &Connection, after: i64, through: i64) -> Result<u64, StoreError> {
    let mut sum = db.prepare_cached("select coalesce(sum(length(body)), 0) from outbox where id > ?1 and id <= ?2")?;
    Ok(sum.query_row([after, through], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    struct File {
        store: Store,
        _folder: tempfile::TempDir,
    }

    fn file() -> File {
        let folder = tempfile::tempdir().expect("a folder");
        File { store: Store::open(folder.path()).expect("a new file"), _folder: folder }
    }

    impl File {
        fn open(&mut self, names: &str, limit_bytes: u64) -> Outbox {
            let queue = Queue { readers: names.split(' ').map(str::to_owned).collect(), limit_bytes };
            self.store.transaction(|db| Outbox::open(db, queue)).expect("readable")
        }

        /// Adds requests of 100 bytes, each with as many samples as its number says.
        fn push(&mut self, outbox: &mut Outbox, numbers: std::ops::RangeInclusive<u8>) {
            let add = |n: u8| self.store.transaction(|db| outbox.push(db, n.into(), &[n; 100])).expect("added");
            numbers.for_each(add);
        }

        fn sent(&mut self, outbox: &mut Outbox, index: usize, through: i64) {
            self.store.transaction(|db| outbox.sent(db, index, through)).expect("written");
        }

        fn oldest(&self) -> Option<u64> {
            peek(self.store.connection(), 0).expect("readable").map(|waiting| waiting.samples)
        }
    }

    fn counts(outbox: &Outbox) -> Vec<(u64, u64)> {
        outbox.readers.iter().map(|reader| (reader.bytes, reader.lost)).collect()
    }

    #[test]
    fn at_the_limit_the_oldest_samples_go_and_are_counted() {
        let mut file = file();
        let mut outbox = file.open("a", 250);
        file.push(&mut outbox, 1..=5);
        assert_eq!((outbox.bytes, counts(&outbox)), (200, vec![(200, 1 + 2 + 3)]));
        assert_eq!(file.oldest(), Some(4));
    }

    #[test]
    fn one_that_is_away_holds_back_nobody_and_gets_what_it_missed() {
        let mut file = file();
        let mut outbox = file.open("a b", 10_000);
        file.push(&mut outbox, 1..=3);
        file.sent(&mut outbox, 1, 3);
        assert_eq!((outbox.bytes, counts(&outbox)), (300, vec![(300, 0), (0, 0)]));
        // Each goes on where it was when the program starts again.
        let mut outbox = file.open("a b", 10_000);
        assert_eq!(counts(&outbox), [(300, 0), (0, 0)]);
        assert_eq!(outbox.readers.iter().map(|reader| reader.through).collect::<Vec<_>>(), [0, 3]);
        file.sent(&mut outbox, 0, 2);
        assert_eq!((outbox.bytes, file.oldest()), (100, Some(3)));
        // An answer that comes late says nothing new.
        file.sent(&mut outbox, 0, 1);
        file.sent(&mut outbox, 0, 3);
        assert_eq!((outbox.bytes, file.oldest()), (0, None));
    }

    #[test]
    fn the_limit_costs_only_those_who_are_behind() {
        let mut file = file();
        let mut outbox = file.open("a b", 250);
        file.push(&mut outbox, 1..=2);
        file.sent(&mut outbox, 1, 2);
        file.push(&mut outbox, 3..=4);
        assert_eq!((outbox.bytes, counts(&outbox)), (200, vec![(200, 1 + 2), (200, 0)]));
    }

    #[test]
    fn nothing_waits_for_one_that_is_named_no_longer_and_a_new_one_gets_what_waits() {
        let mut file = file();
        let mut outbox = file.open("a b", 10_000);
        file.push(&mut outbox, 1..=4);
        file.sent(&mut outbox, 0, 3);
        let outbox = file.open("a c", 10_000);
        assert_eq!((outbox.bytes, counts(&outbox)), (400, vec![(100, 0), (400, 0)]));
        let outbox = file.open("a", 10_000);
        assert_eq!((outbox.bytes, counts(&outbox), file.oldest()), (100, vec![(100, 0)], Some(4)));
    }
}

//! The collector's own file: inventory, ledger, minutes, and what waits for VictoriaMetrics. One SQLite database in WAL
//! mode; a commit returns when it would survive a power cut.

mod accounts;
mod backup;
mod edit;
mod enrolment;
mod events;
mod evidence;
mod inventory;
mod ledger;
mod maintenance;
mod minutes;
mod outbox;
mod timeline;
mod updates;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::{Connection, TransactionBehavior};
use shared::Millis;

pub use accounts::{AccountEdit, AuditRow, CLI, accounts, audit, note};
pub use backup::backup;
pub use edit::{Change, Edit, EditError};
pub use enrolment::{
    CertificateRow, CodeRow, add_branch, add_certificate, add_code, certificate_of, certificates, code, drop_codes, forget_ended,
    has_branch, has_superseded, revoke, revoked_branches, supersede, use_code,
};
pub use events::{EventRow, Whose, events};
pub use evidence::{CutRow, Found, IdentityRow, ProofRow};
pub use inventory::{Changed, InventoryEdit};
pub use ledger::{Alive, GapRow, Recent, StreamRow, TransitionRow};
pub use minutes::MinuteRow;
pub use outbox::{Outbox, OutboxReader, Queue, Waiting};
pub use updates::{ProgramRow, Reach, build_part, builds, programs, put_program, reach, set_reach, stage_build, stage_words};

/// What can go wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says no.
    #[error("the collector's file {path}: {source}")]
    Sqlite {
        /// The file.
        path: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file was made by a later version.
    #[error("the collector's file {path} has schema {found}; this version knows {SCHEMA}: install the version that wrote it")]
    Newer {
        /// The file.
        path: String,
        /// Its schema.
        found: i64,
    },
    /// A device's address is another's in its branch, and the import doesn't name that one.
    #[error("{ip} is already the address of another device in branch {branch}, which this file doesn't name")]
    Taken {
        /// Index of the device in the inventory.
        index: usize,
        /// The address.
        ip: std::net::IpAddr,
        /// The branch.
        branch: String,
    },
    /// The file holds something that this version can't have written.
    #[error("the collector's file holds {0}")]
    Content(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Sqlite { path: String::new(), source }
    }
}

/// Most KiB of the file that the writer keeps in memory.
const CACHE_LIMIT_KIB: i64 = 32 * 1024;
/// Pages of 4 KiB in the write-ahead log before they are copied to their places.
const CHECKPOINT_PAGES: i64 = 8 * 1024;
/// The present schema.
const SCHEMA: i64 = STEPS.len() as i64;
/// What leads from each schema to the next; the first makes a file.
const STEPS: [&str; 10] = [
    TABLES,
    maintenance::TABLES,
    evidence::TABLES,
    enrolment::TABLES,
    accounts::TABLES,
    inventory::TABLES,
    outbox::TABLES,
    ledger::ALIVE,
    updates::TABLES,
    events::INDEX,
];

const TABLES: &str = "
create table region (id text primary key, name text not null) strict, without rowid;
create table branch (
    id text primary key, name text not null, region text not null references region (id),
    config_version integer not null default 0, config_crc integer not null default 0
) strict, without rowid;
create table device (
    no integer primary key, id text not null unique, name text not null, branch text not null references branch (id),
    device_type text not null, ip text not null, unique (branch, ip)
) strict;
create table stream (
    no integer primary key, branch text not null, stream text not null, through integer not null,
    began_ms integer not null, observed_ms integer not null, error_ms integer not null, not_before_ms integer,
    boot text not null, version text not null,
    unique (branch, stream)
) strict;
create table transition (
    device integer not null, stream integer not null, seq integer not null, onset_ms integer not null,
    from_status integer not null, to_status integer not null, last_ok_ms integer, error_ms integer not null,
    received_ms integer not null, primary key (device, stream, seq)
) strict, without rowid;
create index transition_by_onset on transition (device, onset_ms);
create table gap (
    stream integer not null, first_seq integer not null, last_seq integer not null, from_ms integer not null,
    to_ms integer not null, reason text not null, transitions integer not null, minutes integer not null,
    unreadable integer not null, primary key (stream, first_seq)
) strict, without rowid;
create table minute (
    device integer not null, minute integer not null, sent integer not null, lost integer not null,
    min_us integer, avg_us integer, max_us integer, jitter_us integer, primary key (device, minute)
) strict, without rowid;
create table minute_day (
    device integer not null, day integer not null, columns blob not null, primary key (device, day)
) strict, without rowid;
create table inventory_version (version integer not null) strict;
insert into inventory_version values (1);
create table outbox (id integer primary key autoincrement, samples integer not null, body blob not null) strict;
";

/// The one connection that writes.
pub struct Store {
    db: Connection,
}

impl Store {
    /// Opens the file `ward.db` in a folder, and makes both if they are missing.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = file(data_dir);
        let at = |source| StoreError::Sqlite { path: path.display().to_string(), source };
        std::fs::create_dir_all(data_dir)
            .map_err(|error| at(rusqlite::Error::InvalidPath(format!("{}: {error}", data_dir.display()).into())))?;
        let mut db = Connection::open(&path).map_err(at)?;
        db.pragma_update(None, "journal_mode", "wal").map_err(at)?;
        // Each commit reaches the disk before an agent may forget what it holds.
        db.pragma_update(None, "synchronous", "full").map_err(at)?;
        db.pragma_update(None, "foreign_keys", true).map_err(at)?;
        // In KiB, where negative. Many branches tell of many devices, and each device's minutes have pages of their own.
        db.pragma_update(None, "cache_size", -CACHE_LIMIT_KIB).map_err(at)?;
        // In pages: what is written again and again is copied to its place once.
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(at)?;
        db.busy_timeout(std::time::Duration::from_secs(10)).map_err(at)?;
        let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(at)?;
        if found > SCHEMA {
            return Err(StoreError::Newer { path: path.display().to_string(), found });
        }
        if found < SCHEMA {
            // All steps or none: a power cut leaves the file as it was.
            let begun = db.transaction().map_err(at)?;
            for step in &STEPS[usize::try_from(found).unwrap_or(0)..] {
                begun.execute_batch(step).map_err(at)?;
            }
            begun.pragma_update(None, "user_version", SCHEMA).map_err(at)?;
            begun.commit().map_err(at)?;
        }
        Ok(Self { db })
    }

    /// Runs `work` in one transaction: all of it is durable when this returns, or none of it happened.
    pub fn transaction<T>(
        &mut self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // One that reads first could not write any more once another process has: it takes its turn from its beginning.
        let begun = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answer = work(&begun)?;
        begun.commit()?;
        Ok(answer)
    }

    /// Makes a change that somebody asks for: all of it is durable when this returns, or none of it happened.
    ///
    /// # Errors
    /// Why it can't be made.
    pub fn edit(&mut self, change: &Change, now: Millis) -> Result<i64, EditError> {
        let begun = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        // What is refused half-way is undone.
        let done = edit::edit(&begun, change, now)??;
        begun.commit().map_err(StoreError::from)?;
        Ok(done)
    }

    /// The connection, for reading within the writer.
    pub fn connection(&self) -> &Connection {
        &self.db
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("ward.db")
}

/// Connections that read, kept for the next question.
pub struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Reads the file of a data folder that [`Store::open`] has opened.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: file(data_dir), idle: Mutex::default() }
    }

    /// Asks something. Blocks: call it from a thread that may.
    pub fn read<T>(&self, ask: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let db = match idle {
            Some(db) => db,
            None => {
                let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let db = Connection::open_with_flags(&self.path, flags)?;
                db.busy_timeout(std::time::Duration::from_secs(5))?;
                db
            }
        };
        let answer = ask(&db);
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if idle.len() < READERS_LIMIT {
            idle.push(db);
        }
        answer
    }
}

/// Most idle connections that are kept.
const READERS_LIMIT: usize = 8;

pub use evidence::{add_cut, add_identity, add_proof, changed_identities, cuts, flags, identities, put_flags, verdict_at};
pub use inventory::{
    config_versions, import, import_by, inventory_version, load as load_inventory, removed_at, set_config_version,
};
pub use ledger::{
    add_gap, add_transition, alive, changes, changes_of, covered, gaps, lost_through, open_since, put_alive, put_stream,
    recent_changes, streams,
};
pub use maintenance::{ScheduleEdit, add_late, late, schedule};
pub use minutes::{add_minutes, minutes, seal};
pub use outbox::{outbox_through, peek};
pub use timeline::timelines;

//! Maintenance windows, service hours, and what came so late that it changed a time that had been told as final.

use rusqlite::{Connection, params};
use shared::{BranchId, Millis, StreamId};

use super::{EditError, StoreError};
use crate::availability::report::Late;
use crate::availability::spans::Span;
use crate::schedule::{Hours, Rule, Schedule, Scope, Window};

/// What the second schema adds. Nothing of a schedule is ever removed: what was agreed, and until when, has to be shown.
pub(super) const TABLES: &str = "
create table maintenance (
    id integer primary key autoincrement, scope text not null, key text, from_ms integer not null, to_ms integer not null,
    reason text not null, created_ms integer not null, deleted_ms integer
) strict;
create table service_hours (
    id integer primary key autoincrement, scope text not null, key text, rule text not null, from_ms integer not null,
    to_ms integer not null, created_ms integer not null, deleted_ms integer
) strict;
create table late (
    branch text not null, stream text not null, hour integer not null, from_ms integer not null, to_ms integer not null,
    frontier_ms integer not null, primary key (branch, stream, hour)
) strict, without rowid;
create index late_by_end on late (to_ms);
";

/// Most windows, and most service hours, that hold at once.
const LIMIT: i64 = 10_000;
/// Late changes of one stream within this time, in ms, are one.
const LATE_MS: i64 = 3_600_000;

/// A change of the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleEdit {
    /// A window is agreed; its number is given here.
    AddWindow(Window),
    /// Service hours are agreed; their number is given here.
    AddHours(Hours),
    /// A window is taken back.
    RemoveWindow(i64),
    /// Service hours are taken back.
    RemoveHours(i64),
}

/// Changes the schedule; the number of what was added or taken back. The outer error undoes everything.
pub(super) fn edit(db: &Connection, edit: &ScheduleEdit, now: Millis) -> Result<Result<i64, EditError>, StoreError> {
    let is_full = |table: &str| -> Result<bool, StoreError> {
        let sql = format!("select count(*) from {table} where deleted_ms is null");
        Ok(db.query_row(&sql, [], |row| row.get::<_, i64>(0))? >= LIMIT)
    };
    let remove = |table: &str, id: i64| -> Result<Result<i64, EditError>, StoreError> {
        let sql = format!("update {table} set deleted_ms = ?2 where id = ?1 and deleted_ms is null");
        Ok(if db.execute(&sql, params![id, now.0])? == 1 { Ok(id) } else { Err(EditError::NotFound) })
    };
    match edit {
        ScheduleEdit::AddWindow(Window { scope, span, reason, .. }) => {
            if is_full("maintenance")? {
                return Ok(Err(EditError::Full));
            }
            let (scope, key) = scope.words();
            db.execute(
                "insert into maintenance (scope, key, from_ms, to_ms, reason, created_ms) values (?1, ?2, ?3, ?4, ?5, ?6)",
                params![scope, key, span.from.0, span.to.0, reason, now.0],
            )?;
            Ok(Ok(db.last_insert_rowid()))
        }
        ScheduleEdit::AddHours(Hours { scope, valid, rule, .. }) => {
            if is_full("service_hours")? {
                return Ok(Err(EditError::Full));
            }
            let (scope, key) = scope.words();
            let rule = serde_json::to_string(rule).map_err(|error| StoreError::Content(error.to_string()))?;
            db.execute(
                "insert into service_hours (scope, key, rule, from_ms, to_ms, created_ms) values (?1, ?2, ?3, ?4, ?5, ?6)",
                params![scope, key, rule, valid.from.0, valid.to.0, now.0],
            )?;
            Ok(Ok(db.last_insert_rowid()))
        }
        ScheduleEdit::RemoveWindow(id) => remove("maintenance", *id),
        ScheduleEdit::RemoveHours(id) => remove("service_hours", *id),
    }
}

/// The whole schedule.
pub fn schedule(db: &Connection) -> Result<Schedule, StoreError> {
    let mut edits = Vec::new();
    let mut windows = Vec::new();
    let mut rows =
        db.prepare("select id, scope, key, from_ms, to_ms, created_ms, deleted_ms, reason from maintenance order by id")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (scope, span, created, deleted) = head(row)?;
        edits.extend([Some(created), deleted].into_iter().flatten().map(|at| (at, scope.clone(), span)));
        if deleted.is_none() {
            windows.push(Window { id: row.get(0)?, scope, span, reason: row.get(7)?, created });
        }
    }
    let mut hours = Vec::new();
    let mut rows =
        db.prepare("select id, scope, key, from_ms, to_ms, created_ms, deleted_ms, rule from service_hours order by id")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (scope, valid, created, deleted) = head(row)?;
        edits.extend([Some(created), deleted].into_iter().flatten().map(|at| (at, scope.clone(), valid)));
        if deleted.is_none() {
            let text: String = row.get(7)?;
            let rule: Rule =
                serde_json::from_str(&text).map_err(|_| StoreError::Content(format!("the service hours {text:?}")))?;
            hours.push(Hours { id: row.get(0)?, scope, valid, rule, created });
        }
    }
    Schedule::new(windows, hours, edits).map_err(|id| StoreError::Content(format!("service hours {id} that can't be followed")))
}

fn head(row: &rusqlite::Row<'_>) -> Result<(Scope, Span, Millis, Option<Millis>), StoreError> {
    let (scope, key): (String, Option<String>) = (row.get(1)?, row.get(2)?);
    let scope = Scope::from_words(&scope, key.as_deref());
    let scope = scope.map_err(|(field, _)| StoreError::Content(format!("a schedule with an unknown {field}")))?;
    let span = Span::new(Millis(row.get(3)?), Millis(row.get(4)?));
    Ok((scope, span, Millis(row.get(5)?), row.get::<_, Option<i64>>(6)?.map(Millis)))
}

/// Notes that what is known of a branch's time has changed after it was known up to `frontier`.
pub fn add_late(
    db: &Connection,
    branch: &BranchId,
    stream: StreamId,
    changed: Span,
    frontier: Millis,
    now: Millis,
) -> Result<(), StoreError> {
    add_late_of(db, branch, &stream.to_string(), changed, frontier, now)
}

/// The same of whatever has changed it: changes of one `source` within an hour are one.
pub(super) fn add_late_of(
    db: &Connection,
    branch: &BranchId,
    source: &str,
    changed: Span,
    frontier: Millis,
    now: Millis,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "insert into late values (?1, ?2, ?3, ?4, ?5, ?6)
         on conflict (branch, stream, hour) do update set from_ms = min(from_ms, excluded.from_ms),
         to_ms = max(to_ms, excluded.to_ms), frontier_ms = max(frontier_ms, excluded.frontier_ms)",
    )?
    .execute(params![branch.as_str(), source, now.0.div_euclid(LATE_MS), changed.from.0, changed.to.0, frontier.0])?;
    Ok(())
}

/// How often a time changed after it was final, by branch.
pub fn late(db: &Connection, range: Span) -> Result<Late, StoreError> {
    let mut rows = db.prepare_cached(
        "select branch, count(*) from late where to_ms > ?1 and from_ms < ?2 and frontier_ms >= ?2 group by branch",
    )?;
    let rows = rows.query_map([range.from.0, range.to.0], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    let mut out = Late::new();
    for row in rows {
        let (branch, count) = row?;
        if let Ok(branch) = branch.parse() {
            out.insert(branch, count.unsigned_abs());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::{Store, TABLES as FIRST};
    use super::*;

    #[test]
    fn a_file_of_the_first_schema_keeps_what_it_holds_and_learns_the_second() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ward.db");
        let old = Connection::open(&path).expect("a file");
        old.execute_batch(FIRST).expect("the first schema");
        old.execute_batch("insert into region values ('r', 'R'); pragma user_version = 1").expect("content");
        drop(old);
        for _ in 0..2 {
            let store = Store::open(folder.path()).expect("opens");
            let db = store.connection();
            let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("readable");
            assert_eq!((count("pragma user_version"), count("select count(*) from region")), (super::super::SCHEMA, 1));
            assert_eq!(count("select count(*) from maintenance") + count("select count(*) from late"), 0);
        }
        // A new file has the same tables.
        let other = tempfile::tempdir().expect("a folder");
        let schema = |folder: &std::path::Path| {
            let store = Store::open(folder).expect("opens");
            let mut rows =
                store.connection().prepare("select sql from sqlite_schema where sql is not null order by name").expect("good");
            let rows: Vec<String> = rows.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a text")).collect();
            rows
        };
        assert_eq!(schema(folder.path()), schema(other.path()));
    }

    #[test]
    fn a_file_of_a_later_schema_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Store::open(folder.path()).expect("opens"));
        let newer = Connection::open(folder.path().join("ward.db")).expect("a file");
        newer.execute_batch("pragma user_version = 99").expect("written");
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Newer { found: 99, .. })));
    }

    #[test]
    fn what_is_agreed_and_taken_back_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let db = store.connection();
        let span = Span::new(Millis(1_000), Millis(2_000));
        let window = Window { id: 0, scope: Scope::All, span, reason: "works".into(), created: Millis(0) };
        let id = edit(db, &ScheduleEdit::AddWindow(window.clone()), Millis(500)).expect("written").expect("taken");
        assert_eq!(schedule(db).expect("readable").windows(), [Window { id, created: Millis(500), ..window }]);
        edit(db, &ScheduleEdit::RemoveWindow(id), Millis(3_000)).expect("written").expect("taken");
        let after = schedule(db).expect("readable");
        assert!(after.is_empty());
        // Agreed before the time's end and taken back after it.
        assert_eq!(after.changed_after(span).len(), 1);
        let again = edit(db, &ScheduleEdit::RemoveWindow(id), Millis(3_000)).expect("written");
        assert!(matches!(again, Err(EditError::NotFound)));
    }

    #[test]
    fn late_changes_of_a_stream_within_an_hour_are_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let db = store.connection();
        let branch: BranchId = "m".parse().expect("an id");
        let span = |from, to| Span::new(Millis(from), Millis(to));
        let add =
            |stream, changed, now| add_late(db, &branch, StreamId(stream), changed, Millis(9_000), Millis(now)).expect("written");
        add(1, span(100, 200), 10_000);
        add(1, span(300, 400), 20_000);
        let count = |range| late(db, range).expect("readable").get(&branch).copied().unwrap_or(0);
        assert_eq!((count(span(0, 1_000)), count(span(350, 360)), count(span(400, 500))), (1, 1, 0));
        add(1, span(300, 400), 20_000 + LATE_MS);
        add(2, span(300, 400), 20_000);
        assert_eq!(count(span(0, 1_000)), 3);
        // It was not known to the end of this time, so nothing was final.
        assert_eq!(count(span(0, 9_001)), 0);
    }
}

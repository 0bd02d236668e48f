//! Builds of the agent, which boxes are to have them, and what each box says that it runs.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};
use shared::update::{Build, Offer, Running, Stage};
use shared::{BranchId, Millis};

use super::StoreError;

/// What the schema of updates adds.
pub(super) const TABLES: &str = "
create table build (
    machine text primary key, sha256 blob not null, name text not null, staged_ms integer not null, signature blob not null,
    body blob not null
) strict, without rowid;
create table update_reach (branch text primary key) strict, without rowid;
create table program (
    branch text primary key, machine text not null, build blob not null, version text not null, stage text not null,
    why text, told_ms integer not null
) strict, without rowid;
";

/// Stands for all branches but those on metered lines.
const EVERYBODY: &str = "*";
/// Stands for those on metered lines.
const METERED: &str = "*metered";

/// Whom the builds are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// By name, on whatever line.
    pub canaries: BTreeSet<String>,
    /// All that are not on metered lines.
    pub everybody: bool,
    /// Those on metered lines as well.
    pub metered: bool,
}

/// Stages a build for its kind of machine, in place of the one before. Nobody gets it yet.
pub fn stage_build(db: &Connection, offer: &Offer, name: &str, body: &[u8]) -> Result<(), StoreError> {
    set_reach(db, &Reach::default())?;
    db.execute(
        "insert or replace into build (machine, sha256, name, staged_ms, signature, body) values (?1, ?2, ?3, ?4, ?5, ?6)",
        params![offer.machine, offer.build, name, offer.staged.0, offer.signature, body],
    )?;
    Ok(())
}

/// The staged builds with their names.
pub fn builds(db: &Connection) -> Result<Vec<(Offer, String)>, StoreError> {
    let mut rows = db.prepare_cached("select machine, sha256, staged_ms, signature, length(body), name from build")?;
    let offer = |row: &rusqlite::Row<'_>| {
        let (machine, build, staged, signature) = (row.get(0)?, row.get(1)?, Millis(row.get(2)?), row.get(3)?);
        Ok((Offer { machine, build, size: row.get(4)?, staged, signature }, row.get(5)?))
    };
    Ok(rows.query_map([], offer)?.collect::<Result<_, _>>()?)
}

/// A part of a build; none where no such build is staged.
pub fn build_part(db: &Connection, build: &Build, from: u32, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "select substr(body, ?2 + 1, ?3) from build where sha256 = ?1";
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    Ok(db.prepare_cached(sql)?.query_row(params![build, from, bytes], |row| row.get(0)).optional()?)
}

/// Says whom the builds are for.
pub fn set_reach(db: &Connection, reach: &Reach) -> Result<(), StoreError> {
    db.execute("delete from update_reach", [])?;
    let general = [(reach.everybody, EVERYBODY), (reach.metered, METERED)];
    let general = general.iter().filter(|(is_meant, _)| *is_meant).map(|(_, name)| *name);
    for branch in reach.canaries.iter().map(String::as_str).chain(general) {
        db.execute("insert into update_reach (branch) values (?1)", [branch])?;
    }
    Ok(())
}

/// Whom the builds are for.
pub fn reach(db: &Connection) -> Result<Reach, StoreError> {
    let mut rows = db.prepare_cached("select branch from update_reach")?;
    let mut canaries = rows.query_map([], |row| row.get(0))?.collect::<Result<BTreeSet<String>, _>>()?;
    let (everybody, metered) = (canaries.remove(EVERYBODY), canaries.remove(METERED));
    Ok(Reach { canaries, everybody, metered })
}

/// What a box runs, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramRow {
    /// The branch.
    pub branch: String,
    /// Its kind of machine.
    pub machine: String,
    /// The program.
    pub build: Build,
    /// The program's own version.
    pub version: String,
    /// How far it is with what it was offered, in a word.
    pub stage: String,
    /// Why.
    pub why: Option<String>,
    /// When it said so.
    pub told: Millis,
}

/// The word for a stage, and why it is so.
pub fn stage_words(stage: &Stage) -> (&'static str, Option<String>) {
    match stage {
        Stage::InForce => ("in_force", None),
        Stage::Fetching { have } => ("fetching", Some(format!("{have} B"))),
        Stage::Shadow => ("shadow", None),
        Stage::Waiting { why } => ("waiting", Some(why.clone())),
        Stage::Trial => ("trial", None),
        Stage::Refused { why } => ("refused", Some(why.clone())),
    }
}

/// Writes down what a box runs.
pub fn put_program(db: &Connection, branch: &BranchId, running: &Running, told: Millis) -> Result<(), StoreError> {
    let (stage, why) = stage_words(&running.stage);
    db.execute(
        "insert or replace into program (branch, machine, build, version, stage, why, told_ms) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![branch.as_str(), running.machine, running.build, running.version, stage, why, told.0],
    )?;
    Ok(())
}

/// What all boxes run, by branch.
pub fn programs(db: &Connection) -> Result<Vec<ProgramRow>, StoreError> {
    let mut rows =
        db.prepare_cached("select branch, machine, build, version, stage, why, told_ms from program order by branch")?;
    let program = |row: &rusqlite::Row<'_>| {
        Ok(ProgramRow {
            branch: row.get(0)?,
            machine: row.get(1)?,
            build: row.get(2)?,
            version: row.get(3)?,
            stage: row.get(4)?,
            why: row.get(5)?,
            told: Millis(row.get(6)?),
        })
    };
    Ok(rows.query_map([], program)?.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn builds_are_kept_in_parts_and_staging_one_reaches_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path()).expect("open");
        let offer = Offer { machine: "arm".into(), build: [7; 32], size: 5, staged: Millis(3), signature: vec![1] };
        let everybody = Reach { canaries: ["vake".to_owned()].into(), everybody: true, metered: true };
        store
            .transaction(|db| {
                set_reach(db, &everybody)?;
                assert_eq!(reach(db)?, everybody);
                stage_build(db, &offer, "first", b"abcde")?;
                assert_eq!(reach(db)?, Reach::default());
                assert_eq!(builds(db)?, [(offer.clone(), "first".to_owned())]);
                assert_eq!(build_part(db, &[7; 32], 0, 2)?.as_deref(), Some(&b"ab"[..]));
                assert_eq!(build_part(db, &[7; 32], 4, 2)?.as_deref(), Some(&b"e"[..]));
                assert_eq!(build_part(db, &[7; 32], 5, 2)?.as_deref(), Some(&b""[..]));
                assert_eq!(build_part(db, &[8; 32], 0, 2)?, None);
                Ok(())
            })
            .expect("done");
    }
}

//! Join codes and certificates. A code's secret is kept as its hash only.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};
use shared::{BranchId, Millis};

use super::StoreError;

/// What the schema of enrolment adds.
pub(super) const TABLES: &str = "
create table join_code (
    hash blob primary key, branch text not null, made_ms integer not null, expires_ms integer not null, used_ms integer,
    used_by blob
) strict, without rowid;
create table certificate (
    serial text primary key, branch text not null, public_key blob not null, issued_ms integer not null,
    until_ms integer not null, revoked_ms integer
) strict, without rowid;
create index certificate_by_key on certificate (public_key);
create index certificate_by_branch on certificate (branch);
";

/// A certificate that was given to a branch's box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// The branch.
    pub branch: BranchId,
    /// The key that it is for.
    pub public_key: Vec<u8>,
    /// When it was given.
    pub issued: Millis,
    /// Until when it counts.
    pub until: Millis,
    /// When it was taken back.
    pub revoked: Option<Millis>,
}

/// A code that somebody shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRow {
    /// The branch that it is for.
    pub branch: String,
    /// Until when it counts.
    pub expires: Millis,
    /// The key that has used it.
    pub used_by: Option<Vec<u8>>,
}

/// Adds a code, and forgets those before.
pub fn add_code(db: &Connection, hash: &[u8], branch: &BranchId, now: Millis, expires: Millis) -> Result<(), StoreError> {
    drop_codes(db, branch)?;
    db.execute(
        "insert into join_code (hash, branch, made_ms, expires_ms) values (?1, ?2, ?3, ?4)",
        params![hash, branch.as_str(), now.0, expires.0],
    )?;
    Ok(())
}

/// Forgets the codes of a branch. Also one that was used: its key may show it again until it is over, and a key may be stolen.
pub fn drop_codes(db: &Connection, branch: &BranchId) -> Result<(), StoreError> {
    db.execute("delete from join_code where branch = ?1", [branch.as_str()])?;
    Ok(())
}

/// The code of this hash.
pub fn code(db: &Connection, hash: &[u8]) -> Result<Option<CodeRow>, StoreError> {
    let mut found = db.prepare_cached("select branch, expires_ms, used_by from join_code where hash = ?1")?;
    let row =
        found.query_row([hash], |row| Ok(CodeRow { branch: row.get(0)?, expires: Millis(row.get(1)?), used_by: row.get(2)? }));
    Ok(row.optional()?)
}

/// Notes by which key a code was used.
pub fn use_code(db: &Connection, hash: &[u8], public_key: &[u8], now: Millis) -> Result<(), StoreError> {
    db.execute("update join_code set used_ms = ?2, used_by = ?3 where hash = ?1", params![hash, now.0, public_key])?;
    Ok(())
}

/// Whether the inventory has a branch.
pub fn has_branch(db: &Connection, branch: &str) -> Result<bool, StoreError> {
    Ok(db.query_row("select count(*) from branch where id = ?1", [branch], |row| row.get::<_, i64>(0))? > 0)
}

/// Adds a certificate.
pub fn add_certificate(db: &Connection, row: &CertificateRow) -> Result<(), StoreError> {
    db.execute(
        "insert into certificate (serial, branch, public_key, issued_ms, until_ms) values (?1, ?2, ?3, ?4, ?5)",
        params![row.serial, row.branch.as_str(), row.public_key, row.issued.0, row.until.0],
    )?;
    Ok(())
}

/// The newest certificate of a key.
pub fn certificate_of(db: &Connection, public_key: &[u8]) -> Result<Option<CertificateRow>, StoreError> {
    let all = certificates_where(db, "public_key = ?1 order by issued_ms desc limit 1", params![public_key])?;
    Ok(all.into_iter().next())
}

/// All certificates, by branch and age.
pub fn certificates(db: &Connection) -> Result<Vec<CertificateRow>, StoreError> {
    certificates_where(db, "true order by branch, issued_ms", [])
}

fn certificates_where(
    db: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<CertificateRow>, StoreError> {
    let sql = format!("select serial, branch, public_key, issued_ms, until_ms, revoked_ms from certificate where {condition}");
    let mut rows = db.prepare(&sql)?;
    let mut rows = rows.query(values)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let branch: String = row.get(1)?;
        all.push(CertificateRow {
            serial: row.get(0)?,
            branch: branch.parse().map_err(|_| StoreError::Content(format!("the branch {branch:?}")))?,
            public_key: row.get(2)?,
            issued: Millis(row.get(3)?),
            until: Millis(row.get(4)?),
            revoked: row.get::<_, Option<i64>>(5)?.map(Millis),
        });
    }
    Ok(all)
}

/// Takes all certificates of a branch back; how many that were.
pub fn revoke(db: &Connection, branch: &BranchId, now: Millis) -> Result<usize, StoreError> {
    let sql = "update certificate set revoked_ms = ?2 where branch = ?1 and revoked_ms is null";
    Ok(db.execute(sql, params![branch.as_str(), now.0])?)
}

/// Certificates that count although their branch's box has a later one.
const SUPERSEDED: &str = "branch = ?1 and revoked_ms is null and issued_ms < ?2";

/// Whether a branch's box has earlier certificates that count beside this one.
pub fn has_superseded(db: &Connection, row: &CertificateRow) -> Result<bool, StoreError> {
    let mut found = db.prepare_cached(&format!("select 1 from certificate where {SUPERSEDED}"))?;
    Ok(found.exists(params![row.branch.as_str(), row.issued.0])?)
}

/// Takes back what a branch's box had before this certificate, whose key it has now shown to hold.
pub fn supersede(db: &Connection, row: &CertificateRow, now: Millis) -> Result<usize, StoreError> {
    let sql = format!("update certificate set revoked_ms = ?3 where {SUPERSEDED}");
    Ok(db.execute(&sql, params![row.branch.as_str(), row.issued.0, now.0])?)
}

/// Branches all of whose certificates were taken back: nobody may speak for them.
pub fn revoked_branches(db: &Connection) -> Result<BTreeSet<BranchId>, StoreError> {
    let mut is_revoked: BTreeMap<BranchId, bool> = BTreeMap::new();
    for row in certificates(db)? {
        let all = is_revoked.entry(row.branch).or_insert(true);
        *all &= row.revoked.is_some();
    }
    Ok(is_revoked.into_iter().filter_map(|(branch, all)| all.then_some(branch)).collect())
}

/// Forgets what is long over: codes after a day, certificates that were taken back and have ended.
pub fn forget_ended(db: &Connection, now: Millis) -> Result<(), StoreError> {
    db.execute("delete from join_code where expires_ms < ?1", [now.0 - 86_400_000])?;
    // The last one says that the branch was revoked.
    db.execute(
        "delete from certificate where until_ms < ?1 and exists
         (select 1 from certificate later where later.branch = certificate.branch and later.issued_ms > certificate.issued_ms)",
        [now.0 - 366 * 86_400_000],
    )?;
    Ok(())
}

/// Adds a branch without devices to the inventory.
pub fn add_branch(db: &Connection, branch: &BranchId, name: &str, region: &BranchId) -> Result<(), StoreError> {
    db.execute("insert into region values (?1, ?1) on conflict (id) do nothing", [region.as_str()])?;
    db.execute("insert into branch (id, name, region) values (?1, ?2, ?3)", params![branch.as_str(), name, region.as_str()])?;
    db.execute("update inventory_version set version = version + 1", [])?;
    Ok(())
}

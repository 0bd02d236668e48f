//! Users, API tokens, sessions, and the audit: what was changed by whom.

use rusqlite::{Connection, OptionalExtension, Row, params};
use shared::Millis;

use super::{EditError, StoreError};
use crate::accounts::{Accounts, ApiToken, Digest, Reach, Role, Session, User};

/// What the schema of accounts adds. The audit takes rows and never gives one up.
pub(super) const TABLES: &str = "
create table user (
    name text primary key, role text not null, regions text, password text not null, created_ms integer not null,
    last_login_ms integer
) strict, without rowid;
create table api_token (
    id integer primary key autoincrement, name text not null, digest blob not null unique, role text not null, regions text,
    created_by text not null, created_ms integer not null, expires_ms integer
) strict;
create table session (
    digest blob primary key, user text not null references user (name) on delete cascade, created_ms integer not null,
    expires_ms integer not null
) strict, without rowid;
create index session_by_user on session (user, created_ms);
create table audit (
    id integer primary key autoincrement, at_ms integer not null, actor text not null, action text not null,
    target text not null, detail text not null
) strict;
create trigger audit_is_never_changed before update on audit begin select raise(abort, 'the audit is append-only'); end;
create trigger audit_is_never_removed before delete on audit begin select raise(abort, 'the audit is append-only'); end;
";

/// Most users, and most tokens.
const LIMIT: i64 = 10_000;
/// Most sessions of one user: beyond it the oldest ends.
const SESSIONS_LIMIT: i64 = 20;

/// A change of who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountEdit {
    /// The first admin, while there is no user.
    First(User),
    /// A new user.
    AddUser(User),
    /// A user as they are from now on. With another password, role or reach their sessions end.
    SetUser(User),
    /// A user goes, with their sessions.
    RemoveUser(String),
    /// A new token; its number is given here.
    AddToken(ApiToken),
    /// A token is taken no longer.
    RemoveToken(i64),
    /// Somebody has come in.
    Begin(Session),
    /// Somebody leaves.
    End(Digest),
}

/// Changes who may do what; the number of what was added or taken away. The outer error undoes everything.
pub(super) fn edit(db: &Connection, edit: &AccountEdit, now: Millis) -> Result<Result<i64, EditError>, StoreError> {
    let count =
        |table: &str| Ok::<i64, StoreError>(db.query_row(&format!("select count(*) from {table}"), [], |row| row.get(0))?);
    match edit {
        AccountEdit::First(user) => {
            if count("user")? > 0 {
                return Ok(Err(EditError::Taken("there is a user already".to_owned())));
            }
            put_user(db, user)?;
        }
        AccountEdit::AddUser(user) => {
            if count("user")? >= LIMIT {
                return Ok(Err(EditError::Full));
            }
            if this_user(db, &user.name)?.is_some() {
                return Ok(Err(EditError::Taken("there is a user of that name already".to_owned())));
            }
            put_user(db, user)?;
        }
        AccountEdit::SetUser(user) => {
            let Some(before) = this_user(db, &user.name)? else { return Ok(Err(EditError::NotFound)) };
            if before.role == Role::Admin && user.role != Role::Admin && is_last_admin(db)? {
                return Ok(Err(EditError::Taken("this is the last admin".to_owned())));
            }
            db.execute(
                "update user set role = ?2, regions = ?3, password = ?4 where name = ?1",
                params![user.name, user.role.as_str(), user.reach.words(), user.password],
            )?;
            if (&before.password, before.role, &before.reach) != (&user.password, user.role, &user.reach) {
                db.execute("delete from session where user = ?1", [&user.name])?;
            }
        }
        AccountEdit::RemoveUser(name) => {
            let Some(user) = this_user(db, name)? else { return Ok(Err(EditError::NotFound)) };
            if user.role == Role::Admin && is_last_admin(db)? {
                return Ok(Err(EditError::Taken("this is the last admin".to_owned())));
            }
            db.execute("delete from user where name = ?1", [name])?;
        }
        AccountEdit::AddToken(token) => {
            if count("api_token")? >= LIMIT {
                return Ok(Err(EditError::Full));
            }
            db.execute(
                "insert into api_token (name, digest, role, regions, created_by, created_ms, expires_ms)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    token.name,
                    token.digest,
                    token.role.as_str(),
                    token.reach.words(),
                    token.created_by,
                    token.created.0,
                    token.expires.map(|at| at.0)
                ],
            )?;
            return Ok(Ok(db.last_insert_rowid()));
        }
        AccountEdit::RemoveToken(id) => {
            if db.execute("delete from api_token where id = ?1", [id])? == 0 {
                return Ok(Err(EditError::NotFound));
            }
            return Ok(Ok(*id));
        }
        AccountEdit::Begin(session) => {
            // The user may have been removed since the password was checked.
            if this_user(db, &session.user)?.is_none() {
                return Ok(Err(EditError::NotFound));
            }
            db.execute("delete from session where expires_ms <= ?1", [now.0])?;
            db.execute(
                "insert into session values (?1, ?2, ?3, ?4)",
                params![session.digest, session.user, now.0, session.expires.0],
            )?;
            db.execute(
                "delete from session where user = ?1 and digest not in
                 (select digest from session where user = ?1 order by created_ms desc limit ?2)",
                params![session.user, SESSIONS_LIMIT],
            )?;
            db.execute("update user set last_login_ms = ?2 where name = ?1", params![session.user, now.0])?;
        }
        AccountEdit::End(digest) => {
            db.execute("delete from session where digest = ?1", [digest])?;
        }
    }
    Ok(Ok(0))
}

fn put_user(db: &Connection, user: &User) -> Result<(), StoreError> {
    let User { name, role, reach, password, created, last_login } = user;
    db.execute(
        "insert into user values (?1, ?2, ?3, ?4, ?5, ?6)",
        params![name, role.as_str(), reach.words(), password, created.0, last_login.map(|at| at.0)],
    )?;
    Ok(())
}

fn is_last_admin(db: &Connection) -> Result<bool, StoreError> {
    Ok(db.query_row("select count(*) from user where role = 'admin'", [], |row| row.get::<_, i64>(0))? == 1)
}

const USER: &str = "select name, role, regions, password, created_ms, last_login_ms from user";

fn this_user(db: &Connection, name: &str) -> Result<Option<User>, StoreError> {
    db.query_row(&format!("{USER} where name = ?1"), [name], |row| Ok(user(row))).optional()?.transpose()
}

fn user(row: &Row<'_>) -> Result<User, StoreError> {
    Ok(User {
        name: row.get(0)?,
        role: role(row.get(1)?)?,
        reach: reach(row.get(2)?)?,
        password: row.get(3)?,
        created: Millis(row.get(4)?),
        last_login: row.get::<_, Option<i64>>(5)?.map(Millis),
    })
}

fn role(word: String) -> Result<Role, StoreError> {
    Role::parse(&word).ok_or_else(|| StoreError::Content(format!("the role {word:?}")))
}

fn reach(words: Option<String>) -> Result<Reach, StoreError> {
    Reach::parse(words.as_deref()).map_err(|word| StoreError::Content(format!("the region {word:?}")))
}

/// Everybody.
pub fn accounts(db: &Connection) -> Result<Accounts, StoreError> {
    let (mut users, mut tokens, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows = db.prepare(USER)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        users.push(user(row)?);
    }
    let mut rows = db.prepare("select id, name, digest, role, regions, created_by, created_ms, expires_ms from api_token")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        tokens.push(ApiToken {
            id: row.get(0)?,
            name: row.get(1)?,
            digest: row.get(2)?,
            role: role(row.get(3)?)?,
            reach: reach(row.get(4)?)?,
            created_by: row.get(5)?,
            created: Millis(row.get(6)?),
            expires: row.get::<_, Option<i64>>(7)?.map(Millis),
        });
    }
    let mut rows = db.prepare("select digest, user, expires_ms from session")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        sessions.push(Session { digest: row.get(0)?, user: row.get(1)?, expires: Millis(row.get(2)?) });
    }
    Ok(Accounts::new(users, tokens, sessions))
}

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: Millis,
    /// Who.
    pub actor: String,
    /// What was done, such as `device.add`.
    pub action: String,
    /// To whom or what.
    pub target: String,
    /// More about it, as JSON.
    pub detail: String,
}

/// Who it was, where something was done by the collector's own commands.
pub const CLI: &str = "cli";

/// Writes down what was done, in the transaction that does it.
pub fn note(db: &Connection, now: Millis, actor: &str, (action, target, detail): (&str, &str, &str)) -> Result<(), StoreError> {
    db.prepare_cached("insert into audit (at_ms, actor, action, target, detail) values (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![now.0, actor, action, target, detail])?;
    Ok(())
}

/// The audit, newest first; what comes after the row numbered `before`, at most `limit`.
pub fn audit(db: &Connection, before: Option<i64>, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
    let mut rows =
        db.prepare_cached("select id, at_ms, actor, action, target, detail from audit where id < ?1 order by id desc limit ?2")?;
    let rows = rows.query_map(params![before.unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(AuditRow {
            id: row.get(0)?,
            at: Millis(row.get(1)?),
            actor: row.get(2)?,
            action: row.get(3)?,
            target: row.get(4)?,
            detail: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

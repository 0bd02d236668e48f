//! Users, API tokens and the audit, for admins.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::body::Fields;
use super::edits::{created, edit};
use super::problem::Problem;
use super::query::{Nothing, Query, cursor, page};
use crate::accounts::{ApiToken, Reach, Role, User, check_name, check_password, check_reach};
use crate::store::{AccountEdit, Edit};
use crate::{clock, secrets, store};

/// Regions as a list, null for all.
pub(super) fn reach_json(reach: &Reach) -> Value {
    match reach {
        Reach::All => Value::Null,
        Reach::Regions(regions) => regions.iter().map(|region| json!(region.as_str())).collect(),
    }
}

fn user_json(user: &User) -> Value {
    json!({
        "name": user.name, "role": user.role.as_str(), "regions": reach_json(&user.reach), "created_ms": user.created.0,
        "last_login_ms": user.last_login.map(|at| at.0),
    })
}

/// Users by name.
pub(super) async fn users(State(api): State<Arc<Api>>, Query(Nothing {}): Query<Nothing>) -> Json<Value> {
    let accounts = api.gate.accounts();
    let users: Vec<Value> = accounts.users().map(user_json).collect();
    Json(json!({ "total": users.len(), "users": users }))
}

/// Adds a user.
pub(super) async fn add_user(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&headers, &body)?;
    let (name, password) = (fields.needed("name")?, fields.needed("password")?);
    let (role, reach) = role_and_reach(&mut fields, &api, None)?;
    fields.end()?;
    check_name(&name).map_err(|why| Problem::field("name", why))?;
    check_password(&password).map_err(|why| Problem::field("password", why))?;
    let password = api.gate.hash(password).await?;
    let user = User { name, role, reach, password, created: clock::now(), last_login: None };
    edit(&api, &caller, Edit::Account(AccountEdit::AddUser(user.clone()))).await?;
    Ok(created(format!("/api/v1/users/{}", user.name), user_json(&user)))
}

/// What somebody may do and see: what the body says, else what it was.
fn role_and_reach(fields: &mut Fields, api: &Api, before: Option<(Role, &Reach)>) -> Result<(Role, Reach), Problem> {
    let role = fields.role()?.or(before.map(|(role, _)| role)).ok_or_else(|| Problem::missing("role"))?;
    let said = fields.reach(&api.live.fleet())?;
    let reach = said.or(before.map(|(_, reach)| reach.clone())).unwrap_or_default();
    check_reach(role, &reach).map_err(|why| Problem::field("regions", why))?;
    Ok((role, reach))
}

/// Changes a user's role, regions or password.
pub(super) async fn change_user(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let user = api.gate.accounts().user(&name).cloned().ok_or_else(|| Problem::not_found("there is no such user"))?;
    let mut fields = Fields::read(&headers, &body)?;
    let password = fields.text("password")?;
    let (role, reach) = role_and_reach(&mut fields, &api, Some((user.role, &user.reach)))?;
    fields.end()?;
    let password = match password {
        None => user.password.clone(),
        Some(password) => {
            check_password(&password).map_err(|why| Problem::field("password", why))?;
            api.gate.hash(password).await?
        }
    };
    let user = User { role, reach, password, ..user };
    edit(&api, &caller, Edit::Account(AccountEdit::SetUser(user.clone()))).await?;
    Ok(Json(user_json(&user)))
}

/// Removes a user; their sessions are over.
pub(super) async fn remove_user(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<StatusCode, Problem> {
    edit(&api, &caller, Edit::Account(AccountEdit::RemoveUser(name))).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn token_json(token: &ApiToken) -> Value {
    json!({
        "id": token.id, "name": token.name, "role": token.role.as_str(), "regions": reach_json(&token.reach),
        "created_by": token.created_by, "created_ms": token.created.0, "expires_ms": token.expires.map(|at| at.0),
    })
}

/// Tokens by number, without what they are.
pub(super) async fn tokens(State(api): State<Arc<Api>>, Query(Nothing {}): Query<Nothing>) -> Json<Value> {
    let accounts = api.gate.accounts();
    let tokens: Vec<Value> = accounts.tokens().into_iter().map(token_json).collect();
    Json(json!({ "total": tokens.len(), "tokens": tokens }))
}

/// Makes a token. This once it is told.
pub(super) async fn add_token(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let now = clock::now();
    let mut fields = Fields::read(&headers, &body)?;
    let name = fields.needed("name")?;
    let (role, reach) = role_and_reach(&mut fields, &api, None)?;
    let expires = fields.time("expires_ms", now)?;
    fields.end()?;
    check_name(&name).map_err(|why| Problem::field("name", why))?;
    if expires.is_some_and(|at| at <= now) {
        return Err(Problem::field("expires_ms", "must lie ahead"));
    }
    let secret = secrets::random();
    let digest = secrets::digest(&secret);
    let created_by = caller.who.name.clone();
    let mut token = ApiToken { id: 0, name, digest, role, reach, created_by, created: now, expires };
    token.id = edit(&api, &caller, Edit::Account(AccountEdit::AddToken(token.clone()))).await?;
    let mut body = token_json(&token);
    body["token"] = json!(secret);
    Ok(created(format!("/api/v1/tokens/{}", token.id), body))
}

/// Takes a token no longer.
pub(super) async fn remove_token(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<StatusCode, Problem> {
    let id = id.parse().map_err(|_| Problem::not_found("there is no such token"))?;
    edit(&api, &caller, Edit::Account(AccountEdit::RemoveToken(id))).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pages {
    limit: Option<String>,
    cursor: Option<String>,
}

/// What was changed by whom, newest first.
pub(super) async fn audit(State(api): State<Arc<Api>>, Query(pages): Query<Pages>) -> Result<Json<Value>, Problem> {
    let limit = page(pages.limit.as_deref())?;
    let before = cursor::<1>(pages.cursor.as_deref())?.map(|[before]| before);
    let mut rows = api.read(move |db| store::audit(db, before, limit + 1)).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.id.to_string());
    let entries: Vec<Value> = rows
        .iter()
        .map(|row| {
            let detail: Value = serde_json::from_str(&row.detail).unwrap_or_default();
            json!({
                "id": row.id, "at_ms": row.at.0, "actor": row.actor, "action": row.action, "target": row.target,
                "detail": detail,
            })
        })
        .collect();
    Ok(Json(json!({ "entries": entries, "next_cursor": next })))
}

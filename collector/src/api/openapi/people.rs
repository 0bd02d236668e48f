//! Users, API tokens, the audit, and oneself.

use serde_json::{Map, Value, json};

use super::{ID, changes, count, cursor, get, joined, limit, list, ms, object, of, or_null, takes, text, words};
use crate::accounts::{NAME_LIMIT_BYTES, PASSWORD_LIMITS, Role};

fn role() -> Value {
    words(&Role::ALL.map(Role::as_str))
}

fn regions() -> Value {
    or_null(json!({ "type": "array", "items": text(), "description": "null for all" }))
}

fn name() -> Value {
    json!({ "type": "string", "pattern": format!("^[a-zA-Z0-9._@-]{{1,{NAME_LIMIT_BYTES}}}$") })
}

fn password() -> Value {
    json!({ "type": "string", "minLength": PASSWORD_LIMITS.0, "maxLength": PASSWORD_LIMITS.1 })
}

/// What the answers are made of.
pub(super) fn schemas() -> Map<String, Value> {
    let person = || object([("name", text()), ("role", role()), ("regions", regions())]);
    let since = |last: &'static str| object([("created_ms", ms()), (last, or_null(ms()))]);
    let made = object([("id", count()), ("created_by", text())]);
    let entry = object([
        ("id", count()),
        ("at_ms", ms()),
        ("actor", text()),
        ("action", text()),
        ("target", text()),
        ("detail", json!({ "type": "object" })),
    ]);
    let mut all = Map::new();
    all.insert("User".to_owned(), joined([person(), since("last_login_ms")]));
    all.insert("Token".to_owned(), joined([person(), made, since("expires_ms")]));
    all.insert("Change".to_owned(), entry);
    let shown = object([("csrf", or_null(text())), ("via", words(&["session", "token"]))]);
    all.insert("Me".to_owned(), joined([person(), shown]));
    all
}

/// The routes.
pub(super) fn paths() -> Map<String, Value> {
    let said = |required: &[&str], fields: Vec<(&str, Value)>| {
        let fields: Map<String, Value> = fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
        json!({ "type": "object", "properties": fields, "required": required, "additionalProperties": false })
    };
    let wanted = || json!({ "type": ["array", "null"], "items": { "type": "string", "pattern": ID }, "minItems": 1 });
    let expires = json!({ "anyOf": [{ "type": "integer" }, { "type": "string", "format": "date-time" }, { "type": "null" }] });
    let listed = |name: &str, item: &str| object([("total", count()), (name, list(of(item)))]);
    let by_name = json!({ "name": "name", "in": "path", "required": true, "schema": name() });
    let by_number =
        json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "pattern": "^[0-9]{1,15}$" } });
    let new_user = said(
        &["name", "role", "password"],
        vec![("name", name()), ("role", role()), ("regions", wanted()), ("password", password())],
    );
    let user = said(&[], vec![("role", or_null(role())), ("regions", wanted()), ("password", or_null(password()))]);
    let new_token =
        said(&["name", "role"], vec![("name", name()), ("role", role()), ("regions", wanted()), ("expires_ms", expires)]);
    let token = joined([of_token(), object([("token", text())])]);
    let own = said(&["current", "password"], vec![("current", text()), ("password", password())]);
    let mut one_user = changes("patch", "Changes a user", vec![by_name.clone()], "200", Some((user, of("User"))));
    one_user["delete"] = changes("delete", "Removes a user", vec![by_name], "204", None)["delete"].take();
    let mut own = changes("post", "One's own password, by the one before", vec![], "204", Some((own, json!({}))));
    own["post"]["responses"]["204"] = json!({ "description": "Done" });
    own["post"]["responses"]["429"] = super::passing("Too many tries");
    let all = [
        ("/api/v1/me", get("Who asks, and what their page has to show with a change", vec![], of("Me"))),
        ("/api/v1/me/password", own),
        (
            "/api/v1/users",
            takes(get("Users", vec![], listed("users", "User")), "post", "Adds a user", new_user, "201", of("User")),
        ),
        ("/api/v1/users/{name}", one_user),
        (
            "/api/v1/tokens",
            takes(
                get("API tokens", vec![], listed("tokens", "Token")),
                "post",
                "Makes a token, told this once",
                new_token,
                "201",
                token,
            ),
        ),
        ("/api/v1/tokens/{id}", changes("delete", "Takes a token no longer", vec![by_number], "204", None)),
        (
            "/api/v1/audit",
            get(
                "What was changed by whom, newest first",
                vec![limit(), cursor()],
                object([("entries", list(of("Change"))), ("next_cursor", or_null(text()))]),
            ),
        ),
    ];
    all.into_iter().map(|(path, described)| (path.to_owned(), described)).collect()
}

fn of_token() -> Value {
    schemas().remove("Token").unwrap_or_default()
}

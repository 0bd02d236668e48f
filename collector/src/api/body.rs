//! Bodies of changes: JSON objects whose fields are taken one by one; what is left over is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};
use shared::{BranchId, Millis};

use super::problem::Problem;
use crate::accounts::{Reach, Role};
use crate::fleet::Fleet;

/// How far ahead something can be agreed, in ms.
const AHEAD_LIMIT_MS: i64 = 3 * 366 * 24 * 3_600_000;

/// The fields of a body.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Those of an object that was read elsewhere.
    pub(super) fn of(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        // A form of another site can't say so.
        if kind(headers) != "application/json" {
            return Err(Problem::field("content-type", "must be application/json"));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Problem::field("body", "must be an object")),
            Err(error) => Err(Problem::field("body", format!("is no JSON: {error}"))),
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::field(name, "must be a text")),
        }
    }

    /// A text that has to be there.
    pub(super) fn needed(&mut self, name: &str) -> Result<String, Problem> {
        self.text(name)?.ok_or_else(|| Problem::missing(name))
    }

    /// What a text says, if it is there.
    pub(super) fn said<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|error: T::Err| Problem::field(name, error.to_string()))
    }

    /// A time as RFC 3339 or integer ms.
    pub(super) fn time(&mut self, name: &str, now: Millis) -> Result<Option<Millis>, Problem> {
        let at = match self.take(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.parse::<Millis>().map_err(|error| Problem::field(name, error.to_string()))?,
            Some(value) => {
                let ms = value.as_i64().ok_or_else(|| Problem::field(name, "must be a time: RFC 3339 or integer ms"))?;
                Millis(ms)
            }
        };
        if at < Millis::EARLIEST || at.since(now) > AHEAD_LIMIT_MS {
            return Err(Problem::field(name, "must lie after 2024 and at most three years ahead"));
        }
        Ok(Some(at))
    }

    pub(super) fn parsed<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        let wrong = |error: serde_json::Error| Problem::field(name, error.to_string());
        self.take(name).map(|value| serde_json::from_value(value).map_err(wrong)).transpose()
    }

    pub(super) fn role(&mut self) -> Result<Option<Role>, Problem> {
        let wrong = || Problem::field("role", "must be viewer, technician, regional_manager or admin");
        self.text("role")?.map(|word| Role::parse(&word).ok_or_else(wrong)).transpose()
    }

    /// Regions that there are, or null for all; `None` where nothing is said of them.
    pub(super) fn reach(&mut self, fleet: &Fleet) -> Result<Option<Reach>, Problem> {
        let ids = match self.0.remove("regions") {
            None => return Ok(None),
            Some(Value::Null) => return Ok(Some(Reach::All)),
            Some(Value::Array(ids)) => ids,
            Some(_) => return Err(Problem::field("regions", "must be a list of ids, or null for all")),
        };
        let mut regions = BTreeSet::new();
        for (at, id) in ids.iter().enumerate() {
            let known = id.as_str().and_then(|id| id.parse::<BranchId>().ok()).filter(|id| fleet.region_name(id).is_some());
            regions.insert(known.ok_or_else(|| Problem::field(&format!("regions[{at}]"), "there is no such region"))?);
        }
        Ok(Some(Reach::Regions(Arc::new(regions))))
    }

    pub(super) fn end(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            Some(name) => Err(Problem::field(name, "is no field of this")),
            None => Ok(()),
        }
    }
}

/// What kind of body a request has, without its parameters.
pub(super) fn kind(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

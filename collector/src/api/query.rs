//! Query parameters: what isn't known, stands twice or is out of range is refused by name.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use shared::Millis;

use super::problem::Problem;
use crate::history::{RANGE_LIMIT_MS, named_range};

/// Items of a page unless the caller says otherwise, and at most.
const PAGE: (usize, usize) = (500, 10_000);

/// Query parameters; what isn't known is refused by name.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                // "Failed to deserialize query string: unknown field `x`, expected …": the field stands in backticks.
                let text = rejection.body_text();
                let field: String = text.split('`').nth(1).unwrap_or("query").chars().take(100).collect();
                Err(Problem::field(&field, text.chars().take(300).collect::<String>()))
            }
        }
    }
}

/// No parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A whole number, or its default.
pub(super) fn whole(field: &str, text: Option<&str>, default: usize, most: usize) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(default) };
    let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
    let number = number.filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| Problem::field(field, format!("must be a whole number between 1 and {most}")))
}

/// How many items a page has.
pub(super) fn page(limit: Option<&str>) -> Result<usize, Problem> {
    whole("limit", limit, PAGE.0, PAGE.1)
}

/// The same of a list that comes whole unless the caller says otherwise, as far as a page goes.
pub(super) fn large_page(limit: Option<&str>) -> Result<usize, Problem> {
    whole("limit", limit, PAGE.1, PAGE.1)
}

/// One of some words.
pub(super) fn one_of(field: &str, text: Option<&str>, words: &[&str]) -> Result<(), Problem> {
    match text {
        Some(text) if !words.contains(&text) => Err(Problem::field(field, format!("must be one of {}", words.join(", ")))),
        Some(_) | None => Ok(()),
    }
}

/// A cursor of numbers that was handed out.
///
/// # Errors
/// When it is none.
pub fn cursor<const N: usize>(text: Option<&str>) -> Result<Option<[i64; N]>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let numbers: Option<Vec<i64>> = text.split('.').map(|part| part.parse().ok()).collect();
    let cursor = numbers.and_then(|numbers| numbers.try_into().ok());
    cursor.map(Some).ok_or_else(|| Problem::field("cursor", "is no cursor that was handed out"))
}

/// A time between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Millis,
    pub(super) to: Millis,
}

/// The time that somebody asks about: a name, or bounds; `default_ms` up to now without either.
pub(super) fn range(
    time_range: Option<&str>,
    from: Option<&str>,
    to: Option<&str>,
    default_ms: i64,
    now: Millis,
) -> Result<Range, Problem> {
    let time = |field: &str, text: Option<&str>| {
        text.map(|text| text.parse::<Millis>().map_err(|error| Problem::field(field, error.to_string()))).transpose()
    };
    let (from, to) = (time("from", from)?, time("to", to)?);
    let (from, to) = match (time_range, from) {
        (Some(_), Some(_)) => return Err(Problem::field("time_range", "can't stand beside from")),
        (Some(_), None) if to.is_some() => return Err(Problem::field("time_range", "can't stand beside to")),
        (Some(name), None) => {
            let ms = named_range(name)
                .ok_or_else(|| Problem::field("time_range", "must be 30m, 1h, 6h, 12h, 24h, 7d, 30d, 90d or 365d"))?;
            (now.plus(-ms), now)
        }
        (None, Some(from)) => (from, to.unwrap_or(now).min(now)),
        (None, None) if to.is_some() => return Err(Problem::field("from", "is needed beside to")),
        (None, None) => (now.plus(-default_ms), now),
    };
    if from < Millis(0) || from >= to {
        return Err(Problem::field("from", "must lie between 1970 and to, and in the past"));
    }
    if to.since(from) > RANGE_LIMIT_MS {
        return Err(Problem::field("from", "a range has at most 366 days"));
    }
    Ok(Range { from, to })
}

//! What callers of the API write in forms of their own.

use ward_collector::api::reading::{Said, cursor as read_cursor, graphql as read_graphql, said as read_said};
use ward_collector::promql::duration_ms;

use crate::memory::bounded;

/// Bytes that a reader may hold for each byte: a question becomes a tree.
const EACH: usize = 4_096;
const FIXED: usize = 1024 * 1024;
/// Longer questions are refused unread.
const QUESTION_BYTES: usize = 16 * 1024;

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

pub fn graphql(bytes: &[u8]) {
    let Some(text) = text(bytes).filter(|text| text.len() <= QUESTION_BYTES) else { return };
    if let Err(why) = bounded(text.len(), EACH, FIXED, || read_graphql(text)) {
        assert!(!why.is_empty());
    }
}

pub fn cursor(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(Some(place)) = bounded(text.len(), EACH, FIXED, || read_cursor::<4>(Some(text))) {
        let written = place.map(|number| number.to_string()).join(".");
        assert_eq!(read_cursor::<4>(Some(&written)), Ok(Some(place)), "{text:?}");
    }
}

pub fn duration(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Some(ms) = bounded(text.len(), EACH, FIXED, || duration_ms(text)) {
        assert!(ms > 0, "{text:?}");
        assert_eq!(duration_ms(&format!("{ms}ms")), Some(ms), "{text:?}");
    }
}

pub fn said(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match bounded(text.len(), EACH, FIXED, || read_said(text)) {
        Ok(Said::Watch { devices }) => assert!(devices.len() <= shared::message::WATCHED_LIMIT),
        Err(why) => assert!(!why.is_empty()),
    }
}

//! Files and texts that people write.

use shared::enrolment::JoinCode;
use shared::{Millis, topic};
use ward_collector::inventory::ERRORS_LIMIT;
use ward_collector::surface::Fields;

use crate::memory::bounded;

/// Bytes that a reader of text may hold for each byte: a mistake is told with its line, a value with its place.
const EACH: usize = 2_048;
const FIXED: usize = 1024 * 1024;

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

pub fn agent_settings(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Err(mistakes) = bounded(text.len(), EACH, FIXED, || ward_agent::settings::Settings::parse("agent.toml", text)) {
        assert!(!mistakes.to_string().is_empty());
    }
}

pub fn collector_settings(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let parsed = bounded(text.len(), EACH, FIXED, || ward_collector::settings::Settings::parse("collector.toml", text));
    if let Err(mistakes) = parsed {
        assert!(!mistakes.to_string().is_empty());
    }
}

pub fn inventory(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match bounded(text.len(), EACH, FIXED, || ward_collector::inventory::parse_csv("estate.csv", text)) {
        Ok(inventory) => {
            assert!(!inventory.devices.is_empty());
            for device in &inventory.devices {
                assert!(inventory.branches.iter().any(|branch| branch.id == device.branch), "{device:?} stands nowhere");
            }
        }
        Err(mistakes) => {
            assert!(mistakes.first.len() == mistakes.total.min(ERRORS_LIMIT));
            assert!(mistakes.first.iter().all(|mistake| !mistake.message.is_empty()));
        }
    }
}

pub fn join_code(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(code) = bounded(text.len(), EACH, FIXED, || text.parse::<JoinCode>()) {
        assert_eq!(code.to_string().parse(), Ok(code));
    }
}

pub fn fields(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Err(name) = bounded(text.len(), EACH, FIXED, || Fields::parse(text)) {
        assert!(text.split(',').any(|known| known == name));
    }
}

pub fn time(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(time) = text.parse::<Millis>() {
        let written = time.to_string();
        // Years of four digits are written as they are read.
        if (0..253_402_300_800_000).contains(&time.0) {
            assert_eq!(written.parse(), Ok(time), "{text:?}");
        }
    }
}

pub fn topic(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Some((branch, lane)) = topic::parse(text) {
        assert_eq!(lane.topic(&branch), text);
    }
}

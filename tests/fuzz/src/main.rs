//! Arbitrary bytes for everything in ward that reads what others wrote: payloads, groups on a card, files.
//!
//! One program for all targets, chosen by the variable `WARD_FUZZ_TARGET`; `tests/fuzz/run` builds and runs it. A target
//! must not panic, must not allocate much more than it was given, and what it has understood it must understand again
//! when that is written anew.
#![no_main]

mod files;
mod group;
mod ledger;
mod memory;
mod payload;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use shared::message::{Answer, Ask};
use shared::{Ack, Heartbeat, Presence};

#[global_allocator]
static MEMORY: memory::Counting = memory::Counting;

/// Names of the targets and what they do with bytes.
const TARGETS: [(&str, fn(&[u8])); 15] = [
    ("ack", payload::round_trip::<Ack>),
    ("answer", payload::round_trip::<Answer>),
    ("ask", payload::round_trip::<Ask>),
    ("agent-settings", files::agent_settings),
    ("batch", payload::batch),
    ("collector-settings", files::collector_settings),
    ("column", payload::column),
    ("config", payload::config),
    ("group", group::stored),
    ("heartbeat", payload::round_trip::<Heartbeat>),
    ("inventory", files::inventory),
    ("ledger", ledger::payloads),
    ("presence", payload::round_trip::<Presence>),
    ("time", files::time),
    ("topic", files::topic),
];

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("WARD_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("WARD_FUZZ_TARGET={name:?} is no target")).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));

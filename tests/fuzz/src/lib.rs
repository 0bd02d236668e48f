//! Arbitrary bytes for everything in ward that reads what others wrote: payloads, what a card holds, files, packets.
//!
//! A target must not panic, must not allocate much more than it was given, and what it has understood it must understand
//! again when that is written anew. Whoever calls one has [`memory::Counting`] for an allocator.

mod asked;
mod card;
mod files;
mod ledger;
pub mod memory;
mod packet;
mod payload;

use shared::enrolment::{Application, Decision};
use shared::message::{Answer, Ask, Sealed};
use shared::update::{Reply, Request};
use shared::{Ack, Heartbeat, Presence};

/// What a target does with bytes.
pub type Target = fn(&[u8]);

/// All targets with their names.
pub const TARGETS: [(&str, Target); 33] = [
    ("ack", payload::round_trip::<Ack>),
    ("agent-settings", files::agent_settings),
    ("answer", payload::round_trip::<Answer>),
    ("application", payload::round_trip::<Application>),
    ("arp", packet::arp),
    ("ask", payload::round_trip::<Ask>),
    ("batch", payload::batch),
    ("collector-settings", files::collector_settings),
    ("column", payload::column),
    ("config", payload::config),
    ("cursor", asked::cursor),
    ("decision", payload::round_trip::<Decision>),
    ("dns", packet::dns),
    ("duration", asked::duration),
    ("echo", packet::echo),
    ("fields", files::fields),
    ("graphql", asked::graphql),
    ("group", card::group),
    ("heartbeat", payload::round_trip::<Heartbeat>),
    ("http", packet::http),
    ("inventory", files::inventory),
    ("join-code", files::join_code),
    ("ledger", ledger::payloads),
    ("netlink", packet::netlink),
    ("presence", payload::round_trip::<Presence>),
    ("reply", payload::round_trip::<Reply>),
    ("request", payload::round_trip::<Request>),
    ("run", card::run),
    ("said", asked::said),
    ("sealed", payload::round_trip::<Sealed>),
    ("slots", card::slots),
    ("time", files::time),
    ("topic", files::topic),
];

//! ward's agent: stands in a branch, probes its devices, and reports what changed.
//!
//! Data goes one way, `watch` (schedule, probe, monitor, summary) → `keeper` (buffer) → `link`; the one arrow back is
//! the collector's ack. What decides is pure and takes the time as an argument; only [`clock`] reads a clock.

pub mod agent;
pub mod arp;
pub mod budget;
pub mod buffer;
pub mod clock;
pub mod command;
pub mod contents;
pub mod counts;
pub mod dating;
pub mod degraded;
pub mod dial;
pub mod disk;
pub mod echo;
pub mod enrol;
pub mod guardian;
pub mod identity;
pub mod isolation;
pub mod journal;
pub mod keeper;
pub mod launch;
pub mod line;
pub mod link;
pub mod manner;
pub mod monitor;
pub mod names;
pub mod netlink;
pub mod outbox;
pub mod patience;
pub mod plan;
pub mod probe;
pub mod proof;
pub mod questions;
pub mod recorder;
pub mod renewal;
pub mod route;
pub mod schedule;
pub mod service;
pub mod settings;
pub mod shadow;
pub mod slots;
pub mod status;
pub mod summary;
pub mod surroundings;
pub mod tls;
pub mod trial;
pub mod update;
pub mod watch;
pub mod window;
pub mod witness;

/// The version that a boot entry and `--version` tell.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

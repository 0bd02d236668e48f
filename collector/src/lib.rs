//! ward's collector: keeps the ledger of a fleet's devices and answers for it.
//!
//! Data goes one way: `bus` (MQTT) → `ingest` (admission, ledger, fleet) → the ack back to the agent, and from there
//! `feed` (WebSocket), `remote_write` (VictoriaMetrics) and `api`. The fleet is the only owner of current state.

pub mod accounts;
pub mod admission;
pub mod api;
pub mod availability;
pub mod boxes;
pub mod breaker;
pub mod broker;
pub mod bus;
pub mod channel;
pub mod clock;
pub mod collector;
pub mod command;
pub mod demo;
pub mod enrolment;
pub mod feed;
pub mod fleet;
pub mod history;
pub mod inbox;
pub mod ingest;
pub mod inventory;
pub mod memory;
pub mod metrics;
pub mod outage;
pub mod promql;
pub mod proxies;
pub mod remote_write;
pub mod replies;
pub mod revision;
pub mod rollout;
pub mod samples;
pub mod schedule;
pub mod secrets;
pub mod settings;
pub mod steady;
pub mod store;
pub mod surface;
pub mod updates;
pub mod valkey;
pub mod victoria;

/// The version that `/version` and `--version` tell.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

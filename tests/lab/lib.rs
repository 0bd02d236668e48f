//! The laboratory: real servers, real programs and real networks for the tests in `whole`.
//!
//! A [`Net`] is a world of network namespaces: a centre, branches, and devices that can be silenced. What a test
//! starts at the centre (a broker, VictoriaMetrics, a collector) lives in that world only, so that tests run side by
//! side. Whatever is started here ends when its value is dropped.

pub mod agent;
pub mod api;
pub mod branch;
pub mod card;
pub mod clocks;
pub mod collector;
pub mod estate;
pub mod figure;
pub mod moment;
pub mod mosquitto;
pub mod mqtt;
pub mod namespace;
pub mod pki;
pub mod process;
pub mod program;
pub mod service;
pub mod socket;
pub mod valkey;
pub mod victoria;
pub mod wan;
pub mod watched;

pub use agent::Agent;
pub use api::Api;
pub use branch::{Change, Net};
pub use card::Card;
pub use clocks::WrongClock;
pub use collector::{Collector, Demo};
pub use estate::Estate;
pub use figure::Figure;
pub use moment::{eventually, lasting, now_ms};
pub use mosquitto::{Access, Mosquitto};
pub use mqtt::Mqtt;
pub use pki::{Identity, Pki};
pub use service::Service;
pub use socket::Follower;
pub use valkey::Valkey;
pub use victoria::Victoria;
pub use wan::Relay;
pub use watched::Watched;

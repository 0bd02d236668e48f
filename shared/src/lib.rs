//! What crosses the wire between ward's agents and its collector, and how both read a config file.
//!
//! Everything here is data and pure functions: no clock is read, no socket or file is opened.

pub mod delta;
pub mod enrolment;
pub mod evidence;
pub mod ids;
pub mod message;
pub mod settings;
pub mod status;
pub mod time;
pub mod topic;
pub mod update;
pub mod wire;

pub use delta::{Body, Column, Delta, Dropped, Gap, GapReason, Minute, Qualities, Transition};
pub use evidence::{Evidence, Flags, Mac, Verdict};
pub use ids::{BootId, BranchId, DeviceId, StreamId};
pub use message::{Ack, Batch, Config, Group, Heartbeat, Live, Presence, ProbeRule, Target};
pub use status::{Cause, Status};
pub use time::{Dating, Millis, Uptime};
pub use topic::Lane;

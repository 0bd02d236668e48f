//! The payloads: what an agent and its collector say to one another.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{BranchId, Dating, Delta, DeviceId, Millis, Minute, Status, StreamId, Uptime};

/// Greatest sequence number: at a thousand entries a second a run would take nine thousand years to get there.
pub const SEQ_LIMIT: u64 = 1 << 48;

/// Entries of one stream that follow one another without a hole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Sequence number of the first entry; a stream's first is 1.
    pub first: u64,
    /// The entries, at least one.
    pub deltas: Vec<Delta>,
}

impl Group {
    /// Sequence number of the last entry.
    pub fn last(&self) -> u64 {
        self.first.saturating_add(self.span()).saturating_sub(1)
    }

    /// How many sequence numbers the group stands for.
    pub fn span(&self) -> u64 {
        self.deltas.iter().fold(0, |sum, delta| sum.saturating_add(delta.span()))
    }

    /// Whether its numbers can be counted: it begins at 1 or later, each entry stands for a number, and none is beyond
    /// what a stream can reach.
    pub fn is_sound(&self) -> bool {
        let spans = self.deltas.iter().all(|delta| (1..=SEQ_LIMIT).contains(&delta.span()));
        spans && !self.deltas.is_empty() && self.first >= 1 && self.last() <= SEQ_LIMIT
    }
}

/// Topic `up`: a group on its way to the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Who says so. It must be the branch of the topic.
    pub branch: BranchId,
    /// The stream that the group belongs to.
    pub stream: StreamId,
    /// How the stream's moments become dates.
    pub dating: Dating,
    /// The oldest sequence number of this stream that the agent still holds: what lies before and never arrived is gone.
    pub oldest: u64,
    /// When this was sent; the ack echoes it. Absent where the batch speaks of an earlier boot.
    pub sent: Option<Uptime>,
    /// Every change that began before this moment is in the stream up to the group's end.
    pub observed_through: Uptime,
    /// The entries.
    pub group: Group,
}

/// Topic `live`: the agent is there. Not stored, may be lost, may repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The agent's present stream.
    pub stream: StreamId,
    /// When this was sent; the ack echoes it.
    pub sent: Uptime,
    /// How the stream's moments become dates, once known.
    pub dating: Option<Dating>,
    /// Last sequence number given out.
    pub last: u64,
    /// Every change that began before this moment is in the stream up to `last`.
    pub observed_through: Uptime,
    /// How the agent is: when that has changed, and every few minutes.
    pub health: Option<Health>,
    /// Newest states, while the stream itself is behind.
    pub states: Vec<Live>,
}

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// Version of the config in force, zero before the first.
    pub config: u64,
    /// Entries that wait for an ack.
    pub waiting: u64,
    /// Bytes of them on disk.
    pub buffer_bytes: u64,
    /// Nothing can be written to disk: what waits is in memory only.
    pub buffer_volatile: bool,
    /// Probe ticks that were skipped since the start because the agent was late.
    pub ticks_missed: u64,
    /// Probes that could not be sent since the start.
    pub send_errors: u64,
    /// Echo replies that the kernel dropped since the start for want of room.
    pub receive_drops: u64,
    /// The longest time in ms that any target has been waiting for a probe beyond its interval.
    pub probe_age_ms: u64,
    /// Whether something like NTP vouches for the machine's clock.
    pub clock_synchronised: bool,
    /// By how much the machine's clock is ahead of the time as the agent knows it, in ms, once it does.
    pub clock_ahead_ms: Option<i64>,
    /// What the agent has cost over the last day.
    pub spent: Spent,
}

/// What an agent has cost its machine and its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// The time that this covers, in ms: a day, or less after a start.
    pub over_ms: u64,
    /// Bytes written to the disk.
    pub disk_bytes: u64,
    /// How often something was made durable.
    pub flushes: u64,
    /// Bytes sent to the broker, with the headers of TLS, TCP and IP.
    pub sent_bytes: u64,
    /// Bytes received from the broker, with the same headers.
    pub received_bytes: u64,
}

impl Spent {
    /// Adds what else was spent in the same time.
    pub fn add(&mut self, other: Self) {
        self.disk_bytes = self.disk_bytes.saturating_add(other.disk_bytes);
        self.flushes = self.flushes.saturating_add(other.flushes);
        self.sent_bytes = self.sent_bytes.saturating_add(other.sent_bytes);
        self.received_bytes = self.received_bytes.saturating_add(other.received_bytes);
    }
}

/// The newest state of one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// The device.
    pub device: DeviceId,
    /// What it is.
    pub status: Status,
    /// When that began.
    pub onset: Uptime,
}

/// Topic `ack`: how far a stream is on the collector's disk, and what time it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The stream.
    pub stream: StreamId,
    /// All entries up to this one are durable at the collector.
    pub through: u64,
    /// The collector's clock.
    pub now: Millis,
    /// The `sent` of what this answers.
    pub echo: Option<Uptime>,
    /// What the agent told before is not all there: it has to tell every device's state anew.
    pub restate: bool,
}

/// Topic `presence`, retained: whether the agent is connected, by its own word or by its last will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The stream that this speaks of.
    pub stream: StreamId,
    /// What became of its connection.
    pub state: PresenceState,
}

/// What became of an agent's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PresenceState {
    /// It is there.
    Online,
    /// It said goodbye.
    Stopped,
    /// The broker noticed that it is gone.
    Lost,
}

/// Topic `ask`: what somebody wants to know of a branch now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// How some devices answer, every few seconds.
    Watch {
        /// The devices, at most [`WATCHED_LIMIT`].
        devices: Vec<DeviceId>,
        /// For how long from now on, in ms.
        for_ms: u32,
    },
}

/// Most devices that are watched in one branch at a time.
pub const WATCHED_LIMIT: usize = 64;

/// Topic `answer`: what was asked for. Not stored, may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// How watched devices answered of late.
    Watched(Vec<Watched>),
}

/// How a device answered over the last seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The device.
    pub device: DeviceId,
    /// How long these seconds were, in ms.
    pub span_ms: u32,
    /// What was sent, lost and measured in them.
    pub quality: Minute,
}

/// Topic `config`, retained: what an agent is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Grows with each change.
    pub version: u64,
    /// How long in ms the agent may say nothing.
    pub heartbeat_ms: u32,
    /// How often in ms the agent reports qualities.
    pub report_ms: u32,
    /// Ways to probe.
    pub rules: Vec<ProbeRule>,
    /// What to probe.
    pub targets: Vec<Target>,
}

/// One thing to probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The device.
    pub device: DeviceId,
    /// Where it is.
    pub address: IpAddr,
    /// Index into [`Config::rules`].
    pub rule: u16,
}

/// Whether an address can be that of one device.
///
/// # Errors
/// What it stands for instead.
pub fn check_address(address: IpAddr) -> Result<(), &'static str> {
    match address {
        _ if address.is_unspecified() => Err("stands for no address"),
        _ if address.is_multicast() => Err("stands for a group, not for a device"),
        IpAddr::V4(v4) if v4.is_broadcast() => Err("stands for everybody, not for a device"),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    }
}

/// How to probe, and when to believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRule {
    /// Time between probes in ms, 500 to 3,600,000.
    pub interval_ms: u32,
    /// Time to wait for a reply in ms.
    pub timeout_ms: u32,
    /// Time between probes in ms while a verdict is pending.
    pub retry_ms: u32,
    /// Misses in a row before a device counts as down.
    pub fall: u8,
    /// Replies in a row before a device counts as up again.
    pub rise: u8,
}

impl Default for ProbeRule {
    fn default() -> Self {
        Self { interval_ms: 2_000, timeout_ms: 500, retry_ms: 500, fall: 3, rise: 2 }
    }
}

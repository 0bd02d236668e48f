//! The payloads: what an agent and its collector say to one another.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::update::{Offer, Running};
use crate::{BranchId, Dating, Delta, DeviceId, Flags, Mac, Millis, Minute, Status, StreamId, Uptime, Verdict};

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
    /// Echo replies since the start that answer no probe: too late, twice, or not what was sent.
    pub stray_replies: u64,
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
    /// Whose fault it is, of a failure.
    pub verdict: Option<Verdict>,
    /// What may be said of it beside that.
    pub flags: Flags,
}

impl Live {
    /// A state without anything beside it.
    pub fn of(device: DeviceId, status: Status, onset: Uptime) -> Self {
        Self { device, status, onset, verdict: None, flags: Flags::default() }
    }
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
    /// It ends for a moment, to be started anew as another build: nobody has to be told of that silence.
    Restarting,
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
    /// A few probes of a device at once, beside its own.
    Probe {
        /// Names the question.
        id: u64,
        /// The device.
        device: DeviceId,
        /// How many, at most [`PROBES_LIMIT`].
        count: u8,
    },
    /// By which routers a device is reached.
    Route {
        /// Names the question.
        id: u64,
        /// The device.
        device: DeviceId,
    },
    /// What answers in the branch's own networks.
    Discover {
        /// Names the question.
        id: u64,
    },
    /// Which build the agent is to be; answered by [`Answer::Running`], now and whenever that changes.
    Update {
        /// For each kind of machine, at most [`OFFERS_LIMIT`](crate::update::OFFERS_LIMIT).
        offers: Vec<Offer>,
    },
    /// How the agent is; answered by the health of its next heartbeat, which comes at once.
    Health,
}

/// Most devices that are watched in one branch at a time.
pub const WATCHED_LIMIT: usize = 64;
/// Most probes of one [`Ask::Probe`].
pub const PROBES_LIMIT: u8 = 10;
/// Most hops of one [`Answer::Route`].
pub const HOPS_LIMIT: usize = 30;
/// Most addresses in one [`Answer::Discovered`].
pub const FOUND_LIMIT: usize = 400;

/// Topic `answer`: what was asked for. Not stored, may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// How watched devices answered of late.
    Watched(Vec<Watched>),
    /// What became of probes that somebody asked for, with what was seen around them.
    Probed {
        /// Of the question.
        id: u64,
        /// What the device is, by the agent's own probes.
        status: Status,
        /// The probes and what surrounds them.
        evidence: Evidence,
    },
    /// The way to a device.
    Route {
        /// Of the question.
        id: u64,
        /// One by one, at most [`HOPS_LIMIT`].
        hops: Vec<Hop>,
        /// Whether the last of them is the device.
        is_reached: bool,
    },
    /// What answers in the branch's own networks.
    Discovered {
        /// Of the question.
        id: u64,
        /// How many addresses were asked.
        asked: u32,
        /// Addresses that answer and are no device's, at most [`FOUND_LIMIT`].
        unknown: Vec<Found>,
        /// Devices that have not answered since the agent began, by their place in its config.
        never: Vec<u16>,
        /// The config whose places these are.
        config: u64,
    },
    /// It can't be answered.
    Refused {
        /// Of the question.
        id: u64,
        /// Why.
        why: Refused,
    },
    /// What the agent runs. Told when asked by [`Ask::Update`], and when it changes.
    Running(Running),
    /// What became of a config that was pushed. Told when it is in force, and each time that a held one is tried again.
    Tried(Tried),
}

/// What came of asking the devices of a config that the config before didn't have at that place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// The config's version.
    pub version: u64,
    /// Whether it is held, as devices answer now and none that it names does; or it is in force.
    pub is_held: bool,
    /// How many of those devices have answered.
    pub answered: u16,
    /// How many have not.
    pub silent_total: u16,
    /// Which those are, at most [`SILENT_LIMIT`].
    pub silent: Vec<DeviceId>,
}

/// Most devices that are named in one [`Tried`].
pub const SILENT_LIMIT: usize = 100;

/// Why a question can't be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// The agent has no such device.
    NoDevice,
    /// It answers another question of that kind.
    Busy,
    /// The machine doesn't permit it.
    NotPermitted,
    /// The device's name doesn't resolve.
    NoAddress,
}

/// One router on the way, or the device itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// How many hops a packet may take to get there.
    pub ttl: u8,
    /// Who said so, if anybody did.
    pub address: Option<IpAddr>,
    /// After how many µs.
    pub rtt_us: Option<u32>,
}

/// An address that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The address.
    pub address: IpAddr,
    /// What the kernel's neighbour table has for it.
    pub mac: Option<Mac>,
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

/// Topic `config` of a collector that has an authority: a config's payload and the collector's word for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The payload of a [`Config`].
    pub config: Vec<u8>,
    /// By Ed25519, over [`signed_config`](crate::enrolment::signed_config).
    pub signature: Vec<u8>,
}

/// One thing to probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The device.
    pub device: DeviceId,
    /// Where it is.
    pub host: Host,
    /// What it is asked.
    pub probe: Probe,
    /// By which way, where the machine's own choice isn't meant.
    pub via: Option<Via>,
    /// The device that it hangs on, such as a switch.
    pub parent: Option<DeviceId>,
    /// Index into [`Config::rules`].
    pub rule: u16,
}

impl Target {
    /// A device that is pinged at an address.
    pub fn ping(device: DeviceId, address: IpAddr, rule: u16) -> Self {
        Self { device, host: Host::Address(address), probe: Probe::Icmp, via: None, parent: None, rule }
    }
}

/// Where a device is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Host {
    /// At an address.
    Address(IpAddr),
    /// Where a name points to, at most [`NAME_LIMIT_BYTES`].
    Name(String),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Longest host name in bytes.
pub const NAME_LIMIT_BYTES: usize = 253;
/// Longest path of an HTTP probe in bytes.
pub const PATH_LIMIT_BYTES: usize = 512;

/// What a device is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// An ICMP echo.
    Icmp,
    /// Whether it takes a TCP connection.
    Tcp {
        /// The port.
        port: u16,
    },
    /// Which status it answers an HTTP request with.
    Http {
        /// With TLS; any certificate will do, as the question is whether it answers.
        is_tls: bool,
        /// The port.
        port: u16,
        /// The path, at most [`PATH_LIMIT_BYTES`].
        path: String,
        /// The least and the greatest status that counts as an answer.
        status: (u16, u16),
    },
    /// Whether it answers a question for a name.
    Dns {
        /// The port.
        port: u16,
        /// The name, at most [`NAME_LIMIT_BYTES`].
        name: String,
    },
}

/// A way out of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Via {
    /// From this address of the machine's own.
    Source(IpAddr),
    /// Out of this interface, at most 15 bytes.
    Interface(String),
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
    /// Probes in each round, 1 to 20.
    pub packets: u8,
    /// Loss in percent of a minute's probes from which on a device is degraded; 0: never.
    pub loss_percent: u8,
    /// Mean round trip of a minute in ms from which on a device is degraded; 0: never.
    pub latency_ms: u32,
}

impl Default for ProbeRule {
    fn default() -> Self {
        Self {
            interval_ms: 2_000,
            timeout_ms: 450,
            retry_ms: 500,
            fall: 3,
            rise: 2,
            packets: 1,
            loss_percent: 10,
            latency_ms: 200,
        }
    }
}

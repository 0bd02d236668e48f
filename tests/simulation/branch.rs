//! One branch in virtual time: devices whose truth is known, and the production outbox of its agent.

use rand::Rng;
use rand::rngs::SmallRng;
use shared::message::Live;
use shared::{Body, BootId, BranchId, Cause, Column, DeviceId, Minute, Qualities, Status, StreamId, Transition, Uptime};
use ward_agent::buffer::Buffer;
use ward_agent::outbox::{Outbox, Word};

use crate::disk::Disk;

/// How long a verdict takes, in ms.
const CONFIRM_MS: i64 = 1_500;
/// Bytes of the buffer.
const BUFFER_LIMIT_BYTES: u64 = 1024 * 1024;

/// A change that an agent has seen: what the ledger must hold in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) device: DeviceId,
    pub(crate) to: Status,
    /// When it began, in true UTC ms.
    pub(crate) onset: i64,
    /// Its place in the stream.
    pub(crate) stream: StreamId,
    pub(crate) seq: u64,
}

struct Device {
    id: DeviceId,
    /// What it is in truth.
    is_up: bool,
    /// The agent's verdict and when that began.
    verdict: Status,
    since: Uptime,
    /// A change that waits for confirmation, since when.
    pending: Option<i64>,
}

/// A machine and its agent; no agent while the power is off.
pub(crate) struct Branch {
    pub(crate) id: BranchId,
    devices: Vec<Device>,
    pub(crate) disk: Disk,
    pub(crate) outbox: Option<Outbox<Disk>>,
    boot: BootId,
    /// When the machine booted, in true UTC ms.
    boot_at: i64,
    /// How fast its clock runs wrong, in parts per million.
    drift_ppm: i64,
    pub(crate) seen: Vec<Seen>,
    minute: i64,
}

impl Branch {
    pub(crate) fn new(number: usize, devices: usize, now: i64, rng: &mut SmallRng) -> Self {
        let id: BranchId = format!("b{number}").parse().expect("a valid id");
        let device = |i: usize| Device {
            id: format!("b{number}-d{i}").parse().expect("a valid id"),
            is_up: true,
            verdict: shared::delta::UNOBSERVED,
            since: Uptime(0),
            pending: None,
        };
        let mut branch = Self {
            id,
            devices: (0..devices).map(device).collect(),
            disk: Disk::default(),
            outbox: None,
            boot: BootId(0),
            boot_at: now,
            drift_ppm: rng.random_range(-50..=50),
            seen: Vec::new(),
            minute: 0,
        };
        branch.power_on(now, rng);
        branch
    }

    /// The machine's uptime clock.
    pub(crate) fn uptime(&self, now: i64) -> Uptime {
        let ms = now - self.boot_at;
        Uptime((ms + ms * self.drift_ppm / 1_000_000).unsigned_abs())
    }

    /// The machine boots and its agent starts.
    pub(crate) fn power_on(&mut self, now: i64, rng: &mut SmallRng) {
        self.boot = BootId(rng.random());
        self.boot_at = now - rng.random_range(0..90);
        self.start_agent(now, rng);
    }

    /// The agent starts on a machine that runs.
    pub(crate) fn start_agent(&mut self, now: i64, rng: &mut SmallRng) {
        let at = self.uptime(now);
        let buffer = Buffer::open(self.disk.clone(), StreamId(rng.random()), self.boot, BUFFER_LIMIT_BYTES, at);
        self.outbox = Some(Outbox::new(self.id.clone(), buffer));
        for device in &mut self.devices {
            (device.verdict, device.since, device.pending) = (shared::delta::UNOBSERVED, at, Some(now));
        }
    }

    /// The agent dies; what of its last stream was only in memory is gone, unless the collector has it.
    pub(crate) fn kill(&mut self, with_power: bool) {
        self.outbox = None;
        if with_power {
            self.disk.power_cut();
        }
    }

    /// Lets a device change its state.
    pub(crate) fn flip(&mut self, device: usize, now: i64) {
        let device = &mut self.devices[device];
        device.is_up = !device.is_up;
        let wrong = device.verdict != truth(device);
        device.pending = wrong.then_some(now);
    }

    /// The agent looks at its devices.
    pub(crate) fn observe(&mut self, now: i64) {
        let at = self.uptime(now);
        let (boot_at, drift_ppm) = (self.boot_at, self.drift_ppm);
        let uptime = |when: i64| Uptime((when - boot_at + (when - boot_at) * drift_ppm / 1_000_000).unsigned_abs());
        let Some(outbox) = &mut self.outbox else { return };
        for device in &mut self.devices {
            let Some(began) = device.pending.filter(|began| now - began >= CONFIRM_MS) else { continue };
            let to = truth(device);
            device.pending = None;
            let onset = uptime(began);
            let body = Transition { device: device.id.clone(), from: device.verdict, to, onset, last_ok: None };
            outbox.buffer.append(Body::Transition(body), at);
            (device.verdict, device.since) = (to, onset);
            let (stream, seq) = (outbox.buffer.run().stream, outbox.buffer.run().last);
            self.seen.push(Seen { device: device.id.clone(), to, onset: began, stream, seq });
        }
        if now / 60_000 != self.minute {
            self.minute = now / 60_000;
            let minute = [Minute { sent: 30, lost: 30, rtt: None }];
            let columns = self.devices.iter().map(|device| Column::pack(device.id.clone(), &minute, 10)).collect();
            outbox.buffer.append(Body::Qualities(Qualities { first_end: at, unit_us: 10, columns }), at);
        }
        let unsure = self.devices.iter().filter_map(|device| device.pending).map(uptime).min();
        outbox.buffer.observed(unsure.unwrap_or(at).min(at));
        outbox.tick(at);
    }

    /// What a heartbeat tells of the devices.
    pub(crate) fn word(&self) -> Word {
        let live = |d: &Device| Live { device: d.id.clone(), status: d.verdict, onset: d.since };
        Word { states: std::sync::Arc::new(self.devices.iter().map(live).collect()), ..Word::default() }
    }

    /// The agent's verdict on each device.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = (&DeviceId, Status)> {
        self.devices.iter().map(|device| (&device.id, device.verdict))
    }

    /// Since when the true state of each device has been what the agent has to find, if it is down.
    pub(crate) fn is_settled(&self) -> bool {
        self.devices.iter().all(|device| device.pending.is_none())
    }
}

fn truth(device: &Device) -> Status {
    if device.is_up { Status::Up } else { Status::Down }
}

/// Whether a status says nothing.
pub(crate) fn is_silent(status: Status) -> bool {
    status == Status::Unknown(Cause::AgentSilent)
}

//! One branch in virtual time: devices whose truth is known, and the production outbox of its agent.

use std::sync::{Arc, LazyLock};

use rand::Rng;
use rand::rngs::SmallRng;
use shared::delta::{Rtt, UNOBSERVED};
use shared::message::Live;
use shared::{Body, BootId, BranchId, Column, DeviceId, Minute, Qualities, Status, StreamId, Transition, Uptime};
use ward_agent::buffer::Buffer;
use ward_agent::outbox::{Outbox, Word};

use crate::disk::Disk;
use crate::weather::Weather;

/// How long a verdict takes, in ms.
pub(crate) const CONFIRM_MS: i64 = 1_500;

/// Columns of a device that the inventory doesn't know: they fill buffers and cost the collector nothing.
static BULK: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let minute = |n: u32| {
        let avg_us = 20_000 + n * 7919 % 50_000;
        let rtt = Rtt { min_us: avg_us - 9_000, avg_us, max_us: avg_us + 90_000, jitter_us: 5_000 };
        Minute { sent: 30, lost: 0, rtt: Some(rtt) }
    };
    let minutes: Vec<Minute> = (0..1_000).map(minute).collect();
    vec![Column::pack("stranger".parse().expect("a valid id"), &minutes, 10); 4]
});

/// An entry that an agent has told: what the ledger must account for in the end.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Its place.
    pub(crate) stream: StreamId,
    pub(crate) seq: u64,
    /// When, in true UTC ms.
    pub(crate) at: i64,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A run began.
    Boot,
    /// A device changed, or its state is told anew; since when that holds, in true UTC ms.
    Change { device: DeviceId, to: Status, onset: i64, is_anew: bool },
    /// So many device-minutes of quality.
    Minutes(u64),
}

/// A device and what its agent thinks of it.
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    is_up: bool,
    pub(crate) verdict: Status,
    /// Since when the verdict holds, in true UTC ms.
    since: i64,
    /// When the agent came to it.
    pub(crate) judged_at: i64,
    /// A change that waits for confirmation, since when.
    pending: Option<i64>,
}

/// A machine and its agent; no agent while the power is off.
pub(crate) struct Branch {
    pub(crate) id: BranchId,
    pub(crate) devices: Vec<Device>,
    pub(crate) disk: Disk,
    pub(crate) outbox: Option<Outbox<Disk>>,
    pub(crate) told: Vec<Told>,
    /// Changes have been told since the last word.
    pub(crate) has_news: bool,
    boot: BootId,
    /// When the machine booted, in true UTC ms.
    boot_at: i64,
    /// How fast its clock runs wrong, in parts per million.
    drift_ppm: i64,
    restated: u64,
    report_at: i64,
    report_ms: i64,
    is_bulky: bool,
    limit_bytes: u64,
}

impl Branch {
    pub(crate) fn new(number: usize, devices: usize, now: i64, weather: &Weather, rng: &mut SmallRng) -> Self {
        let device = |i: usize| Device {
            id: format!("b{number}-d{i}").parse().expect("a valid id"),
            is_up: true,
            verdict: UNOBSERVED,
            since: now,
            judged_at: now,
            pending: None,
        };
        let mut branch = Self {
            id: format!("b{number}").parse().expect("a valid id"),
            devices: (0..devices).map(device).collect(),
            disk: Disk::new(rng.random()),
            outbox: None,
            told: Vec::new(),
            has_news: false,
            boot: BootId(0),
            boot_at: now,
            drift_ppm: rng.random_range(-50..=50),
            restated: 0,
            report_at: 0,
            report_ms: weather.report_ms,
            is_bulky: weather.is_bulky,
            limit_bytes: weather.limit_bytes,
        };
        branch.power_on(now, rng);
        branch
    }

    /// The machine's uptime clock.
    pub(crate) fn uptime(&self, when: i64) -> Uptime {
        let ms = (when - self.boot_at).max(0);
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
        let buffer = Buffer::open(self.disk.clone(), StreamId(rng.random()), self.boot, self.limit_bytes, self.uptime(now));
        self.outbox = Some(Outbox::new(self.id.clone(), buffer));
        self.restated = 0;
        self.report_at = now + self.report_ms;
        self.note(now, What::Boot);
        for device in &mut self.devices {
            (device.verdict, device.since, device.judged_at, device.pending) = (UNOBSERVED, now, now, Some(now));
        }
    }

    /// The agent dies; what was only in memory is gone, unless the collector has it.
    pub(crate) fn kill(&mut self, with_power: bool) {
        self.outbox = None;
        if with_power {
            self.disk.power_cut();
        }
    }

    /// Somebody stops the agent.
    pub(crate) fn stop(&mut self, now: i64) {
        let at = self.uptime(now);
        if let Some(mut outbox) = self.outbox.take() {
            outbox.buffer.close(at);
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
        let Some(outbox) = &self.outbox else { return };
        if outbox.restatements() != self.restated {
            self.restated = outbox.restatements();
            let known = (0..self.devices.len()).filter(|at| self.devices[*at].verdict != UNOBSERVED);
            known.collect::<Vec<_>>().into_iter().for_each(|at| self.tell(at, UNOBSERVED, now));
        }
        for at in 0..self.devices.len() {
            let device = &mut self.devices[at];
            let Some(began) = device.pending.filter(|began| now - began >= CONFIRM_MS) else { continue };
            let from = device.verdict;
            device.pending = None;
            (device.verdict, device.since, device.judged_at) = (truth(device), began, now);
            self.tell(at, from, now);
            self.has_news = true;
        }
        if now >= self.report_at {
            self.report_at += self.report_ms;
            self.report(now);
        }
        let unsure = self.devices.iter().filter_map(|device| device.pending).min().unwrap_or(now);
        let (at, unsure) = (self.uptime(now), self.uptime(unsure));
        if let Some(outbox) = &mut self.outbox {
            outbox.buffer.observed(unsure);
            outbox.tick(at);
        }
    }

    fn tell(&mut self, device: usize, from: Status, now: i64) {
        let Device { id, verdict, since, judged_at, .. } = &self.devices[device];
        let what = What::Change { device: id.clone(), to: *verdict, onset: *since, is_anew: *judged_at < now };
        let onset = self.uptime(*since);
        let transition =
            Transition { device: id.clone(), from, to: *verdict, onset, last_ok: None, verdict: None, evidence: None };
        self.append(Body::Transition(transition), what, now);
    }

    fn report(&mut self, now: i64) {
        let minute = [Minute { sent: 30, lost: 30, rtt: None }];
        let columns = match self.is_bulky {
            true => BULK.clone(),
            false => self.devices.iter().map(|device| Column::pack(device.id.clone(), &minute, 10)).collect(),
        };
        let qualities = Qualities { first_end: self.uptime(now), unit_us: 10, columns };
        let minutes = qualities.minutes();
        self.append(Body::Qualities(qualities), What::Minutes(minutes), now);
    }

    fn append(&mut self, body: Body, what: What, now: i64) {
        let at = self.uptime(now);
        if let Some(outbox) = &mut self.outbox {
            outbox.buffer.append(body, at);
            self.note(now, what);
        }
    }

    /// Notes what was told last.
    fn note(&mut self, at: i64, what: What) {
        let Some(outbox) = &self.outbox else { return };
        let (stream, seq) = (outbox.buffer.run().stream, outbox.buffer.run().last);
        self.told.push(Told { stream, seq, at, what });
    }

    /// Whether a change waits to be told beside the backlog.
    pub(crate) fn has_live_news(&mut self) -> bool {
        let Some(outbox) = &self.outbox else { return false };
        std::mem::take(&mut self.has_news) && outbox.is_behind()
    }

    /// What a heartbeat tells of the devices.
    pub(crate) fn word(&self) -> Word {
        let live = |d: &Device| Live::of(d.id.clone(), d.verdict, self.uptime(d.since));
        Word { states: Arc::new(self.devices.iter().map(live).collect()), ..Word::default() }
    }

    /// Whether no change waits for confirmation.
    pub(crate) fn is_settled(&self) -> bool {
        self.devices.iter().all(|device| device.pending.is_none())
    }
}

fn truth(device: &Device) -> Status {
    if device.is_up { Status::Up } else { Status::Down }
}

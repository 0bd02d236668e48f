//! One branch: the production outbox of its agent over a store in memory, and the hours that it has to tell of.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;
use shared::delta::{Rtt, UNOBSERVED};
use shared::message::Live;
use shared::{Ack, Body, BootId, BranchId, Column, DeviceId, Millis, Minute, Qualities, Status, StreamId, Transition, Uptime};
use ward_agent::buffer::Buffer;
use ward_agent::contents::Contents;
use ward_agent::outbox::{Outbox, Word};

/// Bytes of an agent's buffer, as its config has it unless told otherwise.
const BUFFER_LIMIT_BYTES: u64 = 64 * 1024 * 1024;
/// Minutes of one block of qualities while there is no connection.
const BLOCK_MINUTES: i64 = 15;
/// One outage of a device about so many minutes of its branch.
const OUTAGE_EVERY_MINUTES: i64 = 90;
const MINUTE_MS: i64 = 60_000;

/// What a branch has to tell.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    /// Entries of its stream.
    pub(crate) entries: u64,
    /// Minutes of a device, and changes: what its devices have done.
    pub(crate) deltas: u64,
}

pub(crate) struct Site {
    pub(crate) id: BranchId,
    pub(crate) outbox: Outbox<Contents>,
    /// What it has to tell when it is connected again.
    pub(crate) told: Told,
    word: Word,
    /// When its machine booted, in UTC ms.
    boot_at: i64,
}

impl Site {
    /// A branch whose agent heard the time at its start and has had no link in the hours until `now`.
    pub(crate) fn new(number: usize, devices: usize, hours: i64, now: i64, rng: &mut SmallRng) -> Self {
        let id: BranchId = branch_id(number).parse().expect("a valid id");
        let boot_at = now - hours * 60 * MINUTE_MS - rng.random_range(10_000..60_000);
        let buffer =
            Buffer::open(Contents::default(), StreamId(rng.random()), BootId(rng.random()), BUFFER_LIMIT_BYTES, Uptime(0));
        let mut outbox = Outbox::new(id.clone(), buffer);
        let stream = outbox.buffer.run().stream;
        let heard = Ack { stream, through: 0, now: Millis(boot_at + 1_010), echo: Some(Uptime(1_000)), restate: false };
        outbox.acked(&heard, Uptime(1_020));
        let devices: Vec<DeviceId> = (0..devices).map(|d| device_id(number, d).parse().expect("a valid id")).collect();
        let mut states: Vec<(Status, Uptime)> = vec![(UNOBSERVED, Uptime(0)); devices.len()];
        let mut told = Told { entries: 1, deltas: 0 };
        let mut append = |outbox: &mut Outbox<Contents>, body: Body, at: Uptime, deltas: u64| {
            outbox.buffer.append(body, at);
            outbox.buffer.observed(at);
            outbox.tick(at);
            told.entries += 1;
            told.deltas += deltas;
        };
        let change = |states: &mut [(Status, Uptime)], d: usize, to: Status, at: Uptime| {
            let onset = Uptime(at.0 - 1_500);
            let from = std::mem::replace(&mut states[d], (to, onset)).0;
            Body::Transition(Transition {
                device: devices[d].clone(),
                from,
                to,
                onset,
                last_ok: None,
                verdict: None,
                evidence: None,
            })
        };
        for d in 0..devices.len() {
            let body = change(&mut states, d, Status::Up, Uptime(3_000));
            append(&mut outbox, body, Uptime(3_000), 1);
        }
        for minute in 1..=hours * 60 {
            let at = Uptime((minute * MINUTE_MS).unsigned_abs());
            if rng.random_ratio(1, u32::try_from(OUTAGE_EVERY_MINUTES).unwrap_or(1)) {
                let d = rng.random_range(0..devices.len());
                for (to, later) in [(Status::Down, 2_000), (Status::Up, 32_000)] {
                    let body = change(&mut states, d, to, at.plus(later));
                    append(&mut outbox, body, at.plus(later), 1);
                }
            }
            if minute % BLOCK_MINUTES == 0 {
                let first_end = Uptime(((minute - BLOCK_MINUTES + 1) * MINUTE_MS).unsigned_abs());
                let columns = devices.iter().map(|device| Column::pack(device.clone(), &minutes(rng), 10)).collect();
                let block = Body::Qualities(Qualities { first_end, unit_us: 10, columns });
                append(&mut outbox, block, at, devices.len() as u64 * BLOCK_MINUTES.unsigned_abs());
            }
            outbox.tick(at);
        }
        // One in eight has a device that has just gone down: the newest thing that the screen must show.
        if number.is_multiple_of(8) {
            let at = Uptime((now - boot_at).unsigned_abs());
            let body = change(&mut states, 0, Status::Down, at);
            append(&mut outbox, body, at, 1);
        }
        let live = devices.iter().zip(&states).map(|(device, (status, onset))| Live::of(device.clone(), *status, *onset));
        let word = Word { states: Arc::new(live.collect()), ..Word::default() };
        Self { id, outbox, told, word, boot_at }
    }

    /// The machine's uptime at a moment in UTC ms.
    pub(crate) fn uptime(&self, now: i64) -> Uptime {
        Uptime((now - self.boot_at).unsigned_abs())
    }

    /// Its agent looks at its devices: nothing changes.
    pub(crate) fn observe(&mut self, now: i64) {
        let at = self.uptime(now);
        self.outbox.buffer.observed(at);
        self.outbox.tick(at);
    }

    pub(crate) fn heartbeat(&self, now: i64) -> shared::Heartbeat {
        self.outbox.heartbeat(&self.word, self.uptime(now))
    }

    /// How many of its devices are down.
    pub(crate) fn down(&self) -> u64 {
        self.word.states.iter().filter(|live| live.status == Status::Down).count() as u64
    }
}

fn minutes(rng: &mut SmallRng) -> Vec<Minute> {
    let minute = |_| {
        let avg_us = rng.random_range(300..3_000);
        let rtt = Rtt { min_us: avg_us - 100, avg_us, max_us: avg_us + rng.random_range(0..5_000), jitter_us: 60 };
        Minute { sent: 30, lost: 0, rtt: Some(rtt) }
    };
    (0..BLOCK_MINUTES).map(minute).collect()
}

/// The id of a branch.
pub(crate) fn branch_id(number: usize) -> String {
    format!("s{number:05}")
}

/// The id of a device.
pub(crate) fn device_id(number: usize, device: usize) -> String {
    format!("s{number:05}-d{device:02}")
}

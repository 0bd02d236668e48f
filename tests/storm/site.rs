//! One branch: the production outbox of its agent over a store in memory, and the hours that it has to tell of.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;
use shared::delta::{Rtt, UNOBSERVED};
use shared::message::Live;
use shared::{Ack, Body, BootId, BranchId, Column, DeviceId, Millis, Minute, Qualities, Status, StreamId, Transition, Uptime};
use ward_agent::buffer::Buffer;
use ward_agent::contents::Contents;
use ward_agent::outbox::{Outbox, Word};
use ward_tests::Estate;
use ward_tests::estate::Row;

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

/// Which past a branch has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    /// How long its agent has run without a link.
    pub(crate) hours: i64,
    /// For how many of the newest hours it tells of qualities, and not of changes only.
    pub(crate) quality_hours: i64,
    /// Round trips as in a branch's own network: each device has its own, and strays from it by some percent. Else they
    /// are noise, which is the worst that there is to be packed.
    pub(crate) is_steady: bool,
}

impl Past {
    /// A line that was cut for so many hours.
    pub(crate) fn outage_of(hours: i64) -> Self {
        Self { hours, quality_hours: hours, is_steady: false }
    }
}

pub(crate) struct Site {
    pub(crate) id: BranchId,
    pub(crate) outbox: Outbox<Contents>,
    /// What it has to tell when it is connected again.
    pub(crate) told: Told,
    devices: Vec<DeviceId>,
    states: Vec<(Status, Uptime)>,
    word: Word,
    /// When its machine booted, in UTC ms.
    boot_at: i64,
    /// The mean round trip of each device in µs, where they are steady.
    round_trips_us: Option<Vec<u32>>,
}

impl Site {
    /// A branch whose agent heard the time at its start and has had no link in the hours until `now`.
    pub(crate) fn new(number: usize, devices: usize, past: Past, now: i64, rng: &mut SmallRng) -> Self {
        let id: BranchId = branch_id(number).parse().expect("a valid id");
        let boot_at = now - past.hours * 60 * MINUTE_MS - rng.random_range(10_000..60_000);
        let buffer =
            Buffer::open(Contents::default(), StreamId(rng.random()), BootId(rng.random()), BUFFER_LIMIT_BYTES, Uptime(0));
        let mut outbox = Outbox::new(id.clone(), buffer);
        let stream = outbox.buffer.run().stream;
        let heard = Ack { stream, through: 0, now: Millis(boot_at + 1_010), echo: Some(Uptime(1_000)), restate: false };
        outbox.acked(&heard, Uptime(1_020));
        let devices: Vec<DeviceId> = (0..devices).map(|d| device_id(number, d).parse().expect("a valid id")).collect();
        let mut site = Self {
            id,
            outbox,
            told: Told { entries: 1, deltas: 0 },
            states: vec![(UNOBSERVED, Uptime(0)); devices.len()],
            round_trips_us: past.is_steady.then(|| devices.iter().map(|_| rng.random_range(300..40_000)).collect()),
            devices,
            word: Word::default(),
            boot_at,
        };
        for d in 0..site.devices.len() {
            site.turn(d, Status::Up, Uptime(3_000));
        }
        for minute in 1..=past.hours * 60 {
            let at = Uptime((minute * MINUTE_MS).unsigned_abs());
            if rng.random_ratio(1, u32::try_from(OUTAGE_EVERY_MINUTES).unwrap_or(1)) {
                let d = rng.random_range(0..site.devices.len());
                for (to, later) in [(Status::Down, 2_000), (Status::Up, 32_000)] {
                    site.turn(d, to, at.plus(later));
                }
            }
            if minute % BLOCK_MINUTES == 0 && minute > (past.hours - past.quality_hours) * 60 {
                site.report(BLOCK_MINUTES, at, rng);
            }
            site.outbox.tick(at);
        }
        // One in eight has a device that has just gone down: the newest thing that the screen must show.
        if number.is_multiple_of(8) {
            site.turn(0, Status::Down, Uptime((now - boot_at).unsigned_abs()));
        }
        site.say();
        site
    }

    /// A device changes, and its agent notes it.
    fn turn(&mut self, device: usize, to: Status, at: Uptime) {
        let onset = Uptime(at.0 - 1_500);
        let from = std::mem::replace(&mut self.states[device], (to, onset)).0;
        let device = self.devices[device].clone();
        let transition = Transition { device, from, to, onset, last_ok: None, verdict: None, evidence: None };
        self.append(Body::Transition(transition), at, 1);
    }

    /// The agent notes what the last minutes were like.
    fn report(&mut self, minutes: i64, at: Uptime, rng: &mut SmallRng) {
        let first_end = Uptime(at.0.saturating_sub(((minutes - 1) * MINUTE_MS).unsigned_abs()));
        let of = |d: usize| self.round_trips_us.as_ref().map(|means| means[d]);
        let column = |(d, device): (usize, &DeviceId)| Column::pack(device.clone(), &self::minutes(minutes, of(d), rng), 10);
        let columns = self.devices.iter().enumerate().map(column).collect();
        let deltas = self.devices.len() as u64 * minutes.unsigned_abs();
        self.append(Body::Qualities(Qualities { first_end, unit_us: 10, columns }), at, deltas);
    }

    fn append(&mut self, body: Body, at: Uptime, deltas: u64) {
        self.outbox.buffer.append(body, at);
        self.outbox.buffer.observed(at);
        self.outbox.tick(at);
        self.told.entries += 1;
        self.told.deltas += deltas;
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

    /// Does now what it is told.
    pub(crate) fn obey(&mut self, order: &Order, now: i64, rng: &mut SmallRng) {
        let at = self.uptime(now);
        match *order {
            Order::Turn(device) => {
                let to = if self.states[device].0 == Status::Down { Status::Up } else { Status::Down };
                self.turn(device, to, at);
                self.say();
            }
            Order::Report => self.report(1, at, rng),
        }
    }

    /// Its heartbeats say from now on what its devices are.
    fn say(&mut self) {
        let live = self.devices.iter().zip(&self.states);
        let states = live.map(|(device, (status, onset))| Live::of(device.clone(), *status, *onset)).collect();
        self.word = Word { states: Arc::new(states), ..Word::default() };
    }

    pub(crate) fn heartbeat(&self, now: i64) -> shared::Heartbeat {
        self.outbox.heartbeat(&self.word, self.uptime(now))
    }

    /// How many of its devices are down.
    #[allow(dead_code, reason = "only a storm asks for it")]
    pub(crate) fn down(&self) -> u64 {
        self.states.iter().filter(|(status, _)| *status == Status::Down).count() as u64
    }
}

/// What a branch is to do while it is watched.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "nobody is told anything in a storm")]
pub(crate) enum Order {
    /// This device goes down, or comes back.
    Turn(usize),
    /// All devices have had a minute.
    Report,
}

fn minutes(count: i64, mean_us: Option<u32>, rng: &mut SmallRng) -> Vec<Minute> {
    let mut minute = || {
        let (min_us, avg_us, max_us) = match mean_us {
            Some(mean) => (
                mean - rng.random_range(0..=mean / 50),
                mean + rng.random_range(0..=mean / 20),
                mean + rng.random_range(mean / 20..=mean / 5),
            ),
            None => {
                let avg_us = rng.random_range(300..3_000);
                (avg_us - 100, avg_us, avg_us + rng.random_range(0..5_000))
            }
        };
        Minute { sent: 30, lost: 0, rtt: Some(Rtt { min_us, avg_us, max_us, jitter_us: 60 }) }
    };
    (0..count).map(|_| minute()).collect()
}

/// The id of a branch.
pub(crate) fn branch_id(number: usize) -> String {
    format!("s{number:05}")
}

/// The id of a device.
pub(crate) fn device_id(number: usize, device: usize) -> String {
    format!("s{number:05}-d{device:02}")
}

/// An estate of so many devices, spread evenly.
pub(crate) fn estate(branches: usize, devices: usize) -> Estate {
    let types = ["router", "access_point", "nvr", "paybox", "atm", "switch", "biostar"];
    let row = |b: usize, d: usize| Row {
        device: device_id(b, d),
        branch: branch_id(b),
        device_type: types[d % types.len()].to_owned(),
        ip: Ipv4Addr::new(10, (b / 250) as u8, (b % 250) as u8, d as u8 + 1).into(),
    };
    let rows = (0..branches).flat_map(|b| (0..share(b, branches, devices)).map(move |d| row(b, d)));
    Estate { rows: rows.collect() }
}

/// How many of the devices stand in a branch.
pub(crate) fn share(branch: usize, branches: usize, devices: usize) -> usize {
    devices / branches + usize::from(branch < devices % branches)
}

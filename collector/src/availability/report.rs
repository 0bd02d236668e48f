//! Availability over many devices: by device, branch, region, type and in all, and what else is asked of a time. Pure.

use std::collections::{BTreeSet, HashMap};

use shared::{BranchId, Millis};

use super::spans::Span;
use super::timelines::Timelines;
use super::{Tally, changes, tally};
use crate::accounts::Reach;
use crate::fleet::{BranchState, Fleet};
use crate::schedule::{LeftOut, Scope};

/// What one row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// All devices together.
    All,
    /// A region.
    Region,
    /// A branch.
    Branch,
    /// A type of devices.
    Type,
    /// A device.
    Device,
}

/// Which devices count. What is absent lets all through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this region.
    pub region: Option<String>,
    /// Of this branch.
    pub branch: Option<String>,
    /// Of this type.
    pub device_type: Option<String>,
    /// This one.
    pub device: Option<String>,
    /// Of these regions.
    pub reach: Reach,
}

impl Filter {
    /// Whether devices of a branch may count.
    pub fn takes_branch(&self, branch: &BranchState) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        self.reach.takes(&branch.info.region)
            && is(&self.region, branch.info.region.as_str())
            && is(&self.branch, branch.info.id.as_str())
    }

    fn takes_device(&self, fleet: &Fleet, device: usize) -> bool {
        let info = &fleet.devices[device].info;
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.device_type, &info.device_type) && is(&self.device, info.id.as_str())
    }
}

/// A time that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The whole of it.
    pub span: Span,
    /// How much of it has happened.
    pub past: Span,
}

impl Asked {
    /// A time as of now.
    pub fn new(span: Span, now: Millis) -> Self {
        Self { span, past: Span::new(span.from, span.to.min(now).max(span.from)) }
    }
}

/// Times that changed after they were told: how often, by branch. Of branches that had been known to the time's end.
pub type Late = HashMap<BranchId, u64>;

/// One row of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The id of what it is about; `all` for all.
    pub key: String,
    /// What people call it, where it has a name.
    pub name: Option<String>,
    /// How its time divides.
    pub tally: Tally,
    /// Every branch in it is known to the end of the time.
    pub is_final: bool,
    /// How far all of its branches are known.
    pub observed_through: Option<Millis>,
    /// 1, and one more for each late change since it was final.
    pub revision: u64,
}

struct Builder {
    row: Row,
    last_branch: Option<usize>,
    edits: BTreeSet<usize>,
}

/// How far a branch is known: by the ledger, or by what a heartbeat has vouched for since.
pub fn known_through(fleet: &Fleet, lines: &Timelines, branch: usize) -> Option<Millis> {
    let state = &fleet.branches[branch];
    lines.observed_through(&state.info.id).map(|through| state.observed.map_or(through, |known| known.max(through)))
}

/// The rows of a time in the order of their keys.
///
/// A large estate is shared between the cores: nobody can change the fleet while this looks at it.
pub fn rows(fleet: &Fleet, lines: &Timelines, late: &Late, by: By, filter: &Filter, asked: Asked) -> Vec<Row> {
    let wanted: Vec<usize> = (0..fleet.branches.len()).filter(|at| filter.takes_branch(&fleet.branches[*at])).collect();
    let devices: usize = wanted.iter().map(|at| fleet.branches[*at].devices.len()).sum();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(CORES_LIMIT);
    let share = wanted.len().div_ceil(if devices < SHARED_FROM { 1 } else { cores }).max(1);
    let of = |branches: &[usize]| {
        let mut rows = part_of(fleet, lines, late, by, filter, asked, branches);
        rows.sort_unstable_by(|a, b| a.row.key.cmp(&b.row.key));
        rows
    };
    let parts: Vec<Vec<Builder>> = std::thread::scope(|scope| {
        let (first, others) = wanted.split_at(share.min(wanted.len()));
        let others: Vec<_> = others.chunks(share).map(|branches| scope.spawn(move || of(branches))).collect();
        let mut parts = vec![of(first)];
        parts.extend(others.into_iter().map(|part| part.join().expect("a tally doesn't panic")));
        parts
    });
    let mut rows: Vec<Row> = joined(parts, by).into_iter().map(Builder::done).collect();
    // Each part is in order already: what is left to do is to merge them.
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

/// Devices from which on an estate is shared between cores: fewer take less time than starting a thread does.
const SHARED_FROM: usize = 2_000;
/// Most cores that one question takes.
const CORES_LIMIT: usize = 8;

fn joined(parts: Vec<Vec<Builder>>, by: By) -> Vec<Builder> {
    let mut parts = parts.into_iter();
    let mut out = parts.next().unwrap_or_default();
    match by {
        // Each of them stands in one part only.
        By::Branch | By::Device => out.extend(parts.flatten()),
        By::All | By::Region | By::Type => {
            for other in parts.flatten() {
                match out.iter_mut().find(|row| row.row.key == other.row.key) {
                    Some(row) => row.join(other),
                    None => out.push(other),
                }
            }
        }
    }
    out
}

fn part_of(
    fleet: &Fleet,
    lines: &Timelines,
    late: &Late,
    by: By,
    filter: &Filter,
    asked: Asked,
    branches: &[usize],
) -> Vec<Builder> {
    let devices = || branches.iter().map(|at| fleet.branches[*at].devices.len()).sum();
    let mut rows: Vec<Builder> = Vec::with_capacity(if by == By::Device { devices() } else { 0 });
    let mut places: HashMap<&str, usize> = HashMap::new();
    let edits = fleet.schedule().changed_after(asked.span);
    let mut left_out = LeftOutCache::new(fleet, asked.past);
    for at in branches.iter().copied() {
        let branch = &fleet.branches[at];
        let through = known_through(fleet, lines, at);
        // Most rows are looked up once for a branch, not once for a device.
        let mut place: Option<(&str, usize)> = None;
        for device in branch.devices.iter().copied().filter(|device| filter.takes_device(fleet, *device)) {
            let state = &fleet.devices[device];
            let (key, name): (&str, Option<&str>) = match by {
                By::All => ("all", None),
                By::Region => (branch.info.region.as_str(), Some(&branch.info.region_name)),
                By::Branch => (branch.info.id.as_str(), Some(&branch.info.name)),
                By::Type => (&state.info.device_type, None),
                By::Device => (state.info.id.as_str(), Some(&state.info.name)),
            };
            let row = match place.filter(|(known, _)| *known == key) {
                Some((_, row)) => row,
                None if by == By::Device => {
                    rows.push(Builder::new(key, name));
                    rows.len() - 1
                }
                None => *places.entry(key).or_insert_with(|| {
                    rows.push(Builder::new(key, name));
                    rows.len() - 1
                }),
            };
            place = Some((key, row));
            let row = &mut rows[row];
            row.add_branch(at, through, asked.span.to, late.get(&branch.info.id).copied().unwrap_or(0));
            for (edit, scope) in edits.iter().enumerate() {
                if concerns(scope, fleet, device) {
                    row.edits.insert(edit);
                }
            }
            let tally = tally(lines.line(state.no), through.unwrap_or(Millis(0)), asked.past, left_out.of(device));
            row.row.tally.add(&tally);
        }
    }
    rows
}

impl Builder {
    fn new(key: &str, name: Option<&str>) -> Self {
        let row = Row {
            key: key.to_owned(),
            name: name.map(str::to_owned),
            tally: Tally::default(),
            is_final: true,
            observed_through: Some(Millis(i64::MAX)),
            revision: 0,
        };
        Self { row, last_branch: None, edits: BTreeSet::new() }
    }

    fn add_branch(&mut self, branch: usize, through: Option<Millis>, end: Millis, late: u64) {
        // Devices of a branch follow one another.
        if self.last_branch.replace(branch) != Some(branch) {
            self.row.is_final &= through.is_some_and(|through| through >= end);
            self.row.observed_through = self.row.observed_through.min(through);
            self.row.revision += late;
        }
    }

    /// Joins what another part of the estate has to the same row.
    fn join(&mut self, other: Self) {
        self.row.tally.add(&other.row.tally);
        self.row.is_final &= other.row.is_final;
        self.row.observed_through = self.row.observed_through.min(other.row.observed_through);
        self.row.revision += other.row.revision;
        self.edits.extend(other.edits);
    }

    fn done(self) -> Row {
        Row { revision: 1 + self.row.revision + self.edits.len() as u64, ..self.row }
    }
}

/// What is left out of each device's time, worked out once for all that share it.
struct LeftOutCache<'a> {
    fleet: &'a Fleet,
    past: Span,
    /// By the number of the group.
    known: Vec<Option<LeftOut>>,
}

impl<'a> LeftOutCache<'a> {
    fn new(fleet: &'a Fleet, past: Span) -> Self {
        Self { fleet, past, known: vec![None; fleet.groups().len()] }
    }

    fn of(&mut self, device: usize) -> &LeftOut {
        let group = self.fleet.devices[device].group;
        let (schedule, groups) = (self.fleet.schedule(), self.fleet.groups());
        self.known[group].get_or_insert_with(|| schedule.left_out(&groups[group], self.past))
    }
}

fn concerns(scope: &Scope, fleet: &Fleet, device: usize) -> bool {
    let info = &fleet.devices[device].info;
    match scope {
        Scope::All => true,
        Scope::Region(region) => fleet.branches[fleet.devices[device].branch].info.region == *region,
        Scope::Type(kind) => info.device_type == kind.as_str(),
        Scope::Branch(branch) => info.branch == *branch,
        Scope::Device(id) => info.id == *id,
    }
}

/// A device that changed often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flapping {
    /// Index of the device.
    pub device: usize,
    /// Changes between up and down within the time.
    pub changes: u64,
    /// Changes of its worst day.
    pub worst: u64,
    /// Which of the days that is, as an index.
    pub worst_day: usize,
}

/// The devices with more than `more_than` changes on one of `days`, those with the most changes first. `days` in order,
/// without holes.
pub fn flapping(
    fleet: &Fleet,
    lines: &Timelines,
    filter: &Filter,
    asked: Asked,
    days: &[(String, Span)],
    more_than: u64,
) -> Vec<Flapping> {
    let mut out = Vec::new();
    let mut left_out = LeftOutCache::new(fleet, asked.past);
    let mut counts = vec![0u64; days.len()];
    for (at, branch) in fleet.branches.iter().enumerate().filter(|(_, branch)| filter.takes_branch(branch)) {
        let through = known_through(fleet, lines, at).unwrap_or(Millis(0));
        for device in branch.devices.iter().copied().filter(|device| filter.takes_device(fleet, *device)) {
            counts.fill(0);
            for moment in changes(lines.line(fleet.devices[device].no), through, asked.past, left_out.of(device)) {
                let day = days.partition_point(|(_, span)| span.to <= moment);
                counts[day.min(days.len() - 1)] += 1;
            }
            let changes = counts.iter().sum();
            let (worst_day, worst) =
                counts.iter().copied().enumerate().max_by_key(|(day, n)| (*n, std::cmp::Reverse(*day))).unwrap_or((0, 0));
            if worst > more_than {
                out.push(Flapping { device, changes, worst, worst_day });
            }
        }
    }
    out.sort_by(|a, b| {
        (b.changes, b.worst)
            .cmp(&(a.changes, a.worst))
            .then_with(|| fleet.devices[a.device].info.id.cmp(&fleet.devices[b.device].info.id))
    });
    out
}

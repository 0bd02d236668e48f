//! What every device is now: the only owner of current state. The API, the live feed and the exports all read it.
//!
//! Pure. A verdict counts only while its branch's agent is known to observe: what was last seen of a silent branch is
//! not what its devices are.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use shared::message::{Health, Heartbeat, PresenceState, Tried};
use shared::{BranchId, Cause, DeviceId, Flags, Millis, Status, StreamId, Verdict as Fault};

use crate::availability::spans::Span;
use crate::inventory::{Branch, Device, Inventory, Region};
use crate::outage::Change;
use crate::schedule::{Applicable, Schedule};

/// Changes that make a device flapping unless the config says otherwise.
const FLAPPING_BEGINS: usize = 3;
/// Fewer changes than this within the same time end it.
const FLAPPING_ENDS: usize = 2;
/// The time in which changes count towards flapping unless the config says otherwise, in ms.
const FLAPPING_MS: i64 = 300_000;
/// How long a branch whose connection was lost may take to come back before it is silent, in ms.
const LOST_GRACE_MS: i64 = 5_000;
/// Most recent changes that are remembered of a device.
const CHANGES_LIMIT: usize = 16;

/// What a surface shows of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What it is.
    pub status: Status,
    /// Since when, as far as anybody knows.
    pub since: Option<Millis>,
    /// First miss of the outage that is open.
    pub down_since: Option<Millis>,
    /// The last reply before it.
    pub last_ok: Option<Millis>,
    /// It changes too often for its status to mean much.
    pub is_flapping: bool,
    /// It stands in a maintenance window.
    pub in_maintenance: bool,
    /// What else may be said of it.
    pub flags: Flags,
    /// Whose fault its failure is.
    pub verdict: Option<Fault>,
    /// That is only a guess until its branch is heard again.
    pub is_provisional: bool,
}

/// The newest minute of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// The end of the minute.
    pub at: Millis,
    /// Mean round trip in µs, if there was a reply.
    pub rtt_us: Option<u32>,
    /// Lost probes in percent.
    pub loss: f64,
}

/// A device and its state.
#[derive(Debug, Clone)]
pub struct DeviceState {
    /// Its number in the collector's file.
    pub no: u32,
    /// What the inventory says.
    pub info: Device,
    /// Index of its branch.
    pub branch: usize,
    /// The newest minute.
    pub quality: Option<Quality>,
    /// What surfaces show.
    pub view: View,
    told: Option<Quality>,
    verdict: Verdict,
    live: Option<Verdict>,
    open_since: Option<Millis>,
    flips: VecDeque<Millis>,
    /// What its agent said beside its status.
    flags: Flags,
    /// Another box answers at its address than before, and nobody has accepted it.
    is_changed: bool,
    /// So many changes make it flapping,
    flapping_begins: usize,
    /// within this time, in ms.
    flapping_ms: i64,
    /// The provider whose line it stands for, if it is one.
    pub uplink: Option<String>,
    /// Which of [`Fleet::groups`] it belongs to.
    pub group: usize,
    /// Its maintenance windows, as a set.
    windows: Arc<[Span]>,
}

#[derive(Debug, Clone, Copy)]
struct Verdict {
    status: Status,
    since: Option<Millis>,
    last_ok: Option<Millis>,
    fault: Option<Fault>,
}

const NOTHING: Verdict = Verdict { status: Status::Unknown(Cause::NeverObserved), since: None, last_ok: None, fault: None };

/// A time in which a branch can't be heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// What was known of it until then.
    pub from: Millis,
    /// When it was heard again.
    pub to: Option<Millis>,
    /// Whose fault it is.
    pub verdict: Option<Fault>,
    /// What speaks for that.
    pub reason: String,
    /// All that the branch saw until it was heard again is in the ledger. Before, the verdict is a guess.
    pub is_settled: bool,
    /// The run that spoke until then.
    stream: Option<StreamId>,
    /// It began before this collector did: whoever was gone, it may have been the collector.
    is_ours: bool,
}

impl Cut {
    /// Whose fault it was, by the run that speaks now and by what that says of the run before.
    fn judge(&mut self, stream: Option<StreamId>, origin: Option<Origin>) {
        let lived_on = origin.and_then(|origin| origin.lived_until).is_some_and(|until| until.since(self.from) > LIVED_ON_MS);
        let (verdict, reason) = match origin {
            _ if stream == self.stream && self.is_ours => (None, "the collector was not running"),
            _ if stream == self.stream => (Some(Fault::WanCut), "the agent went on observing: the line was cut"),
            Some(Origin { is_clean: true, .. }) => (None, "the agent was stopped and started again"),
            Some(_) if lived_on => {
                (Some(Fault::WanCut), "the agent went on observing, and was started anew before the line was back")
            }
            Some(Origin { is_same_boot: true, .. }) => (None, "the agent's program ended and was started again"),
            Some(Origin { is_same_boot: false, .. }) => {
                (Some(Fault::PowerCut), "the machine has booted, and the run before ended without a goodbye")
            }
            None => (None, "the agent doesn't remember the run before"),
        };
        (self.verdict, self.reason) = (verdict, reason.to_owned());
    }
}

/// What a run of an agent says of the run before, when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Both are of one boot of the machine.
    pub is_same_boot: bool,
    /// The run before ended by itself.
    pub is_clean: bool,
    /// How far the run before is known to have observed, once all it left behind has come.
    pub lived_until: Option<Millis>,
}

/// An agent that lived on for longer than this, in ms, after it was heard last was cut off before anything else happened.
const LIVED_ON_MS: i64 = 60_000;
/// Cuts of one branch that wait for what it saw during them: a line that comes and goes may bring that later.
const UNSETTLED_LIMIT: usize = 16;

/// Whether a branch can be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// It has never been heard of.
    Never,
    /// Its devices' states are current.
    Connected,
    /// Nobody knows what happens there.
    Silent,
}

impl Contact {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Connected => "connected",
            Self::Silent => "silent",
        }
    }
}

type Told = (Option<Health>, String, Option<u64>, Option<Arc<Tried>>, Option<Cut>);

/// A branch and how its agent is.
#[derive(Debug, Clone)]
pub struct BranchState {
    /// What the inventory says.
    pub info: Branch,
    /// Indices of its devices.
    pub devices: Vec<usize>,
    /// Whether it can be heard.
    pub contact: Contact,
    /// When anything of it last arrived.
    pub last_contact: Option<Millis>,
    /// Every change before this moment is known.
    pub observed: Option<Millis>,
    /// What is known may be so old, in ms, before the branch counts as silent.
    pub silent_after_ms: i64,
    /// How its agent is, by its own word, once it has said so.
    pub health: Option<Health>,
    /// The agent's version.
    pub version: String,
    /// Version of the config that its agent is to have, once there is one.
    pub config_wanted: Option<u64>,
    /// What came of the config that its agent has tried last, by its own word.
    pub config_trial: Option<Arc<Tried>>,
    /// Health, version, wanted config, its trial and the newest cut as they were told last.
    told: Told,
    live_observed: Option<Millis>,
    live_until: Option<(StreamId, u64)>,
    stream: Option<StreamId>,
    began: Option<Millis>,
    /// When the present run itself last spoke.
    spoke: Option<Millis>,
    gone_at: Option<Millis>,
    /// Its agent said goodbye.
    has_stopped: bool,
    /// What its present run has said of the one before.
    origin: Option<Origin>,
    /// The newest time in which it couldn't be heard.
    cut: Option<Cut>,
    /// Cuts that are over and not settled, oldest first, at most [`UNSETTLED_LIMIT`].
    unsettled: VecDeque<Cut>,
    /// It was silent when the clock was set back: only its own word ends that.
    has_to_speak: bool,
    /// When time alone may next change what is shown of it or of its devices.
    due: Option<Millis>,
}

/// All branches and devices.
#[derive(Debug, Default)]
pub struct Fleet {
    /// Regions by id, also those without branches.
    pub regions: Vec<Region>,
    /// Branches, in no particular order.
    pub branches: Vec<BranchState>,
    /// Devices, in no particular order.
    pub devices: Vec<DeviceState>,
    branch_index: HashMap<BranchId, usize>,
    device_index: HashMap<DeviceId, usize>,
    silence: Silence,
    /// Branches of which something has changed since the last refresh.
    changed: BTreeSet<usize>,
    /// Every branch's [`BranchState::due`], in the order of time.
    due: BTreeSet<(Millis, usize)>,
    refreshed_at: Option<Millis>,
    schedule: Arc<Schedule>,
    /// What may apply to a device, once for all to whom the same does.
    groups: Vec<Applicable>,
    /// Cuts that are settled and that nobody has written down yet, with their branches.
    settled: VecDeque<(usize, Cut)>,
}

/// When branches count as silent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Silence {
    /// What is known of a branch may be so old, in ms.
    pub after_ms: u32,
    /// The same, for branches of which it may be otherwise.
    pub by_branch: HashMap<BranchId, u32>,
}

impl From<u32> for Silence {
    fn from(after_ms: u32) -> Self {
        Self { after_ms, by_branch: HashMap::new() }
    }
}

/// What a change of the fleet touched.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Devices that look different now.
    pub devices: Vec<TouchedDevice>,
    /// Indices of branches that look different now.
    pub branches: Vec<usize>,
}

impl Touched {
    /// Whether nothing looks different.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.branches.is_empty()
    }
}

/// A device that looks different now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TouchedDevice {
    /// Its index.
    pub device: usize,
    /// What surfaces showed of it before.
    pub before: View,
    /// Its newest minute is another one.
    pub is_measured: bool,
}

/// How many devices are what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All.
    pub total: usize,
    /// Up.
    pub up: usize,
    /// Down.
    pub down: usize,
    /// Nobody can say.
    pub unknown: usize,
    /// Flapping, whatever their status.
    pub flapping: usize,
    /// In maintenance, whatever their status.
    pub maintenance: usize,
}

impl Counts {
    /// Counts one more device.
    pub fn add(&mut self, view: &View) {
        self.total += 1;
        match view.status {
            Status::Up => self.up += 1,
            Status::Down => self.down += 1,
            Status::Unknown(_) => self.unknown += 1,
        }
        self.flapping += usize::from(view.is_flapping);
        self.maintenance += usize::from(view.in_maintenance);
    }
}

impl Fleet {
    /// A fleet of which nothing is known yet.
    pub fn new(silence: impl Into<Silence>) -> Self {
        Self { silence: silence.into(), ..Self::default() }
    }

    /// Index of a branch.
    pub fn branch(&self, id: &BranchId) -> Option<usize> {
        self.branch_index.get(id).copied()
    }

    /// Index of a device.
    pub fn device(&self, id: &DeviceId) -> Option<usize> {
        self.device_index.get(id).copied()
    }

    /// What people call a region, if there is such a one.
    pub fn region_name(&self, id: &BranchId) -> Option<&str> {
        let known = self.regions.iter().find(|region| region.id == *id).map(|region| region.name.as_str());
        // A file names regions with their branches only.
        known.or_else(|| self.branches.iter().find(|b| b.info.region == *id).map(|b| b.info.region_name.as_str()))
    }

    /// Index of a device, if it stands in that branch.
    pub fn device_of(&self, id: &DeviceId, branch: usize) -> Option<usize> {
        self.device(id).filter(|at| self.devices[*at].branch == branch)
    }

    /// Takes over an inventory; devices that are still there keep their state.
    pub fn set_inventory(&mut self, inventory: &Inventory, numbers: &[u32]) {
        let mut branches: HashMap<BranchId, BranchState> =
            self.branches.drain(..).map(|branch| (branch.info.id.clone(), branch)).collect();
        let mut devices: HashMap<DeviceId, (BranchId, DeviceState)> =
            self.devices.drain(..).map(|device| (device.info.id.clone(), (device.info.branch.clone(), device))).collect();
        self.branch_index.clear();
        self.device_index.clear();
        self.regions.clone_from(&inventory.regions);
        for info in &inventory.branches {
            self.branch_index.insert(info.id.clone(), self.branches.len());
            let kept = branches.remove(&info.id).map(|branch| BranchState { info: info.clone(), devices: Vec::new(), ..branch });
            let silent_after_ms = self.silence.by_branch.get(&info.id).copied().unwrap_or(self.silence.after_ms).into();
            let branch = kept.unwrap_or_else(|| BranchState::new(info.clone()));
            self.branches.push(BranchState { silent_after_ms, ..branch });
        }
        for (info, no) in inventory.devices.iter().zip(numbers) {
            let Some(branch) = self.branch(&info.branch) else { continue };
            let at = self.devices.len();
            self.device_index.insert(info.id.clone(), at);
            self.branches[branch].devices.push(at);
            // A device that moved to another branch is another agent's to judge.
            let kept = devices.remove(&info.id).filter(|(before, device)| *before == info.branch && device.info.ip == info.ip);
            self.devices.push(match kept {
                Some((_, device)) => DeviceState { info: info.clone(), branch, no: *no, ..device },
                None => DeviceState::new(*no, info.clone(), branch),
            });
        }
        // What was remembered of places is void.
        self.refreshed_at = None;
        self.apply_schedule();
    }

    /// Tells each device what the config says of it: how many changes make it flapping, and whose line it stands for.
    pub fn set_manners(&mut self, of: impl Fn(&Device) -> (u8, u32, Option<String>)) {
        for device in &mut self.devices {
            let (changes, within_ms, uplink) = of(&device.info);
            (device.flapping_begins, device.flapping_ms) = (usize::from(changes), within_ms.into());
            device.uplink = uplink;
        }
    }

    /// The lines by which a branch reaches its providers, in the order of their devices' ids, and which of them is in use: the
    /// first that is up.
    pub fn uplinks(&self, branch: usize) -> (Vec<&DeviceState>, Option<usize>) {
        let devices = self.branches[branch].devices.iter().map(|at| &self.devices[*at]);
        let mut uplinks: Vec<&DeviceState> = devices.filter(|device| device.uplink.is_some()).collect();
        uplinks.sort_by(|a, b| a.info.id.cmp(&b.info.id));
        let active = uplinks.iter().position(|device| device.view.status == Status::Up);
        (uplinks, active)
    }

    /// What availability leaves out.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// What is about devices, by their [`DeviceState::group`].
    pub fn groups(&self) -> &[Applicable] {
        &self.groups
    }

    /// Takes over another schedule.
    pub fn set_schedule(&mut self, schedule: Arc<Schedule>) {
        self.schedule = schedule;
        self.apply_schedule();
    }

    /// Tells each device its windows. Devices about which the same is agreed share them.
    fn apply_schedule(&mut self) {
        let always = Span::new(Millis(i64::MIN), Millis(i64::MAX));
        let mut known: HashMap<Applicable, (usize, Arc<[Span]>)> = HashMap::new();
        self.groups.clear();
        for at in 0..self.devices.len() {
            let applicable = self.schedule.of(self, at);
            let (group, windows) = match known.get(&applicable) {
                Some(known) => known.clone(),
                None => {
                    let windows: Arc<[Span]> = self.schedule.maintenance(&applicable, always).into();
                    let made = (self.groups.len(), windows);
                    self.groups.push(applicable.clone());
                    known.insert(applicable, made.clone());
                    made
                }
            };
            let device = &mut self.devices[at];
            device.group = group;
            if device.windows != windows {
                self.changed.insert(device.branch);
                device.windows = windows;
            }
        }
    }

    /// A run of a branch's agent began: it knows nothing of its devices yet. One that began before the present run is
    /// history that comes late.
    pub fn begin(&mut self, branch: usize, stream: StreamId, version: &str, began: Millis) {
        if !self.would_begin(branch, began) {
            return;
        }
        self.changed.insert(branch);
        self.forget_live(branch);
        let state = &mut self.branches[branch];
        state.stream = Some(stream);
        state.began = Some(began);
        state.spoke = None;
        state.origin = None;
        version.clone_into(&mut state.version);
        for device in &state.devices {
            let device = &mut self.devices[*device];
            device.verdict = Verdict { since: Some(began), ..NOTHING };
            device.flags = Flags::default();
        }
    }

    /// What the present run of a branch's agent says of the one before.
    pub fn tell_origin(&mut self, branch: usize, origin: Origin) {
        self.branches[branch].origin = Some(origin);
    }

    /// Whose fault a device's newest change is.
    pub fn blame(&mut self, device: usize, fault: Option<Fault>) {
        let device = &mut self.devices[device];
        self.changed.insert(device.branch);
        device.verdict.fault = fault;
    }

    /// What else may be said of a device.
    pub fn flag(&mut self, device: usize, flags: Flags) {
        let device = &mut self.devices[device];
        self.changed.insert(device.branch);
        device.flags = flags;
    }

    /// Whether another box answers at a device's address than before, and nobody has accepted it.
    pub fn set_changed(&mut self, device: usize, is_changed: bool) {
        let device = &mut self.devices[device];
        self.changed.insert(device.branch);
        device.is_changed = is_changed;
    }

    /// The oldest cuts that are settled and were not handed out yet, at most `limit`, with their branches.
    pub fn take_settled_cuts(&mut self, limit: usize) -> Vec<(usize, Cut)> {
        self.settled.drain(..self.settled.len().min(limit)).collect()
    }

    /// What the ledger says of a cut has been added to its reason.
    pub fn explain_cut(&mut self, branch: usize, explained: &Cut) {
        self.changed.insert(branch);
        if let Some(cut) = self.branches[branch].cut.as_mut().filter(|cut| cut.from == explained.from) {
            cut.reason.clone_from(&explained.reason);
        }
    }

    /// Whether a run that began then would be the present one.
    pub fn would_begin(&self, branch: usize, began: Millis) -> bool {
        self.branches[branch].began.is_none_or(|present| began >= present)
    }

    /// A run that another had followed speaks again: two agents stand for one branch. The one that speaks now counts,
    /// and nothing that the other told.
    pub fn resume(&mut self, branch: usize, stream: StreamId, began: Millis, now: Millis) {
        self.forget_live(branch);
        let state = &mut self.branches[branch];
        (state.stream, state.began, state.spoke) = (Some(stream), Some(began), None);
        self.doubt(branch, now);
    }

    /// What was told beside the log of a run says nothing of another.
    fn forget_live(&mut self, branch: usize) {
        let state = &mut self.branches[branch];
        (state.live_until, state.live_observed) = (None, None);
        for device in &state.devices {
            self.devices[*device].live = None;
        }
    }

    /// The stream of the present run of a branch's agent, as far as it is known.
    pub fn present(&self, branch: usize) -> Option<StreamId> {
        self.branches[branch].stream
    }

    /// Whether a stream is that of the present run, as far as it is known.
    pub fn is_present(&self, branch: usize, stream: StreamId) -> bool {
        self.branches[branch].stream == Some(stream)
    }

    /// A device changed.
    pub fn change(&mut self, device: usize, from: Status, change: &Change) {
        let device = &mut self.devices[device];
        self.changed.insert(device.branch);
        device.verdict = Verdict { status: change.to, since: Some(change.onset), last_ok: change.last_ok, fault: None };
        match change.to {
            Status::Down => {
                device.open_since.get_or_insert(change.onset);
            }
            Status::Up => device.open_since = None,
            // Nobody can say that it is up again: the outage goes on.
            Status::Unknown(_) => {}
        }
        if matches!((from, change.to), (Status::Up, Status::Down) | (Status::Down, Status::Up)) {
            if device.flips.len() == CHANGES_LIMIT {
                device.flips.pop_front();
            }
            device.flips.push_back(change.onset);
        }
    }

    /// Takes over what the ledger holds of a device: its newest changes, the start of an open outage, and whether the
    /// last change is its verdict now: one of an earlier run is none, nor one after which others were lost.
    pub fn restore(&mut self, device: usize, history: &[(Status, Change)], open_since: Option<Millis>, is_verdict: bool) {
        self.changed.insert(self.devices[device].branch);
        self.devices[device].flips.clear();
        for (from, change) in history {
            self.change(device, *from, change);
        }
        let began = self.branches[self.devices[device].branch].began;
        let device = &mut self.devices[device];
        device.open_since = open_since;
        if !is_verdict {
            device.verdict = Verdict { since: began, ..NOTHING };
        }
    }

    /// What the ledger says of a device, whether or not its branch can be heard, and since when.
    pub fn logged(&self, device: usize) -> (Status, Option<Millis>) {
        (self.devices[device].verdict.status, self.devices[device].verdict.since)
    }

    /// Entries of a branch's present run are lost: nobody can say what its devices are until its agent tells again.
    pub fn doubt(&mut self, branch: usize, since: Millis) {
        self.changed.insert(branch);
        for device in &self.branches[branch].devices {
            self.devices[*device].verdict = Verdict { since: Some(since), ..NOTHING };
        }
    }

    /// Whether a branch has a device without a verdict.
    pub fn has_doubts(&self, branch: usize) -> bool {
        self.branches[branch].devices.iter().any(|device| self.devices[*device].verdict.status == NOTHING.status)
    }

    /// A minute of a device is known.
    pub fn measure(&mut self, device: usize, quality: Quality) {
        let device = &mut self.devices[device];
        if device.quality.is_none_or(|known| known.at <= quality.at) {
            self.changed.insert(device.branch);
            device.quality = Some(quality);
        }
    }

    /// A branch's stream is known up to `through`, and with it every change before `observed`, where that is known.
    pub fn observed(&mut self, branch: usize, stream: StreamId, through: u64, observed: Option<Millis>, now: Millis) {
        self.changed.insert(branch);
        let state = &mut self.branches[branch];
        state.last_contact = Some(now);
        state.hears(stream, now);
        state.gone_at = None;
        // A word that vouches for nothing leaves what is known as old as it is.
        state.has_to_speak &= observed.is_none();
        // Ahead of our clock it was dated by another one: ours was set since.
        let known = state.observed.filter(|known| *known <= now);
        state.observed = known.max(observed.map(|observed| observed.min(now)));
        if state.live_until.is_some_and(|(live, last)| live == stream && through >= last) {
            state.live_until = None;
            state.live_observed = None;
            for device in &state.devices {
                self.devices[*device].live = None;
            }
        }
    }

    /// A heartbeat arrived. `through` is how far its stream is known here.
    pub fn heartbeat(&mut self, branch: usize, heartbeat: &Heartbeat, through: u64, now: Millis) {
        self.changed.insert(branch);
        let state = &mut self.branches[branch];
        state.last_contact = Some(now);
        state.hears(heartbeat.stream, now);
        state.gone_at = None;
        if let Some(health) = &heartbeat.health {
            state.health = Some(health.clone());
        }
        let Some(dating) = heartbeat.dating else { return };
        // A date that may be off must not make old states look fresh.
        let (observed, error_ms) = dating.date(heartbeat.observed_through);
        let observed = observed.plus(-i64::from(error_ms)).min(now);
        if through >= heartbeat.last {
            // Another agent has spoken for the branch since: this one's word says nothing of the states shown.
            if state.stream != Some(heartbeat.stream) {
                return;
            }
            self.observed(branch, heartbeat.stream, through, Some(observed), now);
            return;
        }
        if heartbeat.states.is_empty() {
            return;
        }
        state.has_to_speak = false;
        state.live_observed = Some(observed);
        state.live_until = Some((heartbeat.stream, heartbeat.last));
        for live in &heartbeat.states {
            if let Some(device) = self.device_of(&live.device, branch) {
                let since = dating.date(live.onset).0.min(now);
                let verdict = Verdict { status: live.status, since: Some(since), last_ok: None, fault: live.verdict };
                self.devices[device].live = Some(verdict);
                self.devices[device].flags = live.flags;
            }
        }
    }

    /// An agent says what came of a config. It may name devices of its own branch alone.
    pub fn tried(&mut self, branch: usize, mut tried: Tried) {
        tried.silent.retain(|device| self.device_of(device, branch).is_some());
        self.changed.insert(branch);
        self.branches[branch].config_trial = Some(Arc::new(tried));
    }

    /// The broker, or the agent itself, says what became of its connection.
    pub fn presence(&mut self, branch: usize, stream: StreamId, state: PresenceState, now: Millis) {
        self.changed.insert(branch);
        let known = &mut self.branches[branch];
        match state {
            PresenceState::Online => (known.gone_at, known.has_stopped) = (None, false),
            // A will that the broker publishes late must not speak of the run after.
            PresenceState::Stopped | PresenceState::Lost | PresenceState::Restarting
                if known.stream.is_some_and(|current| current != stream) => {}
            PresenceState::Stopped => (known.gone_at, known.has_stopped) = (Some(now.plus(-LOST_GRACE_MS)), true),
            PresenceState::Lost => known.gone_at = Some(known.gone_at.unwrap_or(now)),
            // Another build takes over within seconds. Where it doesn't, silence tells, and nobody blames the line.
            PresenceState::Restarting => known.has_stopped = true,
        }
    }

    /// Brings what surfaces show up to `now`; what looks different.
    ///
    /// Looks at the branches of which something has changed, and at those of which time has changed something.
    pub fn refresh(&mut self, now: Millis) -> Touched {
        // A clock that was set back undoes what time had done.
        if self.refreshed_at.is_none_or(|before| now < before) {
            return self.refresh_all(now);
        }
        self.refreshed_at = Some(now);
        let mut branches = std::mem::take(&mut self.changed);
        branches.extend(self.due.range(..=(now, usize::MAX)).map(|(_, branch)| *branch));
        let mut touched = Touched::default();
        branches.into_iter().for_each(|branch| self.refresh_branch(branch, now, &mut touched));
        touched.devices.sort_unstable_by_key(|touched| touched.device);
        touched
    }

    /// However recent it looks, everybody has to speak first.
    pub fn clock_was_set_back(&mut self) {
        self.branches.iter_mut().for_each(|branch| branch.has_to_speak = true);
        self.changed.extend(0..self.branches.len());
    }

    /// As [`Self::refresh`], whatever has changed.
    fn refresh_all(&mut self, now: Millis) -> Touched {
        if self.refreshed_at.is_some_and(|before| now < before) {
            // However recent it looks by a clock that was set back, now or when that time comes again: what was silent, or
            // was heard at a time that lies ahead now, has to speak first.
            for branch in &mut self.branches {
                let is_ahead = branch.last_contact.is_some_and(|contact| contact > now);
                branch.has_to_speak |= branch.contact == Contact::Silent || is_ahead;
            }
        }
        self.refreshed_at = Some(now);
        self.changed.clear();
        self.due.clear();
        self.branches.iter_mut().for_each(|branch| branch.due = None);
        let mut touched = Touched::default();
        (0..self.branches.len()).for_each(|branch| self.refresh_branch(branch, now, &mut touched));
        touched.devices.sort_unstable_by_key(|touched| touched.device);
        touched
    }

    fn refresh_branch(&mut self, at: usize, now: Millis, touched: &mut Touched) {
        let branch = &mut self.branches[at];
        let contact = branch.contact_at(now);
        let has_turned = contact != branch.contact;
        if has_turned {
            branch.turn(contact, now);
            branch.contact = contact;
        }
        while let Some(cut) = branch.settle() {
            self.settled.push_back((at, cut));
        }
        let is_as_told = branch.health == branch.told.0
            && branch.version == branch.told.1
            && branch.config_wanted == branch.told.2
            && branch.config_trial == branch.told.3
            && branch.cut == branch.told.4;
        if has_turned || !is_as_told {
            branch.told = (
                branch.health.clone(),
                branch.version.clone(),
                branch.config_wanted,
                branch.config_trial.clone(),
                branch.cut.clone(),
            );
            touched.branches.push(at);
        }
        let branch = &self.branches[at];
        let mut due = branch.contact_ends(now);
        for index in &branch.devices {
            let device = &mut self.devices[*index];
            let view = device.view_at(branch, now);
            if view != device.view || device.told != device.quality {
                let before = std::mem::replace(&mut device.view, view);
                let is_measured = device.told != device.quality;
                device.told = device.quality;
                // A branch tells how its providers' lines are.
                let is_line = device.uplink.is_some() && before.status != device.view.status;
                if is_line && touched.branches.last() != Some(&at) {
                    touched.branches.push(at);
                }
                touched.devices.push(TouchedDevice { device: *index, before, is_measured });
            }
            due = earlier(earlier(due, device.flips_end(now)), device.maintenance_turns(now));
        }
        if due != branch.due {
            branch.due.map(|before| self.due.remove(&(before, at)));
            due.map(|next| self.due.insert((next, at)));
            self.branches[at].due = due;
        }
    }

    /// How many devices are what.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.devices.iter().for_each(|device| counts.add(&device.view));
        counts
    }
}

impl BranchState {
    fn new(info: Branch) -> Self {
        Self {
            info,
            devices: Vec::new(),
            contact: Contact::Never,
            last_contact: None,
            observed: None,
            silent_after_ms: 0,
            health: None,
            version: String::new(),
            told: Told::default(),
            config_wanted: None,
            config_trial: None,
            live_observed: None,
            live_until: None,
            stream: None,
            began: None,
            spoke: None,
            gone_at: None,
            has_stopped: false,
            origin: None,
            cut: None,
            unsettled: VecDeque::new(),
            has_to_speak: false,
            due: None,
        }
    }

    /// The stream of the present run of its agent, as far as it is known.
    pub fn stream(&self) -> Option<StreamId> {
        self.stream
    }

    /// How long ago a run of its agent spoke, in ms; none where another speaks for the branch, or nothing was heard.
    pub fn spoke_ago_ms(&self, stream: StreamId, now: Millis) -> Option<u64> {
        let spoke = self.spoke.filter(|_| self.stream == Some(stream))?;
        u64::try_from(now.since(spoke)).ok()
    }

    fn hears(&mut self, stream: StreamId, now: Millis) {
        if self.stream == Some(stream) {
            self.spoke = Some(now);
        }
    }

    /// The newest moment of which the devices' states are known.
    pub fn known_through(&self) -> Option<Millis> {
        self.observed.max(self.live_observed)
    }

    /// The time in which it can't be heard, or the last such time.
    pub fn newest_cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// It begins or ends to be heard.
    fn turn(&mut self, contact: Contact, now: Millis) {
        match contact {
            Contact::Never => {}
            Contact::Silent => {
                let from = self.known_through().unwrap_or(now);
                let is_ours = self.contact == Contact::Never;
                // A guess: most often it is the line. An agent that said goodbye was stopped by somebody.
                let (verdict, reason) = if is_ours {
                    (None, "nothing is heard of the branch since the collector began")
                } else if self.has_stopped {
                    (None, "the agent was stopped")
                } else {
                    (
                        Some(Fault::WanCut),
                        "nothing is heard of the branch; whether its line or its power is gone is known when it is back",
                    )
                };
                let reason = reason.to_owned();
                let cut = Cut { from, to: None, verdict, reason, is_settled: false, stream: self.stream, is_ours };
                self.cut = Some(cut);
            }
            Contact::Connected => {
                let Some(cut) = self.cut.as_mut().filter(|cut| cut.to.is_none()) else { return };
                cut.to = Some(now);
                cut.judge(self.stream, self.origin);
                self.unsettled.push_back(cut.clone());
            }
        }
    }

    /// The oldest cut of which all is known by now, or of which it was waited for long enough.
    fn settle(&mut self) -> Option<Cut> {
        let is_known = |cut: &Cut| self.observed >= cut.to || self.unsettled.len() > UNSETTLED_LIMIT;
        self.unsettled.front().filter(|cut| is_known(cut))?;
        let mut cut = self.unsettled.pop_front()?;
        cut.is_settled = true;
        if let Some(newest) = self.cut.as_mut().filter(|newest| newest.from == cut.from) {
            // A heartbeat may have come ahead of what the new run says of the one before.
            cut.judge(self.stream, self.origin);
            newest.clone_from(&cut);
        }
        Some(cut)
    }

    fn contact_at(&self, now: Millis) -> Contact {
        let Some(known) = self.known_through() else { return Contact::Never };
        let lost = self.gone_at.is_some_and(|gone| now.since(gone) >= LOST_GRACE_MS);
        // A date ahead of now is of a clock that has been set: it says nothing.
        let is_fresh = |at: Millis| (0..=self.silent_after_ms).contains(&now.since(at));
        if !lost && !self.has_to_speak && is_fresh(known) && self.last_contact.is_some_and(is_fresh) {
            Contact::Connected
        } else {
            Contact::Silent
        }
    }

    /// The first moment after `now` at which [`Self::contact_at`] may say something else if nothing is heard.
    fn contact_ends(&self, now: Millis) -> Option<Millis> {
        // A date from ahead, of a clock that was set, becomes fresh when its moment comes, and stale like any other.
        let bounds = |at: Millis| [at, at.plus(self.silent_after_ms + 1)];
        let moments = [self.known_through(), self.last_contact].into_iter().flatten().flat_map(bounds);
        moments.chain(self.gone_at.map(|gone| gone.plus(LOST_GRACE_MS))).filter(|at| *at > now).min()
    }
}

impl DeviceState {
    fn new(no: u32, info: Device, branch: usize) -> Self {
        let view = View {
            status: NOTHING.status,
            since: None,
            down_since: None,
            last_ok: None,
            is_flapping: false,
            in_maintenance: false,
            flags: Flags::default(),
            verdict: None,
            is_provisional: false,
        };
        Self {
            no,
            info,
            branch,
            quality: None,
            view,
            told: None,
            verdict: NOTHING,
            live: None,
            open_since: None,
            flips: VecDeque::new(),
            flags: Flags::default(),
            is_changed: false,
            flapping_begins: FLAPPING_BEGINS,
            flapping_ms: FLAPPING_MS,
            uplink: None,
            group: 0,
            windows: Arc::default(),
        }
    }

    /// The first moment after `now` at which it enters or leaves maintenance.
    fn maintenance_turns(&self, now: Millis) -> Option<Millis> {
        let next = self.windows.get(self.windows.partition_point(|window| window.to <= now))?;
        Some(if next.from > now { next.from } else { next.to })
    }

    fn is_in_maintenance(&self, now: Millis) -> bool {
        let next = self.windows.get(self.windows.partition_point(|window| window.to <= now));
        next.is_some_and(|window| window.from <= now)
    }

    /// The first moment after `now` at which one of its changes is too old to count towards flapping.
    fn flips_end(&self, now: Millis) -> Option<Millis> {
        self.flips.iter().map(|at| at.plus(self.flapping_ms)).filter(|end| *end > now).min()
    }

    fn view_at(&self, branch: &BranchState, now: Millis) -> View {
        let recent = self.flips.iter().filter(|at| now.since(**at) < self.flapping_ms).count();
        let needed = if self.view.is_flapping { FLAPPING_ENDS } else { self.flapping_begins };
        let is_flapping = recent >= needed;
        let in_maintenance = self.is_in_maintenance(now);
        let unknown = |cause, since| View {
            status: Status::Unknown(cause),
            since,
            down_since: None,
            last_ok: None,
            is_flapping,
            in_maintenance,
            // Whatever is heard of it, that stays so until somebody has accepted it.
            flags: Flags::default().with(Flags::IDENTITY_CHANGED, self.is_changed),
            verdict: None,
            is_provisional: false,
        };
        match branch.contact {
            Contact::Never => return unknown(Cause::NeverObserved, None),
            Contact::Silent => {
                let verdict = branch.cut.as_ref().and_then(|cut| cut.verdict);
                let view = unknown(Cause::AgentSilent, branch.known_through());
                return View { verdict, is_provisional: verdict.is_some(), ..view };
            }
            Contact::Connected => {}
        }
        let live = self.live.filter(|_| branch.live_observed > branch.observed);
        let Verdict { status, since, last_ok, fault } = live.unwrap_or(self.verdict);
        // The branch's log is behind and the live lane has not told of this device: what the log says is old.
        if live.is_none() && branch.live_observed > branch.observed {
            return unknown(Cause::NeverObserved, branch.observed);
        }
        let down_since = (status == Status::Down).then(|| if live.is_some() { since } else { self.open_since }).flatten();
        let earlier = self.open_since.filter(|_| self.verdict.status == Status::Down && down_since.is_some());
        let down_since = earlier.or(down_since);
        let flags = self.flags.with(Flags::IDENTITY_CHANGED, self.is_changed);
        View { status, since, down_since, last_ok, is_flapping, in_maintenance, flags, verdict: fault, is_provisional: false }
    }
}

fn earlier(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::message::Live;
    use shared::{Dating, Uptime};

    use super::*;
    use crate::inventory::parse_csv;

    const T0: i64 = 1_795_442_400_000;

    /// Two branches: vake with a, named so, and b; gldani with c.
    fn estate(name: &str) -> (Inventory, [u32; 3]) {
        let text = format!(
            "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
             a,{name},vake,Vake,t,T,atm,10.0.0.1\nb,B,vake,Vake,t,T,atm,10.0.0.2\nc,C,gldani,Gldani,t,T,atm,10.0.0.1\n"
        );
        (parse_csv("e", &text).expect("good"), [1, 2, 3])
    }

    fn fleet() -> Fleet {
        let (inventory, numbers) = estate("A");
        let mut fleet = Fleet::new(30_000);
        fleet.set_inventory(&inventory, &numbers);
        fleet
    }

    fn at(seconds: i64) -> Millis {
        Millis(T0 + seconds * 1000)
    }

    fn change(to: Status, seconds: i64) -> Change {
        Change { onset: at(seconds), to, last_ok: None, error_ms: 0 }
    }

    fn heartbeat(seconds: i64, last: u64, states: Vec<Live>) -> Heartbeat {
        let uptime = Uptime(seconds.unsigned_abs() * 1000);
        Heartbeat {
            stream: StreamId(1),
            sent: uptime,
            dating: Some(Dating::Fixed { boot_at: Millis(T0), error_ms: 0 }),
            last,
            observed_through: uptime,
            health: Some(Health { config: 1, ..Health::default() }),
            states,
        }
    }

    /// Branch vake in contact at second 0, a up and b down since then.
    fn heard() -> Fleet {
        let mut fleet = fleet();
        let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
        fleet.begin(vake, StreamId(1), "0", at(0));
        for (id, to) in [("a", Status::Up), ("b", Status::Down)] {
            let device = fleet.device(&id.parse().expect("an id")).expect("there");
            fleet.change(device, shared::delta::UNOBSERVED, &change(to, 0));
        }
        fleet.observed(vake, StreamId(1), 3, Some(at(1)), at(1));
        fleet.refresh(at(1));
        fleet
    }

    fn shown(fleet: &Fleet) -> String {
        let mut all: Vec<String> = fleet.devices.iter().map(|d| format!("{}={}", d.info.id, d.view.status)).collect();
        all.sort();
        all.join(" ")
    }

    #[test]
    fn a_device_of_a_branch_that_was_never_heard_is_unknown() {
        let mut fleet = fleet();
        fleet.refresh(at(0));
        assert_eq!(shown(&fleet), "a=unknown(never_observed) b=unknown(never_observed) c=unknown(never_observed)");
        assert_eq!(fleet.counts(), Counts { total: 3, unknown: 3, ..Counts::default() });
    }

    #[test]
    fn a_silent_branch_has_neither_up_nor_down_devices() {
        let mut fleet = heard();
        assert_eq!(shown(&fleet), "a=up b=down c=unknown(never_observed)");
        let touched = fleet.refresh(at(31));
        assert!(touched.is_empty());
        let touched = fleet.refresh(at(32));
        assert_eq!((touched.devices.len(), touched.branches.len()), (2, 1));
        assert_eq!(shown(&fleet), "a=unknown(agent_silent) b=unknown(agent_silent) c=unknown(never_observed)");
        assert_eq!(fleet.devices[0].view.since, Some(at(1)));
    }

    #[test]
    fn a_branch_that_reconnects_with_a_backlog_stays_unknown_until_its_states_are_current() {
        let mut fleet = heard();
        fleet.refresh(at(100));
        // It is heard again, but ten entries are still on their way.
        fleet.heartbeat(0, &heartbeat(101, 13, Vec::new()), 3, at(101));
        fleet.observed(0, StreamId(1), 5, Some(at(20)), at(101));
        fleet.refresh(at(101));
        assert_eq!(fleet.branches[0].contact, Contact::Silent);
        fleet.heartbeat(0, &heartbeat(102, 13, Vec::new()), 13, at(102));
        fleet.refresh(at(102));
        assert_eq!(shown(&fleet), "a=up b=down c=unknown(never_observed)");
    }

    #[test]
    fn a_fresh_down_shows_while_the_log_is_behind() {
        let mut fleet = heard();
        fleet.refresh(at(100));
        let live = |id: &str, status, onset| Live::of(id.parse().expect("an id"), status, Uptime(onset));
        let states = vec![live("a", Status::Down, 99_000), live("c", Status::Down, 99_000)];
        fleet.heartbeat(0, &heartbeat(101, 500, states), 3, at(101));
        fleet.refresh(at(101));
        // c stands in another branch: this agent can't speak for it. b was not told: its log state is old.
        assert_eq!(shown(&fleet), "a=down b=unknown(never_observed) c=unknown(never_observed)");
        assert_eq!(fleet.devices[0].view.down_since, Some(at(99)));
        fleet.observed(0, StreamId(1), 500, Some(at(102)), at(102));
        fleet.refresh(at(102));
        assert_eq!(shown(&fleet), "a=up b=down c=unknown(never_observed)");
    }

    #[test]
    fn an_agent_that_restarts_keeps_the_start_of_an_open_outage() {
        let mut fleet = heard();
        fleet.begin(0, StreamId(2), "0", at(10));
        fleet.observed(0, StreamId(2), 1, Some(at(10)), at(10));
        fleet.refresh(at(10));
        assert_eq!(shown(&fleet), "a=unknown(never_observed) b=unknown(never_observed) c=unknown(never_observed)");
        fleet.change(1, shared::delta::UNOBSERVED, &change(Status::Down, 11));
        fleet.refresh(at(12));
        assert_eq!((fleet.devices[1].view.status, fleet.devices[1].view.down_since), (Status::Down, Some(at(0))));
    }

    #[test]
    fn what_came_of_a_config_is_told_once_and_names_no_other_branchs_devices() {
        let mut fleet = heard();
        let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
        let silent = ["b", "c", "nobody"].map(|id| id.parse().expect("a valid id")).to_vec();
        let tried = Tried { version: 2, is_held: false, answered: 1, silent_total: 3, silent };
        fleet.tried(vake, tried.clone());
        assert_eq!(fleet.refresh(at(2)).branches, [vake]);
        let named = |fleet: &Fleet| fleet.branches[vake].config_trial.as_ref().map(|tried| tried.silent.len());
        assert_eq!(named(&fleet), Some(1), "c stands in another branch");
        fleet.tried(vake, tried);
        assert!(fleet.refresh(at(3)).branches.is_empty(), "nothing is new");
    }

    #[test]
    fn each_run_is_heard_for_itself() {
        let mut fleet = heard();
        let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
        let ago = |fleet: &Fleet, stream, now| fleet.branches[vake].spoke_ago_ms(StreamId(stream), at(now));
        let spoke = |fleet: &mut Fleet, stream, now| fleet.observed(vake, StreamId(stream), 1, Some(at(now)), at(now));
        spoke(&mut fleet, 1, 40);
        assert_eq!((ago(&fleet, 1, 43), ago(&fleet, 2, 43)), (Some(3_000), None));
        // Another build begins, and sends what the one before has left.
        fleet.begin(vake, StreamId(2), "0", at(50));
        spoke(&mut fleet, 1, 51);
        assert_eq!((ago(&fleet, 1, 52), ago(&fleet, 2, 52)), (None, None), "the new one has not said a word itself");
        spoke(&mut fleet, 2, 53);
        assert_eq!(ago(&fleet, 2, 60), Some(7_000));
        assert_eq!(ago(&fleet, 2, 50), None, "our clock was set back");
    }

    #[test]
    fn a_lost_connection_is_silent_after_a_grace_and_a_late_will_says_nothing() {
        let mut fleet = heard();
        fleet.presence(0, StreamId(9), PresenceState::Lost, at(2));
        fleet.refresh(at(10));
        assert_eq!(fleet.branches[0].contact, Contact::Connected);
        fleet.presence(0, StreamId(1), PresenceState::Lost, at(10));
        fleet.refresh(at(14));
        assert_eq!(fleet.branches[0].contact, Contact::Connected);
        fleet.refresh(at(15));
        assert_eq!(fleet.branches[0].contact, Contact::Silent);
        fleet.presence(0, StreamId(1), PresenceState::Online, at(16));
        fleet.refresh(at(16));
        assert_eq!(fleet.branches[0].contact, Contact::Connected);
        fleet.presence(0, StreamId(1), PresenceState::Stopped, at(17));
        fleet.refresh(at(17));
        assert_eq!(fleet.branches[0].contact, Contact::Silent);
    }

    #[test]
    fn three_changes_in_five_minutes_are_flapping_and_fewer_than_two_end_it() {
        let mut fleet = heard();
        let flapping = |fleet: &mut Fleet, seconds: i64| {
            fleet.observed(0, StreamId(1), 3, Some(at(seconds)), at(seconds));
            fleet.refresh(at(seconds));
            fleet.devices[0].view.is_flapping
        };
        fleet.change(0, Status::Up, &change(Status::Down, 10));
        fleet.change(0, Status::Down, &change(Status::Up, 20));
        assert!(!flapping(&mut fleet, 21));
        fleet.change(0, Status::Up, &change(Status::Down, 30));
        assert!(flapping(&mut fleet, 31));
        assert!(flapping(&mut fleet, 319), "two changes still lie within five minutes");
        assert!(!flapping(&mut fleet, 321));
        // A device left down after flapping is down.
        assert_eq!(fleet.devices[0].view.status, Status::Down);
    }

    #[test]
    fn an_inventory_change_keeps_the_state_of_devices_that_stay() {
        let mut fleet = heard();
        let text = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                    b,New name,vake,Vake,t,T,atm,10.0.0.2\nd,D,vake,Vake,t,T,atm,10.0.0.9\na,A,vake,Vake,t,T,atm,10.0.0.8\n";
        fleet.set_inventory(&parse_csv("e", text).expect("good"), &[2, 4, 1]);
        fleet.refresh(at(2));
        // a has another address now: what was seen at the old one says nothing.
        assert_eq!(shown(&fleet), "a=unknown(never_observed) b=down d=unknown(never_observed)");
    }

    /// What can happen to a fleet; seconds count from the present moment.
    #[derive(Debug, Clone)]
    enum Event {
        Begin { branch: usize, stream: u64, seconds: i64 },
        Change { device: usize, to: Status, seconds: i64 },
        Observed { branch: usize, stream: u64, through: u64, seconds: i64, now: i64 },
        Heartbeat { branch: usize, seconds: i64, last: u64, through: u64, device: Option<&'static str>, now: i64 },
        Presence { branch: usize, stream: u64, state: PresenceState, now: i64 },
        Doubt { branch: usize, seconds: i64 },
        Resume { branch: usize, stream: u64, seconds: i64, now: i64 },
        Measure { device: usize, seconds: i64 },
        Restore { device: usize, seconds: Vec<i64>, is_present: bool },
        Inventory { names: usize },
        Pass,
    }

    fn event() -> impl Strategy<Value = Event> {
        let status = prop::sample::select(vec![Status::Up, Status::Down, Status::Unknown(Cause::ProbeError)]);
        let presence = prop::sample::select(vec![PresenceState::Online, PresenceState::Stopped, PresenceState::Lost]);
        let told = prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]);
        let seconds = prop_oneof![3 => -40i64..5, 1 => -330i64..5];
        prop_oneof![
            (0usize..2, 1u64..4, seconds.clone()).prop_map(|(branch, stream, seconds)| Event::Begin { branch, stream, seconds }),
            (0usize..3, status, seconds.clone()).prop_map(|(device, to, seconds)| Event::Change { device, to, seconds }),
            (0usize..2, 1u64..4, 0u64..9, seconds.clone(), seconds.clone()).prop_map(
                |(branch, stream, through, seconds, now)| { Event::Observed { branch, stream, through, seconds, now } }
            ),
            (0usize..2, seconds.clone(), 0u64..9, 0u64..9, told, seconds.clone()).prop_map(
                |(branch, seconds, last, through, device, now)| Event::Heartbeat { branch, seconds, last, through, device, now }
            ),
            (0usize..2, 1u64..4, presence, -8i64..1).prop_map(|(branch, stream, state, now)| Event::Presence {
                branch,
                stream,
                state,
                now
            }),
            (0usize..2, seconds.clone()).prop_map(|(branch, seconds)| Event::Doubt { branch, seconds }),
            (0usize..2, 1u64..4, seconds.clone(), seconds.clone()).prop_map(|(branch, stream, seconds, now)| Event::Resume {
                branch,
                stream,
                seconds,
                now
            }),
            (0usize..3, seconds.clone()).prop_map(|(device, seconds)| Event::Measure { device, seconds }),
            (0usize..3, prop::collection::vec(seconds, 0..5), any::<bool>())
                .prop_map(|(device, seconds, is_present)| Event::Restore { device, seconds, is_present }),
            (0usize..2).prop_map(|names| Event::Inventory { names }),
            Just(Event::Pass),
            Just(Event::Pass),
        ]
    }

    fn apply(fleet: &mut Fleet, event: &Event, now: i64) {
        let at = |seconds: i64| Millis(now + seconds * 1000);
        let change = |to, seconds| Change { onset: at(seconds), to, last_ok: None, error_ms: 0 };
        match event {
            Event::Begin { branch, stream, seconds } => fleet.begin(*branch, StreamId(*stream), "0", at(*seconds)),
            Event::Change { device, to, seconds } => {
                let from = fleet.logged(*device).0;
                fleet.change(*device, from, &change(*to, *seconds));
            }
            Event::Observed { branch, stream, through, seconds, now } => {
                fleet.observed(*branch, StreamId(*stream), *through, Some(at(*seconds)), at(*now));
            }
            Event::Heartbeat { branch, seconds, last, through, device, now } => {
                let live = |id: &&str| Live::of(id.parse().expect("an id"), Status::Down, Uptime(5_000));
                let states = device.iter().map(live).collect();
                let seconds = (at(*seconds).0 - T0).max(0) / 1000;
                fleet.heartbeat(*branch, &heartbeat(seconds, *last, states), *through, at(*now));
            }
            Event::Presence { branch, stream, state, now } => {
                fleet.presence(*branch, StreamId(*stream), *state, at(*now));
            }
            Event::Doubt { branch, seconds } => fleet.doubt(*branch, at(*seconds)),
            Event::Resume { branch, stream, seconds, now } => {
                fleet.resume(*branch, StreamId(*stream), at(*seconds), at(*now));
            }
            Event::Measure { device, seconds } => {
                fleet.measure(*device, Quality { at: at(*seconds), rtt_us: Some(1), loss: 0.0 });
            }
            Event::Restore { device, seconds, is_present } => {
                let flip = |s: &i64| (Status::Up, change(Status::Down, *s));
                fleet.restore(*device, &seconds.iter().map(flip).collect::<Vec<_>>(), None, *is_present);
            }
            Event::Inventory { names } => {
                let (inventory, numbers) = estate(["A", "A2"][*names]);
                fleet.set_inventory(&inventory, &numbers);
            }
            Event::Pass => {}
        }
    }

    proptest! {
        /// Each step: what happens, and by how much the clock moves on, or back.
        #[test]
        fn what_a_refresh_leaves_out_would_look_the_same(
            steps in prop::collection::vec((prop::collection::vec(event(), 0..4), prop_oneof![
                9 => 0i64..10_000, 2 => 0i64..400_000, 1 => -60_000i64..0
            ]), 1..40)
        ) {
            let (mut lean, mut full) = (fleet(), fleet());
            let mut now = T0;
            for (events, step) in steps {
                now += step;
                for event in &events {
                    apply(&mut lean, event, now);
                    apply(&mut full, event, now);
                }
                let (some, all) = (lean.refresh(Millis(now)), full.refresh_all(Millis(now)));
                prop_assert_eq!(some, all);
                for (a, b) in lean.devices.iter().zip(&full.devices) {
                    prop_assert_eq!(a.view, b.view);
                }
                for (a, b) in lean.branches.iter().zip(&full.branches) {
                    prop_assert_eq!((a.contact, &a.told), (b.contact, &b.told));
                }
            }
        }
    }

    #[test]
    fn the_live_lane_of_an_earlier_run_says_nothing_of_this_one() {
        let mut fleet = heard();
        let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
        let live = |id: &str, status| Live::of(id.parse().expect("an id"), status, Uptime(10_000));
        // The first run is far behind, says what all are, and is killed: what it held in memory never comes.
        fleet.heartbeat(vake, &heartbeat(10, 500, vec![live("a", Status::Up), live("b", Status::Up)]), 3, at(10));
        // The next run finds b down, and its log is current.
        fleet.begin(vake, StreamId(2), "0", at(12));
        for (id, to) in [("a", Status::Up), ("b", Status::Down)] {
            let device = fleet.device(&id.parse().expect("an id")).expect("there");
            fleet.change(device, shared::delta::UNOBSERVED, &change(to, 12));
        }
        fleet.observed(vake, StreamId(2), 3, Some(at(15)), at(15));
        fleet.refresh(at(15));
        let b = fleet.device(&"b".parse().expect("an id")).expect("there");
        assert_eq!(fleet.devices[b].view.status, Status::Down);
        // It is behind for a moment, and a changes: tell_newest tells of a alone, since the states were "told" before.
        let beat = Heartbeat { stream: StreamId(2), ..heartbeat(20, 60, vec![live("a", Status::Down)]) };
        fleet.heartbeat(vake, &beat, 3, at(20));
        fleet.refresh(at(20));
        assert_ne!(fleet.devices[b].view.status, Status::Up, "b is down, and was never up in this run");
    }

    #[test]
    fn a_branch_that_was_silent_tells_whether_its_line_or_its_power_was_gone() {
        let back = |stream: u64, origin: Option<Origin>| {
            let mut fleet = heard();
            let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
            fleet.refresh(at(100));
            let silent = fleet.devices[0].view;
            assert_eq!((silent.verdict, silent.is_provisional), (Some(Fault::WanCut), true), "a guess");
            if stream != 1 {
                fleet.begin(vake, StreamId(stream), "0", at(150));
            }
            origin.into_iter().for_each(|origin| fleet.tell_origin(vake, origin));
            fleet.observed(vake, StreamId(stream), 9, Some(at(200)), at(200));
            fleet.refresh(at(200));
            let ended = fleet.take_settled_cuts(usize::MAX);
            assert_eq!((ended.len(), ended[0].1.from, ended[0].1.to), (1, at(1), Some(at(200))));
            assert!(!fleet.devices[0].view.is_provisional && fleet.take_settled_cuts(usize::MAX).is_empty());
            ended[0].1.verdict
        };
        let origin = |is_same_boot, is_clean, lived_s| Some(Origin { is_same_boot, is_clean, lived_until: Some(at(lived_s)) });
        assert_eq!(back(1, None), Some(Fault::WanCut), "it went on");
        assert_eq!(back(2, origin(false, false, 5)), Some(Fault::PowerCut));
        assert_eq!(back(2, origin(false, false, 90)), Some(Fault::WanCut), "it lived on before it was started anew");
        assert_eq!(back(2, origin(true, false, 5)), None, "its program ended");
        assert_eq!(back(2, origin(false, true, 5)), None, "somebody stopped it");
        assert_eq!(back(2, None), None);
    }

    #[test]
    fn a_heartbeat_that_comes_ahead_of_the_boot_settles_nothing() {
        let mut fleet = heard();
        let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
        let a = Live::of("a".parse().expect("an id"), Status::Up, Uptime(10_000));
        fleet.refresh(at(100));
        let beat = Heartbeat { stream: StreamId(2), ..heartbeat(200, 7, vec![a.clone()]) };
        fleet.heartbeat(vake, &beat, 0, at(200));
        fleet.refresh(at(200));
        let cut = fleet.branches[vake].newest_cut().expect("it was silent").clone();
        assert_eq!((cut.to, cut.is_settled, fleet.take_settled_cuts(usize::MAX).len()), (Some(at(200)), false, 0));
        fleet.begin(vake, StreamId(2), "0", at(190));
        fleet.tell_origin(vake, Origin { is_same_boot: false, is_clean: false, lived_until: Some(at(5)) });
        fleet.observed(vake, StreamId(2), 7, Some(at(201)), at(202));
        assert_eq!(fleet.refresh(at(202)).branches, [vake], "whoever looks is told");
        let settled = fleet.take_settled_cuts(usize::MAX);
        assert_eq!((settled[0].1.verdict, settled[0].1.is_settled), (Some(Fault::PowerCut), true));
        let explained = Cut { reason: "all was dark".into(), ..settled[0].1.clone() };
        fleet.explain_cut(vake, &explained);
        assert_eq!((fleet.refresh(at(203)).branches, fleet.branches[vake].newest_cut()), (vec![vake], Some(&explained)));
    }

    #[test]
    fn a_line_that_comes_and_goes_keeps_some_cuts_waiting_for_what_was_seen_and_no_more() {
        let mut fleet = heard();
        let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
        let a = Live::of("a".parse().expect("an id"), Status::Up, Uptime(10_000));
        let cuts = UNSETTLED_LIMIT + 2;
        for n in 1..=i64::try_from(cuts).expect("few") {
            fleet.refresh(at(n * 100));
            let told = Heartbeat { last: u64::MAX, ..heartbeat(n * 100 + 50, 7, vec![a.clone()]) };
            fleet.heartbeat(vake, &told, 3, at(n * 100 + 50));
            fleet.refresh(at(n * 100 + 50));
        }
        let waited_long = (fleet.take_settled_cuts(1).len(), fleet.take_settled_cuts(usize::MAX).len());
        assert_eq!(waited_long, (1, 1), "of two it was waited for long enough");
        fleet.observed(vake, StreamId(1), 9, Some(at(250)), at(9_000));
        fleet.refresh(at(9_000));
        let until: Vec<_> = fleet.take_settled_cuts(usize::MAX).iter().map(|(_, cut)| cut.to).collect();
        assert!(until.is_empty(), "the second is settled already, and the third ended later");
        fleet.observed(vake, StreamId(1), 10, Some(at(450)), at(9_001));
        fleet.refresh(at(9_001));
        let until: Vec<_> = fleet.take_settled_cuts(usize::MAX).iter().map(|(_, cut)| cut.to).collect();
        assert_eq!(until, [Some(at(350)), Some(at(450))]);
    }

    #[test]
    fn a_collector_that_was_away_blames_no_line() {
        let mut fleet = fleet();
        let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
        fleet.begin(vake, StreamId(1), "0", at(0));
        fleet.observed(vake, StreamId(1), 3, Some(at(1)), at(1));
        fleet.refresh(at(500));
        assert_eq!((fleet.devices[0].view.verdict, fleet.devices[0].view.is_provisional), (None, false));
        fleet.observed(vake, StreamId(1), 4, Some(at(501)), at(501));
        fleet.refresh(at(501));
        assert_eq!(fleet.take_settled_cuts(usize::MAX).first().map(|(_, cut)| cut.verdict), Some(None));
    }

    #[test]
    fn a_branch_whose_agent_said_goodbye_blames_nobody() {
        let mut fleet = heard();
        let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
        fleet.presence(vake, StreamId(1), PresenceState::Stopped, at(2));
        fleet.refresh(at(2));
        let view = fleet.devices[0].view;
        assert_eq!((view.status, view.verdict, view.is_provisional), (Status::Unknown(Cause::AgentSilent), None, false));
    }

    #[test]
    fn a_branch_is_told_anew_when_a_providers_line_in_it_falls() {
        let mut fleet = heard();
        fleet.set_manners(|device| (3, 300_000, (device.id.as_str() == "a").then(|| "a provider".to_owned())));
        let mut told = |device: usize, from: Status, to: Status, second: i64| {
            fleet.change(device, from, &change(to, second));
            fleet.observed(0, StreamId(1), 3, Some(at(second)), at(second));
            fleet.refresh(at(second)).branches
        };
        assert_eq!(told(1, Status::Down, Status::Up, 10), [0; 0], "no line of a provider's");
        assert_eq!(told(0, Status::Up, Status::Down, 11), [0]);
    }

    #[test]
    fn an_agent_that_restarts_for_another_build_is_missed_only_once_it_stays_away() {
        let mut fleet = heard();
        let vake = fleet.branch(&"vake".parse().expect("an id")).expect("there");
        fleet.presence(vake, StreamId(1), PresenceState::Restarting, at(2));
        for second in [2, 12] {
            fleet.refresh(at(second));
            assert_eq!(fleet.devices[0].view.status, Status::Up, "after {second} s");
        }
        fleet.refresh(at(200));
        let view = fleet.devices[0].view;
        assert_eq!((view.status, view.verdict), (Status::Unknown(Cause::AgentSilent), None), "the line is not blamed");
    }

    #[test]
    fn flags_are_shown_while_the_branch_is_heard_and_another_box_always() {
        let mut fleet = heard();
        fleet.flag(0, Flags::DEGRADED_LOSS);
        fleet.set_changed(0, true);
        fleet.refresh(at(2));
        assert_eq!(fleet.devices[0].view.flags.names().collect::<Vec<_>>(), ["degraded_loss", "identity_changed"]);
        fleet.refresh(at(100));
        assert_eq!(fleet.devices[0].view.flags.names().collect::<Vec<_>>(), ["identity_changed"]);
    }
}

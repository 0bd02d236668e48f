//! A build runs beside the program in force: it probes the same devices, reports nothing, and is compared.
//!
//! What was not the same throughout says nothing of what a device is, as one sees it fall before the other. It says when it fell.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde::{Deserialize, Serialize};
use shared::message::Live;
use shared::{Cause, DeviceId, Status, StreamId, Uptime};
use tokio::sync::{mpsc, watch as channel};
use tokio_util::sync::CancellationToken;

use crate::counts::Count;
use crate::keeper::Standing;
use crate::plan::{Plan, Planned};
use crate::probe::Prober;
use crate::service::{self, Pulse};
use crate::settings::Settings;
use crate::watch::{self, Tally};
use crate::{clock, link};

/// How long after its time a shadow may end at least; at most half of its time later.
const LATE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// For so long after the end a device must stay as it was: one program may see a change before the other.
const AFTERMATH: Duration = Duration::from_secs(3);
/// By how much the two programs' clocks may differ, in ms, on a machine that is busy.
const CLOCK_LIMIT_MS: u64 = 30_000;
/// Most bytes that a shadow may say. It is ended when it writes more: a card is soon full.
const REPORT_LIMIT_BYTES: u64 = 8 * 1024 * 1024;
/// Most bytes of memory that it may take for itself. An agent takes a tenth.
const MEMORY_LIMIT_BYTES: u64 = 128 * 1024 * 1024;
/// What the kernel is told of who is to go first where memory is short.
const FIRST_TO_GO: &str = "1000";

/// The longest time for which a build runs beside the program in force only because devices are asked rarely, in ms.
const SLOW_LIMIT_MS: u64 = 600_000;
/// By how much the numbers of probes of two programs may differ beside half: one begins a moment before the other.
const PROBES_SLACK: u64 = 3;
/// By how much two mean round trips may differ in µs, beside a fifth and what chance explains.
const RTT_SLACK_US: f64 = 1_000.0;
/// How many standard errors chance explains: once in some ten thousand times it is more.
const RTT_CHANCE: f64 = 4.0;
/// By how much two programs may differ over when something began, in ms, beside what the rules explain.
const ONSET_SLACK_MS: u64 = 5_000;

/// What a shadow says when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its clock.
    pub uptime_ms: u64,
    /// What its devices are.
    pub devices: Vec<Device>,
}

/// One device as a shadow sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// `up`, `down` or `unknown`.
    pub status: String,
    /// Why nobody can say.
    pub cause: Option<String>,
    /// Since when, by its clock.
    pub onset_ms: u64,
    /// How often it was asked, and how it answered.
    pub count: Count,
}

/// Probes for a while as the program in force does, and says what came of it.
///
/// # Errors
/// When the config's devices contradict one another.
pub async fn run<P: Prober>(settings: &Settings, prober: Arc<P>, time: Duration) -> anyhow::Result<Report> {
    let local = Plan::try_from(&settings.local).context("the devices of the config file")?;
    let first = link::last_good(&settings.state_dir).unwrap_or(local);
    let (_plan, plan) = channel::channel(Arc::new(first));
    let (_standing, standing) = channel::channel(Standing::begun(StreamId(0)));
    let (entries, mut told) = mpsc::channel(crate::keeper::COMMANDS_LIMIT);
    let (tally, seen) = channel::channel(Tally::default());
    let (_asks, asks) = mpsc::channel(1);
    let (answers, _answered) = mpsc::channel(1);
    let (proofs, _wanted) = channel::channel(Uptime(0));
    let (_heard, heard) = channel::channel(clock::uptime());
    let ends = watch::Ends { plan, standing, entries, tally, asks, answers, proofs, heard, pulse: Pulse::default() };
    let shutdown = CancellationToken::new();
    let forget = async { while told.recv().await.is_some() {} };
    let stop = shutdown.clone();
    let end = async move {
        tokio::time::sleep(time).await;
        stop.cancel();
    };
    tokio::join!(watch::run(prober, ends, shutdown), forget, end);
    let counts = seen.borrow().counts.all();
    let device = |live: &Live| Device {
        id: live.device.clone(),
        status: live.status.as_str().to_owned(),
        cause: live.status.cause().map(|cause| cause.as_str().to_owned()),
        onset_ms: live.onset.0,
        count: counts.get(&live.device).copied().unwrap_or_default(),
    };
    let devices = seen.borrow().states.iter().map(device).collect();
    Ok(Report { uptime_ms: clock::uptime().0, devices })
}

/// What a shadow shows of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It sees what the program in force sees.
    Same,
    /// It doesn't, or doesn't run.
    Bad(String),
    /// Nothing can be said now.
    Unclear(String),
}

/// What the program in force has seen meanwhile.
#[derive(Debug, Default)]
struct Seen {
    first: Option<Arc<Vec<Live>>>,
    last: Arc<Vec<Live>>,
    changed: HashSet<DeviceId>,
    /// What devices answered from the beginning of the shadow to its end.
    counts: HashMap<DeviceId, Count>,
    /// When the shadow began.
    began: Uptime,
}

impl Seen {
    fn look(&mut self, states: Arc<Vec<Live>>) {
        self.last = Arc::clone(&states);
        let first = self.first.get_or_insert_with(|| Arc::clone(&states));
        let known: HashMap<_, _> = first.iter().map(|live| (&live.device, live.status)).collect();
        let news = states.iter().filter(|live| known.get(&live.device) != Some(&live.status));
        self.changed.extend(news.map(|live| live.device.clone()));
    }

    /// The devices that were up, or down, throughout.
    fn steady(&self) -> impl Iterator<Item = &Live> {
        let all = self.first.iter().flat_map(|first| first.iter());
        all.filter(|live| matches!(live.status, Status::Up | Status::Down) && !self.changed.contains(&live.device))
    }
}

/// For how long a build is to run beside the program in force: so that every device is asked twice, as far as that is bearable.
pub fn time_for(plan: &Plan, usual: Duration) -> Duration {
    let slowest_ms = plan.targets.iter().map(|target| u64::from(target.rule.interval_ms)).max().unwrap_or(0);
    let needed = Duration::from_millis((2 * slowest_ms).min(SLOW_LIMIT_MS)) + AFTERMATH;
    // A shadow is told its time in seconds.
    Duration::from_secs(usual.max(needed).as_secs())
}

/// Runs a build beside this program and compares. `scratch` takes what it says.
pub async fn of(
    program: &Path,
    config: &Path,
    scratch: &Path,
    time: Duration,
    plan: &Plan,
    tally: &channel::Receiver<Tally>,
) -> Finding {
    let before = tally.borrow().counts.all();
    let mut seen = Seen { began: clock::uptime(), ..Seen::default() };
    let report = match said(program, config, scratch, time, || seen.look(Arc::clone(&tally.borrow().states))).await {
        Ok(report) => report,
        Err(finding) => return finding,
    };
    let now = clock::uptime();
    let since = |(device, count): (DeviceId, Count)| {
        let since = count.since(&before.get(&device).copied().unwrap_or_default())?;
        Some((device, since))
    };
    seen.counts = tally.borrow().counts.all().into_iter().filter_map(since).collect();
    tokio::time::sleep(AFTERMATH).await;
    seen.look(Arc::clone(&tally.borrow().states));
    // What is probed rarely may have no verdict yet.
    let half_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 2;
    let slow = plan.targets.iter().filter(|target| u64::from(target.rule.interval_ms) > half_ms).map(|target| &target.device);
    seen.changed.extend(slow.cloned());
    compare(&seen, &report, &plan.targets, now)
}

async fn said(program: &Path, config: &Path, scratch: &Path, time: Duration, mut look: impl FnMut()) -> Result<Report, Finding> {
    let unclear = |error: std::io::Error| Finding::Unclear(format!("{}: {error}", scratch.display()));
    let scratch = Scratch(scratch.to_owned());
    let out = File::create(&scratch.0).map_err(unclear)?;
    let mut command = Command::new(program);
    command.args(["shadow", "--seconds", &time.as_secs().to_string(), "--config"]).arg(config);
    service::alone(&mut command);
    let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn();
    let mut child = Ended(child.map_err(|error| Finding::Bad(format!("it can't be started: {error}")))?);
    bound(&child.0);
    let until = clock::uptime().plus(u64::try_from((time + LATE.max(time / 2)).as_millis()).unwrap_or(u64::MAX));
    let status = loop {
        look();
        match child.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if clock::uptime() < until => tokio::time::sleep(LOOK_EVERY).await,
            Ok(None) => return Err(Finding::Bad("it hung beside the program in force".to_owned())),
            Err(error) => return Err(unclear(error)),
        }
    };
    if !status.success() {
        return Err(Finding::Bad(format!("it ended beside the program in force: {status}")));
    }
    let bytes = read_limited(&scratch.0).map_err(unclear)?;
    serde_json::from_slice(&bytes).map_err(|error| Finding::Bad(format!("what it says of its devices can't be read: {error}")))
}

/// Holds a shadow to what an agent needs, so that a bad one takes neither card nor memory from the program in force.
fn bound(child: &Child) {
    let pid = Some(Pid::from_child(child));
    for (resource, bytes) in [(Resource::Fsize, REPORT_LIMIT_BYTES), (Resource::Data, MEMORY_LIMIT_BYTES)] {
        // An error means that it has ended already.
        let _ = prlimit(pid, resource, Rlimit { current: Some(bytes), maximum: Some(bytes) });
    }
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), FIRST_TO_GO);
}

/// A file that is gone when nobody needs it any more, whatever came of it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn read_limited(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(File::open(path)?, REPORT_LIMIT_BYTES), &mut bytes)?;
    Ok(bytes)
}

/// A process that doesn't outlive who looks at it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compare(seen: &Seen, theirs: &Report, targets: &[Planned], now: Uptime) -> Finding {
    if now.0.abs_diff(theirs.uptime_ms) > CLOCK_LIMIT_MS {
        return Finding::Bad("its clock is not the machine's".to_owned());
    }
    let told: HashMap<_, _> = theirs.devices.iter().map(|device| (&device.id, device)).collect();
    let (mut alike, mut isolated) = (0_usize, false);
    for live in seen.steady() {
        match told.get(&live.device) {
            None => return Finding::Bad(format!("it doesn't know {}", live.device)),
            // It has no link, which the program in force may ask who else can be heard.
            Some(device) if device.cause.as_deref() == Some(Cause::AgentIsolated.as_str()) => isolated = true,
            Some(device) if device.status == live.status.as_str() => alike += 1,
            Some(device) => {
                return Finding::Bad(format!(
                    "it says that {} is {}, which is {}",
                    live.device,
                    device.status,
                    live.status.as_str()
                ));
            }
        }
    }
    let is_comparable = |target: &&Planned| !isolated && told.contains_key(&target.device);
    if let Some(why) = targets.iter().filter(is_comparable).find_map(|target| mistimed(seen, told[&target.device], target)) {
        return Finding::Bad(why);
    }
    let is_empty = targets.is_empty();
    match (alike, isolated) {
        (_, true) => Finding::Unclear("hardly anything answers in the branch".to_owned()),
        (0, false) if !is_empty => Finding::Unclear("no device was up or down for all of the time".to_owned()),
        (_, false) => Finding::Same,
    }
}

/// What is wrong with when and how long a build measures, if anything.
fn mistimed(seen: &Seen, theirs: &Device, target: &Planned) -> Option<String> {
    let id = &target.device;
    let rule = target.rule;
    let of = |all: &[Live]| all.iter().find(|live| live.device == *id).cloned();
    let (first, last) = (of(seen.first.as_deref()?)?, of(&seen.last)?);
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    // It learns of each device anew: what is so throughout began with the shadow, by its word.
    let beginning = u64::from(rule.interval_ms) * 3 + u64::from(rule.timeout_ms) + ONSET_SLACK_MS;
    let known_from = seen.began.0.saturating_add(beginning);
    let is_steady = !seen.changed.contains(id) && matches!(first.status, Status::Up | Status::Down);
    if is_steady && theirs.status == first.status.as_str() {
        let is_plausible = (seen.began.0.saturating_sub(ONSET_SLACK_MS)..=known_from).contains(&theirs.onset_ms);
        if !is_plausible {
            let off = seconds(theirs.onset_ms.abs_diff(seen.began.0));
            return Some(format!("it says that {id} is {} since {off} s beside its own beginning", theirs.status));
        }
    } else if theirs.status == last.status.as_str() && last.onset.0 > known_from && theirs.onset_ms > known_from {
        let off_ms = last.onset.0.abs_diff(theirs.onset_ms);
        if off_ms > u64::from(rule.interval_ms) + u64::from(rule.timeout_ms) + ONSET_SLACK_MS {
            return Some(format!("it dates what became of {id} by {} s otherwise", seconds(off_ms)));
        }
    }
    // Where a device comes and goes, either may ask it more often.
    let ours = seen.counts.get(id).filter(|_| is_steady)?;
    let is_far = |a: u64, b: u64| a > b.saturating_add(b / 2).saturating_add(PROBES_SLACK);
    if is_far(ours.sent, theirs.count.sent) || is_far(theirs.count.sent, ours.sent) {
        return Some(format!("it asks {id} {} times, where {} are due", theirs.count.sent, ours.sent));
    }
    let ((our_us, our_square), (their_us, their_square)) = (ours.mean_us()?, theirs.count.mean_us()?);
    let limit = our_us / 5.0 + RTT_SLACK_US + RTT_CHANCE * (our_square + their_square).sqrt();
    let is_off = (our_us - their_us).abs() > limit;
    is_off.then(|| format!("it measures {their_us:.0} µs to {id}, which is {our_us:.0} µs away"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(text: &str) -> Arc<Vec<Live>> {
        let status = |word: &str| match word {
            "up" => Status::Up,
            "down" => Status::Down,
            _ => Status::Unknown(Cause::NeverObserved),
        };
        let one = |part: &str| {
            let (id, word) = part.split_once('=').expect("id=status");
            Live::of(id.parse().expect("a valid id"), status(word), Uptime(0))
        };
        Arc::new(text.split_whitespace().map(one).collect())
    }

    fn report(text: &str) -> Report {
        let device = |live: &Live| Device {
            id: live.device.clone(),
            status: live.status.as_str().to_owned(),
            cause: live.status.cause().map(|cause| cause.as_str().to_owned()),
            onset_ms: 0,
            count: Count::default(),
        };
        Report { uptime_ms: 1_000, devices: states(text).iter().map(device).collect() }
    }

    fn targets() -> Vec<Planned> {
        vec![Planned::ping("a".parse().expect("a valid id"), [10, 0, 0, 1].into(), shared::ProbeRule::default())]
    }

    /// What is found where the program in force saw these states one after the other, and the shadow ended with those.
    fn found(ours: &[&str], theirs: &str) -> Finding {
        let mut seen = Seen::default();
        ours.iter().for_each(|text| seen.look(states(text)));
        compare(&seen, &report(theirs), &targets(), Uptime(2_000))
    }

    fn is_bad(finding: &Finding, why: &str) -> bool {
        matches!(finding, Finding::Bad(said) if said.contains(why))
    }

    #[test]
    fn a_build_has_to_see_what_the_program_in_force_sees() {
        assert_eq!(found(&["a=up b=down"], "a=up b=down"), Finding::Same);
        assert!(is_bad(&found(&["a=up b=down"], "a=up b=up"), "it says that b is up, which is down"));
        assert!(is_bad(&found(&["a=up b=down"], "a=up"), "it doesn't know b"));
        assert!(is_bad(&found(&["a=up"], "a=unknown"), "it says that a is unknown"));
    }

    #[test]
    fn what_changed_meanwhile_speaks_for_neither() {
        assert_eq!(found(&["a=up b=up", "a=up b=down"], "a=up b=up"), Finding::Same);
        assert_eq!(found(&["a=up b=up", "a=up b=down", "a=up b=up"], "a=up b=down"), Finding::Same);
        assert_eq!(found(&["a=up b=unknown"], "a=up b=down"), Finding::Same, "nobody knows what it is");
    }

    #[test]
    fn where_nothing_is_known_nothing_is_found() {
        assert!(matches!(found(&["a=unknown"], "a=up"), Finding::Unclear(_)));
        let mut seen = Seen::default();
        seen.look(states("a=down"));
        let mut theirs = report("a=unknown");
        theirs.devices[0].cause = Some("agent_isolated".to_owned());
        assert!(matches!(compare(&seen, &theirs, &targets(), Uptime(2_000)), Finding::Unclear(_)));
        assert_eq!(compare(&Seen::default(), &report(""), &[], Uptime(2_000)), Finding::Same, "a branch without devices");
    }

    #[test]
    fn a_build_whose_clock_is_wrong_is_bad() {
        let mut seen = Seen::default();
        seen.look(states("a=up"));
        assert!(is_bad(&compare(&seen, &report("a=up"), &targets(), Uptime(60_000)), "clock"));
    }

    fn count(sent: u64, rtt_us: f64, spread_us: f64) -> Count {
        let n = sent as f64;
        Count { sent, replies: sent, sum_us: n * rtt_us, squares: n * (rtt_us * rtt_us + spread_us * spread_us) }
    }

    /// What is found of a device that is up for a minute, asked 30 times by us, where a build says this of it.
    fn measured(ours: Count, theirs: Count, onset_ms: u64) -> Finding {
        let mut seen = Seen { began: Uptime(100_000), ..Seen::default() };
        seen.look(states("a=up"));
        seen.counts.insert("a".parse().expect("a valid id"), ours);
        let mut report = report("a=up");
        (report.uptime_ms, report.devices[0].count, report.devices[0].onset_ms) = (160_000, theirs, onset_ms);
        compare(&seen, &report, &targets(), Uptime(160_000))
    }

    #[test]
    fn a_build_that_mistimes_is_bad() {
        let good = count(30, 20_000.0, 500.0);
        assert_eq!(measured(good, good, 101_000), Finding::Same);
        assert_eq!(measured(good, count(29, 23_500.0, 500.0), 101_000), Finding::Same, "a fifth and a millisecond");
        assert_eq!(measured(count(30, 200.0, 50.0), count(31, 900.0, 300.0), 101_000), Finding::Same, "a busy machine");
        assert!(is_bad(&measured(good, count(3, 20_000.0, 500.0), 101_000), "it asks a 3 times, where 30 are due"));
        assert!(is_bad(&measured(good, count(300, 20_000.0, 500.0), 101_000), "it asks a 300 times"));
        assert!(is_bad(&measured(good, count(30, 27_000.0, 500.0), 101_000), "it measures 27000 µs to a, which is 20000"));
        assert!(is_bad(&measured(good, count(30, 2_000.0, 50.0), 101_000), "it measures 2000 µs"));
        assert!(is_bad(&measured(good, good, 40_000), "it says that a is up since 60 s beside its own beginning"));
        assert!(is_bad(&measured(good, good, 159_000), "beside its own beginning"));
        // A line whose round trips are all over the place says little of a build.
        assert_eq!(measured(count(30, 60_000.0, 50_000.0), count(30, 85_000.0, 60_000.0), 101_000), Finding::Same);
    }

    #[test]
    fn a_build_that_dates_a_failure_otherwise_is_bad() {
        let found = |theirs_ms: u64| {
            let mut seen = Seen { began: Uptime(100_000), ..Seen::default() };
            seen.look(states("a=up b=up"));
            let mut fallen = states("a=down b=up").to_vec();
            fallen[0].onset = Uptime(140_000);
            seen.look(Arc::new(fallen));
            let mut report = report("a=down b=up");
            (report.uptime_ms, report.devices[0].onset_ms, report.devices[1].onset_ms) = (160_000, theirs_ms, 101_000);
            compare(&seen, &report, &targets(), Uptime(160_000))
        };
        assert_eq!(found(141_500), Finding::Same);
        assert!(is_bad(&found(155_000), "it dates what became of a by 15 s otherwise"));
    }

    #[test]
    fn a_build_runs_for_long_enough_to_ask_every_device_twice() {
        let time = |interval_ms, usual_s| {
            let mut targets = targets();
            targets[0].rule.interval_ms = interval_ms;
            let plan = Plan { version: 1, heartbeat_ms: 1_000, report_ms: 1_000, targets };
            time_for(&plan, Duration::from_secs(usual_s)).as_secs()
        };
        assert_eq!((time(2_000, 60), time(60_000, 60), time(3_600_000, 60)), (60, 123, 603));
    }

    #[tokio::test]
    async fn a_build_that_says_too_much_is_ended_and_what_it_said_is_gone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let (program, scratch) = (folder.path().join("program"), folder.path().join("scratch"));
        std::fs::write(&program, "#!/bin/sh\nsleep 0.2\nexec yes\n").expect("the test's own folder");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("the test's own folder");
        let mut most = 0;
        let look = || most = most.max(std::fs::metadata(&scratch).map_or(0, |file| file.len()));
        let finding = said(&program, Path::new("agent.toml"), &scratch, Duration::from_secs(20), look).await;
        assert!(finding.is_err_and(|finding| is_bad(&finding, "it ended beside the program in force")));
        assert!(most <= REPORT_LIMIT_BYTES && !scratch.exists(), "{most}");
    }
}

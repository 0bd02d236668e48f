//! A build runs beside the program in force: it probes the same devices, reports nothing, and is compared.
//!
//! What was not the same throughout says nothing: a device that falls just then is seen by one before the other.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use shared::message::Live;
use shared::{Cause, DeviceId, Status, StreamId, Uptime};
use tokio::sync::{mpsc, watch as channel};
use tokio_util::sync::CancellationToken;

use crate::keeper::Standing;
use crate::plan::Plan;
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
/// Most bytes that a shadow may say.
const REPORT_LIMIT_BYTES: u64 = 8 * 1024 * 1024;

/// What a shadow says when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its clock.
    pub uptime_ms: u64,
    /// What its devices are.
    pub devices: Vec<Device>,
}

/// One device as a shadow sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// `up`, `down` or `unknown`.
    pub status: String,
    /// Why nobody can say.
    pub cause: Option<String>,
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
    let device = |live: &Live| Device {
        id: live.device.clone(),
        status: live.status.as_str().to_owned(),
        cause: live.status.cause().map(|cause| cause.as_str().to_owned()),
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
    changed: HashSet<DeviceId>,
}

impl Seen {
    fn look(&mut self, states: Arc<Vec<Live>>) {
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

/// Runs a build beside this program and compares. `scratch` takes what it says.
pub async fn of(
    program: &Path,
    config: &Path,
    scratch: &Path,
    time: Duration,
    plan: &Plan,
    tally: &channel::Receiver<Tally>,
) -> Finding {
    let mut seen = Seen::default();
    let report = match said(program, config, scratch, time, || seen.look(Arc::clone(&tally.borrow().states))).await {
        Ok(report) => report,
        Err(finding) => return finding,
    };
    let now = clock::uptime();
    tokio::time::sleep(AFTERMATH).await;
    seen.look(Arc::clone(&tally.borrow().states));
    // What is probed rarely may have no verdict yet.
    let half_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 2;
    let slow = plan.targets.iter().filter(|target| u64::from(target.rule.interval_ms) > half_ms).map(|target| &target.device);
    seen.changed.extend(slow.cloned());
    compare(&seen, &report, plan.targets.is_empty(), now)
}

async fn said(program: &Path, config: &Path, scratch: &Path, time: Duration, mut look: impl FnMut()) -> Result<Report, Finding> {
    let unclear = |error: std::io::Error| Finding::Unclear(format!("{}: {error}", scratch.display()));
    let out = File::create(scratch).map_err(unclear)?;
    let mut command = Command::new(program);
    command.args(["shadow", "--seconds", &time.as_secs().to_string(), "--config"]).arg(config);
    service::alone(&mut command);
    let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn();
    let mut child = Ended(child.map_err(|error| Finding::Bad(format!("it can't be started: {error}")))?);
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
    let bytes = read_limited(scratch).map_err(unclear)?;
    let _ = std::fs::remove_file(scratch);
    serde_json::from_slice(&bytes).map_err(|error| Finding::Bad(format!("what it says of its devices can't be read: {error}")))
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

fn compare(seen: &Seen, theirs: &Report, is_empty: bool, now: Uptime) -> Finding {
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
    match (alike, isolated) {
        (_, true) => Finding::Unclear("hardly anything answers in the branch".to_owned()),
        (0, false) if !is_empty => Finding::Unclear("no device was up or down for all of the time".to_owned()),
        (_, false) => Finding::Same,
    }
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
        };
        Report { uptime_ms: 1_000, devices: states(text).iter().map(device).collect() }
    }

    /// What is found where the program in force saw these states one after the other, and the shadow ended with those.
    fn found(ours: &[&str], theirs: &str) -> Finding {
        let mut seen = Seen::default();
        ours.iter().for_each(|text| seen.look(states(text)));
        compare(&seen, &report(theirs), false, Uptime(2_000))
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
        assert!(matches!(compare(&seen, &theirs, false, Uptime(2_000)), Finding::Unclear(_)));
        assert_eq!(compare(&Seen::default(), &report(""), true, Uptime(2_000)), Finding::Same, "a branch without devices");
    }

    #[test]
    fn a_build_whose_clock_is_wrong_is_bad() {
        let mut seen = Seen::default();
        seen.look(states("a=up"));
        assert!(is_bad(&compare(&seen, &report("a=up"), false, Uptime(60_000)), "clock"));
    }
}

//! A config is tried before it is in force: one under which nothing that answers would be left is held.
//!
//! A wrong subnet in the inventory would turn a whole branch down, and page for it. The last good config stays, its devices stay
//! watched, and the held one is tried again until it is good or another one comes. What is new in a config is asked at once, and the
//! collector is told what answers: a slip in an address shows while whoever made it still looks.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use shared::message::{Answer, Host, Live, SILENT_LIMIT, Tried};
use shared::{Cause, DeviceId, Status};
use tokio::sync::{mpsc, watch};

use crate::link;
use crate::monitor::Outcome;
use crate::plan::{Plan, Planned};
use crate::probe::Prober;
use crate::watch::Tally;

/// How often a device is asked before it counts as one that doesn't answer.
const TRIES: u32 = 3;
/// Most devices that are asked at once: more would only flood the branch.
const AT_ONCE: usize = 50;
/// How long a config waits for verdicts on the devices of the one in force: right after a start nobody knows yet what answers.
pub const VERDICTS_WITHIN: Duration = Duration::from_secs(30);
/// How often a held config is tried again.
pub const AGAIN_EVERY: Duration = Duration::from_secs(60);

/// A config that the collector wants, and its payload.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The config, checked.
    pub plan: Arc<Plan>,
    /// What to keep of it.
    pub payload: Arc<[u8]>,
}

/// What a trial listens to and speaks to.
pub struct Ends {
    /// The newest config that the collector wants.
    pub wanted: watch::Receiver<Option<Wanted>>,
    /// The one in force.
    pub plan: watch::Sender<Arc<Plan>>,
    /// What devices are now.
    pub tally: watch::Receiver<Tally>,
    /// Where it is told what came of it.
    pub answers: mpsc::Sender<Answer>,
    /// How long a config waits for verdicts on the devices of the one in force.
    pub verdicts_within: Duration,
    /// How often a held config is tried again.
    pub again_every: Duration,
}

/// Tries what is wanted and puts it in force, until nobody wants anything any more.
pub async fn run<P: Prober>(prober: Arc<P>, mut ends: Ends, state_dir: PathBuf) {
    while ends.wanted.changed().await.is_ok() {
        let mut said = false;
        loop {
            let Some(wanted) = ends.wanted.borrow_and_update().clone() else { break };
            let in_force = Arc::clone(&ends.plan.borrow());
            // What is up must not be lost because nobody has asked it yet. A device that takes longer is not waited for.
            let judged = async { _ = ends.tally.wait_for(|tally| is_judged(&in_force, &tally.states)).await };
            let _ = tokio::time::timeout(ends.verdicts_within, judged).await;
            let (present, states) = (Arc::clone(&ends.plan.borrow()), Arc::clone(&ends.tally.borrow().states));
            let version = wanted.plan.version;
            let fresh = fresh(&present, &wanted.plan);
            let told = |is_held, answering: &HashSet<DeviceId>| {
                // One that finds no room is told with the next trial.
                let _ = ends.answers.try_send(Answer::Tried(tried(version, is_held, &fresh, answering)));
            };
            if let Some(strangers) = strangers(&present, &states, &wanted.plan)
                && answering(&*prober, &strangers, 1).await.is_empty()
            {
                told(true, &HashSet::new());
                if !said {
                    let devices = strangers.len();
                    tracing::error!(
                        version,
                        devices,
                        "a config is held: devices answer now, and none that it names does. The one in force stays"
                    );
                    said = true;
                }
                tokio::select! {
                    changed = ends.wanted.changed() => match changed {
                        Ok(()) => said = false,
                        Err(_) => return,
                    },
                    () = tokio::time::sleep(ends.again_every) => {}
                }
                continue;
            }
            tracing::info!(version, devices = wanted.plan.targets.len(), "a config is in force");
            let (state_dir, payload) = (state_dir.clone(), Arc::clone(&wanted.payload));
            // A card may hang: neither probing nor the link waits for it.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = link::keep_config(&state_dir, &payload) {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the config can't be kept: it is in force until the next start");
                }
            });
            ends.plan.send_replace(wanted.plan);
            told(false, &answering(&*prober, &fresh, fresh.len()).await);
            break;
        }
    }
}

/// The devices of a config of which one has to answer before it is put in force; `None` where nothing is at stake, because
/// a device that is up stays, or none is up.
fn strangers(present: &Plan, states: &[Live], next: &Plan) -> Option<Vec<Planned>> {
    let up: HashSet<_> = states.iter().filter(|live| live.status == Status::Up).map(|live| &live.device).collect();
    let places = present.targets.iter().filter(|known| up.contains(&known.device));
    let known: HashMap<_, _> = places.map(|known| (&known.device, known)).collect();
    let stays = |target: &Planned| known.get(&target.device).is_some_and(|known| known.is_same_place(target));
    // What is behind a name is asked for by the watch, and nobody knows yet where it is.
    let is_named = |target: &Planned| matches!(target.host, Host::Name(_));
    let is_safe =
        known.is_empty() || next.targets.is_empty() || next.targets.iter().any(|target| stays(target) || is_named(target));
    (!is_safe).then(|| next.targets.clone())
}

/// Whether there is a verdict on every device of a config.
fn is_judged(plan: &Plan, states: &[Live]) -> bool {
    let judged: HashSet<_> =
        states.iter().filter(|live| live.status != Status::Unknown(Cause::NeverObserved)).map(|live| &live.device).collect();
    plan.targets.iter().all(|target| judged.contains(&target.device))
}

/// The devices of a config that the one before doesn't have at that place. What is behind a name is asked for by the watch alone.
fn fresh(present: &Plan, next: &Plan) -> Vec<Planned> {
    let known: HashMap<_, _> = present.targets.iter().map(|known| (&known.device, known)).collect();
    let is_fresh = |target: &&Planned| !known.get(&target.device).is_some_and(|known| known.is_same_place(target));
    next.targets.iter().filter(is_fresh).filter(|target| matches!(target.host, Host::Address(_))).cloned().collect()
}

fn tried(version: u64, is_held: bool, fresh: &[Planned], answering: &HashSet<DeviceId>) -> Tried {
    let silent = || fresh.iter().map(|target| &target.device).filter(|device| !answering.contains(*device));
    let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let total = silent().count();
    Tried {
        version,
        is_held,
        answered: count(fresh.len() - total),
        silent_total: count(total),
        silent: silent().take(SILENT_LIMIT).cloned().collect(),
    }
}

/// Which of these devices answer. It is enough that so many do.
async fn answering<P: Prober>(prober: &P, devices: &[Planned], enough: usize) -> HashSet<DeviceId> {
    let mut answering = HashSet::new();
    for _ in 0..TRIES {
        let silent: Vec<&Planned> = devices.iter().filter(|target| !answering.contains(&target.device)).collect();
        for some in silent.chunks(AT_ONCE) {
            if answering.len() >= enough {
                return answering;
            }
            let timeout = |target: &Planned| Duration::from_millis(target.rule.timeout_ms.into());
            let asked: Vec<_> = some.iter().map(|target| (target.asked(), timeout(target))).collect();
            let outcomes = join_all(asked.iter().map(|(asked, timeout)| prober.probe(asked, *timeout))).await;
            let heard = some.iter().zip(outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Reply { .. }));
            answering.extend(heard.map(|(target, _)| target.device.clone()));
        }
    }
    answering
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use shared::Uptime;
    use shared::message::ProbeRule;

    use super::*;
    use crate::probe::Asked;

    /// Addresses that end in an odd number answer, and all of them once something is plugged in.
    #[derive(Default)]
    struct Odd {
        is_plugged_in: AtomicBool,
        asked: AtomicU32,
    }

    impl Prober for Odd {
        async fn probe(&self, asked: &Asked, _: Duration) -> Outcome {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let IpAddr::V4(v4) = asked.address else { return Outcome::SendError };
            if v4.octets()[3] % 2 == 1 || self.is_plugged_in.load(Ordering::Relaxed) {
                Outcome::Reply { rtt_us: 1 }
            } else {
                Outcome::Timeout
            }
        }
    }

    fn plan(version: u64, targets: &[(&str, u8)]) -> Plan {
        let planned = |(id, last): &(&str, u8)| {
            Planned::ping(id.parse().expect("a valid id"), [10, 0, 0, *last].into(), ProbeRule::default())
        };
        Plan { version, heartbeat_ms: 1_000, report_ms: 1_000, targets: targets.iter().map(planned).collect() }
    }

    fn live(id: &str, status: Status) -> Live {
        Live::of(id.parse().expect("a valid id"), status, Uptime(0))
    }

    #[test]
    fn only_a_config_that_leaves_nothing_that_answers_is_at_stake() {
        let present = plan(1, &[("a", 1), ("b", 3)]);
        let up = [live("a", Status::Up), live("b", Status::Down)];
        let stranger = |next: &Plan, states: &[Live]| strangers(&present, states, next).is_some();
        assert!(!stranger(&plan(2, &[("a", 1), ("c", 2), ("d", 4)]), &up), "one that is up stays");
        assert!(stranger(&plan(2, &[("b", 3), ("c", 2)]), &up), "the one that stays is down");
        assert!(stranger(&plan(2, &[("a", 2)]), &up), "the same device at another address");
        assert!(!stranger(&plan(2, &[]), &up), "a branch may be emptied");
        let down = [live("a", Status::Down), live("b", Status::Unknown(Cause::NeverObserved))];
        assert!(!stranger(&plan(2, &[("c", 2)]), &down), "nothing is lost");
    }

    /// A config of one device that is up is in force, and a trial goes on beside it.
    struct Branch {
        prober: Arc<Odd>,
        want: watch::Sender<Option<Wanted>>,
        in_force: watch::Receiver<Arc<Plan>>,
        tally: watch::Sender<Tally>,
        told: mpsc::Receiver<Answer>,
        _folder: tempfile::TempDir,
    }

    impl Branch {
        /// The one device of the config in force has this status.
        fn new(status: Status) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let (want, wanted) = watch::channel(None);
            let (plan, in_force) = watch::channel(Arc::new(plan(1, &[("a", 1)])));
            let seen = |status| Tally { states: Arc::new(vec![live("a", status)]), ..Tally::default() };
            let (tally, tally_seen) = watch::channel(seen(status));
            let prober = Arc::new(Odd::default());
            let (answers, told) = mpsc::channel(64);
            let (verdicts_within, again_every) = (Duration::from_secs(20), Duration::from_millis(5));
            let ends = Ends { wanted, plan, tally: tally_seen, answers, verdicts_within, again_every };
            tokio::spawn(run(Arc::clone(&prober), ends, folder.path().to_owned()));
            Self { prober, want, in_force, tally, told, _folder: folder }
        }

        fn send(&self, plan: Plan) {
            self.want.send_replace(Some(Wanted { plan: Arc::new(plan), payload: Arc::from(*b"kept") }));
        }

        /// It has been tried twice, and is not in force.
        async fn is_held(&self) {
            let before = self.prober.asked.load(Ordering::Relaxed);
            while self.prober.asked.load(Ordering::Relaxed) < before + 3 * TRIES {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(self.in_force.borrow().version, 1);
        }

        /// The next word of a trial: version, held, how many answered, who didn't.
        async fn says(&mut self) -> (u64, bool, u16, Vec<String>) {
            let said = tokio::time::timeout(Duration::from_secs(30), self.told.recv()).await;
            let Ok(Some(Answer::Tried(tried))) = said else { panic!("a word of a trial, not {said:?}") };
            let silent = tried.silent.iter().map(ToString::to_string).collect();
            (tried.version, tried.is_held, tried.answered, silent)
        }

        async fn becomes(&mut self, version: u64) {
            let reached = self.in_force.wait_for(|plan| plan.version == version);
            assert!(tokio::time::timeout(Duration::from_secs(30), reached).await.is_ok(), "version {version}");
        }
    }

    #[tokio::test]
    async fn a_wrong_subnet_is_held_until_a_good_config_comes() {
        let mut branch = Branch::new(Status::Up);
        branch.send(plan(2, &[("a", 2)]));
        branch.is_held().await;
        branch.send(plan(3, &[("a", 2), ("b", 5)]));
        branch.becomes(3).await;
    }

    #[tokio::test]
    async fn a_held_config_is_in_force_once_a_device_of_it_answers() {
        let mut branch = Branch::new(Status::Up);
        branch.send(plan(2, &[("a", 2)]));
        branch.is_held().await;
        branch.prober.is_plugged_in.store(true, Ordering::Relaxed);
        branch.becomes(2).await;
    }

    #[tokio::test]
    async fn after_a_start_a_wrong_subnet_waits_until_it_is_known_what_answers() {
        let mut branch = Branch::new(Status::Unknown(Cause::NeverObserved));
        branch.send(plan(2, &[("a", 2)]));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(branch.in_force.borrow().version, 1, "nobody knows yet whether something is at stake");
        branch.tally.send_replace(Tally { states: Arc::new(vec![live("a", Status::Up)]), ..Tally::default() });
        branch.is_held().await;
        assert_eq!(branch.says().await, (2, true, 0, vec!["a".to_owned()]));
    }

    #[tokio::test]
    async fn the_collector_is_told_which_new_devices_answer() {
        let mut branch = Branch::new(Status::Up);
        branch.send(plan(2, &[("a", 1), ("b", 3), ("c", 4), ("d", 5)]));
        branch.becomes(2).await;
        assert_eq!(branch.says().await, (2, false, 2, vec!["c".to_owned()]), "the one that stays is not asked");
        let states = ["a", "b", "c", "d"].map(|id| live(id, Status::Up)).to_vec();
        branch.tally.send_replace(Tally { states: Arc::new(states), ..Tally::default() });
        branch.send(plan(3, &[("a", 1), ("b", 7)]));
        assert_eq!(branch.says().await, (3, false, 1, Vec::new()), "one that has moved is");
    }

    #[test]
    fn no_more_silent_devices_are_named_than_a_message_holds() {
        let ids: Vec<String> = (0..SILENT_LIMIT + 5).map(|n| format!("d-{n}")).collect();
        let many: Vec<(&str, u8)> = ids.iter().map(|id| (id.as_str(), 2)).collect();
        let told = tried(1, false, &plan(1, &many).targets, &HashSet::new());
        assert_eq!((told.silent.len(), told.silent_total, told.answered), (SILENT_LIMIT, 105, 0));
    }
}

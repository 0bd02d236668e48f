//! A config is tried before it is in force: one under which nothing that answers would be left is held.
//!
//! A wrong subnet in the inventory would turn a whole branch down, and page for it. The last good config stays, its devices stay
//! watched, and the held one is tried again until it is good or another one comes.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use shared::Status;
use shared::message::{Host, Live};
use tokio::sync::watch;

use crate::link;
use crate::monitor::Outcome;
use crate::plan::{Plan, Planned};
use crate::probe::Prober;
use crate::watch::Tally;

/// How often a device is asked before it counts as one that doesn't answer.
const TRIES: u32 = 3;
/// Most devices that are asked at once: more would only flood the branch.
const AT_ONCE: usize = 50;
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
    /// How often a held config is tried again.
    pub again_every: Duration,
}

/// Tries what is wanted and puts it in force, until nobody wants anything any more.
pub async fn run<P: Prober>(prober: Arc<P>, mut ends: Ends, state_dir: PathBuf) {
    while ends.wanted.changed().await.is_ok() {
        let mut said = false;
        loop {
            let Some(wanted) = ends.wanted.borrow_and_update().clone() else { break };
            let (present, states) = (Arc::clone(&ends.plan.borrow()), Arc::clone(&ends.tally.borrow().states));
            if let Some(strangers) = strangers(&present, &states, &wanted.plan)
                && !anyone_answers(&*prober, &strangers).await
            {
                if !said {
                    let (version, devices) = (wanted.plan.version, strangers.len());
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
            tracing::info!(version = wanted.plan.version, devices = wanted.plan.targets.len(), "a config is in force");
            let (state_dir, payload) = (state_dir.clone(), Arc::clone(&wanted.payload));
            // A card may hang: neither probing nor the link waits for it.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = link::keep_config(&state_dir, &payload) {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the config can't be kept: it is in force until the next start");
                }
            });
            ends.plan.send_replace(wanted.plan);
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

/// Whether any of these devices answers.
async fn anyone_answers<P: Prober>(prober: &P, devices: &[Planned]) -> bool {
    for _ in 0..TRIES {
        for some in devices.chunks(AT_ONCE) {
            let timeout = |target: &Planned| Duration::from_millis(target.rule.timeout_ms.into());
            let asked: Vec<_> = some.iter().map(|target| (target.asked(), timeout(target))).collect();
            let outcomes = join_all(asked.iter().map(|(asked, timeout)| prober.probe(asked, *timeout))).await;
            if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Reply { .. })) {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use shared::message::ProbeRule;
    use shared::{Cause, Uptime};

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
        _tally: watch::Sender<Tally>,
        _folder: tempfile::TempDir,
    }

    impl Branch {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let (want, wanted) = watch::channel(None);
            let (plan, in_force) = watch::channel(Arc::new(plan(1, &[("a", 1)])));
            let (_tally, tally) = watch::channel(Tally { states: Arc::new(vec![live("a", Status::Up)]), ..Tally::default() });
            let prober = Arc::new(Odd::default());
            let ends = Ends { wanted, plan, tally, again_every: Duration::from_millis(5) };
            tokio::spawn(run(Arc::clone(&prober), ends, folder.path().to_owned()));
            Self { prober, want, in_force, _tally, _folder: folder }
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

        async fn becomes(&mut self, version: u64) {
            let reached = self.in_force.wait_for(|plan| plan.version == version);
            assert!(tokio::time::timeout(Duration::from_secs(30), reached).await.is_ok(), "version {version}");
        }
    }

    #[tokio::test]
    async fn a_wrong_subnet_is_held_until_a_good_config_comes() {
        let mut branch = Branch::new();
        branch.send(plan(2, &[("a", 2)]));
        branch.is_held().await;
        branch.send(plan(3, &[("a", 2), ("b", 5)]));
        branch.becomes(3).await;
    }

    #[tokio::test]
    async fn a_held_config_is_in_force_once_a_device_of_it_answers() {
        let mut branch = Branch::new();
        branch.send(plan(2, &[("a", 2)]));
        branch.is_held().await;
        branch.prober.is_plugged_in.store(true, Ordering::Relaxed);
        branch.becomes(2).await;
    }
}

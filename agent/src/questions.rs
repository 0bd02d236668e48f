//! What somebody at the centre wants to know now: a few probes, the way to a device, what answers in the branch's networks.
//!
//! Each question is a task of its own beside the probes, and there is one of each kind at a time: answering costs the branch's
//! network something.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use shared::evidence::Trace;
use shared::message::{Answer, FOUND_LIMIT, Found, Hop, PROBES_LIMIT, Refused};
use shared::{Evidence, Status};
use tokio::sync::mpsc;

use crate::monitor::Outcome;
use crate::probe::{Asked, Prober};
use crate::surroundings::{Neighbours, Routes};
use crate::{clock, route};

/// Time between two probes that somebody asked for.
const PROBE_PAUSE: Duration = Duration::from_millis(250);
/// Most addresses that a sweep asks.
pub const SWEEP_LIMIT: usize = 4_096;
/// Addresses that a sweep asks at a time, and how long each may take over its answer: some 200 a second.
const SWEEP_AT_ONCE: usize = 64;
const SWEEP_PATIENCE: Duration = Duration::from_millis(300);
/// Most devices that are named as never heard: an answer has to fit into one payload.
const NEVER_LIMIT: usize = 2_000;

/// A device that somebody asks about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// How it is probed.
    pub asked: Asked,
    /// What it is by the agent's own probes.
    pub status: Status,
    /// The gateway of this way, if there is one.
    pub gateway: Option<Asked>,
    /// What is known around it.
    pub evidence: Evidence,
    /// How long its answer may take, in ms.
    pub timeout_ms: u32,
}

/// See the module.
pub struct Questions<P> {
    prober: Arc<P>,
    answers: mpsc::Sender<Answer>,
    is_probing: Arc<AtomicBool>,
    is_routing: Arc<AtomicBool>,
    is_sweeping: Arc<AtomicBool>,
}

/// Held while a question of its kind is being answered.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(flag: &Arc<AtomicBool>) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(flag)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<P: Prober> Questions<P> {
    /// Answers go to `answers`.
    pub fn new(prober: Arc<P>, answers: mpsc::Sender<Answer>) -> Self {
        Self { prober, answers, is_probing: Arc::default(), is_routing: Arc::default(), is_sweeping: Arc::default() }
    }

    /// There is no such device here.
    pub fn no_device(&self, id: u64) {
        self.refuse(id, Refused::NoDevice);
    }

    fn refuse(&self, id: u64, why: Refused) {
        // One that finds no room is asked again by whoever waits for it.
        let _ = self.answers.try_send(Answer::Refused { id, why });
    }

    /// Probes a device some times, and its gateway beside it.
    pub fn probe(&self, id: u64, subject: Subject, count: u8) {
        let Some(turn) = Turn::take(&self.is_probing) else { return self.refuse(id, Refused::Busy) };
        if subject.asked.is_nowhere() {
            return self.refuse(id, Refused::NoAddress);
        }
        let (prober, answers) = (Arc::clone(&self.prober), self.answers.clone());
        tokio::spawn(async move {
            let Subject { asked, status, gateway, mut evidence, timeout_ms } = subject;
            let timeout = Duration::from_millis(timeout_ms.into());
            let mut came: Vec<(shared::Uptime, Outcome)> = Vec::new();
            for n in 0..count.clamp(1, PROBES_LIMIT) {
                if n > 0 {
                    tokio::time::sleep(PROBE_PAUSE).await;
                }
                let sent = clock::uptime();
                came.push((sent, prober.probe(&asked, timeout).await));
            }
            evidence.gateway = match gateway {
                Some(gateway) => Some(prober.probe(&gateway, timeout).await.into()),
                None => None,
            };
            let now = clock::uptime();
            let ago_ms = |sent| u32::try_from(now.since(sent)).unwrap_or(u32::MAX);
            evidence.probes =
                came.into_iter().map(|(sent, outcome)| Trace { ago_ms: ago_ms(sent), seen: outcome.into() }).collect();
            evidence.mac = Neighbours::read().mac(asked.address, Routes::read().interface(&asked));
            drop(turn);
            let _ = answers.send(Answer::Probed { id, status, evidence }).await;
        });
    }

    /// Finds out by which routers a device is reached.
    pub fn route(&self, id: u64, subject: Subject) {
        let Some(turn) = Turn::take(&self.is_routing) else { return self.refuse(id, Refused::Busy) };
        if subject.asked.is_nowhere() {
            return self.refuse(id, Refused::NoAddress);
        }
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let address = subject.asked.address;
            let answer = match route::trace(address, subject.asked.via.as_ref()).await {
                Ok(hops) => {
                    let is_reached = hops.last().is_some_and(|hop: &Hop| hop.address == Some(address));
                    Answer::Route { id, hops, is_reached }
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "the way to a device can't be found out");
                    Answer::Refused { id, why: Refused::NotPermitted }
                }
            };
            drop(turn);
            let _ = answers.send(answer).await;
        });
    }

    /// Asks every address of the networks that the machine stands in, at a pace that hurts nobody.
    pub fn discover(&self, id: u64, known: HashSet<IpAddr>, mut never: Vec<u16>, config: u64) {
        let Some(turn) = Turn::take(&self.is_sweeping) else { return self.refuse(id, Refused::Busy) };
        let (prober, answers) = (Arc::clone(&self.prober), self.answers.clone());
        tokio::spawn(async move {
            let routes = Routes::read();
            let asked = addresses(of_the_branch(routes.own_networks(), &known).into_iter());
            let strangers = asked.iter().copied().map(IpAddr::from).filter(|address| !known.contains(address));
            let ask = |address: IpAddr| {
                let prober = Arc::clone(&prober);
                async move { (address, prober.probe(&address.into(), SWEEP_PATIENCE).await) }
            };
            let answered = futures_util::stream::iter(strangers).map(ask).buffer_unordered(SWEEP_AT_ONCE);
            let is_there = |(address, outcome): (IpAddr, Outcome)| async move {
                matches!(outcome, Outcome::Reply { .. }).then_some(address)
            };
            let mut found: Vec<IpAddr> = answered.filter_map(is_there).collect().await;
            found.sort_unstable();
            found.truncate(FOUND_LIMIT);
            never.truncate(NEVER_LIMIT);
            let neighbours = Neighbours::read();
            let own = own_addresses();
            let unknown = found.into_iter().filter(|address| !own.contains(address));
            let unknown = unknown
                .map(|address| Found { address, mac: neighbours.mac(address, routes.interface(&address.into())) })
                .collect();
            let count = u32::try_from(asked.len()).unwrap_or(u32::MAX);
            drop(turn);
            let _ = answers.send(Answer::Discovered { id, asked: count, unknown, never, config }).await;
        });
    }
}

/// Those networks in which a device stands; all, where none does. A line to a provider is none of the branch's own, and to
/// sweep it may cost money.
fn of_the_branch(networks: impl Iterator<Item = (Ipv4Addr, u32)>, known: &HashSet<IpAddr>) -> Vec<(Ipv4Addr, u32)> {
    let all: Vec<(Ipv4Addr, u32)> = networks.collect();
    let holds = |(network, prefix): &(Ipv4Addr, u32), address: &IpAddr| match address {
        IpAddr::V4(v4) => u32::from(*v4).checked_shr(32 - prefix) == u32::from(*network).checked_shr(32 - prefix),
        IpAddr::V6(_) => false,
    };
    let own: Vec<_> = all.iter().copied().filter(|network| known.iter().any(|address| holds(network, address))).collect();
    if own.is_empty() { all } else { own }
}

/// The hosts of some networks, at most [`SWEEP_LIMIT`], the smallest network first.
fn addresses(networks: impl Iterator<Item = (Ipv4Addr, u32)>) -> Vec<Ipv4Addr> {
    let mut networks: Vec<(u32, u32)> = networks.map(|(network, prefix)| (prefix, u32::from(network))).collect();
    networks.sort_unstable_by(|a, b| b.cmp(a));
    let mut all: Vec<Ipv4Addr> = Vec::new();
    for (prefix, network) in networks {
        // Without the network's own address and that of everybody in it.
        let hosts = 1..(1u64 << (32 - prefix.min(31))) - 1;
        let room = SWEEP_LIMIT.saturating_sub(all.len());
        all.extend(hosts.take(room).filter_map(|host| Some(Ipv4Addr::from(network | u32::try_from(host).ok()?))));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// The machine's own addresses, which are no strangers.
fn own_addresses() -> HashSet<IpAddr> {
    let table = std::fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap_or_default();
    parse_own(&table)
}

/// A line that says `/32 host LOCAL` follows the one with its address.
fn parse_own(table: &str) -> HashSet<IpAddr> {
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let own = lines.windows(2).filter(|pair| pair[1].starts_with("/32 host LOCAL"));
    own.filter_map(|pair| pair[0].trim_start_matches("|-- ").parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Even;

    impl Prober for Even {
        async fn probe(&self, asked: &Asked, _: Duration) -> Outcome {
            let IpAddr::V4(v4) = asked.address else { return Outcome::Timeout };
            tokio::time::sleep(Duration::from_millis(5)).await;
            if v4.octets()[3].is_multiple_of(2) { Outcome::Reply { rtt_us: 1_000 } } else { Outcome::Timeout }
        }
    }

    fn subject() -> Subject {
        Subject {
            asked: IpAddr::from([10, 0, 0, 2]).into(),
            status: Status::Up,
            gateway: Some(IpAddr::from([10, 0, 0, 1]).into()),
            evidence: Evidence::default(),
            timeout_ms: 100,
        }
    }

    #[tokio::test]
    async fn a_question_is_answered_with_its_id_and_a_second_one_of_its_kind_has_to_wait() {
        let (answers, mut told) = mpsc::channel(4);
        let questions = Questions::new(Arc::new(Even), answers);
        questions.probe(7, subject(), 2);
        questions.probe(8, subject(), 1);
        assert_eq!(told.recv().await, Some(Answer::Refused { id: 8, why: Refused::Busy }));
        let Some(Answer::Probed { id: 7, status: Status::Up, evidence }) = told.recv().await else { panic!("no answer") };
        assert_eq!((evidence.probes.len(), evidence.gateway), (2, Some(shared::evidence::Seen::Timeout)));
        questions.probe(9, subject(), 1);
        assert!(matches!(told.recv().await, Some(Answer::Probed { id: 9, .. })));
    }

    #[test]
    fn a_sweep_has_a_limit_and_takes_small_networks_first() {
        let network = |text: &str, prefix| (text.parse::<Ipv4Addr>().expect("an address"), prefix);
        let all = addresses([network("10.0.0.0", 8), network("192.168.7.0", 29)].into_iter());
        assert_eq!(all.len(), SWEEP_LIMIT);
        assert_eq!(all.iter().filter(|address| address.octets()[0] == 192).count(), 6);
        assert_eq!(addresses([network("10.1.1.0", 30)].into_iter()).len(), 2);
    }

    #[test]
    fn a_line_to_a_provider_is_not_swept() {
        let network = |text: &str, prefix| (text.parse::<Ipv4Addr>().expect("an address"), prefix);
        let (lan, line) = (network("192.168.7.0", 24), network("10.64.0.0", 10));
        let known = |text: &str| [text.parse::<IpAddr>().expect("an address")].into();
        assert_eq!(of_the_branch([lan, line].into_iter(), &known("192.168.7.9")), [lan]);
        assert_eq!(of_the_branch([lan, line].into_iter(), &known("192.168.8.9")), [lan, line], "behind a router");
    }

    #[test]
    fn the_machines_own_addresses_are_no_strangers() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.2\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n";
        assert_eq!(parse_own(table), [IpAddr::from([10, 0, 0, 2])].into());
    }
}

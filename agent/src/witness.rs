//! Who has answered of late: what tells a device's silence from the agent's own fault.
//!
//! Pure. Kept by the watch, which asks others as soon as a device misses a probe.

use std::net::IpAddr;

use shared::Uptime;
use shared::evidence::Seen;

use crate::isolation::{Evidence, WITNESSES};
use crate::probe::Asked;

/// Least time between two rounds of asking others, in ms.
const ROUND_MS: u64 = 500;
/// How long the broker may take to answer, in ms.
const BROKER_MS: u64 = 2_500;
/// Least time between two questions to the broker, in ms: each costs the line some 300 B. One answers for all who have fallen
/// silent before it was asked.
const BROKER_EVERY_MS: u64 = 500;
/// Devices that are asked in one round.
pub const ROUND: usize = 3;

/// See the module.
#[derive(Debug, Default)]
pub struct Witnesses {
    /// The gateway, if there is one.
    pub gateway: Option<Asked>,
    gateway_heard: Option<Uptime>,
    gateway_silent: Option<Uptime>,
    /// How it answered last, and when it was asked.
    gateway_seen: Option<(Uptime, Seen)>,
    /// When the newest answered probes of two different targets were sent.
    heard: [Option<(Uptime, usize)>; 2],
    broker_asked: Option<Uptime>,
    broker_heard: Option<Uptime>,
    round_at: Option<Uptime>,
    next: usize,
}

impl Witnesses {
    /// There are other targets now: what is known of them by number is not of these.
    pub fn forget(&mut self) {
        *self = Self { gateway: self.gateway.take(), broker_heard: self.broker_heard, ..Self::default() };
    }

    /// A target has answered what was sent at `sent`.
    pub fn replied(&mut self, target: usize, sent: Uptime) {
        let [first, second] = self.heard;
        self.heard = match first {
            Some((_, other)) if other == target => [Some((sent, target)), second],
            Some(_) | None => [Some((sent, target)), first],
        };
    }

    /// How the gateway answered what was asked since then.
    pub fn gateway_since(&self, since: Uptime) -> Option<Seen> {
        self.gateway_seen.filter(|(sent, _)| *sent >= since).map(|(_, seen)| seen)
    }

    /// The gateway was asked at `sent`, and how it answered.
    pub fn gateway_told(&mut self, sent: Uptime, seen: Seen) {
        self.gateway_seen = Some((sent, seen));
        if seen.rtt_us().is_some() { self.gateway_heard = Some(sent) } else { self.gateway_silent = Some(sent) }
    }

    /// The broker has answered what was sent at `sent`.
    pub fn broker_replied(&mut self, sent: Uptime) {
        self.broker_heard = self.broker_heard.max(Some(sent));
    }

    /// Whether it is time to ask others again. When it is, a round begins: the targets from the number that is given on.
    pub fn begin_round(&mut self, targets: usize, now: Uptime) -> Option<usize> {
        if self.round_at.is_some_and(|at| now.since(at) < ROUND_MS) {
            return None;
        }
        self.round_at = Some(now);
        let from = self.next;
        self.next = (from + ROUND) % targets.max(1);
        Some(from)
    }

    /// Whether the broker should be asked now, of a silence since `onset`.
    pub fn begin_asking_broker(&mut self, onset: Uptime, now: Uptime) -> bool {
        let is_due = self.broker_asked.is_none_or(|at| at < onset && now.since(at) >= BROKER_EVERY_MS);
        if is_due {
            self.broker_asked = Some(now);
        }
        is_due
    }

    /// Whether the broker may yet say that it hears us, of a silence since `onset`.
    pub fn is_broker_open(&self, onset: Uptime, now: Uptime) -> bool {
        self.broker_asked.is_none_or(|at| at < onset || now.since(at) < BROKER_MS)
    }

    /// What is known of everybody but `target` since `onset`. `others` gives, for each other target that could answer, its
    /// address and when the newest probe was sent that was not answered. Those at one address are one box, and those at the
    /// target's own address are no others.
    pub fn evidence(
        &self,
        target: (usize, IpAddr),
        others: impl Iterator<Item = (IpAddr, Option<Uptime>)>,
        carrier: Option<bool>,
        onset: Uptime,
    ) -> Evidence {
        let since = |at: Option<Uptime>| at.is_some_and(|at| at >= onset);
        let others_heard = self.heard.iter().flatten().any(|(at, who)| *who != target.0 && *at >= onset);
        let is_heard = others_heard || since(self.gateway_heard) || since(self.broker_heard);
        let (mut silent, mut known) = (Vec::new(), Vec::new());
        let gateway = self.gateway.as_ref().map(|gateway| (gateway.address, self.gateway_silent));
        for (address, at) in gateway.into_iter().chain(others).filter(|(address, _)| *address != target.1) {
            // More than enough tells nothing more.
            if is_heard || silent.len() >= WITNESSES {
                break;
            }
            for (boxes, counts) in [(&mut known, true), (&mut silent, since(at))] {
                if counts && boxes.len() < WITNESSES && !boxes.contains(&address) {
                    boxes.push(address);
                }
            }
        }
        Evidence { carrier, is_heard, silent: silent.len(), others: known.len(), ..Evidence::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The box with that number.
    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn evidence(witnesses: &Witnesses, target: u8, silent: &[(u8, u64)]) -> Evidence {
        let others = silent.iter().map(|(number, at)| (address(*number), (*at > 0).then_some(Uptime(*at))));
        witnesses.evidence((target.into(), address(target)), others, Some(true), Uptime(10))
    }

    #[test]
    fn a_targets_own_reply_is_no_witness() {
        let mut witnesses = Witnesses::default();
        let heard = |witnesses: &Witnesses, target| evidence(witnesses, target, &[]).is_heard;
        witnesses.replied(1, Uptime(12));
        assert_eq!((heard(&witnesses, 0), heard(&witnesses, 1)), (true, false));
        witnesses.replied(2, Uptime(13));
        assert_eq!((heard(&witnesses, 0), heard(&witnesses, 1), heard(&witnesses, 2)), (true, true, true));
        witnesses.replied(2, Uptime(14));
        assert!(heard(&witnesses, 2), "the reply of 1 still counts");
    }

    #[test]
    fn only_what_was_asked_since_the_onset_counts() {
        let mut witnesses = Witnesses { gateway: Some(address(1).into()), ..Witnesses::default() };
        witnesses.replied(5, Uptime(9));
        witnesses.gateway_told(Uptime(8), Seen::Reply { rtt_us: 300 });
        witnesses.broker_replied(Uptime(7));
        let nothing = Evidence { carrier: Some(true), others: 2, ..Evidence::default() };
        assert_eq!(evidence(&witnesses, 2, &[(3, 0), (4, 9)]), nothing);
        assert_eq!(evidence(&witnesses, 2, &[(3, 12), (4, 13)]), Evidence { silent: 2, ..nothing });
        witnesses.gateway_told(Uptime(11), Seen::Timeout);
        assert_eq!((witnesses.gateway_since(Uptime(10)), witnesses.gateway_since(Uptime(12))), (Some(Seen::Timeout), None));
        assert_eq!(evidence(&witnesses, 2, &[(3, 0), (4, 0)]), Evidence { silent: 1, ..nothing });
        witnesses.broker_replied(Uptime(15));
        assert!(evidence(&witnesses, 2, &[]).is_heard);
    }

    #[test]
    fn one_box_is_one_witness_however_often_it_is_asked() {
        let mut witnesses = Witnesses { gateway: Some(address(1).into()), ..Witnesses::default() };
        witnesses.gateway_told(Uptime(11), Seen::Timeout);
        let of = |silent: &[(u8, u64)]| {
            let found = evidence(&witnesses, 2, silent);
            (found.silent, found.others)
        };
        assert_eq!(of(&[(1, 12), (1, 13)]), (1, 1), "the gateway is a device as well");
        assert_eq!(of(&[(2, 12), (2, 13)]), (1, 1), "other services of the target itself");
        assert_eq!(of(&[(3, 12)]), (2, 2));
    }

    #[test]
    fn others_are_asked_in_turn() {
        let mut witnesses = Witnesses::default();
        let rounds: Vec<_> = (0..6).map(|n| witnesses.begin_round(7, Uptime(n * 250))).collect();
        assert_eq!(rounds, [Some(0), None, Some(3), None, Some(6), None]);
        assert_eq!(witnesses.begin_round(7, Uptime(1_500)), Some(2));
    }

    #[test]
    fn the_broker_is_asked_of_each_silence_and_answers_for_all_before() {
        let mut witnesses = Witnesses::default();
        assert!(witnesses.is_broker_open(Uptime(10_000), Uptime(11_500)), "it can still be asked");
        // Silences that begin one after the other: asked when they are to be told, 1.5 s later.
        let onsets = [10_000, 10_400, 11_400, 11_900, 12_900];
        let asked = onsets.map(|onset| witnesses.begin_asking_broker(Uptime(onset), Uptime(onset + 1_500)));
        assert_eq!(asked, [true, false, false, true, false]);
        // Asked last at 13.4 s.
        for (onset, now, is_open) in [(12_900, 15_800, true), (12_900, 15_900, false), (13_500, 15_900, true)] {
            assert_eq!(witnesses.is_broker_open(Uptime(onset), Uptime(now)), is_open, "{onset} at {now}");
        }
    }
}

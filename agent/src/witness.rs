//! Who has answered of late: what tells a device's silence from the agent's own fault.
//!
//! Pure. Kept by the watch, which asks others as soon as a device misses a probe.

use shared::Uptime;
use shared::evidence::Seen;

use crate::isolation::{Evidence, WITNESSES};
use crate::probe::Asked;

/// Least time between two rounds of asking others, in ms.
const ROUND_MS: u64 = 500;
/// How long the broker may take to answer, in ms.
const BROKER_MS: u64 = 1_500;
/// Least time between two questions to the broker, in ms: each costs the line some 300 B.
const BROKER_EVERY_MS: u64 = 5_000;
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

    /// Whether the broker should be asked now.
    pub fn begin_asking_broker(&mut self, is_connected: bool, now: Uptime) -> bool {
        let is_due = is_connected && self.broker_asked.is_none_or(|at| now.since(at) >= BROKER_EVERY_MS);
        if is_due {
            self.broker_asked = Some(now);
        }
        is_due
    }

    /// What is known of everybody but `target` since `onset`. `silent_since` gives, for each other target that could answer,
    /// when the newest probe was sent that was not answered.
    pub fn evidence(
        &self,
        target: usize,
        silent_since: impl Iterator<Item = Option<Uptime>>,
        carrier: Option<bool>,
        onset: Uptime,
        now: Uptime,
    ) -> Evidence {
        let since = |at: Option<Uptime>| at.is_some_and(|at| at >= onset);
        let others_heard = self.heard.iter().flatten().any(|(at, who)| *who != target && *at >= onset);
        let is_heard = others_heard || since(self.gateway_heard) || since(self.broker_heard);
        let (mut silent, mut others) = (usize::from(since(self.gateway_silent)), usize::from(self.gateway.is_some()));
        for at in silent_since {
            // More than enough tells nothing more.
            if is_heard || silent >= WITNESSES {
                break;
            }
            others += 1;
            silent += usize::from(since(at));
        }
        Evidence {
            carrier,
            is_heard,
            silent,
            others,
            is_broker_asked: self.broker_asked.is_some_and(|at| at >= onset && now.since(at) < BROKER_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_targets_own_reply_is_no_witness() {
        let mut witnesses = Witnesses::default();
        let heard = |witnesses: &Witnesses, target| {
            witnesses.evidence(target, [None; 2].into_iter(), None, Uptime(10), Uptime(20)).is_heard
        };
        witnesses.replied(1, Uptime(12));
        assert_eq!((heard(&witnesses, 0), heard(&witnesses, 1)), (true, false));
        witnesses.replied(2, Uptime(13));
        assert_eq!((heard(&witnesses, 0), heard(&witnesses, 1), heard(&witnesses, 2)), (true, true, true));
        witnesses.replied(2, Uptime(14));
        assert!(heard(&witnesses, 2), "the reply of 1 still counts");
    }

    #[test]
    fn only_what_was_asked_since_the_onset_counts() {
        let mut witnesses = Witnesses { gateway: Some(std::net::IpAddr::from([10, 0, 0, 1]).into()), ..Witnesses::default() };
        witnesses.replied(1, Uptime(9));
        witnesses.gateway_told(Uptime(8), Seen::Reply { rtt_us: 300 });
        witnesses.broker_replied(Uptime(7));
        let at = |silent: [Option<Uptime>; 2], witnesses: &Witnesses| {
            witnesses.evidence(0, silent.into_iter(), Some(true), Uptime(10), Uptime(20))
        };
        let nothing = Evidence { carrier: Some(true), others: 3, ..Evidence::default() };
        assert_eq!(at([None, Some(Uptime(9))], &witnesses), nothing);
        assert_eq!(at([Some(Uptime(12)), Some(Uptime(13))], &witnesses), Evidence { silent: 2, ..nothing });
        witnesses.gateway_told(Uptime(11), Seen::Timeout);
        assert_eq!((witnesses.gateway_since(Uptime(10)), witnesses.gateway_since(Uptime(12))), (Some(Seen::Timeout), None));
        assert_eq!(at([None; 2], &witnesses), Evidence { silent: 1, ..nothing });
        witnesses.broker_replied(Uptime(15));
        assert!(at([None; 2], &witnesses).is_heard);
    }

    #[test]
    fn others_are_asked_in_turn_and_the_broker_rarely() {
        let mut witnesses = Witnesses::default();
        let rounds: Vec<_> = (0..6).map(|n| witnesses.begin_round(7, Uptime(n * 250))).collect();
        assert_eq!(rounds, [Some(0), None, Some(3), None, Some(6), None]);
        assert_eq!(witnesses.begin_round(7, Uptime(1_500)), Some(2));
        assert!(!witnesses.begin_asking_broker(false, Uptime(0)));
        let asked: Vec<_> = [0, 1_000, 5_000].map(|at| witnesses.begin_asking_broker(true, Uptime(at))).into();
        assert_eq!(asked, [true, false, true]);
        assert!(witnesses.evidence(0, [None; 2].into_iter(), None, Uptime(4_000), Uptime(5_100)).is_broker_asked);
        assert!(!witnesses.evidence(0, [None; 2].into_iter(), None, Uptime(4_000), Uptime(6_600)).is_broker_asked);
    }
}

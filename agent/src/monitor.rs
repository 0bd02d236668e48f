//! Whether a device answers: one verdict a device, reached by confirmation, dated by its first sign.
//!
//! Pure: it is told each outcome and when the probe was sent, and says when the status changed.

use shared::evidence::Seen;
use shared::message::ProbeRule;
use shared::{Cause, Status, Uptime};

/// What became of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The device answered after so many µs.
    Reply {
        /// Round trip in µs.
        rtt_us: u32,
    },
    /// Nothing came back in time.
    Timeout,
    /// A router or the kernel's neighbour table said that nobody is there.
    Unreachable,
    /// The probe could not be sent, or its answer not be read. That says nothing of the device.
    SendError,
    /// The device's name doesn't resolve. That says nothing of it either.
    NoAddress,
}

impl From<Outcome> for Seen {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Reply { rtt_us } => Self::Reply { rtt_us },
            Outcome::Timeout => Self::Timeout,
            Outcome::Unreachable => Self::Unreachable,
            Outcome::SendError => Self::SendError,
            Outcome::NoAddress => Self::NoAddress,
        }
    }
}

/// A status that has just changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: Status,
    /// What it is.
    pub to: Status,
    /// When the first probe that told so was sent.
    pub onset: Uptime,
    /// When the last probe was sent that was answered: the onset of a failure lies after it.
    pub last_ok: Option<Uptime>,
}

/// One device's verdict.
#[derive(Debug, Clone)]
pub struct Monitor {
    status: Status,
    since: Uptime,
    last_ok: Option<Uptime>,
    signs: Signs,
}

/// Most misses that are remembered of a device: more than any rule asks for.
const MISSES_LIMIT: usize = 100;

/// What speaks against the verdict in force, each kind counted by itself: misses between send errors still add up, or
/// a dead device behind a bad cable would stay up for ever.
#[derive(Debug, Clone, Default)]
struct Signs {
    replies: Option<Sign>,
    /// When those probes were sent that were missed, oldest first: a reply that comes late takes back what was before it.
    misses: Vec<Uptime>,
    errors: Option<Sign>,
    nameless: Option<Sign>,
}

#[derive(Debug, Clone, Copy)]
struct Sign {
    first: Uptime,
    count: u8,
}

fn count(sign: &mut Option<Sign>, sent: Uptime) -> Sign {
    let counted = match *sign {
        Some(Sign { first, count }) => Sign { first, count: count.saturating_add(1) },
        None => Sign { first: sent, count: 1 },
    };
    *sign = Some(counted);
    counted
}

impl Signs {
    fn missed(&self) -> Option<Sign> {
        let first = *self.misses.first()?;
        Some(Sign { first, count: u8::try_from(self.misses.len()).unwrap_or(u8::MAX) })
    }

    fn miss(&mut self, sent: Uptime) -> Sign {
        if self.misses.len() < MISSES_LIMIT {
            self.misses.push(sent);
        }
        self.missed().unwrap_or(Sign { first: sent, count: 1 })
    }
}

impl Monitor {
    /// A device of which nothing is known yet.
    pub fn new(now: Uptime) -> Self {
        Self { status: Status::Unknown(Cause::NeverObserved), since: now, last_ok: None, signs: Signs::default() }
    }

    /// The verdict in force.
    pub fn status(&self) -> Status {
        self.status
    }

    /// When the verdict in force began.
    pub fn since(&self) -> Uptime {
        self.since
    }

    /// When the first sign of a change that isn't confirmed yet was sent.
    pub fn pending_since(&self) -> Option<Uptime> {
        let Signs { replies, errors, nameless, .. } = self.signs;
        [replies, self.signs.missed(), errors, nameless].into_iter().flatten().map(|sign| sign.first).min()
    }

    /// How long after one probe the next is due, in ms: sooner while a change waits for confirmation.
    pub fn next_after_ms(&self, rule: &ProbeRule) -> u32 {
        if self.pending_since().is_some() { rule.retry_ms } else { rule.interval_ms }
    }

    /// When a silence began that this outcome makes long enough to be told, if it does.
    pub fn silence(&self, outcome: Outcome, sent: Uptime, rule: &ProbeRule) -> Option<Uptime> {
        let (sign, status) = match outcome {
            Outcome::Reply { .. } => return None,
            _ if self.is_refuted(sent) => return None,
            Outcome::Timeout | Outcome::Unreachable => (self.signs.missed(), Status::Down),
            Outcome::SendError => (self.signs.errors, Status::Unknown(Cause::ProbeError)),
            Outcome::NoAddress => (self.signs.nameless, Status::Unknown(Cause::DnsFailure)),
        };
        let (first, count) = sign.map_or((sent, 0), |sign| (sign.first, sign.count));
        (self.status != status && count.saturating_add(1) >= rule.fall).then_some(first)
    }

    /// Takes the outcome of the probe that was sent at `sent`. Probes of one device are told in the order of sending.
    ///
    /// `means` says whose fault a silence is that is long enough to be told: the device's own (`Down`), or why nobody can
    /// say what the device is; nothing while that isn't known yet.
    pub fn observe(&mut self, outcome: Outcome, sent: Uptime, rule: &ProbeRule, means: Option<Status>) -> Option<Change> {
        let (seen, sign, needed) = match outcome {
            Outcome::Reply { .. } => {
                self.signs = Signs { replies: self.signs.replies, ..Signs::default() };
                // Nothing contradicts a first reply: rise is for a device that was seen down.
                let needed = if self.status == Status::Down { rule.rise } else { 1 };
                (Status::Up, count(&mut self.signs.replies, sent), needed)
            }
            _ if self.is_refuted(sent) => return None,
            Outcome::Timeout | Outcome::Unreachable => {
                self.signs.replies = None;
                (Status::Down, self.signs.miss(sent), rule.fall)
            }
            Outcome::SendError => {
                self.signs.replies = None;
                (Status::Unknown(Cause::ProbeError), count(&mut self.signs.errors, sent), rule.fall)
            }
            Outcome::NoAddress => {
                self.signs.replies = None;
                (Status::Unknown(Cause::DnsFailure), count(&mut self.signs.nameless, sent), rule.fall)
            }
        };
        let change = self.weigh(seen, sign, needed, means);
        if seen == Status::Up {
            self.last_ok = self.last_ok.max(Some(sent));
        }
        change
    }

    /// The device has answered what was sent at `sent`, though too late to count or out of its turn: what was missed until
    /// then was no silence. It makes no device up that is down.
    pub fn excuse(&mut self, sent: Uptime) {
        if self.status == Status::Down {
            return;
        }
        self.last_ok = self.last_ok.max(Some(sent));
        let Signs { misses, errors, nameless, .. } = &mut self.signs;
        misses.retain(|missed| *missed > sent);
        for sign in [errors, nameless] {
            *sign = sign.filter(|sign| sign.first > sent);
        }
    }

    /// Whether the device has answered something that was sent later.
    fn is_refuted(&self, sent: Uptime) -> bool {
        self.status != Status::Down && self.last_ok.is_some_and(|answered| sent <= answered)
    }

    /// Nobody can say any more what the device is, whatever was known: since when, and why.
    pub fn lose(&mut self, cause: Cause, since: Uptime) -> Option<Change> {
        let to = Status::Unknown(cause);
        if self.status == to {
            return None;
        }
        let onset = since.max(self.since);
        let change = Change { from: self.status, to, onset, last_ok: self.last_ok };
        *self = Self { status: to, since: onset, last_ok: self.last_ok, signs: Signs::default() };
        Some(change)
    }

    /// What was seen of late tells nothing: it is counted anew.
    pub fn forget_signs(&mut self) {
        self.signs = Signs::default();
    }

    fn weigh(&mut self, seen: Status, sign: Sign, needed: u8, means: Option<Status>) -> Option<Change> {
        if seen == self.status {
            self.signs = Signs::default();
            return None;
        }
        if sign.count < needed {
            return None;
        }
        let seen = match seen {
            Status::Up => seen,
            Status::Down | Status::Unknown(_) => match means? {
                // The device's own fault: what was seen of it counts.
                Status::Down => seen,
                other => other,
            },
        };
        if seen == self.status {
            self.signs = Signs::default();
            return None;
        }
        let change =
            Change { from: self.status, to: seen, onset: sign.first, last_ok: self.last_ok.filter(|_| seen != Status::Up) };
        self.signs = Signs::default();
        self.status = seen;
        self.since = sign.first;
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_comes_late_or_out_of_turn_takes_back_what_was_missed_before_it() {
        let rule = ProbeRule { fall: 3, rise: 2, ..ProbeRule::default() };
        let mut monitor = Monitor::new(Uptime(0));
        let mut at = |seconds: u64, outcome| monitor_at(&mut monitor, seconds, outcome, &rule);
        assert!(at(0, Some(Outcome::Reply { rtt_us: 300 })).is_some());
        assert_eq!([1, 2].map(|second| at(second, Some(Outcome::Timeout))), [None, None]);
        // That of second 1 comes after all; the miss of second 2 counts on.
        assert_eq!(at(1, None), None);
        assert_eq!(at(3, Some(Outcome::Timeout)), None);
        let change = at(4, Some(Outcome::Timeout)).expect("down");
        assert_eq!((change.to, change.onset, change.last_ok), (Status::Down, Uptime(2_000), Some(Uptime(1_000))));
        // What is down stays so, whatever comes late.
        assert_eq!([at(3, None), at(4, None)], [None, None]);
        assert_eq!(at(5, Some(Outcome::Reply { rtt_us: 300 })), None);
        assert_eq!(at(6, Some(Outcome::Reply { rtt_us: 300 })).map(|change| change.to), Some(Status::Up));
        // A miss that is told after the reply to a later probe is none.
        at(9, None);
        assert_eq!([7, 8, 9].map(|second| at(second, Some(Outcome::Timeout))), [None; 3]);
        assert_eq!(monitor.pending_since(), None);
    }

    /// Tells the outcome of what was sent at that second, or that it was answered late.
    fn monitor_at(monitor: &mut Monitor, second: u64, outcome: Option<Outcome>, rule: &ProbeRule) -> Option<Change> {
        let sent = Uptime(second * 1_000);
        match outcome {
            Some(outcome) => monitor.observe(outcome, sent, rule, Some(Status::Down)),
            None => {
                monitor.excuse(sent);
                None
            }
        }
    }

    /// Feeds one outcome a second: r a reply, . a timeout, u unreachable, e a send error, n no address.
    fn check(outcomes: &str, expected: &str) {
        let mut monitor = Monitor::new(Uptime(0));
        let mut told = Vec::new();
        for (second, sign) in outcomes.chars().enumerate() {
            let outcome = match sign {
                'r' => Outcome::Reply { rtt_us: 300 },
                '.' => Outcome::Timeout,
                'u' => Outcome::Unreachable,
                'e' => Outcome::SendError,
                'n' => Outcome::NoAddress,
                other => panic!("{other:?} is no outcome"),
            };
            let at = Uptime(second as u64 * 1000);
            if let Some(change) = monitor.observe(outcome, at, &ProbeRule::default(), Some(Status::Down)) {
                let last_ok = change.last_ok.map_or(String::new(), |at| format!("/{}", at.0 / 1000));
                told.push(format!("{}@{}{last_ok}", change.to, change.onset.0 / 1000));
            }
        }
        assert_eq!(told.join(" "), expected, "{outcomes}");
    }

    #[test]
    fn one_lost_packet_is_not_an_outage() {
        check("rr.rr..rr", "up@0");
    }

    #[test]
    fn an_outage_is_dated_from_its_first_miss_and_bounded_by_the_last_reply() {
        check("rr....r.rr", "up@0 down@2/1 up@8");
    }

    #[test]
    fn a_device_that_was_down_before_monitoring_began_is_down() {
        check("....", "down@0");
        check("....rr", "down@0 up@4");
    }

    #[test]
    fn unreachable_counts_as_a_miss() {
        check("ru.u", "up@0 down@1/0");
    }

    #[test]
    fn a_probe_that_cannot_be_sent_is_neither_up_nor_down() {
        check("rree", "up@0");
        check("rreee", "up@0 unknown(probe_error)@2/1");
        check("rreeer", "up@0 unknown(probe_error)@2/1 up@5");
        check("rreee...", "up@0 unknown(probe_error)@2/1 down@5/1");
        check("eee", "unknown(probe_error)@0");
        check("rnnr", "up@0");
        check("rnnn.r", "up@0 unknown(dns_failure)@1/0 up@5");
        check("r.n.n.", "up@0 down@1/0");
    }

    #[test]
    fn misses_add_up_across_send_errors() {
        check("r..e", "up@0");
        check("r.e.e.", "up@0 down@1/0");
        check("re.e.e", "up@0 unknown(probe_error)@1/0");
        check("r.ere.r", "up@0");
    }

    #[test]
    fn recovery_needs_replies_in_a_row() {
        check("r...r.r.rr", "up@0 down@1/0 up@8");
    }

    #[test]
    fn a_pending_change_hurries_the_next_probe() {
        let rule = ProbeRule::default();
        let mut monitor = Monitor::new(Uptime(0));
        let down = Some(Status::Down);
        monitor.observe(Outcome::Reply { rtt_us: 1 }, Uptime(0), &rule, down);
        assert_eq!(monitor.next_after_ms(&rule), rule.interval_ms);
        monitor.observe(Outcome::Timeout, Uptime(2_000), &rule, down);
        assert_eq!((monitor.next_after_ms(&rule), monitor.pending_since()), (rule.retry_ms, Some(Uptime(2_000))));
        monitor.observe(Outcome::Reply { rtt_us: 1 }, Uptime(2_500), &rule, down);
        assert_eq!((monitor.next_after_ms(&rule), monitor.pending_since()), (rule.interval_ms, None));
    }

    #[test]
    fn silence_that_is_the_agents_own_fault_is_no_failure_and_is_judged_again_later() {
        let rule = ProbeRule::default();
        let isolated = Status::Unknown(Cause::AgentIsolated);
        let mut monitor = Monitor::new(Uptime(0));
        monitor.observe(Outcome::Reply { rtt_us: 1 }, Uptime(0), &rule, Some(Status::Down));
        let miss = |monitor: &mut Monitor, at, means| monitor.observe(Outcome::Timeout, Uptime(at), &rule, means);
        assert_eq!((miss(&mut monitor, 1_000, None), miss(&mut monitor, 2_000, None)), (None, None));
        assert_eq!(miss(&mut monitor, 3_000, None), None, "it isn't known yet whose fault it is");
        let change = miss(&mut monitor, 4_000, Some(isolated)).expect("it is known now");
        assert_eq!((change.to, change.onset, change.last_ok), (isolated, Uptime(1_000), Some(Uptime(0))));
        for at in 5..8 {
            assert_eq!(miss(&mut monitor, at * 1_000, Some(isolated)), None);
        }
        assert_eq!(miss(&mut monitor, 8_000, Some(Status::Down)), None);
        miss(&mut monitor, 9_000, Some(Status::Down));
        let change = miss(&mut monitor, 10_000, Some(Status::Down)).expect("the others are back, this one isn't");
        assert_eq!((change.from, change.to, change.onset), (isolated, Status::Down, Uptime(8_000)));
    }

    #[test]
    fn what_is_lost_from_sight_is_unknown_whatever_it_was() {
        let rule = ProbeRule::default();
        let mut monitor = Monitor::new(Uptime(0));
        monitor.observe(Outcome::Reply { rtt_us: 1 }, Uptime(5_000), &rule, Some(Status::Down));
        let change = monitor.lose(Cause::AgentIsolated, Uptime(3_000)).expect("it was up");
        assert_eq!((change.from, change.onset, monitor.since()), (Status::Up, Uptime(5_000), Uptime(5_000)));
        assert_eq!(monitor.lose(Cause::AgentIsolated, Uptime(9_000)), None);
        let back = monitor.observe(Outcome::Reply { rtt_us: 1 }, Uptime(9_000), &rule, None).expect("one reply is enough");
        assert_eq!(back.to, Status::Up);
    }
}

//! Whether a device that answers does so poorly: loss or round trips over what its rule allows. Pure.

use shared::message::ProbeRule;
use shared::{Flags, Minute};

/// Fewest probes that a share of lost ones is taken of: a slow rule gathers them over some minutes.
const PROBES: u32 = 10;
/// Fewest lost probes that are a loss: one packet proves nothing.
const LOST: u32 = 2;
/// Judgements in a row without a reason after which a flag is taken back.
const CLEAR: u8 = 2;

/// What is gathered of one device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Degraded {
    sent: u32,
    lost: u32,
    replies: u32,
    sum_us: u64,
    flags: Flags,
    /// Judgements without a reason, of loss and of latency.
    clear: [u8; 2],
}

impl Degraded {
    /// What is said of the device.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// The device's status has changed: what was gathered says nothing of it any more. The flags, if that changes them.
    pub fn reset(&mut self) -> Option<Flags> {
        let before = std::mem::take(self).flags;
        (before != Flags::default()).then_some(Flags::default())
    }

    /// Takes a minute in which the device was up; the flags, if that changes them.
    pub fn take(&mut self, minute: &Minute, rule: &ProbeRule) -> Option<Flags> {
        let replies = u32::from(minute.sent.saturating_sub(minute.lost));
        self.sent += u32::from(minute.sent);
        self.lost += u32::from(minute.lost);
        self.replies += replies;
        self.sum_us += minute.rtt.map_or(0, |rtt| u64::from(rtt.avg_us) * u64::from(replies));
        if self.sent < PROBES {
            return None;
        }
        let is_lossy = rule.loss_percent > 0 && self.lost >= LOST && self.lost * 100 >= u32::from(rule.loss_percent) * self.sent;
        let mean_us = self.sum_us.checked_div(self.replies.into()).unwrap_or(0);
        let is_slow = rule.latency_ms > 0 && mean_us >= u64::from(rule.latency_ms) * 1_000;
        let before = self.flags;
        for (at, flag, is_so) in [(0, Flags::DEGRADED_LOSS, is_lossy), (1, Flags::DEGRADED_LATENCY, is_slow)] {
            self.clear[at] = if is_so { 0 } else { self.clear[at].saturating_add(1) };
            if is_so {
                self.flags = self.flags.with(flag, true);
            } else if self.clear[at] >= CLEAR {
                self.flags = self.flags.with(flag, false);
            }
        }
        *self = Self { flags: self.flags, clear: self.clear, ..Self::default() };
        (self.flags != before).then_some(self.flags)
    }
}

#[cfg(test)]
mod tests {
    use shared::delta::Rtt;

    use super::*;

    /// Minutes as sent/lost/ms; the flags that are told after each: l for loss, s for slow, - for none.
    fn check(minutes: &str, expected: &str) {
        let mut degraded = Degraded::default();
        let rule = ProbeRule { loss_percent: 10, latency_ms: 200, ..ProbeRule::default() };
        let told: Vec<String> = minutes
            .split(' ')
            .map(|minute| {
                let numbers: Vec<u32> = minute.split('/').map(|number| number.parse().expect("a number")).collect();
                let (sent, lost) = (numbers[0] as u16, numbers[1] as u16);
                let rtt = Rtt { avg_us: numbers[2] * 1_000, ..Rtt::default() };
                let minute = Minute { sent, lost, rtt: (sent > lost).then_some(rtt) };
                match degraded.take(&minute, &rule) {
                    None => ".".to_owned(),
                    Some(flags) if flags == Flags::default() => "-".to_owned(),
                    Some(flags) => flags.names().map(|name| if name == "degraded_loss" { 'l' } else { 's' }).collect(),
                }
            })
            .collect();
        assert_eq!(told.join(" "), expected, "{minutes}");
    }

    #[test]
    fn loss_and_latency_over_the_rule_are_flags_until_two_minutes_are_good() {
        check("30/0/5 30/3/5 30/3/5 30/2/5 30/0/5", ". l . . -");
        check("30/0/200 30/0/5 30/0/300 30/0/5 30/0/5", "s . . . -");
        check("30/6/900 30/0/5 30/0/5", "ls . -");
    }

    #[test]
    fn one_lost_packet_is_no_loss_and_a_slow_rule_gathers_its_probes() {
        check("10/1/5 10/1/5", ". .");
        check("2/0/5 2/1/5 2/0/5 2/1/5 2/0/5", ". . . . l");
    }

    #[test]
    fn another_status_takes_the_flags_back() {
        let mut degraded = Degraded { flags: Flags::DEGRADED_LOSS, ..Degraded::default() };
        assert_eq!((degraded.reset(), degraded.reset()), (Some(Flags::default()), None));
    }
}

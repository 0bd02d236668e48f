//! A minute of one device: how many probes, how many without an answer, and the round trips between.

use shared::Minute;
use shared::delta::Rtt;

use crate::monitor::Outcome;

/// Sums of the minute that is running.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    sent: u16,
    lost: u16,
    min_us: u32,
    max_us: u32,
    sum_us: u64,
    steps_us: u64,
    last_us: Option<u32>,
}

impl Summary {
    /// Adds one outcome. A probe that couldn't be sent is no observation.
    pub fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::SendError | Outcome::NoAddress => {}
            Outcome::Timeout | Outcome::Unreachable => {
                self.sent = self.sent.saturating_add(1);
                self.lost = self.lost.saturating_add(1).min(self.sent);
            }
            Outcome::Reply { rtt_us } => {
                self.sent = self.sent.saturating_add(1);
                self.min_us = if self.last_us.is_none() { rtt_us } else { self.min_us.min(rtt_us) };
                self.max_us = self.max_us.max(rtt_us);
                self.sum_us += u64::from(rtt_us);
                self.steps_us += self.last_us.map_or(0, |last| u64::from(last.abs_diff(rtt_us)));
                self.last_us = Some(rtt_us);
            }
        }
    }

    /// The minute that has ended; the next one starts empty.
    pub fn take(&mut self) -> Minute {
        let Self { sent, lost, min_us, max_us, sum_us, steps_us, .. } = std::mem::take(self);
        let replies = u64::from(sent.saturating_sub(lost));
        let mean = |sum: u64, n: u64| u32::try_from((sum + n / 2) / n).unwrap_or(u32::MAX);
        let rtt = (replies > 0).then(|| Rtt {
            min_us,
            avg_us: mean(sum_us, replies),
            max_us,
            jitter_us: if replies > 1 { mean(steps_us, replies - 1) } else { 0 },
        });
        Minute { sent, lost, rtt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_tells_loss_and_the_spread_of_its_round_trips() {
        let mut summary = Summary::default();
        for outcome in [
            Outcome::Reply { rtt_us: 300 },
            Outcome::Timeout,
            Outcome::SendError,
            Outcome::Reply { rtt_us: 100 },
            Outcome::Unreachable,
            Outcome::Reply { rtt_us: 500 },
        ] {
            summary.add(outcome);
        }
        let rtt = Rtt { min_us: 100, avg_us: 300, max_us: 500, jitter_us: 300 };
        assert_eq!(summary.take(), Minute { sent: 5, lost: 2, rtt: Some(rtt) });
        assert_eq!(summary.take(), Minute::default());
    }

    #[test]
    fn no_reply_gives_no_round_trip() {
        let mut summary = Summary::default();
        summary.add(Outcome::Timeout);
        assert_eq!(summary.take(), Minute { sent: 1, lost: 1, rtt: None });
    }
}

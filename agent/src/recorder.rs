//! The last two minutes of one device's probes, for what goes with a transition. Pure.

use std::collections::VecDeque;

use shared::Uptime;
use shared::evidence::{Seen, TRACES_LIMIT, Trace};

/// How far back it remembers, in ms.
const MEMORY_MS: u32 = 120_000;
/// Most probes that it remembers: two minutes of ten a second.
const PROBES_LIMIT: usize = 1_200;

/// What became of a probe that stands in the recorder for something else than its round trip.
const TIMEOUT: u32 = u32::MAX;
const UNREACHABLE: u32 = u32::MAX - 1;
const SEND_ERROR: u32 = u32::MAX - 2;
const NO_ADDRESS: u32 = u32::MAX - 3;

/// See the module. 8 B a probe.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    // When it was sent, in ms since the boot, as far as 32 bits hold it, and its round trip in µs or one of the codes.
    probes: VecDeque<(u32, u32)>,
}

impl Recorder {
    /// Adds a probe that was sent at `sent`.
    pub fn add(&mut self, sent: Uptime, seen: Seen) {
        let at = short(sent);
        while self.probes.len() >= PROBES_LIMIT || self.probes.front().is_some_and(|(old, _)| at.wrapping_sub(*old) > MEMORY_MS) {
            self.probes.pop_front();
        }
        let code = match seen {
            Seen::Reply { rtt_us } => rtt_us.min(NO_ADDRESS - 1),
            Seen::Timeout => TIMEOUT,
            Seen::Unreachable => UNREACHABLE,
            Seen::SendError => SEND_ERROR,
            Seen::NoAddress => NO_ADDRESS,
        };
        self.probes.push_back((at, code));
    }

    /// The newest probes, oldest first.
    pub fn newest(&self, now: Uptime) -> Vec<Trace> {
        let skip = self.probes.len().saturating_sub(TRACES_LIMIT);
        let trace = |(at, code): &(u32, u32)| Trace {
            ago_ms: short(now).wrapping_sub(*at),
            seen: match *code {
                TIMEOUT => Seen::Timeout,
                UNREACHABLE => Seen::Unreachable,
                SEND_ERROR => Seen::SendError,
                NO_ADDRESS => Seen::NoAddress,
                rtt_us => Seen::Reply { rtt_us },
            },
        };
        self.probes.iter().skip(skip).map(trace).collect()
    }
}

/// The low bits: differences of up to seven weeks are right.
fn short(at: Uptime) -> u32 {
    u32::try_from(at.0 & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_two_minutes_and_tells_the_newest() {
        let mut recorder = Recorder::default();
        // Across the moment at which 32 bits run over.
        let began = u64::from(u32::MAX) - 60_000;
        for n in 0..200 {
            recorder.add(Uptime(began + n * 1_000), if n < 198 { Seen::Reply { rtt_us: 300 } } else { Seen::Timeout });
        }
        assert_eq!(recorder.probes.len(), 121);
        let newest = recorder.newest(Uptime(began + 200_000));
        assert_eq!(newest.len(), TRACES_LIMIT);
        assert_eq!(newest[TRACES_LIMIT - 1], Trace { ago_ms: 1_000, seen: Seen::Timeout });
        assert_eq!(newest[TRACES_LIMIT - 3], Trace { ago_ms: 3_000, seen: Seen::Reply { rtt_us: 300 } });
    }

    #[test]
    fn a_fast_rule_fills_no_more_than_its_room() {
        let mut recorder = Recorder::default();
        for n in 0..2_000 {
            recorder.add(Uptime(n), Seen::SendError);
        }
        assert_eq!(recorder.probes.len(), PROBES_LIMIT);
    }
}

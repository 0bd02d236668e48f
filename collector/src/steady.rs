//! Whether the collector's own clock can be believed when it is suddenly far ahead. Pure.
//!
//! Agents learn the time from the collector's acks, and the ledger keeps what they date by it: the future would stay there
//! after the clock was set right. So a jump is believed only when something else speaks for it: what sets the machine's
//! clock, an agent whose own clock has gone on to the same time, or that it lasts.

use shared::{Millis, Uptime};

/// A clock that is this much further ahead than the machine has run, in ms, has jumped: no drift and no step of NTP's while
/// it works does that.
const JUMP_MS: i64 = 600_000;
/// A clock that has stayed ahead for so long, in ms, was meant to be set.
const LASTING_MS: u64 = 3_600_000;

/// See the module.
#[derive(Debug)]
pub struct Steady {
    /// When the clock was believed last.
    wall: Millis,
    uptime: Uptime,
    doubted_since: Option<Uptime>,
}

impl Steady {
    /// A clock that is believed.
    pub fn new(wall: Millis, uptime: Uptime) -> Self {
        Self { wall, uptime, doubted_since: None }
    }

    /// Whether the clock is ahead, and nothing speaks for that yet.
    pub fn is_in_doubt(&self) -> bool {
        self.doubted_since.is_some()
    }

    /// What time it is by how long the machine has run since its clock was believed last.
    pub fn due(&self, uptime: Uptime) -> Millis {
        self.wall.plus(i64::try_from(uptime.since(self.uptime)).unwrap_or(i64::MAX))
    }

    /// Whether a look at the clock may tell something new.
    pub fn is_worth_a_look(&self, wall: Millis, uptime: Uptime) -> bool {
        self.is_in_doubt() || wall.since(self.due(uptime)) > JUMP_MS
    }

    /// Looks at the clock: it shows `wall` after the machine has run for `uptime`. Whether it is believed.
    pub fn look(&mut self, wall: Millis, uptime: Uptime, is_vouched_for: bool) -> bool {
        let due = self.due(uptime);
        let has_lasted = self.doubted_since.is_some_and(|since| uptime.since(since) >= LASTING_MS);
        // A clock that was never set is no measure.
        let is_believed = wall.since(due) <= JUMP_MS || is_vouched_for || has_lasted || due < Millis::EARLIEST;
        if is_believed {
            *self = Self::new(wall, uptime);
        } else {
            self.doubted_since.get_or_insert(uptime);
        }
        is_believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Millis = Millis(1_795_442_400_000);

    #[test]
    fn a_clock_that_jumps_ahead_is_believed_once_something_speaks_for_it_or_it_lasts() {
        let hour = 3_600_000;
        let mut steady = Steady::new(T, Uptime(0));
        assert!(steady.look(T.plus(1_000 + JUMP_MS), Uptime(1_000), false), "a small step");
        let (wall, uptime) = (T.plus(1_000 + JUMP_MS), Uptime(1_000));
        assert!(steady.look(wall.plus(-hour), uptime, false), "set back");
        assert!(steady.look(wall.plus(-hour), uptime, false));
        assert!(!steady.look(wall, uptime, false) && steady.is_in_doubt());
        assert_eq!(steady.due(uptime.plus(5_000)), wall.plus(5_000 - hour), "it goes on as it was");
        assert!(steady.look(wall.plus(60_000 - hour), uptime.plus(60_000), false) && !steady.is_in_doubt(), "it is right again");
        assert!(!steady.look(wall.plus(60_000), uptime.plus(60_000), false));
        assert!(steady.look(wall.plus(61_000), uptime.plus(61_000), true), "NTP vouches for it");
        let ahead = |ms: u64| wall.plus(10 * hour + ms as i64);
        assert!(!steady.look(ahead(0), uptime.plus(61_000), false));
        assert!(!steady.look(ahead(LASTING_MS - 1), uptime.plus(61_000 + LASTING_MS - 1), false));
        assert!(steady.look(ahead(LASTING_MS), uptime.plus(61_000 + LASTING_MS), false), "somebody has set it");
    }

    #[test]
    fn a_machine_that_booted_in_1970_is_believed_when_it_hears_the_time() {
        assert!(Steady::new(Millis(5_000), Uptime(5_000)).look(T, Uptime(6_000), false));
    }
}

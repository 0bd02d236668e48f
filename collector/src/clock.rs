//! The only place that reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use shared::{BootId, Millis, Uptime};
pub use ward_agent::clock::uptime;

/// UTC now.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// One moment by the clock that anybody may set, and by the one that nobody can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// UTC.
    pub wall: Millis,
    /// This boot of the machine.
    pub boot: BootId,
    /// How long it has lasted.
    pub uptime: Uptime,
}

impl Moment {
    /// Now.
    ///
    /// # Errors
    /// When the kernel doesn't name its boot.
    pub fn now() -> Result<Self> {
        Ok(Self { wall: now(), boot: ward_agent::clock::boot_id()?, uptime: uptime() })
    }

    /// Whether the clock has gone on as it should since an earlier moment, and was not set back by more than `slack_ms`.
    /// After another boot nobody knows.
    pub fn follows(self, earlier: Self, slack_ms: i64) -> bool {
        let elapsed = self.uptime.0.checked_sub(earlier.uptime.0).and_then(|ms| i64::try_from(ms).ok());
        let due = elapsed.map(|ms| earlier.wall.plus(ms - slack_ms));
        self.boot == earlier.boot && due.is_some_and(|due| self.wall >= due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_does_not_follow_and_neither_does_another_boot() {
        let earlier = Moment { wall: Millis(1_000_000), boot: BootId(1), uptime: Uptime(5_000) };
        let later = Moment { wall: Millis(1_060_000), uptime: Uptime(65_000), ..earlier };
        assert!(later.follows(earlier, 2_000) && earlier.follows(earlier, 0));
        assert!(Moment { wall: Millis(1_058_000), ..later }.follows(earlier, 2_000), "it was steered");
        assert!(Moment { wall: Millis(9_000_000), ..later }.follows(earlier, 2_000), "set forward, things only look older");
        assert!(!Moment { wall: Millis(1_057_999), ..later }.follows(earlier, 2_000));
        assert!(!Moment { boot: BootId(2), ..later }.follows(earlier, 2_000));
        assert!(!Moment { uptime: Uptime(4_999), ..later }.follows(earlier, 2_000), "no such boot goes backwards");
        assert!(Moment::now().is_ok_and(|now| now.follows(now, 0)));
    }
}

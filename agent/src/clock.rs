//! The only place that reads a clock.

use std::time::Duration;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use shared::{BootId, Millis, Uptime};

/// Milliseconds since boot, time in suspend included. Nobody can set this clock.
pub fn uptime() -> Uptime {
    let t = clock_gettime(ClockId::Boottime);
    Uptime(t.tv_sec.unsigned_abs() * 1000 + t.tv_nsec.unsigned_abs() / 1_000_000)
}

/// Nanoseconds since some moment at boot, time in suspend left out: for round trips.
pub fn monotonic_ns() -> u64 {
    ns(clock_gettime(ClockId::Monotonic))
}

fn ns(t: rustix::time::Timespec) -> u64 {
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

/// How far the next full multiple of `tick_ms` is away, to the nanosecond: whoever waits for ticks shares the wake-up.
pub fn until_tick(tick_ms: u64) -> Duration {
    let tick_ns = tick_ms * 1_000_000;
    Duration::from_nanos(tick_ns - ns(clock_gettime(ClockId::Boottime)) % tick_ns)
}

/// One moment by two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Instants {
    monotonic_ns: u64,
    wall_ns: u64,
}

impl Instants {
    /// Now.
    pub fn now() -> Self {
        Self { monotonic_ns: monotonic_ns(), wall_ns: ns(clock_gettime(ClockId::Realtime)) }
    }

    /// How long after `sent` by the monotonic clock something arrived that the kernel has dated by the machine's clock, in
    /// ns: at most until this moment. That clock may have been set in between, so nothing is believed that can't be.
    pub fn elapsed_ns(self, sent: u64, arrived: Option<u64>) -> u64 {
        let since = arrived.and_then(|arrived| self.wall_ns.checked_sub(arrived)).unwrap_or(0);
        let elapsed = self.monotonic_ns.saturating_sub(sent);
        elapsed.checked_sub(since).unwrap_or(elapsed)
    }
}

/// The machine's clock and its greatest error in ms, while something like NTP vouches for it. A Pi has no battery clock:
/// without that it may be years off.
pub fn synchronised() -> Option<(Millis, u64)> {
    // SAFETY: zeroes are a valid `timex`, and with `modes` zero the kernel changes nothing and only writes to it.
    #[expect(unsafe_code, reason = "no safe wrapper reads what the kernel knows of its clock")]
    let (answer, state) = unsafe {
        let mut state: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut state), state)
    };
    let vouched_for = answer >= 0 && answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0;
    vouched_for.then(|| (wall(), state.maxerror.unsigned_abs().div_ceil(1_000)))
}

/// What the machine believes to be UTC.
pub fn wall() -> Millis {
    // By the C library, so that tests can set this program's clock and not the machine's.
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

/// The kernel's name for this boot.
pub fn boot_id() -> anyhow::Result<BootId> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map(BootId).with_context(|| format!("{path} holds {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_bends_no_round_trip_beyond_what_can_be() {
        let now = Instants { monotonic_ns: 1_000, wall_ns: 50_000 };
        assert_eq!(now.elapsed_ns(400, Some(49_900)), 500);
        assert_eq!(now.elapsed_ns(400, None), 600, "the kernel says nothing");
        assert_eq!(now.elapsed_ns(400, Some(51_000)), 600, "from ahead: the clock was set back");
        assert_eq!(now.elapsed_ns(400, Some(1_000)), 600, "from long before it was sent: the clock was set forward");
    }
}

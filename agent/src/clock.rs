//! The only place that reads a clock.

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use shared::{BootId, Millis, Uptime};

/// Milliseconds since boot, time in suspend included. Nobody can set this clock.
pub fn uptime() -> Uptime {
    let t = clock_gettime(ClockId::Boottime);
    Uptime(t.tv_sec.unsigned_abs() * 1000 + t.tv_nsec.unsigned_abs() / 1_000_000)
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

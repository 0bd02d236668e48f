//! The only place that reads a clock.

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use shared::{BootId, Millis, Uptime};

/// Milliseconds since boot, time in suspend included. Nobody can set this clock.
pub fn uptime() -> Uptime {
    let t = clock_gettime(ClockId::Boottime);
    Uptime(t.tv_sec.unsigned_abs() * 1000 + t.tv_nsec.unsigned_abs() / 1_000_000)
}

/// What the machine believes to be UTC. A Pi has no battery clock: it may be years off.
pub fn wall() -> Millis {
    let t = clock_gettime(ClockId::Realtime);
    Millis(t.tv_sec.saturating_mul(1000).saturating_add(t.tv_nsec / 1_000_000))
}

/// The kernel's name for this boot.
pub fn boot_id() -> anyhow::Result<BootId> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map(BootId).with_context(|| format!("{path} holds {text:?}"))
}

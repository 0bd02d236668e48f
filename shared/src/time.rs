//! Time as ward keeps it: UTC milliseconds where the truth is known, milliseconds since boot where it isn't yet.

use std::fmt;

use serde::{Deserialize, Serialize};

/// UTC in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Millis(pub i64);

impl Millis {
    /// 2024-01-01: ward did not exist before, so an earlier date is a clock that was never set.
    pub const EARLIEST: Self = Self(1_704_067_200_000);
    /// Length of the minutes that qualities are summed over.
    pub const MINUTE: i64 = 60_000;

    /// How far a date may lie ahead of the reader's clock, in ms, before it is a wrong clock and not a delay.
    pub const AHEAD_LIMIT_MS: i64 = 60_000;

    /// Whether this can be the date of something that has happened, read at `now`.
    pub fn is_plausible(self, now: Self) -> bool {
        self >= Self::EARLIEST && self.0 <= now.0.saturating_add(Self::AHEAD_LIMIT_MS)
    }

    /// This date moved by `ms`, held at the ends of the range instead of wrapping.
    pub fn plus(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this date; negative when it lies later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The full minute nearest to this date.
    pub fn nearest_minute(self) -> Self {
        Self(self.plus(Self::MINUTE / 2).0.div_euclid(Self::MINUTE) * Self::MINUTE)
    }
}

impl fmt::Display for Millis {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        let (h, m, s, milli) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{milli:03}Z")
    }
}

/// Year, month and day of a day counted from 1970-01-01, by Howard Hinnant's `civil_from_days`.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The days from 1970-01-01 to a date, by Howard Hinnant's `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

impl std::str::FromStr for Millis {
    type Err = TimeError;

    /// Reads integer milliseconds, or RFC 3339 with an offset or `Z`.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        if let Ok(ms) = text.parse::<i64>() {
            return Ok(Self(ms));
        }
        rfc3339(text).ok_or_else(|| TimeError(text.chars().take(40).collect()))
    }
}

/// A text is neither integer milliseconds nor RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: write 2026-11-23T14:00:00Z or integer UTC milliseconds")]
pub struct TimeError(String);

fn rfc3339(text: &str) -> Option<Millis> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = bytes.get(range)?;
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let is = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|b| set.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (h, m, s) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=month_days).contains(&day) || h > 23 || m > 59 || s > 59 {
        return None;
    }
    let mut at = 19;
    let mut ms = 0;
    if is(at, b".") {
        let end = (at + 1..bytes.len()).find(|i| !bytes[*i].is_ascii_digit())?;
        let mut fraction = digits(at + 1..end.min(at + 4))?;
        if end == at + 1 {
            return None;
        }
        for _ in end..at + 4 {
            fraction *= 10;
        }
        ms = fraction;
        at = end;
    }
    let offset_min = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let (oh, om) = (digits(at + 1..at + 3)?, digits(at + 4..at + 6)?);
            if oh > 23 || om > 59 {
                return None;
            }
            (oh * 60 + om) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let minutes = days_from_civil(year, month, day) * 1440 + h * 60 + m - offset_min;
    Some(Millis((minutes * 60 + s) * 1000 + ms))
}

/// Milliseconds since a machine's boot, on a clock that nobody sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Uptime(pub u64);

impl Uptime {
    /// This moment and `ms` more.
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment, zero when it lies later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What is known of the wall time of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dating {
    /// The boot's uptime clock read zero at `boot_at`, give or take `error_ms`.
    Fixed {
        /// When the machine booted.
        boot_at: Millis,
        /// Half the width of the interval that the true `boot_at` lies in.
        error_ms: u32,
    },
    /// The boot ended before it heard the time: its uptime clock read zero between these two.
    Bounds {
        /// It began no earlier.
        not_before: Millis,
        /// It began no later: so long before the next boot as it is known to have lived.
        not_after: Millis,
    },
}

impl Dating {
    /// The best date of a moment of this boot and the error of that date in ms.
    pub fn date(&self, at: Uptime) -> (Millis, u32) {
        match *self {
            Self::Fixed { boot_at, error_ms } => (boot_at.plus(i64::try_from(at.0).unwrap_or(i64::MAX)), error_ms),
            Self::Bounds { not_before, not_after } => {
                // The boot is taken to have begun in the middle: what happened in it keeps its distances.
                let half = not_after.since(not_before).max(0) / 2;
                let date = not_before.plus(half).plus(i64::try_from(at.0).unwrap_or(i64::MAX));
                (date, u32::try_from(half).unwrap_or(u32::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_and_read_as_rfc3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_709_164_800_123, "2024-02-29T00:00:00.123Z"),
            (1_795_442_400_000, "2026-11-23T14:00:00.000Z"),
        ] {
            assert_eq!(Millis(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Millis(ms)));
        }
        assert_eq!("2026-11-23T18:00:00+04:00".parse(), Ok(Millis(1_795_442_400_000)));
        assert_eq!("2026-11-23T14:00:00.5Z".parse(), Ok(Millis(1_795_442_400_500)));
        assert_eq!("1795442400000".parse(), Ok(Millis(1_795_442_400_000)));
        for bad in [
            "",
            "yesterday",
            "2026-02-29T00:00:00Z",
            "2026-11-23",
            "2026-11-23T14:00:00",
            "2026-13-01T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T14:00:00.Z",
            "2026-11-23T14:00:00+4",
            "2026-11-23T14:00:00Z ",
        ] {
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_round_trip() {
        for day in (-719_468..800_000).step_by(13) {
            let (y, m, d) = civil_from_days(day);
            assert_eq!(days_from_civil(y, m, d), day);
        }
    }

    #[test]
    fn a_date_of_1970_or_of_tomorrow_is_not_plausible() {
        let now = Millis(1_795_442_400_000);
        assert!(now.is_plausible(now));
        assert!(now.plus(59_000).is_plausible(now));
        assert!(!now.plus(61_000).is_plausible(now));
        assert!(!Millis(1_000).is_plausible(now));
        assert!(!Millis(i64::MAX).is_plausible(now));
    }

    #[test]
    fn a_boot_that_never_heard_the_time_is_dated_by_its_bounds() {
        let dating = Dating::Bounds { not_before: Millis(1_000), not_after: Millis(5_000) };
        assert_eq!(dating.date(Uptime(99)), (Millis(3_099), 2_000));
        assert_eq!(dating.date(Uptime(9_000)), (Millis(12_000), 2_000), "it may have lived for long");
        let fixed = Dating::Fixed { boot_at: Millis(1_000), error_ms: 7 };
        assert_eq!(fixed.date(Uptime(99)), (Millis(1_099), 7));
    }
}

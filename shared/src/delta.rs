//! What an agent reports: one thing that changed, or that was lost, in the order in which it became known.

use serde::{Deserialize, Serialize};

use crate::{BootId, Cause, DeviceId, Evidence, Flags, Mac, Status, StreamId, Uptime, Verdict};

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// When the agent knew it.
    pub at: Uptime,
    /// What it knew.
    pub body: Body,
}

impl Delta {
    /// How many sequence numbers this entry stands for: one, or all those whose content a [`Gap`] replaces.
    pub fn span(&self) -> u64 {
        match &self.body {
            Body::Gap(gap) => gap.span,
            Body::Boot(_) | Body::Transition(_) | Body::Qualities(_) | Body::Flagged(_) | Body::Identity(_) => 1,
        }
    }
}

/// The kinds of entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// A run of the agent began. Always the first entry of a stream.
    Boot(Boot),
    /// A device's status changed.
    Transition(Transition),
    /// How well devices answered, minute by minute.
    Qualities(Qualities),
    /// Entries that could not be kept.
    Gap(Gap),
    /// What may be said of a device beside its status changed.
    Flagged(Flagged),
    /// Which box answers at a device's address.
    Identity(Identity),
}

/// A run of the agent began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// The machine's boot.
    pub boot: BootId,
    /// The agent's version.
    pub version: String,
    /// The stream before, if this machine remembers one.
    pub previous: Option<Previous>,
}

/// The stream before this one, as far as the machine remembers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Previous {
    /// Its id.
    pub stream: StreamId,
    /// The last of its sequence numbers that is known to have been given out. After a power cut there may have been more.
    pub through: u64,
    /// Whether that run ended by itself, with all it knew on disk or acknowledged.
    pub clean: bool,
}

/// A confirmed change of a device's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The device.
    pub device: DeviceId,
    /// What it was.
    pub from: Status,
    /// What it is.
    pub to: Status,
    /// When that began: the first miss, or the first reply.
    pub onset: Uptime,
    /// The last reply before a down, which bounds the onset from the other side.
    pub last_ok: Option<Uptime>,
    /// Whose fault it is, of a failure.
    pub verdict: Option<Verdict>,
    /// What speaks for it. A state that is told anew has none.
    pub evidence: Option<Evidence>,
}

/// What may be said of a device beside its status, from `since` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flagged {
    /// The device.
    pub device: DeviceId,
    /// What may be said of it; all that isn't set is over.
    pub flags: Flags,
    /// From when on.
    pub since: Uptime,
}

/// Which box answers at a device's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The device.
    pub device: DeviceId,
    /// The link-layer address that the kernel knows for it.
    pub mac: Mac,
    /// Two boxes answer by turns.
    pub is_contested: bool,
}

/// How well devices answered over some minutes that follow one another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Qualities {
    /// The end of the first minute.
    pub first_end: Uptime,
    /// What one step of a round-trip time is, in µs.
    pub unit_us: u16,
    /// One column a device.
    pub columns: Vec<Column>,
}

/// The minutes of one device, packed: 2-5 B a minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// The device.
    pub device: DeviceId,
    /// Probes sent in each minute, as (value, how often in a row). Zero where nothing was observed.
    sent: Vec<(u16, u16)>,
    /// Probes without an answer in each minute, as (value, how often in a row).
    lost: Vec<(u16, u16)>,
    /// Average round trip of each minute with a reply, less that of the minute before, in units.
    average: Vec<i32>,
    /// How far the shortest lies below the average, in units.
    below: Vec<u32>,
    /// How far the longest lies above the average, in units.
    above: Vec<u32>,
    /// Mean difference between neighbouring round trips, in units.
    jitter: Vec<u32>,
}

/// How well one device answered over one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Minute {
    /// Probes whose outcome is known. Zero: nothing was observed.
    pub sent: u16,
    /// Of these, how many had no answer.
    pub lost: u16,
    /// Round trips, if there was any reply.
    pub rtt: Option<Rtt>,
}

/// Round trips of one minute, in µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rtt {
    /// The shortest.
    pub min_us: u32,
    /// The mean.
    pub avg_us: u32,
    /// The longest.
    pub max_us: u32,
    /// The mean difference between neighbouring round trips.
    pub jitter_us: u32,
}

/// Most minutes in one column: a block never covers more than a day.
pub const COLUMN_LIMIT_MINUTES: usize = 1440;

/// Why a column can't be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// Runs of `sent` and `lost` cover different numbers of minutes.
    #[error("a column's parts have different lengths")]
    Ragged,
    /// More minutes than [`COLUMN_LIMIT_MINUTES`].
    #[error("a column has more than {COLUMN_LIMIT_MINUTES} minutes")]
    TooLong,
    /// More lost than sent, a reply where none was sent, or a value out of range.
    #[error("a column's values contradict one another")]
    Contradiction,
}

/// Steps in which round trips are told, in µs.
const UNITS_US: [u16; 10] = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// The step, in µs, in which these minutes' round trips are told: the widest that is at most a fiftieth of a usual one. So a
/// value takes a byte, whether the device stands beside the agent or behind a satellite.
pub fn unit_us(minutes: &[Minute]) -> u16 {
    let mut averages: Vec<u32> = minutes.iter().filter_map(|minute| Some(minute.rtt?.avg_us)).collect();
    averages.sort_unstable();
    let usual = averages.get(averages.len() / 2).copied().unwrap_or(0);
    UNITS_US.into_iter().rev().find(|unit| u32::from(*unit) * 50 <= usual).unwrap_or(UNITS_US[0])
}

impl Column {
    /// Packs a device's minutes. Round trips lose what is finer than `unit_us`.
    pub fn pack(device: DeviceId, minutes: &[Minute], unit_us: u16) -> Self {
        let unit = u32::from(unit_us.max(1));
        let units = |us: u32| (us + unit / 2) / unit;
        let mut column = Self {
            device,
            sent: runs(minutes.iter().map(|m| m.sent)),
            lost: runs(minutes.iter().map(|m| m.lost)),
            average: Vec::new(),
            below: Vec::new(),
            above: Vec::new(),
            jitter: Vec::new(),
        };
        let mut before = 0;
        for rtt in minutes.iter().filter_map(|m| m.rtt) {
            let average = units(rtt.avg_us);
            column.average.push(average.cast_signed().wrapping_sub(before));
            before = average.cast_signed();
            column.below.push(average.saturating_sub(units(rtt.min_us)));
            column.above.push(units(rtt.max_us).saturating_sub(average));
            column.jitter.push(units(rtt.jitter_us));
        }
        column
    }

    /// The device's minutes.
    pub fn unpack(&self, unit_us: u16) -> Result<Vec<Minute>, ColumnError> {
        let unit = u32::from(unit_us.max(1));
        let length = |runs: &[(u16, u16)]| runs.iter().map(|(_, n)| usize::from(*n)).sum::<usize>();
        let minutes = length(&self.sent);
        if minutes > COLUMN_LIMIT_MINUTES {
            return Err(ColumnError::TooLong);
        }
        if length(&self.lost) != minutes {
            return Err(ColumnError::Ragged);
        }
        let mut replies = 0;
        let mut before = 0i32;
        let mut out = Vec::with_capacity(minutes);
        for (sent, lost) in spread(&self.sent).zip(spread(&self.lost)) {
            if lost > sent {
                return Err(ColumnError::Contradiction);
            }
            let rtt = if sent > lost {
                let at = |part: &[u32]| part.get(replies).copied().ok_or(ColumnError::Ragged);
                let step = *self.average.get(replies).ok_or(ColumnError::Ragged)?;
                before = before.wrapping_add(step);
                let average = u32::try_from(before).map_err(|_| ColumnError::Contradiction)?;
                let min = average.checked_sub(at(&self.below)?).ok_or(ColumnError::Contradiction)?;
                let us = |units: u32| units.checked_mul(unit).ok_or(ColumnError::Contradiction);
                let max = average.checked_add(at(&self.above)?).ok_or(ColumnError::Contradiction)?;
                let rtt = Rtt { min_us: us(min)?, avg_us: us(average)?, max_us: us(max)?, jitter_us: us(at(&self.jitter)?)? };
                replies += 1;
                Some(rtt)
            } else {
                None
            };
            out.push(Minute { sent, lost, rtt });
        }
        let parts = [self.average.len(), self.below.len(), self.above.len(), self.jitter.len()];
        if parts.iter().any(|len| *len != replies) {
            return Err(ColumnError::Ragged);
        }
        Ok(out)
    }
}

fn runs(values: impl Iterator<Item = u16>) -> Vec<(u16, u16)> {
    let mut out: Vec<(u16, u16)> = Vec::new();
    for value in values {
        match out.last_mut() {
            Some((last, n)) if *last == value && *n < u16::MAX => *n += 1,
            Some(_) | None => out.push((value, 1)),
        }
    }
    out
}

fn spread(runs: &[(u16, u16)]) -> impl Iterator<Item = u16> {
    runs.iter().flat_map(|(value, n)| std::iter::repeat_n(*value, usize::from(*n)))
}

/// Entries that could not be kept, said with how many and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// How many sequence numbers it stands for.
    pub span: u64,
    /// Nothing before this moment is missing.
    pub from: Uptime,
    /// Nothing after this moment is missing.
    pub to: Uptime,
    /// Why.
    pub reason: GapReason,
    /// What it held.
    pub dropped: Dropped,
}

/// Why entries could not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GapReason {
    /// The buffer's byte limit was reached.
    BufferFull,
    /// A group on disk didn't have the content that was written.
    Corrupted,
}

impl GapReason {
    /// The reason as the API and the ledger write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BufferFull => "buffer_full",
            Self::Corrupted => "corrupted",
        }
    }
}

/// How many entries of each kind were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dropped {
    /// Transitions.
    pub transitions: u64,
    /// Device-minutes of quality.
    pub minutes: u64,
    /// Entries whose kind can't be known any more.
    pub unreadable: u64,
}

impl Dropped {
    /// Adds another loss to this one.
    pub fn add(&mut self, other: Self) {
        self.transitions = self.transitions.saturating_add(other.transitions);
        self.minutes = self.minutes.saturating_add(other.minutes);
        self.unreadable = self.unreadable.saturating_add(other.unreadable);
    }
}

impl Qualities {
    /// Device-minutes held.
    pub fn minutes(&self) -> u64 {
        self.columns.iter().flat_map(|c| &c.sent).map(|(_, n)| u64::from(*n)).sum()
    }
}

/// The status that a device has before its agent has reached a verdict.
pub const UNOBSERVED: Status = Status::Unknown(Cause::NeverObserved);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device() -> DeviceId {
        "vake-atm-1".parse().expect("a valid id")
    }

    fn minute() -> impl Strategy<Value = Minute> {
        (0u16..200, 0u16..200, prop::array::uniform4(0u32..5_000_000)).prop_map(|(sent, lost, mut us)| {
            let lost = lost.min(sent);
            us[..3].sort_unstable();
            let rtt = Rtt { min_us: us[0], avg_us: us[1], max_us: us[2], jitter_us: us[3] };
            Minute { sent, lost, rtt: (sent > lost).then_some(rtt) }
        })
    }

    #[test]
    fn a_minute_takes_at_most_five_bytes_however_far_the_device_is() {
        // A fixed sequence that looks random.
        let mut state = 1u32;
        let mut upto = |most: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % most
        };
        for usual_us in [300, 2_000, 30_000, 600_000] {
            let mut minute = || {
                let avg_us = usual_us * 9 / 10 + upto(usual_us / 5);
                let rtt = Rtt {
                    min_us: avg_us - upto(usual_us / 2),
                    avg_us,
                    max_us: avg_us + upto(usual_us),
                    jitter_us: upto(usual_us / 3),
                };
                Minute { sent: 30, lost: 0, rtt: Some(rtt) }
            };
            let minutes: Vec<Minute> = (0..60).map(|_| minute()).collect();
            let unit = unit_us(&minutes);
            assert!(u32::from(unit) * 20 <= usual_us.max(200), "{unit} us is too coarse for {usual_us} us");
            let bytes = postcard::to_stdvec(&Column::pack(device(), &minutes, unit)).expect("serialisable").len();
            assert!(bytes <= 5 * minutes.len(), "{bytes} B for {} minutes of {usual_us} us", minutes.len());
        }
        assert_eq!((unit_us(&[]), unit_us(&[Minute::default()])), (10, 10));
    }

    proptest! {
        #[test]
        fn minutes_survive_packing_to_the_unit(minutes in prop::collection::vec(minute(), 0..40), unit in 1u16..200) {
            let back = Column::pack(device(), &minutes, unit).unpack(unit).expect("what was packed");
            prop_assert_eq!(back.len(), minutes.len());
            for (a, b) in minutes.iter().zip(&back) {
                prop_assert_eq!((a.sent, a.lost), (b.sent, b.lost));
                let near = |x: u32, y: u32| x.abs_diff(y) <= u32::from(unit);
                match (a.rtt, b.rtt) {
                    (None, None) => {}
                    (Some(x), Some(y)) => prop_assert!(near(x.min_us, y.min_us) && near(x.avg_us, y.avg_us)
                        && near(x.max_us, y.max_us) && near(x.jitter_us, y.jitter_us)),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_quiet_device_minute_takes_at_most_five_bytes() {
        let minutes: Vec<Minute> = (0..15)
            .map(|i| Minute {
                sent: 30,
                lost: 0,
                rtt: Some(Rtt { min_us: 280, avg_us: 410 + i * 7, max_us: 900, jitter_us: 60 }),
            })
            .collect();
        let bytes = postcard::to_stdvec(&Column::pack(device(), &minutes, 10)).expect("serialisable");
        let without_name = bytes.len() - device().as_str().len();
        assert!(without_name <= 15 * 5, "{without_name} B for 15 minutes");
    }

    #[test]
    fn contradicting_columns_are_refused() {
        let good = Column::pack(device(), &[Minute { sent: 3, lost: 1, rtt: Some(Rtt::default()) }], 10);
        assert!(good.unpack(10).is_ok());
        let cases = [
            (Column { lost: vec![(4, 1)], ..good.clone() }, ColumnError::Contradiction),
            (Column { lost: vec![(1, 2)], ..good.clone() }, ColumnError::Ragged),
            (Column { average: vec![], ..good.clone() }, ColumnError::Ragged),
            (Column { jitter: vec![1, 2], ..good.clone() }, ColumnError::Ragged),
            (Column { below: vec![9], ..good.clone() }, ColumnError::Contradiction),
            (Column { above: vec![u32::MAX], ..good.clone() }, ColumnError::Contradiction),
            (Column { sent: vec![(3, 1441)], lost: vec![(1, 1441)], ..good.clone() }, ColumnError::TooLong),
        ];
        for (column, error) in cases {
            assert_eq!(column.unpack(10), Err(error), "{column:?}");
        }
    }
}

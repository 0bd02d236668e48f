//! Whose fault silence is: a device's, or the agent's own.
//!
//! Pure. When a device falls silent, others are asked at once: some of the branch's devices, the gateway, and the broker.
//! Where one of them answers, the device is down. Where none does, or the agent's own cable is out, nobody can say what
//! the devices are.

use shared::{Uptime, Verdict};

/// So many others have to be silent as well before the agent takes itself for isolated.
pub const WITNESSES: usize = 2;
/// How long to wait for witnesses beyond a device's own confirmation, in ms. Without any by then the device is down: a
/// failure that isn't told is worse than one that is told of the wrong party.
const PATIENCE_MS: u64 = 2_000;

/// What is known of everybody but the device that fell silent, since it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whether the interface towards the device has a carrier, where that can be told.
    pub carrier: Option<bool>,
    /// Somebody else has answered what was asked since.
    pub is_heard: bool,
    /// How many others were asked since and did not answer.
    pub silent: usize,
    /// How many others there are to ask.
    pub others: usize,
    /// The broker has yet to be asked, or to answer.
    pub is_broker_open: bool,
    /// The device is reached by a way of its own, as a provider's line is, so that the carrier is that of this way alone.
    pub has_own_way: bool,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The device's: it is down.
    Device,
    /// The agent's: it is cut off from the branch, and its devices are unknown.
    Agent,
    /// That isn't known yet.
    Open,
}

/// Weighs what is known at `now` of a silence that began at `onset` and is long enough to be told.
pub fn judge(evidence: &Evidence, onset: Uptime, now: Uptime) -> Finding {
    let Evidence { carrier, is_heard, silent, others, is_broker_open, has_own_way } = *evidence;
    if carrier == Some(false) && !has_own_way {
        return Finding::Agent;
    }
    if is_heard || others < WITNESSES {
        return Finding::Device;
    }
    let is_late = now.since(onset) > PATIENCE_MS + 2_000;
    match silent >= WITNESSES {
        true if is_broker_open && !is_late => Finding::Open,
        true => Finding::Agent,
        false if is_late => Finding::Device,
        false => Finding::Open,
    }
}

/// What another device has to do with one that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Other {
    /// Both hang on the same device, or one on the other.
    pub is_kin: bool,
    /// It has answered what was asked since the other fell silent.
    pub is_heard: bool,
    /// It fell silent at about the same time, and still is.
    pub is_silent: bool,
}

/// So many devices, of which nobody knows what they hang on, have to fall silent together to be no coincidence.
const TOGETHER: usize = 3;

/// Whose fault it is that a device is down, by what became of the others at that time.
pub fn blame(others: impl Iterator<Item = Other>) -> Verdict {
    let (mut kin_silent, mut kin_heard, mut silent, mut heard) = (0, 0, 0, 0);
    for Other { is_kin, is_heard, is_silent } in others {
        if is_heard {
            heard += 1;
            kin_heard += usize::from(is_kin);
        } else if is_silent {
            silent += 1;
            kin_silent += usize::from(is_kin);
        }
    }
    let is_shared = match kin_silent + kin_heard {
        // Nothing is known of what it hangs on: many at a time are no coincidence, unless as many go on.
        0 => silent + 1 >= TOGETHER && silent >= heard,
        _ => kin_silent > 0 && kin_heard == 0,
    };
    if is_shared { Verdict::LanFault } else { Verdict::DeviceDown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(evidence: Evidence, after_ms: u64, expected: Finding) {
        assert_eq!(judge(&evidence, Uptime(10_000), Uptime(10_000 + after_ms)), expected, "{evidence:?} after {after_ms} ms");
    }

    #[test]
    fn a_device_is_down_where_anybody_else_answers() {
        check(Evidence { is_heard: true, silent: 30, others: 31, ..Evidence::default() }, 1_500, Finding::Device);
        check(Evidence { carrier: Some(true), is_heard: true, others: 1, ..Evidence::default() }, 1_500, Finding::Device);
    }

    #[test]
    fn without_a_carrier_nothing_is_known_of_any_device() {
        check(Evidence { carrier: Some(false), others: 0, ..Evidence::default() }, 0, Finding::Agent);
        check(Evidence { carrier: Some(false), is_heard: true, others: 9, ..Evidence::default() }, 0, Finding::Agent);
    }

    #[test]
    fn a_line_without_a_carrier_is_down_where_anybody_answers_by_another_way() {
        let line = Evidence { carrier: Some(false), has_own_way: true, others: 3, ..Evidence::default() };
        check(Evidence { is_heard: true, ..line }, 1_500, Finding::Device);
        check(line, 1_500, Finding::Open);
        check(Evidence { silent: 2, ..line }, 1_500, Finding::Agent);
    }

    #[test]
    fn where_nobody_answers_the_agent_is_isolated() {
        check(Evidence { silent: 2, others: 2, ..Evidence::default() }, 1_500, Finding::Agent);
        check(Evidence { silent: 2, others: 9, is_broker_open: true, ..Evidence::default() }, 1_500, Finding::Open);
        check(Evidence { silent: 2, others: 9, is_broker_open: true, ..Evidence::default() }, 4_100, Finding::Agent);
    }

    /// Others: h is heard, s is silent, ? neither; capitals for those that hang on the same device.
    fn check_blame(others: &str, expected: Verdict) {
        let other = |sign: char| Other {
            is_kin: sign.is_uppercase(),
            is_heard: sign.eq_ignore_ascii_case(&'h'),
            is_silent: sign.eq_ignore_ascii_case(&'s'),
        };
        assert_eq!(blame(others.chars().map(other)), expected, "{others}");
    }

    #[test]
    fn devices_that_fall_silent_together_have_something_in_common() {
        for (others, expected) in [
            ("", Verdict::DeviceDown),
            ("hhh", Verdict::DeviceDown),
            ("SShh", Verdict::LanFault),
            ("S?hh", Verdict::LanFault),
            ("SSHh", Verdict::DeviceDown),
            ("Hss", Verdict::DeviceDown),
            ("sh", Verdict::DeviceDown),
            ("ssh", Verdict::LanFault),
            ("sshhh", Verdict::DeviceDown),
        ] {
            check_blame(others, expected);
        }
    }

    #[test]
    fn a_failure_is_told_even_where_nobody_can_be_asked() {
        check(Evidence { others: 1, silent: 1, ..Evidence::default() }, 1_500, Finding::Device);
        check(Evidence { others: 5, silent: 1, ..Evidence::default() }, 1_500, Finding::Open);
        check(Evidence { others: 5, silent: 1, ..Evidence::default() }, 4_100, Finding::Device);
    }
}

//! Whose fault a failure is, and what speaks for that: it travels with the transition and stays with it in the ledger.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Status;

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The device's own: others beside it answer.
    DeviceDown,
    /// That of what several devices hang on, such as a switch: they fell silent together while others answer.
    LanFault,
    /// The agent's: its own cable or gateway is gone, and nobody answers it.
    AgentIsolated,
    /// The branch's line to the centre was cut while the agent went on.
    WanCut,
    /// The agent's machine lost its power.
    PowerCut,
}

impl Verdict {
    /// The verdict as the API and the ledger write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeviceDown => "device_down",
            Self::LanFault => "lan_fault",
            Self::AgentIsolated => "agent_isolated",
            Self::WanCut => "wan_cut",
            Self::PowerCut => "power_cut",
        }
    }
}

/// Most probes that one piece of evidence tells of.
pub const TRACES_LIMIT: usize = 32;
/// Most bytes of one piece of evidence.
pub const EVIDENCE_LIMIT_BYTES: usize = 1_000;

/// What an agent saw around a transition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// The newest probes of the device, oldest first, at most [`TRACES_LIMIT`].
    pub probes: Vec<Trace>,
    /// How the gateway last answered; nothing where there is none or it wasn't asked.
    pub gateway: Option<Seen>,
    /// What the branch's other devices were.
    pub neighbours: Neighbours,
    /// Whether the interface towards the device had a carrier, where the kernel says so.
    pub carrier: Option<bool>,
    /// What the kernel's neighbour table had for the device's address.
    pub mac: Option<Mac>,
}

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// How long before the entry it was sent, in ms.
    pub ago_ms: u32,
    /// What became of it.
    pub seen: Seen,
}

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// An answer after so many µs.
    Reply {
        /// Round trip in µs.
        rtt_us: u32,
    },
    /// No answer in time.
    Timeout,
    /// Word that it can't be reached.
    Unreachable,
    /// It could not be sent.
    SendError,
    /// The device's name doesn't resolve.
    NoAddress,
}

impl Seen {
    /// The outcome as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reply { .. } => "reply",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::SendError => "send_error",
            Self::NoAddress => "no_address",
        }
    }

    /// Round trip in µs, if it was answered.
    pub fn rtt_us(self) -> Option<u32> {
        match self {
            Self::Reply { rtt_us } => Some(rtt_us),
            Self::Timeout | Self::Unreachable | Self::SendError | Self::NoAddress => None,
        }
    }
}

/// How many of a branch's other devices were what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Neighbours {
    /// They answered.
    pub up: u16,
    /// They did not, or had just begun not to.
    pub down: u16,
    /// Nobody could say.
    pub unknown: u16,
}

impl Evidence {
    /// Whether it is no larger than it may be.
    pub fn is_sound(&self) -> bool {
        self.probes.len() <= TRACES_LIMIT
    }
}

/// Why a transition was told, in a sentence or two for people.
pub fn reason(to: Status, verdict: Option<Verdict>, evidence: Option<&Evidence>) -> String {
    let mut text = match (to, verdict) {
        (Status::Up, _) => "it answers".to_owned(),
        (_, Some(Verdict::DeviceDown)) => "the device itself does not answer".to_owned(),
        (_, Some(Verdict::LanFault)) => {
            "several devices fell silent together: look at the switch or the cable that they share".to_owned()
        }
        (_, Some(Verdict::AgentIsolated)) => "nobody answers the agent: look at its own cable and switch port".to_owned(),
        (_, Some(Verdict::WanCut)) => "the branch's line to the centre was cut".to_owned(),
        (_, Some(Verdict::PowerCut)) => "the agent's machine lost its power".to_owned(),
        (Status::Down, None) => "it does not answer".to_owned(),
        (Status::Unknown(cause), None) => format!("nobody can say: {}", cause.as_str()),
    };
    let Some(Evidence { probes, gateway, neighbours, carrier, .. }) = evidence else { return text };
    let lost = probes.iter().rev().take_while(|probe| probe.seen.rtt_us().is_none()).count();
    if to != Status::Up && lost > 0 {
        text.push_str(&format!("; {lost} probes in a row without an answer"));
    }
    if *carrier == Some(false) {
        text.push_str("; the agent's interface has no carrier");
    }
    match gateway {
        Some(Seen::Reply { rtt_us }) => text.push_str(&format!("; the gateway answers in {} ms", rtt_us.div_ceil(1_000))),
        Some(_) => text.push_str("; the gateway does not answer"),
        None => {}
    }
    let Neighbours { up, down, unknown } = *neighbours;
    if up + down + unknown > 0 {
        text.push_str(&format!("; of the other devices {up} answer, {down} do not"));
    }
    text
}

/// What may be said of a device beside its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Flags(u8);

impl Flags {
    /// More probes are lost than the rule allows.
    pub const DEGRADED_LOSS: Self = Self(1);
    /// Round trips are longer than the rule allows.
    pub const DEGRADED_LATENCY: Self = Self(2);
    /// Another box answers at its address than before, or two do.
    pub const IDENTITY_CHANGED: Self = Self(4);
    /// Every flag with its name.
    pub const NAMED: [(Self, &'static str); 3] = [
        (Self::DEGRADED_LOSS, "degraded_loss"),
        (Self::DEGRADED_LATENCY, "degraded_latency"),
        (Self::IDENTITY_CHANGED, "identity_changed"),
    ];

    /// Whether all of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those of `other`, where `on`.
    #[must_use]
    pub fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
    }

    /// As bits; those that have no name are left out.
    pub fn bits(self) -> u8 {
        self.0 & 7
    }

    /// From bits.
    pub fn of_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// The names of those that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }
}

/// A link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a link-layer address is six bytes in hex with colons";
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(WRONG)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| WRONG)?;
        }
        if parts.next().is_some() { Err(WRONG) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;

    #[test]
    fn the_fullest_evidence_stays_below_a_kilobyte() {
        let probe = Trace { ago_ms: u32::MAX, seen: Seen::Reply { rtt_us: u32::MAX } };
        let full = Evidence {
            probes: vec![probe; TRACES_LIMIT],
            gateway: Some(Seen::Reply { rtt_us: u32::MAX }),
            neighbours: Neighbours { up: u16::MAX, down: u16::MAX, unknown: u16::MAX },
            carrier: Some(true),
            mac: Some(Mac([0xff; 6])),
        };
        let bytes = postcard::to_stdvec(&full).expect("serialisable").len();
        assert!(full.is_sound() && bytes <= EVIDENCE_LIMIT_BYTES, "{bytes} B");
        assert!(!Evidence { probes: vec![probe; TRACES_LIMIT + 1], ..full }.is_sound());
    }

    #[test]
    fn a_reason_says_what_was_seen() {
        let trace = |seen| Trace { ago_ms: 0, seen };
        let evidence = Evidence {
            probes: vec![trace(Seen::Reply { rtt_us: 300 }), trace(Seen::Timeout), trace(Seen::Timeout), trace(Seen::Timeout)],
            gateway: Some(Seen::Reply { rtt_us: 700 }),
            neighbours: Neighbours { up: 5, down: 1, unknown: 0 },
            carrier: Some(true),
            mac: None,
        };
        assert_eq!(
            reason(Status::Down, Some(Verdict::DeviceDown), Some(&evidence)),
            "the device itself does not answer; 3 probes in a row without an answer; the gateway answers in 1 ms; of the \
             other devices 5 answer, 1 do not"
        );
        assert_eq!(reason(Status::Unknown(Cause::DnsFailure), None, None), "nobody can say: dns_failure");
    }

    #[test]
    fn flags_and_addresses_are_written_and_read() {
        let flags = Flags::default().with(Flags::DEGRADED_LOSS, true).with(Flags::IDENTITY_CHANGED, true);
        assert_eq!(flags.names().collect::<Vec<_>>(), ["degraded_loss", "identity_changed"]);
        assert_eq!(Flags::of_bits(flags.with(Flags::DEGRADED_LOSS, false).bits()), Flags::IDENTITY_CHANGED);
        assert_eq!("02:00:5e:10:00:ff".parse::<Mac>().expect("good").to_string(), "02:00:5e:10:00:ff");
        for bad in ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "2:0:5e:10:0:f", "zz:00:5e:10:00:ff"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}

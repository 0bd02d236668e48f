//! What a device can be said to be.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a device answers. Unknown is never up and never down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// It answers.
    Up,
    /// It was asked and doesn't answer.
    Down,
    /// Nobody can say, and why.
    Unknown(Cause),
}

/// Why nobody can say whether a device answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// No verdict has been reached since the device was added or its agent started.
    NeverObserved,
    /// The collector hasn't heard from the branch's agent.
    AgentSilent,
    /// The agent's own carrier or gateway is gone.
    AgentIsolated,
    /// The agent couldn't send its probes.
    ProbeError,
    /// The device's name doesn't resolve.
    DnsFailure,
    /// Probing is suspended.
    Paused,
}

impl Status {
    /// `up`, `down` or `unknown`, as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The cause, when nobody can say.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Up | Self::Down => None,
            Self::Unknown(cause) => Some(cause),
        }
    }
}

impl Cause {
    /// The cause as the API and the ledger write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverObserved => "never_observed",
            Self::AgentSilent => "agent_silent",
            Self::AgentIsolated => "agent_isolated",
            Self::ProbeError => "probe_error",
            Self::DnsFailure => "dns_failure",
            Self::Paused => "paused",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(cause) => write!(f, "unknown({})", cause.as_str()),
            Self::Up | Self::Down => f.write_str(self.as_str()),
        }
    }
}

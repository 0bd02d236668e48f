//! Topics: `ward/1/<branch>/<lane>`, so that a broker's ACL can hold an agent to its own branch.

use crate::BranchId;

/// First part of every topic, with the protocol's version.
pub const ROOT: &str = "ward/1";

/// What a topic of a branch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Batches from the agent, QoS 1.
    Up,
    /// Heartbeats from the agent, QoS 0.
    Live,
    /// Whether the agent is connected, retained.
    Presence,
    /// Acks from the collector.
    Ack,
    /// Config from the collector, retained.
    Config,
    /// Questions from the collector.
    Ask,
    /// Answers from the agent, QoS 0.
    Answer,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 7] = [Self::Up, Self::Live, Self::Presence, Self::Ack, Self::Config, Self::Ask, Self::Answer];

    /// The lane's name in a topic.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Live => "live",
            Self::Presence => "presence",
            Self::Ack => "ack",
            Self::Config => "config",
            Self::Ask => "ask",
            Self::Answer => "answer",
        }
    }

    /// The topic of this lane for one branch.
    pub fn topic(self, branch: &BranchId) -> String {
        format!("{ROOT}/{branch}/{}", self.as_str())
    }

    /// The filter that matches this lane for every branch.
    pub fn filter(self) -> String {
        format!("{ROOT}/+/{}", self.as_str())
    }
}

/// The branch and lane of a topic, if it is one of ward's.
pub fn parse(topic: &str) -> Option<(BranchId, Lane)> {
    let (branch, lane) = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/')?;
    let lane = Lane::ALL.into_iter().find(|known| known.as_str() == lane)?;
    Some((branch.parse().ok()?, lane))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_names_its_branch_and_lane() {
        let vake: BranchId = "vake".parse().expect("a valid id");
        for lane in Lane::ALL {
            assert_eq!(parse(&lane.topic(&vake)), Some((vake.clone(), lane)));
        }
        for other in
            ["", "ward/1", "ward/1/vake", "ward/1/vake/up/x", "ward/2/vake/up", "ward/1//up", "ward/1/v+/up", "ward/1/vake/UP"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}

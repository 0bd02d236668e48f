//! What each agent is told: its devices and how to probe them.

use shared::message::{Config, ProbeRule, Target};
use shared::{BranchId, Millis, wire};
use ward_agent::settings::Reporting;

use crate::inventory::Device;
use crate::settings::Rollout;

/// The config of a branch with these devices.
pub fn config<'a>(rollout: &Rollout, branch: &BranchId, devices: impl Iterator<Item = &'a Device>) -> Config {
    let mut rules: Vec<ProbeRule> = Vec::new();
    let mut targets = Vec::new();
    for device in devices {
        let rule = rollout.rules_by_type.get(&device.device_type).copied().unwrap_or(rollout.rule);
        let at = rules.iter().position(|known| *known == rule).unwrap_or_else(|| {
            rules.push(rule);
            rules.len() - 1
        });
        targets.push(Target { device: device.id.clone(), address: device.ip, rule: u16::try_from(at).unwrap_or(u16::MAX) });
    }
    let Reporting { heartbeat_ms, qualities_ms: report_ms } = rollout.reporting_of(branch);
    Config { version: 0, heartbeat_ms, report_ms, rules, targets }
}

/// Gives a config the version it had when it last was the same, or a new one that is higher than any before.
///
/// Versions are dates in ms, so that they keep growing after the collector's file was restored from a backup.
pub fn versioned(mut config: Config, before: (u64, u32), now: Millis) -> (Config, u32) {
    config.version = 0;
    let crc = wire::encode(&config).map_or(0, |bytes| checksum(&bytes));
    let (version, known) = before;
    config.version = if version > 0 && known == crc { version } else { now.0.unsigned_abs().max(version + 1) };
    (config, crc)
}

/// The checksum that every payload ends with.
fn checksum(payload: &[u8]) -> u32 {
    payload.last_chunk::<4>().map_or(0, |tail| u32::from_le_bytes(*tail))
}

/// A config on its way to its branch.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The branch.
    pub branch: BranchId,
    /// What its agent is to do.
    pub config: Config,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, device_type: &str) -> Device {
        Device {
            id: id.parse().expect("a valid id"),
            name: id.to_owned(),
            branch: "vake".parse().expect("a valid id"),
            device_type: device_type.to_owned(),
            ip: [127, 0, 0, 1].into(),
        }
    }

    fn vake() -> BranchId {
        "vake".parse().expect("a valid id")
    }

    #[test]
    fn a_branch_on_a_metered_line_speaks_less_often() {
        let rollout = Rollout { metered: [vake()].into(), ..Rollout::default() };
        let times = |branch: &str| {
            let config = config(&rollout, &branch.parse().expect("a valid id"), std::iter::empty());
            (config.heartbeat_ms, config.report_ms)
        };
        assert_eq!((times("vake"), times("saburtalo")), ((280_000, 3_600_000), (24_000, 600_000)));
    }

    #[test]
    fn a_type_with_a_rule_of_its_own_is_probed_by_it() {
        let slow = ProbeRule { interval_ms: 10_000, ..ProbeRule::default() };
        let rollout = Rollout { rules_by_type: [("atm".to_owned(), slow)].into(), ..Rollout::default() };
        let config = config(&rollout, &vake(), [device("a", "router"), device("b", "atm"), device("c", "nvr")].iter());
        assert_eq!(config.rules, [ProbeRule::default(), slow]);
        assert_eq!(config.targets.iter().map(|t| t.rule).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn a_config_keeps_its_version_until_it_changes() {
        let make = |devices: &[Device]| config(&Rollout::default(), &vake(), devices.iter());
        let (first, crc) = versioned(make(&[device("a", "atm")]), (0, 0), Millis(1_000));
        assert_eq!(first.version, 1_000);
        let (same, _) = versioned(make(&[device("a", "atm")]), (first.version, crc), Millis(2_000));
        assert_eq!(same.version, 1_000);
        let (more, _) = versioned(make(&[device("a", "atm"), device("b", "atm")]), (5_000, crc), Millis(2_000));
        assert_eq!(more.version, 5_001);
    }
}

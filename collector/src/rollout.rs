//! What each agent is told: its devices and how to probe them.

use std::collections::HashSet;

use shared::message::{Config, Host, ProbeRule, Target};
use shared::{BranchId, DeviceId, Millis, wire};
use ward_agent::settings::Reporting;

use crate::inventory::Device;
use crate::settings::Rollout;

/// What devices hang on where nothing else is said: the only one of this type in their branch.
const SWITCH: &str = "switch";
/// What such devices don't hang on a switch.
const ROUTER: &str = "router";

/// The config of a branch with these devices.
pub fn config<'a>(rollout: &Rollout, branch: &BranchId, devices: impl Iterator<Item = &'a Device>) -> Config {
    let devices: Vec<&Device> = devices.collect();
    let mut switches = devices.iter().filter(|device| device.device_type == SWITCH);
    let only_switch = switches.next().filter(|_| switches.next().is_none()).map(|device| &device.id);
    let ids: HashSet<&DeviceId> = devices.iter().map(|device| &device.id).collect();
    let mut rules: Vec<ProbeRule> = Vec::new();
    let mut targets = Vec::new();
    for device in &devices {
        let manner = rollout.manner_of(&device.id, &device.device_type);
        let rule = fitting(manner.rule());
        let at = rules.iter().position(|known| *known == rule).unwrap_or_else(|| {
            rules.push(rule);
            rules.len() - 1
        });
        let (id, at) = (device.id.clone(), u16::try_from(at).unwrap_or(u16::MAX));
        let host = Host::Address(device.ip);
        let mut target = manner.target(id.clone(), host, at).unwrap_or_else(|_| Target::ping(id, device.ip, at));
        let on_switch = only_switch.filter(|_| device.device_type != ROUTER && manner.uplink.is_none());
        // One that was taken out of the inventory, or stands in another branch, is nobody's.
        let parent = manner.parent().or(on_switch).filter(|parent| **parent != device.id && ids.contains(parent));
        target.parent = parent.cloned();
        targets.push(target);
    }
    let Reporting { heartbeat_ms, qualities_ms: report_ms } = rollout.reporting_of(branch);
    Config { version: 0, heartbeat_ms, report_ms, rules, targets }
}

/// A rule whose times fit together: a device's and its type's may each be good and not go together.
fn fitting(rule: ProbeRule) -> ProbeRule {
    ProbeRule { timeout_ms: rule.timeout_ms.min(rule.interval_ms), retry_ms: rule.retry_ms.min(rule.interval_ms), ..rule }
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
        let text = "[broker]\nembedded = \"127.0.0.1:1\"\n[probe.type.atm]\ninterval = \"10s\"\n";
        let rollout = crate::settings::Settings::parse("c", text).expect("good").rollout;
        let config = config(&rollout, &vake(), [device("a", "router"), device("b", "atm"), device("c", "nvr")].iter());
        assert_eq!(config.rules, [ProbeRule::default(), slow]);
        assert_eq!(config.targets.iter().map(|t| t.rule).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn devices_hang_on_the_only_switch_of_their_branch_unless_something_else_is_said() {
        let text =
            "[broker]\nembedded = \"127.0.0.1:1\"\n[probe.device.d]\nparent = \"a\"\n[probe.device.e]\nparent = \"gone\"\n";
        let rollout = crate::settings::Settings::parse("c", text).expect("good").rollout;
        let parents = |devices: &[Device]| {
            let config = config(&rollout, &vake(), devices.iter());
            let parent = |target: &Target| target.parent.as_ref().map_or("-".to_owned(), ToString::to_string);
            config.targets.iter().map(parent).collect::<Vec<_>>().join(" ")
        };
        let mut devices =
            vec![device("a", "switch"), device("b", "atm"), device("c", "router"), device("d", "atm"), device("e", "atm")];
        assert_eq!(parents(&devices), "- a - a -", "one that isn't there is none");
        devices.push(device("f", "switch"));
        assert_eq!(parents(&devices), "- - - a - -");
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

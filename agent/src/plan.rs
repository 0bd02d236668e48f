//! What to probe now: a config that has been checked, each target with its rule.

use std::net::IpAddr;

use shared::message::{Config, ProbeRule, Target};
use shared::{DeviceId, Millis};

/// Least and greatest probe interval in ms.
pub const INTERVAL_MS: std::ops::RangeInclusive<u32> = 500..=3_600_000;

/// Most targets of one agent.
pub const TARGETS_LIMIT: usize = 20_000;

/// A config that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The config's version, zero for the one in the agent's own file.
    pub version: u64,
    /// How long in ms the agent may say nothing.
    pub heartbeat_ms: u32,
    /// How often in ms qualities are reported.
    pub report_ms: u32,
    /// What to probe.
    pub targets: Vec<Planned>,
}

/// One target and its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The device.
    pub device: DeviceId,
    /// Where it is.
    pub address: IpAddr,
    /// How to probe it.
    pub rule: ProbeRule,
}

/// Why a config can't be put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A target names a rule that isn't there.
    #[error("device {0} has no rule")]
    NoRule(DeviceId),
    /// A device stands there twice.
    #[error("device {0} is listed twice")]
    Twice(DeviceId),
    /// Two devices have one address.
    #[error("devices {0} and {1} have the same address")]
    SameAddress(DeviceId, DeviceId),
    /// A rule can't be followed.
    #[error("rule {0}: {1}")]
    Rule(usize, &'static str),
    /// More than [`TARGETS_LIMIT`] targets.
    #[error("{0} targets are over the limit of {TARGETS_LIMIT}")]
    TooMany(usize),
    /// The reporting times are out of range.
    #[error("heartbeat and report must lie between 1 s and 1 h")]
    Reporting,
}

/// What is wrong with a rule, if anything.
pub fn check_rule(rule: &ProbeRule) -> Result<(), &'static str> {
    if !INTERVAL_MS.contains(&rule.interval_ms) {
        return Err("interval must lie between 500ms and 1h");
    }
    if !(10..=rule.interval_ms).contains(&rule.timeout_ms) {
        return Err("timeout must lie between 10ms and the interval");
    }
    if !(100..=rule.interval_ms).contains(&rule.retry_ms) {
        return Err("retry must lie between 100ms and the interval");
    }
    if rule.fall == 0 || rule.rise == 0 {
        return Err("fall and rise must be at least 1");
    }
    Ok(())
}

impl TryFrom<&Config> for Plan {
    type Error = PlanError;

    fn try_from(config: &Config) -> Result<Self, PlanError> {
        if config.targets.len() > TARGETS_LIMIT {
            return Err(PlanError::TooMany(config.targets.len()));
        }
        for reporting in [config.heartbeat_ms, config.report_ms] {
            if !(1_000..=3_600_000).contains(&reporting) {
                return Err(PlanError::Reporting);
            }
        }
        for (i, rule) in config.rules.iter().enumerate() {
            check_rule(rule).map_err(|what| PlanError::Rule(i, what))?;
        }
        let targets = config.targets.iter().map(|target| planned(target, &config.rules)).collect::<Result<Vec<_>, _>>()?;
        check_unique(&targets)?;
        Ok(Self { version: config.version, heartbeat_ms: config.heartbeat_ms, report_ms: config.report_ms, targets })
    }
}

fn planned(target: &Target, rules: &[ProbeRule]) -> Result<Planned, PlanError> {
    let Some(rule) = rules.get(usize::from(target.rule)) else {
        return Err(PlanError::NoRule(target.device.clone()));
    };
    Ok(Planned { device: target.device.clone(), address: target.address, rule: *rule })
}

fn check_unique(targets: &[Planned]) -> Result<(), PlanError> {
    let mut devices = std::collections::HashSet::new();
    let mut addresses = std::collections::HashMap::new();
    for target in targets {
        if !devices.insert(&target.device) {
            return Err(PlanError::Twice(target.device.clone()));
        }
        if let Some(other) = addresses.insert(target.address, &target.device) {
            return Err(PlanError::SameAddress(other.clone(), target.device.clone()));
        }
    }
    Ok(())
}

impl Plan {
    /// How far the end of the minute that `now` lies in is away, in ms.
    pub fn until_minute_ends(now: Millis) -> u64 {
        u64::try_from(Millis::MINUTE - now.0.rem_euclid(Millis::MINUTE)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(targets: &[(&str, [u8; 4], u16)]) -> Config {
        let target = |(id, address, rule): &(&str, [u8; 4], u16)| Target {
            device: id.parse().expect("a valid id"),
            address: (*address).into(),
            rule: *rule,
        };
        Config {
            version: 1,
            heartbeat_ms: 20_000,
            report_ms: 60_000,
            rules: vec![ProbeRule::default()],
            targets: targets.iter().map(target).collect(),
        }
    }

    #[test]
    fn a_config_that_contradicts_itself_is_refused_with_the_device() {
        let text = |config: &Config| Plan::try_from(config).expect_err("refused").to_string();
        assert!(Plan::try_from(&config(&[("a", [127, 0, 0, 1], 0)])).is_ok());
        assert_eq!(text(&config(&[("a", [127, 0, 0, 1], 1)])), "device a has no rule");
        assert_eq!(text(&config(&[("a", [127, 0, 0, 1], 0), ("a", [127, 0, 0, 2], 0)])), "device a is listed twice");
        let same = config(&[("a", [127, 0, 0, 1], 0), ("b", [127, 0, 0, 1], 0)]);
        assert_eq!(text(&same), "devices a and b have the same address");
        let mut slow = config(&[]);
        slow.rules[0].interval_ms = 3_600_001;
        assert_eq!(text(&slow), "rule 0: interval must lie between 500ms and 1h");
        let many = Config { targets: vec![config(&[("a", [127, 0, 0, 1], 0)]).targets[0].clone(); 20_001], ..config(&[]) };
        assert_eq!(text(&many), "20001 targets are over the limit of 20000");
        assert_eq!(text(&Config { heartbeat_ms: 0, ..config(&[]) }), "heartbeat and report must lie between 1 s and 1 h");
    }
}

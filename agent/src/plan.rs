//! What to probe now: a config that has been checked, each target with its rule.

use std::collections::HashMap;

use shared::message::{Config, Host, NAME_LIMIT_BYTES, PATH_LIMIT_BYTES, Probe, ProbeRule, Target, Via};
use shared::{DeviceId, Millis};

use crate::probe::Asked;

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
    pub host: Host,
    /// What it is asked.
    pub probe: Probe,
    /// By which way.
    pub via: Option<Via>,
    /// The place of what it hangs on among the targets.
    pub parent: Option<usize>,
    /// How to probe it.
    pub rule: ProbeRule,
}

impl Planned {
    /// A device that is pinged at an address.
    pub fn ping(device: DeviceId, address: std::net::IpAddr, rule: ProbeRule) -> Self {
        Self { device, host: Host::Address(address), probe: Probe::Icmp, via: None, parent: None, rule }
    }

    /// Whether both are the same thing at the same place: what is known of the one is then known of the other.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.device, &self.host, &self.probe, &self.via) == (&other.device, &other.host, &other.probe, &other.via)
    }

    /// What one probe of it is to do; where it is behind a name, that is not known yet.
    pub fn asked(&self) -> Asked {
        let (address, name) = match &self.host {
            Host::Address(address) => (*address, None),
            Host::Name(name) => (std::net::Ipv4Addr::UNSPECIFIED.into(), Some(name.as_str().into())),
        };
        Asked { address, name, probe: self.probe.clone(), via: self.via.clone() }
    }
}

/// Most probes of one round.
pub const PACKETS_LIMIT: u8 = 20;

/// Why a config can't be put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A target names a rule that isn't there.
    #[error("device {0} has no rule")]
    NoRule(DeviceId),
    /// A device stands there twice.
    #[error("device {0} is listed twice")]
    Twice(DeviceId),
    /// Two devices are asked the same at one address.
    #[error("devices {0} and {1} have the same address")]
    SameAddress(DeviceId, DeviceId),
    /// A target can't be asked that.
    #[error("device {0}: {1}")]
    Target(DeviceId, &'static str),
    /// A target hangs on what isn't there, or on itself.
    #[error("device {0} hangs on {1}, which is no other device here")]
    Parent(DeviceId, DeviceId),
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
    if !(1..=PACKETS_LIMIT).contains(&rule.packets) {
        return Err("packets must lie between 1 and 20");
    }
    if rule.loss_percent > 100 {
        return Err("loss must be at most 100");
    }
    if rule.fall == 0 || rule.rise == 0 {
        return Err("fall and rise must be at least 1");
    }
    Ok(())
}

/// What is wrong with a target, if anything.
pub fn check_target(host: &Host, probe: &Probe, via: Option<&Via>) -> Result<(), &'static str> {
    match host {
        Host::Address(address) => shared::message::check_address(*address)?,
        Host::Name(name) => check_name(name).map_err(|()| "host must be a name such as \"atm.example.com\"")?,
    }
    let check_port = |port: u16| if port == 0 { Err("port must lie between 1 and 65535") } else { Ok(()) };
    match probe {
        Probe::Icmp => {}
        Probe::Tcp { port } => check_port(*port)?,
        Probe::Http { port, path, status, .. } => {
            check_port(*port)?;
            if !path.starts_with('/') || path.len() > PATH_LIMIT_BYTES || path.chars().any(|c| c.is_control() || c == ' ') {
                return Err("path must begin with / and hold no spaces");
            }
            if !(100..600).contains(&status.0) || !(status.0..600).contains(&status.1) {
                return Err("status must be such as \"200-399\"");
            }
        }
        Probe::Dns { port, name } => {
            check_port(*port)?;
            check_name(name).map_err(|()| "query must be a name such as \"example.com\"")?;
        }
    }
    match via {
        None => Ok(()),
        Some(Via::Source(address)) => shared::message::check_address(*address),
        Some(Via::Interface(name)) if (1..16).contains(&name.len()) && !name.contains(['/', '\0']) => Ok(()),
        Some(Via::Interface(_)) => Err("interface must have 1 to 15 characters"),
    }
}

fn check_name(name: &str) -> Result<(), ()> {
    let is_label =
        |label: &str| (1..64).contains(&label.len()) && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let is_good = name.len() <= NAME_LIMIT_BYTES && name.trim_end_matches('.').split('.').all(is_label);
    if is_good { Ok(()) } else { Err(()) }
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
        let places: HashMap<&DeviceId, usize> =
            config.targets.iter().enumerate().map(|(at, target)| (&target.device, at)).collect();
        let plan = |target| planned(target, &config.rules, &places);
        let targets = config.targets.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
        check_unique(&targets)?;
        Ok(Self { version: config.version, heartbeat_ms: config.heartbeat_ms, report_ms: config.report_ms, targets })
    }
}

fn planned(target: &Target, rules: &[ProbeRule], places: &HashMap<&DeviceId, usize>) -> Result<Planned, PlanError> {
    let Some(rule) = rules.get(usize::from(target.rule)) else {
        return Err(PlanError::NoRule(target.device.clone()));
    };
    let Target { device, host, probe, via, .. } = target.clone();
    check_target(&host, &probe, via.as_ref()).map_err(|what| PlanError::Target(device.clone(), what))?;
    let parent = match &target.parent {
        None => None,
        Some(parent) => match places.get(parent).filter(|_| *parent != device) {
            Some(at) => Some(*at),
            None => return Err(PlanError::Parent(device, parent.clone())),
        },
    };
    Ok(Planned { device, host, probe, via, parent, rule: *rule })
}

fn check_unique(targets: &[Planned]) -> Result<(), PlanError> {
    let mut devices = std::collections::HashSet::new();
    let mut addresses = HashMap::new();
    for target in targets {
        if !devices.insert(&target.device) {
            return Err(PlanError::Twice(target.device.clone()));
        }
        if let Some(other) = addresses.insert((&target.host, &target.probe, &target.via), &target.device) {
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
        let target =
            |(id, address, rule): &(&str, [u8; 4], u16)| Target::ping(id.parse().expect("a valid id"), (*address).into(), *rule);
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
        let mut odd = config(&[("a", [127, 0, 0, 1], 0), ("b", [127, 0, 0, 1], 0)]);
        odd.targets[1].probe = Probe::Tcp { port: 22 };
        assert!(Plan::try_from(&odd).is_ok(), "one box, two questions");
        odd.targets[1].parent = Some("a".parse().expect("a valid id"));
        assert_eq!(Plan::try_from(&odd).expect("good").targets[1].parent, Some(0));
        odd.targets[1].parent = Some("c".parse().expect("a valid id"));
        assert_eq!(text(&odd), "device b hangs on c, which is no other device here");
        odd.targets[1].probe = Probe::Tcp { port: 0 };
        assert_eq!(text(&odd), "device b: port must lie between 1 and 65535");
        odd.targets[1].host = Host::Name("a b".into());
        assert_eq!(text(&odd), "device b: host must be a name such as \"atm.example.com\"");
        let mut slow = config(&[]);
        slow.rules[0].interval_ms = 3_600_001;
        assert_eq!(text(&slow), "rule 0: interval must lie between 500ms and 1h");
        let many = Config { targets: vec![config(&[("a", [127, 0, 0, 1], 0)]).targets[0].clone(); 20_001], ..config(&[]) };
        assert_eq!(text(&many), "20001 targets are over the limit of 20000");
        assert_eq!(text(&Config { heartbeat_ms: 0, ..config(&[]) }), "heartbeat and report must lie between 1 s and 1 h");
    }
}

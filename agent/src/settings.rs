//! The agent's config file.

use std::net::IpAddr;
use std::path::PathBuf;

use shared::message::{Config, Host, ProbeRule, Target, check_address};
use shared::settings::{Mistakes, Section, read};
use shared::{BranchId, DeviceId};

use crate::enrol;
use crate::manner::Manner;

/// The TCP port of a collector's enrolment unless its config names another.
pub const ENROLMENT_PORT: u16 = 8884;

/// What `agent.toml` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The branch that this agent stands in.
    pub branch: BranchId,
    /// Where the agent keeps its buffer and the last good config.
    pub state_dir: PathBuf,
    /// The broker to report to.
    pub broker: Broker,
    /// Most bytes of the buffer on disk.
    pub buffer_limit_bytes: u64,
    /// Who gives this box its certificates, if it has joined by a code.
    pub enrolment: Option<Enrolment>,
    /// How builds are tried.
    pub update: Update,
    /// What to probe until the collector has sent its list.
    pub local: Config,
}

/// How long builds are tried before they are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// Beside the program in force, in ms; as long a build must get on in its place.
    pub shadow_ms: u32,
    /// For so long, in ms, the collector may hear nothing of a build that is tried although it can be reached.
    pub trial_ms: u32,
}

impl Default for Update {
    fn default() -> Self {
        Self { shadow_ms: 60_000, trial_ms: 300_000 }
    }
}

/// Where a box gets its next certificate, and whose configs it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Name or address of the collector.
    pub host: String,
    /// TCP port of its enrolment.
    pub port: u16,
    /// What configs must be signed by: a public key of Ed25519.
    pub config_key: [u8; 32],
}

/// How often an agent speaks while nothing happens. Changes are told at once in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reporting {
    /// Longest silence in ms.
    pub heartbeat_ms: u32,
    /// Time between two reports of qualities in ms.
    pub qualities_ms: u32,
}

impl Reporting {
    /// Made for a megabyte a day for seven devices; `tests/bench budget` measures it.
    pub const DEFAULT: Self = Self { heartbeat_ms: 24_000, qualities_ms: 600_000 };
    /// Made for 150 kilobytes a day for seven devices, where each costs money.
    pub const METERED: Self = Self { heartbeat_ms: 280_000, qualities_ms: 3_600_000 };

    /// Reads a `[report]` table; what is missing is as in `base`.
    pub fn read(section: &Section<'_>, base: Self) -> Option<Self> {
        let heartbeat_ms = section.duration_ms("heartbeat", base.heartbeat_ms, 1_000..=3_600_000);
        let qualities_ms = section.duration_ms("qualities", base.qualities_ms, 1_000..=3_600_000);
        Some(Self { heartbeat_ms: heartbeat_ms?, qualities_ms: qualities_ms? })
    }
}

/// A broker and how to reach it.
#[derive(Debug, Clone, PartialEq)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Certificates. Without them only loopback is spoken to.
    pub tls: Option<TlsFiles>,
}

/// PEM files for mutual TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsFiles {
    /// Who may vouch for the broker.
    pub ca: PathBuf,
    /// This program's own certificate chain.
    pub certificate: PathBuf,
    /// The key to it.
    pub key: PathBuf,
}

impl Settings {
    /// Reads a config file's text; `file` is what mistakes call it.
    ///
    /// # Errors
    /// All mistakes in it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Mistakes> {
        read(file, text, |root| {
            let branch = root.required("branch");
            let state_dir = root.text("state_dir").unwrap_or_else(|| "/var/lib/ward-agent".to_owned());
            let broker = broker(root);
            let limit_mb = root.table("buffer", |buffer| buffer.whole("limit_mb", 64u32, 8..=4096)).unwrap_or(64);
            let report = root.table("report", |report| Reporting::read(report, Reporting::DEFAULT));
            let Reporting { heartbeat_ms, qualities_ms: report_ms } = report.unwrap_or(Reporting::DEFAULT);
            let enrolment = root.table("enrolment", enrolment);
            let update = root.table("update", update).unwrap_or_default();
            let none = Manner::default();
            let base = if root.has("probe") { root.table("probe", |probe| Manner::of_many(probe, &none)) } else { Some(none) };
            let (rules, targets) = devices(root, &base.clone().unwrap_or_default());
            base?;
            Some(Self {
                branch: branch?,
                state_dir: state_dir.into(),
                broker: broker?,
                buffer_limit_bytes: u64::from(limit_mb) * 1024 * 1024,
                enrolment,
                update,
                local: Config { version: 0, heartbeat_ms, report_ms, rules, targets },
            })
        })
    }
}

fn broker(root: &Section<'_>) -> Option<Broker> {
    if !root.has("broker") {
        root.mistake("broker", "missing: [broker] with host and port");
    }
    root.table("broker", external_broker)
}

/// Reads a broker's host, port and certificates. Without certificates only this machine is spoken to.
pub fn external_broker(section: &Section<'_>) -> Option<Broker> {
    let host = section.required::<String>("host");
    let tls = section.table("tls", tls);
    let port = section.whole("port", if section.has("tls") { 8883u16 } else { 1883 }, 1..=65_535);
    let host = host?;
    if !section.has("tls") && !is_loopback(&host) {
        section.mistake("host", format!("{host} is not on this machine, so [broker.tls] is needed: ca, certificate, key"));
        return None;
    }
    Some(Broker { host, port: port?, tls })
}

/// Reads a broker whose certificates come from the program's own authority unless they are named.
pub fn broker_of_authority(section: &Section<'_>) -> Option<Broker> {
    let host = section.required::<String>("host");
    let tls = section.table("tls", tls);
    let port = section.whole("port", 8883u16, 1..=65_535);
    Some(Broker { host: host?, port: port?, tls })
}

/// Whether a host is this machine for certain.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Reads a table of TLS files.
fn tls(section: &Section<'_>) -> Option<TlsFiles> {
    let path = |key| section.required::<PathBuf>(key);
    let (ca, certificate, key) = (path("ca"), path("certificate"), path("key"));
    Some(TlsFiles { ca: ca?, certificate: certificate?, key: key? })
}

fn enrolment(section: &Section<'_>) -> Option<Enrolment> {
    let (host, port) = (section.required::<String>("host"), section.whole("port", ENROLMENT_PORT, 1..=65_535));
    let config_key = section.required::<String>("config_key")?;
    let Some(config_key) = enrol::from_hex(&config_key) else {
        section.mistake("config_key", "must be 64 hexadecimal digits, as ward-agent join has written them");
        return None;
    };
    Some(Enrolment { host: host?, port: port?, config_key })
}

fn update(section: &Section<'_>) -> Option<Update> {
    let usual = Update::default();
    let shadow_ms = section.duration_ms("shadow", usual.shadow_ms, 5_000..=3_600_000);
    let trial_ms = section.duration_ms("trial", usual.trial_ms, 10_000..=86_400_000);
    Some(Update { shadow_ms: shadow_ms?, trial_ms: trial_ms? })
}

fn devices(root: &Section<'_>, base: &Manner) -> (Vec<ProbeRule>, Vec<Target>) {
    let mut rules = vec![base.rule()];
    let mut seen: Vec<Target> = Vec::new();
    root.tables("device", |section| {
        let device = section.required::<DeviceId>("id");
        let address = if section.has("host") { Some(None) } else { section.required::<IpAddr>("address").map(Some) };
        let manner = Manner::of_one(section, base);
        let (device, address, manner) = (device?, address?, manner?.over(base));
        if let Some(Err(what)) = address.map(check_address) {
            section.mistake("address", format!("{} {what}", address.map_or(String::new(), |address| address.to_string())));
        }
        let rule = manner.rule();
        let at = rules.iter().position(|known| *known == rule).unwrap_or_else(|| {
            rules.push(rule);
            rules.len() - 1
        });
        let host = Host::Address(address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()));
        let target = manner.target(device.clone(), host, u16::try_from(at).unwrap_or(u16::MAX)).ok()?;
        let is_same = |other: &&Target| (&other.host, &other.probe, &other.via) == (&target.host, &target.probe, &target.via);
        if seen.iter().any(|other| other.device == device) {
            section.mistake("id", format!("{device} is listed twice"));
        } else if let Some(other) = seen.iter().find(is_same) {
            let key = if address.is_some() { "address" } else { "host" };
            section.mistake(key, format!("{} is already the address of {}", target.host, other.device));
        } else {
            seen.push(target);
        }
        Some(())
    });
    for target in &seen {
        if let Some(parent) = target.parent.as_ref().filter(|parent| !seen.iter().any(|other| other.device == **parent)) {
            root.mistake("device", format!("{} hangs on {parent}, which is no device here", target.device));
        }
    }
    (rules, seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
branch = "vake"
[broker]
host = "127.0.0.1"
"#;

    fn mistakes(text: &str) -> String {
        Settings::parse("agent.toml", text).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_smallest_config_has_the_documented_defaults() {
        let settings = Settings::parse("agent.toml", GOOD).expect("good");
        assert_eq!(settings.broker, Broker { host: "127.0.0.1".into(), port: 1883, tls: None });
        assert_eq!(settings.buffer_limit_bytes, 64 * 1024 * 1024);
        assert_eq!(settings.state_dir, PathBuf::from("/var/lib/ward-agent"));
        assert_eq!(settings.local.rules, [ProbeRule::default()]);
        assert_eq!((settings.local.heartbeat_ms, settings.local.report_ms), (24_000, 600_000));
    }

    #[test]
    fn the_shipped_example_is_a_good_config_with_every_key() {
        let text = include_str!("../../systemd/agent.example.toml");
        Settings::parse("agent.example.toml", text).expect("the example");
        let every = [
            "branch",
            "state_dir",
            "host",
            "port",
            "ca",
            "certificate",
            "key",
            "limit_mb",
            "heartbeat",
            "qualities",
            "interval",
            "timeout",
            "retry",
            "fall",
            "rise",
            "packets",
            "loss",
            "latency",
            "kind",
            "path",
            "status",
            "query",
            "source",
            "interface",
            "parent",
            "id",
            "address",
            "config_key",
            "shadow",
            "trial",
        ];
        let docs = include_str!("../../docs/config.md");
        for key in every {
            assert!(text.contains(&format!("{key} =")), "{key} in the example");
            assert!(docs.contains(&format!("`{key}`")), "{key} in docs/config.md");
        }
    }

    #[test]
    fn plain_tcp_leaves_the_machine_for_nobody() {
        let text = GOOD.replace("127.0.0.1", "10.0.0.5");
        assert_eq!(
            mistakes(&text),
            "agent.toml:4: broker.host: 10.0.0.5 is not on this machine, so [broker.tls] is needed: ca, certificate, key"
        );
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let text = format!(
            "{GOOD}colour = 1\n[probe]\ninterval = \"1s\"\ntimeout = \"2s\"\n[[device]]\nid = \"a\"\naddress = \"127.0.0.300\"\n\
             [[device]]\nid = \"b\"\naddress = \"127.0.0.2\"\n[[device]]\nid = \"c\"\naddress = \"127.0.0.2\"\n[[device]]\nid = \"b\"\naddress = \"127.0.0.3\"\n"
        );
        assert_eq!(
            mistakes(&text),
            "agent.toml:5: broker.colour: unknown key; known here: host, port, tls\n\
             agent.toml:8: probe.timeout: must lie between 10ms and the interval\n\
             agent.toml:11: device[1].address: invalid IP address syntax\n\
             agent.toml:17: device[3].address: 127.0.0.2 is already the address of b\n\
             agent.toml:19: device[4].id: b is listed twice"
        );
        assert_eq!(mistakes(""), "agent.toml:1: the file is empty");
        assert_eq!(mistakes("branch = \"a\"\n"), "agent.toml:1: broker: missing: [broker] with host and port");
    }
}

//! The collector's config file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::enrolment::desk::Terms;
use crate::fleet::Silence;
use crate::proxies::Network;
use crate::store::Queue;
use shared::settings::{Mistakes, Section, read};
use shared::{BranchId, DeviceId};
use ward_agent::manner::Manner;
use ward_agent::settings::{Broker, ENROLMENT_PORT, Reporting, broker_of_authority, external_broker};

/// What `collector.toml` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where the collector keeps its own file.
    pub data_dir: PathBuf,
    /// Where agents report to.
    pub broker: BrokerChoice,
    /// Where boxes join, if the collector has an authority of its own.
    pub enrolment: Option<Enrolment>,
    /// The HTTP server.
    pub api: Api,
    /// Where series go, if they go anywhere.
    pub victoria_metrics: Option<VictoriaMetrics>,
    /// Where several collectors share answers of VictoriaMetrics, if they do.
    pub shared_cache: Option<SharedCache>,
    /// When a branch counts as silent.
    pub silent_after_ms: u32,
    /// How agents report and probe.
    pub rollout: Rollout,
}

/// Where boxes get their certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How boxes reach the collector and the broker.
    pub host: String,
    /// How long a box's certificate counts, in ms.
    pub lifetime_ms: i64,
}

/// Which broker agents and collector meet at.
#[derive(Debug, Clone, PartialEq)]
pub enum BrokerChoice {
    /// One inside this process, on loopback.
    Embedded(SocketAddr),
    /// A server of its own, such as mosquitto.
    External(Broker),
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it shows to speak TLS; plain HTTP without it.
    pub certificate: Option<CertificateFiles>,
    /// File that holds the token that callers must show; made at the first start if it is missing.
    pub token_file: Option<PathBuf>,
    /// IANA name of the time zone of calendar months and days.
    pub time_zone: String,
    /// Proxies whose word on who asks is taken.
    pub trusted_proxies: Vec<Network>,
}

/// PEM files of what a server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and the chain to its authority.
    pub certificate: PathBuf,
    /// The key to it.
    pub key: PathBuf,
}

/// Servers of VictoriaMetrics that all hold the same.
#[derive(Debug, Clone, PartialEq)]
pub struct VictoriaMetrics {
    /// Where they are, at least one; the first ones are rather asked.
    pub endpoints: Vec<Endpoint>,
    /// Most bytes of samples that wait for those of them that are away.
    pub queue_limit_bytes: u64,
}

impl VictoriaMetrics {
    /// What waits for them.
    pub fn queue(&self) -> Queue {
        let readers = self.endpoints.iter().map(|endpoint| endpoint.name().to_owned()).collect();
        Queue { readers, limit_bytes: self.queue_limit_bytes }
    }
}

/// Where a VictoriaMetrics is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    name: String,
}

impl Endpoint {
    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL without a name and a password, for everybody to see.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Err("must begin with http:// or https://".to_owned());
        }
        let mut url = reqwest::Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must end before any ? or #: the collector adds its own paths".to_owned());
        }
        // A URL with a host takes both.
        let _ = (url.set_username(""), url.set_password(None));
        Ok(Self { url: text.trim_end_matches('/').to_owned(), name: url.as_str().trim_end_matches('/').to_owned() })
    }
}

/// A Valkey or a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedCache {
    /// Where it is, without a password.
    pub url: String,
    /// File with the password, if it asks for one.
    pub password_file: Option<PathBuf>,
    /// File with the CA that vouches for it; without it the machine's own CAs do.
    pub ca: Option<PathBuf>,
    /// What all names there begin with.
    pub prefix: String,
}

/// What agents are told beside their devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// How often agents speak.
    pub reporting: Reporting,
    /// Branches on lines where each kilobyte costs money: their agents speak as [`Reporting::METERED`] says.
    pub metered: BTreeSet<BranchId>,
    /// How to probe all devices.
    pub usual: Manner,
    /// What is otherwise for devices of a type.
    pub by_type: BTreeMap<String, Manner>,
    /// What is otherwise for one device.
    pub by_device: BTreeMap<DeviceId, Manner>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            reporting: Reporting::DEFAULT,
            metered: BTreeSet::new(),
            usual: Manner::default(),
            by_type: BTreeMap::new(),
            by_device: BTreeMap::new(),
        }
    }
}

/// When a branch counts as silent unless the config says otherwise, in ms.
pub const SILENT_AFTER_MS: u32 = 30_000;
/// When a branch on a metered line counts as silent, in ms, unless all branches may be silent for longer.
pub const METERED_SILENT_AFTER_MS: u32 = 300_000;

impl Rollout {
    /// How to probe a device of a type.
    pub fn manner_of(&self, device: &DeviceId, device_type: &str) -> Manner {
        let of_type = self.by_type.get(device_type).cloned().unwrap_or_default().over(&self.usual);
        self.by_device.get(device).cloned().unwrap_or_default().over(&of_type)
    }

    /// How often the agent of a branch speaks.
    pub fn reporting_of(&self, branch: &BranchId) -> Reporting {
        if self.metered.contains(branch) { Reporting::METERED } else { self.reporting }
    }
}

impl Enrolment {
    /// What boxes are told; the broker listens at `broker_port`.
    pub fn terms(&self, broker_port: u16) -> Terms {
        Terms { host: self.host.clone(), port: self.listen.port(), broker_port, lifetime_ms: self.lifetime_ms }
    }
}

impl Settings {
    /// When each branch counts as silent.
    pub fn silence(&self) -> Silence {
        let slow = METERED_SILENT_AFTER_MS.max(self.silent_after_ms);
        let by_branch = self.rollout.metered.iter().map(|branch| (branch.clone(), slow)).collect();
        Silence { after_ms: self.silent_after_ms, by_branch }
    }

    /// Reads a config file's text; `file` is what mistakes call it.
    ///
    /// # Errors
    /// All mistakes in it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Mistakes> {
        read(file, text, |root| {
            let data_dir = root.text("data_dir").unwrap_or_else(|| "/var/lib/ward-collector".to_owned());
            if !root.has("broker") {
                root.mistake("broker", "missing: [broker] with embedded = \"127.0.0.1:1883\", or with host and port");
            }
            let enrolment = root.table("enrolment", enrolment);
            let broker = root.table("broker", |section| broker(section, root.has("enrolment")));
            let api = if root.has("api") { root.table("api", api) } else { Some(default_api()) };
            let victoria = root.table("victoria_metrics", victoria);
            let shared_cache = root.table("shared_cache", shared_cache);
            if shared_cache.is_some() && !root.has("victoria_metrics") {
                root.mistake("shared_cache", "keeps answers of VictoriaMetrics: [victoria_metrics] is missing");
            }
            let silent = root.table("fleet", |fleet| fleet.duration_ms("silent_after", SILENT_AFTER_MS, 2_000..=3_600_000));
            let silent_after_ms = silent.unwrap_or(SILENT_AFTER_MS);
            let rollout = rollout(root, silent_after_ms);
            let settings = Self {
                data_dir: data_dir.into(),
                broker: broker?,
                enrolment,
                api: api?,
                victoria_metrics: victoria,
                shared_cache,
                silent_after_ms,
                rollout: rollout?,
            };
            if settings.silent_after_ms <= settings.rollout.reporting.heartbeat_ms {
                root.mistake("fleet", "silent_after must be longer than report.heartbeat, or every branch would be silent");
            }
            Some(settings)
        })
    }
}

/// How long a box's certificate counts unless the config says otherwise. It is renewed after two thirds of that.
const LIFETIME_DAYS: u32 = 90;

/// Most servers of VictoriaMetrics: each is sent everything.
const ENDPOINTS_LIMIT: usize = 8;

/// The time zone of calendar months where none is set.
const TIME_ZONE: &str = "UTC";

fn default_api() -> Api {
    Api {
        listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
        certificate: None,
        token_file: None,
        time_zone: TIME_ZONE.to_owned(),
        trusted_proxies: Vec::new(),
    }
}

fn broker(section: &Section<'_>, has_authority: bool) -> Option<BrokerChoice> {
    if section.has("embedded") {
        if has_authority {
            section.mistake(
                "embedded",
                "boxes that join must reach the broker: use mosquitto with host and port, or no [enrolment]",
            );
            return None;
        }
        let listen = section.parsed::<SocketAddr>("embedded")?;
        if !listen.ip().is_loopback() {
            section.mistake(
                "embedded",
                format!("{listen} is not loopback: the embedded broker knows no certificates; use mosquitto for other machines"),
            );
            return None;
        }
        return Some(BrokerChoice::Embedded(listen));
    }
    let external = if has_authority { broker_of_authority(section) } else { external_broker(section) };
    external.map(BrokerChoice::External)
}

fn enrolment(section: &Section<'_>) -> Option<Enrolment> {
    let listen = if section.has("listen") { section.parsed("listen") } else { Some(([0, 0, 0, 0], ENROLMENT_PORT).into()) };
    let host = section.required::<String>("host");
    let days = section.whole("lifetime_days", LIFETIME_DAYS, 1..=3_650);
    Some(Enrolment { listen: listen?, host: host?, lifetime_ms: i64::from(days?) * 86_400_000 })
}

fn api(section: &Section<'_>) -> Option<Api> {
    let listen = if section.has("listen") { section.parsed("listen") } else { Some(default_api().listen) };
    let token_file = section.text("token_file").map(PathBuf::from);
    let certificate = match (section.text("certificate"), section.text("key")) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate: certificate.into(), key: key.into() }),
        (None, None) => None,
        (found, _) => {
            section.mistake(if found.is_some() { "key" } else { "certificate" }, "missing: TLS takes a certificate and its key");
            return None;
        }
    };
    // A token must not cross a network in the clear unless somebody says so.
    let insecure = section.flag("insecure_listen", false);
    let time_zone = section.text("time_zone").unwrap_or_else(|| TIME_ZONE.to_owned());
    if crate::schedule::zone(&time_zone).is_none() {
        section.mistake("time_zone", crate::schedule::NO_ZONE);
        return None;
    }
    let trusted_proxies = section.list::<Network>("trusted_proxies");
    let (listen, insecure): (SocketAddr, bool) = (listen?, insecure?);
    if !listen.ip().is_loopback() && certificate.is_none() && !insecure {
        section
            .mistake("listen", "not loopback: name certificate and key, put a TLS proxy in front, or set insecure_listen = true");
        return None;
    }
    Some(Api { listen, certificate, token_file, time_zone, trusted_proxies })
}

fn victoria(section: &Section<'_>) -> Option<VictoriaMetrics> {
    let queue_mb = section.whole("queue_limit_mb", 1_024u32, 1..=1_048_576);
    let endpoints = if section.has("urls") {
        if section.has("url") {
            section.mistake("url", "urls says it already");
        }
        section.list::<Endpoint>("urls")
    } else {
        section.required::<Endpoint>("url").into_iter().collect()
    };
    let queue_mb = queue_mb?;
    if section.has("urls") && !(1..=ENDPOINTS_LIMIT).contains(&endpoints.len()) {
        section.mistake("urls", format!("must name 1 to {ENDPOINTS_LIMIT} servers"));
        return None;
    }
    let names: BTreeSet<&str> = endpoints.iter().map(Endpoint::name).collect();
    if names.len() < endpoints.len() {
        section.mistake("urls", "names a server twice");
        return None;
    }
    let queue_limit_bytes = u64::from(queue_mb) * 1024 * 1024;
    Some(VictoriaMetrics { endpoints, queue_limit_bytes }).filter(|victoria| !victoria.endpoints.is_empty())
}

fn shared_cache(section: &Section<'_>) -> Option<SharedCache> {
    let url = section.required::<String>("url");
    let password_file = section.text("password_file").map(PathBuf::from);
    let ca = section.text("ca").map(PathBuf::from);
    let prefix = section.text("prefix").unwrap_or_else(|| "ward".to_owned());
    let is_name =
        |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !is_name(&prefix) {
        section.mistake("prefix", "has 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'");
        return None;
    }
    let url = url?;
    let parsed =
        reqwest::Url::parse(&url).ok().filter(|parsed| ["redis", "rediss"].contains(&parsed.scheme()) && parsed.has_host());
    let Some(parsed) = parsed else {
        section.mistake("url", "must be redis://HOST:PORT, or rediss://HOST:PORT for TLS");
        return None;
    };
    if parsed.password().is_some() {
        section.mistake("url", "a password stands in password_file");
        return None;
    }
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if parsed.scheme() == "redis" && !is_local {
        section.mistake("url", "is not loopback: use rediss://, or the password and all answers cross the network in the clear");
        return None;
    }
    if parsed.scheme() == "redis" && ca.is_some() {
        section.mistake("ca", "is of no use without rediss://");
        return None;
    }
    Some(SharedCache { url, password_file, ca, prefix })
}

fn rollout(root: &Section<'_>, silent_after_ms: u32) -> Option<Rollout> {
    // Whoever wants to know of silence sooner needs heartbeats sooner.
    let soonest = (silent_after_ms / 2).max(silent_after_ms.saturating_sub(6_000));
    let base = Reporting { heartbeat_ms: Reporting::DEFAULT.heartbeat_ms.min(soonest), ..Reporting::DEFAULT };
    let mut metered = BTreeSet::new();
    let report = root.table("report", |report| {
        metered.extend(report.list::<BranchId>("metered"));
        Reporting::read(report, base)
    });
    let reporting = report.unwrap_or(base);
    if !root.has("probe") {
        return Some(Rollout { reporting, metered, ..Rollout::default() });
    }
    root.table("probe", |probe| {
        let usual = Manner::of_many(probe, &Manner::default());
        let base = usual.clone().unwrap_or_default();
        let by_type = probe.entries("type", |name, section| Some((name.to_owned(), Manner::of_many(section, &base)?)));
        let by_device = probe.entries("device", |name, section| match name.parse::<DeviceId>() {
            Ok(id) => Some((id, Manner::of_one(section, &base)?)),
            Err(error) => {
                section.mistake("id", error.to_string());
                None
            }
        });
        let (by_type, by_device) = (by_type.into_iter().collect(), by_device.into_iter().collect());
        Some(Rollout { reporting, metered, usual: usual?, by_type, by_device })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> String {
        Settings::parse("c.toml", text).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_smallest_config_has_the_documented_defaults() {
        let settings = Settings::parse("c.toml", "[broker]\nembedded = \"127.0.0.1:1883\"\n").expect("good");
        assert_eq!(settings.data_dir, PathBuf::from("/var/lib/ward-collector"));
        assert_eq!(settings.api, default_api());
        assert_eq!(settings.silent_after_ms, 30_000);
        assert_eq!(settings.rollout, Rollout::default());
    }

    #[test]
    fn the_shipped_example_is_a_good_config_with_every_key() {
        let text = include_str!("../../systemd/collector.example.toml");
        let settings = Settings::parse("collector.example.toml", text).expect("the example");
        assert!(
            settings.victoria_metrics.is_some() && !settings.rollout.by_type.is_empty() && !settings.rollout.by_device.is_empty()
        );
        let every = [
            "data_dir",
            "host",
            "port",
            "ca",
            "certificate",
            "key",
            "listen",
            "token_file",
            "insecure_listen",
            "time_zone",
            "trusted_proxies",
            "url",
            "urls",
            "password_file",
            "prefix",
            "queue_limit_mb",
            "silent_after",
            "heartbeat",
            "qualities",
            "metered",
            "interval",
            "timeout",
            "retry",
            "fall",
            "rise",
            "packets",
            "loss",
            "latency",
            "flapping",
            "flapping_within",
            "kind",
            "path",
            "status",
            "query",
            "source",
            "interface",
            "parent",
            "uplink",
            "embedded",
            "lifetime_days",
        ];
        let docs = include_str!("../../docs/config.md");
        for key in every {
            assert!(text.contains(&format!("{key} =")), "{key} in the example");
            assert!(docs.contains(&format!("`{key}`")), "{key} in docs/config.md");
        }
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        assert_eq!(
            mistakes(
                "[broker]\nembedded = \"0.0.0.0:1883\"\n[api]\nlisten = \"0.0.0.0:80\"\n[fleet]\nsilent_after = \"1s\"\n[probe.type.router]\nfall = 0\n"
            ),
            "c.toml:2: broker.embedded: 0.0.0.0:1883 is not loopback: the embedded broker knows no certificates; use mosquitto for other machines\n\
             c.toml:4: api.listen: not loopback: name certificate and key, put a TLS proxy in front, or set insecure_listen = true\n\
             c.toml:6: fleet.silent_after: must lie between 2s and 1h\n\
             c.toml:8: probe.type.router.fall: must lie between 1 and 100"
        );
        assert_eq!(
            mistakes("[broker]\nembedded = \"127.0.0.1:1883\"\n[fleet]\nsilent_after = \"10s\"\n[report]\nheartbeat = \"10s\"\n"),
            "c.toml:3: fleet: silent_after must be longer than report.heartbeat, or every branch would be silent"
        );
        assert_eq!(
            mistakes(
                "[broker]\nhost = \"10.0.0.1\"\nport = 0\n[broker.tls]\nca = \"a\"\n[victoria_metrics]\nurl = \"ftp://x\"\n[probe]\ninterval = \"1s\"\n"
            ),
            "c.toml:3: broker.port: must lie between 1 and 65535\n\
             c.toml:4: broker.tls.certificate: missing\n\
             c.toml:4: broker.tls.key: missing\n\
             c.toml:7: victoria_metrics.url: must begin with http:// or https://"
        );
        assert_eq!(
            mistakes("[broker]\nembedded = \"127.0.0.1:1883\"\n[report]\nmetered = [\"mestia\", 7,\n\"Up/Here\"]\n"),
            "c.toml:4: report.metered[2]: must be a text in quotes, not integer\n\
             c.toml:5: report.metered[3]: an id is made of a-z, A-Z, 0-9, '.', '_' and '-', not '/'"
        );
        assert_eq!(mistakes(""), "c.toml:1: the file is empty");
    }

    #[test]
    fn the_api_listens_to_others_by_tls() {
        let read = |text: &str| Settings::parse("c.toml", &format!("[broker]\nembedded = \"127.0.0.1:1883\"\n[api]\n{text}"));
        let open = "listen = \"0.0.0.0:8443\"\n";
        let settings = read(&format!("{open}certificate = \"a.pem\"\nkey = \"a.key\"\n")).expect("good");
        assert_eq!(settings.api.certificate, Some(CertificateFiles { certificate: "a.pem".into(), key: "a.key".into() }));
        let check = |text: String, expected: &str| {
            assert_eq!(read(&text).expect_err("refused").to_string(), format!("c.toml:{expected}"), "{text}")
        };
        check(format!("{open}certificate = \"a.pem\"\n"), "3: api.key: missing: TLS takes a certificate and its key");
        check("key = \"a.key\"\n".to_owned(), "3: api.certificate: missing: TLS takes a certificate and its key");
    }

    #[test]
    fn a_shared_cache_has_no_password_in_the_open() {
        let read = |text: &str| {
            let head = "[broker]\nembedded = \"127.0.0.1:1883\"\n[victoria_metrics]\nurl = \"http://a\"\n[shared_cache]\n";
            Settings::parse("c.toml", &format!("{head}{text}"))
        };
        let cache = read("url = \"redis://127.0.0.1:6379\"\n").expect("good").shared_cache.expect("there");
        assert_eq!((cache.prefix.as_str(), cache.password_file, cache.ca), ("ward", None, None));
        read("url = \"rediss://cache.example.bank:6380/2\"\nca = \"ca.pem\"\npassword_file = \"p\"\nprefix = \"w1\"\n")
            .expect("good");
        for (text, expected) in [
            ("", "url: missing"),
            ("url = \"http://a\"", "url: must be redis://HOST:PORT, or rediss://HOST:PORT for TLS"),
            ("url = \"redis://:secret@127.0.0.1\"", "url: a password stands in password_file"),
            (
                "url = \"redis://10.0.0.1\"",
                "url: is not loopback: use rediss://, or the password and all answers cross the network in the clear",
            ),
            ("url = \"redis://[::1]:1\"\nca = \"x\"", "ca: is of no use without rediss://"),
            (
                "url = \"redis://localhost\"\nprefix = \"a:b\"",
                "prefix: has 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'",
            ),
        ] {
            let found = read(text).expect_err("refused").to_string();
            assert!(found.ends_with(&format!("shared_cache.{expected}")), "{text}: {found}");
        }
        let alone = "[broker]\nembedded = \"127.0.0.1:1883\"\n[shared_cache]\nurl = \"redis://localhost\"\n";
        assert!(mistakes(alone).contains("[victoria_metrics] is missing"));
    }

    #[test]
    fn series_go_to_one_server_or_to_several() {
        let read = |text: &str| {
            Settings::parse("c.toml", &format!("[broker]\nembedded = \"127.0.0.1:1883\"\n[victoria_metrics]\n{text}"))
        };
        let urls = |text: &str| {
            let settings = read(text).expect("good");
            let endpoints = settings.victoria_metrics.expect("there").endpoints;
            endpoints.iter().map(|endpoint| (endpoint.url().to_owned(), endpoint.name().to_owned())).collect::<Vec<_>>()
        };
        let plain = |url: &str| (url.to_owned(), url.to_owned());
        assert_eq!(urls("url = \"http://a:8428/\""), [plain("http://a:8428")]);
        assert_eq!(urls("urls = [\"http://a:8428\", \"https://b/x/\"]"), [plain("http://a:8428"), plain("https://b/x")]);
        assert_eq!(urls("url = \"http://me:secret@a:8428\""), [("http://me:secret@a:8428".into(), "http://a:8428".into())]);
        let check = |text: &str, expected: &str| {
            assert_eq!(read(text).expect_err("refused").to_string(), format!("c.toml:{expected}"), "{text}")
        };
        check("", "3: victoria_metrics.url: missing");
        check("urls = []", "4: victoria_metrics.urls: must name 1 to 8 servers");
        let nine: Vec<String> = (1..=9).map(|n| format!("\"http://v{n}\"")).collect();
        check(&format!("urls = [{}]", nine.join(", ")), "4: victoria_metrics.urls: must name 1 to 8 servers");
        check("urls = [\"http://a\", \"http://x:y@a/\"]", "4: victoria_metrics.urls: names a server twice");
        check("url = \"http://a\"\nurls = [\"http://b\"]", "4: victoria_metrics.url: urls says it already");
        check("url = \"http://\"", "4: victoria_metrics.url: is no URL: empty host");
        check("url = \"http://a/?x=1\"", "4: victoria_metrics.url: must end before any ? or #: the collector adds its own paths");
        check("urls = [\"http://a\",\n\"ftp://b\"]", "5: victoria_metrics.urls[2]: must begin with http:// or https://");
    }
}

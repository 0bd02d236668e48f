//! How a device is to be probed, as config files say it: what a table leaves out is as in the wider one.

use shared::DeviceId;
use shared::message::{Host, Probe, ProbeRule, Target, Via};
use shared::settings::Section;

use crate::plan::{INTERVAL_MS, PACKETS_LIMIT, check_rule, check_target};

/// What a device is asked, by the words of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ICMP echo.
    Icmp,
    /// A TCP connection.
    Tcp,
    /// An HTTP request.
    Http,
    /// An HTTP request over TLS.
    Https,
    /// A DNS question.
    Dns,
}

impl std::str::FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "icmp" => Ok(Self::Icmp),
            "tcp" => Ok(Self::Tcp),
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            "dns" => Ok(Self::Dns),
            _ => Err("must be \"icmp\", \"tcp\", \"http\", \"https\" or \"dns\""),
        }
    }
}

/// HTTP statuses as a config writes them, such as `200` or `200-399`: the first and the last.
///
/// # Errors
/// With how they are written.
pub fn statuses(text: &str) -> Result<(u16, u16), &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    first.parse().ok().zip(last.parse().ok()).ok_or("must be such as \"200-399\"")
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manner {
    interval_ms: Option<u32>,
    timeout_ms: Option<u32>,
    retry_ms: Option<u32>,
    fall: Option<u8>,
    rise: Option<u8>,
    packets: Option<u8>,
    loss_percent: Option<u8>,
    latency_ms: Option<u32>,
    kind: Option<Kind>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<String>,
    status: Option<(u16, u16)>,
    query: Option<String>,
    via: Option<Via>,
    parent: Option<DeviceId>,
    /// The provider whose line this is, if it is one.
    pub uplink: Option<String>,
    /// So many changes make the device flapping,
    flapping: Option<u8>,
    /// within this time, in ms.
    flapping_within_ms: Option<u32>,
}

/// Statuses of HTTP that count as an answer unless a config says otherwise.
const STATUS: (u16, u16) = (200, 399);
/// The time in which changes count towards flapping unless a config says otherwise, in ms.
const FLAPPING_WITHIN_MS: u32 = 300_000;
/// What a provider's line is held against unless a config says otherwise: loss in percent, round trip in ms, changes.
const UPLINK: (u8, u32, u8) = (5, 100, 2);

impl Manner {
    /// What one device is asked; without a port, a path or statuses those that are usual for its kind.
    pub fn asking(
        kind: Kind,
        port: Option<u16>,
        path: Option<String>,
        status: Option<(u16, u16)>,
        query: Option<String>,
        via: Option<Via>,
    ) -> Self {
        Self { kind: Some(kind), port, path, status, query, via, ..Self::default() }
    }

    /// Reads a table of what holds for many devices; what is missing is as in `base`.
    pub fn of_many(section: &Section<'_>, base: &Self) -> Option<Self> {
        Self::read(section, base, Self::default())
    }

    /// Reads what holds for one device.
    pub fn of_one(section: &Section<'_>, base: &Self) -> Option<Self> {
        let host = section.text("host");
        let (source, interface) = (section.has("source"), section.has("interface"));
        if source && interface {
            section.mistake("interface", "either source or interface");
        }
        let via = match source {
            true => section.parsed("source").map(Via::Source),
            false => section.text("interface").map(Via::Interface),
        };
        let parent = if section.has("parent") { section.parsed("parent") } else { None };
        let own = Self { host, via, parent, uplink: section.text("uplink"), ..Self::default() };
        Self::read(section, base, own)
    }

    fn read(section: &Section<'_>, base: &Self, own: Self) -> Option<Self> {
        let ms = |key, range| section.has(key).then(|| section.duration_ms(key, 0, range)).flatten();
        let whole = |key, range| section.has(key).then(|| section.whole(key, 1u8, range)).flatten();
        let status = section.text("status").and_then(|text| {
            let status = statuses(&text);
            if let Err(what) = status {
                section.mistake("status", what);
            }
            status.ok()
        });
        let manner = Self {
            interval_ms: ms("interval", INTERVAL_MS),
            timeout_ms: ms("timeout", 10..=60_000),
            retry_ms: ms("retry", 100..=60_000),
            fall: whole("fall", 1..=100),
            rise: whole("rise", 1..=100),
            packets: whole("packets", 1..=PACKETS_LIMIT),
            loss_percent: whole("loss", 0..=100),
            latency_ms: ms("latency", 0..=60_000),
            kind: if section.has("kind") { section.parsed("kind") } else { None },
            port: section.has("port").then(|| section.whole("port", 1u16, 1..=65_535)).flatten(),
            path: section.text("path"),
            status,
            query: section.text("query"),
            flapping: whole("flapping", 2..=16),
            flapping_within_ms: ms("flapping_within", 60_000..=3_600_000),
            ..own
        };
        let whole = manner.clone().over(base);
        if let Err(what) = check_rule(&whole.rule()) {
            let key = what.split(' ').next().unwrap_or_default();
            section.mistake(key, what.split_once(' ').map_or(what, |(_, rest)| rest));
            return None;
        }
        let checked = whole.probe().and_then(|probe| {
            let nowhere = Host::Name("a".to_owned());
            check_target(&whole.host.clone().map_or(nowhere, Host::Name), &probe, whole.via())
        });
        if let Err(what) = checked {
            let key = what.split(' ').next().unwrap_or_default();
            section.mistake(key, what.split_once(' ').map_or(what, |(_, rest)| rest));
            return None;
        }
        Some(manner)
    }

    /// This, and where it says nothing what `base` says.
    #[must_use]
    pub fn over(self, base: &Self) -> Self {
        // What is asked belongs together: a port of another kind of question is none of this one's.
        let asked = if self.kind.is_some() && self.kind != base.kind { &Self::default() } else { base };
        Self {
            interval_ms: self.interval_ms.or(base.interval_ms),
            timeout_ms: self.timeout_ms.or(base.timeout_ms),
            retry_ms: self.retry_ms.or(base.retry_ms),
            fall: self.fall.or(base.fall),
            rise: self.rise.or(base.rise),
            packets: self.packets.or(base.packets),
            loss_percent: self.loss_percent.or(base.loss_percent),
            latency_ms: self.latency_ms.or(base.latency_ms),
            kind: self.kind.or(base.kind),
            host: self.host.or_else(|| base.host.clone()),
            port: self.port.or(asked.port),
            path: self.path.or_else(|| asked.path.clone()),
            status: self.status.or(asked.status),
            query: self.query.or_else(|| asked.query.clone()),
            via: self.via.or_else(|| base.via.clone()),
            parent: self.parent.or_else(|| base.parent.clone()),
            uplink: self.uplink.or_else(|| base.uplink.clone()),
            flapping: self.flapping.or(base.flapping),
            flapping_within_ms: self.flapping_within_ms.or(base.flapping_within_ms),
        }
    }

    /// How to probe, with defaults for what isn't said.
    pub fn rule(&self) -> ProbeRule {
        let usual = ProbeRule::default();
        let (loss, latency) = if self.uplink.is_some() { (UPLINK.0, UPLINK.1) } else { (usual.loss_percent, usual.latency_ms) };
        let interval_ms = self.interval_ms.unwrap_or(usual.interval_ms);
        ProbeRule {
            interval_ms,
            timeout_ms: self.timeout_ms.unwrap_or(usual.timeout_ms),
            retry_ms: self.retry_ms.unwrap_or(usual.retry_ms),
            fall: self.fall.unwrap_or(usual.fall),
            rise: self.rise.unwrap_or(usual.rise),
            packets: self.packets.unwrap_or(usual.packets),
            loss_percent: self.loss_percent.unwrap_or(loss),
            latency_ms: self.latency_ms.unwrap_or(latency),
        }
    }

    /// So many changes within so many ms make a device flapping.
    pub fn flapping(&self) -> (u8, u32) {
        let changes = self.flapping.unwrap_or(if self.uplink.is_some() { UPLINK.2 } else { 3 });
        (changes, self.flapping_within_ms.unwrap_or(FLAPPING_WITHIN_MS))
    }

    /// What to ask.
    ///
    /// # Errors
    /// With the key that is missing.
    pub fn probe(&self) -> Result<Probe, &'static str> {
        let http = |is_tls, usual| Probe::Http {
            is_tls,
            port: self.port.unwrap_or(usual),
            path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
            status: self.status.unwrap_or(STATUS),
        };
        Ok(match self.kind.unwrap_or(Kind::Icmp) {
            Kind::Icmp => Probe::Icmp,
            Kind::Tcp => Probe::Tcp { port: self.port.ok_or("port missing: which one to connect to")? },
            Kind::Http => http(false, 80),
            Kind::Https => http(true, 443),
            Kind::Dns => Probe::Dns {
                port: self.port.unwrap_or(53),
                name: self.query.clone().ok_or("query missing: the name to ask for")?,
            },
        })
    }

    /// A device that is probed so, with its place among the rules.
    ///
    /// # Errors
    /// With the key that is missing.
    pub fn target(&self, device: DeviceId, host: Host, rule: u16) -> Result<Target, &'static str> {
        let host = self.host.clone().map_or(host, Host::Name);
        Ok(Target { device, host, probe: self.probe()?, via: self.via.clone(), parent: self.parent.clone(), rule })
    }

    /// By which way it is asked, where that is said.
    pub fn via(&self) -> Option<&Via> {
        self.via.as_ref()
    }

    /// What the device hangs on, where that is said.
    pub fn parent(&self) -> Option<&DeviceId> {
        self.parent.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use shared::settings::read;

    use super::*;

    fn one(text: &str) -> Result<Manner, String> {
        let base = Manner { interval_ms: Some(5_000), kind: Some(Kind::Tcp), port: Some(22), ..Manner::default() };
        read("m", text, |root| Manner::of_one(root, &base).map(|manner| manner.over(&base))).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_is_as_in_the_wider_table() {
        let manner = one("fall = 2\npackets = 5\n").expect("good");
        assert_eq!(manner.rule(), ProbeRule { interval_ms: 5_000, fall: 2, packets: 5, ..ProbeRule::default() });
        assert_eq!(manner.probe(), Ok(Probe::Tcp { port: 22 }));
        let other = one("kind = \"https\"\nhost = \"atm.example\"\nstatus = \"200\"\n").expect("good");
        let probe = Probe::Http { is_tls: true, port: 443, path: "/".into(), status: (200, 200) };
        assert_eq!(other.probe(), Ok(probe), "a port of another kind of question is none of this one's");
        let target = other.target("a".parse().expect("an id"), Host::Address([127, 0, 0, 1].into()), 0).expect("complete");
        assert_eq!(target.host, Host::Name("atm.example".into()));
    }

    #[test]
    fn a_providers_line_is_held_against_more() {
        let manner = one("uplink = \"Silknet\"\nsource = \"10.0.0.2\"\n").expect("good");
        let rule = manner.rule();
        assert_eq!((rule.loss_percent, rule.latency_ms, manner.flapping()), (5, 100, (2, 300_000)));
        assert_eq!(one("fall = 2\n").expect("good").flapping(), (3, 300_000));
        assert_eq!(one("flapping = 4\nflapping_within = \"10m\"\n").expect("good").flapping(), (4, 600_000));
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, expected) in [
            ("kind = \"smtp\"\n", "m:1: kind: must be \"icmp\", \"tcp\", \"http\", \"https\" or \"dns\""),
            ("kind = \"dns\"\n", "m:1: query: missing: the name to ask for"),
            ("kind = \"http\"\npath = \"x\"\n", "m:2: path: must begin with / and hold no spaces"),
            ("kind = \"http\"\nstatus = \"ok\"\n", "m:2: status: must be such as \"200-399\""),
            ("host = \"a b\"\n", "m:1: host: must be a name such as \"atm.example.com\""),
            ("source = \"10.0.0.2\"\ninterface = \"eth1\"\n", "m:2: interface: either source or interface"),
            ("interface = \"a-name-that-is-far-too-long\"\n", "m:1: interface: must have 1 to 15 characters"),
            ("packets = 21\n", "m:1: packets: must lie between 1 and 20"),
            ("timeout = \"6s\"\n", "m:1: timeout: must lie between 10ms and the interval"),
        ] {
            assert_eq!(one(text).expect_err("refused"), expected, "{text}");
        }
    }
}

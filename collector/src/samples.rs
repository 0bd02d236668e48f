//! What ward writes to VictoriaMetrics, and how that looks as a Prometheus remote-write 1.0 request.
//!
//! Labels are ids, so a rename splits no series; names and addresses stand on one info series. Samples stand on full
//! minutes, where they compress twice as well, and beside them at the exact moment of each transition.

use std::collections::BTreeSet;

use shared::{Millis, Status};

use crate::inventory::{Branch, Device};

/// The series of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// 1 up, 0 down; no sample while nobody can say.
    Status,
    /// Mean round trip of a minute in ms; no sample without a reply.
    Rtt,
    /// Shortest round trip of a minute in ms.
    RttMin,
    /// Longest round trip of a minute in ms.
    RttMax,
    /// Lost probes of a minute in percent.
    Loss,
    /// Always 1: its labels carry names and addresses.
    Info,
}

impl Metric {
    /// The metric's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "device_ping_status",
            Self::Rtt => "device_ping_rtt_ms",
            Self::RttMin => "device_ping_rtt_min_ms",
            Self::RttMax => "device_ping_rtt_max_ms",
            Self::Loss => "device_ping_packet_loss",
            Self::Info => "ward_device_info",
        }
    }
}

/// One sample of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Index of the device.
    pub device: usize,
    /// Which of its series.
    pub metric: Metric,
    /// When.
    pub at: Millis,
    /// How much.
    pub value: f64,
}

/// The value of a status, if somebody can say.
pub fn status_value(status: Status) -> Option<f64> {
    match status {
        Status::Up => Some(1.0),
        Status::Down => Some(0.0),
        Status::Unknown(_) => None,
    }
}

/// A remote-write request, compressed, and how many samples it holds. `describe` gives a device and its branch by index.
///
/// VictoriaMetrics answers 204 to samples of 1970 or of the far future and drops them: they never leave here.
pub fn encode<'a>(samples: &mut [Sample], now: Millis, describe: impl Fn(usize) -> (&'a Device, &'a Branch)) -> (Vec<u8>, u64) {
    samples.sort_unstable_by_key(|sample| (sample.device, sample.metric, sample.at));
    let is_good = |sample: &&Sample| sample.at.is_plausible(now) && sample.value.is_finite();
    let mut request = Vec::with_capacity(samples.len() * 24);
    let (mut head, mut count) = (Vec::new(), 0);
    for series in samples.chunk_by(|a, b| (a.device, a.metric) == (b.device, b.metric)) {
        let Some(first) = series.iter().find(is_good) else { continue };
        let (device, branch) = describe(first.device);
        head.clear();
        labels(&mut head, first.metric, device, branch);
        // Lengths come first: they are counted, so that nothing is written twice.
        let points: usize = series.iter().filter(is_good).map(|sample| 2 + point_bytes(sample.at)).sum();
        request.push(1 << 3 | 2);
        varint(&mut request, (head.len() + points) as u64);
        request.extend_from_slice(&head);
        for sample in series.iter().filter(is_good) {
            // A point is far below 128 B: its length is one byte. In it field 1, a double, and field 2, a varint.
            request.extend_from_slice(&[2 << 3 | 2, point_bytes(sample.at) as u8, 0x09]);
            request.extend_from_slice(&sample.value.to_le_bytes());
            request.push(0x10);
            varint(&mut request, sample.at.0.cast_unsigned());
            count += 1;
        }
    }
    let compressed = snap::raw::Encoder::new().compress_vec(&request).expect("a request is far below snappy's limit of 4 GiB");
    (compressed, count)
}

/// How many bytes a point at that moment takes.
fn point_bytes(at: Millis) -> usize {
    let bits = (u64::BITS - at.0.cast_unsigned().leading_zeros()).max(1);
    10 + bits.div_ceil(7) as usize
}

fn labels(body: &mut Vec<u8>, metric: Metric, device: &Device, branch: &Branch) {
    let ip = device.ip.to_string();
    let mut labels = vec![
        ("__name__", metric.name()),
        ("branch", branch.id.as_str()),
        ("device_id", device.id.as_str()),
        ("device_type", device.device_type.as_str()),
        ("region", branch.region.as_str()),
    ];
    if metric == Metric::Info {
        labels.extend([
            ("branch_name", branch.name.as_str()),
            ("device_ip", ip.as_str()),
            ("device_name", device.name.as_str()),
            ("region_name", branch.region_name.as_str()),
        ]);
        labels.sort_unstable();
    }
    for (name, value) in labels {
        let mut label = Vec::with_capacity(name.len() + value.len() + 4);
        field(&mut label, 1, name.as_bytes());
        field(&mut label, 2, value.as_bytes());
        field(body, 1, &label);
    }
}

/// A length-delimited protobuf field.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Devices of which a request, as [`encode`] writes it, has samples from before a moment. Of one that can't be read, none.
pub fn devices_before(body: &[u8], before: Millis) -> BTreeSet<String> {
    let mut devices = BTreeSet::new();
    let Ok(request) = snap::raw::Decoder::new().decompress_vec(body) else { return devices };
    let mut request = request.as_slice();
    while let Some((1, mut series)) = next_field(&mut request) {
        let mut device = None;
        let mut is_before = false;
        while let Some((number, mut inner)) = next_field(&mut series) {
            if number == 1 {
                let pair = (next_field(&mut inner), next_field(&mut inner));
                if let (Some((1, b"device_id")), Some((2, value))) = pair {
                    device = std::str::from_utf8(value).ok();
                }
            } else if let Some((0x10, mut at)) = inner.get(9..).and_then(<[u8]>::split_first).map(|(tag, at)| (*tag, at)) {
                // A point: a double, then the time as a varint.
                is_before |= read_varint(&mut at).is_some_and(|at| at.cast_signed() < before.0);
            }
        }
        devices.extend(device.filter(|_| is_before).map(str::to_owned));
    }
    devices
}

fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = bytes.split_first().filter(|(tag, _)| **tag & 7 == 2)?;
    *bytes = rest;
    let length = usize::try_from(read_varint(bytes)?).ok()?;
    let (field, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some((tag >> 3, field))
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// A request with one sample of a device.
#[cfg(test)]
pub fn of_device_for_tests(device: &str, at: Millis) -> Vec<u8> {
    let id = |text: &str| text.parse().expect("a valid id");
    let branch = Branch { id: id("vake"), name: "Vake".into(), region: id("t"), region_name: "T".into() };
    let device = Device {
        id: device.parse().expect("a valid id"),
        name: "A".into(),
        branch: id("vake"),
        device_type: "atm".into(),
        ip: [10, 0, 0, 1].into(),
    };
    let mut samples = [
        Sample { device: 0, metric: Metric::Rtt, at: at.plus(60_000), value: 1.0 },
        Sample { device: 0, metric: Metric::Rtt, at, value: 1.0 },
    ];
    encode(&mut samples, at.plus(60_000), |_| (&device, &branch)).0
}

/// Full minutes after `from`, up to and with `to`.
pub fn minutes_between(from: Millis, to: Millis) -> impl Iterator<Item = Millis> + Clone {
    let first = from.0.div_euclid(Millis::MINUTE) + 1;
    let last = to.0.div_euclid(Millis::MINUTE);
    (first..=last).map(|minute| Millis(minute * Millis::MINUTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estate() -> (Device, Branch) {
        let id = |text: &str| text.parse().expect("a valid id");
        let branch = Branch { id: id("vake"), name: "Vake".into(), region: id("tbilisi"), region_name: "Tbilisi".into() };
        let device = Device {
            id: "vake-atm-1".parse().expect("a valid id"),
            name: "Vake \"ATM\" 1\\".into(),
            branch: id("vake"),
            device_type: "atm".into(),
            ip: [10, 0, 0, 1].into(),
        };
        (device, branch)
    }

    const NOW: Millis = Millis(1_795_442_400_000);

    #[test]
    fn a_request_is_what_remote_write_asks_for() {
        let (device, branch) = estate();
        let sample = Sample { device: 0, metric: Metric::Status, at: NOW, value: 1.0 };
        let (body, samples) = encode(&mut [sample], NOW, |_| (&device, &branch));
        assert_eq!(samples, 1);
        let plain = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
        let mut expected = Vec::new();
        let mut series = Vec::new();
        for (name, value) in [
            ("__name__", "device_ping_status"),
            ("branch", "vake"),
            ("device_id", "vake-atm-1"),
            ("device_type", "atm"),
            ("region", "tbilisi"),
        ] {
            let mut label = vec![0x0a, name.len() as u8];
            label.extend(name.bytes());
            label.extend([0x12, value.len() as u8]);
            label.extend(value.bytes());
            series.extend([0x0a, label.len() as u8]);
            series.extend(label);
        }
        series.extend([0x12, 16, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0x80, 0xb6, 0xd3, 0xc5, 0xa0, 0x34]);
        expected.extend([0x0a, (series.len() & 0x7f) as u8 | 0x80, (series.len() >> 7) as u8]);
        expected.extend(&series);
        assert_eq!(plain, expected);
    }

    #[test]
    fn samples_of_1970_of_the_future_and_nan_never_leave() {
        let (device, branch) = estate();
        let sample = |at: i64, value: f64| Sample { device: 0, metric: Metric::Rtt, at: Millis(at), value };
        let mut bad =
            vec![sample(1_000, 1.0), sample(NOW.0 + 61_000, 1.0), sample(NOW.0, f64::NAN), sample(NOW.0, f64::INFINITY)];
        assert_eq!(encode(&mut bad, NOW, |_| (&device, &branch)).1, 0);
    }

    #[test]
    fn a_request_tells_whose_past_it_changes() {
        let body = of_device_for_tests("vake-atm-1", NOW);
        assert!(devices_before(&body, NOW).is_empty());
        assert_eq!(devices_before(&body, NOW.plus(1)), BTreeSet::from(["vake-atm-1".to_owned()]));
        // What can't be read says nothing, and never panics.
        let plain = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
        for cut in 0..plain.len() {
            let bent = snap::raw::Encoder::new().compress_vec(&plain[..cut]).expect("small");
            devices_before(&bent, NOW.plus(1));
        }
        assert!(devices_before(b"nonsense", NOW).is_empty());
    }

    #[test]
    fn full_minutes_between_two_moments() {
        let text = |from, to| {
            minutes_between(Millis(from), Millis(to)).map(|m| (m.0 / 60_000).to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(0, 180_000), "1 2 3");
        assert_eq!(text(60_000, 119_999), "");
        assert_eq!(text(59_999, 60_000), "1");
        assert_eq!(text(120_000, 60_000), "");
    }
}

//! Payloads as bytes: version, kind, postcard, CRC-32 of all that in little endian.
//!
//! A payload that was cut, bent or written by another version is an error that says which; decoding never panics and
//! never allocates more than the payload's own limit.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::enrolment::{Application, Decision};
use crate::message::{Ack, Answer, Ask, Batch, Config, Heartbeat, Presence, Sealed};
use crate::update::{PART_BYTES, Reply, Request};

/// The version that this code writes.
pub const VERSION: u8 = 1;

const HEAD: usize = 2;
const TAIL: usize = 4;

/// Why bytes are not a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// More bytes than this kind of payload may have.
    #[error("{len} B is over the limit of {limit} B")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Fewer bytes than the smallest payload.
    #[error("cut short: {0} B")]
    Short(usize),
    /// Written by a version that this code doesn't know.
    #[error("version {0} is not known here")]
    Version(u8),
    /// Another kind of payload.
    #[error("kind {found} where kind {expected} belongs")]
    Kind {
        /// The kind that belongs here.
        expected: u8,
        /// The kind that is here.
        found: u8,
    },
    /// Bytes were changed or cut on the way.
    #[error("the checksum doesn't match")]
    Checksum,
    /// The bytes are as they were written, but what was written makes no sense.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl WireError {
    /// A short name for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Short(_) => "short",
            Self::Version(_) => "version",
            Self::Kind { .. } => "kind",
            Self::Checksum => "checksum",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// A message that travels as a payload of its own.
pub trait Payload: Serialize + DeserializeOwned {
    /// Tells it from the other kinds.
    const KIND: u8;
    /// Most bytes of one payload.
    const LIMIT_BYTES: usize;
}

impl Payload for Batch {
    const KIND: u8 = 1;
    const LIMIT_BYTES: usize = 256 * 1024;
}

impl Payload for Heartbeat {
    const KIND: u8 = 2;
    const LIMIT_BYTES: usize = 256 * 1024;
}

impl Payload for Ack {
    const KIND: u8 = 3;
    const LIMIT_BYTES: usize = 128;
}

impl Payload for Presence {
    const KIND: u8 = 4;
    const LIMIT_BYTES: usize = 128;
}

impl Payload for Config {
    const KIND: u8 = 5;
    const LIMIT_BYTES: usize = 2 * 1024 * 1024;
}

impl Payload for Ask {
    const KIND: u8 = 6;
    const LIMIT_BYTES: usize = 16 * 1024;
}

impl Payload for Answer {
    const KIND: u8 = 7;
    const LIMIT_BYTES: usize = 16 * 1024;
}

impl Payload for Sealed {
    const KIND: u8 = 32;
    const LIMIT_BYTES: usize = Config::LIMIT_BYTES + 128;
}

impl Payload for Application {
    const KIND: u8 = 33;
    const LIMIT_BYTES: usize = 1024;
}

impl Payload for Decision {
    const KIND: u8 = 34;
    const LIMIT_BYTES: usize = 16 * 1024;
}

impl Payload for Request {
    const KIND: u8 = 35;
    const LIMIT_BYTES: usize = 1024;
}

impl Payload for Reply {
    const KIND: u8 = 36;
    const LIMIT_BYTES: usize = PART_BYTES + 1024;
}

/// Largest packet that an MQTT client of ward sends or takes: the largest payload and its topic.
pub const PACKET_LIMIT_BYTES: usize = Config::LIMIT_BYTES + 4096;

/// The bytes of a message.
///
/// # Errors
/// [`WireError::TooLarge`] when the message is over its limit: whoever makes it has to split it.
pub fn encode<T: Payload>(message: &T) -> Result<Vec<u8>, WireError> {
    let head = vec![VERSION, T::KIND];
    let mut bytes = postcard::to_extend(message, head).map_err(|error| WireError::Malformed(error.to_string()))?;
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    if bytes.len() > T::LIMIT_BYTES {
        return Err(WireError::TooLarge { len: bytes.len(), limit: T::LIMIT_BYTES });
    }
    Ok(bytes)
}

/// The message that bytes stand for.
pub fn decode<T: Payload>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > T::LIMIT_BYTES {
        return Err(WireError::TooLarge { len: bytes.len(), limit: T::LIMIT_BYTES });
    }
    let Some((body, crc)) = bytes.split_last_chunk::<TAIL>() else {
        return Err(WireError::Short(bytes.len()));
    };
    let [version, kind, ..] = *body else {
        return Err(WireError::Short(bytes.len()));
    };
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(WireError::Checksum);
    }
    if kind != T::KIND {
        return Err(WireError::Kind { expected: T::KIND, found: kind });
    }
    let (message, rest) = postcard::take_from_bytes(&body[HEAD..]).map_err(|error| WireError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(WireError::Malformed(format!("{} B too many", rest.len())));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::delta::{Boot, Flagged, Identity, Previous, Rtt};
    use crate::enrolment::{Claim, Grant};
    use crate::evidence::{Neighbours, Seen, Trace};
    use crate::message::{Found, Health, Hop, Host, PresenceState, Probe, Refused, Spent, Tried, Via, Watched};
    use crate::update::{Hearing, Offer, Running, Stage, Wish};
    use crate::*;

    fn evidence() -> Evidence {
        let trace = |ago_ms, seen| Trace { ago_ms, seen };
        Evidence {
            probes: vec![trace(3_000, Seen::Reply { rtt_us: 410 }), trace(1_000, Seen::Timeout), trace(500, Seen::Timeout)],
            gateway: Some(Seen::Reply { rtt_us: 700 }),
            neighbours: Neighbours { up: 4, down: 2, unknown: 0 },
            carrier: Some(true),
            mac: Some(Mac([2, 0, 0x5e, 0x10, 0, 1])),
        }
    }

    fn batch() -> Batch {
        let device: DeviceId = "vake-atm-1".parse().expect("a valid id");
        let minutes = [
            Minute { sent: 30, lost: 0, rtt: Some(Rtt { min_us: 280, avg_us: 410, max_us: 900, jitter_us: 60 }) },
            Minute { sent: 30, lost: 30, rtt: None },
        ];
        let bodies = [
            Body::Boot(Boot {
                boot: BootId(7),
                version: "0.1.0".into(),
                previous: Some(Previous { stream: StreamId(5), through: 9, clean: false }),
            }),
            Body::Transition(Transition {
                device: device.clone(),
                from: Status::Unknown(Cause::NeverObserved),
                to: Status::Down,
                onset: Uptime(60_000),
                last_ok: Some(Uptime(58_000)),
                verdict: Some(Verdict::LanFault),
                evidence: Some(evidence()),
            }),
            Body::Qualities(Qualities {
                first_end: Uptime(60_000),
                unit_us: 10,
                columns: vec![Column::pack(device.clone(), &minutes, 10)],
            }),
            Body::Gap(Gap {
                span: 3,
                from: Uptime(1),
                to: Uptime(2),
                reason: GapReason::BufferFull,
                dropped: Dropped { transitions: 0, minutes: 300, unreadable: 0 },
            }),
            Body::Flagged(Flagged { device: device.clone(), flags: Flags::DEGRADED_LOSS, since: Uptime(60_000) }),
            Body::Identity(Identity { device, mac: Mac([2, 0, 0x5e, 0x10, 0, 1]), is_contested: false }),
        ];
        Batch {
            branch: "vake".parse().expect("a valid id"),
            stream: StreamId(0x0123_4567_89ab_cdef),
            dating: Dating::Fixed { boot_at: Millis(1_795_442_400_000), error_ms: 12 },
            oldest: 1,
            sent: Some(Uptime(61_500)),
            observed_through: Uptime(61_000),
            group: Group { first: 1, deltas: bodies.into_iter().map(|body| Delta { at: Uptime(61_000), body }).collect() },
        }
    }

    fn heartbeat() -> Heartbeat {
        Heartbeat {
            stream: StreamId(1),
            sent: Uptime(5),
            dating: Some(Dating::Bounds { not_before: Millis(1), not_after: Millis(2) }),
            last: 3,
            observed_through: Uptime(4),
            health: Some(Health {
                config: 8,
                waiting: 1,
                buffer_volatile: true,
                clock_ahead_ms: Some(-3),
                spent: Spent { over_ms: 86_400_000, disk_bytes: 9, flushes: 1, sent_bytes: 700_000, received_bytes: 300_000 },
                ..Health::default()
            }),
            states: vec![Live {
                device: "d".parse().expect("a valid id"),
                status: Status::Up,
                onset: Uptime(2),
                verdict: None,
                flags: Flags::DEGRADED_LATENCY,
            }],
        }
    }

    fn config() -> Config {
        Config {
            version: 2,
            heartbeat_ms: 20_000,
            report_ms: 60_000,
            rules: vec![ProbeRule::default()],
            targets: vec![
                Target::ping("d".parse().expect("a valid id"), [127, 0, 0, 1].into(), 0),
                Target {
                    host: Host::Name("atm.example".into()),
                    probe: Probe::Http { is_tls: true, port: 443, path: "/".into(), status: (200, 399) },
                    via: Some(Via::Source([127, 0, 0, 2].into())),
                    parent: Some("d".parse().expect("a valid id")),
                    ..Target::ping("e".parse().expect("a valid id"), [127, 0, 0, 1].into(), 0)
                },
            ],
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, b| {
            write!(text, "{b:02x}").expect("writing to a String");
            text
        })
    }

    fn offer() -> Offer {
        let staged = Millis(1_795_442_400_000);
        Offer { machine: "aarch64".into(), build: [8; 32], size: 3_400_000, staged, signature: vec![9; 4] }
    }

    fn check_golden<T: Payload + PartialEq + std::fmt::Debug>(message: &T, golden: &str) {
        let bytes = encode(message).expect("within the limit");
        assert_eq!(hex(&bytes), golden.trim(), "version 1 is out in the field: a changed field needs a new version");
        assert_eq!(decode::<T>(&bytes).as_ref(), Ok(message));
    }

    #[test]
    fn version_1_is_written_as_it_always_was() {
        check_golden(&batch(), include_str!("../golden/v1-batch.hex"));
        check_golden(&heartbeat(), include_str!("../golden/v1-heartbeat.hex"));
        check_golden(&config(), include_str!("../golden/v1-config.hex"));
        let ack =
            Ack { stream: StreamId(1), through: 4, now: Millis(1_795_442_400_000), echo: Some(Uptime(61_500)), restate: false };
        check_golden(&ack, include_str!("../golden/v1-ack.hex"));
        let presence = Presence { stream: StreamId(1), state: PresenceState::Lost };
        check_golden(&presence, include_str!("../golden/v1-presence.hex"));
        let device: DeviceId = "vake-atm-1".parse().expect("a valid id");
        let ask = Ask::Watch { devices: vec![device.clone()], for_ms: 30_000 };
        check_golden(&ask, include_str!("../golden/v1-ask.hex"));
        let rtt = Rtt { min_us: 280, avg_us: 410, max_us: 900, jitter_us: 60 };
        let quality = Minute { sent: 2, lost: 1, rtt: Some(rtt) };
        let answer = Answer::Watched(vec![Watched { device, span_ms: 4_000, quality }]);
        check_golden(&answer, include_str!("../golden/v1-answer.hex"));
        let asks = [
            Ask::Probe { id: 7, device: "d".parse().expect("a valid id"), count: 3 },
            Ask::Route { id: 8, device: "d".parse().expect("a valid id") },
            Ask::Discover { id: 9 },
            Ask::Update { offers: vec![offer()] },
        ];
        let hop = Hop { ttl: 1, address: Some([127, 0, 0, 1].into()), rtt_us: Some(300) };
        let found = Found { address: [127, 0, 0, 9].into(), mac: None };
        let answers = [
            Answer::Probed { id: 7, status: Status::Up, evidence: evidence() },
            Answer::Route { id: 8, hops: vec![hop], is_reached: true },
            Answer::Discovered { id: 9, asked: 254, unknown: vec![found], never: vec![0], config: 2 },
            Answer::Refused { id: 7, why: Refused::Busy },
            Answer::Running(Running {
                machine: "aarch64".into(),
                build: [7; 32],
                version: "0.1.0".into(),
                offered: Some([8; 32]),
                stage: Stage::Refused { why: "it ended".into() },
            }),
            Answer::Tried(Tried {
                version: 2,
                is_held: true,
                answered: 0,
                silent_total: 300,
                silent: vec!["d".parse().expect("a valid id")],
            }),
        ];
        let (asked, answered) = (include_str!("../golden/v1-asks.hex"), include_str!("../golden/v1-answers.hex"));
        assert_eq!((asked.lines().count(), answered.lines().count()), (asks.len(), answers.len()));
        asks.iter().zip(asked.lines()).for_each(|(ask, golden)| check_golden(ask, golden));
        answers.iter().zip(answered.lines()).for_each(|(answer, golden)| check_golden(answer, golden));
        let restarting = Presence { stream: StreamId(1), state: PresenceState::Restarting };
        check_golden(&restarting, include_str!("../golden/v1-presence-restarting.hex"));
        let part = Wish::Part { build: [8; 32], from: 32_768 };
        let requests = [part, Wish::Heard { stream: StreamId(9) }].map(|wish| Request {
            public_key: vec![4; 3],
            wish,
            signature: vec![5; 2],
        });
        let replies = [
            Reply::Part(vec![1, 2, 3]),
            Reply::Heard(Hearing::Speaks { ago_ms: 4_000, within_ms: 30_000 }),
            Reply::Heard(Hearing::Nothing),
            Reply::Heard(Hearing::CannotSay),
            Reply::Refused("no such build".to_owned()),
        ];
        let (requested, replied) = (include_str!("../golden/v1-requests.hex"), include_str!("../golden/v1-replies.hex"));
        assert_eq!((requested.lines().count(), replied.lines().count()), (requests.len(), replies.len()));
        requests.iter().zip(requested.lines()).for_each(|(request, golden)| check_golden(request, golden));
        replies.iter().zip(replied.lines()).for_each(|(reply, golden)| check_golden(reply, golden));
        let sealed = Sealed { config: vec![1, 2, 3], signature: vec![9; 4] };
        check_golden(&sealed, include_str!("../golden/v1-sealed.hex"));
    }

    #[test]
    fn enrolment_is_written_as_it_always_was() {
        let claim = Claim::Renewal { public_key: vec![6; 2], signature: vec![7; 2] };
        let application = Application { public_key: vec![4; 3], claim, signature: vec![5; 2] };
        let bytes = encode(&application).expect("within the limit");
        assert_eq!(hex(&bytes), include_str!("../golden/v1-application.hex").trim());
        assert!(decode::<Application>(&bytes).is_ok_and(|read| read == application));
        let grant = Grant {
            branch: "vake".parse().expect("a valid id"),
            certificate: vec![1],
            authority: vec![2],
            renew_after: Millis(1_795_442_400_000),
            config_key: [3; 32],
            broker_host: "ward.example.bank".into(),
            broker_port: 8883,
        };
        check_golden(&Decision::Granted(Box::new(grant)), include_str!("../golden/v1-decision.hex"));
    }

    #[test]
    fn a_gap_stands_for_as_many_numbers_as_it_replaces() {
        let group = batch().group;
        assert_eq!((group.span(), group.last()), (8, 8));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = encode(&batch()).expect("within the limit");
        for len in 0..bytes.len() {
            assert!(decode::<Batch>(&bytes[..len]).is_err(), "cut to {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Batch>(&bent).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_or_kind_and_an_oversized_payload_are_named() {
        let mut bytes = encode(&batch()).expect("within the limit");
        assert!(matches!(decode::<Ack>(&bytes[..100]), Err(WireError::Checksum)));
        assert_eq!(decode::<Heartbeat>(&bytes), Err(WireError::Kind { expected: 2, found: 1 }));
        bytes[0] = 9;
        assert_eq!(decode::<Batch>(&bytes), Err(WireError::Version(9)));
        let large = vec![1; Batch::LIMIT_BYTES + 1];
        assert!(matches!(decode::<Batch>(&large), Err(WireError::TooLarge { .. })));
        assert!(matches!(decode::<Ack>(&[1; 129]), Err(WireError::TooLarge { .. })));
        let mut many = config();
        many.targets = vec![many.targets[0].clone(); 400_000];
        assert!(matches!(encode(&many), Err(WireError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_with_a_right_checksum_never_panic(body in prop::collection::vec(any::<u8>(), 0..300), kind in 1u8..40) {
            let mut bytes = vec![VERSION, kind];
            bytes.extend(body);
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
            if let Ok(batch) = decode::<Batch>(&bytes) {
                for delta in &batch.group.deltas {
                    if let Body::Qualities(q) = &delta.body {
                        q.columns.iter().for_each(|c| { let _ = c.unpack(q.unit_us); });
                    }
                }
            }
            let _ = (decode::<Ask>(&bytes), decode::<Answer>(&bytes));
            let _ = (decode::<Heartbeat>(&bytes), decode::<Ack>(&bytes), decode::<Presence>(&bytes), decode::<Config>(&bytes));
            let _ = (decode::<Sealed>(&bytes), decode::<Application>(&bytes).is_ok(), decode::<Decision>(&bytes));
        }
    }
}

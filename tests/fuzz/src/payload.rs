//! What crosses the wire.

use shared::wire::{Payload, VERSION, decode, encode};
use shared::{Batch, Body, Column, Config, Qualities};
use ward_agent::plan::Plan;

use crate::memory::bounded;

/// Bytes that a reader may hold for each byte of a payload: the widest is a run of two numbers, or a heartbeat's state.
const EACH: usize = 64;
/// What a reader may claim beside: serde trusts a list's length for up to a megabyte, and lists stand in lists.
const FIXED: usize = 4 * 1024 * 1024;

/// Reads bytes as they are, and as the inner part of a payload whose frame is right.
pub fn understood<T: Payload>(bytes: &[u8]) -> Vec<T> {
    let framed = framed::<T>(bytes);
    [bytes, &framed].iter().filter_map(|bytes| bounded(bytes.len(), EACH, FIXED, || decode(bytes)).ok()).collect()
}

/// A payload with this content.
pub fn framed<T: Payload>(content: &[u8]) -> Vec<u8> {
    let mut bytes = [&[VERSION, T::KIND], content].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// What was understood is understood again when it is written anew.
pub fn round_trip<T: Payload + PartialEq>(bytes: &[u8]) {
    for message in understood::<T>(bytes) {
        // Numbers that were written with more bytes than they need can only become shorter.
        let again = encode(&message).expect("it was within the limit");
        assert!(decode::<T>(&again).as_ref() == Ok(&message), "it is another when it is written anew");
    }
}

pub fn batch(bytes: &[u8]) {
    round_trip::<Batch>(bytes);
    for batch in understood::<Batch>(bytes) {
        if batch.group.is_sound() {
            assert!(batch.group.last() >= batch.group.first);
        }
        batch.dating.date(batch.observed_through);
        for delta in &batch.group.deltas {
            batch.dating.date(delta.at);
            if let Body::Qualities(qualities) = &delta.body {
                unpack(qualities, bytes.len());
            }
        }
    }
}

pub fn column(bytes: &[u8]) {
    if let Ok(qualities) = bounded(bytes.len(), EACH, FIXED, || postcard::from_bytes::<Qualities>(bytes)) {
        unpack(&qualities, bytes.len());
    }
}

fn unpack(qualities: &Qualities, len: usize) {
    qualities.minutes();
    for column in &qualities.columns {
        let minutes = bounded(len, EACH, 64 * 1024, || column.unpack(qualities.unit_us));
        let Ok(minutes) = minutes else { continue };
        let again = Column::pack(column.device.clone(), &minutes, qualities.unit_us);
        assert_eq!(again.unpack(qualities.unit_us).as_ref(), Ok(&minutes));
    }
}

pub fn config(bytes: &[u8]) {
    round_trip::<Config>(bytes);
    for config in understood::<Config>(bytes) {
        if let Ok(plan) = bounded(bytes.len(), 1_024, FIXED, || Plan::try_from(&config)) {
            assert_eq!(plan.targets.len(), config.targets.len());
        }
    }
}

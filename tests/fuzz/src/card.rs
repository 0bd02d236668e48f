//! What an agent finds on its card: groups of its buffer, runs before, and which program it is to run.

use std::collections::BTreeMap;

use shared::{Body, BootId, StreamId, Uptime};
use ward_agent::buffer::{Buffer, Position, Run};
use ward_agent::contents::Contents;
use ward_agent::slots::Slots;

use crate::memory::bounded;

/// Bytes as a group whose checksum is right, since arbitrary ones hardly ever have one: read, sent, and thinned.
pub fn group(bytes: &[u8]) {
    let framed = [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat();
    for group in [bytes.to_vec(), framed] {
        for limit_bytes in [1024 * 1024, 64] {
            // A card with one run and one group.
            let run = Run {
                ordinal: 1,
                stream: StreamId(1),
                boot: BootId(1),
                last: 9,
                at: Uptime(0),
                clean: false,
                dating: None,
                before: None,
            };
            let groups = [(Position { run: 1, seq: 1 }, group.clone())].into();
            let card = Contents { groups, runs: [(1, run)].into() };
            bounded(bytes.len(), 256, 8 * 1024 * 1024, || drain(card, limit_bytes));
        }
    }
}

/// Bytes as a row of the runs before.
pub fn run(bytes: &[u8]) {
    let Ok(run) = bounded(bytes.len(), 64, 64 * 1024, || postcard::from_bytes::<Run>(bytes)) else { return };
    let again = postcard::to_stdvec(&run).expect("serialisable");
    assert_eq!(postcard::from_bytes::<Run>(&again).as_ref(), Ok(&run));
    let card = Contents { groups: BTreeMap::new(), runs: [(run.ordinal, run)].into() };
    bounded(bytes.len(), 256, 8 * 1024 * 1024, || drain(card, 1024 * 1024));
}

/// Bytes as the file of the slots, as they are and with a checksum that is right.
pub fn slots(bytes: &[u8]) {
    let framed = [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat();
    for file in [bytes, &framed] {
        let Some(mut slots) = bounded(file.len(), 64, 64 * 1024, || Slots::decode(file)) else { continue };
        assert_eq!(Slots::decode(&slots.encode().expect("serialisable")).as_ref(), Some(&slots));
        let offered = [slots.good.as_ref(), slots.trial.as_ref().map(|trial| &trial.held)].into_iter().flatten();
        for offer in offered.map(|held| held.offer.clone()).collect::<Vec<_>>() {
            slots.objection(&offer);
        }
        slots.try_it();
        let floor = slots.floor;
        for _ in 0..8 {
            slots.begin(floor, BootId(1));
        }
        assert_eq!(slots.begin(floor, BootId(1)), None, "what is started again and again gives way to the package");
    }
}

fn drain(card: Contents, limit_bytes: u64) {
    let limit = ward_agent::buffer::GROUP_LIMIT_BYTES;
    let mut buffer = Buffer::open(card, StreamId(2), BootId(2), limit_bytes, Uptime(5));
    buffer.flush(Uptime(5));
    let mut after = Position::default();
    for _ in 0..1_000 {
        let Some(chunk) = buffer.next(after, limit, Uptime(10)) else { return };
        assert!(!chunk.group.deltas.is_empty(), "a chunk of nothing can't be acknowledged");
        assert!(chunk.end > after, "no way on from {after:?}");
        assert!(chunk.group.deltas.iter().all(|delta| delta.span() > 0 || matches!(delta.body, Body::Gap(_))));
        after = chunk.end;
    }
    panic!("one group becomes a thousand chunks");
}

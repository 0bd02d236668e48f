//! Groups that an agent finds on its card.

use std::collections::BTreeMap;
use std::io;

use shared::{Body, BootId, StreamId, Uptime};
use ward_agent::buffer::{Buffer, Position, Run, Store, Write};

use crate::memory::bounded;

/// A card with one run and at first one group, which takes whatever is written.
struct Card {
    groups: BTreeMap<Position, Vec<u8>>,
}

impl Store for Card {
    fn runs(&mut self) -> io::Result<Vec<Run>> {
        let (stream, boot) = (StreamId(1), BootId(1));
        Ok(vec![Run { ordinal: 1, stream, boot, last: 9, clean: false, dating: None }])
    }

    fn positions(&mut self) -> io::Result<Vec<Position>> {
        Ok(self.groups.keys().copied().collect())
    }

    fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>> {
        Ok(self.groups.get(&at).cloned())
    }

    fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
        self.forget(writes)
    }

    fn forget(&mut self, writes: Vec<Write>) -> io::Result<()> {
        for write in writes {
            match write {
                Write::Put(at, bytes) => drop(self.groups.insert(at, bytes)),
                Write::Remove(at) => drop(self.groups.remove(&at)),
                Write::Run(_) | Write::ForgetRun(_) => {}
            }
        }
        Ok(())
    }
}

/// Bytes as a group whose checksum is right, since arbitrary ones hardly ever have one: read, sent, and thinned.
pub fn stored(bytes: &[u8]) {
    let framed = [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat();
    for group in [bytes.to_vec(), framed] {
        for limit_bytes in [1024 * 1024, 64] {
            let card = Card { groups: BTreeMap::from([(Position { run: 1, seq: 1 }, group.clone())]) };
            bounded(bytes.len(), 256, 8 * 1024 * 1024, || drain(card, limit_bytes));
        }
    }
}

fn drain(card: Card, limit_bytes: u64) {
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

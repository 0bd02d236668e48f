//! What a store holds, in memory: what tests, benches and the simulation make their disks of.

use std::collections::BTreeMap;
use std::io;

use crate::buffer::{Position, Run, Store, Write};

/// Groups and runs that live as long as this value.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The groups by position.
    pub groups: BTreeMap<Position, Vec<u8>>,
    /// The runs by ordinal.
    pub runs: BTreeMap<u32, Run>,
}

impl Contents {
    /// Does what the writes say, one after the other.
    pub fn apply(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            match write {
                Write::Put(at, bytes) => drop(self.groups.insert(at, bytes)),
                Write::Remove(at) => drop(self.groups.remove(&at)),
                Write::Run(run) => drop(self.runs.insert(run.ordinal, run)),
                Write::ForgetRun(ordinal) => drop(self.runs.remove(&ordinal)),
            }
        }
    }
}

impl Store for Contents {
    fn runs(&mut self) -> io::Result<Vec<Run>> {
        Ok(self.runs.values().cloned().collect())
    }

    fn positions(&mut self) -> io::Result<Vec<Position>> {
        Ok(self.groups.keys().copied().collect())
    }

    fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>> {
        Ok(self.groups.get(&at).cloned())
    }

    fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
        self.apply(writes);
        Ok(())
    }

    fn forget(&mut self, writes: Vec<Write>) -> io::Result<()> {
        self.commit(writes)
    }
}

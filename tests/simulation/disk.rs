//! A disk that forgets what was not made durable when the power goes, and that can break and heal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use ward_agent::buffer::{Position, Run, Store, Write};

#[derive(Clone, Default)]
struct Content {
    groups: BTreeMap<Position, Vec<u8>>,
    runs: BTreeMap<u32, Run>,
}

impl Content {
    fn apply(&mut self, writes: Vec<Write>) {
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

#[derive(Default)]
struct Platter {
    durable: Content,
    now: Content,
    is_broken: bool,
}

/// The disk of one machine. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Rc<RefCell<Platter>>);

impl Disk {
    /// The power goes: only what is durable is left.
    pub(crate) fn power_cut(&self) {
        let mut platter = self.0.borrow_mut();
        platter.now = platter.durable.clone();
    }

    /// Breaks it or heals it.
    pub(crate) fn set_broken(&self, is_broken: bool) {
        self.0.borrow_mut().is_broken = is_broken;
    }

    fn content<T>(&self, read: impl FnOnce(&Content) -> T) -> io::Result<T> {
        let platter = self.0.borrow();
        if platter.is_broken { Err(io::ErrorKind::StorageFull.into()) } else { Ok(read(&platter.now)) }
    }
}

impl Store for Disk {
    fn runs(&mut self) -> io::Result<Vec<Run>> {
        self.content(|content| content.runs.values().cloned().collect())
    }

    fn positions(&mut self) -> io::Result<Vec<Position>> {
        self.content(|content| content.groups.keys().copied().collect())
    }

    fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>> {
        self.content(|content| content.groups.get(&at).cloned())
    }

    fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
        self.forget(writes)?;
        let mut platter = self.0.borrow_mut();
        platter.durable = platter.now.clone();
        Ok(())
    }

    fn forget(&mut self, writes: Vec<Write>) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        if platter.is_broken {
            return Err(io::ErrorKind::StorageFull.into());
        }
        platter.now.apply(writes);
        Ok(())
    }
}

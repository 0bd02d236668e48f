//! A disk that forgets what was not made durable when the power goes, and that fills up, fails and heals.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use shared::StreamId;
use ward_agent::buffer::{Position, Run, Store, Write};
use ward_agent::contents::Contents;

/// Most accesses in one step: more, and the agent hangs.
const ACCESS_LIMIT: u32 = 200_000;

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It takes no more, and can be read.
    Full,
    /// It was mounted read-only after an error.
    ReadOnly,
    /// It neither reads nor writes.
    Dead,
    /// Every third access fails, and what failed may still be there.
    Flaky,
}

impl Fault {
    /// All but none.
    pub(crate) const BAD: [Self; 4] = [Self::Full, Self::ReadOnly, Self::Dead, Self::Flaky];
}

struct Platter {
    durable: Contents,
    now: Contents,
    fault: Fault,
    rng: SmallRng,
    accesses: u32,
    /// Up to which number each stream was durable at some moment.
    promised: HashMap<StreamId, u64>,
    /// Streams of which a group is gone as a whole.
    robbed: HashSet<StreamId>,
}

impl Platter {
    fn read(&mut self) -> io::Result<()> {
        self.accesses += 1;
        assert!(self.accesses < ACCESS_LIMIT, "the agent asks its disk for ever: {:?}", self.fault);
        match self.fault {
            Fault::None | Fault::Full | Fault::ReadOnly => Ok(()),
            Fault::Flaky if !self.rng.random_ratio(1, 3) => Ok(()),
            Fault::Dead | Fault::Flaky => Err(io::Error::other("the disk doesn't answer")),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        match self.fault {
            Fault::Full => Err(io::ErrorKind::StorageFull.into()),
            Fault::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Fault::None | Fault::Dead | Fault::Flaky => self.read(),
        }
    }

    /// What a write that failed leaves behind: nothing, the runs, or all of it; for good or until the power goes.
    fn half_apply(&mut self, mut writes: Vec<Write>) {
        if self.fault != Fault::Flaky {
            return;
        }
        match self.rng.random_range(0..3) {
            0 => return,
            1 => writes.retain(|write| matches!(write, Write::Run(_) | Write::ForgetRun(_))),
            _ => {}
        }
        self.now.apply(writes);
        if self.rng.random() {
            self.durable = self.now.clone();
        }
    }
}

/// The disk of one machine. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk(Rc<RefCell<Platter>>);

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Platter {
            durable: Contents::default(),
            now: Contents::default(),
            fault: Fault::None,
            rng: SmallRng::seed_from_u64(seed),
            accesses: 0,
            promised: HashMap::new(),
            robbed: HashSet::new(),
        })))
    }

    /// The power goes: only what is durable is left.
    pub(crate) fn power_cut(&self) {
        let mut platter = self.0.borrow_mut();
        platter.now = platter.durable.clone();
    }

    /// Breaks it or heals it.
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.0.borrow_mut().fault = fault;
    }

    pub(crate) fn fault(&self) -> Fault {
        self.0.borrow().fault
    }

    /// Time passes.
    pub(crate) fn step(&self) {
        self.0.borrow_mut().accesses = 0;
    }

    /// Some group turns out not to be as it was written, or is gone.
    pub(crate) fn rot(&self) {
        let mut platter = self.0.borrow_mut();
        let Platter { durable, now, rng, robbed, .. } = &mut *platter;
        if now.groups.is_empty() {
            return;
        }
        let at = *now.groups.keys().nth(rng.random_range(0..now.groups.len())).expect("it is in range");
        let run = now.runs.get(&at.run).map(|run| run.stream);
        let (is_gone, bit) = (rng.random_ratio(1, 3), rng.random::<u16>());
        // Nobody can notice a last group that is gone as a whole, if the run after never spoke.
        robbed.extend(run.filter(|_| is_gone));
        for content in [durable, now] {
            if is_gone {
                content.groups.remove(&at);
            } else if let Some(bytes) = content.groups.get_mut(&at) {
                let place = usize::from(bit) % bytes.len();
                bytes[place] ^= 1 << (bit % 8);
            }
        }
    }

    /// Up to which number a stream was durable at some moment.
    pub(crate) fn promised(&self, stream: StreamId) -> u64 {
        let platter = self.0.borrow();
        platter.promised.get(&stream).copied().filter(|_| !platter.robbed.contains(&stream)).unwrap_or(0)
    }
}

impl Store for Disk {
    fn runs(&mut self) -> io::Result<Vec<Run>> {
        let mut platter = self.0.borrow_mut();
        platter.read()?;
        platter.now.runs()
    }

    fn positions(&mut self) -> io::Result<Vec<Position>> {
        let mut platter = self.0.borrow_mut();
        platter.read()?;
        platter.now.positions()
    }

    fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>> {
        let mut platter = self.0.borrow_mut();
        platter.read()?;
        platter.now.read(at)
    }

    fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
        let has_groups = writes.iter().any(|write| matches!(write, Write::Put(..)));
        let run = writes.iter().find_map(|write| if let Write::Run(run) = write { Some((run.stream, run.last)) } else { None });
        self.forget(writes)?;
        let mut platter = self.0.borrow_mut();
        platter.durable = platter.now.clone();
        // A run alone is remembered before its first entry is.
        if let Some((stream, last)) = run.filter(|_| has_groups) {
            let promised = platter.promised.entry(stream).or_default();
            *promised = last.max(*promised);
        }
        Ok(())
    }

    fn forget(&mut self, writes: Vec<Write>) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        if let Err(error) = platter.write() {
            platter.half_apply(writes);
            return Err(error);
        }
        platter.now.apply(writes);
        Ok(())
    }
}

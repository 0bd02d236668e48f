//! The buffer's groups in sled, durable when a commit returns.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::buffer::{Position, Run, Store, Write};

/// sled rewrites whole segments: small ones keep the bytes low that one durable record costs.
const SEGMENT_BYTES: usize = 64 * 1024;
/// sled's page cache.
const CACHE_BYTES: u64 = 1024 * 1024;
/// Name of the tree that remembers runs.
const RUNS: &str = "runs";

/// A sled database in a folder. While the folder can't be opened every call fails, and the next one tries again.
pub struct Disk {
    folder: PathBuf,
    open: Option<Open>,
}

struct Open {
    db: sled::Db,
    groups: sled::Tree,
    runs: sled::Tree,
    // sled's own file: its flush() ends before the bytes are on the disk, so we sync it ourselves.
    log: std::fs::File,
}

impl Disk {
    /// Uses the folder `buffer` in `state_dir`. A folder that sled can't open is put aside under another name.
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("buffer"), open: None }
    }

    fn opened(&mut self) -> io::Result<&Open> {
        if self.open.is_none() {
            self.open = Some(open_or_quarantine(&self.folder)?);
        }
        self.open.as_ref().ok_or_else(|| io::Error::other("the buffer is not open"))
    }

    fn apply(&mut self, writes: Vec<Write>) -> io::Result<&Open> {
        let open = self.opened()?;
        let mut groups = sled::Batch::default();
        for write in writes {
            match write {
                Write::Put(at, bytes) => groups.insert(&key(at), bytes),
                Write::Remove(at) => groups.remove(&key(at)),
                Write::Run(run) => {
                    let bytes = postcard::to_stdvec(&run).map_err(io::Error::other)?;
                    open.runs.insert(run.ordinal.to_be_bytes(), bytes)?;
                }
                Write::ForgetRun(ordinal) => {
                    open.runs.remove(ordinal.to_be_bytes())?;
                }
            }
        }
        open.groups.apply_batch(groups)?;
        Ok(open)
    }
}

fn open_or_quarantine(folder: &Path) -> io::Result<Open> {
    std::fs::create_dir_all(folder)?;
    // A damaged sled file often panics instead of returning an error.
    match catch_unwind(AssertUnwindSafe(|| open(folder))) {
        Ok(Ok(open)) => return Ok(open),
        Ok(Err(error)) if !is_damage(&error) => return Err(error),
        Ok(Err(error)) => tracing::error!(%error, "the buffer is damaged"),
        Err(_) => tracing::error!("the buffer is damaged: opening it panicked"),
    }
    let aside = (1..).map(|n| folder.with_extension(format!("damaged-{n}"))).find(|path| !path.exists());
    let aside = aside.unwrap_or_else(|| folder.with_extension("damaged"));
    std::fs::rename(folder, &aside)?;
    tracing::error!(aside = %aside.display(), "the damaged buffer is put aside; what it held and was not sent is a gap");
    std::fs::create_dir_all(folder)?;
    open(folder)
}

/// A full or read-only disk is not a reason to put a good buffer aside.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{Other, PermissionDenied, ReadOnlyFilesystem, StorageFull, WouldBlock};
    match error.kind() {
        StorageFull | ReadOnlyFilesystem | PermissionDenied | WouldBlock => false,
        Other => !error.to_string().contains("lock"),
        _ => true,
    }
}

fn open(folder: &Path) -> io::Result<Open> {
    let db =
        sled::Config::new().path(folder).segment_size(SEGMENT_BYTES).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
    let groups = db.open_tree("groups")?;
    let runs = db.open_tree(RUNS)?;
    let log = std::fs::File::options().read(true).write(true).open(folder.join("db"))?;
    // The folder's entry for a new file must be on the disk as well.
    std::fs::File::open(folder)?.sync_all()?;
    Ok(Open { db, groups, runs, log })
}

fn key(at: Position) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&at.run.to_be_bytes());
    key[4..].copy_from_slice(&at.seq.to_be_bytes());
    key
}

fn position(key: &[u8]) -> Option<Position> {
    let (run, seq) = key.split_first_chunk::<4>()?;
    Some(Position { run: u32::from_be_bytes(*run), seq: u64::from_be_bytes(seq.try_into().ok()?) })
}

impl Store for Disk {
    fn runs(&mut self) -> io::Result<Vec<Run>> {
        let mut runs = Vec::new();
        for entry in self.opened()?.runs.iter() {
            runs.extend(postcard::from_bytes(&entry?.1));
        }
        Ok(runs)
    }

    fn positions(&mut self) -> io::Result<Vec<Position>> {
        let mut positions = Vec::new();
        for key in self.opened()?.groups.iter().keys() {
            positions.extend(position(&key?));
        }
        Ok(positions)
    }

    fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>> {
        Ok(self.opened()?.groups.get(key(at))?.map(|bytes| bytes.to_vec()))
    }

    fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
        let open = self.apply(writes)?;
        open.db.flush()?;
        rustix::fs::fdatasync(open.log.as_fd())?;
        Ok(())
    }

    fn forget(&mut self, writes: Vec<Write>) -> io::Result<()> {
        self.apply(writes)?;
        Ok(())
    }
}

//! The buffer's groups in sled, durable when a commit returns.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::buffer::{Position, Run, Store, Write, decoded, encode};

/// sled keeps a page in a file of its own, which it never syncs, when it is over a quarter of a segment. A page has up to
/// 17 groups, so that these segments have room for [`crate::buffer::GROUP_LIMIT_BYTES`] each.
const SEGMENT_BYTES: usize = 512 * 1024;
/// sled's page cache.
const CACHE_BYTES: u64 = 1024 * 1024;
/// Name of the tree that remembers runs.
const RUNS: &str = "runs";
/// How the names of sled's snapshots begin.
const SNAPSHOT: &str = "snap.";
/// A file beside sled's with the newest run as it was last committed: sled opens a damaged file as far as it is whole, as if
/// nothing had ever followed.
const NEWEST: &str = "newest";
/// Bytes of it: a length, a run, and zeroes. It is written over in place, within a sector.
const NEWEST_BYTES: usize = 128;
/// On a full disk sled can't even delete. This much is set aside, and given up for it.
const RESERVE_BYTES: u64 = 512 * 1024;
/// The reserve is laid by again only where this many times as much is free.
const RESERVE_MARGIN: u64 = 4;
/// sled never gives room back: files that have grown beyond this are made anew once little is held.
const RENEW_BYTES: u64 = 8 * 1024 * 1024;
/// So many times what is held is little: new files take two to three times as much.
const GROWTH: u64 = 4;
/// Groups that are copied in one go.
const COPIED: usize = 8;
/// How often, and how long apart, a lock is asked for that a closed database is about to let go.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A sled database in a folder. After any failure it is closed, and the next call opens it again.
pub struct Disk {
    folder: PathBuf,
    reserve: PathBuf,
    open: Option<Open>,
    flushes: Arc<AtomicU64>,
    limit_bytes: u64,
    /// Files up to this size are left alone: a renewal that failed, or gained little, isn't tried again at once.
    renew_above: u64,
    has_put_aside: bool,
}

struct Open {
    db: sled::Db,
    groups: sled::Tree,
    runs: sled::Tree,
    newest: File,
    // sled's own file: its flush() ends before the bytes are on the disk, so we sync it ourselves.
    log: File,
}

impl Disk {
    /// How many bytes of groups may be held for files of a size: twice that and some is usual where groups are only added,
    /// and left by a renewal.
    pub fn held_limit(limit_bytes: u64) -> u64 {
        limit_bytes * 2 / 5
    }

    /// Uses the folder `buffer` in `state_dir`, up to a size in bytes. A folder that sled can't open is put aside under
    /// another name.
    pub fn new(state_dir: &Path, limit_bytes: u64) -> Self {
        let (folder, reserve) = (state_dir.join("buffer"), state_dir.join("reserve"));
        Self { folder, reserve, open: None, flushes: Arc::default(), limit_bytes, renew_above: 0, has_put_aside: false }
    }

    /// Counts how often something was made durable.
    pub fn flushes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.flushes)
    }

    /// Does something with the open database. A failure closes it: sled remembers an error for good, and may have
    /// panicked half-way through.
    fn with<T>(&mut self, what: impl FnOnce(&Open) -> io::Result<T>) -> io::Result<T> {
        if self.open.is_none() {
            let (open, has_put_aside) = open_or_quarantine(&self.folder).inspect_err(|error| self.make_room(error))?;
            self.has_put_aside |= has_put_aside;
            self.open = Some(open);
        }
        let Some(open) = &self.open else { return Err(io::Error::other("the buffer is not open")) };
        let done = guarded(|| what(open));
        if let Err(error) = &done {
            self.make_room(error);
            let _ = guarded(|| {
                drop(self.open.take());
                Ok(())
            });
        }
        done
    }

    /// A full disk gets the reserve.
    fn make_room(&self, error: &io::Error) {
        if is_full(error) && fs::remove_file(&self.reserve).is_ok() {
            tracing::warn!("the disk is full: its reserve is given up");
        }
    }

    /// Lays the reserve by where there is plenty of room; whether there is.
    fn lay_by(&self) -> bool {
        if self.reserve.exists() {
            return true;
        }
        let free = self.reserve.parent().and_then(|folder| rustix::fs::statvfs(folder).ok());
        let free = free.map_or(0, |free| free.f_bavail.saturating_mul(free.f_frsize));
        if free < RESERVE_BYTES * RESERVE_MARGIN {
            return false;
        }
        let laid_by = File::create(&self.reserve).and_then(|file| {
            let flags = rustix::fs::FallocateFlags::empty();
            Ok(rustix::fs::fallocate(file.as_fd(), flags, 0, RESERVE_BYTES)?)
        });
        if laid_by.is_err() {
            let _ = fs::remove_file(&self.reserve);
        }
        true
    }

    /// Begins a new folder with the same content. The old one stays until the new one is on the disk.
    fn renew(&mut self) -> io::Result<()> {
        let [fresh, old] = beside(&self.folder);
        clear_away(&fresh)?;
        fs::create_dir_all(&fresh)?;
        self.with(|open| copy(open, &fresh)).inspect_err(|_| drop(clear_away(&fresh)))?;
        self.open = None;
        fs::rename(&self.folder, &old)?;
        fs::rename(&fresh, &self.folder)?;
        if let Some(state_dir) = self.folder.parent() {
            File::open(state_dir)?.sync_all()?;
        }
        clear_away(&old)
    }
}

/// Writes all that a database holds into a new one in `folder`.
fn copy(from: &Open, folder: &Path) -> io::Result<()> {
    let to = open(folder)?;
    for entry in from.runs.iter() {
        let (ordinal, run) = entry?;
        to.runs.insert(ordinal, run)?;
    }
    for (n, entry) in from.groups.iter().enumerate() {
        let (at, group) = entry?;
        to.groups.insert(at, group)?;
        // What waits in memory together is written less densely.
        if n % COPIED == 0 {
            to.db.flush()?;
        }
    }
    to.db.flush()?;
    rustix::fs::fdatasync(to.log.as_fd())?;
    read_newest(&from.newest)?.map_or(Ok(()), |run| write_newest(&to.newest, &run))
}

fn read_newest(file: &File) -> io::Result<Option<Run>> {
    let mut bytes = [0; NEWEST_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(bytes[1..].get(..usize::from(bytes[0])).and_then(decoded)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_newest(file: &File, run: &Run) -> io::Result<()> {
    let run = encode(run);
    let mut bytes = [0; NEWEST_BYTES];
    bytes[0] = u8::try_from(run.len()).map_err(io::Error::other)?;
    bytes[1..].get_mut(..run.len()).ok_or(io::ErrorKind::FileTooLarge)?.copy_from_slice(&run);
    file.write_all_at(&bytes, 0)?;
    Ok(rustix::fs::fdatasync(file.as_fd())?)
}

/// The names of a folder that is being made, and of one that has had its day.
fn beside(folder: &Path) -> [PathBuf; 2] {
    [folder.with_extension("new"), folder.with_extension("old")]
}

fn clear_away(folder: &Path) -> io::Result<()> {
    if folder.exists() { fs::remove_dir_all(folder) } else { Ok(()) }
}

/// A renewal that a power cut interrupted is finished, or forgotten.
fn settle(folder: &Path) -> io::Result<()> {
    let [fresh, old] = beside(folder);
    if !folder.exists() && fresh.exists() {
        fs::rename(&fresh, folder)?;
    }
    clear_away(&fresh)?;
    clear_away(&old)
}

/// A damaged sled file often panics instead of returning an error.
fn guarded<T>(what: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::InvalidData, "sled panicked")))
}

/// The database, and whether the one that was there is damaged and put aside.
fn open_or_quarantine(folder: &Path) -> io::Result<(Open, bool)> {
    settle(folder)?;
    fs::create_dir_all(folder)?;
    let mut tries = 0;
    let damage = loop {
        match guarded(|| open(folder)) {
            Ok(open) => return Ok((open, false)),
            Err(error) if is_locked(&error) && tries < LOCK_TRIES => {
                tries += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            // sled only saves time by them, and a full disk or a power cut leaves halves of them that it takes for damage.
            Err(error) if is_damage(&error) && forget_snapshots(folder)? => {
                tracing::warn!(%error, "the buffer's snapshot can't be read: reading all of its log");
            }
            Err(error) if is_damage(&error) => break error,
            Err(error) => return Err(error),
        }
    };
    let aside = (1..).map(|n| folder.with_extension(format!("damaged-{n}"))).find(|path| !path.exists());
    let aside = aside.unwrap_or_else(|| folder.with_extension("damaged"));
    fs::rename(folder, &aside)?;
    tracing::error!(
        error = %damage, aside = %aside.display(),
        "the buffer is damaged and put aside; what it held and was not sent is a gap"
    );
    fs::create_dir_all(folder)?;
    let open = open(folder)?;
    // What was there is known by its numbers at least.
    if let Some(run) = File::open(aside.join(NEWEST)).and_then(|file| read_newest(&file)).ok().flatten() {
        write_newest(&open.newest, &run)?;
    }
    Ok((open, true))
}

/// Removes what sled keeps of its log's beginning beside it; whether there was any.
fn forget_snapshots(folder: &Path) -> io::Result<bool> {
    let mut is_any = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SNAPSHOT) {
            fs::remove_file(entry.path())?;
            is_any = true;
        }
    }
    Ok(is_any)
}

fn is_full(error: &io::Error) -> bool {
    // sled hands most errors on as texts.
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || error.to_string().contains("No space left on device")
}

fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || (error.kind() == io::ErrorKind::Other && error.to_string().contains("lock"))
}

/// A full, a read-only or a failing disk is no reason to put a good buffer aside.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, Other, UnexpectedEof};
    let says = |what: &str| error.to_string().contains(what);
    match error.kind() {
        InvalidData | UnexpectedEof | IsADirectory | NotADirectory => !is_full(error),
        Other => !is_full(error) && !is_locked(error) && !says("Read-only") && !says("Input/output error"),
        _ => false,
    }
}

fn open(folder: &Path) -> io::Result<Open> {
    let db =
        sled::Config::new().path(folder).segment_size(SEGMENT_BYTES).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
    let groups = db.open_tree("groups")?;
    let runs = db.open_tree(RUNS)?;
    let log = File::options().read(true).write(true).open(folder.join("db"))?;
    let newest = File::options().read(true).write(true).create(true).truncate(false).open(folder.join(NEWEST))?;
    // The folder's entry for a new file must be on the disk as well.
    File::open(folder)?.sync_all()?;
    Ok(Open { db, groups, runs, newest, log })
}

fn apply(open: &Open, writes: Vec<Write>) -> io::Result<()> {
    let mut groups = sled::Batch::default();
    let mut runs = sled::Batch::default();
    for write in writes {
        match write {
            Write::Put(at, bytes) => groups.insert(&key(at), bytes),
            Write::Remove(at) => groups.remove(&key(at)),
            Write::Run(run) => runs.insert(&run.ordinal.to_be_bytes(), postcard::to_stdvec(&run).map_err(io::Error::other)?),
            Write::ForgetRun(ordinal) => runs.remove(&ordinal.to_be_bytes()),
        }
    }
    // In this order: groups of a run that is forgotten would be nobody's.
    open.groups.apply_batch(groups)?;
    Ok(open.runs.apply_batch(runs)?)
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
        self.with(|open| {
            let mut runs = Vec::new();
            for entry in open.runs.iter() {
                runs.extend(postcard::from_bytes(&entry?.1));
            }
            Ok(runs)
        })
    }

    fn positions(&mut self) -> io::Result<Vec<Position>> {
        self.with(|open| {
            let mut positions = Vec::new();
            for key in open.groups.iter().keys() {
                positions.extend(position(&key?));
            }
            Ok(positions)
        })
    }

    fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>> {
        self.with(|open| Ok(open.groups.get(key(at))?.map(|bytes| bytes.to_vec())))
    }

    fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
        let runs = writes.iter().filter_map(|write| if let Write::Run(run) = write { Some(run) } else { None });
        let newest = runs.max_by_key(|run| run.ordinal).cloned();
        self.with(|open| {
            apply(open, writes)?;
            open.db.flush()?;
            rustix::fs::fdatasync(open.log.as_fd())?;
            newest.map_or(Ok(()), |run| write_newest(&open.newest, &run))
        })?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn forget(&mut self, writes: Vec<Write>) -> io::Result<()> {
        self.with(|open| apply(open, writes))
    }

    fn trim(&mut self, held_bytes: u64) -> io::Result<()> {
        let size = self.with(|open| Ok(open.log.metadata()?.len()))?;
        let is_loose = size > RENEW_BYTES && size > held_bytes.saturating_mul(GROWTH);
        if size <= self.renew_above || !(is_loose || size > self.limit_bytes) {
            return Ok(());
        }
        self.renew_above = size + size / 8;
        self.renew()?;
        let size = self.with(|open| Ok(open.log.metadata()?.len()))?;
        self.renew_above = size + size / 8;
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        self.lay_by()
    }

    fn newest(&mut self) -> io::Result<Option<Run>> {
        self.with(|open| read_newest(&open.newest))
    }

    fn has_put_aside(&mut self) -> bool {
        std::mem::take(&mut self.has_put_aside)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    use shared::delta::Rtt;
    use shared::{Body, BootId, Column, Minute, Qualities, Status, StreamId, Transition, Uptime};

    use super::*;
    use crate::buffer::{Buffer, GROUP_LIMIT_BYTES};

    const LIMIT: u64 = 64 * 1024 * 1024;

    fn run(ordinal: u32) -> Run {
        Run { ordinal, stream: StreamId(7), boot: BootId(1), last: 9, at: Uptime(0), clean: false, dating: None, before: None }
    }

    #[test]
    fn files_that_have_grown_are_made_anew_with_what_is_held() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::new(folder.path(), LIMIT);
        disk.commit(vec![Write::Run(run(3))]).expect("written");
        let at = |seq| Position { run: 3, seq };
        for seq in 1..=800 {
            disk.commit(vec![Write::Put(at(seq), vec![seq as u8; GROUP_LIMIT_BYTES + 500])]).expect("written");
            let apart = fs::read_dir(folder.path().join("buffer/blobs")).expect("sled's folder").count();
            assert_eq!(apart, 0, "sled doesn't sync what lies there");
        }
        let file = folder.path().join("buffer/db");
        let size = || fs::metadata(&file).expect("there").len();
        assert!(size() > RENEW_BYTES);
        let held = |n: u64| n * (GROUP_LIMIT_BYTES as u64 + 500);
        disk.trim(held(800)).expect("trimmed");
        assert!(size() > held(800), "it is full of what is held");
        disk.forget((1..800).map(|seq| Write::Remove(at(seq))).collect()).expect("forgotten");
        disk.trim(held(1)).expect("trimmed");
        assert_eq!((disk.positions().expect("read"), disk.runs().expect("read")), (vec![at(800)], vec![run(3)]));
        assert_eq!(disk.read(at(800)).expect("read"), Some(vec![800u64 as u8; GROUP_LIMIT_BYTES + 500]));
        assert!(size() < RENEW_BYTES / 4, "{} B", size());
        assert_eq!(beside(&folder.path().join("buffer")).map(|path| path.exists()), [false, false]);
    }

    #[test]
    fn files_stay_within_their_limit_whatever_is_thinned() {
        const SMALL: u64 = 2 * 1024 * 1024;
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(folder.path(), SMALL);
        let mut buffer = Buffer::open(disk, StreamId(1), BootId(1), Disk::held_limit(SMALL), Uptime(0));
        let size = || fs::metadata(folder.path().join("buffer/db")).expect("there").len();
        let mut most = 0;
        for n in 1..700 {
            let now = Uptime(n * 900_000);
            let column = |i: u64| {
                Column::pack(format!("d{i}").parse().expect("an id"), &[Minute { sent: 30, ..Minute::default() }; 15], 10)
            };
            let columns = (0..31).map(column).collect();
            buffer.append(Body::Qualities(Qualities { first_end: now, unit_us: 10, columns }), now);
            for i in 0..40 {
                let device = format!("d{i}").parse().expect("an id");
                let change = Transition {
                    device,
                    from: Status::Up,
                    to: Status::Down,
                    onset: now,
                    last_ok: None,
                    verdict: None,
                    evidence: None,
                };
                buffer.append(Body::Transition(change), now);
            }
            buffer.flush(now);
            most = most.max(size());
        }
        assert!(buffer.level().bytes > Disk::held_limit(SMALL) * 9 / 10, "{:?}", buffer.level());
        assert!(most <= SMALL * 3 / 2, "{most} B");
    }

    #[test]
    fn a_month_of_the_largest_branch_without_a_link_fits_in_sixteen_megabytes_and_nothing_is_thinned() {
        const MONTH_LIMIT: u64 = 16 * 1024 * 1024;
        const HOUR_MS: u64 = 3_600_000;
        let mut random = SmallRng::seed_from_u64(1);
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(folder.path(), MONTH_LIMIT);
        let mut buffer = Buffer::open(disk, StreamId(1), BootId(1), Disk::held_limit(MONTH_LIMIT), Uptime(0));
        let mut most = 0;
        for hour in 1..=30 * 24 {
            let now = Uptime(hour * HOUR_MS);
            let mut minute = |_| {
                let avg_us = random.random_range(8_000..12_000);
                let rtt = Rtt { min_us: avg_us - 2_000, avg_us, max_us: avg_us + random.random_range(0..9_000), jitter_us: 500 };
                Minute { sent: 30, lost: 0, rtt: Some(rtt) }
            };
            // Ids as long as they are on average, and the unit that is chosen for round trips of 10 ms.
            let mut column = |i: u64| {
                let minutes: Vec<Minute> = (0..60).map(&mut minute).collect();
                Column::pack(format!("a-branch-router-{i:02}").parse().expect("an id"), &minutes, 200)
            };
            for devices in [0..16, 16..31] {
                let columns = devices.map(&mut column).collect();
                let first_end = Uptime(now.0 - HOUR_MS + 60_000);
                buffer.append(Body::Qualities(Qualities { first_end, unit_us: 200, columns }), now);
            }
            buffer.flush(now);
            most = most.max(fs::metadata(folder.path().join("buffer/db")).expect("there").len());
        }
        assert!(most <= MONTH_LIMIT, "{most} B");
        let bytes_a_minute = buffer.level().bytes as f64 / (31.0 * 30.0 * 1_440.0);
        assert!(bytes_a_minute < 5.0, "{bytes_a_minute:.2} B a device-minute");
        let (mut after, mut minutes) = (Position::default(), 0);
        while let Some(chunk) = buffer.next(after, GROUP_LIMIT_BYTES, Uptime(0)) {
            for delta in &chunk.group.deltas {
                match &delta.body {
                    Body::Qualities(qualities) => minutes += qualities.minutes(),
                    Body::Boot(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            after = chunk.end;
        }
        assert_eq!(minutes, 31 * 30 * 1_440);
    }

    /// Bytes of memory that this process has.
    fn resident_bytes() -> u64 {
        let text = fs::read_to_string("/proc/self/status").expect("it is a Linux");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        line.and_then(|kb| kb.trim().parse::<u64>().ok()).expect("a number") * 1_024
    }

    #[test]
    fn a_database_takes_little_memory_however_much_goes_through_it() {
        let state = tempfile::tempdir().expect("a folder");
        let before = resident_bytes();
        let mut disk = Disk::new(state.path(), LIMIT);
        disk.commit(vec![Write::Run(run(1))]).expect("written");
        let at = |seq| Position { run: 1, seq };
        for seq in 1..=2_000 {
            disk.commit(vec![Write::Put(at(seq), vec![seq as u8; 5_000])]).expect("written");
            if seq > 10 {
                disk.forget(vec![Write::Remove(at(seq - 10))]).expect("forgotten");
            }
        }
        let taken = resident_bytes().saturating_sub(before);
        assert!(taken < 9 * 1024 * 1024, "{taken} B");
    }

    #[test]
    fn a_snapshot_that_a_full_disk_left_half_written_costs_nothing() {
        let state = tempfile::tempdir().expect("a folder");
        let at = |seq| Position { run: 3, seq };
        for seq in 1..=4 {
            let mut disk = Disk::new(state.path(), LIMIT);
            disk.commit(vec![Write::Run(run(3)), Write::Put(at(seq), vec![7; 5_000])]).expect("written");
        }
        let folder = state.path().join("buffer");
        let snapshots = || {
            let names = fs::read_dir(&folder).expect("there").flatten().map(|entry| entry.path());
            names.filter(|path| path.to_string_lossy().contains(SNAPSHOT)).collect::<Vec<_>>()
        };
        let is_whole = || {
            let mut disk = Disk::new(state.path(), LIMIT);
            (disk.positions().expect("read"), disk.has_put_aside()) == ((1..=4).map(at).collect(), false)
        };
        fs::write(folder.join("snap.00000000000FFFFF.generating"), "").expect("written");
        assert!(is_whole(), "the beginning of one");
        assert!(!snapshots().is_empty(), "sled writes them");
        snapshots().iter().for_each(|path| fs::write(path, [7; 100]).expect("written"));
        assert!(is_whole(), "all of them");
    }

    #[test]
    fn whatever_becomes_of_its_bytes_a_loss_is_noticed() {
        type Harm = fn(&mut Vec<u8>);
        let harms: [(&str, Harm); 6] = [
            ("nothing", |_| {}),
            ("bent", |bytes| bytes.iter_mut().step_by(64).for_each(|byte| *byte ^= 0x10)),
            ("bent further on", |bytes| bytes.iter_mut().skip(5_000).step_by(64).for_each(|byte| *byte ^= 0x10)),
            ("zeroed", |bytes| bytes.fill(0)),
            ("empty", Vec::clear),
            ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ];
        for (name, harm) in harms {
            let state = tempfile::tempdir().expect("a folder");
            let mut buffer = Buffer::open(Disk::new(state.path(), LIMIT), StreamId(1), BootId(1), LIMIT, Uptime(0));
            for n in 1..100u64 {
                let change = Transition {
                    device: format!("d{n}").parse().expect("an id"),
                    from: Status::Up,
                    to: Status::Down,
                    onset: Uptime(n),
                    last_ok: None,
                    verdict: None,
                    evidence: None,
                };
                buffer.append(Body::Transition(change), Uptime(n));
                buffer.flush(Uptime(n));
            }
            drop(buffer);
            let file = state.path().join("buffer/db");
            let mut bytes = fs::read(&file).expect("sled's file");
            harm(&mut bytes);
            fs::write(&file, bytes).expect("written");
            let mut buffer = Buffer::open(Disk::new(state.path(), LIMIT), StreamId(2), BootId(1), LIMIT, Uptime(200));
            let (mut kept, mut lost) = (0, 0);
            let mut at = Position::default();
            while let Some(chunk) = buffer.next(at, 100_000, Uptime(300)) {
                for delta in &chunk.group.deltas {
                    match &delta.body {
                        Body::Transition(_) => kept += 1,
                        Body::Gap(gap) => lost += gap.dropped.unreadable,
                        _ => {}
                    }
                }
                at = chunk.end;
            }
            let is_whole = name == "nothing";
            assert_eq!(
                (kept == 99, lost > 0, kept + lost >= 99),
                (is_whole, !is_whole, true),
                "{name}: {kept} kept, {lost} lost"
            );
        }
    }

    #[test]
    fn a_renewal_that_was_interrupted_is_finished_or_forgotten() {
        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().join("buffer");
        let [fresh, old] = beside(&folder);
        Disk::new(state.path(), LIMIT).commit(vec![Write::Run(run(3))]).expect("written");
        fs::create_dir(&fresh).expect("made");
        assert_eq!(Disk::new(state.path(), LIMIT).runs().expect("read"), [run(3)], "cut before the first rename");
        fs::rename(&folder, &fresh).expect("moved");
        fs::create_dir(&old).expect("made");
        assert_eq!(Disk::new(state.path(), LIMIT).runs().expect("read"), [run(3)], "cut between the two");
        assert!(!fresh.exists() && !old.exists());
    }

    #[test]
    fn a_reserve_is_laid_by_and_given_up_for_a_full_disk() {
        let state = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::new(state.path(), LIMIT);
        disk.commit(vec![Write::Run(run(1))]).expect("written");
        assert!(disk.has_room());
        let reserve = state.path().join("reserve");
        assert_eq!(fs::metadata(&reserve).expect("there").len(), RESERVE_BYTES);
        assert!(disk.with(|_| Err::<(), _>(io::ErrorKind::StorageFull.into())).is_err());
        assert!(!reserve.exists());
        assert_eq!(disk.runs().expect("it is opened again"), [run(1)]);
    }
}

//! SD cards: small file systems that fill up, fail, hang and lose their power.
//!
//! A [`Card`] is an ext4, as on a Pi, in an image behind a loop device. Its image lies on an XFS, which copies files by
//! reference: within an instant, a copy of the image is what the card holds if the power goes now. Bytes that the kernel
//! had not yet written are missing on it, as on a real card; what a drive itself reorders is not shown.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::namespace::{attempt, owner_is_gone, run};

/// How the folders of cards are named: this, the process, `x`, a number.
const PREFIX: &str = "wardcard";

/// Bytes of the disk on which the images of a test's cards lie. It has no more blocks than are written.
const SHELF: &str = "2G";

/// Bytes of a sector in the kernel's statistics, whatever the device's are.
const SECTOR_BYTES: u64 = 512;

/// The file that takes all the room of a full card.
const BALLAST: &str = "ballast";

/// A card that is mounted. Dropping it takes it out, whatever was done to it.
pub struct Card {
    shelf: Arc<Shelf>,
    slot: Slot,
}

/// A card that hangs: whoever writes to it waits, and not even SIGKILL ends the waiting. Dropping this thaws it, so it
/// has to be dropped before the programs that use the card: declare it after them.
#[must_use = "a card is thawed when this is dropped"]
pub struct Frozen {
    path: PathBuf,
}

/// An image and where it is mounted.
struct Slot {
    image: PathBuf,
    device: String,
    path: PathBuf,
}

/// The disk on which the images lie.
struct Shelf {
    folder: PathBuf,
    slots: AtomicU32,
}

impl Card {
    /// A new card of `megabytes` MB, of which the file system takes some for itself.
    pub fn new(megabytes: u32) -> Self {
        let shelf = Arc::new(Shelf::new());
        let image = shelf.next("image");
        run("truncate", &["--size", &format!("{megabytes}M"), text(&image)], "");
        // Nothing is reserved for root, who runs the tests. Blocks are small, so that a file soon needs another one.
        // Nothing is left to be initialised while it is mounted.
        let options = ["-q", "-F", "-m", "0", "-b", "1024", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run("mkfs.ext4", &[&options[..], &[text(&image)]].concat(), "");
        let path = shelf.next("card");
        Self { slot: Slot::insert(image, path), shelf }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.slot.path
    }

    /// Takes all the room that is left: the next block that anybody needs is refused with ENOSPC.
    pub fn fill(&self) {
        let ballast = File::options().create(true).append(true).open(self.path().join(BALLAST));
        let mut ballast = ballast.expect("a card that is not full takes a file");
        // A block that is refused now may be there when what was taken has been written.
        loop {
            let mut taken = 0;
            for chunk in [vec![1; 1 << 20], vec![1; 1 << 10]] {
                while let Ok(bytes @ 1..) = ballast.write(&chunk) {
                    taken += bytes;
                }
            }
            ballast.sync_all().expect("what a card has taken, it can write");
            if taken == 0 {
                return;
            }
        }
    }

    /// Gives back what [`Self::fill`] took.
    pub fn free_up(&self) {
        fs::remove_file(self.path().join(BALLAST)).expect("the card was filled before");
    }

    /// Lets it fail as a dying card does: each write, and each read that needs the card, ends with EIO. Files that are
    /// open now stay dead for ever; [`Self::replace`] heals the rest.
    pub fn fail(&self) {
        run("xfs_io", &["-x", "-c", "shutdown", text(self.path())], "");
    }

    /// Makes it read-only as the kernel does after a damage: even files that are open for writing end with EROFS, which
    /// a remount can't do to them. Files that are open now stay so for ever; [`Self::replace`] heals the rest.
    pub fn read_only(&self) {
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", self.slot.device);
        fs::write(trigger, "a test wants it").expect("the kernel lets root trigger errors");
    }

    /// Puts a good card with the same content in the place of this one. Files that are open on the old one stay there.
    pub fn replace(&mut self) {
        let image = self.shelf.copy(&self.slot.image);
        let path = self.slot.path.clone();
        self.slot.eject();
        self.slot = Slot::insert(image, path);
    }

    /// Makes it hang: writes wait until the answer is dropped.
    pub fn freeze(&self) -> Frozen {
        run("fsfreeze", &["--freeze", text(self.path())], "");
        Frozen { path: self.path().to_owned() }
    }

    /// What is on it if the power goes now, as another card. This one goes on.
    pub fn power_cut(&self) -> Self {
        let image = self.shelf.copy(&self.slot.image);
        Self { slot: Slot::insert(image, self.shelf.next("card")), shelf: Arc::clone(&self.shelf) }
    }

    /// Bytes that were written to it since it was mounted, those of the file system included, when all that waits to be
    /// written is.
    pub fn written_bytes(&self) -> u64 {
        run("sync", &["--file-system", text(self.path())], "");
        let stat = fs::read_to_string(format!("/sys/block/{}/stat", self.slot.device)).expect("a mounted device has statistics");
        // The seventh field, see the kernel's Documentation/block/stat.rst.
        let sectors = stat.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
        sectors.expect("a device counts sectors") * SECTOR_BYTES
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.slot.eject();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        quietly("fsfreeze", &["--unfreeze", text(&self.path)]);
    }
}

impl Slot {
    fn insert(image: PathBuf, path: PathBuf) -> Self {
        fs::create_dir_all(&path).expect("the folder is the test's own");
        let device = attach(&image, &path, "errors=remount-ro");
        Self { image, device, path }
    }

    /// Whoever has files open on it keeps them, and it, until they are closed.
    fn eject(&self) {
        quietly("umount", &["--lazy", text(&self.path)]);
        // It may be gone with its shelf.
        let _ = fs::remove_file(&self.image);
    }
}

impl Shelf {
    fn new() -> Self {
        static SHELVES: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let name = format!("{PREFIX}{}x{}", std::process::id(), SHELVES.fetch_add(1, Ordering::Relaxed));
        let shelf = Self { folder: std::env::temp_dir().join(name), slots: AtomicU32::new(0) };
        let (disk, images) = (shelf.folder.join("disk"), shelf.folder.join("images"));
        fs::create_dir_all(&images).expect("the folder for temporary files is writable");
        // Programs in namespaces have mounts of their own: only below a shared mount do they see what happens later.
        run("mount", &["--bind", text(&shelf.folder), text(&shelf.folder)], "");
        run("mount", &["--make-shared", text(&shelf.folder)], "");
        run("truncate", &["--size", SHELF, text(&disk)], "");
        // A copy's device can't have smaller blocks than these, and cards have small ones.
        run("mkfs.xfs", &["-q", "-b", "size=1024", "-m", "reflink=1", text(&disk)], "");
        attach(&disk, &images, "rw");
        shelf
    }

    /// A path that is not in use yet.
    fn next(&self, what: &str) -> PathBuf {
        let slot = self.slots.fetch_add(1, Ordering::Relaxed);
        self.folder.join(if what == "image" { "images" } else { "" }).join(format!("{what}-{slot}"))
    }

    fn copy(&self, image: &Path) -> PathBuf {
        let copy = self.next("image");
        run("cp", &["--reflink=always", text(image), text(&copy)], "");
        copy
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Mounts an image and returns the name of its device, which goes when the last user of the mount has gone.
fn attach(image: &Path, path: &Path, options: &str) -> String {
    // Past the page cache: what the card was told to write is in the image.
    let device = run("losetup", &["--find", "--show", "--direct-io=on", text(image)], "");
    let device = device.trim();
    let mounted = attempt("mount", &["-o", options, device, text(path)], "");
    // If it is in use, this only marks it.
    run("losetup", &["--detach", device], "");
    mounted.unwrap_or_else(|complaint| panic!("{complaint}"));
    device.trim_start_matches("/dev/").to_owned()
}

/// Takes out the cards of test processes that were killed and could not clean up.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| owner_is_gone(name, PREFIX)) {
            remove(&entry.path());
        }
    }
}

/// Unmounts all that is mounted below a folder, and removes the folder.
fn remove(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| Path::new(path).starts_with(folder));
    for path in below.collect::<Vec<_>>().into_iter().rev() {
        // A frozen one would never be done with unmounting.
        quietly("fsfreeze", &["--unfreeze", path]);
        quietly("umount", &["--lazy", path]);
    }
    // What can't be removed now is tried again at the next start.
    let _ = fs::remove_dir_all(folder);
}

/// Runs a program that may fail: for cleaning up, where nothing better can be done.
fn quietly(program: &str, arguments: &[&str]) {
    let _ = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of temporary files are UTF-8")
}

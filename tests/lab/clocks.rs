//! Wrong clocks: a program that believes in another time than the rest of the machine, whose own clock stays untouched.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::now_ms;

/// Debian's package libfaketime puts it there.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A wall clock that can be set while programs run by it. Their monotonic clocks run on.
///
/// It stands between a program and the C library, so only what asks the C library for the time sees it.
pub struct WrongClock {
    folder: TempDir,
}

impl WrongClock {
    /// A clock that is off by so many seconds.
    pub fn off_by(seconds: i64) -> Self {
        let clock = Self { folder: tempfile::tempdir().expect("the folder for temporary files is writable") };
        clock.set(seconds);
        clock
    }

    /// A clock that has just begun, in 1970.
    pub fn at_the_epoch() -> Self {
        Self::off_by(-now_ms() / 1000)
    }

    /// Sets it anew: from now on it is off by so many seconds.
    pub fn set(&self, seconds: i64) {
        // Renamed, so that nobody reads half of it.
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, format!("{seconds:+}\n")).expect("the folder is the test's own");
        fs::rename(fresh, self.file()).expect("the folder is the test's own");
    }

    /// The command that starts a program under this clock.
    pub fn wrapper(&self) -> Vec<String> {
        let file = self.file();
        ["env", &format!("LD_PRELOAD={}", library().display()), &format!("FAKETIME_TIMESTAMP_FILE={}", file.display())]
            .into_iter()
            .chain(["FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_RESET=1"])
            .map(str::to_owned)
            .collect()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("now")
    }
}

/// The command that starts a program as if after another boot, which was `uptime` ago. Only within a mount namespace of
/// its own, such as an agent in a branch has: `boot_id` is put over the kernel's.
pub fn other_boot(boot_id: &str, uptime: Duration) -> Vec<String> {
    let text = fs::read_to_string("/proc/uptime").expect("every kernel says it");
    let now = text.split('.').next().and_then(|seconds| seconds.parse::<i64>().ok()).expect("it is a number");
    let offset = i64::try_from(uptime.as_secs()).expect("nobody is up that long") - now;
    let script = "f=$(mktemp) && echo \"$0\" >$f && mount --bind $f /proc/sys/kernel/random/boot_id && rm $f && exec \"$@\"";
    ["unshare", "--time", "--boottime", &offset.to_string(), "sh", "-c", script, boot_id].map(str::to_owned).into()
}

/// Where the library lies: the folder is named for the machine.
///
/// # Panics
/// When it is not installed.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join(LIBRARY));
    folders.into_iter().find(|path| path.is_file()).expect("libfaketime is not installed: tests/run installs it")
}

//! Ward's own programs: where they lie, and what their config files have in common.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use crate::mosquitto::Access;

/// The API's token in all tests.
pub const TOKEN: &str = "the-laboratory-s-token";

/// How to probe, as the config files write it.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Between probes.
    pub interval_ms: i64,
    /// For a reply.
    pub timeout_ms: i64,
    /// Between probes while a verdict is pending.
    pub retry_ms: i64,
    /// Misses before down.
    pub fall: u8,
    /// Replies before up.
    pub rise: u8,
}

impl Probe {
    /// A probe each second: a test sees an outage in three seconds.
    pub const BRISK: Self = Self { interval_ms: 1_000, timeout_ms: 400, retry_ms: 500, fall: 3, rise: 2 };

    /// The most that may lie between a change and its verdict, in ms: one interval, and the confirmation.
    pub const fn verdict_ms(self) -> i64 {
        self.interval_ms + (self.fall as i64 - 1) * self.retry_ms + self.timeout_ms
    }

    pub(crate) fn table(self) -> String {
        let Self { interval_ms, timeout_ms, retry_ms, fall, rise } = self;
        format!(
            "[probe]\ninterval = \"{interval_ms}ms\"\ntimeout = \"{timeout_ms}ms\"\nretry = \"{retry_ms}ms\"\nfall = {fall}\nrise = {rise}\n"
        )
    }
}

/// Runs a program of ward's to its end: how it ended, and what it said on both streams.
pub fn run_to_end(program: &str, arguments: &[&str]) -> (ExitStatus, String) {
    let output = Command::new(binary(program)).args(arguments).output().expect("the binary was just found");
    (output.status, format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Where a program of ward's lies: in `WARD_BIN_DIR`, else beside the folder of this test.
///
/// # Panics
/// When it has not been built: cargo builds a package's programs for that package's own tests only.
pub fn binary(name: &str) -> PathBuf {
    let folder =
        env::var_os("WARD_BIN_DIR").map(PathBuf::from).or_else(|| Some(env::current_exe().ok()?.parent()?.parent()?.to_owned()));
    let path = folder.expect("a running test is a file in a folder").join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build` first, or set WARD_BIN_DIR", path.display());
    path
}

/// The `[broker]` part of a config file.
pub(crate) fn broker_table(access: &Access) -> String {
    let mut text = format!("[broker]\nhost = \"{}\"\nport = {}\n", access.host, access.port);
    if let Some(identity) = &access.identity {
        let (ca, certificate, key) = (identity.ca.display(), identity.certificate.display(), identity.key.display());
        text += &format!("\n[broker.tls]\nca = \"{ca}\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n");
    }
    text + "\n"
}

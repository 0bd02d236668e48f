//! A child process that ends with its owner, and its log.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// Lines of the log that a failed test shows.
const TAIL_LINES: usize = 60;

/// A running program. Dropping it kills it, and shows the end of its log if that happens in a panic.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output is appended to `log`. It lives in the calling thread's network namespace.
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::options().create(true).append(true).open(log).expect("the log stands in the test's own folder");
        let same = file.try_clone().expect("an open file can be cloned");
        command.stdin(Stdio::null()).stdout(file).stderr(same);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} can't be started: {error}; tests/run installs it"));
        Self { name, child, log: log.to_owned() }
    }

    /// All it has written so far, former runs with the same log included.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is this process's own child")
    }

    /// Ends it at once, as a power cut does (SIGKILL).
    pub fn kill_hard(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Memory it holds right now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it has not been waited for");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a running process has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the child has not been waited for");
    }

    /// Asks it to end as systemd does (SIGTERM) and waits.
    ///
    /// # Panics
    /// When it still runs after ten seconds.
    pub async fn stop(&mut self) -> ExitStatus {
        self.stop_by(Signal::TERM).await
    }

    /// Asks it to end as Ctrl-C does (SIGINT) and waits.
    ///
    /// # Panics
    /// When it still runs after ten seconds.
    pub async fn interrupt(&mut self) -> ExitStatus {
        self.stop_by(Signal::INT).await
    }

    async fn stop_by(&mut self, signal: Signal) -> ExitStatus {
        if let Some(status) = self.ended() {
            return status;
        }
        kill_process(Pid::from_child(&self.child), signal).expect("the child has not been waited for");
        let what = format!("{} ends after a {signal:?}", self.name);
        eventually(Duration::from_secs(10), &what, async || self.ended().context("it still runs")).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_hard();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            // Nothing better can be done when even this fails.
            let _ = writeln!(io::stderr(), "--- end of {}'s log\n{tail}\n---", self.name);
        }
    }
}

/// A port that nobody listens on right now, in the calling thread's network namespace.
pub fn free_port(address: IpAddr) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("the address is this namespace's own");
    listener.local_addr().expect("a bound socket has an address").port()
}

//! What an agent says of itself on its own box: a local socket, and how that reads on a terminal.
//!
//! Whoever connects gets one JSON text and the end of the connection. It works without link and without disk.

use std::fmt::Write;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use shared::message::{Health, Spent};
use shared::{Millis, StreamId};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::keeper::{Command, Standing};
use crate::outbox::Word;
use crate::plan::Plan;
use crate::watch::Tally;

/// Time for a reader to take the answer.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Where the socket lies.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("status.sock")
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The agent's version.
    pub version: String,
    /// The branch.
    pub branch: String,
    /// The present run.
    pub stream: StreamId,
    /// Version of the config in force; 0 for the agent's own file.
    pub config: u64,
    /// Whether there is a link to the broker.
    pub connected: bool,
    /// Entries that wait for an ack, bytes of them on disk, and whether the disk takes nothing.
    pub waiting: u64,
    /// See `waiting`.
    pub buffer_bytes: u64,
    /// See `waiting`.
    pub buffer_volatile: bool,
    /// The time as the agent knows it, once it does.
    pub now_ms: Option<i64>,
    /// By how much that may be off, in ms.
    pub error_ms: Option<u32>,
    /// Whether something like NTP vouches for the machine's clock.
    pub clock_synchronised: bool,
    /// By how much the machine's clock is ahead of `now_ms`, in ms.
    pub clock_ahead_ms: Option<i64>,
    /// Probe ticks that were skipped, probes that could not be sent, and replies that the kernel dropped, since the start.
    pub ticks_missed: u64,
    /// See `ticks_missed`.
    pub send_errors: u64,
    /// See `ticks_missed`.
    pub receive_drops: u64,
    /// Replies that answer no probe, since the start.
    pub stray_replies: u64,
    /// Probes of the devices since the start, and those of them that were not answered in time.
    pub probes: u64,
    /// See `probes`.
    pub probes_lost: u64,
    /// Bytes written, times synced, and bytes on the line over the last `over_ms`.
    pub spent: SpentReport,
    /// The devices.
    pub devices: Vec<DeviceReport>,
}

/// What the agent has cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpentReport {
    /// The time that this covers, in ms.
    pub over_ms: u64,
    /// Bytes written to the disk.
    pub disk_bytes: u64,
    /// How often something was made durable.
    pub flushes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its id.
    pub id: String,
    /// Where it is probed.
    pub address: String,
    /// `up`, `down` or `unknown`.
    pub status: String,
    /// Why nobody can say.
    pub cause: Option<String>,
    /// Whose fault it is.
    pub verdict: Option<String>,
    /// What may be said of it beside that.
    pub flags: Vec<String>,
    /// For how long it has been so, in ms.
    pub for_ms: u64,
}

/// What a report is made of.
pub struct Ends {
    /// The branch.
    pub branch: String,
    /// The keeper of the buffer.
    pub keeper: mpsc::Sender<Command>,
    /// How the stream stands.
    pub standing: watch::Receiver<Standing>,
    /// Counts and newest states of the watch.
    pub tally: watch::Receiver<Tally>,
    /// What is probed.
    pub plan: watch::Receiver<Arc<Plan>>,
}

/// Answers on the socket until it is dropped. A socket that can't be made is said once: nobody needs it to probe.
pub async fn serve(state_dir: PathBuf, ends: Ends) {
    let path = path(&state_dir);
    // One that an earlier run has left; the folder is locked, so that nobody uses it.
    let _ = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, path = %path.display(), "there is no socket for `ward-agent status`"),
    };
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let report = ends.report().await;
        let text = serde_json::to_vec(&report).unwrap_or_default();
        // One after the other: who doesn't read loses its turn.
        let _ = tokio::time::timeout(READ_LIMIT, stream.write_all(&text)).await;
    }
}

impl Ends {
    async fn report(&self) -> Report {
        let now = clock::uptime();
        let standing = *self.standing.borrow();
        let (tally, plan) = (self.tally.borrow().clone(), Arc::clone(&self.plan.borrow()));
        let spent = self.spent().await;
        let known = standing.dating.map(|dating| dating.date(now));
        let device = |(planned, live): (&crate::plan::Planned, &shared::Live)| DeviceReport {
            id: planned.device.to_string(),
            address: planned.host.to_string(),
            status: live.status.as_str().to_owned(),
            cause: live.status.cause().map(|cause| cause.as_str().to_owned()),
            verdict: live.verdict.map(|verdict| verdict.as_str().to_owned()),
            flags: live.flags.names().map(str::to_owned).collect(),
            for_ms: now.since(live.onset),
        };
        let (probes, probes_lost) = tally.counts.total();
        Report {
            version: crate::VERSION.to_owned(),
            branch: self.branch.clone(),
            stream: standing.stream,
            config: plan.version,
            connected: standing.is_connected,
            waiting: standing.level.waiting,
            buffer_bytes: standing.level.bytes,
            buffer_volatile: standing.level.volatile,
            now_ms: known.map(|(at, _)| at.0),
            error_ms: known.map(|(_, error_ms)| error_ms),
            clock_synchronised: clock::synchronised().is_some(),
            clock_ahead_ms: known.map(|(at, _)| clock::wall().since(at)),
            ticks_missed: tally.ticks_missed,
            send_errors: tally.send_errors,
            receive_drops: tally.receive_drops,
            stray_replies: tally.stray_replies,
            probes,
            probes_lost,
            spent,
            devices: plan.targets.iter().zip(tally.states.iter()).map(device).collect(),
        }
    }

    async fn spent(&self) -> SpentReport {
        let (reply, answer) = oneshot::channel();
        let word = Word { health: Some(Health::default()), ..Word::default() };
        let _ = self.keeper.send(Command::Heartbeat(word, reply)).await;
        let health = answer.await.ok().and_then(|heartbeat| heartbeat.health).unwrap_or_default();
        let Spent { over_ms, disk_bytes, flushes, sent_bytes, received_bytes } = health.spent;
        SpentReport { over_ms, disk_bytes, flushes, sent_bytes, received_bytes }
    }
}

/// Asks the agent whose state folder this is.
///
/// # Errors
/// When none answers.
pub fn ask(state_dir: &Path) -> anyhow::Result<Report> {
    let path = path(state_dir);
    let hint = || format!("no agent answers at {}: is ward-agent running, and may you read that folder?", path.display());
    let mut stream = UnixStream::connect(&path).with_context(hint)?;
    stream.set_read_timeout(Some(READ_LIMIT)).with_context(hint)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(hint)?;
    if text.is_empty() {
        bail!("the agent at {} is about to end", path.display());
    }
    serde_json::from_str(&text).context("the agent is of another version")
}

/// A report as a person reads it: problems first, then the rest by name.
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<10} {value}");
    };
    let count = |status: &str| report.devices.iter().filter(|device| device.status == status).count();
    line("agent", format!("{} in branch {}, config {}", report.version, report.branch, report.config));
    line("devices", format!("{} up, {} down, {} unknown", count("up"), count("down"), count("unknown")));
    line(
        "link",
        if report.connected { "connected".to_owned() } else { "NOT CONNECTED: what is seen waits in the buffer".to_owned() },
    );
    let volatile = if report.buffer_volatile { ", IN MEMORY ONLY: the disk fails or is full" } else { "" };
    line("buffer", format!("{} entries wait, {} on disk{volatile}", report.waiting, bytes(report.buffer_bytes)));
    line("clock", clock_words(report));
    let SpentReport { over_ms, disk_bytes, flushes, sent_bytes, received_bytes } = report.spent;
    let over = duration(over_ms);
    line("card", format!("{} written, {flushes} times synced in {over}", bytes(disk_bytes)));
    line("line", format!("{} sent, {} received in {over}", bytes(sent_bytes), bytes(received_bytes)));
    line(
        "probes",
        format!(
            "{}, of which {} not answered, {} late, {} not sent, {} replies dropped",
            report.probes, report.probes_lost, report.ticks_missed, report.send_errors, report.receive_drops
        ),
    );
    let mut devices: Vec<&DeviceReport> = report.devices.iter().collect();
    let rank = |device: &DeviceReport| ["down", "unknown", "up"].iter().position(|status| *status == device.status);
    devices.sort_by(|a, b| (rank(a), &a.id).cmp(&(rank(b), &b.id)));
    let width = devices.iter().map(|device| device.id.len()).max().unwrap_or(0).max(6);
    let _ = writeln!(out, "\n{:<width$}  {:<24} {:<26} FOR", "DEVICE", "ADDRESS", "STATUS");
    for device in devices {
        let status = match &device.cause {
            Some(cause) => format!("{} ({cause})", device.status),
            None => match &device.verdict {
                Some(verdict) => format!("{} ({verdict})", device.status),
                None => device.status.clone(),
            },
        };
        let status = device.flags.iter().fold(status, |text, flag| format!("{text}, {flag}"));
        let _ = writeln!(out, "{:<width$}  {:<24} {status:<26} {}", device.id, device.address, duration(device.for_ms));
    }
    out
}

fn clock_words(report: &Report) -> String {
    let ntp = if report.clock_synchronised { "NTP vouches for the machine's" } else { "nothing vouches for the machine's" };
    match (report.now_ms, report.error_ms, report.clock_ahead_ms) {
        (Some(now), Some(error), Some(ahead)) => {
            format!("{} give or take {error} ms; {ntp}, which is {ahead} ms ahead", Millis(now))
        }
        _ => format!("not known yet: no ack was heard since the boot; {ntp}"),
    }
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{} kB", n / 1_000),
        _ => format!("{} MB", n / 1_000_000),
    }
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use shared::{Dating, Live, Status, Uptime};

    use super::*;
    use crate::buffer::Level;
    use crate::plan::Planned;

    fn ends() -> (Ends, mpsc::Receiver<Command>) {
        let (keeper, commands) = mpsc::channel(8);
        let planned = |id: &str, last| Planned {
            device: id.parse().expect("a valid id"),
            host: shared::message::Host::Address([127, 0, 0, last].into()),
            probe: shared::message::Probe::Icmp,
            via: None,
            parent: None,
            rule: shared::ProbeRule::default(),
        };
        let targets = vec![planned("vake-atm-1", 1), planned("vake-router-1", 2)];
        let state = |planned: &Planned, status| Live {
            device: planned.device.clone(),
            status,
            onset: clock::uptime(),
            verdict: (status == Status::Down).then_some(shared::Verdict::LanFault),
            flags: shared::Flags::default(),
        };
        let states = Arc::new(vec![state(&targets[0], Status::Up), state(&targets[1], Status::Down)]);
        let plan = Plan { version: 7, heartbeat_ms: 22_000, report_ms: 600_000, targets };
        let standing = Standing {
            stream: StreamId(1),
            last: 3,
            level: Level { waiting: 2, bytes: 70_000, volatile: true, ..Level::default() },
            is_behind: false,
            is_connected: false,
            dating: Some(Dating::Fixed { boot_at: Millis(1_795_442_400_000), error_ms: 12 }),
            restatements: 0,
        };
        let ends = Ends {
            branch: "vake".to_owned(),
            keeper,
            standing: watch::channel(standing).1,
            tally: watch::channel(Tally { states, send_errors: 4, ..Tally::default() }).1,
            plan: watch::channel(Arc::new(plan)).1,
        };
        (ends, commands)
    }

    #[tokio::test]
    async fn whoever_asks_on_the_box_hears_how_the_agent_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ends, mut commands) = ends();
        let server = tokio::spawn(serve(folder.path().to_owned(), ends));
        // The keeper's part.
        tokio::spawn(async move {
            while let Some(Command::Heartbeat(word, reply)) = commands.recv().await {
                let spent = Spent { over_ms: 3_600_000, disk_bytes: 40_000, flushes: 5, sent_bytes: 900, received_bytes: 300 };
                let health = word.health.map(|health| Health { spent, ..health });
                let dating = None;
                let at = Uptime(0);
                let _ = reply.send(shared::Heartbeat {
                    stream: StreamId(1),
                    sent: at,
                    dating,
                    last: 0,
                    observed_through: at,
                    health,
                    states: Vec::new(),
                });
            }
        });
        let state_dir = folder.path().to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            (0..200).find_map(|_| {
                ask(&state_dir).ok().or_else(|| {
                    std::thread::sleep(Duration::from_millis(10));
                    None
                })
            })
        });
        let report = asked.await.expect("it doesn't panic").expect("it answers");
        assert_eq!((report.waiting, report.config, report.spent.flushes), (2, 7, 5));
        let table = table(&report);
        for part in [
            "NOT CONNECTED",
            "2 entries wait, 70 kB on disk, IN MEMORY ONLY",
            "40 kB written, 5 times synced in 1 h 0 min",
            "1 up, 1 down, 0 unknown",
            "give or take 12 ms",
            "4 not sent",
            "down (lan_fault)",
        ] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
        let (down, up) = (table.find("vake-router-1"), table.find("vake-atm-1"));
        assert!(down < up, "what is down comes first\n{table}");
        server.abort();
    }

    #[test]
    fn where_no_agent_runs_the_error_says_what_to_look_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = ask(folder.path()).expect_err("nobody").to_string();
        assert!(error.contains("is ward-agent running"), "{error}");
    }
}

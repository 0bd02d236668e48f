//! How the programs log: for a person at a terminal, or for systemd's journal.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Logs to stderr from here on; `usual` is what is told unless `RUST_LOG` says otherwise.
pub fn begin(usual: &str) {
    let asked = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
    // Not EnvFilter: it brings regular expressions, and an agent has to be small.
    let levels: Targets = asked.or_else(|| usual.parse().ok()).unwrap_or_default();
    let log = tracing_subscriber::registry().with(levels);
    let lines = fmt::layer().with_writer(std::io::stderr);
    if is_journal() {
        log.with(lines.with_ansi(false).event_format(ForJournal(Format::default().without_time().with_level(false)))).init();
    } else {
        log.with(lines.with_ansi(std::io::stderr().is_terminal())).init();
    }
}

/// Whether stderr goes to the journal: systemd names the socket by device and inode.
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Ok(stat) = rustix::fs::fstat(std::io::stderr().as_fd()) else { return false };
    named == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// The journal knows the time by itself, and the level by a number before the line.
struct ForJournal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// As syslog(3) counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

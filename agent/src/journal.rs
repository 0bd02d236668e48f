//! How the programs log: for a person at a terminal, for systemd's journal, or as JSON for whatever keeps logs.

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock;

/// What says how lines are written: `text`, or `ecs` for JSON with the names of the Elastic Common Schema.
const FORMAT: &str = "WARD_LOG_FORMAT";
/// The version of the schema whose names are used.
const ECS_VERSION: &str = "8.11.0";

/// Logs to stderr from here on, as the program `service`; `usual` is what is told unless `RUST_LOG` says otherwise.
pub fn begin(service: &'static str, usual: &str) {
    let asked = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
    // Not EnvFilter: it brings regular expressions, and an agent has to be small.
    let levels: Targets = asked.or_else(|| usual.parse().ok()).unwrap_or_default();
    let log = tracing_subscriber::registry().with(levels);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let format = std::env::var(FORMAT).unwrap_or_default();
    if format == "ecs" {
        log.with(ecs(service, is_journal(), std::io::stderr)).init();
    } else if is_journal() {
        log.with(lines.with_ansi(false).event_format(ForJournal(Format::default().without_time().with_level(false)))).init();
    } else {
        log.with(lines.with_ansi(std::io::stderr().is_terminal())).init();
    }
    if !["", "ecs", "text"].contains(&format.as_str()) {
        tracing::warn!(format, "{FORMAT} is ecs or text: this logs text");
    }
}

fn ecs<S, W>(service: &'static str, is_journal: bool, writer: W) -> impl tracing_subscriber::Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    let format = Ecs { service, is_journal };
    tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).fmt_fields(Members).event_format(format)
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
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
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

/// A JSON object a line, by the names of the Elastic Common Schema. What the schema has no name for is below `ward`.
struct Ecs {
    service: &'static str,
    is_journal: bool,
}

impl<S, N> FormatEvent<S, N> for Ecs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        if self.is_journal {
            write!(writer, "<{}>", priority(level))?;
        }
        write!(
            writer,
            "{{\"@timestamp\":\"{}\",\"log.level\":\"{}\",\"ecs.version\":\"{ECS_VERSION}\",\"service.name\":\"{service}\",\
             \"service.version\":\"{}\",\"event.dataset\":\"{service}.log\",\"process.pid\":{},\"log.logger\":{}",
            clock::wall(),
            level.as_str().to_ascii_lowercase(),
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            Value::from(event.metadata().target()),
            service = self.service,
        )?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(members) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(members)?;
            }
        }
        context.format_fields(writer.by_ref(), event)?;
        writer.write_str("}\n")
    }
}

/// Writes fields as members of an object, each with a comma before it.
struct Members;

impl<'a> FormatFields<'a> for Members {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut member = Member { writer, result: Ok(()) };
        fields.record(&mut member);
        member.result
    }

    fn add_fields(&self, current: &'a mut FormattedFields<Self>, fields: &tracing::span::Record<'_>) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

struct Member<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Member<'_> {
    fn write(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            "message" => "message".to_owned(),
            "error" => "error.message".to_owned(),
            "file" => "file.path".to_owned(),
            // A name of the schema's own.
            name if name.contains('.') => name.to_owned(),
            name => format!("ward.{name}"),
        };
        self.result = self.result.and_then(|()| write!(self.writer, ",{}:{value}", Value::from(name)));
    }
}

impl Visit for Member<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, Value::from(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, Value::from(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of what `work` logs.
    fn written(is_journal: bool, work: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::registry().with(ecs("ward-test", is_journal, move || writer.clone()));
        tracing::subscriber::with_default(log, work);
        let bytes = lines.0.lock().expect("nobody panics").clone();
        String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_line_is_an_object_by_the_names_of_the_schema() {
        let lines = written(false, || {
            let span = tracing::info_span!("request", http.request.id = "a-1", trace.id = tracing::field::Empty);
            span.record("trace.id", "0af7");
            let _in_it = span.entered();
            tracing::warn!(error = %"no \"such\"\nfile", file = "/a", rtt_ms = 1.5, count = 3_u64, "it\tfailed: {}", 7);
            tracing::info!(http.response.status_code = 404_u64, "answered");
        });
        let told: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(told.len(), 2, "{lines:?}");
        for (name, expected) in [
            ("log.level", Value::from("warn")),
            ("message", Value::from("it\tfailed: 7")),
            ("log.logger", Value::from("ward_agent::journal::tests")),
            ("service.name", Value::from("ward-test")),
            ("event.dataset", Value::from("ward-test.log")),
            ("http.request.id", Value::from("a-1")),
            ("trace.id", Value::from("0af7")),
            ("error.message", Value::from("no \"such\"\nfile")),
            ("file.path", Value::from("/a")),
            ("ward.rtt_ms", Value::from(1.5)),
            ("ward.count", Value::from(3)),
            ("process.pid", Value::from(std::process::id())),
        ] {
            assert_eq!(told[0][name], expected, "{name}");
        }
        let at = told[0]["@timestamp"].as_str().expect("a text");
        assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
        assert_eq!(
            (&told[1]["http.response.status_code"], &told[1]["http.request.id"]),
            (&Value::from(404), &Value::from("a-1"))
        );
    }

    #[test]
    fn the_journal_is_told_the_level_before_the_line() {
        let lines = written(true, || tracing::error!("gone"));
        let line = lines.first().and_then(|line| line.strip_prefix("<3>")).expect("a priority");
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

//! Reading a TOML config file so that each mistake is named with its line.
//!
//! Both programs read theirs through this, so that a mistake reads the same in either. Values are taken key by key;
//! what nobody took is an unknown key. Mistakes are collected, not returned one at a time.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One mistake in a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1.
    pub line: usize,
    /// Key that it stands at, with its table; empty where the file as a whole can't be read.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// All mistakes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// Name of the file as the user gave it.
    pub file: String,
    /// At least one, in the order of the file.
    pub list: Vec<Mistake>,
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:{}: ", self.file, mistake.line)?;
            if !mistake.key.is_empty() {
                write!(f, "{}: ", mistake.key)?;
            }
            f.write_str(&mistake.message)?;
        }
        Ok(())
    }
}

/// The text of a file's bytes.
///
/// # Errors
/// Where the first byte stands that is no UTF-8.
pub fn text(file: &str, bytes: Vec<u8>) -> Result<String, Mistakes> {
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let mistake = Mistake { line, key: String::new(), message: "this line is not UTF-8 text".to_owned() };
        Mistakes { file: file.to_owned(), list: vec![mistake] }
    })
}

struct Notes<'a> {
    text: &'a str,
    list: RefCell<Vec<Mistake>>,
}

impl Notes<'_> {
    fn add(&self, at: usize, key: String, message: String) {
        let line = self.text[..at.min(self.text.len())].matches('\n').count() + 1;
        self.list.borrow_mut().push(Mistake { line, key, message });
    }
}

/// Reads a config: `read` takes what it knows from the root table; the result is its answer if nothing was wrong.
///
/// # Errors
/// All mistakes of the file, each with its line.
pub fn read<T>(file: &str, text: &str, read: impl FnOnce(&Section<'_>) -> Option<T>) -> Result<T, Mistakes> {
    let notes = Notes { text, list: RefCell::new(Vec::new()) };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        notes.add(error.span().map_or(0, |span| span.start), String::new(), error.message().to_owned());
    }
    let mut answer = None;
    if errors.is_empty() {
        if root.get_ref().is_empty() {
            notes.add(0, String::new(), "the file is empty".to_owned());
        } else {
            let section = Section::new(root.get_ref(), String::new(), root.span(), &notes);
            answer = read(&section);
            section.finish();
        }
    }
    let mut list = notes.list.into_inner();
    list.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
    match answer {
        Some(answer) if list.is_empty() => Ok(answer),
        Some(_) | None => Err(Mistakes { file: file.to_owned(), list }),
    }
}

/// One table of the file. Each key may be taken once; the rest is unknown.
pub struct Section<'a> {
    table: &'a DeTable<'a>,
    path: String,
    span: Range<usize>,
    taken: RefCell<BTreeSet<String>>,
    notes: &'a Notes<'a>,
}

impl<'a> Section<'a> {
    fn new(table: &'a DeTable<'a>, path: String, span: Range<usize>, notes: &'a Notes<'a>) -> Self {
        Self { table, path, span, taken: RefCell::default(), notes }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.taken.borrow_mut().insert(key.to_owned());
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// Notes a mistake at `key`, or at the table itself where the key isn't written.
    pub fn mistake(&self, key: &str, message: impl Into<String>) {
        let at = self.take(key).map_or(self.span.start, |value| value.span().start);
        self.notes.add(at, self.path_of(key), message.into());
    }

    fn finish(&self) {
        let taken = self.taken.borrow();
        for (key, _) in self.table.iter().filter(|(key, _)| !taken.contains(key.get_ref().as_ref())) {
            let known = taken.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            self.notes.add(key.span().start, self.path_of(key.get_ref()), format!("unknown key; known here: {known}"));
        }
    }

    /// Whether the key is written.
    pub fn has(&self, key: &str) -> bool {
        self.take(key).is_some()
    }

    /// A table that may be missing.
    pub fn table<T>(&self, key: &str, read: impl FnOnce(&Section<'_>) -> Option<T>) -> Option<T> {
        let value = self.take(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.mistake(key, format!("must be a table, [{}]", self.path_of(key)));
            return None;
        };
        let section = Section::new(table, self.path_of(key), value.span(), self.notes);
        let answer = read(&section);
        section.finish();
        answer
    }

    /// Each table of a list `[[key]]` that may be missing, read one by one.
    pub fn tables<T>(&self, key: &str, mut read: impl FnMut(&Section<'_>) -> Option<T>) -> Vec<T> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.mistake(key, format!("must be a list of tables, [[{}]]", self.path_of(key)));
            return Vec::new();
        };
        let mut out = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let path = format!("{}[{}]", self.path_of(key), i + 1);
            let DeValue::Table(table) = item.get_ref() else {
                self.notes.add(item.span().start, path, "must be a table".to_owned());
                continue;
            };
            let section = Section::new(table, path, item.span(), self.notes);
            out.extend(read(&section));
            section.finish();
        }
        out
    }

    /// Each entry `name = { … }` of a table of tables that may be missing.
    pub fn entries<T>(&self, key: &str, mut read: impl FnMut(&str, &Section<'_>) -> Option<T>) -> Vec<T> {
        let mut out = Vec::new();
        self.table(key, |table| {
            for name in table.table.keys() {
                out.extend(table.table(name.get_ref(), |entry| read(name.get_ref(), entry)));
            }
            Some(())
        });
        out
    }

    /// A text that may be missing.
    pub fn text(&self, key: &str) -> Option<String> {
        match self.take(key)?.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            other => {
                self.mistake(key, format!("must be a text in quotes, not {}", other.type_str()));
                None
            }
        }
    }

    /// A text that is parsed, and that may be missing.
    pub fn parsed<T: std::str::FromStr<Err: fmt::Display>>(&self, key: &str) -> Option<T> {
        match self.text(key)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(key, error.to_string());
                None
            }
        }
    }

    /// A list of texts, each of them parsed, that may be missing.
    pub fn list<T: std::str::FromStr<Err: fmt::Display>>(&self, key: &str) -> Vec<T> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.mistake(key, "must be a list of texts in quotes, [\"…\", \"…\"]");
            return Vec::new();
        };
        let mut out = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let read = match item.get_ref() {
                DeValue::String(text) => text.parse().map_err(|error: T::Err| error.to_string()),
                other => Err(format!("must be a text in quotes, not {}", other.type_str())),
            };
            match read {
                Ok(value) => out.push(value),
                Err(what) => self.notes.add(item.span().start, format!("{}[{}]", self.path_of(key), i + 1), what),
            }
        }
        out
    }

    /// A text that must be there and is parsed.
    pub fn required<T: std::str::FromStr<Err: fmt::Display>>(&self, key: &str) -> Option<T> {
        if !self.has(key) {
            self.mistake(key, "missing");
        }
        self.parsed(key)
    }

    /// `true` or `false`, or a default where it is missing.
    pub fn flag(&self, key: &str, default: bool) -> Option<bool> {
        match self.take(key).map(Spanned::get_ref) {
            None => Some(default),
            Some(DeValue::Boolean(flag)) => Some(*flag),
            Some(other) => {
                self.mistake(key, format!("must be true or false, not {}", other.type_str()));
                None
            }
        }
    }

    /// A whole number within `range`, or a default where it is missing.
    pub fn whole<T: TryFrom<i64> + Into<i64> + Copy>(&self, key: &str, default: T, range: RangeInclusive<T>) -> Option<T> {
        let (low, high): (i64, i64) = ((*range.start()).into(), (*range.end()).into());
        match self.take(key).map(Spanned::get_ref) {
            None => Some(default),
            Some(DeValue::Integer(number)) => {
                let value = i64::from_str_radix(number.as_str(), number.radix()).ok();
                let inside = value.filter(|n| (low..=high).contains(n)).and_then(|n| T::try_from(n).ok());
                if inside.is_none() {
                    self.mistake(key, format!("must lie between {low} and {high}"));
                }
                inside
            }
            Some(other) => {
                self.mistake(key, format!("must be a whole number, not {}", other.type_str()));
                None
            }
        }
    }

    /// A time such as `"500ms"`, `"2s"`, `"5m"` or `"1h"` in ms within `range`, or a default where it is missing.
    pub fn duration_ms(&self, key: &str, default: u32, range: RangeInclusive<u32>) -> Option<u32> {
        if !self.has(key) {
            return Some(default);
        }
        let text = self.text(key)?;
        let Some(ms) = parse_duration_ms(&text) else {
            self.mistake(key, format!("{text:?} is not a time: write \"500ms\", \"2s\", \"5m\" or \"1h\""));
            return None;
        };
        if !range.contains(&ms) {
            let (low, high) = (format_duration(*range.start()), format_duration(*range.end()));
            self.mistake(key, format!("must lie between {low} and {high}"));
            return None;
        }
        Some(ms)
    }
}

fn parse_duration_ms(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    text[..digits].parse::<u32>().ok()?.checked_mul(unit)
}

fn format_duration(ms: u32) -> String {
    match ms {
        _ if ms > 0 && ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms > 0 && ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let result = read("f.toml", text, |root| {
            let branch = root.required::<crate::BranchId>("branch");
            let interval = root.table("probe", |probe| probe.duration_ms("interval", 2_000, 500..=3_600_000));
            let devices = root.tables("device", |device| device.required::<crate::DeviceId>("id"));
            let port = root.whole("port", 1883u16, 1..=65_535);
            let tls = root.flag("tls", true);
            Some(format!("{} {:?} {} {} {}", branch?, interval, devices.len(), port?, tls?))
        });
        match result {
            Ok(value) => assert_eq!(value, expected),
            Err(mistakes) => assert_eq!(mistakes.to_string(), expected),
        }
    }

    #[test]
    fn a_good_file_becomes_values() {
        check("branch = \"vake\"\n[probe]\ninterval = \"5m\"\n[[device]]\nid = \"a\"\n", "vake Some(300000) 1 1883 true");
        check("branch = \"vake\"\nport = 99\ntls = false", "vake None 0 99 false");
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        check(
            "branch = \"va/ke\"\nport = 70000\ncolour = 3\ntls = 1\n\n[probe]\ninterval = \"2 s\"\n[[device]]\nid = \"a\"\n[[device]]\nname = \"b\"\n",
            "f.toml:1: branch: an id is made of a-z, A-Z, 0-9, '.', '_' and '-', not '/'\n\
             f.toml:2: port: must lie between 1 and 65535\n\
             f.toml:3: colour: unknown key; known here: branch, device, port, probe, tls\n\
             f.toml:4: tls: must be true or false, not integer\n\
             f.toml:7: probe.interval: \"2 s\" is not a time: write \"500ms\", \"2s\", \"5m\" or \"1h\"\n\
             f.toml:10: device[2].id: missing\n\
             f.toml:11: device[2].name: unknown key; known here: id",
        );
        check("branch = \"vake\"\n[probe]\ninterval = \"100ms\"", "f.toml:3: probe.interval: must lie between 500ms and 1h");
        check("branch = 5\n", "f.toml:1: branch: must be a text in quotes, not integer");
        check(
            "branch = \"vake\"\ndevice = 5\nprobe = 6",
            "f.toml:2: device: must be a list of tables, [[device]]\nf.toml:3: probe: must be a table, [probe]",
        );
    }

    #[test]
    fn an_empty_or_broken_file_is_said_to_be_so() {
        check("", "f.toml:1: the file is empty");
        check("# only a comment\n", "f.toml:1: the file is empty");
        let broken = read("f.toml", "branch = \"vake\"\nport = \n", |_| Some(())).expect_err("not TOML");
        assert_eq!(broken.list[0].line, 2, "{broken}");
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_line() {
        assert_eq!(text("f", b"a = 1\n".to_vec()).as_deref(), Ok("a = 1\n"));
        let error = text("f.csv", b"a\nb\n\xff\n".to_vec()).expect_err("no text").to_string();
        assert_eq!(error, "f.csv:3: this line is not UTF-8 text");
    }

    #[test]
    fn a_duration_has_a_unit_and_does_not_overflow() {
        for (text, ms) in [
            ("500ms", Some(500)),
            ("2s", Some(2_000)),
            ("1h", Some(3_600_000)),
            ("2", None),
            ("", None),
            ("s", None),
            ("-2s", None),
            ("9999999h", None),
            ("2sec", None),
        ] {
            assert_eq!(parse_duration_ms(text), ms, "{text}");
        }
    }
}

//! What availability leaves out: maintenance windows, and the time outside of service hours. Also calendar months and days.
//!
//! Pure. Wall times become moments by the rules of an IANA time zone: a day may have 23 or 25 hours. A wall time that a
//! clock set forward skips is taken as much later; one that comes twice is the first, as RFC 5545 says.

use std::collections::HashMap;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use shared::{BranchId, DeviceId, Millis};

use crate::availability::spans::{Span, intersect, subtract, union};
use crate::fleet::Fleet;

/// Most parts of a week that service hours have.
pub const WEEKLY_LIMIT: usize = 50;
/// Most holidays that service hours have: decades of them.
pub const HOLIDAYS_LIMIT: usize = 1_000;

/// Whom something is about, from the widest to the narrowest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Every device.
    All,
    /// The devices of a region.
    Region(BranchId),
    /// The devices of a type.
    Type(BranchId),
    /// The devices of a branch.
    Branch(BranchId),
    /// One device.
    Device(DeviceId),
}

impl Scope {
    /// From its two words, such as `branch` and `vake`; else which of the two is wrong, and what is.
    ///
    /// # Errors
    /// The field and a sentence.
    pub fn from_words(scope: &str, key: Option<&str>) -> Result<Self, (&'static str, String)> {
        let id = || {
            let key = key.ok_or(("key", format!("is needed beside the scope {scope}")))?;
            key.parse::<BranchId>().map_err(|error| ("key", error.to_string()))
        };
        Ok(match scope {
            "all" if key.is_some() => return Err(("key", "can't stand beside the scope all".to_owned())),
            "all" => Self::All,
            "region" => Self::Region(id()?),
            "device_type" => Self::Type(id()?),
            "branch" => Self::Branch(id()?),
            "device" => Self::Device(id()?.as_str().parse().map_err(|_| ("key", "is no id".to_owned()))?),
            _ => return Err(("scope", "must be all, region, device_type, branch or device".to_owned())),
        })
    }

    /// Its two words.
    pub fn words(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::All => ("all", None),
            Self::Region(id) => ("region", Some(id.as_str())),
            Self::Type(id) => ("device_type", Some(id.as_str())),
            Self::Branch(id) => ("branch", Some(id.as_str())),
            Self::Device(id) => ("device", Some(id.as_str())),
        }
    }
}

/// An agreed time that availability leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its number.
    pub id: i64,
    /// Whom it is about.
    pub scope: Scope,
    /// When.
    pub span: Span,
    /// Why.
    pub reason: String,
    /// When it was agreed.
    pub created: Millis,
}

/// The hours in which a device has to work. Outside of them it is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    /// Their number.
    pub id: i64,
    /// Whom they are about.
    pub scope: Scope,
    /// When they hold; what lies outside follows others, or none.
    pub valid: Span,
    /// The hours.
    pub rule: Rule,
    /// When they were agreed.
    pub created: Millis,
}

/// Service hours by the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The IANA name of the time zone of its wall times.
    pub time_zone: String,
    /// The parts of a week.
    pub weekly: Vec<Weekly>,
    /// Days on which no service begins, as `2026-01-07`.
    #[serde(default)]
    pub holidays: Vec<String>,
}

/// A part of a week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weekly {
    /// On which days it begins: `mon` to `sun`.
    pub days: Vec<String>,
    /// When, as `09:00`.
    pub from: String,
    /// Until when, as `18:00`; up to `24:00`. Not later than `from`, it lies on the next day.
    pub to: String,
}

/// A [`Rule`] that can be followed.
#[derive(Debug, Clone)]
struct Week {
    zone: TimeZone,
    /// Minutes of the day from and to, by the day on which they begin. After midnight `to` is above 1440.
    days: [Vec<(i64, i64)>; 7],
    holidays: Vec<Date>,
}

/// Names of the days, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Rule {
    /// Says which field is wrong, if one is.
    ///
    /// # Errors
    /// The field and a sentence.
    pub fn check(&self) -> Result<(), (String, String)> {
        self.week().map(drop)
    }

    fn week(&self) -> Result<Week, (String, String)> {
        let zone = zone(&self.time_zone).ok_or_else(|| ("time_zone".to_owned(), NO_ZONE.to_owned()))?;
        if self.weekly.is_empty() || self.weekly.len() > WEEKLY_LIMIT {
            return Err(("weekly".to_owned(), format!("must have 1 to {WEEKLY_LIMIT} parts")));
        }
        let mut week = Week { zone, days: Default::default(), holidays: Vec::new() };
        for (at, part) in self.weekly.iter().enumerate() {
            let wrong = |field: &str, why: &str| (format!("weekly[{at}].{field}"), why.to_owned());
            let from = minutes(&part.from).filter(|from| *from < 1440);
            let from = from.ok_or_else(|| wrong("from", "must be a time such as 09:00"))?;
            let to = minutes(&part.to).ok_or_else(|| wrong("to", "must be a time such as 18:00, at most 24:00"))?;
            if part.days.is_empty() {
                return Err(wrong("days", "must name a day"));
            }
            for name in &part.days {
                let day = DAYS.iter().position(|day| day == name);
                let day = day.ok_or_else(|| wrong("days", "must be of mon, tue, wed, thu, fri, sat, sun"))?;
                week.days[day].push((from, if to > from { to } else { to + 1440 }));
            }
        }
        if self.holidays.len() > HOLIDAYS_LIMIT {
            return Err(("holidays".to_owned(), format!("are at most {HOLIDAYS_LIMIT}")));
        }
        for (at, text) in self.holidays.iter().enumerate() {
            let day = date(text).ok_or_else(|| (format!("holidays[{at}]"), "must be a day such as 2026-01-07".to_owned()))?;
            week.holidays.push(day);
        }
        week.holidays.sort_unstable();
        Ok(week)
    }
}

impl Week {
    /// The service of a time, as a set.
    fn service(&self, range: Span) -> Vec<Span> {
        let mut out = Vec::new();
        // What began the day before may reach into the range.
        let mut day = day_of(range.from, &self.zone).and_then(|day| day.yesterday().ok());
        while let Some(today) = day {
            let midnight = moment(today, 0, &self.zone);
            if midnight.is_none_or(|midnight| midnight >= range.to) {
                break;
            }
            if self.holidays.binary_search(&today).is_err() {
                let weekday: Weekday = today.weekday();
                for (from, to) in &self.days[weekday.to_monday_zero_offset().unsigned_abs() as usize] {
                    if let (Some(from), Some(to)) = (moment(today, *from, &self.zone), moment(today, *to, &self.zone)) {
                        out.push(Span::new(from, to).cut(&range));
                    }
                }
            }
            day = today.tomorrow().ok();
        }
        union(out)
    }
}

/// What is wrong with a name that [`zone`] doesn't know.
pub const NO_ZONE: &str = "must be the IANA name of a time zone, such as Asia/Tbilisi";

/// A time zone by its IANA name.
pub fn zone(name: &str) -> Option<TimeZone> {
    // Names such as `/etc/passwd` are not looked for in the file system.
    let is_name = !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "/_+-".contains(c));
    if !is_name || name.starts_with('/') {
        return None;
    }
    TimeZone::get(name).ok()
}

fn minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<i64>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= 1440).then_some(all)
}

fn date(text: &str) -> Option<Date> {
    text.parse::<Date>().ok().filter(|_| text.len() == 10)
}

/// The moment of a wall time, in minutes since midnight of a day; it may lie on the next one.
fn moment(day: Date, minutes: i64, zone: &TimeZone) -> Option<Millis> {
    let day = if minutes >= 1440 { day.tomorrow().ok()? } else { day };
    let minutes = minutes % 1440;
    let wall = day.at(i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?, 0, 0);
    Some(Millis(zone.to_ambiguous_timestamp(wall).compatible().ok()?.as_millisecond()))
}

/// The day of a moment.
fn day_of(at: Millis, zone: &TimeZone) -> Option<Date> {
    Some(zone.to_datetime(jiff::Timestamp::from_millisecond(at.0).ok()?).date())
}

/// A calendar month such as `2026-10`, in a time zone.
pub fn month(text: &str, zone: &TimeZone) -> Option<Span> {
    let (year, number) = text.split_once('-')?;
    if year.len() != 4 || number.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return None;
    }
    let first = Date::new(year.parse().ok()?, number.parse().ok()?, 1).ok()?;
    month_from(first, zone)
}

fn month_from(first: Date, zone: &TimeZone) -> Option<Span> {
    let next = first.last_of_month().tomorrow().ok()?;
    Some(Span::new(moment(first, 0, zone)?, moment(next, 0, zone)?))
}

/// The month that runs at a moment and those before it, newest first, each with its name.
pub fn months_to(at: Millis, count: usize, zone: &TimeZone) -> Vec<(String, Span)> {
    let mut out = Vec::new();
    let mut first = day_of(at, zone).map(|day| day.first_of_month());
    while let Some(day) = first.filter(|_| out.len() < count) {
        let Some(span) = month_from(day, zone) else { break };
        out.push((format!("{:04}-{:02}", day.year(), day.month()), span));
        first = day.yesterday().ok().map(|day| day.first_of_month());
    }
    out
}

/// The days of a time, each with its name; the first and the last may be cut.
pub fn days(range: Span, zone: &TimeZone) -> Vec<(String, Span)> {
    let mut out = Vec::new();
    let mut day = day_of(range.from, zone);
    while let Some(today) = day {
        let next = today.tomorrow().ok();
        let (Some(from), Some(to)) = (moment(today, 0, zone), next.and_then(|next| moment(next, 0, zone))) else { break };
        let span = Span::new(from, to).cut(&range);
        if from >= range.to {
            break;
        }
        if !span.is_empty() {
            out.push((today.to_string(), span));
        }
        day = next;
    }
    out
}

/// Everything that availability leaves out, and what of it was agreed or taken back late.
#[derive(Debug, Default)]
pub struct Schedule {
    windows: Vec<Window>,
    hours: Vec<(Hours, Week)>,
    windows_of: HashMap<Scope, Vec<usize>>,
    hours_of: HashMap<Scope, Vec<usize>>,
    /// What was ever agreed or taken back: when, for whom, and about which time.
    edits: Vec<(Millis, Scope, Span)>,
}

/// What is left out of a device's time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// All of it, as a set.
    pub spans: Vec<Span>,
    /// How long that is, in ms.
    pub ms: i64,
    /// How much of it is no maintenance but outside of service hours, in ms.
    pub off_hours_ms: i64,
}

/// Which windows and hours are about a device. Devices about which the same are share what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Applicable {
    windows: Vec<usize>,
    /// The narrowest first, and of one scope the newest first.
    hours: Vec<usize>,
}

impl Schedule {
    /// A schedule of what is agreed now, and of what was ever agreed or taken back.
    ///
    /// # Errors
    /// The number of hours that can't be followed.
    pub fn new(windows: Vec<Window>, hours: Vec<Hours>, edits: Vec<(Millis, Scope, Span)>) -> Result<Self, i64> {
        let mut schedule = Self { windows, edits, ..Self::default() };
        for hours in hours {
            let week = hours.rule.week().map_err(|_| hours.id)?;
            schedule.hours.push((hours, week));
        }
        schedule.hours.sort_by_key(|(hours, _)| std::cmp::Reverse(hours.id));
        for (at, window) in schedule.windows.iter().enumerate() {
            schedule.windows_of.entry(window.scope.clone()).or_default().push(at);
        }
        for (at, (hours, _)) in schedule.hours.iter().enumerate() {
            schedule.hours_of.entry(hours.scope.clone()).or_default().push(at);
        }
        Ok(schedule)
    }

    /// Whether nothing is left out of any device.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.hours.is_empty()
    }

    /// The windows, oldest first.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The service hours, newest first.
    pub fn hours(&self) -> impl Iterator<Item = &Hours> {
        self.hours.iter().map(|(hours, _)| hours)
    }

    /// What is about a device.
    pub fn of(&self, fleet: &Fleet, device: usize) -> Applicable {
        let mut applicable = Applicable::default();
        if self.is_empty() {
            return applicable;
        }
        let info = &fleet.devices[device].info;
        let branch = &fleet.branches[fleet.devices[device].branch].info;
        let kind = info.device_type.parse().map(Scope::Type).ok();
        // Narrowest first.
        let scopes = [
            Some(Scope::Device(info.id.clone())),
            Some(Scope::Branch(branch.id.clone())),
            kind,
            Some(Scope::Region(branch.region.clone())),
            Some(Scope::All),
        ];
        for scope in scopes.iter().flatten() {
            applicable.windows.extend(self.windows_of.get(scope).into_iter().flatten());
            applicable.hours.extend(self.hours_of.get(scope).into_iter().flatten());
        }
        applicable
    }

    /// Maintenance of a time, as a set.
    pub fn maintenance(&self, applicable: &Applicable, range: Span) -> Vec<Span> {
        union(applicable.windows.iter().map(|at| self.windows[*at].span.cut(&range)).collect())
    }

    /// All that is left out of a time.
    pub fn left_out(&self, applicable: &Applicable, range: Span) -> LeftOut {
        let maintenance = self.maintenance(applicable, range);
        let mut open = vec![range];
        let mut off = Vec::new();
        for at in &applicable.hours {
            let (hours, week) = &self.hours[*at];
            let ruled = intersect(&open, &[hours.valid]);
            for span in &ruled {
                off.extend(subtract(&[*span], &week.service(*span)));
            }
            open = subtract(&open, &[hours.valid]);
        }
        let maintenance_ms = crate::availability::spans::total_ms(&maintenance);
        let spans = union(maintenance.into_iter().chain(off).collect());
        let ms = crate::availability::spans::total_ms(&spans);
        LeftOut { spans, ms, off_hours_ms: ms - maintenance_ms }
    }

    /// For whom what is left out of a time was changed after its end, once for each change.
    pub fn changed_after(&self, range: Span) -> Vec<&Scope> {
        let is_late = |(at, _, span): &&(Millis, Scope, Span)| *at > range.to && span.overlaps(&range);
        self.edits.iter().filter(is_late).map(|(_, scope, _)| scope).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(text: &str) -> Millis {
        text.parse().expect("a time")
    }

    fn span(from: &str, to: &str) -> Span {
        Span::new(at(from), at(to))
    }

    fn rule(zone: &str, weekly: &str, holidays: &[&str]) -> Rule {
        // mon,tue 09:00 18:00; sat 10:00 14:00
        let weekly = weekly.split("; ").map(|part| {
            let mut words = part.split(' ');
            let mut word = || words.next().expect("days from to").to_owned();
            Weekly { days: word().split(',').map(str::to_owned).collect(), from: word(), to: word() }
        });
        let holidays = holidays.iter().map(|&day| day.to_owned()).collect();
        Rule { time_zone: zone.to_owned(), weekly: weekly.collect(), holidays }
    }

    fn service(rule: &Rule, range: Span) -> Vec<String> {
        let set = rule.week().expect("good").service(range);
        set.iter().map(|span| format!("{} {}", &span.from.to_string()[5..16], span.ms() as f64 / HOUR as f64)).collect()
    }

    const EVERY: &str = "mon,tue,wed,thu,fri,sat,sun";

    #[test]
    fn months_follow_the_zone_and_the_calendar() {
        let hours = |text: &str, name: &str| month(text, &zone(name).expect("a zone")).map(|span| span.ms() / HOUR);
        assert_eq!(hours("2026-10", "Asia/Tbilisi"), Some(744));
        // Berlin: an hour more in October, one less in March.
        assert_eq!(hours("2026-10", "Europe/Berlin"), Some(745));
        assert_eq!(hours("2026-03", "Europe/Berlin"), Some(743));
        assert_eq!((hours("2028-02", "Asia/Tbilisi"), hours("2026-02", "Asia/Tbilisi")), (Some(29 * 24), Some(28 * 24)));
        let october = month("2026-10", &zone("Asia/Tbilisi").expect("a zone")).expect("a month");
        assert_eq!((october.from, october.to), (at("2026-09-30T20:00:00Z"), at("2026-10-31T20:00:00Z")));
        for bad in ["", "2026", "2026-13", "2026-1", "26-10", "2026-00", "+026-10", "2026-10-01"] {
            assert_eq!(month(bad, &TimeZone::UTC), None, "{bad}");
        }
        let names: Vec<String> =
            months_to(at("2026-01-31T21:00:00Z"), 3, &zone("Asia/Tbilisi").expect("a zone")).into_iter().map(|m| m.0).collect();
        assert_eq!(names, ["2026-02", "2026-01", "2025-12"]);
    }

    #[test]
    fn days_have_the_length_that_the_clock_gives_them() {
        let days = days(span("2026-10-24T22:00:00Z", "2026-10-26T12:00:00Z"), &zone("Europe/Berlin").expect("a zone"));
        let text: Vec<String> = days.iter().map(|(name, span)| format!("{name}:{}", span.ms() / HOUR)).collect();
        assert_eq!(text, ["2026-10-25:25", "2026-10-26:13"]);
    }

    #[test]
    fn service_hours_keep_their_wall_time_when_the_clock_is_set() {
        let rule = rule("Europe/Berlin", &format!("{EVERY} 01:00 05:00"), &[]);
        // At 02:00 on 29 March it is 03:00, and at 03:00 on 25 October it is 02:00.
        assert_eq!(
            service(&rule, span("2026-03-27T23:00:00Z", "2026-03-30T22:00:00Z")),
            ["03-28T00:00 4", "03-29T00:00 3", "03-29T23:00 4"]
        );
        assert_eq!(service(&rule, span("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z")), ["10-24T23:00 5"]);
    }

    #[test]
    fn a_wall_time_that_is_skipped_comes_as_much_later() {
        let rule = rule("Europe/Berlin", "sun 02:30 04:00", &[]);
        assert_eq!(service(&rule, span("2026-03-29T00:00:00Z", "2026-03-29T22:00:00Z")), ["03-29T01:30 0.5"]);
    }

    #[test]
    fn service_that_crosses_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = rule("Asia/Tbilisi", "fri 22:00 06:00", &[]);
        let week = span("2026-11-15T20:00:00Z", "2026-11-22T20:00:00Z");
        assert_eq!(service(&night, week), ["11-20T18:00 8"]);
        // A range that begins in the middle of the night.
        assert_eq!(service(&night, span("2026-11-20T22:00:00Z", "2026-11-22T20:00:00Z")), ["11-20T22:00 4"]);
        assert_eq!(service(&rule("Asia/Tbilisi", "fri 22:00 06:00", &["2026-11-20"]), week), Vec::<String>::new());
        assert_eq!(service(&rule("Asia/Tbilisi", "fri 00:00 24:00", &[]), week), ["11-19T20:00 24"]);
        assert_eq!(service(&rule("UTC", "mon 08:00 12:00; mon 10:00 14:00", &[]), week), ["11-16T08:00 6"]);
    }

    #[test]
    fn the_narrowest_hours_count_and_of_two_alike_the_newest() {
        let (early, late) =
            (span("2020-01-01T00:00:00Z", "2026-11-18T00:00:00Z"), span("2026-11-18T00:00:00Z", "2030-01-01T00:00:00Z"));
        let hours =
            |id, scope, valid, weekly: &str| Hours { id, scope, valid, rule: rule("UTC", weekly, &[]), created: Millis(0) };
        let all = Span::new(Millis(0), Millis(i64::MAX));
        let branch = || Scope::Branch("vake".parse().expect("an id"));
        let schedule = Schedule::new(
            vec![],
            vec![
                hours(1, Scope::All, all, &format!("{EVERY} 00:00 12:00")),
                hours(2, branch(), late, &format!("{EVERY} 00:00 06:00")),
                hours(3, Scope::All, early, &format!("{EVERY} 00:00 18:00")),
            ],
            vec![],
        )
        .expect("good");
        let off = |scopes: &[Scope], from: &str, to: &str| {
            let hours = scopes.iter().flat_map(|scope| schedule.hours_of.get(scope).cloned().unwrap_or_default()).collect();
            let left_out = schedule.left_out(&Applicable { windows: vec![], hours }, span(from, to));
            (left_out.ms / HOUR, left_out.off_hours_ms / HOUR)
        };
        assert_eq!(off(&[branch(), Scope::All], "2026-11-17T00:00:00Z", "2026-11-18T00:00:00Z"), (6, 6));
        assert_eq!(off(&[branch(), Scope::All], "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z"), (18, 18));
        assert_eq!(off(&[Scope::All], "2026-11-17T00:00:00Z", "2026-11-19T00:00:00Z"), (18, 18));
        assert_eq!(off(&[], "2026-11-17T00:00:00Z", "2026-11-19T00:00:00Z"), (0, 0));
    }

    #[test]
    fn hours_that_cant_be_followed_are_refused_by_field() {
        let check = |rule: Rule, field: &str| assert_eq!(rule.check().map_err(|(field, _)| field), Err(field.to_owned()));
        check(rule("Asia/Tiflis!", "mon 09:00 18:00", &[]), "time_zone");
        check(rule("/etc/passwd", "mon 09:00 18:00", &[]), "time_zone");
        check(rule("UTC", "mon 9:00 18:00", &[]), "weekly[0].from");
        check(rule("UTC", "mon 24:00 18:00", &[]), "weekly[0].from");
        check(rule("UTC", "mon 09:00 18:00; tue 09:00 24:01", &[]), "weekly[1].to");
        check(rule("UTC", "moon 09:00 18:00", &[]), "weekly[0].days");
        check(rule("UTC", "mon 09:00 18:00", &["2026-02-30"]), "holidays[0]");
        check(Rule { weekly: vec![], ..rule("UTC", "mon 09:00 18:00", &[]) }, "weekly");
    }
}

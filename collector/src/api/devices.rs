//! Devices: the list with its filters, orders and pages, and one of them.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::{BranchId, DeviceId, Millis, Status};

use super::answer::Answer;
use super::auth::Caller;
use super::problem::Problem;
use super::query::{Nothing, Query, one_of, page};
use super::{Api, asked, up_to_date};
use crate::accounts::Reach;
use crate::feed::append;
use crate::fleet::{DeviceState, Fleet};
use crate::outage::{Change, Covered};
use crate::store::StoreError;
use crate::surface::{DEVICE_FIELDS, Fields, branch_json, device_json, outage_json, write_device};
use crate::{clock, outage, store};

/// Longest search text in characters.
const SEARCH_LIMIT: usize = 100;
/// How far back a device's outages are told with it, in ms.
const OUTAGES_MS: i64 = 30 * 24 * 3_600_000;
/// What devices can be sorted by.
pub(super) const SORTS: [&str; 7] = ["id", "name", "status", "since", "down_since", "rtt_ms", "packet_loss"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    region: Option<String>,
    branch: Option<String>,
    device_type: Option<String>,
    status: Option<String>,
    is_flapping: Option<String>,
    q: Option<String>,
    sort: Option<String>,
    fields: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// What a list is sorted by, from the least to the greatest. Then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Nothing,
    Text(String),
    Number(i64),
}

/// The order of a list.
struct Order {
    by: &'static str,
    descending: bool,
}

impl Order {
    fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let text = text.unwrap_or("id");
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let by = SORTS.into_iter().find(|sort| *sort == name);
        let by =
            by.ok_or_else(|| Problem::field("sort", format!("must be one of {}, or one with - before it", SORTS.join(", "))))?;
        Ok(Self { by, descending })
    }

    fn key(&self, device: &DeviceState) -> Key {
        let time = |at: Option<Millis>| at.map_or(Key::Nothing, |at| Key::Number(at.0));
        match self.by {
            "name" => Key::Text(device.info.name.to_lowercase()),
            // What is worst comes first.
            "status" => Key::Number(match device.view.status {
                Status::Down => 0,
                Status::Unknown(_) => 1,
                Status::Up => 2,
            }),
            "since" => time(device.view.since),
            "down_since" => time(device.view.down_since),
            "rtt_ms" => device.quality.and_then(|q| q.rtt_us).map_or(Key::Nothing, |us| Key::Number(us.into())),
            "packet_loss" => device.quality.map_or(Key::Nothing, |q| Key::Number((q.loss * 1_000.0) as i64)),
            _ => Key::Nothing,
        }
    }

    fn compare(&self, a: (&Key, &str), b: (&Key, &str)) -> Ordering {
        if self.descending { b.cmp(&a) } else { a.cmp(&b) }
    }
}

/// Where the page before ended: `ID`, or `ID~KEY` where the order has a key.
fn cursor(key: &Key, id: &str) -> String {
    match key {
        Key::Nothing => id.to_owned(),
        Key::Number(number) => format!("{id}~{number}"),
        Key::Text(text) => {
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("{id}~x{hex}")
        }
    }
}

fn parse_cursor(text: &str) -> Option<(Key, String)> {
    let (id, key) = text.split_once('~').map_or((text, None), |(id, key)| (id, Some(key)));
    id.parse::<DeviceId>().ok()?;
    let key = match key {
        None => Key::Nothing,
        Some(key) => match key.strip_prefix('x') {
            None => Key::Number(key.parse().ok()?),
            Some(hex) => {
                let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
                let bytes: Option<Vec<u8>> = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
                Key::Text(String::from_utf8(bytes?).ok()?)
            }
        },
    };
    Some((key, id.to_owned()))
}

/// What was asked for, checked.
struct Asked {
    filter: Filter,
    search: Option<String>,
    order: Order,
    fields: Fields,
    page: usize,
    after: Option<(Key, String)>,
}

impl Asked {
    fn of(filter: Filter) -> Result<Self, Problem> {
        one_of("status", filter.status.as_deref(), &["up", "down", "unknown"])?;
        one_of("is_flapping", filter.is_flapping.as_deref(), &["true", "false"])?;
        if filter.q.as_ref().is_some_and(|q| q.chars().count() > SEARCH_LIMIT) {
            return Err(Problem::field("q", format!("has at most {SEARCH_LIMIT} characters")));
        }
        let after = filter
            .cursor
            .as_deref()
            .map(|text| parse_cursor(text).ok_or_else(|| Problem::field("cursor", "is no cursor that was handed out")));
        let fields = filter.fields.as_deref().map_or(Ok(Fields::ALL), Fields::parse).map_err(|name| {
            let name: String = name.chars().take(40).collect();
            Problem::field("fields", format!("{name:?} is none of {}", DEVICE_FIELDS.join(", ")))
        })?;
        Ok(Self {
            search: filter.q.as_ref().map(|q| q.to_lowercase()),
            order: Order::parse(filter.sort.as_deref())?,
            fields,
            page: page(filter.limit.as_deref())?,
            after: after.transpose()?,
            filter,
        })
    }

    fn takes(&self, fleet: &Fleet, device: &DeviceState, reach: &Reach) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let branch = &fleet.branches[device.branch].info;
        reach.takes(&branch.region)
            && is(&self.filter.region, branch.region.as_str())
            && is(&self.filter.branch, branch.id.as_str())
            && is(&self.filter.device_type, &device.info.device_type)
            && is(&self.filter.status, device.view.status.as_str())
            && is(&self.filter.is_flapping, if device.view.is_flapping { "true" } else { "false" })
            && self.search.as_deref().is_none_or(|search| {
                let texts = [device.info.id.as_str(), &device.info.name, branch.id.as_str(), &branch.name];
                texts.iter().any(|text| text.to_lowercase().contains(search)) || device.info.ip.to_string().contains(search)
            })
    }

    fn write(&self, fleet: &Fleet, reach: &Reach) -> Vec<u8> {
        let devices = fleet.devices.iter().enumerate().filter(|(_, device)| self.takes(fleet, device, reach));
        let mut found: Vec<(Key, usize)> = devices.map(|(at, device)| (self.order.key(device), at)).collect();
        let id = |at: usize| fleet.devices[at].info.id.as_str();
        found.sort_unstable_by(|(a, a_at), (b, b_at)| self.order.compare((a, id(*a_at)), (b, id(*b_at))));
        let first = self.after.as_ref().map_or(0, |(after, after_id)| {
            found.partition_point(|(key, at)| self.order.compare((key, id(*at)), (after, after_id)).is_le())
        });
        let page = &found[first..found.len().min(first + self.page)];
        let more = first + page.len() < found.len();
        let next = page.last().filter(|_| more).map(|(key, at)| cursor(key, id(*at)));
        let mut text = Vec::with_capacity(page.len() * 400 + 100);
        text.extend_from_slice(b"{\"devices\":[");
        append(&mut text, page.iter().map(|(_, at)| *at), |text, at| write_device(text, fleet, at, self.fields));
        let end = format!("],\"next_cursor\":{},\"total\":{}}}", json!(next), found.len());
        text.extend_from_slice(end.as_bytes());
        text
    }
}

/// Devices, a page at a time.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: axum::http::Uri,
    Query(filter): Query<Filter>,
) -> Result<Answer, Problem> {
    let wanted = Asked::of(filter)?;
    let (live, reach) = (Arc::clone(&api.live), caller.who.reach.clone());
    let make = move || (wanted.write(&live.fleet(), &reach), clock::now());
    api.answers.of(asked(&uri, &caller), &api.live.shown, make).await
}

/// One device with its branch and its outages of the last 30 days, newest first.
pub(super) async fn detail(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Answer, Problem> {
    let now = clock::now();
    let known = find(&api, &caller, &id)?;
    let from = now.plus(-OUTAGES_MS);
    let Past { changes, covered, .. } = known.past(&api, from, Millis(i64::MAX), |_| Ok(())).await?;
    let mut outages: Vec<Value> = outage::outages(&changes, &covered, from, now).iter().map(outage_json).collect();
    outages.reverse();
    let body = {
        let fleet = api.live.fleet();
        let Some(at) = id.parse().ok().and_then(|id| fleet.device(&id)) else {
            return Err(Problem::not_found("there is no such device"));
        };
        let mut body = device_json(&fleet, at);
        body["branch_state"] = branch_json(&fleet, fleet.devices[at].branch);
        body["outages"] = json!(outages);
        body
    };
    Answer::dated(&body, now)
}

/// What the file needs to know of a device.
pub(super) struct Known {
    pub(super) id: DeviceId,
    pub(super) no: u32,
    pub(super) branch: BranchId,
}

/// What the ledger has of a device and a time.
pub(super) struct Past<T> {
    /// The changes of its status.
    pub(super) changes: Vec<Change>,
    /// What was observed of its branch.
    pub(super) covered: Vec<Covered>,
    /// What else was asked of the same file.
    pub(super) beside: T,
}

impl Known {
    /// What it has been, and what `beside` asks of the file at the same time.
    pub(super) async fn past<T: Send + 'static>(
        &self,
        api: &Arc<Api>,
        from: Millis,
        to: Millis,
        beside: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Past<T>, Problem> {
        let (no, branch) = (self.no, self.branch.clone());
        let read = move |db: &rusqlite::Connection| {
            let (changes, covered) = (store::changes(db, no, from, to)?, store::covered(db, branch.as_str())?);
            Ok(Past { changes, covered, beside: beside(db)? })
        };
        let Past { changes, covered, beside } = api.read(read).await?;
        Ok(Past { changes, covered: up_to_date(api, &self.branch, covered), beside })
    }
}

/// A device by the id in a path. One that the caller may not see is none.
pub(super) fn find(api: &Api, caller: &Caller, id: &str) -> Result<Known, Problem> {
    let fleet = api.live.fleet();
    let is_seen = |at: &usize| caller.who.reach.takes(&fleet.branches[fleet.devices[*at].branch].info.region);
    let device = id.parse::<DeviceId>().ok().and_then(|id| Some((fleet.device(&id).filter(is_seen)?, id)));
    let Some((at, id)) = device else { return Err(Problem::not_found("there is no such device")) };
    Ok(Known { id, no: fleet.devices[at].no, branch: fleet.devices[at].info.branch.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Quality;

    fn fleet() -> Fleet {
        let text = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                    a,ქ \"b\",vake,Vake,t,T,atm,10.0.0.1\nb,B,vake,Vake,t,T,atm,10.0.0.2\nc,B,gldani,Gldani,k,K,router,10.0.0.1\n\
                    d,A,gldani,Gldani,k,K,atm,10.0.0.9\n";
        let mut fleet = Fleet::new(30_000);
        fleet.set_inventory(&crate::inventory::parse_csv("e", text).expect("good"), &[1, 2, 3, 4]);
        fleet.refresh(Millis(0));
        for (at, rtt) in [(0, Some(5)), (1, None), (2, Some(3))] {
            fleet.measure(at, Quality { at: Millis(0), rtt_us: rtt, loss: f64::NAN });
        }
        fleet
    }

    fn ask(query: &str) -> Result<Asked, Problem> {
        let uri: axum::http::Uri = format!("/?{query}").parse().expect("an address");
        let filter = axum::extract::Query::<Filter>::try_from_uri(&uri).expect("known parameters").0;
        Asked::of(filter)
    }

    /// The ids that a query finds, page by page.
    fn pages(query: &str) -> String {
        let fleet = fleet();
        let mut pages = Vec::new();
        let mut cursor = String::new();
        loop {
            let asked = ask(&format!("{query}{cursor}")).expect("a good query");
            let answer: Value = serde_json::from_slice(&asked.write(&fleet, &Reach::All)).expect("JSON");
            let devices = answer["devices"].as_array().expect("a list");
            pages.push(devices.iter().filter_map(|device| device["id"].as_str()).collect::<Vec<_>>().join(" "));
            let Some(next) = answer["next_cursor"].as_str() else { return pages.join(" | ") };
            cursor = format!("&cursor={next}");
        }
    }

    #[test]
    fn each_device_stands_once_on_the_pages_whatever_their_order() {
        assert_eq!(pages("limit=3"), "a b c | d");
        assert_eq!(pages("limit=2&sort=-id"), "d c | b a");
        assert_eq!(pages("limit=1&sort=name"), "d | b | c | a");
        assert_eq!(pages("limit=1&sort=-name"), "a | c | b | d");
        assert_eq!(pages("limit=1&sort=rtt_ms"), "b | d | c | a");
        assert_eq!(pages("limit=2&sort=packet_loss"), "d a | b c");
        assert_eq!(pages("limit=1&status=unknown&sort=down_since&q=ATM&device_type=atm"), "");
        assert_eq!(pages("region=k&device_type=atm"), "d");
        assert_eq!(pages("q=%E1%83%A5"), "a");
        assert_eq!(pages("q=10.0.0.1"), "a c");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let long = format!("q={}", "x".repeat(101));
        for (query, field) in [
            ("status=broken", "status"),
            ("status=", "status"),
            ("is_flapping=1", "is_flapping"),
            ("sort=ip", "sort"),
            ("sort=--id", "sort"),
            ("fields=id,colour", "fields"),
            ("fields=", "fields"),
            ("limit=0", "limit"),
            ("limit=10001", "limit"),
            ("limit=%2B5", "limit"),
            ("limit=NaN", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("cursor=a/b", "cursor"),
            ("cursor=a~", "cursor"),
            ("cursor=a~xf", "cursor"),
            ("cursor=a~xff", "cursor"),
            ("cursor=a~x%C3%A9", "cursor"),
            (&long, "q"),
        ] {
            let problem = ask(query).err().expect("refused");
            assert!(format!("{problem:?}").contains(&format!("Some(\"{field}\")")), "{query}: {problem:?}");
        }
    }

    #[test]
    fn a_cursor_that_was_handed_out_is_read_again_and_a_bent_one_does_no_harm() {
        for key in [Key::Nothing, Key::Number(i64::MIN), Key::Text("\u{10e5} ~x\"".to_owned()), Key::Text(String::new())] {
            let text = cursor(&key, "vake-atm-1");
            assert_eq!(parse_cursor(&text), Some((key, "vake-atm-1".to_owned())));
            for at in 0..=text.len() {
                let (before, after) = text.split_at(at);
                for bent in [before.to_owned(), after.to_owned(), format!("{before}~{after}"), format!("{before}\u{e9}{after}")] {
                    if let Some((key, id)) = parse_cursor(&bent) {
                        assert!(
                            id.parse::<DeviceId>().is_ok() && parse_cursor(&cursor(&key, &id)) == Some((key, id)),
                            "{bent:?}"
                        );
                    }
                }
            }
        }
    }
}

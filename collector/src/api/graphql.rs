//! `POST /api/v1/graphql`: the same read models for those who ask for just what they need. It reads, and changes nothing.
//!
//! Whatever a question asks of the ledger it asks in one reading, for all devices of a page. What a question may cost is
//! bounded before any of it is looked at.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use async_graphql::parser::parse_query;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql::{
    Context, EmptyMutation, EmptySubscription, Enum, InputValueError, InputValueResult, Name, Object, Positioned, Request,
    Scalar, ScalarType, Schema, SimpleObject, Value, Variables,
};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use shared::{BranchId, DeviceId, Status};

use super::auth::Caller;
use super::availability::{Params, figures};
use super::body::Fields;
use super::problem::Problem;
use super::query::{Nothing, Query};
use super::{Api, up_to_date};
use crate::accounts::Reach;
use crate::availability::report::{By, Row};
use crate::fleet::{Counts, DeviceState, Fleet};
use crate::outage::{Covered, Outage};
use crate::{clock, outage, store};

/// Longest question in bytes: to read it costs more than to answer most.
const QUERY_LIMIT_BYTES: usize = 16 * 1024;
/// Deepest nesting: what tools ask of the schema is 13 deep.
const DEPTH_LIMIT: usize = 15;
/// Most values of an answer, about.
const COMPLEXITY_LIMIT: usize = 50_000;
/// Most fields of a question, with its fragments in the places where they stand.
const FIELDS_LIMIT: usize = 500;
/// Most fields that have another name in the answer.
const ALIASES_LIMIT: usize = 20;
/// Most devices of a page, and with their outages.
const PAGE_LIMIT: usize = 1_000;
const OUTAGES_PAGE_LIMIT: usize = 100;
/// How far back outages are told, in ms.
const OUTAGES_MS: i64 = 30 * 24 * 3_600_000;
/// Fields of the schema's own description that lead from a type to other types.
const LEADING: [&str; 4] = ["fields", "inputFields", "interfaces", "possibleTypes"];

type Answers = Schema<Root, EmptyMutation, EmptySubscription>;

/// What can be asked. The collector comes with each question.
static SCHEMA: LazyLock<Answers> = LazyLock::new(|| {
    let schema = Schema::build(Root, EmptyMutation, EmptySubscription);
    schema.limit_depth(DEPTH_LIMIT).limit_complexity(COMPLEXITY_LIMIT).limit_directives(4).finish()
});

/// `GET /api/v1/schema.graphql`: what can be asked, in GraphQL's own language.
pub(super) async fn schema(Query(Nothing {}): Query<Nothing>) -> String {
    SCHEMA.sdl()
}

/// UTC in ms. A number of its own: GraphQL's integers have 32 bits.
#[derive(Debug, Clone, Copy)]
struct Ms(i64);

/// UTC in integer milliseconds.
#[Scalar(name = "Millis")]
impl ScalarType for Ms {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::Number(number) => number.as_i64().map(Self).ok_or_else(|| InputValueError::expected_type(value)),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::from(self.0)
    }
}

#[derive(SimpleObject)]
struct DevicePage {
    /// Devices of all pages.
    total: usize,
    /// Where the next page begins: the argument `after`.
    next_cursor: Option<String>,
    nodes: Vec<Device>,
}

/// A device.
#[derive(SimpleObject)]
struct Device {
    id: String,
    name: String,
    device_type: String,
    ip: String,
    /// up, down or unknown
    status: &'static str,
    cause: Option<&'static str>,
    since: Option<Ms>,
    down_since: Option<Ms>,
    last_ok: Option<Ms>,
    is_flapping: bool,
    in_maintenance: bool,
    rtt_ms: Option<f64>,
    packet_loss: Option<f64>,
    /// degraded_loss, degraded_latency or identity_changed
    flags: Vec<&'static str>,
    /// Whose fault a failure is: device_down, lan_fault, agent_isolated, wan_cut or power_cut
    verdict: Option<&'static str>,
    is_provisional: bool,
    branch: Branch,
    /// Those of the last 30 days, newest first.
    outages: Vec<OutageOf>,
}

/// A branch.
#[derive(SimpleObject, Clone)]
struct Branch {
    id: String,
    name: String,
    region: Region,
    /// never, connected or silent
    contact: &'static str,
    last_contact: Option<Ms>,
}

/// A region.
#[derive(SimpleObject, Clone)]
struct Region {
    id: String,
    name: String,
}

/// A time that was down.
#[derive(SimpleObject)]
#[graphql(name = "Outage")]
struct OutageOf {
    from: Ms,
    /// Absent while it goes on.
    to: Option<Ms>,
    last_ok: Option<Ms>,
    unobserved_ms: Ms,
}

/// How many devices are what.
#[derive(SimpleObject)]
struct Stats {
    total_devices: usize,
    up: usize,
    down: usize,
    unknown: usize,
    flapping: usize,
    maintenance: usize,
}

/// Figures of a time.
#[derive(SimpleObject)]
struct Availability {
    from: Ms,
    to: Ms,
    time_zone: String,
    /// Every figure is final.
    is_final: bool,
    total: usize,
    rows: Vec<AvailabilityRow>,
}

/// Figures of one key.
#[derive(SimpleObject)]
struct AvailabilityRow {
    key: String,
    name: Option<String>,
    devices: usize,
    up_ms: Ms,
    down_ms: Ms,
    unknown_ms: Ms,
    maintenance_ms: Ms,
    outages: usize,
    mttr_ms: Option<Ms>,
    mtbf_ms: Option<Ms>,
    availability: Option<f64>,
    at_least: Option<f64>,
    at_most: Option<f64>,
    coverage: Option<f64>,
    is_final: bool,
    revision: usize,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
enum StatusName {
    Up,
    Down,
    Unknown,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
enum RowsBy {
    All,
    Region,
    Branch,
    Type,
    Device,
}

/// What is and was.
struct Root;

/// Whoever asks, and whom.
struct Asking {
    api: Arc<Api>,
    caller: Caller,
}

fn asking<'a>(context: &'a Context<'_>) -> async_graphql::Result<&'a Asking> {
    context.data::<Asking>()
}

fn refused(problem: Problem) -> async_graphql::Error {
    async_graphql::Error::new(problem.to_string())
}

#[Object(name = "Query")]
impl Root {
    /// How many devices are what.
    async fn stats(&self, context: &Context<'_>) -> async_graphql::Result<Stats> {
        let Asking { api, caller } = asking(context)?;
        let fleet = api.live.fleet();
        let mut counts = Counts::default();
        let seen = fleet.devices.iter().filter(|device| is_seen(&fleet, device, caller));
        seen.for_each(|device| counts.add(&device.view));
        let Counts { total: total_devices, up, down, unknown, flapping, maintenance } = counts;
        Ok(Stats { total_devices, up, down, unknown, flapping, maintenance })
    }

    /// Devices by id, a page at a time: 1 to 1,000, and at most 100 with their outages.
    #[expect(clippy::too_many_arguments, reason = "these are the arguments of the question")]
    #[graphql(complexity = "(first.max(1) as usize).saturating_mul(child_complexity)")]
    async fn devices(
        &self,
        context: &Context<'_>,
        region: Option<String>,
        branch: Option<String>,
        device_type: Option<String>,
        status: Option<StatusName>,
        is_flapping: Option<bool>,
        #[graphql(desc = "Part of an id or a name, without regard to case.")] search: Option<String>,
        #[graphql(default = 100)] first: i32,
        after: Option<String>,
    ) -> async_graphql::Result<DevicePage> {
        let Asking { api, caller } = asking(context)?;
        let limit = usize::try_from(first).ok().filter(|first| (1..=PAGE_LIMIT).contains(first));
        let limit = limit.ok_or_else(|| async_graphql::Error::new(format!("first: must lie between 1 and {PAGE_LIMIT}")))?;
        let with_outages = context.look_ahead().field("nodes").field("outages").exists();
        if with_outages && limit > OUTAGES_PAGE_LIMIT {
            return Err(async_graphql::Error::new(format!("first: at most {OUTAGES_PAGE_LIMIT} with outages")));
        }
        let wanted = Wanted {
            reach: caller.who.reach.clone(),
            region,
            branch,
            device_type,
            status,
            is_flapping,
            search: search.map(|text| text.to_lowercase()),
            after,
            limit,
        };
        // To look through a large estate takes a while, and a question may do so twenty times.
        let asked = Arc::clone(api);
        let page = tokio::task::spawn_blocking(move || wanted.page(&asked.live.fleet())).await;
        let (DevicePage { total, next_cursor, mut nodes }, numbers) = page.map_err(|error| refused(Problem::internal(error)))?;
        if with_outages {
            let all = outages(api, numbers).await.map_err(refused)?;
            nodes.iter_mut().zip(all).for_each(|(node, outages)| node.outages = outages);
        }
        Ok(DevicePage { total, next_cursor, nodes })
    }

    /// One device.
    #[graphql(complexity = "10 + child_complexity")]
    async fn device(&self, context: &Context<'_>, id: String) -> async_graphql::Result<Option<Device>> {
        let Asking { api, caller } = asking(context)?;
        let Ok(id) = id.parse::<DeviceId>() else { return Ok(None) };
        let (mut node, number) = {
            let fleet = api.live.fleet();
            let Some(at) = fleet.device(&id).filter(|at| is_seen(&fleet, &fleet.devices[*at], caller)) else { return Ok(None) };
            (device(&fleet, at), (fleet.devices[at].no, fleet.devices[at].info.branch.clone()))
        };
        if context.look_ahead().field("outages").exists() {
            node.outages = outages(api, vec![number]).await.map_err(refused)?.pop().unwrap_or_default();
        }
        Ok(Some(node))
    }

    /// Branches by id.
    #[graphql(complexity = "200 * child_complexity")]
    async fn branches(&self, context: &Context<'_>, region: Option<String>) -> async_graphql::Result<Vec<Branch>> {
        let Asking { api, caller } = asking(context)?;
        let fleet = api.live.fleet();
        let is = |id: &BranchId| region.as_deref().is_none_or(|wanted| wanted == id.as_str()) && caller.who.reach.takes(id);
        let mut all: Vec<Branch> =
            (0..fleet.branches.len()).filter(|at| is(&fleet.branches[*at].info.region)).map(|at| branch_of(&fleet, at)).collect();
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// How available devices were: the running month, a month such as 2026-10, or a time. At most 1,000 rows.
    #[expect(clippy::too_many_arguments, reason = "these are the arguments of the question")]
    #[graphql(complexity = "20_000 + 1_000 * child_complexity")]
    async fn availability(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "RowsBy::All")] by: RowsBy,
        month: Option<String>,
        from: Option<Ms>,
        to: Option<Ms>,
        #[graphql(desc = "IANA name of the time zone of months.")] time_zone: Option<String>,
        region: Option<String>,
        branch: Option<String>,
        device_type: Option<String>,
        device: Option<String>,
    ) -> async_graphql::Result<Availability> {
        let Asking { api, caller } = asking(context)?;
        let by = match by {
            RowsBy::All => By::All,
            RowsBy::Region => By::Region,
            RowsBy::Branch => By::Branch,
            RowsBy::Type => By::Type,
            RowsBy::Device => By::Device,
        };
        let text = |at: Option<Ms>| at.map(|at| at.0.to_string());
        let params = Params::of_time(month, text(from), text(to), time_zone).about(region, branch, device_type, device);
        let (asked, zone, rows) = figures(api, caller, &params, by, clock::now()).await.map_err(refused)?;
        Ok(Availability {
            from: Ms(asked.span.from.0),
            to: Ms(asked.span.to.0),
            time_zone: zone,
            is_final: rows.iter().all(|row| row.is_final),
            total: rows.len(),
            rows: rows.iter().take(PAGE_LIMIT).map(row_of).collect(),
        })
    }
}

/// Which devices a question is about, and which page of them.
struct Wanted {
    reach: Reach,
    region: Option<String>,
    branch: Option<String>,
    device_type: Option<String>,
    status: Option<StatusName>,
    is_flapping: Option<bool>,
    search: Option<String>,
    after: Option<String>,
    limit: usize,
}

impl Wanted {
    fn takes(&self, fleet: &Fleet, device: &DeviceState) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let place = &fleet.branches[device.branch].info;
        self.reach.takes(&place.region)
            && is(&self.region, place.region.as_str())
            && is(&self.branch, place.id.as_str())
            && is(&self.device_type, &device.info.device_type)
            && self.status.is_none_or(|wanted| wanted == status_name(device))
            && self.is_flapping.is_none_or(|wanted| wanted == device.view.is_flapping)
            && self.search.as_deref().is_none_or(|text| {
                device.info.id.as_str().to_lowercase().contains(text) || device.info.name.to_lowercase().contains(text)
            })
    }

    /// The page without outages, and what the file needs to know of its devices.
    fn page(&self, fleet: &Fleet) -> (DevicePage, Vec<(u32, BranchId)>) {
        let mut found: Vec<usize> = (0..fleet.devices.len()).filter(|at| self.takes(fleet, &fleet.devices[*at])).collect();
        found.sort_unstable_by(|a, b| fleet.devices[*a].info.id.cmp(&fleet.devices[*b].info.id));
        let id = |at: usize| fleet.devices[at].info.id.as_str();
        let from = self.after.as_deref().map_or(0, |after| found.partition_point(|at| id(*at) <= after));
        let page = &found[from..found.len().min(from + self.limit)];
        let next_cursor = page.last().filter(|_| from + page.len() < found.len()).map(|at| id(*at).to_owned());
        let numbers = page.iter().map(|at| (fleet.devices[*at].no, fleet.devices[*at].info.branch.clone())).collect();
        let nodes = page.iter().map(|at| device(fleet, *at)).collect();
        (DevicePage { total: found.len(), next_cursor, nodes }, numbers)
    }
}

fn is_seen(fleet: &Fleet, device: &DeviceState, caller: &Caller) -> bool {
    caller.who.reach.takes(&fleet.branches[device.branch].info.region)
}

fn status_name(device: &DeviceState) -> StatusName {
    match device.view.status {
        Status::Up => StatusName::Up,
        Status::Down => StatusName::Down,
        Status::Unknown(_) => StatusName::Unknown,
    }
}

fn device(fleet: &Fleet, at: usize) -> Device {
    let DeviceState { info, view, quality, .. } = &fleet.devices[at];
    let ms = |at: Option<shared::Millis>| at.map(|at| Ms(at.0));
    Device {
        id: info.id.to_string(),
        name: info.name.clone(),
        device_type: info.device_type.clone(),
        ip: info.ip.to_string(),
        status: view.status.as_str(),
        cause: view.status.cause().map(shared::Cause::as_str),
        since: ms(view.since),
        down_since: ms(view.down_since),
        last_ok: ms(view.last_ok),
        is_flapping: view.is_flapping,
        in_maintenance: view.in_maintenance,
        rtt_ms: quality.and_then(|quality| quality.rtt_us).map(|us| f64::from(us) / 1_000.0),
        packet_loss: quality.map(|quality| quality.loss),
        flags: view.flags.names().collect(),
        verdict: view.verdict.map(shared::Verdict::as_str),
        is_provisional: view.is_provisional,
        branch: branch_of(fleet, fleet.devices[at].branch),
        outages: Vec::new(),
    }
}

fn branch_of(fleet: &Fleet, at: usize) -> Branch {
    let branch = &fleet.branches[at];
    Branch {
        id: branch.info.id.to_string(),
        name: branch.info.name.clone(),
        region: Region { id: branch.info.region.to_string(), name: branch.info.region_name.clone() },
        contact: branch.contact.as_str(),
        last_contact: branch.last_contact.map(|at| Ms(at.0)),
    }
}

/// The outages of some devices, in their order, in one reading of the ledger.
async fn outages(api: &Arc<Api>, devices: Vec<(u32, BranchId)>) -> Result<Vec<Vec<OutageOf>>, Problem> {
    let now = clock::now();
    let from = now.plus(-OUTAGES_MS);
    let asked = Arc::clone(api);
    let read = move |db: &rusqlite::Connection| {
        let numbers: Vec<u32> = devices.iter().map(|(no, _)| *no).collect();
        let changes = store::changes_of(db, &numbers, from, now)?;
        let mut covered: HashMap<&BranchId, Vec<Covered>> = HashMap::new();
        for (_, branch) in &devices {
            if !covered.contains_key(branch) {
                covered.insert(branch, up_to_date(&asked, branch, store::covered(db, branch.as_str())?));
            }
        }
        let outages = |(no, branch): &(u32, BranchId)| {
            let (changes, covered) = (changes.get(no), covered.get(branch));
            let (changes, covered) = (changes.map_or(&[][..], Vec::as_slice), covered.map_or(&[][..], Vec::as_slice));
            outage::outages(changes, covered, from, now).iter().rev().map(outage_of).collect()
        };
        Ok(devices.iter().map(outages).collect())
    };
    api.read(read).await
}

fn outage_of(outage: &Outage) -> OutageOf {
    let ms = |at: Option<shared::Millis>| at.map(|at| Ms(at.0));
    OutageOf { from: Ms(outage.from.0), to: ms(outage.to), last_ok: ms(outage.last_ok), unobserved_ms: Ms(outage.unobserved_ms) }
}

fn row_of(row: &Row) -> AvailabilityRow {
    let t = &row.tally;
    AvailabilityRow {
        key: row.key.clone(),
        name: row.name.clone(),
        devices: usize::try_from(t.devices).unwrap_or(usize::MAX),
        up_ms: Ms(t.up_ms),
        down_ms: Ms(t.down_ms),
        unknown_ms: Ms(t.unknown_ms),
        maintenance_ms: Ms(t.maintenance_ms),
        outages: usize::try_from(t.outages).unwrap_or(usize::MAX),
        mttr_ms: t.mttr_ms().map(Ms),
        mtbf_ms: t.mtbf_ms().map(Ms),
        availability: t.availability(),
        at_least: t.at_least(),
        at_most: t.at_most(),
        coverage: t.coverage(),
        is_final: row.is_final,
        revision: usize::try_from(row.revision).unwrap_or(usize::MAX),
    }
}

/// What a question costs to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    fields: usize,
    aliases: usize,
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self { fields: self.fields.saturating_add(other.fields), aliases: self.aliases.saturating_add(other.aliases) }
    }
}

/// Weighs questions. A fragment is weighed once, however often it stands: ten that name each other twice stand for a
/// thousand fields.
struct Scales<'a> {
    document: &'a ExecutableDocument,
    /// By name, and by how many leading fields it stands below: what holds such a field is told apart by where it stands.
    known: HashMap<(Name, usize), Cost>,
    open: Vec<Name>,
}

impl Scales<'_> {
    fn weigh(&mut self, set: &SelectionSet, leading: usize) -> Result<Cost, String> {
        let mut cost = Cost::default();
        for Positioned { node, .. } in &set.items {
            cost = cost.plus(match node {
                Selection::Field(Positioned { node: field, .. }) => {
                    // From a type to its fields to their types: the way to an answer without an end.
                    let leading = leading + usize::from(LEADING.contains(&field.name.node.as_str()));
                    if leading > 1 {
                        return Err("the schema is told one step at a time".to_owned());
                    }
                    let inner = self.weigh(&field.selection_set.node, leading)?;
                    inner.plus(Cost { fields: 1, aliases: usize::from(field.alias.is_some()) })
                }
                Selection::InlineFragment(Positioned { node, .. }) => self.weigh(&node.selection_set.node, leading)?,
                Selection::FragmentSpread(Positioned { node, .. }) => self.fragment(&node.fragment_name.node, leading)?,
            });
            if cost.fields > FIELDS_LIMIT {
                return Err(format!("a question has at most {FIELDS_LIMIT} fields"));
            }
            if cost.aliases > ALIASES_LIMIT {
                return Err(format!("a question has at most {ALIASES_LIMIT} aliases"));
            }
        }
        Ok(cost)
    }

    fn fragment(&mut self, name: &Name, leading: usize) -> Result<Cost, String> {
        let place = (name.clone(), leading);
        if let Some(cost) = self.known.get(&place) {
            return Ok(*cost);
        }
        if self.open.contains(name) {
            return Err(format!("the fragment {name} holds itself"));
        }
        // One that costs nothing would let others stand in it twice without end.
        let fragment = self.document.fragments.get(name).ok_or_else(|| format!("there is no fragment {name}"))?;
        self.open.push(name.clone());
        let cost = self.weigh(&fragment.node.selection_set.node, leading)?;
        self.open.pop();
        self.known.insert(place, cost);
        Ok(cost)
    }
}

/// Refuses what is too large before it is looked at further.
fn check(document: &ExecutableDocument) -> Result<(), String> {
    let mut scales = Scales { document, known: HashMap::new(), open: Vec::new() };
    let mut all = Cost::default();
    for (_, operation) in document.operations.iter() {
        all = all.plus(scales.weigh(&operation.node.selection_set.node, 0)?);
    }
    if all.fields > FIELDS_LIMIT {
        return Err(format!("a question has at most {FIELDS_LIMIT} fields"));
    }
    Ok(())
}

/// Reads a question, unless it is too large to be looked at further.
///
/// # Errors
/// What is wrong with it.
pub fn read(query: &str) -> Result<ExecutableDocument, String> {
    let document = parse_query(query).map_err(|error| error.to_string())?;
    check(&document)?;
    Ok(document)
}

/// Answers a question.
pub(super) async fn answer(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&headers, &body)?;
    let query = fields.needed("query")?;
    if query.len() > QUERY_LIMIT_BYTES {
        return Err(Problem::field("query", format!("has at most {QUERY_LIMIT_BYTES} bytes")));
    }
    let variables = match fields.take("variables") {
        None => Variables::default(),
        Some(variables @ serde_json::Value::Object(_)) => Variables::from_json(variables),
        Some(_) => return Err(Problem::field("variables", "must be an object")),
    };
    let operation = fields.text("operationName")?;
    // Tools send that along.
    let _ = fields.take("extensions");
    fields.end()?;
    let wrong = |why: String| {
        let body = json!({ "data": null, "errors": [{ "message": why }] });
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    };
    let document = match read(&query) {
        Ok(document) => document,
        Err(why) => return Ok(wrong(why)),
    };
    let mut request = Request::new(query).variables(variables).data(Asking { api, caller });
    request.set_parsed_query(document);
    if let Some(operation) = operation {
        request = request.operation_name(operation);
    }
    let response = SCHEMA.execute(request).await;
    let status = if response.is_err() && response.data == Value::Null { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok((status, Json(response)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighed(query: &str) -> Result<(), String> {
        check(&parse_query(query).expect("it can be read"))
    }

    #[test]
    fn what_would_cost_too_much_is_refused_before_it_is_looked_at() {
        let many = |n: usize, field: &str| (0..n).map(|n| format!("{} ", field.replace('#', &n.to_string()))).collect::<String>();
        let is = |query: &str, part: &str| {
            let why = weighed(query).expect_err("refused");
            assert!(why.contains(part), "{why}");
        };
        is(&format!("{{ {} }}", many(5_000, "a#: stats { up }")), "aliases");
        is(&format!("{{ stats {{ {} }} }}", many(501, "up")), "fields");
        // Each names the next one twice: a million fields in twenty lines.
        let bomb: String = (0..20).map(|n| format!("fragment f{n} on Query {{ ...f{} ...f{} }} ", n + 1, n + 1)).collect();
        is(&format!("{{ ...f0 }} {bomb} fragment f20 on Query {{ stats {{ up }} }}"), "fields");
        is("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", "holds itself");
        is("{ __schema { types { fields { type { fields { name } } } } } }", "one step");
        is(
            "{ __type(name: \"Device\") { ...t } } fragment t on __Type { fields { type { ...u } } } fragment u on __Type { fields { name } }",
            "one step",
        );
        let deep = format!("{{ {} up {} }}", "stats { ".repeat(400), "} ".repeat(400));
        assert!(parse_query(&deep).is_err() || weighed(&deep).is_ok(), "depth is for the schema to limit");
        weighed(&format!("{{ {} }}", many(20, "a#: stats { up }"))).expect("that many are taken");
    }

    #[test]
    fn a_question_within_a_question_within_a_question_takes_no_stack() {
        for open in ["{a", "{... ", "{a(b:[", "{a(b:{c:", "{a @b(c:["] {
            assert!(read(&open.repeat(QUERY_LIMIT_BYTES / open.len())).is_err(), "{open}");
        }
        let deep = QUERY_LIMIT_BYTES / 3;
        assert!(read(&format!("{}a{}", "{a".repeat(deep), "}".repeat(deep))).is_err());
        assert!(read(&format!("{{a(b:{}{})}}", "[".repeat(deep), "]".repeat(deep))).is_err());
    }

    #[test]
    fn fragments_that_lead_nowhere_cost_no_more_than_to_read_them() {
        let twice = |n: usize, last: &str| {
            let all = (0..n).map(|n| format!("fragment f{n} on Query {{ ...f{} ...f{} }} ", n + 1, n + 1));
            all.collect::<String>() + &last.replace('#', &n.to_string())
        };
        let began = std::time::Instant::now();
        for (query, part) in [
            (format!("{{ fields {{ ...f0 }} }} {}", twice(40, "")), "no fragment f40"),
            (format!("{{ ...f0 }} {}", twice(30, "")), "no fragment f30"),
            (format!("{{ fields {{ ...f0 }} }} {}", twice(40, "fragment f# on Query { up }")), "fields"),
            (format!("{{ fields {{ ...f0 }} }} {}", twice(40, "fragment f# on Query { ...f0 }")), "holds itself"),
            ("{ ...nowhere }".to_owned(), "no fragment nowhere"),
        ] {
            let why = weighed(&query).expect_err("refused");
            assert!(why.contains(part), "{why}");
        }
        // One after the other, below a field that leads on, in many places.
        let chain: String = (0..300).map(|n| format!("fragment g{n} on T {{ ...g{} }} ", n + 1)).collect();
        let many = "fields { ...g0 } ".repeat(240);
        weighed(&format!("{{ {many} }} {chain} fragment g300 on T {{ name }}")).expect("it is small enough");
        assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn what_tools_ask_of_the_schema_is_answered() {
        let question = "query IntrospectionQuery { __schema { queryType { name } types { ...FullType } } }
            fragment FullType on __Type { kind name fields(includeDeprecated: true) { name args { ...InputValue } type { ...TypeRef } }
              inputFields { ...InputValue } interfaces { ...TypeRef } enumValues(includeDeprecated: true) { name } possibleTypes { ...TypeRef } }
            fragment InputValue on __InputValue { name type { ...TypeRef } defaultValue }
            fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } } }";
        weighed(question).expect("it is small enough");
        let response = SCHEMA.execute(question).await;
        assert!(response.is_ok(), "{:?}", response.errors);
        assert!(SCHEMA.sdl().contains("type Device"));
    }

    #[tokio::test]
    async fn what_is_too_much_of_an_answer_is_refused() {
        for (question, part) in [
            (
                "{ devices(first: 1000) { nodes { id name ip status cause since downSince lastOk isFlapping inMaintenance rttMs packetLoss \
               branch { id name contact region { id name } } outages { from to lastOk unobservedMs } } } \
               more: devices(first: 1000) { nodes { id name ip status cause since downSince lastOk isFlapping inMaintenance rttMs \
               packetLoss branch { id name contact region { id name } } outages { from to } } } \
               most: devices(first: 1000) { nodes { id name ip status cause since downSince lastOk isFlapping } } }",
                "complex",
            ),
            ("{ devices(first: 2147483647) { nodes { id } } }", "complex"),
            ("{ a: availability { total } b: availability { total } c: availability { total } }", "complex"),
            ("{ stats { colour } }", "colour"),
            ("mutation { drop }", "mutation"),
        ] {
            let response = SCHEMA.execute(question).await;
            let why = format!("{:?}", response.errors).to_lowercase();
            assert!(response.is_err() && why.contains(part), "{question}: {why}");
        }
    }
}

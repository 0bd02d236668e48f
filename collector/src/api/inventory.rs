//! The inventory: devices, branches and regions one by one, and all of it as a CSV, out and in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::message::check_address;
use shared::{BranchId, DeviceId};

use super::Api;
use super::answer::Answer;
use super::auth::Caller;
use super::body::{Fields, kind};
use super::devices::find;
use super::edits::{created, edit};
use super::fleet::{branch_id, find_branch};
use super::problem::Problem;
use super::query::{Nothing, Query};
use crate::accounts::{Reach, Role};
use crate::inventory::{Branch, COLUMNS, Device, Inventory, Region, RowError, RowErrors, check_text, parse_csv};
use crate::store;
use crate::store::{Edit, InventoryEdit};
use crate::surface::device_json;

/// Largest file: some 100,000 devices.
pub(super) const IMPORT_LIMIT_BYTES: usize = 16 * 1024 * 1024;

fn text(fields: &mut Fields, name: &str, before: Option<&str>) -> Result<String, Problem> {
    let text = fields.text(name)?.or(before.map(str::to_owned)).ok_or_else(|| Problem::missing(name))?;
    check_text(&text).map_err(|why| Problem::field(name, why))?;
    Ok(text)
}

/// What a device is from the body of a change, else what it was.
fn device(fields: &mut Fields, id: DeviceId, before: Option<&Device>) -> Result<Device, Problem> {
    let name = text(fields, "name", before.map(|device| device.name.as_str()))?;
    let branch =
        fields.said("branch")?.or(before.map(|device| device.branch.clone())).ok_or_else(|| Problem::missing("branch"))?;
    let kind: Option<BranchId> = fields.said("device_type")?;
    let device_type = kind.map(|kind| kind.to_string()).or(before.map(|device| device.device_type.clone()));
    let device_type = device_type.ok_or_else(|| Problem::missing("device_type"))?;
    let ip = fields.said("ip")?.or(before.map(|device| device.ip)).ok_or_else(|| Problem::missing("ip"))?;
    check_address(ip).map_err(|what| Problem::field("ip", format!("{ip} {what}")))?;
    Ok(Device { id, name, branch, device_type, ip })
}

/// A branch that the caller may put something into.
fn is_own_branch(api: &Api, caller: &Caller, branch: &BranchId) -> Result<(), Problem> {
    match find_branch(&api.live.fleet(), branch.as_str(), &caller.who.reach) {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::field("branch", "there is no such branch")),
    }
}

fn answer_device(api: &Api, id: &DeviceId) -> Result<Value, Problem> {
    let fleet = api.live.fleet();
    let at = fleet.device(id).ok_or_else(|| Problem::not_found("there is no such device"))?;
    Ok(device_json(&fleet, at))
}

/// Adds a device.
pub(super) async fn add_device(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&headers, &body)?;
    let id: DeviceId = fields.said("id")?.ok_or_else(|| Problem::missing("id"))?;
    let device = device(&mut fields, id.clone(), None)?;
    fields.end()?;
    is_own_branch(&api, &caller, &device.branch)?;
    edit(&api, &caller, Edit::Inventory(InventoryEdit::AddDevice(device))).await?;
    Ok(created(format!("/api/v1/devices/{id}"), answer_device(&api, &id)?))
}

/// Changes a device. Its id stays: it is what everything else knows it by.
pub(super) async fn change_device(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let id = find(&api, &caller, &id)?.id;
    let before = {
        let fleet = api.live.fleet();
        fleet.device(&id).map(|at| fleet.devices[at].info.clone()).ok_or_else(|| Problem::not_found("there is no such device"))?
    };
    let mut fields = Fields::read(&headers, &body)?;
    same_id(&mut fields, id.as_str())?;
    let device = device(&mut fields, id.clone(), Some(&before))?;
    fields.end()?;
    is_own_branch(&api, &caller, &device.branch)?;
    edit(&api, &caller, Edit::Inventory(InventoryEdit::SetDevice(device))).await?;
    Ok(Json(answer_device(&api, &id)?))
}

fn same_id(fields: &mut Fields, id: &str) -> Result<(), Problem> {
    match fields.text("id")? {
        Some(other) if other != id => Err(Problem::field("id", "can't be changed")),
        Some(_) | None => Ok(()),
    }
}

/// Removes a device.
pub(super) async fn remove_device(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<StatusCode, Problem> {
    let id = find(&api, &caller, &id)?.id;
    edit(&api, &caller, Edit::Inventory(InventoryEdit::RemoveDevice(id))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a branch is from the body of a change, else what it was. Its region must be the caller's.
fn branch(fields: &mut Fields, id: BranchId, before: Option<&Branch>, api: &Api, caller: &Caller) -> Result<Branch, Problem> {
    let name = text(fields, "name", before.map(|branch| branch.name.as_str()))?;
    let region: Option<BranchId> = fields.said("region")?.or(before.map(|branch| branch.region.clone()));
    let region = region.ok_or_else(|| Problem::missing("region"))?;
    let region_name = api.live.fleet().region_name(&region).map(str::to_owned).filter(|_| caller.who.reach.takes(&region));
    let region_name = region_name.ok_or_else(|| Problem::field("region", "there is no such region"))?;
    Ok(Branch { id, name, region, region_name })
}

fn place_json(id: &BranchId, name: &str, region: Option<&BranchId>) -> Value {
    let mut body = json!({ "id": id.as_str(), "name": name });
    if let Some(region) = region {
        body["region"] = json!(region.as_str());
    }
    body
}

/// Adds a branch.
pub(super) async fn add_branch(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&headers, &body)?;
    let id: BranchId = fields.said("id")?.ok_or_else(|| Problem::missing("id"))?;
    let branch = branch(&mut fields, id.clone(), None, &api, &caller)?;
    fields.end()?;
    let body = place_json(&id, &branch.name, Some(&branch.region));
    edit(&api, &caller, Edit::Inventory(InventoryEdit::AddBranch(branch))).await?;
    Ok(created(format!("/api/v1/branches/{id}"), body))
}

/// Changes a branch.
pub(super) async fn change_branch(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let before = {
        let fleet = api.live.fleet();
        let at = find_branch(&fleet, &id, &caller.who.reach)?;
        fleet.branches[at].info.clone()
    };
    let mut fields = Fields::read(&headers, &body)?;
    same_id(&mut fields, before.id.as_str())?;
    let branch = branch(&mut fields, before.id.clone(), Some(&before), &api, &caller)?;
    fields.end()?;
    let body = place_json(&branch.id, &branch.name, Some(&branch.region));
    edit(&api, &caller, Edit::Inventory(InventoryEdit::SetBranch(branch))).await?;
    Ok(Json(body))
}

/// Removes a branch without devices.
pub(super) async fn remove_branch(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<StatusCode, Problem> {
    let id = branch_id(&api, &caller, &id)?;
    edit(&api, &caller, Edit::Inventory(InventoryEdit::RemoveBranch(id))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Adds a region.
pub(super) async fn add_region(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&headers, &body)?;
    let id: BranchId = fields.said("id")?.ok_or_else(|| Problem::missing("id"))?;
    let name = text(&mut fields, "name", None)?;
    fields.end()?;
    let body = place_json(&id, &name, None);
    let place = format!("/api/v1/regions/{id}");
    edit(&api, &caller, Edit::Inventory(InventoryEdit::AddRegion(Region { id, name }))).await?;
    Ok(created(place, body))
}

fn region_id(id: &str) -> Result<BranchId, Problem> {
    id.parse().map_err(|_| Problem::not_found("there is no such region"))
}

/// Renames a region.
pub(super) async fn change_region(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let id = region_id(&id)?;
    let before = api.live.fleet().region_name(&id).map(str::to_owned);
    let before = before.ok_or_else(|| Problem::not_found("there is no such region"))?;
    let mut fields = Fields::read(&headers, &body)?;
    same_id(&mut fields, id.as_str())?;
    let name = text(&mut fields, "name", Some(&before))?;
    fields.end()?;
    let body = place_json(&id, &name, None);
    edit(&api, &caller, Edit::Inventory(InventoryEdit::SetRegion(Region { id, name }))).await?;
    Ok(Json(body))
}

/// Removes a region without branches.
pub(super) async fn remove_region(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<StatusCode, Problem> {
    edit(&api, &caller, Edit::Inventory(InventoryEdit::RemoveRegion(region_id(&id)?))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The inventory as `import` takes it. Regions and branches without devices are not in it.
pub(super) async fn export(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Response, Problem> {
    let text = {
        let fleet = api.live.fleet();
        let mut rows: Vec<[&str; 8]> = Vec::new();
        let addresses: Vec<String> = fleet.devices.iter().map(|device| device.info.ip.to_string()).collect();
        for (device, ip) in fleet.devices.iter().zip(&addresses) {
            let (info, branch) = (&device.info, &fleet.branches[device.branch].info);
            if caller.who.reach.takes(&branch.region) {
                let place = [branch.id.as_str(), &branch.name, branch.region.as_str(), &branch.region_name];
                rows.push([info.id.as_str(), &info.name, place[0], place[1], place[2], place[3], &info.device_type, ip]);
            }
        }
        rows.sort_unstable();
        let mut writer = csv::Writer::from_writer(Vec::with_capacity(rows.len() * 100));
        writer.write_record(COLUMNS).map_err(Problem::internal)?;
        rows.iter().try_for_each(|row| writer.write_record(row)).map_err(Problem::internal)?;
        writer.into_inner().map_err(Problem::internal)?
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"inventory.csv\"")),
    ];
    Ok((headers, text).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportWanted {
    dry_run: Option<String>,
    remove: Option<String>,
}

/// What a file would change.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<DeviceId>,
    errors: RowErrors,
}

/// Compares a file with what there is. What it doesn't name stays, or goes where `remove` says so; nothing outside of the
/// caller's regions is touched or told.
fn plan(file: &Inventory, before: &Inventory, who: (Role, &Reach), remove: bool) -> Plan {
    let mut plan = Plan::default();
    let (role, reach) = who;
    let branches: HashMap<&BranchId, &Branch> = before.branches.iter().map(|branch| (&branch.id, branch)).collect();
    let devices: HashMap<&DeviceId, &Device> = before.devices.iter().map(|device| (&device.id, device)).collect();
    let regions: BTreeMap<&BranchId, &str> = before.regions.iter().map(|region| (&region.id, region.name.as_str())).collect();
    let theirs: HashMap<&BranchId, &Branch> = file.branches.iter().map(|branch| (&branch.id, branch)).collect();
    let is_seen = |branch: &BranchId| branches.get(branch).is_some_and(|branch| reach.takes(&branch.region));
    let line_of: HashMap<&BranchId, u64> =
        file.devices.iter().zip(&file.lines).rev().map(|(device, line)| (&device.branch, *line)).collect();
    let mut error = |line: u64, column: &str, message: String| plan.errors.add("", line, column, || message);
    for branch in &file.branches {
        let line = line_of.get(&branch.id).copied().unwrap_or(1);
        if !reach.takes(&branch.region) {
            error(line, "region", format!("{} is none of your regions", branch.region));
        } else if branches.get(&branch.id).is_some_and(|known| !reach.takes(&known.region)) {
            error(line, "branch", format!("{} can't be taken for a branch of yours", branch.id));
        } else if role < Role::Admin && regions.get(&branch.region).is_none_or(|name| *name != branch.region_name) {
            error(line, "region_name", format!("{} has another name, which an admin changes", branch.region));
        }
    }
    let named: BTreeSet<&DeviceId> = file.devices.iter().map(|device| &device.id).collect();
    for (device, line) in file.devices.iter().zip(&file.lines) {
        match devices.get(&device.id) {
            Some(known) if !is_seen(&known.branch) => {
                error(*line, "device_id", format!("{} can't be taken for a device of yours", device.id));
            }
            Some(known) if *known == device && theirs.get(&device.branch) == branches.get(&device.branch) => {}
            Some(_) => plan.changed.push(device.id.to_string()),
            None => plan.added.push(device.id.to_string()),
        }
    }
    let unnamed = before.devices.iter().filter(|device| !named.contains(&device.id));
    if remove {
        plan.removed = unnamed.filter(|device| is_seen(&device.branch)).map(|device| device.id.clone()).collect();
        return plan;
    }
    // What stays keeps its address.
    let kept: HashMap<(&BranchId, std::net::IpAddr), &DeviceId> =
        unnamed.map(|device| ((&device.branch, device.ip), &device.id)).collect();
    for (device, line) in file.devices.iter().zip(&file.lines) {
        if let Some(other) = kept.get(&(&device.branch, device.ip)).filter(|_| is_seen(&device.branch)) {
            let message = || format!("{} is already the address of {other}, which this file doesn't name", device.ip);
            plan.errors.add("", *line, "ip", message);
        }
    }
    plan.errors.first.sort_by_key(|error| error.line);
    plan
}

/// Takes a file over, or says what it would change.
pub(super) async fn import(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    Query(wanted): Query<ImportWanted>,
    body: Bytes,
) -> Result<Response, Problem> {
    let flag = |name: &str, text: Option<&str>, default| match text {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(Problem::field(name, "must be true or false")),
    };
    let dry_run = flag("dry_run", wanted.dry_run.as_deref(), true)?;
    let remove = flag("remove", wanted.remove.as_deref(), false)?;
    if kind(&headers) != "text/csv" {
        return Err(Problem::field("content-type", "must be text/csv"));
    }
    let (role, reach) = (caller.who.role, caller.who.reach.clone());
    let (readers, asked) = (Arc::clone(&api.readers), tokio::time::Instant::now());
    let compare = move || {
        let text = String::from_utf8(body.into()).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count() as u64;
            let mut errors = RowErrors::default();
            errors.add("", line, "", || "is no UTF-8".to_owned());
            errors
        });
        let file = match text.and_then(|text| parse_csv("", &text)) {
            Ok(file) => file,
            Err(errors) => return Ok((Inventory::default(), Plan { errors, ..Plan::default() }, 0)),
        };
        let (before, version) = readers.read(|db| {
            // Both as of one moment.
            let begun = db.unchecked_transaction()?;
            let (before, _) = store::load_inventory(&begun)?;
            Ok((before, store::inventory_version(&begun)?))
        })?;
        let plan = plan(&file, &before, (role, &reach), remove);
        Ok::<_, store::StoreError>((file, plan, version))
    };
    let (file, plan, based_on) =
        tokio::task::spawn_blocking(compare).await.map_err(Problem::internal)?.map_err(Problem::internal)?;
    let applies = !dry_run && plan.errors.total == 0;
    let rows = file.devices.len();
    let is_change = !(plan.added.is_empty() && plan.changed.is_empty() && plan.removed.is_empty());
    if applies && is_change {
        let removed = plan.removed.clone();
        edit(&api, &caller, Edit::Inventory(InventoryEdit::Import { inventory: file, removed, based_on })).await?;
    }
    tracing::debug!(rows, took_ms = asked.elapsed().as_millis() as u64, "an inventory was compared");
    let told = |error: &RowError| json!({ "line": error.line, "column": error.column, "message": error.message });
    let body = json!({
        "dry_run": dry_run, "applied": applies, "rows": rows, "added": plan.added, "changed": plan.changed,
        "removed": plan.removed.iter().map(DeviceId::as_str).collect::<Vec<_>>(),
        "errors": plan.errors.first.iter().map(told).collect::<Vec<_>>(), "total_errors": plan.errors.total,
    });
    if dry_run || applies {
        let answer = Answer::of_bytes(body.to_string().into());
        return Ok(answer.into_response());
    }
    Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n";
    const BEFORE: &str = "a,A,vake,Vake,t,T,atm,10.0.0.1\nb,B,vake,Vake,t,T,atm,10.0.0.2\nh,H,kutaisi,Kutaisi,i,I,atm,10.0.0.1\n";

    fn parsed(rows: &str) -> Inventory {
        let mut inventory = parse_csv("", &format!("{HEADER}{rows}")).expect("good");
        let regions: BTreeMap<_, _> =
            inventory.branches.iter().map(|branch| (branch.region.clone(), branch.region_name.clone())).collect();
        inventory.regions = regions.into_iter().map(|(id, name)| Region { id, name }).collect();
        inventory
    }

    fn check(rows: &str, who: (Role, &str), remove: bool, expected: &str) {
        let reach = if who.1.is_empty() { Reach::All } else { Reach::parse(Some(who.1)).expect("ids") };
        let plan = plan(&parsed(rows), &parsed(BEFORE), (who.0, &reach), remove);
        let mut told: Vec<String> = plan.added.iter().map(|id| format!("+{id}")).collect();
        told.extend(plan.changed.iter().map(|id| format!("~{id}")));
        told.extend(plan.removed.iter().map(|id| format!("-{id}")));
        told.extend(plan.errors.first.iter().map(|error| format!("{}:{}", error.line, error.column)));
        assert_eq!(told.join(" "), expected, "{rows}");
    }

    #[test]
    fn a_file_is_compared_with_what_there_is() {
        let all = (Role::Admin, "");
        check(BEFORE, all, true, "");
        check("a,A,vake,Vake,t,T,atm,10.0.0.1\nc,C,vake,Vake,t,T,atm,10.0.0.3\n", all, false, "+c");
        check("a,A,vake,Vake,t,T,atm,10.0.0.1\nc,C,vake,Vake,t,T,atm,10.0.0.3\n", all, true, "+c -b -h");
        check("a,A,vake,Vake,t,T,atm,10.0.0.9\n", all, false, "~a");
        // The branch is called otherwise: all that it names of it is written otherwise.
        check("a,A,vake,Vake 2,t,T,atm,10.0.0.1\n", all, false, "~a");
        check("c,C,vake,Vake,t,T,atm,10.0.0.2\n", all, false, "+c 2:ip");
        check("c,C,vake,Vake,t,T,atm,10.0.0.2\n", all, true, "+c -a -b -h");
        // Two that swap their addresses.
        check("a,A,vake,Vake,t,T,atm,10.0.0.2\nb,B,vake,Vake,t,T,atm,10.0.0.1\n", all, false, "~a ~b");
    }

    #[test]
    fn who_has_regions_neither_touches_nor_learns_what_lies_elsewhere() {
        let manager = (Role::RegionalManager, "t");
        check("c,C,vake,Vake,t,T,atm,10.0.0.3\n", manager, true, "+c -a -b");
        check("c,C,kutaisi,Kutaisi,i,I,atm,10.0.0.3\n", manager, false, "+c 2:region");
        check("c,C,kutaisi,Kutaisi,t,T,atm,10.0.0.3\n", manager, false, "+c 2:branch");
        check("h,H,vake,Vake,t,T,atm,10.0.0.3\n", manager, false, "2:device_id");
        check("a,A,vake,Vake,t,Tbilisi,atm,10.0.0.1\n", manager, false, "~a 2:region_name");
        check("a,A,vake,Vake,t,Tbilisi,atm,10.0.0.1\n", (Role::Admin, ""), false, "~a");
        check("c,C,new,New,t,T,atm,10.0.0.3\n", manager, false, "+c");
    }
}

//! The inventory's rows.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};
use shared::{BranchId, DeviceId, Millis};

use super::maintenance::add_late_of;
use super::{EditError, StoreError, accounts};
use crate::availability::spans::Span;
use crate::inventory::{BRANCH_LIMIT, Branch, DEVICES_LIMIT, Device, Inventory, Region};

/// What the schema of removed devices adds. A number is never given again: what the ledger has under it is another's.
pub(super) const TABLES: &str = "
create table removed_device (
    no integer primary key, id text not null, name text not null, branch text not null, device_type text not null,
    ip text not null, removed_ms integer not null
) strict;
";

/// Most branches, and most regions.
const PLACES_LIMIT: i64 = 100_000;

/// A change of what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InventoryEdit {
    /// A new device, in a branch that there is.
    AddDevice(Device),
    /// A device as it is from now on.
    SetDevice(Device),
    /// A device goes. What the ledger has of it stays there.
    RemoveDevice(DeviceId),
    /// A new branch, in a region that there is. Its region's name counts for nothing here.
    AddBranch(Branch),
    /// A branch as it is from now on.
    SetBranch(Branch),
    /// A branch without devices goes.
    RemoveBranch(BranchId),
    /// A new region.
    AddRegion(Region),
    /// A region as it is from now on.
    SetRegion(Region),
    /// A region without branches goes.
    RemoveRegion(BranchId),
    /// A whole file, and devices that go; nothing of it unless the inventory is of this version still.
    Import {
        /// What is added or changed.
        inventory: Inventory,
        /// What goes.
        removed: Vec<DeviceId>,
        /// The version that it was compared with.
        based_on: i64,
    },
}

/// Notes that the past of a branch is told otherwise from now on, since a device has come, gone or become another: its time
/// counts where it stands now.
fn note_moved(db: &Connection, branch: &BranchId, now: Millis) -> Result<(), StoreError> {
    let known = "select max(observed_ms) from stream where branch = ?1";
    let known: Option<i64> = db.prepare_cached(known)?.query_row([branch.as_str()], |row| row.get(0))?;
    let past = Span::new(Millis(0), now);
    // Where nothing is known no time was final.
    let Some(known) = known.filter(|_| !past.is_empty()) else { return Ok(()) };
    add_late_of(db, branch, "inventory", past, Millis(known), now)
}

/// Where a device stands, if there is one of that id, and its type.
fn place_of(db: &Connection, id: &DeviceId) -> Result<Option<(BranchId, String)>, StoreError> {
    let mut known = db.prepare_cached("select branch, device_type from device where id = ?1")?;
    let known = known.query_row([id.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).optional()?;
    let branch = |text: String| text.parse().map_err(|_| StoreError::Content(format!("the branch {text:?}")));
    known.map(|(place, kind)| Ok((branch(place)?, kind))).transpose()
}

/// Changes what there is; how many devices that concerns. The outer error undoes everything, and a refusal has to.
pub(super) fn edit(db: &Connection, edit: &InventoryEdit, now: Millis) -> Result<Result<i64, EditError>, StoreError> {
    let taken = |text: &str| Ok(Err(EditError::Taken(text.to_owned())));
    let has = |sql: &str, id: &str| -> Result<bool, StoreError> { Ok(db.query_row(sql, [id], |row| row.get(0))?) };
    let is_device = |id: &str| has("select exists (select 1 from device where id = ?1)", id);
    let is_branch = |id: &str| has("select exists (select 1 from branch where id = ?1)", id);
    let is_region = |id: &str| has("select exists (select 1 from region where id = ?1)", id);
    let count = |sql: &str| -> Result<i64, StoreError> { Ok(db.query_row(sql, [], |row| row.get(0))?) };
    match edit {
        InventoryEdit::AddDevice(device) => {
            if is_device(device.id.as_str())? {
                return taken("there is a device of that id already");
            }
            if let Some(refused) = refuse_device(db, device)? {
                return Ok(Err(refused));
            }
            put_device(db, device)?;
            note_moved(db, &device.branch, now)?;
        }
        InventoryEdit::SetDevice(device) => {
            let Some((branch, kind)) = place_of(db, &device.id)? else { return Ok(Err(EditError::NotFound)) };
            if let Some(refused) = refuse_device(db, device)? {
                return Ok(Err(refused));
            }
            put_device(db, device)?;
            if (&branch, &kind) != (&device.branch, &device.device_type) {
                for branch in BTreeSet::from([&branch, &device.branch]) {
                    note_moved(db, branch, now)?;
                }
            }
        }
        InventoryEdit::RemoveDevice(id) => {
            if !remove_device(db, id, now)? {
                return Ok(Err(EditError::NotFound));
            }
        }
        InventoryEdit::AddBranch(branch) => {
            if is_branch(branch.id.as_str())? {
                return taken("there is a branch of that id already");
            }
            if !is_region(branch.region.as_str())? {
                return taken("there is no such region");
            }
            if count("select count(*) from branch")? >= PLACES_LIMIT {
                return Ok(Err(EditError::Full));
            }
            put_branch(db, branch)?;
        }
        InventoryEdit::SetBranch(branch) => {
            if !is_branch(branch.id.as_str())? {
                return Ok(Err(EditError::NotFound));
            }
            if !is_region(branch.region.as_str())? {
                return taken("there is no such region");
            }
            let region = "select region from branch where id = ?1";
            let region: String = db.query_row(region, [branch.id.as_str()], |row| row.get(0))?;
            put_branch(db, branch)?;
            if region != branch.region.as_str() {
                note_moved(db, &branch.id, now)?;
            }
        }
        InventoryEdit::RemoveBranch(id) => {
            if has("select exists (select 1 from device where branch = ?1)", id.as_str())? {
                return taken("it has devices: remove or move them first");
            }
            if db.execute("delete from branch where id = ?1", [id.as_str()])? == 0 {
                return Ok(Err(EditError::NotFound));
            }
        }
        InventoryEdit::AddRegion(region) => {
            if is_region(region.id.as_str())? {
                return taken("there is a region of that id already");
            }
            if count("select count(*) from region")? >= PLACES_LIMIT {
                return Ok(Err(EditError::Full));
            }
            put_region(db, region)?;
        }
        InventoryEdit::SetRegion(region) => {
            if !is_region(region.id.as_str())? {
                return Ok(Err(EditError::NotFound));
            }
            put_region(db, region)?;
        }
        InventoryEdit::RemoveRegion(id) => {
            if has("select exists (select 1 from branch where region = ?1)", id.as_str())? {
                return taken("it has branches: remove or move them first");
            }
            if db.execute("delete from region where id = ?1", [id.as_str()])? == 0 {
                return Ok(Err(EditError::NotFound));
            }
        }
        InventoryEdit::Import { inventory, removed, based_on } => {
            if inventory_version(db)? != *based_on {
                return taken("the inventory has changed meanwhile: try again");
            }
            for id in removed {
                if !remove_device(db, id, now)? {
                    return Ok(Err(EditError::NotFound));
                }
            }
            return match take(db, inventory, now, &mut |_| {}) {
                Ok(changed) => Ok(Ok(i64::try_from(changed.added + changed.updated + removed.len()).unwrap_or(i64::MAX))),
                Err(StoreError::Taken { ip, branch, .. }) => {
                    Ok(Err(EditError::Taken(format!("{ip} is already the address of another device in branch {branch}"))))
                }
                Err(error) => Err(error),
            };
        }
    }
    count_version(db)?;
    Ok(Ok(1))
}

/// What the audit says of it.
pub(super) fn words(edit: &InventoryEdit) -> (&'static str, String, Value) {
    let device = |device: &Device| {
        let Device { name, branch, device_type, ip, .. } = device;
        (device.id.to_string(), json!({ "name": name, "branch": branch.as_str(), "device_type": device_type, "ip": ip }))
    };
    let branch = |branch: &Branch| (branch.id.to_string(), json!({ "name": branch.name, "region": branch.region.as_str() }));
    let region = |region: &Region| (region.id.to_string(), json!({ "name": region.name }));
    let (action, (target, detail)) = match edit {
        InventoryEdit::AddDevice(added) => ("device.add", device(added)),
        InventoryEdit::SetDevice(changed) => ("device.change", device(changed)),
        InventoryEdit::RemoveDevice(id) => ("device.remove", (id.to_string(), json!({}))),
        InventoryEdit::AddBranch(added) => ("branch.add", branch(added)),
        InventoryEdit::SetBranch(changed) => ("branch.change", branch(changed)),
        InventoryEdit::RemoveBranch(id) => ("branch.remove", (id.to_string(), json!({}))),
        InventoryEdit::AddRegion(added) => ("region.add", region(added)),
        InventoryEdit::SetRegion(changed) => ("region.change", region(changed)),
        InventoryEdit::RemoveRegion(id) => ("region.remove", (id.to_string(), json!({}))),
        InventoryEdit::Import { inventory, removed, .. } => {
            ("inventory.import", (String::new(), json!({ "devices": inventory.devices.len(), "removed": removed.len() })))
        }
    };
    (action, target, detail)
}

/// Why a device can't be as it is described, if it can't.
fn refuse_device(db: &Connection, device: &Device) -> Result<Option<EditError>, StoreError> {
    let Device { id, branch, ip, .. } = device;
    let known: bool = db.query_row("select exists (select 1 from branch where id = ?1)", [branch.as_str()], |row| row.get(0))?;
    if !known {
        return Ok(Some(EditError::Taken("there is no such branch".to_owned())));
    }
    let sql = "select id from device where branch = ?1 and ip = ?2 and id <> ?3";
    let other = db.query_row(sql, params![branch.as_str(), ip.to_string(), id.as_str()], |row| row.get::<_, String>(0));
    if let Some(other) = other.optional()? {
        return Ok(Some(EditError::Taken(format!("{ip} is already the address of {other} in this branch"))));
    }
    let sql = "select count(*) from device where branch = ?1 and id <> ?2";
    let others: i64 = db.query_row(sql, [branch.as_str(), id.as_str()], |row| row.get(0))?;
    let all: i64 = db.query_row("select count(*) from device", [], |row| row.get(0))?;
    let is_full = |count: i64, limit: usize| usize::try_from(count).unwrap_or(usize::MAX) >= limit;
    if is_full(others, BRANCH_LIMIT) {
        return Ok(Some(EditError::Taken(format!("this branch has {BRANCH_LIMIT} devices already"))));
    }
    Ok(is_full(all, DEVICES_LIMIT).then(|| EditError::Taken(format!("there are {DEVICES_LIMIT} devices already"))))
}

/// Writes a device down. A new one gets a number that no other ever had.
fn put_device(db: &Connection, device: &Device) -> rusqlite::Result<usize> {
    let Device { id, name, branch, device_type, ip } = device;
    db.prepare_cached(
        "insert into device (no, id, name, branch, device_type, ip) values (
             1 + max(coalesce((select max(no) from device), 0), coalesce((select max(no) from removed_device), 0)),
             ?1, ?2, ?3, ?4, ?5)
         on conflict (id) do update set name = excluded.name, branch = excluded.branch,
         device_type = excluded.device_type, ip = excluded.ip",
    )?
    .execute(params![id.as_str(), name, branch.as_str(), device_type, ip.to_string()])
}

fn remove_device(db: &Connection, id: &DeviceId, now: Millis) -> Result<bool, StoreError> {
    let Some((branch, _)) = place_of(db, id)? else { return Ok(false) };
    note_moved(db, &branch, now)?;
    db.prepare_cached("insert into removed_device select no, id, name, branch, device_type, ip, ?2 from device where id = ?1")?
        .execute(params![id.as_str(), now.0])?;
    Ok(db.prepare_cached("delete from device where id = ?1")?.execute([id.as_str()])? == 1)
}

fn put_branch(db: &Connection, branch: &Branch) -> Result<(), StoreError> {
    db.prepare_cached(
        "insert into branch (id, name, region) values (?1, ?2, ?3)
         on conflict (id) do update set name = excluded.name, region = excluded.region",
    )?
    .execute(params![branch.id.as_str(), branch.name, branch.region.as_str()])?;
    Ok(())
}

fn put_region(db: &Connection, region: &Region) -> Result<(), StoreError> {
    db.prepare_cached("insert into region values (?1, ?2) on conflict (id) do update set name = excluded.name")?
        .execute(params![region.id.as_str(), region.name])?;
    Ok(())
}

fn count_version(db: &Connection) -> Result<(), StoreError> {
    db.execute("update inventory_version set version = version + 1", [])?;
    Ok(())
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Devices that weren't there before.
    pub added: usize,
    /// Devices that are described otherwise now.
    pub updated: usize,
    /// Devices that are as they were.
    pub unchanged: usize,
    /// Devices that are there but not in the file.
    pub not_in_file: usize,
}

/// Takes an inventory over in a file of which nobody was told anything yet: see [`import_by`].
///
/// # Errors
/// When an address is already taken in a branch by a device that the inventory doesn't name; nothing is changed then.
pub fn import(db: &Connection, inventory: &Inventory) -> Result<Changed, StoreError> {
    take(db, inventory, Millis(0), &mut |_| {})
}

/// Takes an inventory over: adds and updates, and leaves alone what it doesn't name. Tells after each device how many are done,
/// and writes down who has done it.
///
/// # Errors
/// As [`import`].
pub fn import_by(
    db: &Connection,
    actor: &str,
    inventory: &Inventory,
    now: Millis,
    told: &mut dyn FnMut(usize),
) -> Result<Changed, StoreError> {
    let changed = take(db, inventory, now, told)?;
    let detail = json!({ "devices": inventory.devices.len(), "removed": 0 }).to_string();
    accounts::note(db, now, actor, ("inventory.import", "", &detail))?;
    Ok(changed)
}

fn take(db: &Connection, inventory: &Inventory, now: Millis, told: &mut dyn FnMut(usize)) -> Result<Changed, StoreError> {
    let before: HashMap<String, Device> = load(db)?.0.devices.into_iter().map(|device| (device.id.to_string(), device)).collect();
    let mut changed = Changed::default();
    let mut regions = db.prepare("select id, region from branch")?;
    let regions: HashMap<String, String> =
        regions.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    // Branches whose time is told otherwise from now on.
    let mut moved: BTreeSet<&BranchId> = BTreeSet::new();
    for branch in &inventory.branches {
        if regions.get(branch.id.as_str()).is_some_and(|before| before != branch.region.as_str()) {
            moved.insert(&branch.id);
        }
        put_region(db, &Region { id: branch.region.clone(), name: branch.region_name.clone() })?;
        put_branch(db, branch)?;
    }
    // Two devices of the file may swap addresses: they leave theirs before they take the new ones.
    for device in inventory.devices.iter().filter(|d| before.get(d.id.as_str()).is_some_and(|old| old.ip != d.ip)) {
        db.prepare_cached("update device set ip = 'moving ' || no where id = ?1")?.execute([device.id.as_str()])?;
    }
    for (index, device) in inventory.devices.iter().enumerate() {
        told(index + 1);
        match before.get(device.id.as_str()) {
            Some(old) if old == device => {
                changed.unchanged += 1;
                continue;
            }
            Some(old) => {
                changed.updated += 1;
                if (&old.branch, &old.device_type) != (&device.branch, &device.device_type) {
                    moved.extend([&old.branch, &device.branch]);
                }
            }
            None => {
                changed.added += 1;
                moved.insert(&device.branch);
            }
        }
        let written = put_device(db, device);
        if let Err(rusqlite::Error::SqliteFailure(code, _)) = &written
            && code.code == rusqlite::ErrorCode::ConstraintViolation
        {
            return Err(StoreError::Taken { index, ip: device.ip, branch: device.branch.to_string() });
        }
        written?;
    }
    for branch in moved {
        note_moved(db, branch, now)?;
    }
    count_version(db)?;
    changed.not_in_file = before.len() - changed.updated - changed.unchanged;
    Ok(changed)
}

/// The whole inventory, and the number of each device.
pub fn load(db: &Connection) -> Result<(Inventory, Vec<u32>), StoreError> {
    let mut inventory = Inventory::default();
    let bad = |what: &str, text: String| StoreError::Content(format!("the {what} {text:?}"));
    let mut rows =
        db.prepare("select b.id, b.name, r.id, r.name from branch b join region r on r.id = b.region order by b.id")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (id, region): (String, String) = (row.get(0)?, row.get(2)?);
        inventory.branches.push(Branch {
            id: id.parse().map_err(|_| bad("branch", id))?,
            name: row.get(1)?,
            region: region.parse().map_err(|_| bad("region", region))?,
            region_name: row.get(3)?,
        });
    }
    let mut rows = db.prepare("select id, name from region order by id")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        inventory.regions.push(Region { id: id.parse().map_err(|_| bad("region", id))?, name: row.get(1)? });
    }
    let mut numbers = Vec::new();
    let mut rows = db.prepare("select no, id, name, branch, device_type, ip from device order by id")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (id, branch, ip): (String, String, String) = (row.get(1)?, row.get(3)?, row.get(5)?);
        numbers.push(row.get(0)?);
        inventory.devices.push(Device {
            id: id.parse().map_err(|_| bad("device", id))?,
            name: row.get(2)?,
            branch: branch.parse().map_err(|_| bad("branch", branch))?,
            device_type: row.get(4)?,
            ip: ip.parse().map_err(|_| bad("address", ip))?,
        });
    }
    Ok((inventory, numbers))
}

/// When a device of this id was last removed: the one that there is now is another.
pub fn removed_at(db: &Connection, id: &DeviceId) -> Result<Option<Millis>, StoreError> {
    let sql = "select max(removed_ms) from removed_device where id = ?1";
    Ok(db.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get::<_, Option<i64>>(0))?.map(Millis))
}

/// Version and checksum of each branch's config.
pub fn config_versions(db: &Connection) -> Result<HashMap<String, (u64, u32)>, StoreError> {
    let mut rows = db.prepare("select id, config_version, config_crc from branch")?;
    let rows = rows.query_map([], |row| Ok((row.get(0)?, (row.get::<_, i64>(1)?.unsigned_abs(), row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Remembers version and checksum of a branch's config.
pub fn set_config_version(db: &Connection, branch: &str, version: u64, crc: u32) -> Result<(), StoreError> {
    db.prepare_cached("update branch set config_version = ?2, config_crc = ?3 where id = ?1")?.execute(params![
        branch,
        version.cast_signed(),
        crc
    ])?;
    Ok(())
}

/// Counts the imports: another process sees by it that the inventory has changed.
pub fn inventory_version(db: &Connection) -> Result<i64, StoreError> {
    Ok(db.query_row("select version from inventory_version", [], |row| row.get(0))?)
}

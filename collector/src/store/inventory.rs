//! The inventory's rows.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::StoreError;
use crate::inventory::{Branch, Device, Inventory};

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

/// Takes an inventory over: adds and updates, and leaves alone what the file doesn't name.
///
/// # Errors
/// When an address is already taken in a branch by a device that the file doesn't name; nothing is changed then.
pub fn import(db: &Connection, inventory: &Inventory) -> Result<Changed, StoreError> {
    import_with_progress(db, inventory, &mut |_| {})
}

/// As [`import`], and tells after each device how many are done.
pub fn import_with_progress(db: &Connection, inventory: &Inventory, told: &mut dyn FnMut(usize)) -> Result<Changed, StoreError> {
    let before: HashMap<String, Device> = load(db)?.0.devices.into_iter().map(|device| (device.id.to_string(), device)).collect();
    let mut changed = Changed::default();
    for branch in &inventory.branches {
        db.prepare_cached("insert into region values (?1, ?2) on conflict (id) do update set name = excluded.name")?
            .execute(params![branch.region.as_str(), branch.region_name])?;
        db.prepare_cached(
            "insert into branch (id, name, region) values (?1, ?2, ?3)
             on conflict (id) do update set name = excluded.name, region = excluded.region",
        )?
        .execute(params![branch.id.as_str(), branch.name, branch.region.as_str()])?;
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
            Some(_) => changed.updated += 1,
            None => changed.added += 1,
        }
        let written = db
            .prepare_cached(
                "insert into device (id, name, branch, device_type, ip) values (?1, ?2, ?3, ?4, ?5)
                 on conflict (id) do update set name = excluded.name, branch = excluded.branch,
                 device_type = excluded.device_type, ip = excluded.ip",
            )?
            .execute(params![device.id.as_str(), device.name, device.branch.as_str(), device.device_type, device.ip.to_string()]);
        if let Err(rusqlite::Error::SqliteFailure(code, _)) = &written
            && code.code == rusqlite::ErrorCode::ConstraintViolation
        {
            return Err(StoreError::Taken { index, ip: device.ip, branch: device.branch.to_string() });
        }
        written?;
    }
    db.execute("update inventory_version set version = version + 1", [])?;
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

//! Inventories: which devices there are, as the CSV file that a collector imports.

use std::fmt::Write;
use std::net::IpAddr;

use crate::Net;

/// First line of an inventory.
const HEADER: &str = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip";

/// Types that devices have in turn.
const TYPES: [&str; 5] = ["router", "switch", "atm", "paybox", "nvr"];

/// One device of an inventory.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its key.
    pub device: String,
    /// Its branch.
    pub branch: String,
    /// Its kind.
    pub device_type: String,
    /// Its address within the branch.
    pub ip: IpAddr,
}

/// An inventory in one region.
#[derive(Debug, Clone, Default)]
pub struct Estate {
    /// The devices, in the order of the file.
    pub rows: Vec<Row>,
}

impl Estate {
    /// All devices of a world. Device 7 of branch 1 is `b1-d07`.
    pub fn of(net: &Net) -> Self {
        let branches = 1..=net.branches();
        let devices = branches.flat_map(|b| (0..net.devices_per_branch()).map(move |i| (b, i)));
        let row = |(b, i): (u8, u8)| Row {
            device: device_id(b, i),
            branch: branch_id(b),
            device_type: TYPES[usize::from(i) % TYPES.len()].to_owned(),
            ip: net.address(b, i).into(),
        };
        Self { rows: devices.map(row).collect() }
    }

    /// The file.
    pub fn csv(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for Row { device, branch, device_type, ip } in &self.rows {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{device},Device {device},{branch},Branch {branch},r1,Region 1,{device_type},{ip}");
        }
        text
    }
}

/// The id of device `i` of branch `b`.
pub fn device_id(b: u8, i: u8) -> String {
    format!("b{b}-d{i:02}")
}

/// The id of branch `b`.
pub fn branch_id(b: u8) -> String {
    format!("b{b}")
}

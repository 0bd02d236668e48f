//! What there is: regions, branches and devices, read from a CSV.
//!
//! A device's key is its id; a branch has no two devices at one address. A file is taken as a whole or not at all.

use std::collections::HashMap;
use std::net::IpAddr;

use shared::message::check_address;
use shared::{BranchId, DeviceId};

/// Columns that a CSV must have, in any order.
pub const COLUMNS: [&str; 8] =
    ["device_id", "device_name", "branch", "branch_name", "region", "region_name", "device_type", "ip"];

/// Most devices of one estate.
pub const DEVICES_LIMIT: usize = 1_000_000;

/// Most devices of one branch: an agent takes no more.
pub const BRANCH_LIMIT: usize = ward_agent::plan::TARGETS_LIMIT;

/// Most mistakes of one file that are told.
pub const ERRORS_LIMIT: usize = 1_000;

/// Most characters of a mistake that are told: a field may be as long as the file.
const TOLD_LIMIT: usize = 500;

/// Longest name or type in bytes.
pub const TEXT_LIMIT_BYTES: usize = 200;

/// One device, where it is and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its key.
    pub id: DeviceId,
    /// What people call it.
    pub name: String,
    /// Where it stands.
    pub branch: BranchId,
    /// Such as `router` or `atm`.
    pub device_type: String,
    /// Its address in the branch's network.
    pub ip: IpAddr,
}

/// One branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Its key.
    pub id: BranchId,
    /// What people call it.
    pub name: String,
    /// Key of its region.
    pub region: BranchId,
    /// What people call the region.
    pub region_name: String,
}

/// One region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its key.
    pub id: BranchId,
    /// What people call it.
    pub name: String,
}

/// A whole estate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Regions by id, also those without branches; empty where it was read from a file, which names them with its branches.
    pub regions: Vec<Region>,
    /// Branches by id.
    pub branches: Vec<Branch>,
    /// Devices by id.
    pub devices: Vec<Device>,
    /// The line of each device in the file that it was read from; empty where it was not read from one.
    pub lines: Vec<u64>,
}

/// One row that can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {column}: {message}")]
pub struct RowError {
    /// The file as the user named it.
    pub file: String,
    /// Line in it, from 1.
    pub line: u64,
    /// The column.
    pub column: String,
    /// What is wrong.
    pub message: String,
}

/// Rows that can't be taken: the first of them, and how many they are. A file of many bad rows takes no more memory to refuse
/// than a good one to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowErrors {
    /// The first [`ERRORS_LIMIT`], as they were found.
    pub first: Vec<RowError>,
    /// All.
    pub total: usize,
}

impl RowErrors {
    /// One more.
    pub fn add(&mut self, file: &str, line: u64, column: &str, message: impl FnOnce() -> String) {
        self.total += 1;
        if self.first.len() < ERRORS_LIMIT {
            let cut = |text: &str| text.chars().take(TOLD_LIMIT).collect();
            let (file, column, message) = (file.to_owned(), cut(column), cut(&message()));
            self.first.push(RowError { file, line, column, message });
        }
    }
}

/// Reads a CSV with the columns of [`COLUMNS`].
///
/// # Errors
/// Every row that can't be taken.
pub fn parse_csv(file: &str, text: &str) -> Result<Inventory, RowErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows = Rows {
        file,
        errors: RowErrors::default(),
        inventory: Inventory::default(),
        sizes: HashMap::new(),
        regions: HashMap::new(),
    };
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let Some(columns) = rows.columns(&mut reader) else { return Err(rows.errors) };
    let mut branches = HashMap::new();
    let mut devices = HashMap::new();
    let mut addresses = HashMap::new();
    for record in reader.records() {
        match record {
            Ok(record) => rows.row(&record, &columns, &mut branches, &mut devices, &mut addresses),
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                rows.error(line, "", error.to_string());
            }
        }
    }
    if rows.inventory.devices.is_empty() && rows.errors.total == 0 {
        rows.error(1, "device_id", "the file has no devices");
    }
    if rows.errors.total > 0 {
        return Err(rows.errors);
    }
    Ok(rows.inventory)
}

struct Rows<'a> {
    file: &'a str,
    errors: RowErrors,
    inventory: Inventory,
    sizes: HashMap<BranchId, usize>,
    /// Each region's name, and the line that gave it first.
    regions: HashMap<BranchId, (String, u64)>,
}

impl Rows<'_> {
    fn error(&mut self, line: u64, column: &str, message: impl Into<String>) {
        self.errors.add(self.file, line, column, || message.into());
    }

    fn columns(&mut self, reader: &mut csv::Reader<&[u8]>) -> Option<[usize; COLUMNS.len()]> {
        let header = match reader.headers() {
            Ok(header) if !header.is_empty() => header.clone(),
            Ok(_) => {
                self.error(1, "device_id", format!("the file is empty; the first line names the columns {}", COLUMNS.join(",")));
                return None;
            }
            Err(error) => {
                self.error(1, "", error.to_string());
                return None;
            }
        };
        let mut known = [false; COLUMNS.len()];
        for name in &header {
            match COLUMNS.iter().position(|column| *column == name) {
                None => self.error(1, name, format!("unknown column; known: {}", COLUMNS.join(","))),
                Some(at) if std::mem::replace(&mut known[at], true) => self.error(1, name, "this column stands there twice"),
                Some(_) => {}
            }
        }
        let at = COLUMNS.map(|name| header.iter().position(|found| found == name));
        for (name, _) in COLUMNS.iter().zip(at).filter(|(_, at)| at.is_none()) {
            self.error(1, name, "this column is missing");
        }
        (self.errors.total == 0).then(|| at.map(Option::unwrap_or_default))
    }

    fn row(
        &mut self,
        record: &csv::StringRecord,
        columns: &[usize; COLUMNS.len()],
        branches: &mut HashMap<BranchId, (usize, u64)>,
        devices: &mut HashMap<DeviceId, u64>,
        addresses: &mut HashMap<(BranchId, IpAddr), DeviceId>,
    ) {
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != COLUMNS.len() {
            self.error(line, "row", format!("{} fields where the header has {}", record.len(), COLUMNS.len()));
            return;
        }
        let errors_before = self.errors.total;
        let field = |i: usize| record.get(columns[i]).unwrap_or_default();
        let id = self.parsed::<DeviceId>(line, 0, field(0));
        let name = self.name(line, 1, field(1));
        let branch = self.parsed::<BranchId>(line, 2, field(2));
        let branch_name = self.name(line, 3, field(3));
        let region = self.parsed::<BranchId>(line, 4, field(4));
        let region_name = self.name(line, 5, field(5));
        let device_type = self.parsed::<BranchId>(line, 6, field(6));
        let ip = self.parsed::<IpAddr>(line, 7, field(7));
        if self.errors.total > errors_before {
            return;
        }
        let (Some(id), Some(branch), Some(region), Some(device_type), Some(ip)) = (id, branch, region, device_type, ip) else {
            return;
        };
        if let Err(what) = check_address(ip) {
            self.error(line, "ip", format!("{ip} {what}"));
            return;
        }
        if let Some(first) = devices.insert(id.clone(), line) {
            self.error(line, "device_id", format!("{id} already stands in line {first}"));
            return;
        }
        if let Some(other) = addresses.insert((branch.clone(), ip), id.clone()) {
            self.error(line, "ip", format!("{ip} is already the address of {other} in branch {branch}"));
            return;
        }
        let (known, first) = self.regions.entry(region.clone()).or_insert_with(|| (region_name.clone(), line)).clone();
        if known != region_name {
            self.error(line, "region_name", format!("{region} has another name in line {first}"));
            return;
        }
        let described = Branch { id: branch.clone(), name: branch_name, region, region_name };
        match branches.get(&branch) {
            Some((at, first)) if self.inventory.branches[*at] != described => {
                self.error(line, "branch", format!("{branch} has another name or region in line {first}"));
                return;
            }
            Some(_) => {}
            None => {
                branches.insert(branch.clone(), (self.inventory.branches.len(), line));
                self.inventory.branches.push(described);
            }
        }
        let size = self.sizes.entry(branch.clone()).or_default();
        *size += 1;
        if *size > BRANCH_LIMIT {
            self.error(line, "branch", format!("{branch} has more than {BRANCH_LIMIT} devices"));
            return;
        }
        if self.inventory.devices.len() >= DEVICES_LIMIT {
            self.error(line, "device_id", format!("more than {DEVICES_LIMIT} devices"));
            return;
        }
        self.inventory.lines.push(line);
        self.inventory.devices.push(Device { id, name, branch, device_type: device_type.to_string(), ip });
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, line: u64, column: usize, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(line, COLUMNS[column], format!("{text:?}: {error}"));
                None
            }
        }
    }

    fn name(&mut self, line: u64, column: usize, text: &str) -> String {
        if let Err(why) = check_text(text) {
            self.error(line, COLUMNS[column], why);
        }
        text.to_owned()
    }
}

/// What is wrong with a name, if anything is.
///
/// # Errors
/// A phrase.
pub fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("empty".to_owned())
    } else if text.len() > TEXT_LIMIT_BYTES {
        Err(format!("longer than {TEXT_LIMIT_BYTES} bytes"))
    } else if text.chars().any(char::is_control) {
        Err("holds a control character".to_owned())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n";

    fn errors(rows: &str) -> String {
        let errors = parse_csv("e.csv", &format!("{HEADER}{rows}")).expect_err("must be refused");
        errors.first.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_good_file_becomes_an_inventory() {
        let rows = "a-1,ბანკომატი 1,vake,Vake,tbilisi,Tbilisi,atm,127.0.0.1\na-2,\"Router, main\",vake,Vake,tbilisi,Tbilisi,router,::1\n";
        let inventory = parse_csv("e.csv", &format!("\u{feff}{HEADER}{rows}")).expect("good");
        assert_eq!((inventory.branches.len(), inventory.devices.len()), (1, 2));
        assert_eq!(inventory.devices[1].name, "Router, main");
    }

    #[test]
    fn one_address_may_stand_in_two_branches_but_not_twice_in_one() {
        let two = "a,A,vake,Vake,t,T,atm,10.0.0.1\nb,B,gldani,Gldani,t,T,atm,10.0.0.1\n";
        assert!(parse_csv("e.csv", &format!("{HEADER}{two}")).is_ok());
        assert_eq!(
            errors("a,A,vake,Vake,t,T,atm,10.0.0.1\nb,B,vake,Vake,t,T,atm,10.0.0.1\n"),
            "e.csv:3: ip: 10.0.0.1 is already the address of a in branch vake"
        );
    }

    #[test]
    fn each_bad_row_is_named_with_line_and_column() {
        assert_eq!(
            errors(
                "a,A,vake,Vake,t,T,atm,10.0.0.300\nb/x,B,vake,,t,T,atm,10.0.0.2\na,A,vake,Vake,t,T,atm\nc,C,vake,Vake,t,T,atm,10.0.0.3\nc,C,vake,Vake,t,T,atm,10.0.0.4\nd,D,vake,Other,t,T,atm,10.0.0.5\ne,E,saburtalo,Saburtalo,t,U,atm,10.0.0.6\n"
            ),
            "e.csv:2: ip: \"10.0.0.300\": invalid IP address syntax\n\
             e.csv:3: device_id: \"b/x\": an id is made of a-z, A-Z, 0-9, '.', '_' and '-', not '/'\n\
             e.csv:3: branch_name: empty\n\
             e.csv:4: row: 7 fields where the header has 8\n\
             e.csv:6: device_id: c already stands in line 5\n\
             e.csv:7: branch: vake has another name or region in line 5\n\
             e.csv:8: region_name: t has another name in line 5"
        );
    }

    #[test]
    fn a_file_of_nothing_but_mistakes_is_refused_with_the_first_and_their_number() {
        let began = std::time::Instant::now();
        let rows = "é\u{1},,,,,,,x\n".repeat(100_000);
        let errors = parse_csv("e.csv", &format!("{HEADER}{rows}")).expect_err("must be refused");
        assert_eq!((errors.first.len(), errors.total), (ERRORS_LIMIT, 800_000));
        let long = format!("{HEADER}{},A,vake,Vake,t,T,atm,10.0.0.1\n", "é".repeat(1_000_000));
        let errors = parse_csv("e.csv", &long).expect_err("must be refused");
        assert!(errors.first[0].message.chars().count() <= TOLD_LIMIT);
        // A header of a million columns, known and unknown.
        let header = format!("{}{}\n", "x,".repeat(500_000), "ip,".repeat(500_000));
        let errors = parse_csv("e.csv", &header).expect_err("must be refused");
        assert!(errors.first.len() == ERRORS_LIMIT && errors.total > 999_999, "{}", errors.total);
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
    }

    #[test]
    fn an_address_of_nobody_or_of_many_is_no_devices() {
        for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            let text = errors(&format!("a,A,vake,Vake,t,T,atm,{address}\n"));
            assert!(text.starts_with(&format!("e.csv:2: ip: {address} stands for")), "{text}");
        }
    }

    #[test]
    fn an_empty_file_and_a_wrong_header_are_said_to_be_so() {
        let text = |text: &str| parse_csv("e.csv", text).expect_err("must be refused").first[0].to_string();
        assert!(text("").starts_with("e.csv:1: device_id: the file is empty"), "{}", text(""));
        assert_eq!(text(HEADER), "e.csv:1: device_id: the file has no devices");
        assert!(text("device_id,colour\n").starts_with("e.csv:1: colour: unknown column"));
    }

    #[test]
    fn a_branch_with_more_devices_than_an_agent_takes_is_refused() {
        let row = |i: usize| format!("d{i},D,vake,Vake,t,T,atm,10.{}.{}.{}\n", i >> 16, i >> 8 & 255, i & 255);
        let rows: String = (0..=BRANCH_LIMIT).map(row).collect();
        assert_eq!(errors(&rows), "e.csv:20002: branch: vake has more than 20000 devices");
    }

    #[test]
    fn the_shipped_estate_is_good() {
        let inventory = parse_csv("estate.csv", include_str!("demo/estate.csv")).expect("good");
        assert_eq!((inventory.branches.len(), inventory.devices.len()), (128, 875));
    }
}

//! The demo's estate: 875 devices in 128 branches, all at addresses of this machine.

use crate::inventory::{Inventory, parse_csv};

/// The estate that ships with the demo.
pub fn inventory() -> Inventory {
    parse_csv("estate.csv", include_str!("estate.csv")).expect("the shipped estate is read by a test")
}

//! The targets under libFuzzer, one of them, chosen by the variable `WARD_FUZZ_TARGET`; `tests/fuzz/run` builds and runs it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ward_fuzz::memory::Counting;
use ward_fuzz::{TARGETS, Target};

#[global_allocator]
static MEMORY: Counting = Counting;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("WARD_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("WARD_FUZZ_TARGET={name:?} is no target")).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));

//! `ward-collector`: keeps the ledger of a fleet's devices and answers for it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ward_collector::command::main()
}

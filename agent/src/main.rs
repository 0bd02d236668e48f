//! `ward-agent`: probes a branch's devices and reports what changed.

use std::process::ExitCode;

fn main() -> ExitCode {
    ward_agent::command::main()
}

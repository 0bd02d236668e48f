//! Network namespaces, and the programs that furnish them.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `body` in a thread that lives in another network namespace; what it starts lives there too.
pub fn inside<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace was made by this test");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("entering a namespace takes root");
        body()
    };
    // Under the test's own name, which a panic's message shows.
    let named = thread::Builder::new().name(thread::current().name().unwrap_or("inside").to_owned());
    thread::scope(|scope| named.spawn_scoped(scope, enter).expect("the machine has room for a thread").join())
        .unwrap_or_else(|panic| resume_unwind(panic))
}

/// Removes the worlds of test processes that were killed and could not clean up.
pub(crate) fn remove_leftovers() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if owner_is_gone(&name, "ward") {
            // Another test may be removing it just now.
            let _ = Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
        }
    }
}

/// Whether a thing named `{prefix}{pid}x…` belongs to a process that doesn't run any more.
pub(crate) fn owner_is_gone(name: &str, prefix: &str) -> bool {
    let pid = name.strip_prefix(prefix).and_then(|rest| rest.split_once('x')).and_then(|(pid, _)| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true))
}

/// Runs a program to its end with `input`, and returns what it wrote.
///
/// # Panics
/// With what it complained about, when it fails.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> String {
    attempt(program, arguments, input).unwrap_or_else(|complaint| panic!("{complaint}"))
}

/// Does so without a panic: what it wrote, or what it complained about.
pub(crate) fn attempt(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} can't be started: {error}; tests/run installs it"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A program that ended early says why on stderr.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it is this process's own child");
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {}: {said}\nnamespaces and mounts take root", arguments.join(" ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

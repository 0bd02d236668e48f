//! A real agent, as systemd runs it on a Raspberry Pi.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::mosquitto::Access;
use crate::process::Process;
use crate::program::{Probe, binary, broker_table};

/// What an agent's config says.
pub struct AgentSettings {
    /// The branch.
    pub branch: String,
    /// The broker.
    pub broker: Access,
    /// How to probe what the config itself names. What the collector names, it says how to probe.
    pub probe: Option<Probe>,
    /// Devices that the config itself names.
    pub devices: Vec<(String, IpAddr)>,
    /// The network namespace to run in; the caller's own without it.
    pub namespace: Option<String>,
    /// Where it keeps its buffer; a folder of its own without it.
    pub state_dir: Option<PathBuf>,
    /// A program that starts it, with arguments: the agent's own command line follows.
    pub wrapper: Vec<String>,
}

/// A running agent and its folder, which outlives the runs.
pub struct Agent {
    // Dropped in this order: the process ends, and shows its log, before its folder goes.
    process: Process,
    folder: TempDir,
    settings: AgentSettings,
}

impl Agent {
    /// Writes the config and starts the agent.
    pub fn start(settings: AgentSettings) -> Self {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let process = spawn(&folder, &settings);
        Self { folder, settings, process }
    }

    /// Starts it again on what it had left behind, ending it first if it runs.
    pub fn start_again(&mut self) {
        self.process.kill_hard();
        self.process = spawn(&self.folder, &self.settings);
    }

    /// Ends it at once, and starts it again on what lies in another folder, started by another program.
    pub fn start_elsewhere(&mut self, state_dir: &Path, wrapper: Vec<String>) {
        self.process.kill_hard();
        self.settings.state_dir = Some(state_dir.to_owned());
        self.settings.wrapper = wrapper;
        self.start_again();
    }

    /// The process: to end it, or to read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn spawn(folder: &TempDir, settings: &AgentSettings) -> Process {
    let config = folder.path().join("agent.toml");
    let state_dir = settings.state_dir.clone().unwrap_or_else(|| folder.path().join("state"));
    fs::create_dir_all(&state_dir).expect("the folder is the test's own");
    fs::write(&config, text(settings, &state_dir)).expect("the folder is the test's own");
    let mut line: Vec<OsString> = Vec::new();
    if let Some(name) = &settings.namespace {
        line.extend(["ip", "netns", "exec", name].map(OsString::from));
    }
    line.extend(settings.wrapper.iter().map(OsString::from));
    line.extend([binary("ward-agent").into(), "run".into(), "--config".into(), config.into()]);
    Process::spawn(Command::new(&line[0]).args(&line[1..]), &folder.path().join("agent.log"))
}

fn text(settings: &AgentSettings, state_dir: &Path) -> String {
    let AgentSettings { branch, broker, probe, devices, .. } = settings;
    let mut text = format!("branch = \"{branch}\"\nstate_dir = \"{}\"\n\n", state_dir.display());
    text += &broker_table(broker);
    text += &probe.map(Probe::table).unwrap_or_default();
    for (id, address) in devices {
        // Writing to a String can't fail.
        let _ = write!(text, "\n[[device]]\nid = \"{id}\"\naddress = \"{address}\"\n");
    }
    text
}

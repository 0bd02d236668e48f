//! A real agent, as systemd runs it on a Raspberry Pi.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
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
}

/// A running agent and its folder, which outlives the runs.
pub struct Agent {
    // Dropped in this order: the process ends, and shows its log, before its folder goes.
    process: Process,
    folder: TempDir,
    namespace: Option<String>,
}

impl Agent {
    /// Writes the config and starts the agent.
    pub fn start(settings: AgentSettings) -> Self {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let AgentSettings { branch, broker, probe, devices, namespace } = settings;
        let mut text = format!("branch = \"{branch}\"\nstate_dir = \"{}\"\n\n", folder.path().join("state").display());
        text += &broker_table(&broker);
        text += &probe.map(Probe::table).unwrap_or_default();
        for (id, address) in devices {
            // Writing to a String can't fail.
            let _ = write!(text, "\n[[device]]\nid = \"{id}\"\naddress = \"{address}\"\n");
        }
        fs::create_dir(folder.path().join("state")).expect("the folder is the test's own");
        fs::write(folder.path().join("agent.toml"), text).expect("the folder is the test's own");
        let process = Self::spawn(&folder, namespace.as_deref());
        Self { folder, namespace, process }
    }

    fn spawn(folder: &TempDir, namespace: Option<&str>) -> Process {
        let mut command = match namespace {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(binary("ward-agent"));
                command
            }
            None => Command::new(binary("ward-agent")),
        };
        command.args(["run", "--config"]).arg(folder.path().join("agent.toml"));
        Process::spawn(&mut command, &folder.path().join("agent.log"))
    }

    /// Starts it again on what it had left behind, ending it first if it runs.
    pub fn start_again(&mut self) {
        self.process.kill_hard();
        self.process = Self::spawn(&self.folder, self.namespace.as_deref());
    }

    /// The process: to end it, or to read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

//! What goes wrong in the demo, and when. The story repeats.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use shared::{BranchId, Millis};
use ward_agent::monitor::Outcome;
use ward_agent::probe::{Asked, Network, Prober, Simulated};

use crate::clock;
use crate::inventory::{Device, Inventory};

/// Length of the story in ms: longer than the time in which changes count towards flapping.
const STORY_MS: i64 = 360_000;
/// Every so many devices, one has been dead for long.
const LONG_DEAD_EVERY: usize = 60;
/// Half a period of the flapping device in ms.
const FLAP_MS: i64 = 12_000;

/// How replies are got.
pub enum Echo {
    /// By ICMP.
    Real(Network),
    /// They are made up.
    Simulated(Simulated),
}

/// An echo that the script keeps some replies from.
pub struct Faulty {
    echo: Arc<Echo>,
    script: Arc<Script>,
}

impl Faulty {
    /// An echo under a script.
    pub fn new(echo: Arc<Echo>, script: Arc<Script>) -> Self {
        Self { echo, script }
    }
}

impl Prober for Faulty {
    async fn probe(&self, asked: &Asked, timeout: Duration) -> Outcome {
        if self.script.is_silent(asked.address, clock::now()) {
            tokio::time::sleep(timeout).await;
            return Outcome::Timeout;
        }
        match self.echo.as_ref() {
            Echo::Real(network) => network.probe(asked, timeout).await,
            Echo::Simulated(simulated) => simulated.probe(asked, timeout).await,
        }
    }

    fn receive_drops(&self) -> u64 {
        match self.echo.as_ref() {
            Echo::Real(network) => network.receive_drops(),
            Echo::Simulated(simulated) => simulated.receive_drops(),
        }
    }
}

/// When a device of the story is silent.
enum Silence {
    Always,
    /// From and to, in ms from the story's start.
    During(i64, i64),
    /// On and off within these times.
    Flapping(i64, i64),
}

/// Who is hit by what.
pub struct Script {
    began: Millis,
    silences: HashMap<IpAddr, Silence>,
    cut: (BranchId, i64, i64),
    dark: (BranchId, i64, i64),
    notes: Vec<String>,
}

impl Script {
    /// A story for an estate that begins now.
    ///
    /// # Errors
    /// When the estate is too small for it.
    pub fn new(inventory: &Inventory, began: Millis) -> anyhow::Result<Self> {
        let large: Vec<&BranchId> = inventory
            .branches
            .iter()
            .map(|branch| &branch.id)
            .filter(|id| inventory.devices.iter().filter(|device| device.branch == **id).count() >= 5)
            .collect();
        let [unplugged, flapping, cut, dark, ..] = large.as_slice() else {
            anyhow::bail!("the demo's story needs four branches of five devices");
        };
        let last = |branch: &BranchId| -> anyhow::Result<&Device> {
            inventory.devices.iter().rfind(|device| device.branch == *branch).context("a branch without devices")
        };
        let (unplugged, flapping, in_the_dark) = (last(unplugged)?, last(flapping)?, last(cut)?);
        let mut silences: HashMap<IpAddr, Silence> =
            inventory.devices.iter().skip(7).step_by(LONG_DEAD_EVERY).map(|device| (device.ip, Silence::Always)).collect();
        silences.insert(unplugged.ip, Silence::During(15_000, 75_000));
        silences.insert(flapping.ip, Silence::Flapping(20_000, 140_000));
        silences.insert(in_the_dark.ip, Silence::During(50_000, 70_000));
        let notes = vec![
            format!("{} is unplugged after 15 s, for a minute", unplugged.name),
            format!("{} flaps from 20 s to 140 s", flapping.name),
            format!("branch {cut} loses its WAN after 30 s, for a minute; meanwhile {} is down for 20 s", in_the_dark.name),
            format!("branch {dark} is without power from 60 s to 120 s"),
            format!("all of it again every {} minutes", STORY_MS / 60_000),
        ];
        let (cut, dark) = (((*cut).clone(), 30_000, 90_000), ((*dark).clone(), 60_000, 120_000));
        Ok(Self { began, silences, cut, dark, notes })
    }

    /// What happens, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn story_time(&self, now: Millis) -> i64 {
        now.since(self.began).max(0) % STORY_MS
    }

    /// Whether a device doesn't answer now.
    pub fn is_silent(&self, address: IpAddr, now: Millis) -> bool {
        let at = self.story_time(now);
        match self.silences.get(&address) {
            None => false,
            Some(Silence::Always) => true,
            Some(Silence::During(from, to)) => (*from..*to).contains(&at),
            Some(Silence::Flapping(from, to)) => (*from..*to).contains(&at) && (at - from) / FLAP_MS % 2 == 0,
        }
    }

    /// Whether a branch's WAN is ever cut.
    pub fn cuts(&self, branch: &BranchId) -> bool {
        self.cut.0 == *branch
    }

    /// Whether a branch's WAN is cut now.
    pub fn is_cut(&self, branch: &BranchId, now: Millis) -> bool {
        let (cut, from, to) = &self.cut;
        cut == branch && (*from..*to).contains(&self.story_time(now))
    }

    /// Whether a branch has power now.
    pub fn has_power(&self, branch: &BranchId, now: Millis) -> bool {
        let (dark, from, to) = &self.dark;
        dark != branch || !(*from..*to).contains(&self.story_time(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::estate;

    #[test]
    fn the_story_hits_one_device_one_branch_and_one_more_and_repeats() {
        let inventory = estate::inventory();
        let script = Script::new(&inventory, Millis(0)).expect("a large estate");
        let silent = |at| inventory.devices.iter().filter(|device| script.is_silent(device.ip, Millis(at))).count();
        let dead = silent(0);
        assert!((10..=20).contains(&dead), "{dead} long dead");
        for (at, more) in [(14_999, 0), (15_000, 1), (20_000, 2), (32_000, 1), (44_000, 2), (81_000, 0), (150_000, 0)] {
            assert_eq!(silent(at) - dead, more, "at {at}");
            assert_eq!(silent(at + STORY_MS) - dead, more, "at {at} of the second round");
        }
        let count = |is: &dyn Fn(&BranchId) -> bool| inventory.branches.iter().filter(|branch| is(&branch.id)).count();
        assert_eq!(count(&|id| script.is_cut(id, Millis(40_000))), 1);
        assert_eq!(count(&|id| script.is_cut(id, Millis(95_000))), 0);
        assert_eq!(count(&|id| !script.has_power(id, Millis(70_000))), 1);
        assert_eq!(count(&|id| !script.has_power(id, Millis(125_000))), 0);
    }
}

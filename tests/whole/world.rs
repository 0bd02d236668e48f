//! Ward between real servers: a broker with certificates, VictoriaMetrics and a collector at the centre, an agent in
//! each branch, and how the truth is compared with what ward says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use ward_tests::agent::AgentSettings;
use ward_tests::api::{Outage, id, status};
use ward_tests::collector::{Broker, CollectorSettings};
use ward_tests::estate::{branch_id, device_id};
use ward_tests::program::Probe;
use ward_tests::{Agent, Api, Change, Collector, Estate, Identity, Mosquitto, Net, Pki, Victoria, eventually};

/// How all agents probe here.
pub(crate) const PROBE: Probe = Probe::BRISK;

/// What a verdict may take beyond the probes it rests on: a busy machine, and dating by acks.
const SLACK_MS: i64 = 500;

/// How long something may take that ward does at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// How long a branch may take to be known after a start: config, first probes, acks.
const START_LIMIT: Duration = Duration::from_secs(40);

/// All parts of a world in which ward runs. Agents end first, the broker last.
pub(crate) struct World<'net> {
    net: &'net Net,
    pub(crate) agents: Vec<Agent>,
    pub(crate) collector: Collector,
    pub(crate) victoria: Victoria,
    pub(crate) broker: Mosquitto,
    pub(crate) centre: Identity,
    _pki: Pki,
}

impl<'net> World<'net> {
    /// Starts all parts at the centre of `net`, and an agent in each branch; returns when every device is up.
    pub(crate) async fn start(net: &'net Net, silent_after: Duration) -> Self {
        Self::start_with(net, silent_after, |_| {}, |_| {}).await
    }

    /// The same with changed settings: of the collector, and of each agent.
    pub(crate) async fn start_with(
        net: &'net Net,
        silent_after: Duration,
        change_collector: impl FnOnce(&mut CollectorSettings),
        mut change_agent: impl FnMut(&mut AgentSettings),
    ) -> Self {
        let pki = Pki::new();
        let broker = Mosquitto::start(Net::CENTRE.into(), &pki.server(&[Net::CENTRE.into()])).await;
        let victoria = Victoria::start().await;
        let centre = pki.client("collector");
        let mut settings = CollectorSettings {
            tables: String::new(),
            report: None,
            broker: Broker::External(broker.access(&centre)),
            victoria_metrics: vec![victoria.url()],
            probe: PROBE,
            silent_after,
            estate: Estate::of(net),
            data_dir: None,
        };
        change_collector(&mut settings);
        let collector = Collector::start(settings).await;
        let agent = |b: u8| {
            let mut settings = AgentSettings {
                branch: branch_id(b),
                broker: broker.access(&pki.client(&branch_id(b))),
                probe: None,
                devices: Vec::new(),
                namespace: Some(net.branch(b)),
                state_dir: None,
                wrapper: Vec::new(),
            };
            change_agent(&mut settings);
            Agent::start(settings)
        };
        let agents = (1..=net.branches()).map(agent).collect();
        let world = Self { net, agents, collector, victoria, broker, centre, _pki: pki };
        world.all_up().await;
        world
    }

    pub(crate) fn api(&self) -> &Api {
        &self.collector.api
    }

    /// All device ids.
    pub(crate) fn devices(&self) -> Vec<String> {
        Estate::of(self.net).rows.into_iter().map(|row| row.device).collect()
    }

    /// Waits until every device of the inventory is up.
    pub(crate) async fn all_up(&self) {
        eventually(START_LIMIT, "every device is up", async || {
            let devices = self.api().devices().await?;
            let others: Vec<_> = devices.iter().filter(|(_, device)| device["status"] != "up").collect();
            ensure!(others.is_empty(), "{} of {} are not, the first {:?}", others.len(), devices.len(), others[0]);
            let missing: Vec<_> = self.devices().into_iter().filter(|id| !devices.contains_key(id)).collect();
            ensure!(missing.is_empty(), "the API doesn't know {missing:?}");
            Ok(())
        })
        .await;
    }

    /// Waits until a device has a status.
    pub(crate) async fn becomes(&self, device: &str, wanted: &str) {
        eventually(SOON, &format!("{device} is {wanted}"), async || {
            let status = self.api().status(device).await?;
            ensure!(status == wanted, "it is {status}");
            Ok(())
        })
        .await;
    }

    /// Waits until the API has exactly one outage of a device, over, and checks it against the truth.
    pub(crate) async fn has_one_outage(&self, device: &str, fault: &Fault) -> Outage {
        let outage = eventually(SOON, &format!("{device} has one outage, which is over"), async || {
            let outages = self.api().outages(device).await?;
            ensure!(outages.len() == 1 && outages[0].to_ms.is_some(), "{outages:?}");
            Ok(outages[0])
        })
        .await;
        fault.check(&format!("the outage of {device}"), outage.from_ms, outage.to_ms);
        outage
    }

    /// No device but these ever had an outage.
    pub(crate) async fn only_these_had_outages(&self, those: &[&str]) {
        for device in self.devices().iter().filter(|device| !those.contains(&device.as_str())) {
            assert_eq!(self.api().outages(device).await.expect("the API answers"), [], "{device} answered all the time");
        }
    }

    /// List, detail, stats and a fresh snapshot say the same of every device. A moment in which something changes is
    /// no moment to compare: it is tried again.
    pub(crate) async fn surfaces_agree(&self) {
        let (list, details, snapshot, stats) = eventually(SOON, "nothing changes for a moment", async || {
            let list = states(self.api().devices().await?.values());
            let snapshot = self.api().websocket().await?.snapshot().await?;
            let stats = self.api().stats().await?;
            let mut details = Vec::new();
            for id in list.keys() {
                details.push(self.api().device(id).await?);
            }
            ensure!(list == states(self.api().devices().await?.values()), "it did");
            Ok((list, details, snapshot, stats))
        })
        .await;
        assert!(self.devices().iter().all(|id| list.contains_key(id)), "the list has every device");
        say_the_same("list and detail", &list, &states(&details));
        let snapshot = snapshot["devices"].as_array().expect("a snapshot has devices");
        say_the_same("list and snapshot", &list, &states(snapshot));
        for word in ["up", "down", "unknown"] {
            let count = list.values().filter(|state| state.starts_with(&format!("\"{word}\""))).count();
            assert_eq!(stats[word], count, "stats and list, {word}: {stats}");
        }
        assert_eq!(stats["total_devices"], list.len(), "{stats}");
    }
}

/// What each device is said to be: status, cause and since when.
pub(crate) fn states<'a>(devices: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, String> {
    let state = |device: &Value| ["status", "cause", "since", "down_since"].map(|key| device[key].to_string()).join(" ");
    devices.into_iter().map(|device| (id(device).expect("a device has an id"), state(device))).collect()
}

#[track_caller]
fn say_the_same(which: &str, one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) {
    let ids: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differing: Vec<_> = ids.into_iter().filter(|id| one.get(*id) != other.get(*id)).collect();
    let first = differing.first().map(|id| (id, one.get(*id), other.get(*id)));
    assert!(differing.is_empty(), "{which} differ in {} devices, the first: {first:?}", differing.len());
}

/// What was really done to a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) began: Change,
    pub(crate) ended: Change,
}

impl Fault {
    /// An outage begins and ends at this fault's beginning and end, as closely as the probes can tell.
    #[track_caller]
    pub(crate) fn check(&self, what: &str, from_ms: i64, to_ms: Option<i64>) {
        is_at(&format!("the beginning of {what}"), from_ms, self.began);
        is_at(&format!("the end of {what}"), to_ms.unwrap_or_else(|| panic!("{what} goes on")), self.ended);
    }
}

/// A moment that ward states lies at a change of the world: not before it, and not later than a verdict may take.
#[track_caller]
pub(crate) fn is_at(what: &str, said_ms: i64, change: Change) {
    let late_ms = said_ms - change.after_ms;
    let early_ms = change.before_ms - said_ms;
    let limit_ms = PROBE.verdict_ms() + SLACK_MS;
    assert!(
        early_ms <= SLACK_MS && late_ms <= limit_ms,
        "{what} is stated {late_ms} ms after the fact; at most {limit_ms} are right"
    );
}

/// Silences device `i` of branch 1 and waits until the API says so.
pub(crate) async fn takes_down(world: &World<'_>, i: u8) -> Change {
    let began = world.net.silence(1, i);
    world.becomes(&device_id(1, i), "down").await;
    began
}

/// The status of each device, for a comparison before and after.
pub(crate) async fn statuses(api: &Api) -> Result<BTreeMap<String, String>> {
    api.devices().await?.iter().map(|(id, device)| Ok((id.clone(), status(device)?))).collect()
}

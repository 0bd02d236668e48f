//! How many deltas a core takes, without sockets: by the ledger's thread with its file, and by its parts without one.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use shared::wire::{decode, encode};
use shared::{Ack, Batch, Body, Lane, Millis};
use tokio::sync::mpsc;
use ward_collector::admission::{Admission, admit};
use ward_collector::clock::Moment;
use ward_collector::feed::{Live, Notes};
use ward_collector::fleet::{Fleet, Quality};
use ward_collector::ingest::{Command, Ingest};
use ward_collector::inventory::{Inventory, parse_csv};
use ward_collector::metrics::Metrics;
use ward_collector::outage::Change;
use ward_collector::samples::{self, Metric, Sample, status_value};
use ward_collector::settings::Rollout;
use ward_collector::store::{self, Queue, Store};
use ward_tests::figure::{Figure, quantile};
use ward_tests::{Watched, now_ms};

use crate::site::{Past, Site, estate};
use crate::vmagent;

/// As in the collector's inbox: most bytes and payloads that are handled together.
const GROUP_LIMIT: (usize, usize) = (1024 * 1024, 1_024);
/// Most samples of one request, as in `ingest`.
const REQUEST_LIMIT_SAMPLES: usize = 20_000;
/// Samples that a core makes, compressed, of what agents tell, for each one that a core of vmagent takes and passes on.
const VMAGENT_GOAL: f64 = 3.0;
/// Enough for every sample of a run: nothing is dropped.
const QUEUE_LIMIT_BYTES: u64 = 8 << 30;

/// Everything that the branches have to tell, in the order of the collector's inbox.
struct Load {
    inventory: Inventory,
    groups: Vec<Vec<(String, Vec<u8>)>>,
    deltas: u64,
    now: i64,
}

impl Load {
    fn new(branches: usize, devices: usize, hours: i64) -> Result<Self> {
        let mut rng = SmallRng::seed_from_u64(7);
        let now = now_ms();
        let mut sites: Vec<Site> = (0..branches).map(|b| Site::new(b, devices, Past::outage_of(hours), now, &mut rng)).collect();
        let deltas = sites.iter().map(|site| site.told.deltas).sum();
        let mut groups = vec![Vec::new()];
        let mut bytes_held = 0;
        let mut is_over = false;
        while !is_over {
            is_over = true;
            for site in &mut sites {
                let at = site.uptime(now);
                site.outbox.connected(at);
                let mut newest = None;
                while let Some((batch, end)) = site.outbox.next(at) {
                    let bytes = encode(&batch)?;
                    site.outbox.sent(end, at);
                    newest = Some((batch.stream, batch.group.last()));
                    bytes_held += bytes.len();
                    groups.last_mut().context("there is one")?.push((Lane::Up.topic(&site.id), bytes));
                }
                let Some((stream, through)) = newest else { continue };
                is_over = false;
                site.outbox.acked(&Ack { stream, through, now: Millis(now), echo: None, restate: false }, at);
                if bytes_held >= GROUP_LIMIT.0 || groups.last().is_some_and(|group| group.len() >= GROUP_LIMIT.1) {
                    groups.push(Vec::new());
                    bytes_held = 0;
                }
            }
        }
        let inventory =
            parse_csv("bench", &estate(branches, branches * devices).csv()).ok().context("the laboratory's inventory")?;
        Ok(Self { inventory, groups, deltas, now })
    }

    fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::new(30_000);
        let numbers: Vec<u32> = (0..).take(self.inventory.devices.len()).collect();
        fleet.set_inventory(&self.inventory, &numbers);
        fleet
    }

    /// By the ledger's thread, with a file on the disk that this runs on: deltas by the clock, and by the core's time.
    fn durable(&self, queue_limit_bytes: Option<u64>) -> Result<(f64, f64)> {
        let folder = tempfile::tempdir_in(".")?;
        let mut store = Store::open(folder.path())?;
        store.transaction(|db| store::import(db, &self.inventory))?;
        let live = Arc::new(Live::new(Fleet::new(30_000), Notes::default()));
        let (sender, _outgoing) = mpsc::channel(1_000_000);
        let metrics = Arc::<Metrics>::default();
        let now = Millis(self.now);
        let began_at = Moment { wall: now, ..Moment::now()? };
        let queue = queue_limit_bytes.map(|limit_bytes| Queue { readers: vec!["v".to_owned()], limit_bytes });
        let mut ingest = Ingest::new(store, live, Arc::clone(&metrics), sender, Rollout::default(), queue, began_at)?;
        let groups: Vec<Vec<Command>> = self.groups.iter().map(|group| group.iter().map(command).collect()).collect();
        let (began, cpu_before) = (Instant::now(), cpu_s()?);
        for group in groups {
            ingest.handle(group, now);
        }
        let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_s()? - cpu_before);
        anyhow::ensure!(metrics.value("ward_ledger_errors_total", "") == 0.0, "the file can't be written");
        Ok((self.deltas as f64 / took, self.deltas as f64 / cpu))
    }

    /// Decoding, admission, state, three samples a delta and their compression: all but the file. By the time of the core,
    /// whatever else the machine does.
    fn in_memory(&self) -> Result<f64> {
        let (began, mut bytes_out) = (cpu_s()?, 0);
        self.requests(|body, _| bytes_out += body.len())?;
        let took = cpu_s()? - began;
        anyhow::ensure!(bytes_out > 0, "samples have bytes");
        Ok(self.deltas as f64 / took)
    }

    /// The remote-write requests that follow, each with how many samples it holds.
    fn requests(&self, mut take_request: impl FnMut(Vec<u8>, u64)) -> Result<()> {
        let mut fleet = self.fleet();
        let now = Millis(self.now);
        for group in &self.groups {
            let mut series = Vec::new();
            for (_, bytes) in group {
                take(&mut fleet, &decode::<Batch>(bytes)?, now, &mut series);
            }
            fleet.refresh(now);
            for part in series.chunks_mut(REQUEST_LIMIT_SAMPLES) {
                let (body, count) = samples::encode(part, now, |device| {
                    let device = &fleet.devices[device];
                    (&device.info, &fleet.branches[device.branch].info)
                });
                take_request(body, count);
            }
        }
        Ok(())
    }
}

/// The time that this process has had of the processor, in s.
fn cpu_s() -> Result<f64> {
    Watched::this().cpu_s()
}

fn command((topic, bytes): &(String, Vec<u8>)) -> Command {
    Command::Payload { topic: topic.clone(), bytes: bytes.clone().into() }
}

fn take(fleet: &mut Fleet, batch: &Batch, now: Millis, out: &mut Vec<Sample>) {
    let Some(branch) = fleet.branch(&batch.branch) else { return };
    let Admission::Take { entries, through, .. } = admit(batch, batch.group.first - 1) else { return };
    let date = |at| batch.dating.date(at).0.min(now);
    for (_, delta) in entries {
        match &delta.body {
            Body::Boot(boot) => fleet.begin(branch, batch.stream, &boot.version, date(delta.at)),
            Body::Transition(transition) => {
                let Some(device) = fleet.device_of(&transition.device, branch) else { continue };
                let onset = date(transition.onset);
                fleet.change(device, transition.from, &Change { onset, to: transition.to, last_ok: None, error_ms: 0 });
                let value = status_value(transition.to);
                out.extend(value.map(|value| Sample { device, metric: Metric::Status, at: onset, value }));
            }
            Body::Qualities(qualities) => {
                let first = date(qualities.first_end).nearest_minute();
                for column in &qualities.columns {
                    let Some(device) = fleet.device_of(&column.device, branch) else { continue };
                    let Ok(minutes) = column.unpack(qualities.unit_us) else { continue };
                    let ends = (0..).map(|i| first.plus(i * Millis::MINUTE));
                    for (minute, at) in minutes.into_iter().zip(ends) {
                        let loss = 100.0 * f64::from(minute.lost) / f64::from(minute.sent);
                        fleet.measure(device, Quality { at, rtt_us: minute.rtt.map(|rtt| rtt.avg_us), loss });
                        out.push(Sample { device, metric: Metric::Status, at, value: 1.0 });
                        out.push(Sample { device, metric: Metric::Loss, at, value: loss });
                        let rtt = minute.rtt.map(|rtt| f64::from(rtt.avg_us) / 1000.0);
                        out.extend(rtt.map(|value| Sample { device, metric: Metric::Rtt, at, value }));
                    }
                }
            }
            Body::Gap(_) | Body::Flagged(_) | Body::Identity(_) => {}
        }
    }
    fleet.observed(branch, batch.stream, through, Some(date(batch.observed_through)), now);
}

/// Medians of three runs.
pub(crate) fn run(branches: usize, devices: usize, hours: i64) -> Result<Vec<Figure>> {
    let load = Load::new(branches, devices, hours)?;
    let payloads: usize = load.groups.iter().map(Vec::len).sum();
    let of_three = |measure: &dyn Fn() -> Result<f64>| -> Result<f64> {
        let mut values = [measure()?, measure()?, measure()?];
        Ok(quantile(&mut values, 0.5))
    };
    let mut requests = Vec::new();
    load.requests(|body, samples| requests.push((body, samples)))?;
    let samples: u64 = requests.iter().map(|(_, samples)| samples).sum();
    let in_memory = of_three(&|| load.in_memory())?;
    let figure = Figure::high;
    let mut figures = vec![
        figure("ingest_durable", of_three(&|| Ok(load.durable(None)?.0))?, "/s", Some(200_000.0)),
        figure("ingest_durable_a_core", of_three(&|| Ok(load.durable(None)?.1))?, "/s", None),
        figure("ingest_durable_with_samples", of_three(&|| Ok(load.durable(Some(QUEUE_LIMIT_BYTES))?.0))?, "/s", None),
        figure("ingest_in_memory_a_core", in_memory, "/s", Some(2_500_000.0)),
        figure("ingest_deltas", load.deltas as f64, "", None),
        figure("ingest_payloads", payloads as f64, "", None),
    ];
    match vmagent::samples_a_core(&requests)? {
        Some(anchor) => {
            let ours = in_memory * samples as f64 / load.deltas as f64;
            figures.push(figure("vmagent_samples_a_core", anchor, "/s", None));
            figures.push(figure("ingest_samples_to_vmagent", ours / anchor, "", Some(VMAGENT_GOAL)));
        }
        None => eprintln!("vmagent isn't installed: it is no anchor here"),
    }
    Ok(figures)
}

//! A collector with an estate, a past, and branches that do as they are told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use ward_tests::collector::{Broker, CollectorSettings};
use ward_tests::program::Probe;
use ward_tests::{Api, Collector, Victoria, Watched, now_ms};

use crate::broker::Mosquitto;
use crate::link::{Link, Progress};
use crate::site::{Order, Past, Site, device_id, estate, share};

/// Devices of a branch beyond the smallest estate, which has 128 branches as the bank has.
const BRANCH_DEVICES: usize = 25;
/// Branches of one connection: one process stands for all agents.
const CONNECTION_SHARE: usize = 100;
/// How long the past may take to be told.
const FILL_LIMIT: Duration = Duration::from_secs(1_800);
/// Hours of qualities that an estate has whose histories aren't measured.
const FEW_HOURS: i64 = 1;
/// How long the past may take to be packed.
const PACK_LIMIT: Duration = Duration::from_secs(900);
const DAY_MS: i64 = 86_400_000;

pub(crate) struct World {
    pub(crate) devices: usize,
    pub(crate) days: i64,
    pub(crate) api: Api,
    pub(crate) collector: Watched,
    pub(crate) victoria: Option<Victoria>,
    /// Where the collector's file is.
    file: PathBuf,
    branches: usize,
    orders: Vec<mpsc::Sender<(usize, Order)>>,
    /// Turned devices come back in turn: each order takes the next.
    next: AtomicUsize,
    // Dropped last: those who speak to them are above.
    _links: JoinSet<()>,
    _collector: Collector,
    _broker: Mosquitto,
}

impl World {
    pub(crate) async fn start(devices: usize, days: i64, is_whole: bool, victoria: bool) -> Result<Self> {
        let branches = if devices <= crate::SMALL { 128.min(devices) } else { devices.div_ceil(BRANCH_DEVICES) };
        eprintln!("{devices} devices in {branches} branches: {days} days of their past are made up");
        let broker = Mosquitto::start().await?;
        let victoria = if victoria { Some(Victoria::start().await) } else { None };
        let mut collector = Collector::start(CollectorSettings {
            data_dir: None,
            report: Some("qualities = \"10m\""),
            tables: String::new(),
            broker: Broker::External(broker.access.clone()),
            victoria_metrics: victoria.iter().map(Victoria::url).collect(),
            probe: Probe { interval_ms: 2_000, timeout_ms: 500, retry_ms: 500, fall: 3, rise: 2 },
            silent_after: Duration::from_secs(30),
            estate: estate(branches, devices),
        })
        .await;
        let mut rng = SmallRng::seed_from_u64(7);
        let now = now_ms();
        let past = Past { hours: days * 24, quality_hours: if is_whole { days * 24 } else { FEW_HOURS }, is_steady: true };
        let site = |number: usize| (number, Site::new(number, share(number, branches, devices), past, now, &mut rng));
        let mut sites: Vec<(usize, Site)> = (0..branches).map(site).collect();
        let deltas: u64 = sites.iter().map(|(_, site)| site.told.deltas).sum();

        eprintln!("they tell it: {deltas} changes and minutes");
        let began = std::time::Instant::now();
        let progress =
            Arc::new(Progress { branches: (0..branches).map(|_| Default::default()).collect(), ..Progress::default() });
        let (mut links, mut orders) = (JoinSet::new(), Vec::new());
        while !sites.is_empty() {
            let rest = sites.split_off(sites.len().min(CONNECTION_SHARE));
            let (order, received) = mpsc::channel(1_000);
            orders.push(order);
            let link = Link {
                name: sites[0].0.to_string(),
                access: broker.access.clone(),
                sites: std::mem::replace(&mut sites, rest),
                progress: Arc::clone(&progress),
                orders: received,
            };
            let _: AbortHandle = links.spawn(link.run());
        }
        let all_told = async {
            while progress.done.load(Ordering::Relaxed) < branches {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(FILL_LIMIT, all_told).await.context("the past takes too long to be told")?;
        eprintln!("told in {:.0} s", began.elapsed().as_secs_f64());
        let file = collector.config().with_file_name("data").join("ward.db");
        if is_whole {
            // Finished days are looked for at the start, and then every ten minutes.
            collector.start_again().await;
            packed(&file).await?;
        }
        let watched = Watched::child("ward-collector")?;
        Ok(Self {
            devices,
            days,
            api: collector.api.clone(),
            collector: watched,
            victoria,
            file,
            branches,
            orders,
            next: AtomicUsize::new(0),
            _links: links,
            _collector: collector,
            _broker: broker,
        })
    }

    /// Has the next device go down or come back; its id.
    pub(crate) async fn turn(&self) -> Result<String> {
        let (branch, device) = self.place(self.next.fetch_add(1, Ordering::Relaxed));
        self.order(branch, Order::Turn(device)).await?;
        Ok(device_id(branch, device))
    }

    /// The id of the device that will change next.
    pub(crate) fn next_device(&self) -> String {
        let (branch, device) = self.place(self.next.load(Ordering::Relaxed));
        device_id(branch, device)
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let branch = at % self.branches;
        (branch, at / self.branches % share(branch, self.branches, self.devices).max(1))
    }

    /// Has a branch tell of a minute of all its devices.
    pub(crate) async fn report(&self) -> Result<()> {
        let (branch, _) = self.place(self.next.fetch_add(1, Ordering::Relaxed));
        self.order(branch, Order::Report).await
    }

    async fn order(&self, branch: usize, order: Order) -> Result<()> {
        let link = self.orders.get(branch / CONNECTION_SHARE).context("each branch has a link")?;
        link.send((branch % CONNECTION_SHARE, order)).await.context("its link has ended")
    }

    /// Some device.
    pub(crate) fn any_device(&self) -> String {
        let branch = rand::rng().random_range(0..self.branches);
        device_id(branch, rand::rng().random_range(0..share(branch, self.branches, self.devices).max(1)))
    }

    /// Bytes of the file that a month of a device takes, packed.
    pub(crate) fn device_month_bytes(&self) -> Result<f64> {
        let db = read(&self.file)?;
        let bytes: f64 = db.query_row("select sum(pgsize) from dbstat where name like '%minute_day%'", [], |row| row.get(0))?;
        let days: f64 = db.query_row("select count(*) from minute_day", [], |row| row.get(0))?;
        ensure!(days > 0.0, "no day is packed");
        Ok(bytes / days * 30.0)
    }
}

/// Waits until all finished days are packed.
async fn packed(file: &Path) -> Result<()> {
    eprintln!("finished days are packed");
    for _ in 0..PACK_LIMIT.as_secs() {
        // What ended within the last hours is left open for what is late.
        let finished = (now_ms() / DAY_MS - 1) * 1_440;
        let young: i64 = read(file)?.query_row("select count(*) from minute where minute < ?1", [finished], |row| row.get(0))?;
        if young == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    anyhow::bail!("finished days aren't packed")
}

fn read(file: &Path) -> Result<Connection> {
    Ok(Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

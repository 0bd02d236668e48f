//! One probe of one target: an ICMP echo, a TCP connection, an HTTP request or a DNS question; or an answer made up where the
//! machine permits no ICMP.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use shared::message::{Probe, Via};

use crate::dial;
use crate::echo::{Echo, SocketKind};
use crate::monitor::Outcome;

/// Most ways out with an ICMP socket of their own.
const WAYS_LIMIT: usize = 64;
/// How long a reply is still waited for that is too late to count.
pub const GRACE: Duration = Duration::from_millis(2_000);

/// What one probe is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where the target is.
    pub address: IpAddr,
    /// Its name, where it has one.
    pub name: Option<Arc<str>>,
    /// What it is asked.
    pub probe: Probe,
    /// By which way.
    pub via: Option<Via>,
}

impl Asked {
    /// Whether it isn't known yet where the target is.
    pub fn is_nowhere(&self) -> bool {
        self.address.is_unspecified()
    }
}

impl From<IpAddr> for Asked {
    /// An ICMP echo.
    fn from(address: IpAddr) -> Self {
        Self { address, name: None, probe: Probe::Icmp, via: None }
    }
}

/// The round trip in µs of a reply that comes too late to count; nothing if none comes within [`GRACE`] either.
pub type Late = BoxFuture<'static, Option<u32>>;

/// Asks a target whether it is there.
pub trait Prober: Send + Sync + 'static {
    /// Sends one probe and waits for its answer, at most `timeout`.
    fn probe(&self, asked: &Asked, timeout: Duration) -> impl Future<Output = Outcome> + Send;

    /// The same, and where nothing came in time but may yet come, what tells of that.
    fn ask(&self, asked: &Asked, timeout: Duration) -> impl Future<Output = (Outcome, Option<Late>)> + Send {
        async move { (self.probe(asked, timeout).await, None) }
    }

    /// Replies that were lost since the start because nobody read them in time.
    fn receive_drops(&self) -> u64 {
        0
    }

    /// Replies since the start that answer no probe: too late, twice, or not what was sent.
    fn stray_replies(&self) -> u64 {
        0
    }
}

/// What to do where ICMP isn't permitted.
pub const PERMIT_HINT: &str = "sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'";

/// Sockets by their way out and whether they are of IPv4.
type Ways = HashMap<(Via, bool), Option<Arc<Echo>>>;

/// Probes over the machine's own network.
pub struct Network {
    v4: Echo,
    // A machine without IPv6 can still probe IPv4.
    v6: Option<Echo>,
    /// Sockets of other ways out; none where one can't be taken.
    ways: Mutex<Ways>,
    /// What was counted on those that were given up: drops and strays.
    given_up: [AtomicU64; 2],
}

impl Network {
    /// Opens the sockets for ICMP.
    ///
    /// # Errors
    /// When neither a datagram nor a raw socket is permitted; [`PERMIT_HINT`] says how to permit one.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            v4: Echo::open(true, None)?,
            v6: Echo::open(false, None).ok(),
            ways: Mutex::default(),
            given_up: Default::default(),
        })
    }

    /// Which kind of socket the machine permitted.
    pub fn kind(&self) -> SocketKind {
        self.v4.kind()
    }

    /// The ICMP socket of a way out, opened when it is first asked for.
    fn way(&self, via: &Via, is_v4: bool) -> Option<Arc<Echo>> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (via.clone(), is_v4);
        if let Some(Some(known)) = ways.get(&key) {
            return Some(Arc::clone(known));
        }
        if ways.len() >= WAYS_LIMIT && !ways.contains_key(&key) {
            return None;
        }
        // An address or an interface that isn't there yet may come: it is tried again with the next probe.
        let opened = Echo::open(is_v4, Some(via)).map(Arc::new);
        if let (Err(error), None) = (&opened, ways.get(&key)) {
            tracing::warn!(?via, %error, "a way out can't be taken");
        }
        let opened = opened.ok();
        ways.insert(key, opened.clone());
        opened
    }

    /// A socket by which nothing can be sent is opened anew with the next probe: an interface that was unplugged comes back
    /// under its name as another.
    fn give_up(&self, via: &Via, is_v4: bool, echo: &Arc<Echo>) {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = ways.get_mut(&(via.clone(), is_v4)) else { return };
        if slot.as_ref().is_some_and(|known| Arc::ptr_eq(known, echo)) {
            *slot = None;
            for (sum, count) in self.given_up.iter().zip([echo.drops(), echo.strays()]) {
                sum.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    async fn echo(&self, asked: &Asked, timeout: Duration) -> (Outcome, Option<Late>) {
        let is_v4 = asked.address.is_ipv4();
        match &asked.via {
            None if is_v4 => self.v4.ask(asked.address, timeout).await,
            None => match &self.v6 {
                Some(echo) => echo.ask(asked.address, timeout).await,
                None => (Outcome::SendError, None),
            },
            Some(via) => match self.way(via, is_v4) {
                Some(echo) => {
                    let told = echo.ask(asked.address, timeout).await;
                    if told.0 == Outcome::SendError {
                        self.give_up(via, is_v4, &echo);
                    }
                    told
                }
                None => (Outcome::SendError, None),
            },
        }
    }

    fn sum(&self, given_up: usize, of: impl Fn(&Echo) -> u64) -> u64 {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let others: u64 = ways.values().flatten().map(|echo| of(echo)).sum();
        let own: u64 = [Some(&self.v4), self.v6.as_ref()].into_iter().flatten().map(of).sum();
        own + others + self.given_up[given_up].load(Ordering::Relaxed)
    }
}

impl Prober for Network {
    async fn probe(&self, asked: &Asked, timeout: Duration) -> Outcome {
        self.ask(asked, timeout).await.0
    }

    async fn ask(&self, asked: &Asked, timeout: Duration) -> (Outcome, Option<Late>) {
        match &asked.probe {
            Probe::Icmp => self.echo(asked, timeout).await,
            Probe::Tcp { .. } | Probe::Http { .. } | Probe::Dns { .. } => (dial::probe(asked, timeout).await, None),
        }
    }

    fn receive_drops(&self) -> u64 {
        self.sum(0, Echo::drops)
    }

    fn stray_replies(&self) -> u64 {
        self.sum(1, Echo::strays)
    }
}

/// Answers for a machine that permits no ICMP. Whoever shows what it says must say that it is made up.
#[derive(Debug, Default)]
pub struct Simulated {
    number: AtomicU32,
}

impl Prober for Simulated {
    async fn probe(&self, asked: &Asked, timeout: Duration) -> Outcome {
        let mut seed = asked.address.to_string().into_bytes();
        seed.extend(self.number.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let rtt_us = 200 + crc32fast::hash(&seed) % 800;
        tokio::time::sleep(Duration::from_micros(rtt_us.into()).min(timeout)).await;
        Outcome::Reply { rtt_us }
    }
}

//! A relay at the centre, between agents and a broker, that can cut all connections which run through it.

use std::net::{SocketAddr, TcpListener as Bound};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::mosquitto::Access;

/// See the module. All connections end with it.
pub struct Relay {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
    accepted: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Relay {
    /// A relay on the broker's own address, so that its certificate holds here too. Within a runtime.
    pub fn start(broker: &Access) -> Self {
        let to = SocketAddr::new(broker.host, broker.port);
        let bound = Bound::bind((broker.host, 0)).expect("the address is this namespace's own");
        bound.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = bound.local_addr().expect("it is bound");
        let listener = TcpListener::from_std(bound).expect("this runs within a runtime");
        let (cuts, cut) = watch::channel(0);
        let accepted = Arc::<AtomicU64>::default();
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            // An error is that of one connection which was gone before it was accepted.
            loop {
                if let Ok((from, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(carry(from, to, cut.clone()));
                }
            }
        });
        Self { address, cuts, accepted, tasks: vec![task] }
    }

    /// How a client reaches the broker through it.
    pub fn access(&self, broker: &Access) -> Access {
        Access { host: self.address.ip(), port: self.address.port(), ..broker.clone() }
    }

    /// Resets all connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Resets all connections now and again, for as long as it lives or until [`Self::leave_in_peace`].
    pub fn cut_every(&mut self, time: Duration) {
        let cuts = self.cuts.clone();
        self.tasks.push(tokio::spawn(async move {
            loop {
                tokio::time::sleep(time).await;
                cuts.send_modify(|cuts| *cuts += 1);
            }
        }));
    }

    /// Ends what [`Self::cut_every`] began.
    pub fn leave_in_peace(&mut self) {
        self.tasks.drain(1..).for_each(|task| task.abort());
    }

    /// Connections it has accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Carries bytes both ways until one side ends or all is cut.
async fn carry(mut from: TcpStream, to: SocketAddr, mut cut: watch::Receiver<u64>) {
    cut.mark_unchanged();
    // A broker that is away ends the connection, as it would without a relay.
    let Ok(mut to) = TcpStream::connect(to).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut from, &mut to) => {}
        // Also when the relay itself has gone.
        _ = cut.changed() => {
            for side in [&from, &to] {
                // Nothing is delivered any more: the other side sees a reset.
                let _ = socket2::SockRef::from(side).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

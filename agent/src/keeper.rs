//! The thread that owns the outbox and with it the disk: a slow disk stops it, and nothing else.

use std::path::Path;
use std::thread::JoinHandle;

use shared::{Ack, Batch, Body, BootId, BranchId, Dating, Heartbeat, StreamId, Uptime};
use tokio::sync::{mpsc, oneshot, watch};

use crate::buffer::{Buffer, Level, Position, Store};
use crate::clock;
use crate::disk::Disk;
use crate::outbox::{Outbox, Word};

/// Most commands that wait for the thread.
pub const COMMANDS_LIMIT: usize = 1_024;

/// What the thread can be told.
#[derive(Debug)]
pub enum Command {
    /// Keep an entry.
    Entry(Body, Uptime),
    /// Every change before this moment has been told.
    Observed(Uptime),
    /// A connection has begun.
    Connected,
    /// The connection has ended.
    Disconnected,
    /// An ack has arrived.
    Acked(Ack),
    /// Asks for the next batch, if one may be sent.
    Next(oneshot::Sender<Option<(Batch, Position)>>),
    /// A batch that ends here has been handed to the connection.
    Sent(Position),
    /// Asks for a sign of life.
    Heartbeat(Word, oneshot::Sender<Heartbeat>),
    /// The program ends: write everything.
    Close,
}

/// How the stream stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The present stream.
    pub stream: StreamId,
    /// Its last sequence number.
    pub last: u64,
    /// How full the buffer is.
    pub level: Level,
    /// Whether the newest states have to travel beside the stream.
    pub is_behind: bool,
    /// How the present boot is dated, once known.
    pub dating: Option<Dating>,
    /// How often the collector has asked for every state anew.
    pub restatements: u64,
}

/// The running thread.
pub struct Keeper {
    /// Takes commands.
    pub commands: mpsc::Sender<Command>,
    /// How the stream stands after the last command.
    pub standing: watch::Receiver<Standing>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Opens the buffer in `state_dir` and begins a stream.
    ///
    /// # Errors
    /// When no thread can be started. A disk that fails is no error: the buffer goes on in memory.
    pub fn start(branch: BranchId, state_dir: &Path, stream: StreamId, boot: BootId, limit_bytes: u64) -> std::io::Result<Self> {
        let buffer = Buffer::open(Disk::new(state_dir), stream, boot, limit_bytes, clock::uptime());
        let outbox = Outbox::new(branch, buffer);
        let (commands, inbox) = mpsc::channel(COMMANDS_LIMIT);
        let (told, standing) = watch::channel(standing(&outbox, clock::uptime()));
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || keep(outbox, inbox, &told))?;
        Ok(Self { commands, standing, thread })
    }

    /// Waits until everything is written.
    pub fn join(self) {
        drop(self.commands);
        if self.thread.join().is_err() {
            tracing::error!("the keeper of the buffer panicked");
        }
    }
}

fn standing<S: Store>(outbox: &Outbox<S>, now: Uptime) -> Standing {
    let run = outbox.buffer.run();
    Standing {
        stream: run.stream,
        last: run.last,
        level: outbox.buffer.level(),
        is_behind: outbox.is_behind(),
        dating: outbox.dating(now),
        restatements: outbox.restatements(),
    }
}

/// Whoever asks may be gone with its connection: then its answer goes nowhere.
fn answer<T>(to: oneshot::Sender<T>, what: T) {
    let _ = to.send(what);
}

fn keep<S: Store>(mut outbox: Outbox<S>, mut inbox: mpsc::Receiver<Command>, told: &watch::Sender<Standing>) {
    while let Some(command) = inbox.blocking_recv() {
        let now = clock::uptime();
        match command {
            Command::Entry(body, at) => outbox.buffer.append(body, at),
            Command::Observed(moment) => outbox.buffer.observed(moment),
            Command::Connected => outbox.connected(now),
            Command::Disconnected => outbox.disconnected(),
            Command::Acked(ack) => outbox.acked(&ack, now),
            Command::Next(reply) => answer(reply, outbox.next(now)),
            Command::Sent(end) => outbox.sent(end, now),
            Command::Heartbeat(word, reply) => answer(reply, outbox.heartbeat(&word, now)),
            Command::Close => {
                outbox.buffer.close(now);
                break;
            }
        }
        outbox.tick(now);
        told.send_if_modified(|before| {
            let next = standing(&outbox, now);
            // The dating ages with every look at it: alone it is no news.
            let told = |standing: &Standing| (standing.last, standing.level, standing.dating.is_some(), standing.restatements);
            let news = told(before) != told(&next);
            *before = next;
            news
        });
    }
}

//! The thread that owns the buffer: a slow disk stops it, and nothing else.

use std::path::Path;
use std::thread::JoinHandle;

use shared::{Body, BootId, Dating, StreamId, Uptime};
use tokio::sync::{mpsc, oneshot, watch};

use crate::buffer::{Buffer, Chunk, Level, Position, Run, Store};
use crate::clock;
use crate::disk::Disk;

/// Most commands that wait for the thread.
pub const COMMANDS_LIMIT: usize = 1_024;

/// What the thread can be told.
#[derive(Debug)]
pub enum Command {
    /// Keep an entry.
    Entry(Body, Uptime),
    /// Every change before this moment has been told.
    Observed(Uptime),
    /// The collector has this stream up to here. Answers with the position, where the stream is known.
    Ack(StreamId, u64, oneshot::Sender<Option<Position>>),
    /// Whether the collector can be reached.
    Connected(bool),
    /// The present boot is dated.
    Dated(Dating),
    /// Asks for the entries after a position.
    Next(Position, oneshot::Sender<Option<Chunk>>),
    /// Asks for the runs before the present one.
    Older(oneshot::Sender<Vec<Run>>),
    /// The program ends: write everything.
    Close,
}

/// How the stream stands, for heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The present stream.
    pub stream: StreamId,
    /// Its last sequence number.
    pub last: u64,
    /// Every change before this moment is in the stream up to `last`.
    pub observed_through: Uptime,
    /// How full the buffer is.
    pub level: Level,
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
    pub fn start(state_dir: &Path, stream: StreamId, boot: BootId, limit_bytes: u64) -> std::io::Result<Self> {
        let buffer = Buffer::open(Disk::new(state_dir), stream, boot, limit_bytes, clock::uptime());
        let (commands, inbox) = mpsc::channel(COMMANDS_LIMIT);
        let (told, standing) = watch::channel(standing(&buffer));
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || keep(buffer, inbox, &told))?;
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

fn standing<S: Store>(buffer: &Buffer<S>) -> Standing {
    Standing {
        stream: buffer.run().stream,
        last: buffer.run().last,
        observed_through: buffer.observed_through(),
        level: buffer.level(),
    }
}

fn keep<S: Store>(mut buffer: Buffer<S>, mut inbox: mpsc::Receiver<Command>, told: &watch::Sender<Standing>) {
    let mut connected = false;
    while let Some(command) = inbox.blocking_recv() {
        let now = clock::uptime();
        match command {
            Command::Entry(body, at) => buffer.append(body, at),
            Command::Observed(moment) => buffer.observed(moment),
            Command::Ack(stream, through, reply) => {
                // Whoever asked may be gone with its connection.
                let _ = reply.send(buffer.ack(stream, through, now));
            }
            Command::Connected(now_connected) => connected = now_connected,
            Command::Dated(dating) => buffer.dated(dating),
            Command::Next(after, reply) => {
                let _ = reply.send(buffer.next(after, now));
            }
            Command::Older(reply) => {
                let _ = reply.send(buffer.older().to_vec());
            }
            Command::Close => {
                buffer.close(now);
                break;
            }
        }
        buffer.tick(connected, now);
        told.send_if_modified(|standing_now| {
            let next = standing(&buffer);
            std::mem::replace(standing_now, next) != next
        });
    }
}

//! A store that doesn't keep its caller waiting: a card that hangs is an error after some seconds, as one that fails is.
//!
//! The store lives on a thread of its own. While that thread is stuck, every call fails at once; what it was told last
//! may still be done when the card wakes, though its caller was told that it failed.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::buffer::{Position, Run, Store, Write};
use crate::service::Pulse;

/// How long a card may take. Healthy ones pause for up to a second or two while they tidy up.
const PATIENCE: Duration = Duration::from_secs(3);

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// See the module.
pub struct Patient<S> {
    jobs: mpsc::Sender<Job<S>>,
    given: u64,
    done: Arc<AtomicU64>,
    patience: Duration,
    pulse: Pulse,
}

impl<S: Store + Send + 'static> Patient<S> {
    /// Puts a store on a thread of its own. The thread ends when this value is dropped and its last job is done. `pulse` beats
    /// with each answer: reading a large buffer takes many, and is no standstill.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(store: S, pulse: Pulse) -> io::Result<Self> {
        Self::with_patience(store, PATIENCE, pulse)
    }

    fn with_patience(mut store: S, patience: Duration, pulse: Pulse) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job<S>>();
        let done = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&done);
        std::thread::Builder::new().name("disk".to_owned()).spawn(move || {
            for job in inbox {
                job(&mut store);
                counted.fetch_add(1, Ordering::Release);
            }
        })?;
        Ok(Self { jobs, given: 0, done, patience, pulse })
    }

    fn ask<T: Send + 'static>(&mut self, what: impl FnOnce(&mut S) -> io::Result<T> + Send + 'static) -> io::Result<T> {
        if self.done.load(Ordering::Acquire) < self.given {
            // Not handed over: it won't be done late.
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the disk still hangs"));
        }
        let (reply, answer) = mpsc::sync_channel(1);
        let job: Job<S> = Box::new(move |store| {
            // sled panics over damage: that must not end the thread.
            let done = catch_unwind(AssertUnwindSafe(|| what(store)));
            let done = done.unwrap_or_else(|_| Err(io::Error::other("the disk's code panicked")));
            // Whoever asked may have lost patience.
            let _ = reply.send(done);
        });
        self.jobs.send(job).map_err(|_| io::Error::other("the disk's thread has ended"))?;
        self.given += 1;
        let answered = answer.recv_timeout(self.patience).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => {
                io::Error::new(io::ErrorKind::TimedOut, format!("the disk hangs for more than {} ms", self.patience.as_millis()))
            }
            mpsc::RecvTimeoutError::Disconnected => io::Error::other("the disk's thread has ended"),
        })?;
        // The answer comes a moment before the job is counted as done.
        while self.done.load(Ordering::Acquire) < self.given {
            std::thread::yield_now();
        }
        self.pulse.beat();
        answered
    }
}

impl<S: Store + Send + 'static> Store for Patient<S> {
    fn runs(&mut self) -> io::Result<Vec<Run>> {
        self.ask(Store::runs)
    }

    fn positions(&mut self) -> io::Result<Vec<Position>> {
        self.ask(Store::positions)
    }

    fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>> {
        self.ask(move |store| store.read(at))
    }

    fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
        self.ask(move |store| store.commit(writes))
    }

    fn forget(&mut self, writes: Vec<Write>) -> io::Result<()> {
        self.ask(move |store| store.forget(writes))
    }

    fn has_room(&mut self) -> bool {
        self.ask(|store| Ok(store.has_room())).unwrap_or(false)
    }

    fn newest(&mut self) -> io::Result<Option<Run>> {
        self.ask(Store::newest)
    }

    fn has_put_aside(&mut self) -> bool {
        self.ask(|store| Ok(store.has_put_aside())).unwrap_or(false)
    }

    fn trim(&mut self, held_bytes: u64) -> io::Result<()> {
        self.ask(move |store| store.trim(held_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits in each commit until it is let go.
    struct Hanging(mpsc::Receiver<()>);

    impl Store for Hanging {
        fn runs(&mut self) -> io::Result<Vec<Run>> {
            Ok(Vec::new())
        }
        fn positions(&mut self) -> io::Result<Vec<Position>> {
            Ok(Vec::new())
        }
        fn read(&mut self, _at: Position) -> io::Result<Option<Vec<u8>>> {
            Ok(None)
        }
        fn commit(&mut self, _writes: Vec<Write>) -> io::Result<()> {
            self.0.recv().map_err(io::Error::other)
        }
        fn forget(&mut self, _writes: Vec<Write>) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_hangs_is_an_error_until_it_wakes() {
        let (wake, sleep) = mpsc::channel();
        let mut store = Patient::with_patience(Hanging(sleep), Duration::from_millis(50), Pulse::default()).expect("a thread");
        assert!(store.runs().is_ok());
        let error = store.commit(Vec::new()).expect_err("it hangs");
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::TimedOut, "the disk hangs for more than 50 ms"));
        assert_eq!(store.read(Position::default()).expect_err("it still hangs").to_string(), "the disk still hangs");
        wake.send(()).expect("it waits");
        let woken = (0..1_000).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            store.positions().is_ok()
        });
        assert!(woken);
        wake.send(()).expect("it is there");
        assert!(store.commit(Vec::new()).is_ok());
    }

    /// Panics once, as sled may while it is opened anew in `Disk::renew`, outside of `guarded`.
    struct Panicking(bool);

    impl Store for Panicking {
        fn runs(&mut self) -> io::Result<Vec<Run>> {
            Ok(Vec::new())
        }
        fn positions(&mut self) -> io::Result<Vec<Position>> {
            Ok(Vec::new())
        }
        fn read(&mut self, _at: Position) -> io::Result<Option<Vec<u8>>> {
            Ok(None)
        }
        fn commit(&mut self, _writes: Vec<Write>) -> io::Result<()> {
            Ok(())
        }
        fn forget(&mut self, _writes: Vec<Write>) -> io::Result<()> {
            if !std::mem::replace(&mut self.0, true) {
                panic!("sled")
            }
            Ok(())
        }
    }

    #[test]
    fn a_store_that_panicked_once_is_usable_again() {
        let mut store = Patient::new(Panicking(false), Pulse::default()).expect("a thread");
        let _ = store.forget(Vec::new());
        std::thread::sleep(Duration::from_millis(100));
        let then: Vec<String> = (0..3).map(|_| format!("{:?}", store.commit(Vec::new()).map_err(|e| e.to_string()))).collect();
        assert!(then.iter().any(|then| then.contains("Ok")), "{then:?}");
    }
}

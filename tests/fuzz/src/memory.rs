//! An allocator that counts, so that a few bytes can't claim a lot of memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Counts what is held. The fuzzer has one thread that runs targets; others allocate next to nothing.
pub struct Counting;

// SAFETY: everything is left to the system's allocator.
#[expect(unsafe_code, reason = "an allocator has no safe interface")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Runs a reader of `len` bytes, and panics when it ever holds more than `each` bytes for each of them and `fixed`.
pub fn bounded<T>(len: usize, each: usize, fixed: usize, read: impl FnOnce() -> T) -> T {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let answer = read();
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    assert!(most <= len * each + fixed, "{len} B made a reader hold {most} B");
    answer
}

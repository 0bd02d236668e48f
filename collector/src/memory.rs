//! That memory which is needed no more goes back to the system.

use std::ffi::c_int;

/// Blocks of this size and more get pages of their own, which go back when they are freed.
const OWN_PAGES_FROM_BYTES: c_int = 256 * 1024;

/// Sets the allocator up. glibc raises its own limit to the largest block that was ever freed: after the first snapshots and
/// lists of an estate, of megabytes each, it would keep tens of megabytes for the next ones.
pub fn set_up() {
    #[expect(unsafe_code, reason = "no safe wrapper sets this option")]
    // It is a number in the allocator, which holds a lock over it.
    let done = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_FROM_BYTES) };
    debug_assert_eq!(done, 1, "glibc takes any limit up to 32 MiB");
}

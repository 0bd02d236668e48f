//! Waiting, and the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

/// Time between two looks of [`eventually`]. Short beside the half seconds that tests tell apart.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// UTC in milliseconds.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("this machine's clock is past 1970");
    i64::try_from(since_1970.as_millis()).expect("the year is below 292 million")
}

/// Looks until `look` finds what it looks for. Its errors say what is missing so far.
///
/// # Panics
/// With `what` and the last error when `limit` is over.
pub async fn eventually<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T>) -> T {
    let started = Instant::now();
    loop {
        let missing = match look().await {
            Ok(found) => return found,
            Err(missing) => missing,
        };
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}\n  last seen: {missing:#}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Lets a scripted fault last. Not for waiting until something has happened: that is [`eventually`].
pub async fn lasting(time: Duration) {
    tokio::time::sleep(time).await;
}

//! Room for questions that read much of the collector's file. They hold a thread and memory until they are answered, also when
//! whoever has asked is gone, so there are only a few at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Questions of this kind at a time.
const PLACES: usize = 2;
/// How long a question waits for its turn: well below the time for an answer.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// When one that got no turn is worth another try, in seconds.
const BUSY_S: i64 = 10;

/// Room for large questions.
#[derive(Debug, Clone)]
pub struct Room {
    places: Arc<Semaphore>,
    wait_limit: Duration,
}

impl Default for Room {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), wait_limit: WAIT_LIMIT }
    }
}

impl Room {
    /// A place, to be held by what answers the question for as long as that takes.
    pub(super) async fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match tokio::time::timeout(self.wait_limit, Arc::clone(&self.places).acquire_owned()).await {
            Ok(place) => place.map_err(Problem::internal),
            Err(_) => Err(Problem::busy("other large questions are being answered: ask later, or about less", BUSY_S)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[tokio::test]
    async fn a_large_question_waits_for_its_turn_and_not_for_ever() {
        let room = Room { wait_limit: Duration::from_millis(50), ..Room::default() };
        let (first, _second) = (room.enter().await.expect("a place"), room.enter().await.expect("a place"));
        let refused = room.enter().await.expect_err("there are two").into_response();
        assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"10"[..]));
        let patient = Room { wait_limit: Duration::from_secs(60), ..room.clone() };
        let waits = tokio::spawn(async move { patient.enter().await.map(drop) });
        // What answers the first one is done, though its caller may be long gone.
        tokio::task::spawn_blocking(move || drop(first)).await.expect("no panic");
        assert_eq!(waits.await.expect("no panic"), Ok(()));
    }
}

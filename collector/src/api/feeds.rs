//! Room for live feeds: so many in all, and of one caller so many that no other is locked out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::problem::Problem;
use crate::accounts::{Via, Who};
use crate::channel::Interest;

/// Most live feeds at a time.
pub const FEEDS_LIMIT: usize = 4_096;
/// Most of one caller: a wall of screens may share a token.
const CALLER_LIMIT: usize = FEEDS_LIMIT / 2;
/// Most different filters that one caller reads at a time: each has a line of messages of its own, and there are
/// [`crate::feed::CHANNELS_LIMIT`] lines.
const FILTERS_LIMIT: usize = 64;
/// When a reader that found no place is to come again, in seconds.
const BUSY_S: i64 = 30;

/// A caller: a name may be a user's and a token's.
type Name = (Via, String);

/// The live feeds that there are, by caller and filter.
#[derive(Debug, Default)]
pub struct Feeds {
    open: Mutex<HashMap<Name, HashMap<Interest, usize>>>,
}

impl Feeds {
    /// A place for one more, until it is dropped.
    pub(super) fn enter(self: &Arc<Self>, who: &Who, interest: &Interest) -> Result<Place, Problem> {
        let name = (who.via, who.name.clone());
        let mut open = self.lock();
        if open.values().flat_map(HashMap::values).sum::<usize>() >= FEEDS_LIMIT {
            return Err(Problem::busy("all live feeds are taken: try again later", BUSY_S));
        }
        let own = open.entry(name.clone()).or_default();
        if own.values().sum::<usize>() >= CALLER_LIMIT {
            return Err(Problem::busy(format!("you read {CALLER_LIMIT} live feeds already"), BUSY_S));
        }
        if own.len() >= FILTERS_LIMIT && !own.contains_key(interest) {
            return Err(Problem::busy(format!("you read {FILTERS_LIMIT} different filters already"), BUSY_S));
        }
        *own.entry(interest.clone()).or_default() += 1;
        Ok(Place { feeds: Arc::clone(self), name, interest: interest.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, HashMap<Interest, usize>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One live feed's place.
#[derive(Debug)]
pub(super) struct Place {
    feeds: Arc<Feeds>,
    name: Name,
    interest: Interest,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.feeds.lock();
        let Some(own) = open.get_mut(&self.name) else { return };
        if let Some(count) = own.get_mut(&self.interest) {
            *count -= 1;
        }
        own.retain(|_, count| *count > 0);
        if own.is_empty() {
            open.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{Reach, Role};

    fn who(name: &str) -> Who {
        Who { name: name.to_owned(), role: Role::Viewer, reach: Reach::All, via: Via::Token, digest: [0; 32] }
    }

    fn of(branch: usize) -> Interest {
        Interest { branch: Some(format!("b{branch}").parse().expect("an id")), ..Interest::default() }
    }

    #[test]
    fn one_caller_locks_out_no_other() {
        let feeds = Arc::new(Feeds::default());
        let (greedy, other) = (who("greedy"), who("other"));
        let mut places: Vec<Place> = (0..FILTERS_LIMIT).map(|at| feeds.enter(&greedy, &of(at)).expect("there is room")).collect();
        assert!(feeds.enter(&greedy, &of(FILTERS_LIMIT)).is_err(), "each has a line of its own");
        while places.len() < CALLER_LIMIT {
            places.push(feeds.enter(&greedy, &of(0)).expect("the line is there"));
        }
        assert!(feeds.enter(&greedy, &of(0)).is_err());
        let mut others: Vec<Place> = Vec::new();
        while others.len() < FEEDS_LIMIT - CALLER_LIMIT {
            others.push(feeds.enter(&other, &Interest::default()).expect("there is room"));
        }
        assert!(feeds.enter(&who("third"), &of(0)).is_err(), "that is all");
        places.pop();
        assert!(feeds.enter(&who("third"), &of(0)).is_ok());
        drop((places, others));
        assert!(feeds.lock().is_empty(), "who is gone is forgotten");
    }
}

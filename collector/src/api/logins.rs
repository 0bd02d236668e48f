//! How often somebody may try to come in. Pure.
//!
//! Tries are counted when they begin, so that many at once are no way around it, and a good one is taken off again.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use shared::Millis;

/// The time in which tries count, in ms.
const WINDOW_MS: i64 = 5 * 60_000;
/// Tries for one name from one address, of one address, and for one name from everywhere.
const PAIR_LIMIT: usize = 10;
const ADDRESS_LIMIT: usize = 50;
const NAME_LIMIT: usize = 100;
/// Most counters that are kept; beyond it nobody new may try until some are over.
const COUNTERS_LIMIT: usize = 20_000;

/// How often counters that are over are looked for when there are too many, in ms.
const SWEEP_MS: i64 = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counter {
    Pair(String, IpAddr),
    Address(IpAddr),
    Name(String),
}

impl Counter {
    fn limit(&self) -> usize {
        match self {
            Self::Pair(..) => PAIR_LIMIT,
            Self::Address(_) => ADDRESS_LIMIT,
            Self::Name(_) => NAME_LIMIT,
        }
    }

    fn of(name: &str, address: IpAddr) -> [Self; 3] {
        let address = network(address);
        [Self::Pair(name.to_owned(), address), Self::Address(address), Self::Name(name.to_owned())]
    }
}

/// Whoever has one IPv6 address has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 => v4,
    }
}

/// Tries of the last minutes.
#[derive(Debug)]
pub(super) struct Logins {
    tries: HashMap<Counter, VecDeque<Millis>>,
    swept_at: Millis,
}

impl Default for Logins {
    fn default() -> Self {
        Self { tries: HashMap::new(), swept_at: Millis(i64::MIN / 2) }
    }
}

impl Logins {
    /// Counts a try, or says after how many ms there may be one.
    pub(super) fn begin(&mut self, name: &str, address: IpAddr, now: Millis) -> Result<(), i64> {
        let is_full = |tries: &HashMap<_, _>| tries.len() + 3 > COUNTERS_LIMIT;
        if is_full(&self.tries) && now.since(self.swept_at).abs() >= SWEEP_MS {
            self.swept_at = now;
            self.tries.retain(|_, tries| tries.back().is_some_and(|last| is_recent(*last, now)));
        }
        let counters = Counter::of(name, address);
        for counter in &counters {
            let Some(tries) = self.tries.get_mut(counter) else { continue };
            while tries.front().is_some_and(|first| !is_recent(*first, now)) {
                tries.pop_front();
            }
            if tries.len() >= counter.limit() {
                return Err(tries.front().map_or(WINDOW_MS, |first| WINDOW_MS - now.since(*first)).max(1_000));
            }
        }
        if is_full(&self.tries) {
            return Err(WINDOW_MS);
        }
        counters.into_iter().for_each(|counter| self.tries.entry(counter).or_default().push_back(now));
        Ok(())
    }

    /// A try was a good one.
    pub(super) fn succeeded(&mut self, name: &str, address: IpAddr) {
        for counter in Counter::of(name, address) {
            if matches!(counter, Counter::Pair(..)) {
                self.tries.remove(&counter);
            } else if let Some(tries) = self.tries.get_mut(&counter) {
                tries.pop_back();
            }
        }
    }
}

fn is_recent(at: Millis, now: Millis) -> bool {
    // A clock that was set back forgives.
    (0..WINDOW_MS).contains(&now.since(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn guessing_a_password_is_slowed_down_and_the_owner_elsewhere_is_not_kept_out() {
        let mut logins = Logins::default();
        for n in 0..PAIR_LIMIT {
            assert_eq!(logins.begin("nino", address(1), Millis(n as i64)), Ok(()), "{n}");
        }
        assert_eq!(logins.begin("nino", address(1), Millis(1_000)), Err(WINDOW_MS - 1_000));
        assert_eq!(logins.begin("nino", address(2), Millis(1_000)), Ok(()));
        assert_eq!(logins.begin("nino", address(1), Millis(WINDOW_MS)), Ok(()), "the first one is over");
    }

    #[test]
    fn one_address_can_not_try_all_names_nor_all_addresses_one() {
        let mut logins = Logins::default();
        let tried = (0..1_000).filter(|n| logins.begin(&format!("u{n}"), address(1), Millis(0)).is_ok()).count();
        assert_eq!(tried, ADDRESS_LIMIT);
        let mut logins = Logins::default();
        let tried = (0..200).filter(|n| logins.begin("nino", address(*n), Millis(0)).is_ok()).count();
        assert_eq!(tried, NAME_LIMIT);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let mut logins = Logins::default();
        let v6 = |n: u16| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, n));
        let tried = (0..100).filter(|n| logins.begin(&format!("u{n}"), v6(*n), Millis(0)).is_ok()).count();
        assert_eq!(tried, ADDRESS_LIMIT);
        assert_eq!(network("::ffff:10.0.0.1".parse().expect("an address")), address(1));
    }

    #[test]
    fn good_tries_don_t_count_and_memory_is_bounded() {
        let mut logins = Logins::default();
        for _ in 0..1_000 {
            assert!(logins.begin("wall", address(1), Millis(0)).is_ok());
            logins.succeeded("wall", address(1));
        }
        for n in 0..COUNTERS_LIMIT as u32 {
            let _ = logins.begin(&format!("u{n}"), IpAddr::V4(n.into()), Millis(0));
        }
        assert!(logins.tries.len() <= COUNTERS_LIMIT);
        assert!(logins.begin("new", address(9), Millis(0)).is_err());
        assert!(logins.begin("new", address(9), Millis(WINDOW_MS)).is_ok());
    }
}

//! How many delivery attempts run at once: in all, and to one receiver host.
//!
//! A receiver that hangs may hold its own places and no more, so the others' deliveries go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A delivery that finds no place at its host comes back after this at the earliest …
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// … and after this at the latest, give or take a half.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Each one turned away lengthens the pause by this factor, each one let in shortens it by the other: in
/// balance some ten are turned away for each let in, however many wait.
const LONGER: f64 = 1.02;
const SHORTER: f64 = 0.8;

/// The places.
pub struct DeliveryPermits {
    all: Arc<Semaphore>,
    per_host: usize,
    hosts: Hosts,
}

type Hosts = Arc<Mutex<HashMap<String, Host>>>;

struct Host {
    taken: usize,
    pause: Duration,
}

impl DeliveryPermits {
    pub(super) fn new(total: usize, per_host: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(total)), per_host, hosts: Arc::default() }
    }

    /// Waits for a place of the total.
    pub(super) async fn any_host(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.all).acquire_owned().await.expect("never closed")
    }

    /// A place of the total, if one is free now.
    pub(super) fn try_any_host(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).try_acquire_owned().ok()
    }

    /// A place at this host, if one is free now; else how long to stay away. All that wait for a receiver
    /// that hangs must not keep the store busy by asking over and over.
    pub(super) fn try_host(&self, host: &str) -> Result<HostPermit, Duration> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        // Hosts without attempts leave the map, so it never holds more than attempts in flight.
        let at = hosts.entry(host.to_owned()).or_insert(Host { taken: 0, pause: PAUSE_MIN });
        if at.taken >= self.per_host {
            at.pause = at.pause.mul_f64(LONGER).min(PAUSE_MAX);
            return Err(at.pause);
        }
        at.taken += 1;
        at.pause = at.pause.mul_f64(SHORTER).max(PAUSE_MIN);
        Ok(HostPermit { hosts: Arc::clone(&self.hosts), host: host.to_owned() })
    }
}

/// A place at one host, given back when dropped.
pub(super) struct HostPermit {
    hosts: Hosts,
    host: String,
}

impl Drop for HostPermit {
    fn drop(&mut self) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = hosts.get_mut(&self.host) {
            at.taken -= 1;
            if at.taken == 0 {
                hosts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    use super::*;

    #[test]
    fn a_host_that_holds_all_its_places_leaves_the_others_theirs() {
        let permits = DeliveryPermits::new(10, 2);
        let held = [permits.try_host("slow:443"), permits.try_host("slow:443")];
        assert!(held.iter().all(Result::is_ok));
        assert!(permits.try_host("slow:443").is_err());
        assert!(permits.try_host("quick:443").is_ok());
        drop(held);
        assert!(permits.try_host("slow:443").is_ok());
        assert!(permits.hosts.lock().unwrap().is_empty());
    }

    /// Lets `waiting` deliveries ask one host for `minutes`, each place held for 10 s. Counts, by minute,
    /// who was turned away and who was let in.
    fn ask(waiting: u64, minutes: u64) -> Vec<(u64, u64)> {
        const MINUTE: u64 = 60_000;
        let permits = DeliveryPermits::new(1_000, 64);
        let mut due: BinaryHeap<_> = (0..waiting).map(|number| Reverse((number % 500, number))).collect();
        let mut held = VecDeque::new();
        let mut minutes = vec![(0, 0); usize::try_from(minutes).unwrap()];
        while let Some(Reverse((now, number))) = due.pop() {
            let Some((turned_away, let_in)) = minutes.get_mut(usize::try_from(now / MINUTE).unwrap()) else {
                break;
            };
            while held.front().is_some_and(|(until, _)| *until <= now) {
                held.pop_front();
            }
            match permits.try_host("slow:443") {
                Ok(place) => {
                    held.push_back((now + 10_000, place));
                    *let_in += 1;
                }
                Err(pause) => {
                    *turned_away += 1;
                    // Spread as by chance: half to one and a half of the pause.
                    let chance = 500 + number * 7919 % 1_000;
                    due.push(Reverse((
                        now + u64::try_from(pause.as_millis()).unwrap() * chance / 1_000,
                        number,
                    )));
                }
            }
        }
        minutes
    }

    #[test]
    fn a_host_that_hangs_is_asked_for_little_more_than_it_takes_however_many_wait() {
        for waiting in [3_000, 30_000] {
            let (turned_away, let_in) = ask(waiting, 5)[4];
            assert!(let_in >= 64 * 3, "{waiting} wait: {let_in} let in");
            assert!(
                turned_away <= 30 * let_in.max(waiting / 15),
                "{waiting} wait: {turned_away} turned away"
            );
        }
    }
}

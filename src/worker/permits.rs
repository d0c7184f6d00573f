//! How many delivery attempts run at once: in all, and to one receiver host.
//!
//! A receiver that hangs may hold its own places and no more, so the others' deliveries go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places.
pub struct DeliveryPermits {
    all: Arc<Semaphore>,
    per_host: usize,
    hosts: Arc<Mutex<HashMap<String, usize>>>,
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

    /// A place at this host, if one is free now.
    pub(super) fn try_host(&self, host: &str) -> Option<HostPermit> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        // Hosts without attempts leave the map, so it never holds more than attempts in flight.
        let taken = hosts.entry(host.to_owned()).or_insert(0);
        if *taken >= self.per_host {
            return None;
        }
        *taken += 1;
        Some(HostPermit { hosts: Arc::clone(&self.hosts), host: host.to_owned() })
    }
}

/// A place at one host, given back when dropped.
pub(super) struct HostPermit {
    hosts: Arc<Mutex<HashMap<String, usize>>>,
    host: String,
}

impl Drop for HostPermit {
    fn drop(&mut self) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = hosts.get_mut(&self.host) {
            *taken -= 1;
            if *taken == 0 {
                hosts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_holds_all_its_places_leaves_the_others_theirs() {
        let permits = DeliveryPermits::new(10, 2);
        let held = [permits.try_host("slow:443"), permits.try_host("slow:443")];
        assert!(held.iter().all(Option::is_some));
        assert!(permits.try_host("slow:443").is_none());
        assert!(permits.try_host("quick:443").is_some());
        drop(held);
        assert!(permits.try_host("slow:443").is_some());
        assert!(permits.hosts.lock().unwrap().is_empty());
    }
}

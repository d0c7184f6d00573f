//! From a host name to addresses.
//!
//! Look-ups run on threads that cannot be interrupted, so a resolver that never answers would
//! collect them. Each holds one of few slots until it truly ends, also when nobody waits any more; and
//! few of those are one zone's, so that a name server that never answers stalls only its own names.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Origin, Unsent};
use crate::guard;

/// Look-ups at once: each is a thread, of which the runtime has 512.
const SLOTS: usize = 128;
/// … in one zone.
const ZONE_SLOTS: usize = 8;
const LIMIT: Duration = Duration::from_secs(5);

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// A resolver and its slots.
pub struct Names {
    lookup: Box<dyn Fn(String) -> Answer + Send + Sync>,
    slots: Arc<Semaphore>,
    /// Only zones that somebody looks up or waits for.
    zones: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Names {
    /// The machine's own resolver.
    #[must_use]
    pub fn system() -> Self {
        Self::by(|host| {
            Box::pin(async move {
                Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
            })
        })
    }

    pub(crate) fn by(lookup: impl Fn(String) -> Answer + Send + Sync + 'static) -> Self {
        Self { lookup: Box::new(lookup), slots: Arc::new(Semaphore::new(SLOTS)), zones: Mutex::default() }
    }

    fn zone(&self, host: &str) -> Arc<Semaphore> {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        // A look-up and who waits for one hold theirs.
        zones.retain(|_, slots| Arc::strong_count(slots) > 1);
        let slots = zones.entry(guard::zone(host)).or_insert_with(|| Arc::new(Semaphore::new(ZONE_SLOTS)));
        Arc::clone(slots)
    }

    /// The addresses of the origin, never none; a literal is its own answer.
    pub(super) async fn resolve(&self, origin: &Origin) -> Result<Vec<SocketAddr>, Unsent> {
        if let Some(literal) = origin.literal() {
            return Ok(vec![SocketAddr::new(literal, origin.port())]);
        }
        let looking_up = async {
            // The zone's first: who waits there holds nothing that others wait for.
            let zone_slot = self.zone(origin.host()).acquire_owned().await.ok()?;
            let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
            let answer = (self.lookup)(origin.host().to_owned());
            let task = tokio::spawn(async move {
                let _slots = (zone_slot, slot);
                answer.await
            });
            task.await.ok()?.ok().filter(|addresses: &Vec<IpAddr>| !addresses.is_empty())
        };
        let found = tokio::time::timeout(LIMIT, looking_up).await.ok().flatten().ok_or(Unsent::Resolve)?;
        Ok(found.into_iter().map(|address| SocketAddr::new(address, origin.port())).collect())
    }
}

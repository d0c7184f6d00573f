//! From a host name to addresses.
//!
//! Look-ups run on threads that cannot be interrupted, so a resolver that never answers would
//! collect them. Each holds one of few slots until it truly ends, also when nobody waits any more.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Origin, Unsent};

const SLOTS: usize = 32;
const LIMIT: Duration = Duration::from_secs(5);

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// A resolver and its slots.
pub(super) struct Names {
    lookup: Box<dyn Fn(String) -> Answer + Send + Sync>,
    slots: Arc<Semaphore>,
}

impl Names {
    /// The machine's own resolver.
    pub(super) fn system() -> Self {
        Self::by(|host| {
            Box::pin(async move {
                Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
            })
        })
    }

    pub(super) fn by(lookup: impl Fn(String) -> Answer + Send + Sync + 'static) -> Self {
        Self { lookup: Box::new(lookup), slots: Arc::new(Semaphore::new(SLOTS)) }
    }

    /// The addresses of the origin, never none; a literal is its own answer.
    pub(super) async fn resolve(&self, origin: &Origin) -> Result<Vec<SocketAddr>, Unsent> {
        if let Some(literal) = origin.literal() {
            return Ok(vec![SocketAddr::new(literal, origin.port())]);
        }
        let looking_up = async {
            let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
            let answer = (self.lookup)(origin.host().to_owned());
            let task = tokio::spawn(async move {
                let _slot = slot;
                answer.await
            });
            task.await.ok()?.ok().filter(|addresses: &Vec<IpAddr>| !addresses.is_empty())
        };
        let found = tokio::time::timeout(LIMIT, looking_up).await.ok().flatten().ok_or(Unsent::Resolve)?;
        Ok(found.into_iter().map(|address| SocketAddr::new(address, origin.port())).collect())
    }
}

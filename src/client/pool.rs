//! Idle connections, newest first, and the task that drives each connection.
//!
//! A connection is in exactly one place: lent to a caller, with its driver until the response body
//! was read, or idle here. The map holds no origin without a living connection, and idle
//! connections are bounded for each origin and in all: hosts named by strangers cannot grow it.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::stream::Stream;
use super::{Body, Origin, Unsent};

/// Common servers hang up after five idle seconds; a connection near that age may be closing.
const MAX_AGE: Duration = Duration::from_secs(4);
const MAX_IDLE_PER_ORIGIN: usize = 512;
const MAX_IDLE: usize = 1024;
/// Response headers, all lines together; also the largest piece of a body read at once.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Why a request has no response.
pub(super) enum Lost {
    /// The connection had ended before the request was begun.
    HandedBack(Box<Request<Body>>),
    MaybeSent,
}

/// A connection that is free for one request.
pub(super) struct Link {
    id: u64,
    sender: SendRequest<Body>,
    /// To the connection's driver, which parks the link once the response was read.
    home: Home,
    pooled: bool,
}

impl Link {
    /// Whether the connection had been idle, so that a new one may fare better.
    pub(super) fn was_pooled(&self) -> bool {
        self.pooled
    }

    #[cfg(test)]
    pub(super) fn pooled(self, pooled: bool) -> Self {
        Self { pooled, ..self }
    }

    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) async fn send(
        mut self,
        request: Request<Body>,
        pool: &Pool,
        origin: &Origin,
    ) -> Result<Response<Incoming>, Lost> {
        match self.sender.try_send_request(request).await {
            Ok(response) => {
                if self.sender.is_ready() {
                    pool.park(origin, self);
                } else {
                    let home = self.home.clone();
                    home.take_back(self);
                }
                Ok(response)
            }
            Err(mut error) => Err(error
                .take_message()
                .map_or(Lost::MaybeSent, |request| Lost::HandedBack(Box::new(request)))),
        }
    }
}

/// The way of a link back to its connection's driver.
#[derive(Clone)]
struct Home {
    links: mpsc::Sender<Link>,
    /// The driver looks only then: it runs several times a response, and few links come back this way.
    is_used: Arc<AtomicBool>,
}

/// The driver's end of a [`Home`].
struct Returned {
    links: mpsc::Receiver<Link>,
    is_used: Arc<AtomicBool>,
    /// Looked at since the last link came, so that the next one wakes the driver.
    is_watched: bool,
}

fn home() -> (Home, Returned) {
    let (links, receiver) = mpsc::channel(1);
    let is_used = Arc::new(AtomicBool::new(false));
    let home = Home { links, is_used: Arc::clone(&is_used) };
    (home, Returned { links: receiver, is_used, is_watched: false })
}

impl Returned {
    /// The link, where it came back.
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Link> {
        if self.is_watched && !self.is_used.load(Ordering::Acquire) {
            return None;
        }
        // Nothing yet, or nobody holds the link any more: nothing will come.
        let Poll::Ready(link) = self.links.poll_recv(cx) else {
            self.is_watched = true;
            return None;
        };
        self.is_watched = false;
        self.is_used.store(false, Ordering::Release);
        link
    }
}

impl Home {
    fn take_back(&self, link: Link) {
        self.is_used.store(true, Ordering::Release);
        // Refused only when the connection has ended; then the link is of no use.
        let _ = self.links.try_send(link);
    }
}

struct Idle {
    link: Link,
    since: Instant,
}

#[derive(Default)]
struct Shelf {
    /// Oldest first.
    idle: HashMap<Origin, Vec<Idle>>,
    count: usize,
}

pub(super) struct Pool {
    shelf: Mutex<Shelf>,
    next_id: AtomicU64,
    max_age: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Self::aging(MAX_AGE)
    }
}

impl Pool {
    pub(super) fn aging(max_age: Duration) -> Self {
        Self { shelf: Mutex::default(), next_id: AtomicU64::default(), max_age }
    }

    /// The connection that was idle for the shortest time.
    pub(super) fn take(&self, origin: &Origin, now: Instant) -> Option<Link> {
        let mut parked = self.lock();
        loop {
            let idle = parked.idle.get_mut(origin)?.pop()?;
            parked.count -= 1;
            // The drivers of older ones drop them soon.
            if idle.since + self.max_age <= now {
                return None;
            }
            if idle.link.sender.is_ready() {
                return Some(Link { pooled: true, ..idle.link });
            }
        }
    }

    fn park(&self, origin: &Origin, link: Link) {
        let mut parked = self.lock();
        let surplus = parked.make_room(origin);
        let idle = Idle { link, since: Instant::now() };
        if let Some(list) = parked.idle.get_mut(origin) {
            list.push(idle);
        } else {
            parked.idle.insert(origin.clone(), vec![idle]);
        }
        parked.count += 1;
        drop(parked);
        drop(surplus);
    }

    /// Drops the connection where it has been idle too long; else when to look again.
    fn expire(&self, origin: &Origin, id: u64, now: Instant) -> Option<Instant> {
        let mut parked = self.lock();
        let since = parked.idle.get(origin)?.iter().find(|idle| idle.link.id == id)?.since;
        if since + self.max_age > now {
            return Some(since + self.max_age);
        }
        let expired = parked.remove(origin, id);
        drop(parked);
        drop(expired);
        None
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.lock().count
    }

    #[cfg(test)]
    pub(super) fn origins(&self) -> usize {
        self.lock().idle.len()
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// Takes out the connection that must go before another may come, if any.
    fn make_room(&mut self, origin: &Origin) -> Option<Idle> {
        let crowded = self.idle.get(origin).is_some_and(|list| list.len() >= MAX_IDLE_PER_ORIGIN);
        let victim = if crowded {
            origin.clone()
        } else if self.count >= MAX_IDLE {
            // Whose does not matter; a host gains nothing by having many names.
            self.idle.iter().find(|(_, list)| !list.is_empty())?.0.clone()
        } else {
            return None;
        };
        let oldest = self.idle.get(&victim)?.first()?.link.id;
        self.remove(&victim, oldest)
    }

    fn remove(&mut self, origin: &Origin, id: u64) -> Option<Idle> {
        let list = self.idle.get_mut(origin)?;
        let removed = list.iter().position(|idle| idle.link.id == id).map(|at| list.remove(at));
        self.count -= usize::from(removed.is_some());
        if list.is_empty() {
            self.idle.remove(origin);
        }
        removed
    }
}

/// Begins to speak HTTP on `stream` and spawns the connection's driver.
pub(super) async fn open(stream: Stream, origin: &Origin, pool: &Arc<Pool>) -> Result<Link, Unsent> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEADER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Unsent::Closed)?;
    let (home, returned) = home();
    let id = pool.next_id.fetch_add(1, Ordering::Relaxed);
    let registered = Registered { pool: Arc::clone(pool), origin: origin.clone(), id };
    tokio::spawn(drive(connection.with_upgrades(), returned, registered));
    Ok(Link { id, sender, home, pooled: false })
}

/// A living connection; forgotten by the pool when its driver ends, however it ends.
struct Registered {
    pool: Arc<Pool>,
    origin: Origin,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let gone = self.pool.lock().remove(&self.origin, self.id);
        drop(gone);
    }
}

/// Runs the connection to its end. Parks its link whenever a response was read to the end, and
/// takes it off the shelf once it has been idle too long, which closes the connection.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    mut returned: Returned,
    registered: Registered,
) {
    let mut connection = pin!(connection);
    // One look in a while instead of a timer reset on each use.
    let mut look = pin!(sleep(registered.pool.max_age));
    let mut reading: Option<Link> = None;
    poll_fn(|cx| {
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            if reading.is_none() {
                reading = returned.poll(cx);
            }
            let Some(link) = &mut reading else { break };
            match link.sender.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    if let Some(link) = reading.take() {
                        registered.pool.park(&registered.origin, link);
                    }
                }
                Poll::Ready(Err(_)) => reading = None,
                Poll::Pending => break,
            }
        }
        while look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let next = registered.pool.expire(&registered.origin, registered.id, now);
            look.as_mut().reset(next.unwrap_or(now + registered.pool.max_age));
        }
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link whose connection nobody drives.
    async fn link(pool: &Pool) -> Link {
        let (near, _far) = tokio::io::duplex(1);
        let (sender, _connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
        let (home, _) = home();
        Link { id: pool.next_id.fetch_add(1, Ordering::Relaxed), sender, home, pooled: false }
    }

    #[tokio::test]
    async fn one_origin_keeps_a_bounded_number_of_idle_connections() {
        let (pool, origin) = (Pool::default(), Origin::new(false, "one.test", 80));
        for _ in 0..MAX_IDLE_PER_ORIGIN + 3 {
            pool.park(&origin, link(&pool).await);
        }
        assert_eq!(pool.idle(), MAX_IDLE_PER_ORIGIN);
        let oldest = pool.lock().idle[&origin][0].link.id;
        assert_eq!(oldest, 3, "the oldest give way");
    }

    #[tokio::test]
    async fn many_origins_together_keep_a_bounded_number_of_idle_connections() {
        let pool = Pool::default();
        for number in 0..MAX_IDLE + 50 {
            let origin = Origin::new(false, &format!("{number}.test"), 80);
            pool.park(&origin, link(&pool).await);
        }
        assert_eq!(pool.idle(), MAX_IDLE);
        assert_eq!(pool.origins(), MAX_IDLE);
    }

    #[tokio::test]
    async fn a_connection_expires_by_how_long_it_was_idle() {
        let (pool, origin) = (Pool::default(), Origin::new(false, "one.test", 80));
        let link = link(&pool).await;
        let id = link.id;
        let before = Instant::now();
        pool.park(&origin, link);
        let next = pool.expire(&origin, id, before + MAX_AGE - Duration::from_millis(1));
        assert!(next.is_some_and(|next| next >= before + MAX_AGE));
        assert_eq!(pool.idle(), 1);
        assert_eq!(pool.expire(&origin, id, Instant::now() + MAX_AGE), None);
        assert_eq!((pool.idle(), pool.origins()), (0, 0));
    }
}

//! Connections: one that is lent drives itself inside the call that uses it, the idle ones rest here.
//!
//! A connection is in exactly one place: lent to a call, then with the body of its answer until that was
//! read, or idle. Whoever waits for it polls it, so no other task has to be woken for each step of an
//! exchange; only where a request may still be on its way after its answer, a task of its own takes over.
//! Idle connections are bounded for each origin, in all, and in age: hosts named by strangers cannot grow
//! them.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until};

use super::received::Received;
use super::stream::Stream;
use super::{Body, Origin, Unsent, has_two_readings};

/// Common servers hang up after five idle seconds; a connection near that age may be closing.
const MAX_AGE: Duration = Duration::from_secs(4);
/// Aged connections are looked for no more often than this.
const LOOK: Duration = Duration::from_millis(250);
const MAX_IDLE_PER_ORIGIN: usize = 512;
const MAX_IDLE: usize = 1024;
/// Response headers, all lines together; also the largest piece of a body read at once.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// The rest of a body no longer than this fits into the buffers of its sockets: whoever reads the answer can send it.
const SHORT_BODY: u64 = 64 * 1024;

/// Why a request has no response.
pub(super) enum Lost {
    /// The connection had ended before the request was begun.
    HandedBack(Box<Request<Body>>),
    MaybeSent,
}

/// The protocol on one connection, which goes on only while it is polled.
struct Protocol(Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>);

impl Protocol {
    /// Goes on as far as it can; says whether the connection has ended.
    fn go_on(&mut self, cx: &mut Context<'_>) -> bool {
        if self.0.as_mut().is_some_and(|protocol| protocol.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
        self.0.is_none()
    }
}

/// A connection that is free for one request.
pub(super) struct Link {
    protocol: Protocol,
    sender: SendRequest<Body>,
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
    pub(super) fn is_closed(&mut self) -> bool {
        self.protocol.go_on(&mut Context::from_waker(std::task::Waker::noop()))
    }

    /// Whether the connection was open when it was last looked at, and carries nothing.
    fn is_free(&self) -> bool {
        self.protocol.0.is_some() && self.sender.is_ready()
    }

    pub(super) async fn send(
        self,
        request: Request<Body>,
        pool: &Arc<Pool>,
        origin: &Origin,
    ) -> Result<Response<Received>, Lost> {
        let Self { mut protocol, mut sender, .. } = self;
        let is_short = request.body().size_hint().exact().is_some_and(|bytes| bytes <= SHORT_BODY);
        let mut answer = pin!(sender.try_send_request(request));
        let answered = poll_fn(|cx| {
            // A protocol that has ended has answered.
            protocol.go_on(cx);
            answer.as_mut().poll(cx)
        });
        let response = answered.await.map_err(|mut error| {
            let back = error.take_message();
            back.map_or(Lost::MaybeSent, |request| Lost::HandedBack(Box::new(request)))
        })?;
        // Its connection ends here, so nothing after it is anybody's answer.
        if has_two_readings(response.headers()) {
            return Err(Lost::MaybeSent);
        }
        let link = Self { protocol, sender, pooled: true };
        let lent = Lent { link, pool: Arc::clone(pool), origin: origin.clone() };
        let (head, body) = response.into_parts();
        let mut received = Received::new(body);
        if head.status == StatusCode::SWITCHING_PROTOCOLS || !is_short {
            // A tunnel is handed over by its protocol; the rest of a request must not wait for whoever reads
            // the answer.
            tokio::spawn(lent.go_home());
        } else {
            received.comes_over(lent);
        }
        Ok(Response::from_parts(head, received))
    }
}

/// A link whose answer somebody is still reading.
pub(super) struct Lent {
    link: Link,
    pool: Arc<Pool>,
    origin: Origin,
}

impl Lent {
    /// Goes on as far as it can; says whether the connection has ended.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) -> bool {
        self.link.protocol.go_on(cx)
    }

    /// The answer was read: the connection is idle, at its end, or still has a part of the request to send.
    pub(super) fn give_back(self) {
        // Most exchanges are over with the last of the answer. Who waited for it may be woken once more by what
        // the peer does next, which costs less than turning each connection a last time.
        if self.link.is_free() {
            self.pool.park(&self.origin, self.link);
        } else {
            tokio::spawn(self.go_home());
        }
    }

    /// Drives the connection until it is idle or at its end.
    async fn go_home(mut self) {
        let Link { protocol, sender, .. } = &mut self.link;
        let is_free = poll_fn(|cx| {
            if protocol.go_on(cx) {
                return Poll::Ready(false);
            }
            sender.poll_ready(cx).map(|ready| ready.is_ok())
        });
        if is_free.await {
            self.pool.park(&self.origin, self.link);
        }
    }
}

struct Idle {
    link: Link,
    since: Instant,
}

#[derive(Default)]
struct Shelf {
    /// Oldest first; no origin without a connection.
    idle: HashMap<Origin, VecDeque<Idle>>,
    count: usize,
    /// Somebody looks for aged connections.
    is_watched: bool,
}

pub(super) struct Pool {
    shelf: Mutex<Shelf>,
    max_age: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Self::aging(MAX_AGE)
    }
}

impl Pool {
    pub(super) fn aging(max_age: Duration) -> Self {
        Self { shelf: Mutex::default(), max_age }
    }

    /// The connection that was idle for the shortest time. Its peer may have closed it: where that is noticed, a
    /// request it is given comes back untouched.
    pub(super) fn take(&self, origin: &Origin, now: Instant) -> Option<Link> {
        let Idle { link, since } = self.lock().take_newest(origin)?;
        // Those behind it are older still, and are dropped soon.
        (since + self.max_age > now).then_some(link)
    }

    fn park(self: &Arc<Self>, origin: &Origin, link: Link) {
        let mut parked = self.lock();
        let surplus = parked.make_room(origin);
        let idle = Idle { link, since: Instant::now() };
        if let Some(list) = parked.idle.get_mut(origin) {
            list.push_back(idle);
        } else {
            parked.idle.insert(origin.clone(), VecDeque::from([idle]));
        }
        parked.count += 1;
        let is_watched = std::mem::replace(&mut parked.is_watched, true);
        drop(parked);
        drop(surplus);
        if !is_watched {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    /// Drops what has been idle too long, and says when to look again; `None` when nothing is idle.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut parked = self.lock();
        let aged = parked.take_aged(now, self.max_age);
        let oldest = parked.idle.values().filter_map(VecDeque::front).map(|idle| idle.since).min();
        parked.is_watched = oldest.is_some();
        drop(parked);
        drop(aged);
        oldest.map(|since| (since + self.max_age).max(now + LOOK.min(self.max_age)))
    }

    /// So many, less those whose peer has closed them.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        let mut parked = self.lock();
        for list in parked.idle.values_mut() {
            list.retain_mut(|idle| !idle.link.is_closed());
        }
        parked.idle.retain(|_, list| !list.is_empty());
        parked.count = parked.idle.values().map(VecDeque::len).sum();
        parked.count
    }

    #[cfg(test)]
    pub(super) fn origins(&self) -> usize {
        self.lock().idle.len()
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes idle connections that nobody asks for; ends with the last of them.
async fn watch(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.expire(Instant::now())) {
        sleep_until(next).await;
    }
}

impl Shelf {
    /// Takes out the connection that must go before another may come, if any.
    fn make_room(&mut self, origin: &Origin) -> Option<Idle> {
        let is_crowded = self.idle.get(origin).is_some_and(|list| list.len() >= MAX_IDLE_PER_ORIGIN);
        let victim = if is_crowded {
            origin.clone()
        } else if self.count >= MAX_IDLE {
            // Whose does not matter; a host gains nothing by having many names.
            self.idle.keys().next()?.clone()
        } else {
            return None;
        };
        self.take(&victim, VecDeque::pop_front)
    }

    fn take_newest(&mut self, origin: &Origin) -> Option<Idle> {
        self.take(origin, VecDeque::pop_back)
    }

    fn take(
        &mut self,
        origin: &Origin,
        which: impl FnOnce(&mut VecDeque<Idle>) -> Option<Idle>,
    ) -> Option<Idle> {
        let list = self.idle.get_mut(origin)?;
        let taken = which(list);
        self.count -= usize::from(taken.is_some());
        if list.is_empty() {
            self.idle.remove(origin);
        }
        taken
    }

    fn take_aged(&mut self, now: Instant, max_age: Duration) -> Vec<Idle> {
        let mut aged = Vec::new();
        for list in self.idle.values_mut() {
            let count = list.partition_point(|idle| idle.since + max_age <= now);
            aged.extend(list.drain(..count));
        }
        self.idle.retain(|_, list| !list.is_empty());
        self.count -= aged.len();
        aged
    }
}

/// Begins to speak HTTP on `stream`.
pub(super) async fn open(stream: Stream) -> Result<Link, Unsent> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEADER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Unsent::Closed)?;
    let protocol = Protocol(Some(Box::pin(connection.with_upgrades())));
    Ok(Link { protocol, sender, pooled: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link whose peer is silent.
    async fn link() -> Link {
        let (near, far) = tokio::io::duplex(1);
        tokio::spawn(async move {
            let _open = far;
            std::future::pending::<()>().await;
        });
        let (sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
        let protocol = Protocol(Some(Box::pin(connection)));
        Link { protocol, sender, pooled: false }
    }

    fn pool() -> Arc<Pool> {
        Arc::default()
    }

    #[tokio::test]
    async fn one_origin_keeps_a_bounded_number_of_idle_connections() {
        let (pool, origin) = (pool(), Origin::new(false, "one.test", 80));
        let mut since = Vec::new();
        for _ in 0..MAX_IDLE_PER_ORIGIN + 3 {
            pool.park(&origin, link().await);
            since.push(pool.lock().idle[&origin].back().unwrap().since);
        }
        assert_eq!(pool.idle(), MAX_IDLE_PER_ORIGIN);
        assert_eq!(pool.lock().idle[&origin].front().unwrap().since, since[3], "the oldest give way");
    }

    #[tokio::test]
    async fn many_origins_together_keep_a_bounded_number_of_idle_connections() {
        let pool = pool();
        for number in 0..MAX_IDLE + 50 {
            let origin = Origin::new(false, &format!("{number}.test"), 80);
            pool.park(&origin, link().await);
        }
        assert_eq!(pool.idle(), MAX_IDLE);
        assert_eq!(pool.origins(), MAX_IDLE);
    }

    #[tokio::test]
    async fn a_connection_expires_by_how_long_it_was_idle() {
        let (pool, origin) = (pool(), Origin::new(false, "one.test", 80));
        let before = Instant::now();
        pool.park(&origin, link().await);
        let next = pool.expire(before + MAX_AGE - Duration::from_millis(1));
        assert!(next.is_some_and(|next| next >= before + MAX_AGE));
        assert_eq!(pool.idle(), 1);
        assert_eq!(pool.expire(Instant::now() + MAX_AGE), None);
        assert_eq!((pool.idle(), pool.origins()), (0, 0));
    }
}

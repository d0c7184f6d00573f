//! How long to wait for an answer, counted from the last sign that the request is still flowing.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::{Body, BoxError};

/// A limit on a wait that a watched body prolongs: each piece of it that the connection takes
/// starts the time anew, so that a long upload is not mistaken for a slow answer.
pub struct Patience {
    limit: Option<Duration>,
    /// However much progress there is.
    latest: Option<Instant>,
    start: Instant,
    /// Milliseconds from `start` to the last piece.
    progress: Option<Arc<AtomicU64>>,
}

impl Patience {
    #[must_use]
    pub fn endless() -> Self {
        Self { limit: None, latest: None, start: Instant::now(), progress: None }
    }

    /// The time runs from now.
    #[must_use]
    pub fn of(limit: Duration) -> Self {
        Self { limit: Some(limit), ..Self::endless() }
    }

    /// Also ends at `latest`.
    #[must_use]
    pub fn until(self, latest: Instant) -> Self {
        Self { latest: Some(latest), ..self }
    }

    /// The same body; its pieces prolong the wait. An empty body costs nothing.
    #[must_use]
    pub fn watch(&mut self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let progress = self.progress.get_or_insert_default();
        Watched { body, start: self.start, progress: Arc::clone(progress) }.boxed_unsync()
    }

    /// The future's output, or `None` once the time is over.
    pub(super) async fn bound<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            let Some(end) = self.end() else { return Some(future.await) };
            if let Ok(output) = timeout_at(end, future.as_mut()).await {
                return Some(output);
            }
            if self.end() <= Some(end) {
                return None;
            }
        }
    }

    /// `None`: never.
    fn end(&self) -> Option<Instant> {
        let progress = self.progress.as_ref().map_or(0, |millis| millis.load(Ordering::Relaxed));
        let limit = self.limit.map(|limit| limit.saturating_add(Duration::from_millis(progress)));
        let limited = limit.and_then(|limit| self.start.checked_add(limit));
        limited.into_iter().chain(self.latest).min()
    }
}

struct Watched {
    body: Body,
    start: Instant,
    progress: Arc<AtomicU64>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.store(millis, Ordering::Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::scripted::fed_body;
    use crate::client::{empty_body, full_body};

    #[tokio::test]
    async fn each_piece_of_a_watched_body_prolongs_the_wait() {
        let mut patience = Patience::of(Duration::from_hours(1));
        let (feed, body) = fed_body();
        let mut body = patience.watch(body);
        let end = patience.end();
        while patience.start.elapsed() < Duration::from_millis(2) {
            tokio::task::yield_now().await;
        }
        feed.send(Bytes::from_static(b"piece")).await.unwrap();
        assert_eq!(patience.end(), end, "a piece counts once it is taken");
        body.frame().await.unwrap().unwrap();
        assert!(patience.end() > end);
    }

    #[tokio::test]
    async fn nothing_prolongs_the_wait_beyond_its_latest_end() {
        let latest = Instant::now();
        let mut patience = Patience::of(Duration::from_hours(1)).until(latest);
        patience.watch(full_body(Bytes::from_static(b"body"))).collect().await.unwrap();
        assert_eq!(patience.end(), Some(latest));
        assert!(patience.bound(std::future::pending::<()>()).await.is_none());
    }

    #[test]
    fn an_empty_body_is_not_watched() {
        let mut patience = Patience::of(Duration::from_secs(1));
        let _ = patience.watch(empty_body());
        assert!(patience.progress.is_none());
    }
}

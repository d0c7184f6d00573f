//! How the calls of one HTTP/2 connection fare: whether any is in progress, and whether its client takes
//! the answers.
//!
//! Flow control lets a client hold back an answer without holding back the connection, so the socket tells
//! nothing. The library asks for the next piece of an answer when there was room for the one before: an
//! answer that nobody asks for waits for its client. Only an answer's last piece may wait unseen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// One connection's calls.
#[derive(Default)]
pub(super) struct Streams {
    /// How often a call has begun or ended.
    changes: AtomicU64,
    in_progress: AtomicUsize,
    /// Answers that wait for the client.
    held_back: AtomicUsize,
    /// How often the client took something.
    taken: AtomicU64,
}

/// One call in progress.
pub(super) struct Stream {
    streams: Arc<Streams>,
    is_held_back: AtomicBool,
}

impl Streams {
    pub(super) fn begin(self: &Arc<Self>) -> Stream {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        Stream { streams: Arc::clone(self), is_held_back: AtomicBool::new(false) }
    }

    /// Waits until no call has begun or been in progress for a whole `pause`.
    pub(super) async fn until_idle(&self, pause: Duration) {
        let mut before = self.changes.load(Ordering::Relaxed);
        loop {
            sleep(pause).await;
            let now = self.changes.load(Ordering::Relaxed);
            if now == before && self.in_progress.load(Ordering::Relaxed) == 0 {
                return;
            }
            before = now;
        }
    }

    /// Waits until the connection was idle, and is idle still after it had a `pause` to end by itself: last
    /// pieces of answers wait in the library for a client that will not have them.
    pub(super) async fn until_abandoned(&self, idle: Duration, pause: Duration) {
        self.until_idle(idle).await;
        sleep(pause).await;
        self.until_idle(idle).await;
    }

    /// Waits until answers have waited for the client for a whole `pause` and it took nothing of any.
    pub(super) async fn until_stalled(&self, pause: Duration) {
        let mut before = None;
        loop {
            sleep(pause).await;
            let now = self.taken_while_held_back();
            if now.is_some() && now == before {
                return;
            }
            before = now;
        }
    }

    /// `None` while no answer waits for the client.
    fn taken_while_held_back(&self) -> Option<u64> {
        let is_waiting = self.held_back.load(Ordering::Relaxed) > 0;
        is_waiting.then(|| self.taken.load(Ordering::Relaxed))
    }
}

impl Stream {
    /// The library has a piece of the answer, and has not asked for the next.
    pub(super) fn hold_back(&self) {
        if !self.is_held_back.swap(true, Ordering::Relaxed) {
            self.streams.held_back.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It asks: the client had room for the piece.
    pub(super) fn take(&self) {
        if self.is_held_back.swap(false, Ordering::Relaxed) {
            self.streams.held_back.fetch_sub(1, Ordering::Relaxed);
            self.streams.taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.take();
        self.streams.changes.fetch_add(1, Ordering::Relaxed);
        self.streams.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_something_of_any_answer_is_not_stalled() {
        let streams = Arc::new(Streams::default());
        assert_eq!(streams.taken_while_held_back(), None);
        let (slow, stuck) = (streams.begin(), streams.begin());
        stuck.hold_back();
        slow.hold_back();
        let before = streams.taken_while_held_back();
        assert_eq!(streams.taken_while_held_back(), before);
        slow.take();
        slow.hold_back();
        assert!(before.is_some() && streams.taken_while_held_back() > before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_a_whole_pause_after_its_last_call_and_not_before() {
        let streams = Arc::new(Streams::default());
        let began = tokio::time::Instant::now();
        let call = streams.begin();
        let pause = Duration::from_secs(10);
        let ending = async {
            // Just before somebody looks.
            sleep(Duration::from_secs(29)).await;
            drop(call);
        };
        tokio::join!(streams.until_idle(pause), ending);
        assert_eq!(began.elapsed(), Duration::from_secs(40));
        streams.until_idle(pause).await;
        assert_eq!(began.elapsed(), Duration::from_secs(50), "who never calls is idle at once");
    }

    #[test]
    fn a_client_for_which_nothing_is_there_is_not_stalled() {
        let streams = Arc::new(Streams::default());
        let waits_for_the_upstream = streams.begin();
        waits_for_the_upstream.hold_back();
        waits_for_the_upstream.take();
        assert_eq!(streams.taken_while_held_back(), None);
        waits_for_the_upstream.hold_back();
        drop(waits_for_the_upstream);
        assert_eq!(streams.taken_while_held_back(), None);
        assert_eq!(streams.in_progress.load(Ordering::Relaxed), 0);
    }
}

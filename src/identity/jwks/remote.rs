//! One issuer's keys behind a URL: does what [`super::policy`] decides.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Uri;
use tokio::sync::watch;

use super::policy::{Limits, Step, View, is_over};
use super::{Fetch, FetchError, Lookup, MAX_JWKS_BYTES, answer};
use crate::clock::Timestamp;
use crate::identity::keys::{Choice, KeySet, Wanted};

/// Lives as long as the fetch it announces: that is over when the sending half is gone, however it
/// ended, so that nobody waits for a fetch that is no more.
type Flight = watch::Receiver<()>;

/// Why a fetch is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Refresh,
    /// For a key that is not in a set that is young enough.
    Search,
}

pub struct Remote {
    upstream: String,
    uri: Uri,
    fetch: Fetch,
    limits: Limits,
    state: Mutex<State>,
    /// Copies of what is in `state`, so that a known token takes no lock here.
    generation: AtomicU64,
    fetched_at: AtomicI64,
}

#[derive(Default)]
struct State {
    keys: Option<KeySet>,
    fetched_at: Option<Timestamp>,
    flight: Option<Flight>,
    failed_at: Option<Timestamp>,
    searched_at: Option<Timestamp>,
    /// Whether the failure has been logged.
    failing: bool,
}

impl State {
    fn view(&self) -> View {
        View {
            fetched_at: self.fetched_at,
            fetching: self.flight.as_ref().is_some_and(|flight| flight.has_changed().is_ok()),
            failed_at: self.failed_at,
            searched_at: self.searched_at,
        }
    }

    fn choose(&self, wanted: Wanted<'_>) -> Choice<'_> {
        self.keys.as_ref().map_or(Choice::Absent, |keys| keys.choose(wanted))
    }
}

impl Remote {
    pub fn new(upstream: &str, uri: Uri, fetch: Fetch, limits: Limits) -> Self {
        Self {
            upstream: upstream.to_owned(),
            uri,
            fetch,
            limits,
            state: Mutex::default(),
            generation: AtomicU64::new(0),
            fetched_at: AtomicI64::new(i64::MIN),
        }
    }

    pub fn trusted_generation(self: &Arc<Self>, wall: Timestamp) -> Option<u64> {
        let fetched_at = Timestamp(self.fetched_at.load(Ordering::Acquire));
        if is_over(fetched_at, self.limits.max_age, wall) {
            let mut state = self.lock();
            match state.view().decide(true, &self.limits, wall) {
                Step::Use => {}
                Step::UseAndRefresh => drop(self.launch(&mut state, Purpose::Refresh, wall)),
                Step::Fetch | Step::Wait | Step::Unavailable => return None,
            }
        }
        Some(self.generation.load(Ordering::Acquire))
    }

    pub async fn find(self: &Arc<Self>, wanted: Wanted<'_>, wall: Timestamp) -> Lookup {
        let mut flight = match self.first_look(wanted, wall) {
            Ok(lookup) => return lookup,
            Err(flight) => flight,
        };
        // Nothing is ever sent: the error is the news that the fetch is over.
        while flight.changed().await.is_ok() {}
        let state = self.lock();
        let choice = state.choose(wanted);
        let present = !matches!(choice, Choice::Absent);
        match state.view().decide_after_wait(present, &self.limits, wall) {
            Step::Use => answer(choice, self.generation.load(Ordering::Acquire)),
            _ => Lookup::Unavailable,
        }
    }

    /// The answer without a wait, or the fetch to wait for.
    fn first_look(self: &Arc<Self>, wanted: Wanted<'_>, wall: Timestamp) -> Result<Lookup, Flight> {
        let mut state = self.lock();
        let view = state.view();
        let choice = state.choose(wanted);
        let present = !matches!(choice, Choice::Absent);
        let generation = self.generation.load(Ordering::Acquire);
        match view.decide(present, &self.limits, wall) {
            Step::Use => Ok(answer(choice, generation)),
            Step::UseAndRefresh => {
                let lookup = answer(choice, generation);
                self.launch(&mut state, Purpose::Refresh, wall);
                Ok(lookup)
            }
            Step::Fetch => {
                let searching = view.is_usable(&self.limits, wall);
                let purpose = if searching { Purpose::Search } else { Purpose::Refresh };
                Err(self.launch(&mut state, purpose, wall))
            }
            Step::Wait => state.flight.clone().map_or(Ok(Lookup::Unavailable), Err),
            Step::Unavailable => Ok(Lookup::Unavailable),
        }
    }

    /// Starts a fetch of its own, so that a caller who goes away takes it from nobody else.
    fn launch(self: &Arc<Self>, state: &mut State, purpose: Purpose, wall: Timestamp) -> Flight {
        let (over, flight) = watch::channel(());
        state.flight = Some(flight.clone());
        let remote = Arc::clone(self);
        tokio::spawn(async move {
            // A panic counts as a failure, so that it too is followed by a pause.
            let keys = AssertUnwindSafe(remote.get()).catch_unwind().await;
            let keys = keys.unwrap_or(Err(FetchError::Unreachable));
            remote.land(keys, purpose, wall);
            drop(over);
        });
        flight
    }

    async fn get(&self) -> Result<KeySet, FetchError> {
        let fetch = (self.fetch)(self.uri.clone(), MAX_JWKS_BYTES);
        let body = tokio::time::timeout(self.limits.fetch_timeout, fetch).await;
        KeySet::read(&body.unwrap_or(Err(FetchError::TimedOut))?)
    }

    fn land(&self, keys: Result<KeySet, FetchError>, purpose: Purpose, began: Timestamp) {
        let mut state = self.lock();
        match keys {
            Ok(keys) => {
                self.adopt(&mut state, keys, began);
                if purpose == Purpose::Search {
                    state.searched_at = Some(began);
                }
                state.failed_at = None;
                if std::mem::take(&mut state.failing) {
                    tracing::info!(upstream = self.upstream, "the JWK set is within reach again");
                }
            }
            Err(error) => {
                // The pause begins when the failure is known, and only a time-out takes long.
                let slow = error == FetchError::TimedOut;
                let took = if slow { self.limits.fetch_timeout } else { Duration::ZERO };
                state.failed_at = Some(began.after(took));
                if !std::mem::replace(&mut state.failing, true) {
                    tracing::warn!(upstream = self.upstream, %error, "the JWK set cannot be got");
                }
            }
        }
    }

    fn adopt(&self, state: &mut State, keys: KeySet, began: Timestamp) {
        if state.keys.as_ref().is_none_or(|old| !old.is_same(&keys)) {
            self.generation.fetch_add(1, Ordering::Release);
            state.keys = Some(keys);
        }
        state.fetched_at = Some(began);
        self.fetched_at.store(began.0, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn a_fetch_that_never_ends_is_given_up() {
        let fetches = Arc::new(AtomicUsize::new(0));
        let fetch: Fetch = {
            let fetches = Arc::clone(&fetches);
            Arc::new(move |_, _| {
                fetches.fetch_add(1, Ordering::SeqCst);
                std::future::pending().boxed()
            })
        };
        let limits = Limits { fetch_timeout: Duration::from_millis(10), ..Limits::default() };
        let uri = Uri::from_static("http://127.0.0.1/jwks");
        let remote = Arc::new(Remote::new("bank", uri, fetch, limits));
        let wanted = Wanted { kid: Some("k"), algorithm: jsonwebtoken::Algorithm::EdDSA };
        for _ in 0..2 {
            assert!(matches!(remote.find(wanted, Timestamp(0)).await, Lookup::Unavailable));
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }
}

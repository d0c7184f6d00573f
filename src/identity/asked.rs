//! Tokens that somebody else vouches for: the issuer (RFC 7662) or the upstream itself.
//!
//! An answer is believed for `max_cache` and never beyond the token's end; a bad one for seconds. At
//! most one question about a token is on its way, and all who need it wait for the same one. What
//! holds always: without an answer nobody is let in, and nobody is told that the token is bad.

mod question;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::{Semaphore, watch};

use super::claims::{Fault, MAX_TOKEN_BYTES};
use super::jwks::{FetchError, MAX_JWKS_BYTES};
use super::known::{CAPACITY, KnownTokens, TokenHash};
use super::{Caller, Rejection};
use crate::clock::Timestamp;

pub use question::{Judged, Question};

/// Sends a request, follows no redirect, and returns the answer with at most so many bytes of body,
/// else [`FetchError::TooLarge`]. Its time limit is kept by the caller.
pub type Exchange = Arc<
    dyn Fn(Request<Bytes>, usize) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> + Send + Sync,
>;

/// Longest time a bad answer is believed. Short: a token can become good, and a mistake be mended.
const MAX_BAD: Duration = Duration::from_secs(5);

/// Questions on their way at once, an upstream.
const AT_ONCE: usize = 64;

/// Tokens waited for at once, an upstream; more are refused for now. Bounds what a flood of made-up
/// tokens can hold.
const MAX_FLIGHTS: usize = 2_048;

type Verdict = Result<Caller, Rejection>;

/// Empty until the answer is there; the sender goes away with the question, however that ends.
type Flight = watch::Receiver<Option<Verdict>>;

/// How long one question may take and its answer be believed.
#[derive(Clone, Copy)]
pub struct Limits {
    pub timeout: Duration,
    pub max_cache: Duration,
}

/// Who is asked about the tokens of one upstream, and what they said.
pub struct Asked {
    upstream: String,
    question: Question,
    exchange: Exchange,
    limits: Limits,
    good: KnownTokens<Caller>,
    /// Apart from the good ones, so that a flood of bad tokens pushes none of them out.
    bad: KnownTokens<Fault>,
    flights: Mutex<HashMap<TokenHash, Flight>>,
    slots: Semaphore,
    /// Whether the failure has been logged.
    failing: AtomicBool,
}

impl Asked {
    pub fn new(upstream: &str, question: Question, exchange: Exchange, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            upstream: upstream.to_owned(),
            question,
            exchange,
            limits,
            good: KnownTokens::new(CAPACITY),
            bad: KnownTokens::new(CAPACITY),
            flights: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
            failing: AtomicBool::new(false),
        })
    }

    /// Whose token it is. Without a wait for a token asked about before.
    pub async fn identify(self: &Arc<Self>, token: &[u8], wall: Timestamp) -> Verdict {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Fault::TooLong.into());
        }
        let hash = TokenHash::of(token);
        let mut flight = match self.known(&hash, wall) {
            Some(verdict) => return verdict,
            None => match self.board(hash, token, wall) {
                Ok(flight) => flight,
                Err(verdict) => return verdict,
            },
        };
        match flight.wait_for(Option::is_some).await {
            Ok(verdict) => verdict.clone().unwrap_or(Err(Rejection::Unavailable)),
            Err(_) => Err(Rejection::Unavailable),
        }
    }

    fn known(&self, hash: &TokenHash, wall: Timestamp) -> Option<Verdict> {
        let good = self.good.get(hash, 0, wall).map(Ok);
        good.or_else(|| self.bad.get(hash, 0, wall).map(|fault| Err(fault.into())))
    }

    /// The question about this token that is on its way, else a new one; or the verdict at once.
    fn board(self: &Arc<Self>, hash: TokenHash, token: &[u8], wall: Timestamp) -> Result<Flight, Verdict> {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&hash) {
            return Ok(flight.clone());
        }
        // It may have landed since the caller looked.
        if let Some(verdict) = self.known(&hash, wall) {
            return Err(verdict);
        }
        if flights.len() >= MAX_FLIGHTS {
            return Err(Err(Rejection::Unavailable));
        }
        let (landed, flight) = watch::channel(None);
        flights.insert(hash, flight.clone());
        drop(flights);
        let (this, request) = (Arc::clone(self), self.question.ask(token));
        // A task of its own: a caller who goes away takes the answer from nobody else.
        tokio::spawn(async move {
            let asking = AssertUnwindSafe(this.ask(request)).catch_unwind().await;
            let verdict = this.land(hash, &asking.unwrap_or(Err(FetchError::Unreachable)), wall);
            this.flights().remove(&hash);
            let _ = landed.send(Some(verdict));
        });
        Ok(flight)
    }

    async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        let asking = async {
            let _slot = self.slots.acquire().await.map_err(|_| FetchError::Unreachable)?;
            (self.exchange)(request, MAX_JWKS_BYTES).await
        };
        tokio::time::timeout(self.limits.timeout, asking).await.unwrap_or(Err(FetchError::TimedOut))
    }

    fn land(
        &self,
        hash: TokenHash,
        answer: &Result<Response<Bytes>, FetchError>,
        began: Timestamp,
    ) -> Verdict {
        let judged = match answer {
            Ok(answer) => self.question.judge(answer.status(), answer.body(), began),
            Err(error) => Judged::Useless(error.to_string()),
        };
        if !matches!(judged, Judged::Useless(_)) && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(upstream = self.upstream, "the identity service answers again");
        }
        let limit = began.after(self.limits.max_cache);
        match judged {
            Judged::Good(caller) => {
                let end = caller.expires_at.map_or(limit, |ends| ends.min(limit));
                self.good.insert(hash, 0, caller.clone(), began..end);
                Ok(caller)
            }
            Judged::Bad(fault) => {
                self.bad.insert(hash, 0, fault, began..limit.min(began.after(MAX_BAD)));
                Err(fault.into())
            }
            Judged::Useless(why) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(upstream = self.upstream, why, "the identity service is of no help");
                }
                Err(Rejection::Unavailable)
            }
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<TokenHash, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

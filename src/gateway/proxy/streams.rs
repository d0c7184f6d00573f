//! The two bodies of a proxied call, a piece at a time.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use crate::client::{BoxError, Received};
use crate::gateway::hop;

/// Why a body of a proxied call ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Cut {
    #[error("the body is larger than is accepted")]
    TooLarge,
    #[error("the next piece of the body took too long")]
    Idle,
}

/// What the client's side of a call is doing, told to whoever waits for the answer.
#[derive(Default)]
pub(super) struct ClientSide(AtomicU8);

impl ClientSide {
    const FLOWING: u8 = 0;
    const AWAITED: u8 = 1;
    const BROKEN: u8 = 2;
    const TOO_LARGE: u8 = 3;

    /// The upstream waits for the client's next piece.
    pub(super) fn is_awaited(&self) -> bool {
        self.is(Self::AWAITED)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is(Self::BROKEN)
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.is(Self::TOO_LARGE)
    }

    fn is(&self, state: u8) -> bool {
        self.0.load(Ordering::Relaxed) == state
    }

    fn becomes(&self, state: u8) {
        self.0.store(state, Ordering::Relaxed);
    }
}

/// The request body on its way upstream.
pub(super) struct ClientBody {
    incoming: Incoming,
    /// `None`: as many as come.
    left: Option<u64>,
    side: Arc<ClientSide>,
}

impl ClientBody {
    pub(super) fn new(incoming: Incoming, max_bytes: u64, side: Arc<ClientSide>) -> Self {
        Self { incoming, left: (max_bytes > 0).then_some(max_bytes), side }
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BoxError> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(length).ok_or_else(|| {
                self.side.becomes(ClientSide::TOO_LARGE);
                Cut::TooLarge
            })?;
        }
        Ok(frame)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            self.side.becomes(ClientSide::AWAITED);
            return Poll::Pending;
        };
        self.side.becomes(ClientSide::FLOWING);
        Poll::Ready(match frame {
            None => None,
            Some(Ok(frame)) => Some(self.count(without_forbidden_trailers(frame))),
            Some(Err(error)) => {
                self.side.becomes(ClientSide::BROKEN);
                Some(Err(error.into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The response body on its way to the client.
pub(super) struct UpstreamBody {
    received: Received,
    idle_timeout: Duration,
    /// Runs only while the upstream is waited for: a client that reads slowly costs it no time.
    pause: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl UpstreamBody {
    pub(super) fn new(received: Received, idle_timeout: Duration) -> Self {
        Self { received, idle_timeout, pause: None, waiting: false }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle_timeout = self.idle_timeout;
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(idle_timeout)));
        if !self.waiting {
            self.waiting = true;
            pause.as_mut().reset(Instant::now() + idle_timeout);
        }
        pause.as_mut().poll(cx)
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.received).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.waiting = false;
                Poll::Ready(frame.map(|frame| frame.map(without_forbidden_trailers).map_err(Into::into)))
            }
            Poll::Pending => self.poll_pause(cx).map(|()| Some(Err(Cut::Idle.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}

fn without_forbidden_trailers(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        hop::strip_trailers(trailers);
    }
    frame
}

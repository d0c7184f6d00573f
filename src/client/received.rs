//! The body of an answer, and the connection it comes over.
//!
//! Reading the body is what drives the connection. It is given back once the body was read to its end;
//! dropping the body earlier closes it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::Lent;

/// The body of an answer.
pub struct Received {
    incoming: Incoming,
    /// `None` where nothing more comes over it, or somebody else drives it.
    lent: Option<Box<Lent>>,
    /// How it broke off, not told yet.
    broken: Option<hyper::Error>,
}

impl Received {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { incoming, lent: None, broken: None }
    }

    /// From now on whoever reads this drives the connection; an empty body is read already.
    pub(super) fn comes_over(&mut self, lent: Lent) {
        self.lent = Some(Box::new(lent));
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
    }
}

/// Nothing of what it holds.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").finish_non_exhaustive()
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut frame = Pin::new(&mut self.incoming).poll_frame(cx);
        if frame.is_pending()
            && let Some(lent) = &mut self.lent
        {
            if lent.go_on(cx) {
                self.lent = None;
            }
            frame = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        match frame {
            Poll::Ready(Some(Err(error))) => {
                self.lent = None;
                // Told in the next turn: whoever passes the body on drops what it has not sent when it hears of
                // an error, and what came before it may have come in this turn.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // After trailers there is nothing, and not everybody asks again to hear so.
            Poll::Ready(Some(Ok(ref frame))) if !frame.is_trailers() && !self.incoming.is_end_stream() => {}
            Poll::Ready(_) => self.give_back(),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

//! An answer's body under the eyes of its connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::client::BoxError;
use crate::gateway::framing::Wire;
use crate::gateway::{GatewayBody, InProgress};

pub(super) struct Attended {
    body: GatewayBody,
    /// Reset when the body breaks off.
    reset: Option<Arc<Wire>>,
    /// Held for as long as the call is in progress.
    _in_progress: Option<Arc<AtomicU64>>,
    /// Given back with the last byte.
    _place: Option<InProgress>,
}

impl Attended {
    pub(super) fn new(
        body: GatewayBody,
        reset: Option<Arc<Wire>>,
        in_progress: Option<Arc<AtomicU64>>,
        place: Option<InProgress>,
    ) -> Self {
        Self { body, reset, _in_progress: in_progress, _place: place }
    }
}

impl Body for Attended {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Err(_))), Some(wire)) = (&frame, &self.reset) {
            wire.reset();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

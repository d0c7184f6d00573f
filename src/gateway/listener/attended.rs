//! An answer's body under the eyes of its connection.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::streams::Stream;
use crate::client::BoxError;
use crate::gateway::framing::Wire;
use crate::gateway::{GatewayBody, InProgress};

/// Over HTTP/2 the library may hold one whole piece for a client that has no room for it.
const MAX_PIECE: usize = 16 * 1024;

pub(super) struct Attended {
    body: GatewayBody,
    /// Of a piece that was too large.
    rest: Bytes,
    /// Reset when the body breaks off.
    reset: Option<Arc<Wire>>,
    /// Held for as long as the call is in progress.
    stream: Option<Stream>,
    /// Given back with the last byte.
    _place: Option<InProgress>,
}

impl Attended {
    pub(super) fn new(
        body: GatewayBody,
        reset: Option<Arc<Wire>>,
        stream: Option<Stream>,
        place: Option<InProgress>,
    ) -> Self {
        if let Some(stream) = stream.as_ref().filter(|_| !body.is_end_stream()) {
            stream.hold_back();
        }
        Self { body, rest: Bytes::new(), reset, stream, _place: place }
    }

    /// A piece of data that is small enough, and the rest of it kept.
    fn cut(&mut self, mut data: Bytes) -> Frame<Bytes> {
        if self.stream.is_some() && data.len() > MAX_PIECE {
            self.rest = data.split_off(MAX_PIECE);
        }
        Frame::data(data)
    }
}

impl Body for Attended {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(stream) = &self.stream {
            stream.take();
        }
        let frame = if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    if let Some(wire) = &self.reset {
                        wire.reset();
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(None),
            }
        } else {
            Frame::data(mem::take(&mut self.rest))
        };
        let frame = match frame.into_data() {
            Ok(data) => self.cut(data),
            Err(trailers) => trailers,
        };
        if let Some(stream) = &self.stream {
            stream.hold_back();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    /// Asked for before the first piece.
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

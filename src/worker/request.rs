//! A stored request opened again, and its body as a stream that is never whole in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};

use super::{Outside, Workshop};
use crate::client::{Body, BoxError, full_body};
use crate::guard::Receiver;
use crate::header_block;
use crate::id::{Seq, TaskId};
use crate::seal::{Column, KeyRing, Opener, Place, Sealed};
use crate::secret::Secret;
use crate::store::{Carried, ChunkKind, Store, StoreError, StoredRequest, StoredTask, TaskFacts};
use crate::task::Safety;

/// Why a stored value cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not open, or is not what was sealed. Trying again does not help.
    #[error("a stored value cannot be opened")]
    Unreadable,
}

/// A request ready to be sent.
pub(super) struct Opened {
    pub carried: Carried,
    /// Chunks of the body, the first included.
    pub chunks: u32,
}

/// The request of a task; `None` when the task is final.
pub(super) async fn load(workshop: &Workshop<impl Outside>, seq: Seq) -> Result<Option<Opened>, LoadError> {
    let Some(stored) = workshop.store.request(seq).await? else { return Ok(None) };
    open(workshop, stored).map(Some)
}

/// The same of a request that was read already.
pub(super) fn open(workshop: &Workshop<impl Outside>, stored: StoredRequest) -> Result<Opened, LoadError> {
    let ring = &workshop.ring;
    let mut opener = ring.opener(stored.task.id);
    let task = open_task(&mut opener, stored.task)?;
    let headers = opener
        .open(Column::RequestHeaders, Place::WHOLE, stored.headers)
        .ok()
        .and_then(|block| header_block::read(&block))
        .ok_or(LoadError::Unreadable)?;
    let body = match stored.body {
        None => Bytes::new(),
        Some(first) => opener
            .open(Column::RequestBody, Place::chunk(0, stored.chunks <= 1), first)
            .map_err(|_| LoadError::Unreadable)?
            .into(),
    };
    Ok(Opened { carried: Carried { task, headers, body, key: None }, chunks: stored.chunks })
}

/// The facts of a task.
pub(super) fn open_task(opener: &mut Opener<'_>, stored: StoredTask) -> Result<TaskFacts, LoadError> {
    let mut open_text = |column, sealed: Option<Sealed>| {
        sealed
            .map(|sealed| {
                opener
                    .open(column, Place::WHOLE, sealed)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .ok_or(LoadError::Unreadable)
            })
            .transpose()
    };
    let query = open_text(Column::RequestQuery, stored.query)?;
    let receiver = open_text(Column::WebhookUri, stored.webhook_uri)?.map(Secret::new).map(Receiver::Stored);
    Ok(TaskFacts {
        id: stored.id,
        credentials_id: stored.credentials_id.into(),
        method: Method::from_bytes(stored.method.as_bytes()).map_err(|_| LoadError::Unreadable)?,
        path: stored.path,
        query,
        receiver,
        accepted_at: stored.accepted_at,
    })
}

/// The body to send: at once if it is one chunk, else read chunk by chunk as the upstream takes it.
pub(super) fn body(
    workshop: &Workshop<impl Outside>,
    seq: Seq,
    id: TaskId,
    first: Bytes,
    chunks: u32,
) -> Body {
    if chunks <= 1 {
        return full_body(first);
    }
    let source = Source { store: workshop.store.clone(), ring: workshop.ring.clone(), seq, id, chunks };
    let frames = stream::unfold((source, 0, Some(first)), |(source, index, first)| async move {
        if index == source.chunks {
            return None;
        }
        let piece = match first {
            Some(first) => Ok(first),
            None => source.chunk(index).await,
        };
        Some((piece.map(Frame::data), (source, index + 1, None)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The body, and of an unsafe call how many of its bytes the connection has taken so far.
pub(super) fn counted(body: Body, safety: Safety) -> (Body, Option<Arc<AtomicU64>>) {
    if safety == Safety::Repeatable {
        return (body, None);
    }
    let count = Arc::new(AtomicU64::new(0));
    (Counted { body, count: Arc::clone(&count) }.boxed_unsync(), Some(count))
}

struct Counted {
    body: Body,
    count: Arc<AtomicU64>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.count.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Source {
    store: Store,
    ring: KeyRing,
    seq: Seq,
    id: TaskId,
    chunks: u32,
}

impl Source {
    async fn chunk(&self, index: u32) -> Result<Bytes, BoxError> {
        let sealed =
            self.store.chunk(self.seq, ChunkKind::RequestBody, index).await?.ok_or(LoadError::Unreadable)?;
        let place = Place::chunk(index, index + 1 == self.chunks);
        Ok(self.ring.open(self.id, Column::RequestBody, place, sealed)?.into())
    }
}

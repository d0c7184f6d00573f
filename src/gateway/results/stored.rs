//! The bytes of a stored result as a body: the whole or slices of it, opened chunk by chunk as the
//! reader takes them, never more than one chunk in memory.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::client::{BoxError, full_body};
use crate::gateway::refusal::Refusal;
use crate::gateway::{Gateway, GatewayBody};
use crate::header_block;
use crate::id::TaskId;
use crate::seal::{CHUNK_BYTES, Column, KeyRing, Place, Sealed};
use crate::store::{ChunkKind, Store};

/// Bytes of ours, or bytes of the result.
pub enum Piece {
    Text(Bytes),
    Slice(Range<u64>),
}

/// The bytes of one result. Its first chunk is open, so that a key that is missing is noticed before an
/// answer begins.
pub struct ResultBody {
    store: Store,
    ring: KeyRing,
    id: TaskId,
    first: Bytes,
    chunks: u32,
    pub length: u64,
}

/// The header section of the upstream's answer.
///
/// # Errors
/// It does not open.
pub fn headers(gateway: &Gateway, id: TaskId, sealed: Option<Sealed>) -> Result<HeaderMap, Refusal> {
    let Some(sealed) = sealed else { return Ok(HeaderMap::new()) };
    let block =
        gateway.ring.open(id, Column::ResultHeaders, Place::WHOLE, sealed).map_err(|_| unreadable(id))?;
    Ok(header_block::read(&block).unwrap_or_default())
}

fn unreadable(id: TaskId) -> Refusal {
    tracing::error!(task = %id, "a result cannot be opened");
    Refusal::Internal
}

impl ResultBody {
    /// `first` is the first of `chunks` chunks, together of `length` bytes.
    ///
    /// # Errors
    /// The first chunk does not open.
    pub fn open(
        gateway: &Gateway,
        id: TaskId,
        first: Option<Sealed>,
        chunks: u32,
        length: u64,
    ) -> Result<Self, Refusal> {
        let place = Place::chunk(0, chunks <= 1);
        let first = first.map(|sealed| gateway.ring.open(id, Column::ResultBody, place, sealed));
        let first = first.transpose().map_err(|_| unreadable(id))?.unwrap_or_default().into();
        Ok(Self { store: gateway.store.clone(), ring: gateway.ring.clone(), id, first, chunks, length })
    }

    /// All of it.
    pub fn whole(self) -> GatewayBody {
        let whole = 0..self.length;
        self.body([Piece::Slice(whole)])
    }

    /// These pieces, one after the other. Slices lie within the length.
    pub fn body(self, pieces: impl Into<VecDeque<Piece>>) -> GatewayBody {
        let pieces = pieces.into();
        // What is there already needs no stream, and tells its length.
        if let (Some(Piece::Slice(slice)), 1, 0..=1) = (pieces.front(), pieces.len(), self.chunks)
            && let Ok(bytes) = self.cut(&self.first, 0, slice)
        {
            return full_body(bytes);
        }
        StreamBody::new(self.stream(pieces).map(|piece| piece.map(Frame::data))).boxed_unsync()
    }

    /// All of it, for decoding.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
        let whole = 0..self.length;
        self.stream(VecDeque::from([Piece::Slice(whole)]))
    }

    /// An error cuts the answer off: a reader must never take a part for the whole.
    fn stream(self, pieces: VecDeque<Piece>) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
        stream::try_unfold((self, pieces), |(stored, mut pieces)| async move {
            let bytes = match pieces.pop_front() {
                None => return Ok(None),
                Some(Piece::Text(text)) => text,
                Some(Piece::Slice(slice)) if slice.is_empty() => Bytes::new(),
                Some(Piece::Slice(slice)) => {
                    let bytes = stored.start_of(&slice).await?;
                    let rest = slice.start + bytes.len() as u64..slice.end;
                    if !rest.is_empty() {
                        pieces.push_front(Piece::Slice(rest));
                    }
                    bytes
                }
            };
            Ok(Some((bytes, (stored, pieces))))
        })
    }

    /// As much of a slice as its first chunk has.
    async fn start_of(&self, slice: &Range<u64>) -> Result<Bytes, BoxError> {
        let index = u32::try_from(slice.start / CHUNK_BYTES as u64)?;
        if index == 0 {
            return self.cut(&self.first, 0, slice);
        }
        let sealed = self.store.chunk(self.id.seq(), ChunkKind::Result, index).await?;
        let sealed = sealed.ok_or("the result was removed while it was read")?;
        let place = Place::chunk(index, index + 1 == self.chunks);
        let chunk = self.ring.open(self.id, Column::ResultBody, place, sealed)?.into();
        self.cut(&chunk, index, slice)
    }

    /// What of a slice is in a chunk; never nothing, unless the slice is.
    fn cut(&self, chunk: &Bytes, index: u32, slice: &Range<u64>) -> Result<Bytes, BoxError> {
        let base = u64::from(index) * CHUNK_BYTES as u64;
        let end = slice.end.min(base + chunk.len() as u64);
        if end > self.length || end < slice.start || (end == slice.start && !slice.is_empty()) {
            return Err("the stored chunks are shorter than the result".into());
        }
        Ok(chunk.slice(usize::try_from(slice.start - base)?..usize::try_from(end - base)?))
    }
}

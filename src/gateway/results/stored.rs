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
            && let Ok(bytes) = Self::cut(&self.first, 0, slice)
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
            return Self::cut(&self.first, 0, slice);
        }
        let sealed = self.store.chunk(self.id.seq(), ChunkKind::Result, index).await?;
        let sealed = sealed.ok_or("the result was removed while it was read")?;
        let place = Place::chunk(index, index + 1 == self.chunks);
        let chunk = self.ring.open(self.id, Column::ResultBody, place, sealed)?.into();
        Self::cut(&chunk, index, slice)
    }

    fn cut(chunk: &Bytes, index: u32, slice: &Range<u64>) -> Result<Bytes, BoxError> {
        let within = within_chunk(index, chunk.len(), slice);
        within
            .map(|within| chunk.slice(within))
            .ok_or_else(|| "the stored chunks are shorter than the result".into())
    }
}

/// Where in chunk `index` a slice begins, and how far it goes there. `None` where the chunk has nothing of
/// a slice that wants something: going on would never end.
fn within_chunk(index: u32, length: usize, slice: &Range<u64>) -> Option<Range<usize>> {
    let base = u64::from(index) * CHUNK_BYTES as u64;
    let start = usize::try_from(slice.start.checked_sub(base)?).ok()?;
    let end = usize::try_from(slice.end.checked_sub(base)?).ok()?.min(length);
    (start < end || slice.is_empty() && start <= length).then(|| start..end.max(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_chunks_of_a_slice_are_the_slice(length in 1u64..2_000_000, start: prop::sample::Index, end: prop::sample::Index) {
            let (one, other) = (start.index(2_000_001) as u64 % length, end.index(2_000_001) as u64 % length);
            let slice = one.min(other)..one.max(other) + 1;
            let mut rest = slice.clone();
            while !rest.is_empty() {
                let index = u32::try_from(rest.start / CHUNK_BYTES as u64).unwrap();
                let base = u64::from(index) * CHUNK_BYTES as u64;
                let chunk = usize::try_from((length - base).min(CHUNK_BYTES as u64)).unwrap();
                let within = within_chunk(index, chunk, &rest).unwrap();
                prop_assert_eq!(base + within.start as u64, rest.start);
                prop_assert!(within.end <= chunk && !within.is_empty());
                rest.start = base + within.end as u64;
            }
            prop_assert_eq!(rest.start, slice.end);
        }
    }

    #[test]
    fn a_chunk_that_is_too_short_is_noticed() {
        assert_eq!(within_chunk(0, 5, &(2..9)), Some(2..5));
        assert_eq!(within_chunk(0, 5, &(5..9)), None);
        assert_eq!(within_chunk(1, 5, &(0..9)), None);
        assert_eq!(within_chunk(0, 0, &(0..0)), Some(0..0));
    }
}

//! An upstream's answer taken in: sealed chunk by chunk, never whole in memory beyond one chunk.

use bytes::{Bytes, BytesMut};
use http::header;

use super::{Bench, Outside, Workshop, insist};
use crate::header_block;
use crate::outcome::{Exchange, NoAnswer, UpstreamsError};
use crate::seal::{CHUNK_BYTES, Column, Place, Sealed, TaskKey};
use crate::store::{ReadyTask, Settled};
use crate::upstream::{Answer, Arriving};

/// A taken-in answer, sealed.
pub(super) struct Taken {
    pub exchange: Exchange,
    pub headers: Sealed,
    pub body: Option<Sealed>,
    pub chunks: u32,
    pub staged: u32,
    pub length: u64,
    pub error: Option<UpstreamsError>,
}

/// How taking in an answer ended early.
pub(super) enum Broken {
    NoAnswer(NoAnswer),
    /// The lease is gone; so is every reason to go on.
    Lost,
}

/// Reads the answer to its end.
pub(super) async fn take(
    workshop: &Workshop<impl Outside>,
    bench: &Bench,
    task: &ReadyTask,
    key: &TaskKey,
    mut answer: Answer<impl Arriving>,
) -> Result<Taken, Broken> {
    let status = answer.status.as_u16();
    let mut taken = Taken {
        exchange: Exchange::Answered { status, retry_after: answer.retry_after },
        headers: key.seal(Column::ResultHeaders, Place::WHOLE, &header_block::write(&answer.headers)),
        body: None,
        chunks: 0,
        staged: 0,
        length: 0,
        error: None,
    };
    let mut pending = BytesMut::new();
    while let Some(piece) = answer.chunk().await.map_err(Broken::NoAnswer)? {
        taken.length += piece.len() as u64;
        if taken.length > bench.max_result_bytes {
            return Ok(too_large(taken, status));
        }
        pending.extend_from_slice(&piece);
        // More than a chunk: the first of it is certainly not the last one.
        while pending.len() > CHUNK_BYTES {
            let chunk = pending.split_to(CHUNK_BYTES).freeze();
            keep(workshop, task, key, &mut taken, &chunk, false).await?;
        }
    }
    let last = pending.freeze();
    if !answer.status.is_success() && taken.chunks == 0 {
        let plain = !answer.headers.contains_key(header::CONTENT_ENCODING);
        taken.error = plain.then(|| UpstreamsError::read(&last)).flatten();
    }
    if !last.is_empty() {
        keep(workshop, task, key, &mut taken, &last, true).await?;
    }
    Ok(taken)
}

/// Seals a chunk: the first stays for the result's row, later ones are staged.
async fn keep(
    workshop: &Workshop<impl Outside>,
    task: &ReadyTask,
    key: &TaskKey,
    taken: &mut Taken,
    chunk: &Bytes,
    last: bool,
) -> Result<(), Broken> {
    let index = taken.chunks;
    let sealed = key.seal(Column::ResultBody, Place::chunk(index, last), chunk);
    taken.chunks += 1;
    if index == 0 {
        taken.body = Some(sealed);
        return Ok(());
    }
    taken.staged += 1;
    let store = &workshop.store;
    match insist(|| store.stage_result_chunk(task.seq, task.lease, index, sealed.clone())).await {
        Settled::Done(_) => Ok(()),
        Settled::Lost => Err(Broken::Lost),
    }
}

fn too_large(taken: Taken, status: u16) -> Taken {
    Taken { exchange: Exchange::TooLarge { status }, body: None, chunks: 0, length: 0, ..taken }
}

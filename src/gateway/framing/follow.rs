//! Where each message on an HTTP/1.1 connection ends: a pure state machine over the bytes.
//!
//! Invariant: no byte goes on before it is known to which message it belongs. Bodies of known
//! length are counted, not looked at. What cannot be followed ends the connection.

use memchr::memchr;

use super::head::{self, Body};
use crate::gateway::refusal::{Form, Refusal};

/// Chunk extensions are read by nobody; a line longer than this is an attack.
const MAX_CHUNK_LINE: usize = 1024;
/// Method, version and the spaces between them.
const AROUND_TARGET: usize = 64;

/// The largest head.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the request target.
    pub target: usize,
    /// Bytes of all header lines, and of all trailer lines.
    pub headers: usize,
}

impl Limits {
    /// Bytes of the largest head that is not refused.
    #[must_use]
    pub fn head(self) -> usize {
        self.request_line().saturating_add(self.headers)
    }

    fn request_line(self) -> usize {
        self.target.saturating_add(AROUND_TARGET)
    }
}

/// What to do with the bytes that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many of them are a whole head; they may go on.
    Head(usize),
    /// So many of them belong to the body of the last head.
    Body(usize),
    /// So many of them mean nothing (RFC 9112, 2.2: empty lines before a request line).
    Drop(usize),
    /// They do not decide anything yet.
    More,
    /// Nothing goes on until it is known whether the connection is still HTTP: see
    /// [`Follower::resume`] and [`Follower::tunnel`].
    Hold,
    /// The next head is to be answered so, in the form it asks for; nothing after it is read.
    Refuse(Refusal, Form),
    /// The body cannot be followed; nothing more is read.
    Break,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Content(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    /// With the bytes that trailer lines may still take.
    Trailers(usize),
    Held,
    Tunnel,
    Ended,
}

/// The state of one direction of one connection.
#[derive(Debug)]
pub struct Follower {
    limits: Limits,
    phase: Phase,
    /// The last head asked for an upgrade.
    upgrade: bool,
    /// Bytes of an unfinished head that were searched already.
    searched: usize,
    /// Where its current line starts.
    line: usize,
    /// The bytes of its request line, once that is whole.
    request_line: usize,
}

impl Follower {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, phase: Phase::Head, upgrade: false, searched: 0, line: 0, request_line: 0 }
    }

    /// Nothing is to be followed: not HTTP/1.1.
    #[must_use]
    pub fn opaque(limits: Limits) -> Self {
        Self { phase: Phase::Tunnel, ..Self::new(limits) }
    }

    /// Between two messages, or where there are none.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Head | Phase::Tunnel) && self.searched == 0
    }

    /// After [`Step::Hold`]: the call was answered, the next message follows.
    pub fn resume(&mut self) {
        self.phase = Phase::Head;
    }

    /// After [`Step::Hold`]: the rest is not HTTP.
    pub fn tunnel(&mut self) {
        self.phase = Phase::Tunnel;
    }

    /// Judges the bytes that have not gone on yet. The caller does what the answer says with the
    /// first of them, then asks again with the rest.
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        match self.phase {
            Phase::Head => self.head(bytes),
            Phase::Content(_) | Phase::ChunkData(_) | Phase::Tunnel if bytes.is_empty() => Step::More,
            Phase::Content(left) => {
                let count = at_most(bytes.len(), left);
                self.content(left - count as u64);
                Step::Body(count)
            }
            Phase::ChunkData(left) => {
                let count = at_most(bytes.len(), left);
                let left = left - count as u64;
                self.phase = if left > 0 { Phase::ChunkData(left) } else { Phase::ChunkEnd };
                Step::Body(count)
            }
            Phase::Tunnel => Step::Body(bytes.len()),
            Phase::ChunkSize => self.chunk_size(bytes),
            Phase::ChunkEnd => self.chunk_end(bytes),
            Phase::Trailers(left) => self.trailers(bytes, left),
            Phase::Held => Step::Hold,
            Phase::Ended => Step::Break,
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Step {
        if self.searched == 0 {
            match bytes {
                [b'\r', b'\n', ..] => return Step::Drop(2),
                [] | [b'\r'] => return Step::More,
                _ => {}
            }
        }
        while let Some(found) = memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + found + 1;
            let line = &bytes[self.line..end];
            self.searched = end;
            if let Some(refusal) = self.oversize() {
                return self.refuse(refusal, &bytes[..self.line]);
            }
            if self.line == 0 {
                self.request_line = end;
            }
            self.line = end;
            // A bare line feed is refused where it stands: the head may never end otherwise.
            if line == b"\r\n" || !line.ends_with(b"\r\n") {
                return self.whole_head(&bytes[..self.searched]);
            }
        }
        self.searched = bytes.len();
        match self.oversize() {
            Some(refusal) => self.refuse(refusal, &bytes[..self.line]),
            None => Step::More,
        }
    }

    fn whole_head(&mut self, head: &[u8]) -> Step {
        (self.searched, self.line, self.request_line) = (0, 0, 0);
        match head::read(head) {
            Ok(found) => {
                self.upgrade = found.upgrade;
                match found.body {
                    Body::Length(length) => self.content(length),
                    Body::Chunked => self.phase = Phase::ChunkSize,
                }
                Step::Head(head.len())
            }
            Err(refusal) => self.refuse(refusal, head),
        }
    }

    fn oversize(&self) -> Option<Refusal> {
        if self.line == 0 {
            let too_long = self.searched > self.limits.request_line();
            return too_long.then_some(Refusal::UriTooLong(self.limits.target as u64));
        }
        let too_large = self.searched - self.request_line > self.limits.headers;
        too_large.then_some(Refusal::HeadersTooLarge(self.limits.headers as u64))
    }

    /// `read` is what of the head is within the limits.
    fn refuse(&mut self, refusal: Refusal, read: &[u8]) -> Step {
        self.phase = Phase::Ended;
        Step::Refuse(refusal, head::form(read))
    }

    fn broken(&mut self) -> Step {
        self.phase = Phase::Ended;
        Step::Break
    }

    fn content(&mut self, left: u64) {
        if left > 0 {
            self.phase = Phase::Content(left);
        } else {
            self.end_message();
        }
    }

    fn end_message(&mut self) {
        self.phase = if self.upgrade { Phase::Held } else { Phase::Head };
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Step {
        let Some(line) = first_line(bytes) else {
            return if bytes.len() > MAX_CHUNK_LINE { self.broken() } else { Step::More };
        };
        match size_of_chunk(line) {
            None => return self.broken(),
            Some(0) => self.phase = Phase::Trailers(self.limits.headers),
            Some(size) => self.phase = Phase::ChunkData(size),
        }
        Step::Body(line.len())
    }

    fn chunk_end(&mut self, bytes: &[u8]) -> Step {
        match bytes {
            [b'\r', b'\n', ..] => {
                self.phase = Phase::ChunkSize;
                Step::Body(2)
            }
            [] | [b'\r'] => Step::More,
            _ => self.broken(),
        }
    }

    fn trailers(&mut self, bytes: &[u8], left: usize) -> Step {
        let Some(line) = first_line(bytes) else {
            return if bytes.len() > left { self.broken() } else { Step::More };
        };
        if line == b"\r\n" {
            self.end_message();
        } else if line.len() <= left && head::is_trailer_line(line) {
            self.phase = Phase::Trailers(left - line.len());
        } else {
            return self.broken();
        }
        Step::Body(line.len())
    }
}

fn at_most(there: usize, left: u64) -> usize {
    usize::try_from(left).map_or(there, |left| left.min(there))
}

fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    memchr(b'\n', bytes).map(|end| &bytes[..=end])
}

/// Hexadecimal digits, then nothing or an extension (RFC 9112, 7.1).
fn size_of_chunk(line: &[u8]) -> Option<u64> {
    let line = head::without_line_end(line).filter(|_| line.len() <= MAX_CHUNK_LINE)?;
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at(end);
    let is_plain = |byte: &u8| (b' '..0x7f).contains(byte) || *byte == b'\t';
    if !(extension.is_empty() || extension.starts_with(b";")) || !extension.iter().all(is_plain) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests;

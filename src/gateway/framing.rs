//! A client connection whose message framing is followed before the HTTP library sees it.
//!
//! The library repairs what two parsers could read differently: it drops a `Content-Length` that
//! stands beside a `Transfer-Encoding` and takes bare line feeds. Behind or before another proxy
//! that is request smuggling, so here such a head is refused: it is replaced by a harmless one, the
//! call it became is answered with the [`Wire::refusal`], and nothing after it is read. Earlier
//! calls on the connection are served. Invariant: the library sees whole heads only, and as many
//! bytes of body as the head before them declares.
//!
//! Of HTTP/2 only one thing is followed: whether a head is open, because the library does not tell, and for
//! how long.
//!
//! The other way it writes informational responses, which the library cannot send. They go out
//! only where the library begins to write, never inside a response.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

mod blocks;
mod follow;
mod head;
mod wire;

#[cfg(test)]
mod tests;

pub use follow::{Follower, Limits, Step};
pub use head::MAX_LINES;
pub use wire::{Informational, Wire};

use super::listener::Socket;

use blocks::Blocks;
use wire::Verdict;

/// Read at once behind bytes that do not decide anything yet.
const PIECE: usize = 4 * 1024;
/// Kept while it is not known whether the bytes are HTTP.
const MAX_HELD: usize = 64 * 1024;
/// How long a client may go on sending what nobody reads: closing at once would take the answer
/// away from it (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Stands for a head that was refused.
const SUBSTITUTE: &[u8] = b"GET / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";
/// How every HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// With prior knowledge.
    Http2,
}

/// How long a client is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To end a head it has begun. Over HTTP/2 only: of HTTP/1.1 the library knows when it waits for a head.
    pub head: Duration,
    /// To take something of what is written.
    pub stall: Duration,
}

/// A head that is open, by its number, and the end of the patience with it.
struct OpenHead {
    number: u64,
    limit: Pin<Box<Sleep>>,
}

/// See the module.
pub struct Framed {
    stream: Socket,
    wire: Arc<Wire>,
    follower: Follower,
    /// Read, and not yet gone on.
    there: BytesMut,
    /// The first so many of them may go on.
    cleared: usize,
    heads: u64,
    reading: Reading,
    /// The library wrote, and has not flushed since: its bytes may end anywhere.
    mid_write: bool,
    informational: Bytes,
    linger: Option<Pin<Box<Sleep>>>,
    /// The most that is kept without being judged.
    room: usize,
    patience: Patience,
    /// Runs while the client takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    /// Of an HTTP/2 connection.
    blocks: Option<Blocks>,
    open_head: Option<OpenHead>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    /// The client sends nothing more.
    Ended,
    /// Nothing after the last cleared byte is wanted.
    Refused,
    Broken,
}

impl Framed {
    /// Waits for the first bytes, which tell the protocol. A client that goes beyond `patience` later is
    /// given up.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn accept(
        mut stream: Socket,
        limits: Limits,
        patience: Patience,
        wire: Arc<Wire>,
    ) -> io::Result<(Protocol, Self)> {
        let mut there = BytesMut::with_capacity(PIECE);
        let protocol = loop {
            if stream.read_buf(&mut there).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let compared = there.len().min(PREFACE.len());
            if there[..compared] != PREFACE[..compared] {
                break Protocol::Http1;
            }
            if compared == PREFACE.len() {
                break Protocol::Http2;
            }
        };
        let follower = match protocol {
            Protocol::Http1 => Follower::new(limits),
            Protocol::Http2 => Follower::opaque(limits),
        };
        let framed = Self {
            stream,
            wire,
            follower,
            there,
            cleared: 0,
            heads: 0,
            reading: Reading::Open,
            mid_write: false,
            informational: Bytes::new(),
            linger: None,
            room: limits.head().max(MAX_HELD),
            patience,
            stall: None,
            blocks: (protocol == Protocol::Http2).then(Blocks::default),
            open_head: None,
        };
        Ok((protocol, framed))
    }

    /// Acts on what is to be done with the first bytes of `there`. `false`: nothing can be done now.
    fn act(&mut self, step: Step, cx: &Context<'_>) -> bool {
        match step {
            Step::Head(count) => {
                self.heads += 1;
                self.cleared = count;
            }
            Step::Body(count) => self.cleared = count,
            Step::Drop(count) => self.there.advance(count),
            Step::More => return false,
            Step::Hold => match self.wire.verdict(self.heads, cx.waker()) {
                Verdict::Waiting => return false,
                Verdict::Http => self.follower.resume(),
                Verdict::Tunnel => self.follower.tunnel(),
            },
            Step::Refuse(refusal, form) => {
                self.heads += 1;
                self.wire.refuse(self.heads, refusal, form);
                self.there = BytesMut::from(SUBSTITUTE);
                self.cleared = SUBSTITUTE.len();
                self.reading = Reading::Refused;
            }
            Step::Break => {
                self.reading = Reading::Broken;
                return false;
            }
        }
        true
    }

    /// Clears the first bytes of `there`, as far as they can be judged.
    fn clear(&mut self, cx: &Context<'_>) {
        while self.cleared == 0 && self.reading == Reading::Open {
            let step = self.follower.step(&self.there);
            if !self.act(step, cx) {
                return;
            }
        }
    }

    /// Reads into `buf`, leaves there what may go on, and takes back the rest.
    fn poll_read_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let fresh = &buf.filled()[before..];
        if fresh.is_empty() {
            self.reading = Reading::Ended;
        }
        let mut kept = 0;
        while kept < fresh.len() {
            match self.follower.step(&fresh[kept..]) {
                Step::Head(count) => {
                    self.heads += 1;
                    kept += count;
                }
                Step::Body(count) => kept += count,
                step => {
                    self.there.extend_from_slice(&fresh[kept..]);
                    self.act(step, cx);
                    break;
                }
            }
        }
        buf.set_filled(before + kept);
        Poll::Ready(Ok(()))
    }

    /// Reads more behind what could not be judged yet.
    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.there.len() >= self.room {
            return Poll::Pending;
        }
        self.there.reserve(PIECE);
        let reading = pin!(self.stream.read_buf(&mut self.there));
        if ready!(reading.poll(cx))? == 0 {
            self.reading = Reading::Ended;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_informational(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.informational.is_empty() && !self.mid_write {
            self.informational = self.wire.take_informational(cx.waker()).into();
        }
        while !self.informational.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.informational);
            match ready!(self.poll_written(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.informational.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives up a client that does not read.
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let max_stall = self.patience.stall;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(max_stall)));
        stall.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads on for a while after the last byte was written, where the client is still sending.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at_rest = self.reading == Reading::Open && self.there.is_empty() && self.follower.is_at_rest();
        if at_rest || self.reading == Reading::Ended {
            return Poll::Ready(());
        }
        let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut unread = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut unread);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Gives up a client whose head has been open for too long. The clock of a head starts when the
    /// client has nothing more of it there.
    fn poll_open_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(number) = self.blocks.as_ref().and_then(Blocks::open) else {
            self.open_head = None;
            return Poll::Pending;
        };
        if self.open_head.as_ref().is_none_or(|open| open.number != number) {
            self.open_head = Some(OpenHead { number, limit: Box::pin(sleep(self.patience.head)) });
        }
        match &mut self.open_head {
            Some(open) => open.limit.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into()),
            None => Poll::Pending,
        }
    }

    /// The bytes that may go on.
    fn poll_read_cleared(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            self.clear(cx);
            if self.cleared > 0 {
                let count = self.cleared.min(buf.remaining());
                buf.put_slice(&self.there.split_to(count));
                self.cleared -= count;
                return Poll::Ready(Ok(()));
            }
            match self.reading {
                Reading::Open if self.there.is_empty() => ready!(self.poll_read_through(cx, buf))?,
                Reading::Open => ready!(self.poll_read_more(cx))?,
                Reading::Ended => return Poll::Ready(Ok(())),
                // The answer to the refused call ends the connection.
                Reading::Refused => return Poll::Pending,
                Reading::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for Framed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = self.poll_read_cleared(cx, buf);
        if let Some(blocks) = &mut self.blocks {
            blocks.follow(&buf.filled()[before..]);
            if let Poll::Ready(error) = self.poll_open_head(cx) {
                // Whoever hears of an error has read nothing.
                buf.set_filled(before);
                return Poll::Ready(Err(error));
            }
        }
        read
    }
}

impl AsyncWrite for Framed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_write_informational(cx))?;
        self.mid_write = true;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_write_informational(cx))?;
        self.mid_write = true;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.poll_written(cx, written)
    }

    /// The library flushes only when everything it had was written: a boundary.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if mem::take(&mut self.mid_write) {
            self.wire.drop_late_informational();
        }
        ready!(self.poll_write_informational(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        ready!(self.poll_linger(cx));
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Drop for Framed {
    fn drop(&mut self) {
        if self.wire.is_reset() {
            self.stream.reset_on_close();
        }
    }
}

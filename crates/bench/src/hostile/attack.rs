//! Clients that mean harm: each keeps a connection and uses the node's patience as long as it can.
//!
//! They run on a thread of their own, so that only the node and the machine are between them and the good
//! client. Whoever is hung up on comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::frames::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS};

/// Between two clients' first connections: the kernel's queue is short.
const STAGGER: Duration = Duration::from_micros(500);
/// All are at work within this, or the node does not let them in.
const START_LIMIT: Duration = Duration::from_mins(1);
/// One client of so many speaks HTTP/2.
const HTTP2_EVERY: usize = 4;
/// Several times what a node takes of a head.
const HUGE_HEAD: usize = 256 * 1024;
/// Bytes of an endless body, at each beat.
const PIECE: usize = 1024;
/// Answers asked for and not read, on one connection.
const UNREAD: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A head that comes byte by byte.
    SlowHead,
    /// The same of a body, of a call that becomes a task.
    SlowBody,
    /// A chunked body without an end, of a task or of a proxied call.
    EndlessBody,
    /// A head of several times the size that is taken.
    HugeHead,
    /// Asks for large answers and reads nothing.
    NeverReads,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::SlowHead, Self::SlowBody, Self::EndlessBody, Self::HugeHead, Self::NeverReads];
}

/// What a client does on each connection.
struct Script {
    first: Vec<u8>,
    /// At each beat; nothing: it only waits.
    again: Vec<u8>,
    reads: bool,
}

#[derive(Default)]
struct Tally {
    /// Clients that have been let in at least once.
    at_work: AtomicUsize,
    open: AtomicUsize,
    connections: AtomicU64,
}

/// Hostile clients at work; they end when this is dropped.
pub struct Attack {
    tally: Arc<Tally>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    /// Starts so many clients, of all kinds in turns, and waits until each has done its first harm.
    ///
    /// # Errors
    /// They are not let in.
    pub fn start(node: SocketAddr, clients: usize, beat: Duration) -> anyhow::Result<Self> {
        let tally = Arc::new(Tally::default());
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&tally);
        let attacking = move || {
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for number in 0..clients {
                    all.spawn(live(node, number, beat, Arc::clone(&shared)));
                    sleep(STAGGER).await;
                }
                // An error: the other side is gone, which means the same.
                let _ = stopped.await;
                all.shutdown().await;
            });
        };
        let thread = std::thread::Builder::new().name("hostile".to_owned()).spawn(attacking)?;
        let attack = Self { tally, stop: Some(stop), thread: Some(thread) };
        let end = Instant::now() + START_LIMIT;
        while attack.tally.at_work.load(Ordering::Relaxed) < clients {
            ensure!(Instant::now() < end, "the hostile clients are not let in");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(attack)
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.tally.open.load(Ordering::Relaxed)
    }

    /// Connections made so far: those beyond one a client came after the node had hung up.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.tally.connections.load(Ordering::Relaxed)
    }

    /// Ends them all and waits for that.
    ///
    /// # Errors
    /// Their thread panicked.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.stop = None;
        let thread = self.thread.take().context("an attack has one thread")?;
        thread.join().map_err(|_| anyhow::anyhow!("the hostile clients' thread panicked"))
    }
}

async fn live(node: SocketAddr, number: usize, beat: Duration, tally: Arc<Tally>) {
    let kind = Kind::ALL[number % Kind::ALL.len()];
    let turn = number / Kind::ALL.len();
    let script = if turn.is_multiple_of(HTTP2_EVERY) { over_http2(kind) } else { over_http1(kind, turn) };
    let mut is_first = true;
    loop {
        if let Ok(stream) = TcpStream::connect(node).await {
            tally.connections.fetch_add(1, Ordering::Relaxed);
            tally.open.fetch_add(1, Ordering::Relaxed);
            let worked = || {
                if std::mem::take(&mut is_first) {
                    tally.at_work.fetch_add(1, Ordering::Relaxed);
                }
            };
            // However it ended, the next one is due.
            let _ = harm(stream, &script, beat, worked).await;
            tally.open.fetch_sub(1, Ordering::Relaxed);
        }
        sleep(beat * 10).await;
    }
}

/// One connection, until the node hangs up.
async fn harm(
    stream: TcpStream,
    script: &Script,
    beat: Duration,
    worked: impl FnOnce(),
) -> std::io::Result<()> {
    let (mut from, mut to) = stream.into_split();
    let writing = async {
        to.write_all(&script.first).await?;
        worked();
        loop {
            sleep(beat).await;
            to.write_all(&script.again).await?;
        }
    };
    if !script.reads {
        return writing.await;
    }
    let reading = async {
        let mut heard = [0; 1024];
        while from.read(&mut heard).await? > 0 {}
        Ok(())
    };
    tokio::select! {
        ended = writing => ended,
        ended = reading => ended,
    }
}

fn over_http1(kind: Kind, turn: usize) -> Script {
    let (reads, tail) = (kind != Kind::NeverReads, "Host: node\r\nAuthorization: Bearer hostile\r\n");
    let (first, again) = match kind {
        Kind::SlowHead => (format!("GET /bench/items/0 HTTP/1.1\r\n{tail}X: "), String::from("a")),
        Kind::SlowBody => (
            format!("POST /hostile/slow?async=true HTTP/1.1\r\n{tail}Content-Length: 100000\r\n\r\n"),
            String::from("a"),
        ),
        Kind::EndlessBody => {
            let target = if turn.is_multiple_of(2) { "/hostile/sink" } else { "/hostile/sink?async=true" };
            (
                format!("POST {target} HTTP/1.1\r\n{tail}Transfer-Encoding: chunked\r\n\r\n"),
                format!("{PIECE:x}\r\n{}\r\n", "a".repeat(PIECE)),
            )
        }
        Kind::HugeHead => {
            let line = format!("X: {}\r\n", "a".repeat(1000));
            (
                format!(
                    "GET /bench/items/0 HTTP/1.1\r\n{tail}{}\r\n",
                    line.repeat(HUGE_HEAD.div_ceil(line.len()))
                ),
                String::new(),
            )
        }
        Kind::NeverReads => {
            let call = format!("GET /hostile/large HTTP/1.1\r\n{tail}\r\n");
            (call.repeat(UNREAD as usize), String::new())
        }
    };
    Script { first: first.into_bytes(), again: again.into_bytes(), reads }
}

fn over_http2(kind: Kind) -> Script {
    let call = |method, path| {
        frames::block(&[
            (":method", method),
            (":scheme", "http"),
            (":authority", "node"),
            (":path", path),
            ("authorization", "Bearer hostile"),
        ])
    };
    let get = call("GET", "/bench/items/0");
    let (first, again) = match kind {
        Kind::SlowHead => {
            // Of many small frames the library has enough soon: it is one, whose bytes are slow.
            let whole =
                frames::frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&get[..], &[0; 16_000]].concat());
            (whole[..get.len()].to_vec(), b"a".to_vec())
        }
        Kind::SlowBody => {
            let post = call("POST", "/hostile/slow?async=true");
            (frames::frame(HEADERS, END_HEADERS, 1, &post), frames::frame(DATA, 0, 1, b"a"))
        }
        Kind::EndlessBody => {
            let post = call("POST", "/hostile/sink");
            (frames::frame(HEADERS, END_HEADERS, 1, &post), frames::frame(DATA, 0, 1, &[b'a'; PIECE]))
        }
        Kind::HugeHead => {
            let field = frames::block(&[("x", &"a".repeat(100))]);
            let piece = frames::frame(CONTINUATION, 0, 1, &field.repeat(150));
            let first = frames::frame(HEADERS, END_STREAM, 1, &get);
            ([&first[..], &piece.repeat(HUGE_HEAD.div_ceil(piece.len()))].concat(), Vec::new())
        }
        Kind::NeverReads => {
            let get = call("GET", "/hostile/large");
            let calls = (0..UNREAD)
                .map(|number| frames::frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &get));
            (calls.flatten().collect(), Vec::new())
        }
    };
    Script { first: [frames::preface(), first].concat(), again, reads: kind != Kind::NeverReads }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_begins_with_something_and_only_one_reads_nothing() {
        for kind in Kind::ALL {
            for script in [over_http1(kind, 0), over_http1(kind, 1), over_http2(kind)] {
                assert!(!script.first.is_empty());
                assert_eq!(script.reads, kind != Kind::NeverReads);
            }
        }
    }
}

//! What it costs to wait: many clients at once for one task, half by long polls and half by streams.
//!
//! The same connections are first idle, then wait: the difference is the wait. In the end the task ends,
//! and each must be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use crate::hostile::Upstream;
use crate::node::{Node, Setup};
use crate::report::{Report, Section, float, megabytes};
use crate::usage::Usage;
use crate::wire::{Wire, text_of};

/// Connections being made or calls being sent at once: the kernel's queue is short.
const AT_ONCE: usize = 64;
/// Sockets besides those that wait, in the node and here.
const SPARE: usize = 500;
/// A wait for anything takes no longer.
const PATIENCE: Duration = Duration::from_mins(2);
const AUTHORIZATION: &str = "Authorization: Bearer waits\r\n";

pub struct Options {
    pub ringback: PathBuf,
    pub waiters: usize,
}

/// What waiting cost.
pub struct Outcome {
    /// Heard of the end of the task.
    pub told: usize,
    /// Bytes of the node, beyond its connection, for each.
    pub long_poll: u64,
    pub stream: u64,
    /// Bytes of the node for a connection on which nothing happens.
    pub idle: u64,
    /// From the upstream's answer until the last was told.
    pub last: Duration,
}

/// What all do now; each stage begins when the one before is reached by all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Idle,
    LongPolls,
    Streams,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    LongPoll,
    Stream,
}

/// Measures once.
///
/// # Errors
/// The node does not start, or there are not enough sockets.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<Outcome> {
    let count = options.waiters;
    ensure!(
        open_files() > count + SPARE,
        "{count} waiters need more open files than this shell allows: ulimit -n {}",
        count + SPARE
    );
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start()?;
    let most = count + SPARE;
    let setup = Setup {
        // Nothing else may end a wait.
        server: format!(
            "max_connections = {most}\nmax_calls = {most}\nmax_calls_per_credentials = {most}\n\
             max_waiters = {most}\nmax_wait = \"10m\"\nheader_timeout = \"10m\""
        ),
        further: format!(
            "[[upstreams]]\nname = \"gated\"\nprefix = \"/gated\"\nurl = \"http://{}/gated\"\n\
             timeout = \"10m\"\ntotal_timeout = \"10m\"\n",
            upstream.address
        ),
        ..Setup::new(&options.ringback, dir.path(), upstream.address, 1)
    };
    let node = setup.start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut section = Section::new(&format!("{count} waiters"));
    let outcome = runtime.block_on(LocalSet::new().run_until(measure(
        &node,
        count,
        || upstream.open(),
        &mut section,
    )))?;
    section.number("peak RSS MB", megabytes(node.usage().peak));
    report.add(section);
    report.at_most("waiters that were not told", float((count - outcome.told) as u64), 0.0);
    Ok(outcome)
}

fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(usize::MAX)
}

/// The crowd, and how far it is.
struct Crowd {
    stage: watch::Sender<Stage>,
    /// How many have reached the stage.
    there: watch::Sender<usize>,
    turns: Semaphore,
}

async fn measure(
    node: &Node,
    count: usize,
    end_task: impl FnOnce(),
    section: &mut Section,
) -> anyhow::Result<Outcome> {
    let path = submit(node.gateway).await?;
    quiet(node).await?;
    let before = node.usage();
    let crowd = Rc::new(Crowd {
        stage: watch::Sender::new(Stage::Idle),
        there: watch::Sender::new(0),
        turns: Semaphore::new(AT_ONCE),
    });
    let mut all = JoinSet::new();
    for number in 0..count {
        let kind = if number % 2 == 0 { Kind::LongPoll } else { Kind::Stream };
        all.spawn_local(wait(node.gateway, path.clone(), kind, Rc::clone(&crowd)));
    }
    crowd.reached(count, &mut all).await?;
    quiet(node).await?;
    let idle = node.usage();
    let (long_polls, streams) = (count.div_ceil(2), count / 2);
    crowd.stage.send_replace(Stage::LongPolls);
    crowd.reached(count + long_polls, &mut all).await?;
    quiet(node).await?;
    let polling = node.usage();
    crowd.stage.send_replace(Stage::Streams);
    crowd.reached(2 * count, &mut all).await?;
    quiet(node).await?;
    let waiting = node.usage();

    let from = Instant::now();
    end_task();
    let mut told = Vec::new();
    while let Ok(Some(one)) = timeout(PATIENCE, all.join_next()).await {
        if let Ok(at) = one? {
            told.push(u32::try_from(at.duration_since(from).as_micros()).unwrap_or(u32::MAX));
        }
    }
    let outcome = Outcome {
        told: told.len(),
        idle: share(before, idle, count),
        long_poll: share(idle, polling, long_polls),
        stream: share(polling, waiting, streams),
        last: Duration::from_micros(told.iter().copied().max().unwrap_or(0).into()),
    };
    section.number("RSS MB before", megabytes(before.rss));
    section.number("RSS MB, all idle", megabytes(idle.rss));
    section.number("RSS MB, all waiting", megabytes(waiting.rss));
    section.number("KB a connection, idle", float(outcome.idle) / 1e3);
    section.number("KB a long poll beyond it", float(outcome.long_poll) / 1e3);
    section.number("KB a stream beyond it", float(outcome.stream) / 1e3);
    section.number("KB a waiter, all in all", float(share(before, waiting, count)) / 1e3);
    section.latencies("told", told);
    section.number("last told ms", outcome.last.as_secs_f64() * 1e3);
    section.note("told", outcome.told);
    Ok(outcome)
}

fn share(before: Usage, after: Usage, of: usize) -> u64 {
    after.rss.saturating_sub(before.rss) / (of.max(1) as u64)
}

/// Makes the task all wait for; the path of its results.
async fn submit(node: SocketAddr) -> anyhow::Result<String> {
    let mut wire = Wire::new(TcpStream::connect(node).await?);
    let call = format!("GET /gated/task?async=true HTTP/1.1\r\nHost: node\r\n{AUTHORIZATION}\r\n");
    wire.stream.write_all(call.as_bytes()).await?;
    let reply = wire.reply().await?;
    let task = text_of(reply.body, "task_id").filter(|_| reply.status == 202);
    Ok(format!("/gated/results/{}", task.context("the call did not become a task")?))
}

/// Waits until the node has nothing to do.
async fn quiet(node: &Node) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let before = node.usage().cpu;
        sleep(Duration::from_millis(300)).await;
        if node.usage().cpu.saturating_sub(before) <= Duration::from_millis(10) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the node does not come to rest");
    }
}

impl Crowd {
    fn one_more(&self) {
        self.there.send_modify(|there| *there += 1);
    }

    /// Waits until so many steps were made in all.
    async fn reached(&self, count: usize, all: &mut JoinSet<anyhow::Result<Instant>>) -> anyhow::Result<()> {
        let mut there = self.there.subscribe();
        tokio::select! {
            reached = timeout(PATIENCE, there.wait_for(|there| *there >= count)) => {
                reached.context("not all clients were let in")??;
                Ok(())
            }
            Some(early) = all.join_next() => {
                early??;
                anyhow::bail!("a client was told before the task ended")
            }
        }
    }
}

/// One client: connects, asks once, is idle, waits; the instant it was told of the end.
async fn wait(node: SocketAddr, path: String, kind: Kind, crowd: Rc<Crowd>) -> anyhow::Result<Instant> {
    let call = |more: &str| format!("GET {path} HTTP/1.1\r\nHost: node\r\n{AUTHORIZATION}{more}\r\n");
    let mut wire = {
        let _turn = crowd.turns.acquire().await?;
        let mut wire = Wire::new(TcpStream::connect(node).await?);
        wire.stream.write_all(call("").as_bytes()).await?;
        let status = wire.reply().await?.status;
        ensure!(status == 202, "the results of a task in flight are answered with {status}");
        wire
    };
    crowd.one_more();
    let stage = if kind == Kind::LongPoll { Stage::LongPolls } else { Stage::Streams };
    crowd.stage.subscribe().wait_for(|now| *now >= stage).await?;
    match kind {
        Kind::LongPoll => {
            wire.stream.write_all(call("Prefer: wait=600\r\n").as_bytes()).await?;
            crowd.one_more();
            let status = wire.reply().await?.status;
            ensure!(status == 200, "a long poll is answered with {status}");
        }
        Kind::Stream => {
            let mut heard = String::new();
            {
                let _turn = crowd.turns.acquire().await?;
                wire.stream.write_all(call("Accept: text/event-stream\r\n").as_bytes()).await?;
                until(&mut wire.stream, "event: status", &mut heard).await?;
            }
            crowd.one_more();
            until(&mut wire.stream, "event: end", &mut heard).await?;
        }
    }
    Ok(Instant::now())
}

/// Reads on until it has heard a word.
async fn until(stream: &mut TcpStream, word: &str, heard: &mut String) -> anyhow::Result<()> {
    while !heard.contains(word) {
        let mut piece = [0; 512];
        let count = stream.read(&mut piece).await?;
        ensure!(count > 0, "a stream ended without an end");
        heard.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    Ok(())
}

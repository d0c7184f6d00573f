//! Proof from outside that no 202 leaves before its task is on the disk.
//!
//! A real node runs under `strace` while it is called, first one call at a time with a silent upstream,
//! then by many at once. The trace keeps the order in which things happened, and [`trace`] judges it:
//! between the read of a call and the write of its 202 the WAL must have been written, and after that
//! synced, and the sync must have ended.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::ledger::Ledger;
use crate::load::{self, Load, Pace, Target};
use crate::node::{Node, Setup};
use crate::peer::Peers;

mod trace;

pub use trace::{Verdict, judge};

/// Longer than the part in which it does not answer.
const NEVER: Duration = Duration::from_secs(25);

const CONCURRENCY: u32 = 64;

/// How many calls, and for how long.
pub struct Options {
    pub ringback: std::path::PathBuf,
    /// Seconds of each part.
    pub seconds: u64,
    pub connections: usize,
}

/// What one part showed.
pub struct Part {
    pub name: &'static str,
    pub verdict: Verdict,
    /// By the node's own count.
    pub commits: u64,
}

impl Part {
    /// Whether every 202 was seen, and followed its sync.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let Verdict { answers, unsynced, syncs, .. } = self.verdict;
        answers > 0 && unsynced == 0 && syncs >= self.commits
    }
}

/// Traces both parts.
///
/// # Errors
/// The node or strace does not start.
pub fn run(options: &Options) -> anyhow::Result<[Part; 2]> {
    let one = part("one call at a time", options, 1, NEVER)?;
    let many = part("many at once", options, options.connections, Duration::ZERO)?;
    Ok([one, many])
}

fn part(
    name: &'static str,
    options: &Options,
    connections: usize,
    upstream: Duration,
) -> anyhow::Result<Part> {
    let dir = tempfile::tempdir()?;
    let ledger = Arc::new(Ledger::default());
    let peers = Peers::start(&ledger)?;
    peers.manners.set_delay(upstream);
    let setup = Setup::new(&options.ringback, dir.path(), peers.upstream, CONCURRENCY);
    let node = setup.start()?;
    let log = dir.path().join("trace");
    let mut strace = attach(&node, &log)?;
    let commits = node.commits();
    let load = Load {
        connections,
        pace: Pace::Closed,
        warm_up: Duration::ZERO,
        counted: Duration::from_secs(options.seconds),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(load::run(load, &Target::new(node.gateway, peers.receiver), &ledger, || {}))?;
    let commits = node.commits() - commits;
    Command::new("kill").args(["-s", "INT", &strace.id().to_string()]).status()?;
    strace.wait()?;
    node.kill()?;
    Ok(Part { name, verdict: judge(&fs::read_to_string(&log)?), commits })
}

/// Returns when every thread of the node is traced.
fn attach(node: &Node, log: &Path) -> anyhow::Result<Child> {
    let strace = Command::new("strace")
        .args(["-f", "-y", "-q", "-s", "64", "-e"])
        .arg("trace=read,recvfrom,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync")
        .arg("-o")
        .arg(log)
        .args(["-p", &node.pid().to_string()])
        .stdout(Stdio::null())
        .stderr(File::create(log.with_extension("said"))?)
        .spawn()
        .context("strace is missing")?;
    let threads = Path::new("/proc").join(node.pid().to_string()).join("task");
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let statuses: Vec<String> = fs::read_dir(&threads)?
            .flatten()
            .map(|thread| fs::read_to_string(thread.path().join("status")).unwrap_or_default())
            .collect();
        if statuses.iter().all(|status| !status.contains("TracerPid:\t0\n")) {
            return Ok(strace);
        }
        ensure!(Instant::now() < end, "strace cannot trace the node; it may need to run as root");
        std::thread::sleep(Duration::from_millis(5));
    }
}

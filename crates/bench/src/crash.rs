//! The kills and the reckoning.
//!
//! A real node is loaded while its upstream and its receiver fail now and then; it is killed with
//! SIGKILL at random moments, again and again on one data directory. In the end every 202 it ever
//! answered is accounted for, from what the outside saw and from what the node says of each result.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::ledger::{Entry, Ledger};
use crate::load::{self, Target};
use crate::node::{Node, Setup};
use crate::peer::Peers;
use crate::wire::{Wire, text_of};

/// One call of so many is a POST, which must never be sent twice.
const UNSAFE_EVERY: usize = 4;

/// Tries one task may take of its upstream, and one delivery of its receiver.
const TRIES_MAX: u32 = 7;

/// Of 1,000 calls so many are answered 503, and as many break off.
const TROUBLE: u64 = 100;

/// Longest wait without any progress before what is missing counts as lost.
const SETTLE: Duration = Duration::from_secs(20);

pub struct Options {
    pub ringback: PathBuf,
    pub kills: u32,
    pub connections: usize,
    /// The longest life of a node under load.
    pub life: Duration,
    /// Pause of a connection between two calls.
    pub pause: Duration,
}

/// Every 202, accounted for.
#[derive(Debug, Default, serde::Serialize)]
pub struct Reckoning {
    pub kills: u32,
    pub accepted: u64,
    /// No 202 arrived, and yet it became a task: the node died in between.
    pub unacknowledged: u64,
    pub succeeded: u64,
    pub failed: u64,
    /// Accepted, and not announced or without a result.
    pub lost: u64,
    /// The result and the webhooks disagree.
    pub contradicted: u64,
    pub too_many_attempts: u64,
    pub too_many_tries: u64,
    pub unsafe_sent_twice: u64,
    /// Deliveries after the one that was taken.
    pub repeated_webhooks: u64,
    /// Deaths of the node between the first upstream call of a task and its last.
    pub repeated_calls: u64,
    /// The slowest start, in milliseconds.
    pub slowest_start_ms: u64,
}

impl Reckoning {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let broken = [
            self.lost,
            self.contradicted,
            self.too_many_attempts,
            self.too_many_tries,
            self.unsafe_sent_twice,
        ];
        self.accepted > 0 && broken.iter().all(|&count| count == 0)
    }
}

/// Kills and reckons.
///
/// # Errors
/// The node does not start, or does not answer.
pub fn run(options: &Options) -> anyhow::Result<Reckoning> {
    let dir = tempfile::tempdir()?;
    let ledger = Arc::new(Ledger::default());
    let peers = Peers::start(&ledger)?;
    peers.manners.set_trouble(TROUBLE);
    let setup = Setup {
        program: options.ringback.clone(),
        dir: dir.path().to_owned(),
        upstream: peers.upstream,
        concurrency: 64,
        retry: "delays = [\"20ms\", \"40ms\", \"80ms\", \"160ms\", \"300ms\", \"600ms\"]".to_owned(),
        webhooks: "delays = [\"20ms\", \"40ms\", \"80ms\", \"160ms\", \"300ms\", \"600ms\"]".to_owned(),
        retention: String::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut reckoning = Reckoning::default();
    for _ in 0..options.kills {
        let node = start(&setup, &ledger, &mut reckoning)?;
        let target = Target::new(node.gateway, peers.receiver);
        let life = options.life.mul_f64(rand::random_range(0.05..1.0));
        runtime.block_on(live(node, &target, &ledger, options, life))?;
        reckoning.kills += 1;
    }
    let node = start(&setup, &ledger, &mut reckoning)?;
    settle(&ledger);
    let entries = ledger.entries();
    runtime.block_on(reckon(&node, &entries, &mut reckoning))?;
    node.stop()?;
    Ok(reckoning)
}

fn start(setup: &Setup, ledger: &Ledger, reckoning: &mut Reckoning) -> anyhow::Result<Node> {
    ledger.next_life();
    let began = Instant::now();
    let node = setup.start().context("a killed node does not start again")?;
    let took = u64::try_from(began.elapsed().as_millis())?;
    reckoning.slowest_start_ms = reckoning.slowest_start_ms.max(took);
    Ok(node)
}

/// Loads the node for so long, kills it, and takes in whatever answers it still gave.
async fn live(
    node: Node,
    target: &Target,
    ledger: &Arc<Ledger>,
    options: &Options,
    life: Duration,
) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    for _ in 0..options.connections {
        connections.spawn(call_on(target.clone(), Arc::clone(ledger), options.pause));
    }
    sleep(life).await;
    node.kill()?;
    connections.join_all().await;
    Ok(())
}

/// Calls until the node is gone.
async fn call_on(target: Target, ledger: Arc<Ledger>, pause: Duration) -> Option<()> {
    let mut wire = Wire::new(TcpStream::connect(target.server).await.ok()?);
    let mut request = Vec::new();
    loop {
        let number = ledger.call();
        let (method, body) = if is_unsafe(number) { ("POST", "{\"pay\":1}") } else { ("GET", "") };
        target.write(&mut request, method, number, body);
        if let (202, Some(task)) = load::exchange(&mut wire, &request).await.ok()? {
            ledger.accepted(number, task);
        }
        sleep(pause).await;
    }
}

fn is_unsafe(number: usize) -> bool {
    number % UNSAFE_EVERY == UNSAFE_EVERY - 1
}

/// Waits until nothing is owed, or nothing happens any more.
fn settle(ledger: &Ledger) {
    let mut last = (ledger.owed(), Instant::now());
    while last.0 > 0 && last.1.elapsed() < SETTLE {
        std::thread::sleep(Duration::from_millis(20));
        let owed = ledger.owed();
        if owed != last.0 {
            last = (owed, Instant::now());
        }
    }
    // What nobody is waiting for: repeats of what was delivered already.
    std::thread::sleep(Duration::from_secs(2));
}

async fn reckon(node: &Node, entries: &[Entry], reckoning: &mut Reckoning) -> anyhow::Result<()> {
    let mut wire = Wire::new(TcpStream::connect(node.gateway).await?);
    for (number, entry) in entries.iter().enumerate() {
        let Some(task) = entry.task.or(entry.announced) else { continue };
        reckoning.accepted += u64::from(entry.task.is_some());
        reckoning.unacknowledged += u64::from(entry.task.is_none());
        let end = result(&mut wire, &task.to_string()).await?;
        match end {
            Some(true) => reckoning.succeeded += 1,
            Some(false) => reckoning.failed += 1,
            None => {}
        }
        let announced = entry.delivered > 0;
        reckoning.lost += u64::from(end.is_none() || !announced);
        let agree = end == Some(entry.succeeded) && entry.announced == Some(task) && !entry.contradicted;
        reckoning.contradicted += u64::from(announced && !agree);
        reckoning.too_many_attempts += u64::from(entry.upstream_calls > TRIES_MAX + entry.called_in.deaths());
        reckoning.too_many_tries += u64::from(entry.tries > TRIES_MAX + entry.tried_in.deaths());
        reckoning.unsafe_sent_twice += u64::from(is_unsafe(number) && entry.upstream_calls > 1);
        reckoning.repeated_webhooks += u64::from(entry.delivered.saturating_sub(1));
        reckoning.repeated_calls += u64::from(entry.called_in.deaths());
    }
    Ok(())
}

/// How the task ended; `None` if it has no final state.
async fn result(wire: &mut Wire, task: &str) -> anyhow::Result<Option<bool>> {
    wire.stream.write_all(&load::read_result(task)).await?;
    let reply = wire.reply().await?;
    ensure!(reply.status != 401, "the results are refused");
    if reply.status != 200 {
        return Ok(None);
    }
    match text_of(reply.body, "status") {
        Some("Failed") if text_of(reply.body, "task_id") == Some(task) => Ok(Some(false)),
        // The upstream's answer, whole.
        None if reply.body == crate::peer::answer_body().as_bytes() => Ok(Some(true)),
        _ => Ok(None),
    }
}

//! The kills and the reckoning.
//!
//! A real node is loaded while its upstream and its receiver fail now and then; it is killed with
//! SIGKILL at random moments, again and again on one data directory. In the end every 202 it ever
//! answered is accounted for, from what the outside saw and from what the node says of each result.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use crate::ledger::{Entry, Ledger};
use crate::load::{self, Target};
use crate::node::{Node, Setup};
use crate::peer::{Manners, Peers};
use crate::wire::{Wire, text_of};

/// One call of so many is a POST, which must never be sent twice.
const UNSAFE_EVERY: usize = 4;

/// One call of so many carries an `Idempotency-Key` to an upstream that honours it, as a POST.
const KEYED_EVERY: usize = 4;

/// One keyed call of so many is sent again although it was answered.
const REPEATED_EVERY: usize = 5;

/// Tries one task may take of its upstream, and one delivery of its receiver.
const TRIES_MAX: u32 = 7;

/// Of the upstreams and of the receiver: six retries.
const DELAYS: &str = "delays = [\"20ms\", \"40ms\", \"80ms\", \"160ms\", \"300ms\", \"600ms\"]";

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
    /// Calls sent again with their `Idempotency-Key`, and those that did not find their task again.
    pub sent_again: u64,
    pub became_another_task: u64,
    /// Webhooks with good `v1` and `v1a` signatures, and without.
    pub genuine_webhooks: u64,
    pub forged_webhooks: u64,
    /// Deliveries after the one that was taken.
    pub repeated_webhooks: u64,
    /// Upstream calls after the one that was answered well.
    pub repeated_calls: u64,
    /// The most tries of one task's webhook, and the most calls of the upstream for one task.
    pub most_tries: u32,
    pub most_calls: u32,
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
            self.became_another_task,
            self.forged_webhooks,
        ];
        self.accepted > 0 && self.genuine_webhooks > 0 && broken.iter().all(|&count| count == 0)
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
        further: format!(
            "[[upstreams]]\nname = \"keyed\"\nprefix = \"/keyed\"\nurl = \"http://{}/bench\"\n\
             idempotency = \"key\"\nconcurrency = 64\n[upstreams.retry]\n{DELAYS}\n",
            peers.upstream
        ),
        retry: DELAYS.to_owned(),
        webhooks: DELAYS.to_owned(),
        ..Setup::new(&options.ringback, dir.path(), peers.upstream, 64)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut reckoning = Reckoning::default();
    let repeats = Arc::default();
    for _ in 0..options.kills {
        let node = start(&setup, &ledger, &mut reckoning)?;
        let (secret, key) = setup.signers()?;
        peers.manners.signers.set(secret, key);
        let caller = Caller {
            target: Target::new(node.gateway, peers.receiver),
            ledger: Arc::clone(&ledger),
            pause: options.pause,
            repeats: Arc::clone(&repeats),
        };
        let life = options.life.mul_f64(rand::random_range(0.05..1.0));
        runtime.block_on(live(node, &caller, options.connections, life))?;
        reckoning.kills += 1;
    }
    let node = start(&setup, &ledger, &mut reckoning)?;
    let caller = Caller {
        target: Target::new(node.gateway, peers.receiver),
        ledger: Arc::clone(&ledger),
        pause: Duration::ZERO,
        repeats: Arc::clone(&repeats),
    };
    runtime.block_on(caller.repeat_all())?;
    settle(&ledger);
    reckoning.note(&repeats, &peers.manners);
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
async fn live(node: Node, caller: &Caller, connections: usize, life: Duration) -> std::io::Result<()> {
    let mut calling = JoinSet::new();
    for _ in 0..connections {
        calling.spawn(caller.clone().call());
    }
    sleep(life).await;
    node.kill()?;
    calling.join_all().await;
    Ok(())
}

/// Keyed calls to be sent again, and what came of those that were.
#[derive(Default)]
struct Repeats {
    /// The task, where an answer named one.
    waiting: Vec<(usize, Option<Uuid>)>,
    sent: u64,
    another: u64,
}

/// One connection's way of calling.
#[derive(Clone)]
struct Caller {
    target: Target,
    ledger: Arc<Ledger>,
    pause: Duration,
    repeats: Arc<Mutex<Repeats>>,
}

impl Caller {
    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls until the node is gone.
    async fn call(self) -> Option<()> {
        let mut wire = Wire::new(TcpStream::connect(self.target.server).await.ok()?);
        loop {
            let repeat = self.repeats().waiting.pop();
            if let Some((number, task)) = repeat {
                self.repeat(&mut wire, number, task).await.ok()?;
            } else {
                self.call_new(&mut wire).await.ok()?;
            }
            sleep(self.pause).await;
        }
    }

    async fn call_new(&self, wire: &mut Wire) -> std::io::Result<()> {
        let number = self.ledger.call();
        let answer = load::exchange(wire, &self.request(number)).await;
        let task = answer.as_ref().ok().and_then(|(_, task)| *task);
        if let (Ok((202, _)), Some(task)) = (&answer, task) {
            self.ledger.accepted(number, task);
        }
        if is_keyed(number) && (task.is_none() || (number / KEYED_EVERY).is_multiple_of(REPEATED_EVERY)) {
            self.repeats().waiting.push((number, task));
        }
        answer.map(drop)
    }

    /// Sends a call again: it must be the task it was, if it was one.
    async fn repeat(&self, wire: &mut Wire, number: usize, task: Option<Uuid>) -> std::io::Result<()> {
        match load::exchange(wire, &self.request(number)).await {
            Ok((202, Some(found))) => {
                self.ledger.accepted(number, found);
                let mut repeats = self.repeats();
                repeats.sent += 1;
                repeats.another += u64::from(task.is_some_and(|task| task != found));
                Ok(())
            }
            Ok(_) => {
                self.repeats().another += 1;
                Ok(())
            }
            Err(error) => {
                self.repeats().waiting.push((number, task));
                Err(error)
            }
        }
    }

    /// Sends again whatever still waits for it.
    async fn repeat_all(&self) -> std::io::Result<()> {
        let mut wire = Wire::new(TcpStream::connect(self.target.server).await?);
        let waiting = std::mem::take(&mut self.repeats().waiting);
        for (number, task) in waiting {
            self.repeat(&mut wire, number, task).await?;
        }
        Ok(())
    }

    fn request(&self, number: usize) -> Vec<u8> {
        let mut request = Vec::new();
        let (method, body) =
            if is_unsafe(number) || is_keyed(number) { ("POST", "{\"pay\":1}") } else { ("GET", "") };
        if is_keyed(number) {
            self.target.write_keyed(&mut request, method, number, body);
        } else {
            self.target.write(&mut request, method, number, body);
        }
        request
    }
}

impl Reckoning {
    fn note(&mut self, repeats: &Mutex<Repeats>, manners: &Manners) {
        let repeats = repeats.lock().unwrap_or_else(PoisonError::into_inner);
        self.sent_again = repeats.sent;
        self.became_another_task = repeats.another;
        self.genuine_webhooks = manners.genuine.load(Ordering::Relaxed);
        self.forged_webhooks = manners.forged.load(Ordering::Relaxed);
    }
}

fn is_keyed(number: usize) -> bool {
    number % KEYED_EVERY == 1
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
        let prefix = if is_keyed(number) { "keyed" } else { "bench" };
        let end = result(&mut wire, prefix, &task.to_string()).await?;
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
        reckoning.repeated_calls += u64::from(entry.answered.saturating_sub(1));
        reckoning.most_tries = reckoning.most_tries.max(entry.tries);
        reckoning.most_calls = reckoning.most_calls.max(entry.upstream_calls);
    }
    Ok(())
}

/// How the task ended; `None` if it has no final state.
async fn result(wire: &mut Wire, prefix: &str, task: &str) -> anyhow::Result<Option<bool>> {
    wire.stream.write_all(&load::read_result_below(prefix, task)).await?;
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

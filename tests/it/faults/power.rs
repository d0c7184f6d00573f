//! Power fails. Everything a node does to its files and sends is recorded; the record is played back to any
//! point and there the power is cut: of what was written since the last sync all, nothing, or any part is
//! lost, torn at sectors. Whatever the node had said by then must be true of what is left.

mod disk;

use std::collections::HashSet;
use std::path::Path;

use http::Method;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use super::sweep::is_unavailable;
use crate::support::edge::{EIO, Edge, Fault, SYNC, When};
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::Reply;
use crate::support::{eventually, store};
use disk::{Disk, Lost, Op};

/// As large as the log may become before it is carried over, and more.
const LARGE: u64 = 5_000_000;

/// What the node has said to the world, and must stand by.
#[derive(Default, Clone)]
struct Said {
    /// Tasks whose 202 was sent.
    accepted: HashSet<Uuid>,
    /// Tasks whose webhook was sent.
    announced: HashSet<Uuid>,
    /// Paths of unsafe calls whose first byte was sent.
    called: HashSet<String>,
}

impl Said {
    fn note(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let header = |name: &str| text.split_once(&format!("\r\n{name}: ")).map(|(_, rest)| &rest[..36]);
        let id = |name: &str| header(name).and_then(|id| id.parse::<Uuid>().ok());
        if text.starts_with("http/1.1 202") {
            self.accepted.extend(id("ringback-task"));
        } else if text.starts_with("post /hook") {
            self.announced.extend(id("webhook-id"));
        } else if text.starts_with(&format!("post {PREFIX}")) {
            self.called.extend(text.split(' ').nth(1).map(str::to_owned));
        }
    }

    /// Checks it against the store in `data_dir`, which it changes as an opening does.
    fn is_true_of(&self, data_dir: &Path) -> Result<(), String> {
        let path = data_dir.join("ringback.db");
        if !path.exists() {
            return if self.accepted.is_empty() { Ok(()) } else { Err("there is no store".to_owned()) };
        }
        let store = Connection::open(&path).map_err(|error| error.to_string())?;
        let check = || -> rusqlite::Result<Result<(), String>> {
            let sound: String = store.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            if sound != "ok" {
                return Ok(Err(sound));
            }
            for id in &self.accepted {
                let sql = "SELECT 1 FROM task WHERE task_id = ?1";
                if !store.prepare_cached(sql)?.exists([id.as_bytes()])? {
                    return Ok(Err(format!("{id} was accepted and is lost")));
                }
            }
            for id in &self.announced {
                let sql = "SELECT 1 FROM result JOIN task USING (seq) WHERE task_id = ?1";
                if !store.prepare_cached(sql)?.exists([id.as_bytes()])? {
                    return Ok(Err(format!("{id} was announced and has no result")));
                }
            }
            for path in &self.called {
                let sql = "SELECT EXISTS (SELECT 1 FROM result WHERE result.seq = task.seq)
                               OR EXISTS (SELECT 1 FROM state WHERE state.seq = task.seq AND started > attempts)
                           FROM task WHERE path = ?1";
                let known: Option<bool> =
                    store.prepare_cached(sql)?.query_row([path], |row| row.get(0)).optional()?;
                if known != Some(true) {
                    return Ok(Err(format!("{path} was called, and the store does not know")));
                }
            }
            Ok(Ok(()))
        };
        let empty = self.accepted.is_empty();
        match check() {
            Ok(verdict) => verdict,
            // Before the first 202 the schema may not be there.
            Err(error) if empty && error.to_string().contains("no such table") => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A life of a node with one of everything, recorded; it ends by a kill. With `trouble`, a sync fails now
/// and then.
async fn record(
    edge: &Edge,
    upstream: &Upstream,
    receiver: &Receiver,
    mut trouble: Option<StdRng>,
) -> Vec<u8> {
    upstream.script(&format!("{PREFIX}/large"), [Reply::new(200).zeros(LARGE)]);
    upstream.script(&format!("{PREFIX}/retried"), [Reply::new(503), Reply::ok("done")]);
    receiver.peer().script("/hook/retried", [Reply::new(500), Reply::new(204).bodyless()]);
    let node = edge.recording(Setup::new(upstream)).start().await;
    let submit = async |method: Method, name: &str| {
        let target = format!("{PREFIX}/{name}?{}", receiver.query(&format!("/hook/{name}")));
        eventually("the store takes a call", async || {
            let answer = node.call(method.clone(), &target).body("body").send().await;
            (!is_unavailable(&answer)).then(|| Task::from(&answer))
        })
        .await
    };
    let mut disturb = || {
        if let Some(rng) = &mut trouble {
            let first = rng.random_range(1..4);
            edge.fail(Fault { kinds: SYNC, first, count: 1, error: EIO, when: When::Before });
        }
    };
    disturb();
    let mut tasks = vec![submit(Method::POST, "first").await, submit(Method::PUT, "retried").await];
    for number in 0..6 {
        disturb();
        let (one, other) = (format!("a{number}"), format!("b{number}"));
        tasks
            .extend(<[Task; 2]>::from(tokio::join!(submit(Method::POST, &one), submit(Method::GET, &other))));
    }
    disturb();
    tasks.push(submit(Method::GET, "large").await);
    node.finished(&tasks[tasks.len() - 1]).await;
    for number in 0..4 {
        disturb();
        tasks.push(submit(Method::POST, &format!("c{number}")).await);
    }
    for task in &tasks {
        assert_eq!(node.finished(task).await.status, 200);
        receiver.wait_for_task(&task.id, 1).await;
    }
    node.results(&tasks[1]).send().await;
    eventually("nothing is owed", async || (node.rows()["delivery"] == 0).then_some(())).await;
    let setup = node.kill9().await;
    drop(setup);
    std::fs::read(edge.trace()).expect("there is a record")
}

/// A record and the seed of what is cut from it. A failing test keeps the record, says where, and plays
/// the same again when told the two.
struct Recorded {
    seed: u64,
    trace: Vec<u8>,
}

impl Recorded {
    async fn new(upstream: &Upstream, with_trouble: bool) -> Self {
        let told = |name| std::env::var(name).ok();
        let seed = told("RINGBACK_SEED").and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
        let trace = if let Some(path) = told("RINGBACK_TRACE") {
            std::fs::read(path).expect("the record can be read")
        } else {
            let trouble = with_trouble.then(|| StdRng::seed_from_u64(seed));
            record(&Edge::new(), upstream, &Receiver::start().await, trouble).await
        };
        Self { seed, trace }
    }

    fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-{}.trace", self.seed));
            let kept = std::fs::write(&path, &self.trace);
            eprintln!(
                "the same again: RINGBACK_SEED={} RINGBACK_TRACE={} ({kept:?})",
                self.seed,
                path.display()
            );
        }
    }
}

/// Plays the record and calls `look` where the power could fail, with the disk and what was said.
fn play(ops: &[Op], mut look: impl FnMut(usize, &Disk, &Said)) {
    let (mut disk, mut said) = (Disk::default(), Said::default());
    for (number, op) in ops.iter().enumerate() {
        // Between two writes nothing was said and nothing became durable.
        if matches!(op, Op::Sync(_) | Op::SyncNames(_) | Op::Sent(_)) || number % 16 == 0 {
            look(number, &disk, &said);
        }
        match op {
            Op::Sent(bytes) => said.note(bytes),
            op => disk.apply(op),
        }
    }
    look(ops.len(), &disk, &said);
}

async fn cut_everywhere(with_trouble: bool) {
    let recorded = Recorded::new(&Upstream::start().await, with_trouble).await;
    let (ops, mut rng) = (disk::read(&recorded.trace), recorded.rng());
    let failed = ops.iter().filter(|op| matches!(op, Op::Forget(_))).count();
    assert_eq!(failed > 5, with_trouble, "{failed} syncs failed");
    let mut cuts = 0;
    let (mut most, mut announced, mut called) = (0, 0, 0);
    play(&ops, |number, disk, said| {
        let lost = [Lost::Everything, Lost::Some(rng.random())][cuts % 2];
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        disk.cut(lost, dir.path());
        if let Err(why) = said.is_true_of(&dir.path().join("data")) {
            panic!("power cut before record {number} of {}, lost {lost:?}: {why}", ops.len());
        }
        cuts += 1;
        most = most.max(said.accepted.len());
        announced = announced.max(said.announced.len());
        called = called.max(said.called.len());
    });
    assert_eq!((most, announced, called), (19, 19, 11), "the record holds what was said");
    assert!(cuts > 200, "{cuts} cuts");
}

#[tokio::test]
async fn whatever_was_said_before_a_power_cut_is_true_after_it() {
    cut_everywhere(false).await;
}

/// A sync that fails makes Linux forget what it was for: the next one would succeed without it.
#[tokio::test]
async fn whatever_was_said_between_failed_syncs_is_true_after_a_power_cut() {
    cut_everywhere(true).await;
}

/// Starts a real node on what a cut left, in a directory of its own.
async fn start_after(disk: &Disk, lost: Lost, upstream: &Upstream) -> (tempfile::TempDir, Node) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    disk.cut(lost, dir.path());
    let data_dir = dir.path().join("data").display().to_string();
    let node = Setup::new(upstream).set("server.data_dir", data_dir).start().await;
    (dir, node)
}

#[tokio::test]
async fn after_a_power_cut_a_node_finishes_what_it_had_accepted() {
    let upstream = Upstream::start().await;
    let recorded = Recorded::new(&upstream, false).await;
    let (ops, mut rng) = (disk::read(&recorded.trace), recorded.rng());
    let (mut first, mut later) = (Vec::new(), Vec::new());
    play(&ops, |_, disk, said| {
        let cut = if said.accepted.is_empty() { &mut first } else { &mut later };
        cut.push((disk.clone(), said.clone()));
    });
    for cuts in [first, later] {
        for part in 0..8 {
            let at = cuts.len() * part / 8 + rng.random_range(0..cuts.len() / 8);
            let (disk, said) = &cuts[at];
            let lost = if part % 2 == 0 { Lost::Everything } else { Lost::Some(rng.random()) };
            let (dir, node) = start_after(disk, lost, &upstream).await;
            for id in &said.accepted {
                let id = id.to_string();
                let task = Task { results_uri: format!("http://node{PREFIX}/results/{id}"), id };
                assert_eq!(node.finished(&task).await.status, 200);
            }
            let task = node.submit(node.get("/after?async=true")).await;
            assert_eq!(node.finished(&task).await.status, 200);
            assert_eq!(store::damage(&dir.path().join("data")), None);
        }
    }
}

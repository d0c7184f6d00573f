//! The n-th write, sync or read of a whole day's work fails, for every n: before its effect, after it, or in
//! mid-write. Whatever was answered with 202 comes to its right end by itself, whatever was refused with 503
//! is never called, and no call and no webhook is made once too often.

use http::Method;

use crate::support::client::Answer;
use crate::support::edge::{EIO, ENOSPC, Edge, Fault, READ, SYNC, WRITE, When};
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::{Peer, Upstream};
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, store};

/// More than two chunks, so that some are staged before the result is written.
const LARGE: u64 = 600_000;

pub struct World {
    pub edge: Edge,
    pub upstream: Upstream,
    pub receiver: Receiver,
}

impl World {
    pub async fn start() -> (Self, Node) {
        let (edge, upstream, receiver) = (Edge::new(), Upstream::start().await, Receiver::start().await);
        let setup = edge.before(Setup::new(&upstream).set("upstreams.0.concurrency", 16));
        (Self { edge, upstream, receiver }, setup.start().await)
    }

    fn hook(&self, name: &str) -> String {
        self.receiver.query(&format!("/hook{name}"))
    }
}

/// A 503 as a store that cannot work says it.
#[track_caller]
pub fn is_unavailable(answer: &Answer) -> bool {
    if answer.status != 503 {
        return false;
    }
    answer.is_refusal(503, "store_unavailable");
    assert!(answer.header("retry-after").is_some(), "it says when to come back");
    true
}

/// Asks until it is not refused. Each try has a path of its own, `{path}/{try}`; the paths of the refused
/// ones, and the answer.
async fn insist(node: &Node, method: Method, path: &str, query: &str) -> (Vec<String>, String, Answer) {
    let mut refused = Vec::new();
    eventually("the store takes a call", async || {
        let tried = format!("{path}/{}", refused.len());
        // A key that a refused call had left behind would not go with another path.
        let call = node.call(method.clone(), &format!("{PREFIX}{tried}?{query}"));
        let answer = call.header("idempotency-key", path).send().await;
        if is_unavailable(&answer) {
            refused.push(tried);
            return None;
        }
        Some((std::mem::take(&mut refused), tried, answer))
    })
    .await
}

/// Asks for a result until the store can be read; then it is what `answer` says.
async fn read(node: &Node, task: &Task, method: Method) -> Answer {
    eventually("the store answers", async || {
        // An answer whose later chunk cannot be read breaks off; it never ends as if it were whole.
        let answer = node.call(method.clone(), task.path()).try_send().await.ok()?;
        (!is_unavailable(&answer)).then_some(answer)
    })
    .await
}

async fn ended(node: &Node, task: &Task) -> Answer {
    eventually(&format!("the task {} is finished", task.id), async || {
        Some(read(node, task, Method::GET).await).filter(|answer| answer.status != 202)
    })
    .await
}

fn calls(peer: &Peer, path: &str) -> usize {
    peer.calls_of(path).len()
}

/// One of everything, under whatever fault is set: a call that is retried and whose webhook is refused
/// once, an unsafe call, an answer in several chunks, a failure, a cancellation, an erasure. Names are
/// made of `round`.
async fn work(world: &World, node: &Node, round: &str) {
    let World { upstream, receiver, .. } = world;
    let name = |what: &str| format!("/{round}/{what}");
    let gate = Gate::closed();
    // The store may fail for as many tries as it likes; the script is for the one that is accepted.
    for number in 0..100 {
        let at = |what: &str| format!("{PREFIX}/{round}/{what}/{number}");
        upstream.script(&at("retried"), [Reply::new(503), Reply::ok("done")]);
        upstream.script(&at("large"), [Reply::new(200).zeros(LARGE)]);
        upstream.script(&at("failed"), [Reply::json(404, r#"{"error":"none","error_description":"No."}"#)]);
        upstream.script(&at("held"), [Reply::ok("late").behind(&gate)]);
    }
    receiver.peer().script(&format!("/hook/{round}/retried"), [Reply::new(500), Reply::new(204).bodyless()]);
    let submit = async |method: Method, what: &str| {
        let path = name(what);
        let (refused, taken, answer) = insist(node, method, &path, &world.hook(&path)).await;
        (refused, taken, Task::from(&answer))
    };
    let (retried, unsafe_one, large, failed, held) = tokio::join!(
        submit(Method::GET, "retried"),
        submit(Method::POST, "unsafe"),
        submit(Method::GET, "large"),
        submit(Method::GET, "failed"),
        submit(Method::GET, "held"),
    );
    let cancelled = read(node, &held.2, Method::DELETE).await;
    let of_large = ended(node, &large.2).await;
    assert_eq!((of_large.status, of_large.body.len() as u64), (200, LARGE), "{round}");
    let erased = read(node, &large.2, Method::DELETE).await;
    world.edge.heal();
    gate.open();

    // A cancellation may be written although its answer is lost; then the second one finds it so.
    assert_eq!(cancelled.json()["error"], "cancelled", "{round}");
    assert!([200, 204, 410].contains(&erased.status), "{round}: {}", erased.status);
    let status = |answer: &Answer| answer.header("ringback-status").map(str::to_owned);
    for (task, expected) in
        [(&retried.2, "Succeeded"), (&unsafe_one.2, "Succeeded"), (&failed.2, "Failed"), (&held.2, "Failed")]
    {
        assert_eq!(status(&ended(node, task).await).as_deref(), Some(expected), "{round}");
    }
    assert_eq!(ended(node, &large.2).await.status, 410, "{round}");
    let again = node.call(Method::POST, &format!("{PREFIX}{}?{}", unsafe_one.1, world.hook(&name("unsafe"))));
    let again = node.submit(again.header("idempotency-key", &name("unsafe"))).await;
    assert_eq!(again.id, unsafe_one.2.id, "{round}: its key is known");
    for (refused, taken, task, times, tries) in [
        (&retried.0, &retried.1, &retried.2, 2, 2),
        (&unsafe_one.0, &unsafe_one.1, &unsafe_one.2, 1, 1),
        (&large.0, &large.1, &large.2, 1, 1),
        (&failed.0, &failed.1, &failed.2, 1, 1),
        (&held.0, &held.1, &held.2, usize::MAX, 1),
    ] {
        receiver.wait_for_task(&task.id, tries).await;
        let called = calls(upstream, &format!("{PREFIX}{taken}"));
        assert!(called == times || times == usize::MAX && called <= 1, "{round} {taken}: {called} calls");
        for path in refused {
            assert_eq!(calls(upstream, &format!("{PREFIX}{path}")), 0, "{round} {path} was refused");
        }
        assert_eq!(receiver.tries_for(&task.id).len(), tries, "{round} {taken}");
    }
}

/// Nothing is owed, nothing half-written, and the file is sound; also after a restart.
async fn at_rest(node: Node) {
    let data_dir = node.data_dir();
    let idle = |rows: &store::Rows| ["state", "request", "delivery"].iter().all(|table| rows[*table] == 0);
    eventually("nothing is owed", async || idle(&node.rows()).then_some(())).await;
    assert_eq!(store::damage(&data_dir), None);
    assert_eq!(store::stray_chunks(&data_dir), 0);
    let (setup, ended) = node.terminate().await;
    assert_eq!(ended.status.code(), Some(0));
    let before = store::content(&data_dir);
    let node = setup.start().await;
    assert_eq!(store::content(&data_dir), before);
    drop(node);
}

/// Lets call `first` of the work fail, then a later one, until the work is over before it comes.
async fn sweep(kinds: i64, step: usize, error: i64, when: When) {
    let (world, node) = World::start().await;
    Box::pin(work(&world, &node, "warm")).await;
    let mut rounds = 0;
    for first in (1..).step_by(step) {
        // Alone, and with the ones that follow.
        let count = [1, 1, 5][rounds % 3];
        world.edge.fail(Fault { kinds, first, count, error, when });
        Box::pin(work(&world, &node, &format!("{first}"))).await;
        rounds += 1;
        if world.edge.hits() == 0 {
            break;
        }
    }
    assert!(rounds > 2, "no call failed");
    at_rest(node).await;
}

#[tokio::test]
async fn every_sync_that_fails_leaves_nothing_lost_or_doubled() {
    sweep(SYNC, 1, EIO, When::Before).await;
}

#[tokio::test]
async fn every_sync_that_fails_although_it_was_done_leaves_nothing_lost_or_doubled() {
    sweep(SYNC, 1, EIO, When::After).await;
}

#[tokio::test]
async fn writes_that_fail_leave_nothing_lost_or_doubled() {
    sweep(WRITE, 17, EIO, When::Before).await;
}

#[tokio::test]
async fn writes_that_fail_although_they_were_done_leave_nothing_lost_or_doubled() {
    sweep(WRITE, 19, EIO, When::After).await;
}

#[tokio::test]
async fn writes_that_break_off_on_a_full_disk_leave_nothing_lost_or_doubled() {
    sweep(WRITE, 23, ENOSPC, When::Half).await;
}

#[tokio::test]
async fn reads_that_fail_leave_nothing_lost_or_doubled() {
    sweep(READ, 3, EIO, When::Before).await;
}

/// What was refused may have reached the disk before the error: then a kill makes a task of it, once.
#[tokio::test]
async fn a_kill_while_the_disk_fails_loses_nothing_that_was_accepted() {
    let (world, mut node) = World::start().await;
    for (round, when) in [When::Before, When::After, When::Before, When::After].into_iter().enumerate() {
        let submit = async |name: &str| {
            node.post(&format!("/{round}/{name}?{}", world.hook("/x"))).body("pay").send().await
        };
        let mut accepted = Vec::new();
        for number in 0..5 {
            accepted.push(Task::from(&submit(&format!("accepted/{number}")).await));
        }
        world.edge.fail_all(SYNC, EIO, when);
        for number in 0..5 {
            assert!(is_unavailable(&submit(&format!("refused/{number}")).await));
        }
        let setup = node.kill9().await;
        world.edge.heal();
        node = setup.start().await;
        for task in &accepted {
            node.finished(task).await;
            world.receiver.wait_for_task(&task.id, 1).await;
        }
    }
    at_rest(node).await;
    for call in world.upstream.calls() {
        assert_eq!(calls(&world.upstream, call.path()), 1, "{} was sent twice", call.path());
    }
}

#[tokio::test]
async fn retention_goes_on_when_the_store_can_be_written_again() {
    let (edge, upstream) = (Edge::new(), Upstream::start().await);
    let setup = Setup::new(&upstream).set("retention.results", "1s").set("retention.tasks", "1s");
    let node = edge.before(setup).start().await;
    let task = node.submit(node.get("/x?async=true")).await;
    assert_eq!(node.finished(&task).await.header("ringback-status"), Some("Succeeded"));
    edge.fail_all(WRITE | SYNC, EIO, When::Before);
    eventually("retention was in vain", async || (edge.hits() > 0).then_some(())).await;
    assert_eq!(node.results(&task).send().await.status, 200);
    edge.heal();
    eventually("the task is gone", async || (node.results(&task).send().await.status == 404).then_some(()))
        .await;
    assert_eq!(node.rows()["task"], 0);
}

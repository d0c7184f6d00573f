//! The wall clock is set hours ahead and back, under a running node and between two of its lives. What is
//! due comes when it is due, and comes once.

use http::Method;

use crate::support::edge::Edge;
use crate::support::eventually;
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::Reply;

struct World {
    edge: Edge,
    upstream: Upstream,
    receiver: Receiver,
}

impl World {
    /// A world, and a node in it whose every retry takes a second.
    async fn start() -> (Self, Setup) {
        let (edge, upstream, receiver) = (Edge::new(), Upstream::start().await, Receiver::start().await);
        let setup = Setup::new(&upstream)
            .set("upstreams.0.retry.delays", vec!["1s"; 3])
            .set("upstreams.0.retry.deadline", "30h")
            .set("webhooks.delays", vec!["1s"; 3]);
        let setup = edge.before(setup);
        (Self { edge, upstream, receiver }, setup)
    }

    fn machine_seconds() -> i64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        i64::try_from(now.expect("after 1970").as_secs()).expect("before the year 292 billion")
    }

    /// How many hours ahead of this machine the last webhook was signed.
    fn hours_ahead(&self) -> i64 {
        let tries = self.receiver.tries();
        let last = tries.last().expect("a webhook came");
        let signed: i64 = last.header("webhook-timestamp").expect("it is signed").parse().expect("seconds");
        (signed - Self::machine_seconds() + 1_800).div_euclid(3_600)
    }
}

async fn jumps_while_running(hours: i64) {
    let (world, setup) = World::start().await;
    world.upstream.always([Reply::new(503), Reply::new(503), Reply::ok("done")]);
    world.receiver.answers([Reply::new(500), Reply::new(500), Reply::new(204).bodyless()]);
    let node = setup.start().await;
    let call = node.post(&format!("/x?{}", world.receiver.query("/hook")));
    let task = node.submit(call.header("idempotency-key", "one")).await;
    world.upstream.wait_for_calls(1).await;
    world.edge.set_clock(hours);
    world.upstream.wait_for_calls(2).await;
    world.edge.set_clock(0);
    world.receiver.wait_for(1).await;
    world.edge.set_clock(hours);
    world.receiver.wait_for(3).await;
    assert_eq!(world.hours_ahead(), hours, "the node's wall clock was really set");
    assert_eq!(node.finished(&task).await.header("ringback-status"), Some("Succeeded"));
    let call = node.post(&format!("/x?{}", world.receiver.query("/hook")));
    let again = node.submit(call.header("idempotency-key", "one")).await;
    assert_eq!(again.id, task.id, "the key is still known");
    eventually("nothing is owed", async || (node.rows()["delivery"] == 0).then_some(())).await;
    assert_eq!((world.upstream.calls().len(), world.receiver.tries().len()), (3, 3));
}

#[tokio::test]
async fn a_clock_set_ahead_neither_stalls_nor_storms() {
    jumps_while_running(6).await;
}

#[tokio::test]
async fn a_clock_set_back_neither_stalls_nor_storms() {
    jumps_while_running(-6).await;
}

/// Sets the clock while the node is down and a retry and a webhook are waiting.
async fn jumps_between_lives(before: i64, after: i64) {
    let (world, setup) = World::start().await;
    world.upstream.script(&format!("{PREFIX}/retried"), [Reply::new(503), Reply::ok("done")]);
    world.receiver.peer().script("/hook/announced", [Reply::new(500), Reply::new(204).bodyless()]);
    world.edge.set_clock(before);
    let setup = setup.set("upstreams.0.retry.delays", vec!["4s"; 3]).set("webhooks.delays", vec!["4s"; 3]);
    let node = setup.start().await;
    let submit = async |node: &Node, name: &str| {
        let query = world.receiver.query(&format!("/hook/{name}"));
        node.submit(node.call(Method::GET, &format!("{PREFIX}/{name}?{query}"))).await
    };
    let announced = submit(&node, "announced").await;
    world.receiver.wait_for(1).await;
    let retried = submit(&node, "retried").await;
    node.reaches(&retried, "Queued").await;
    eventually("both wait for their next try", async || (node.rows()["attempt"] == 2).then_some(())).await;
    let setup = node.kill9().await;
    world.edge.set_clock(after);
    let node = setup.start().await;
    assert_eq!(node.finished(&retried).await.header("ringback-status"), Some("Succeeded"));
    world.receiver.wait_for_task(&retried.id, 1).await;
    world.receiver.wait_for_task(&announced.id, 2).await;
    eventually("nothing is owed", async || (node.rows()["delivery"] == 0).then_some(())).await;
    assert_eq!(world.upstream.calls_of(&format!("{PREFIX}/retried")).len(), 2);
    assert_eq!((world.upstream.calls().len(), world.receiver.tries().len()), (3, 3));
    // What comes after is as prompt.
    let later = submit(&node, "later").await;
    world.receiver.wait_for_task(&later.id, 1).await;
}

#[tokio::test]
async fn a_clock_set_back_while_the_node_is_down_stalls_nothing() {
    jumps_between_lives(6, 0).await;
}

#[tokio::test]
async fn a_clock_set_ahead_while_the_node_is_down_storms_nothing() {
    jumps_between_lives(0, 6).await;
}

#[tokio::test]
async fn a_clock_set_back_by_days_forgets_no_idempotency_key() {
    let (world, setup) = World::start().await;
    // Short, so that retention comes by often.
    let setup = setup.set("retention.results", "1s").set("retention.idempotency_keys", "24h");
    let node = setup.start().await;
    world.edge.set_clock(-48);
    let submit = async || node.submit(node.post("/x?async=true").header("idempotency-key", "one")).await;
    let task = submit().await;
    eventually("retention came by", async || (node.results(&task).send().await.status == 410).then_some(()))
        .await;
    assert_eq!(submit().await.id, task.id);
    assert_eq!(world.upstream.calls().len(), 1);
}

/// Sets the clock ahead under a running node, lets it write something, kills it and starts it again.
async fn set_ahead_then_started_again(world: &World, node: Node, hours: i64) -> Node {
    world.edge.set_clock(hours);
    node.submit(node.get("/later?async=true")).await;
    node.kill9().await.start().await
}

#[tokio::test]
async fn a_clock_set_ahead_and_a_restart_forget_no_idempotency_key() {
    let (world, setup) = World::start().await;
    let setup = setup.set("retention.results", "1s").set("retention.idempotency_keys", "24h");
    let node = setup.start().await;
    let submit = async |node: &Node| {
        let call = node.post("/x?async=true").header("idempotency-key", "one");
        node.submit(call).await
    };
    let task = submit(&node).await;
    world.upstream.wait_for_calls(1).await;
    let node = set_ahead_then_started_again(&world, node, 48).await;
    let after = node.submit(node.get("/after?async=true")).await;
    eventually("retention came by", async || (node.results(&after).send().await.status == 410).then_some(()))
        .await;
    assert_eq!(submit(&node).await.id, task.id);
    assert_eq!(world.upstream.calls_of(&format!("{PREFIX}/x")).len(), 1);
}

#[tokio::test]
async fn a_clock_set_ahead_and_a_restart_pass_no_deadline() {
    let (world, setup) = World::start().await;
    world.upstream.script(&format!("{PREFIX}/retried"), [Reply::new(503), Reply::ok("done")]);
    let node = setup.set("upstreams.0.retry.delays", vec!["4s"; 3]).start().await;
    let retried = node.submit(node.get("/retried?async=true")).await;
    eventually("it waits for its next try", async || (node.rows()["attempt"] == 1).then_some(())).await;
    let node = set_ahead_then_started_again(&world, node, 48).await;
    assert_eq!(node.finished(&retried).await.header("ringback-status"), Some("Succeeded"));
}

//! Calls that carry an `Idempotency-Key`: sent again, they are the same task.

use futures_util::future::join_all;

use http::Method;

use crate::support::client::{Answer, Call};
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, store};

/// Each token is somebody else.
fn with_tokens(upstream: &Upstream) -> Setup {
    Setup::new(upstream).set("upstreams.0.identity.mode", "opaque")
}

fn pay(node: &Node, key: &str) -> Call {
    node.post("/payments?async=true").bearer("john").header("idempotency-key", key).body("10 to jane")
}

fn id(answer: &Answer) -> String {
    Task::from(answer).id
}

#[tokio::test]
async fn the_same_call_with_the_same_key_is_the_same_task_and_the_same_answer() {
    let upstream = Upstream::start().await;
    let node = with_tokens(&upstream).start().await;

    let first = pay(&node, "key-1").send().await;
    let queued = pay(&node, "key-1").send().await;
    let task = Task::from(&first);
    eventually("the task is finished", async || {
        (node.results(&task).bearer("john").send().await.status == 200).then_some(())
    })
    .await;
    let finished = pay(&node, "key-1").send().await;

    for again in [&queued, &finished] {
        assert_eq!((again.status, &again.body), (202, &first.body));
        for header in ["location", "ringback-task", "content-type"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
    }
    assert_eq!(upstream.only_call().header("idempotency-key"), Some("key-1"), "the key goes upstream");
}

#[tokio::test]
async fn identical_calls_at_the_same_time_make_one_task_and_one_upstream_call() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("paid").behind(&gate)]);
    let node = with_tokens(&upstream).start().await;

    let answers = join_all((0..40).map(|_| pay(&node, "key-1").send())).await;

    let ids: Vec<_> = answers.iter().map(id).collect();
    assert!(ids.iter().all(|one| *one == ids[0]), "{ids:?}");
    assert_eq!(node.rows()["task"], 1);
    gate.open();
    let task = Task::from(&answers[0]);
    eventually("the task is finished", async || {
        (node.results(&task).bearer("john").send().await.status == 200).then_some(())
    })
    .await;
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn another_call_with_the_same_key_is_refused_and_stores_nothing() {
    let upstream = Upstream::start().await;
    let node = with_tokens(&upstream).start().await;
    let task = Task::from(&pay(&node, "key-1").send().await);
    eventually("the task is finished", async || {
        (node.results(&task).bearer("john").send().await.status == 200).then_some(())
    })
    .await;
    let before = store::content(&node.data_dir());
    let others = [
        ("method", node.call(Method::PUT, &format!("{PREFIX}/payments?async=true")).body("10 to jane")),
        ("path", node.post("/payments/?async=true").body("10 to jane")),
        ("query", node.post("/payments?async=true&dry=1").body("10 to jane")),
        ("empty query value", node.post("/payments?async=true&=").body("10 to jane")),
        ("body", node.post("/payments?async=true").body("11 to jane")),
        ("no body", node.post("/payments?async=true")),
    ];
    for (what, call) in others {
        let answer = call.bearer("john").header("idempotency-key", "key-1").send().await;
        assert_eq!(answer.status, 422, "{what}");
        answer.is_refusal(422, "idempotency_key_reused");
    }
    assert_eq!(store::content(&node.data_dir()), before);
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn a_key_belongs_to_its_credentials() {
    let upstream = Upstream::start().await;
    let node = with_tokens(&upstream).start().await;
    let call = |token: &str| {
        node.post("/payments?async=true").bearer(token).header("idempotency-key", "key-1").body("pay")
    };
    let johns = id(&call("john").send().await);
    let janes = id(&call("jane").send().await);
    assert_ne!(johns, janes);
    assert_eq!(id(&call("jane").send().await), janes);
    upstream.wait_for_calls(2).await;
}

#[tokio::test]
async fn a_key_belongs_to_its_upstream() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    let node = Setup::new(&upstream).add_upstream("other", "/other", &other.uri("/other")).start().await;
    let call = |path: &str| node.call(Method::POST, path).header("idempotency-key", "key-1").body("pay");
    let first = id(&call(&format!("{PREFIX}/x?async=true")).send().await);
    let second = id(&call("/other/x?async=true").send().await);
    assert_ne!(first, second);
    other.wait_for_calls(1).await;
}

#[tokio::test]
async fn calls_without_a_key_are_never_the_same() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let first = id(&node.post("/payments?async=true").body("pay").send().await);
    let second = id(&node.post("/payments?async=true").body("pay").send().await);
    assert_ne!(first, second);
    assert_eq!(node.rows()["idempotency"], 0);
}

#[tokio::test]
async fn another_webhook_uri_does_not_make_another_call() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    let call = |path: &str| {
        node.post(&format!("/pay?{}", receiver.query(path))).header("idempotency-key", "key-1").body("pay")
    };
    let first = id(&call("/first").send().await);
    assert_eq!(id(&call("/second").send().await), first);
    assert_eq!(receiver.wait_for(1).await[0].path(), "/first");
}

#[tokio::test]
async fn a_key_of_the_wrong_form_is_refused_before_anything_is_stored() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let before = node.rows();
    let too_long = "k".repeat(256);
    for key in ["", "two words", "tab\tbed", too_long.as_str()] {
        let call = node.post("/pay?async=true").header("idempotency-key", key).body("pay");
        call.send().await.is_refusal(400, "validation_error");
    }
    let umlaut = b"POST /data/v1/pay?async=true HTTP/1.1\r\nhost: a\r\nidempotency-key: k\xc3\xbc\r\n\
                   content-length: 0\r\nconnection: close\r\n\r\n";
    let answer = crate::support::client::raw(node.address(), umlaut).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("validation_error"), "{answer}");
    assert_eq!(node.rows(), before);
    upstream.saw_nobody();
}

#[tokio::test]
async fn the_longest_key_is_accepted() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let key = "~".repeat(255);
    let call = || node.post("/pay?async=true").header("idempotency-key", &key).body("pay");
    assert_eq!(id(&call().send().await), id(&call().send().await));
}

#[tokio::test]
async fn several_keys_are_refused() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let call = node.post("/pay?async=true").header("idempotency-key", "k").header("idempotency-key", "k");
    call.body("pay").send().await.is_refusal(400, "validation_error");
    assert_eq!(node.rows()["task"], 0);
}

#[tokio::test]
async fn a_proxied_call_may_carry_any_key() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for _ in 0..2 {
        let answer = node.post("/pay").header("idempotency-key", "two words").body("pay").send().await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(upstream.calls().len(), 2);
}

#[tokio::test]
async fn the_key_itself_is_not_kept() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let task = Task::from(
        &node
            .post("/pay?async=true")
            .header("idempotency-key", "find-me-if-you-can")
            .body("pay")
            .send()
            .await,
    );
    node.finished(&task).await;
    let data_dir = node.data_dir();
    let (_setup, _ended) = node.terminate().await;
    for entry in std::fs::read_dir(data_dir).expect("the data directory is there") {
        let content = std::fs::read(entry.expect("an entry").path()).unwrap_or_default();
        assert!(!content.windows(18).any(|bytes| bytes == b"find-me-if-you-can"));
    }
}

#[tokio::test]
async fn a_key_outlives_a_crash() {
    let upstream = Upstream::start().await;
    let node = with_tokens(&upstream).start().await;
    let first = id(&pay(&node, "key-1").send().await);
    let node = node.kill9().await.start().await;
    assert_eq!(id(&pay(&node, "key-1").send().await), first);
}

#[tokio::test]
async fn after_its_retention_a_key_is_as_good_as_new() {
    let upstream = Upstream::start().await;
    let node = with_tokens(&upstream).set("retention.idempotency_keys", "1s").start().await;
    let first = id(&pay(&node, "key-1").send().await);
    eventually("the key is forgotten", async || (node.rows()["idempotency"] == 0).then_some(())).await;
    assert_ne!(id(&pay(&node, "key-1").send().await), first);
}

/// A node whose queue is full of john's one payment, which is in flight.
async fn full(limit: &str) -> (Upstream, Gate, Node, Task) {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("paid").behind(&gate)]);
    let node = with_tokens(&upstream).set(limit, 1).start().await;
    let task = Task::from(&pay(&node, "key-1").send().await);
    upstream.wait_for_calls(1).await;
    (upstream, gate, node, task)
}

#[tokio::test]
async fn a_repeated_call_gets_its_202_although_the_backlog_is_full() {
    for limit in ["server.max_queued_tasks", "server.max_queued_per_credentials"] {
        let (upstream, gate, node, task) = full(limit).await;
        let again = pay(&node, "key-1").send().await;
        assert_eq!((again.status, id(&again)), (202, task.id), "{limit}");
        let other = pay(&node, "key-1").body("11 to jane").send().await;
        other.is_refusal(422, "idempotency_key_reused");
        assert_eq!(node.rows()["task"], 1);
        gate.open();
        assert_eq!(upstream.calls().len(), 1);
    }
}

#[tokio::test]
async fn a_new_key_is_refused_while_the_backlog_is_full_before_its_body_is_read() {
    let (_upstream, gate, node, _) = full("server.max_queued_tasks").await;
    let before = node.rows();
    // No byte of the body is ever sent.
    let head = format!(
        "POST {PREFIX}/payments?async=true HTTP/1.1\r\nhost: a\r\nauthorization: Bearer john\r\n\
         idempotency-key: key-2\r\ncontent-length: 1000\r\n\r\n"
    );
    let answer = crate::support::client::raw(node.address(), head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("backlog_full"), "{answer}");
    let janes = node.post("/payments?async=true").bearer("jane").header("idempotency-key", "key-1");
    janes.body("10 to jane").send().await.is_refusal(503, "backlog_full");
    assert_eq!(node.rows(), before);
    gate.open();
}

#[tokio::test]
async fn a_new_key_is_refused_while_its_callers_backlog_is_full() {
    let (_upstream, gate, node, _) = full("server.max_queued_per_credentials").await;
    let before = node.rows();
    pay(&node, "key-2").send().await.is_refusal(429, "credentials_backlog_full");
    assert_eq!(node.rows(), before);
    gate.open();
}

#[tokio::test]
async fn a_repeated_call_that_waits_gets_the_answer_of_the_first() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::json(201, r#"{"paid":true}"#).behind(&gate)]);
    let node = with_tokens(&upstream).start().await;
    let task = Task::from(&pay(&node, "key-1").send().await);
    upstream.wait_for_calls(1).await;
    let waits =
        || node.post("/payments").bearer("john").header("idempotency-key", "key-1").body("10 to jane");
    let both = (0..2).map(|_| tokio::spawn(waits().header("prefer", "respond-async, wait=60").send()));
    let both: Vec<_> = both.collect();
    gate.open();
    for waiting in both {
        let answer = waiting.await.expect("it was answered");
        assert_eq!((answer.status, answer.body.as_ref()), (201, br#"{"paid":true}"#.as_slice()));
        assert_eq!(answer.header("ringback-task"), Some(task.id.as_str()));
    }
    let later = waits().header("prefer", "respond-async, wait=60").send().await;
    assert_eq!((later.status, later.header("preference-applied")), (201, Some("wait=60")));
    assert_eq!((upstream.calls().len(), node.rows()["task"]), (1, 1));
}

#[tokio::test]
async fn a_repeated_call_whose_result_was_erased_is_the_same_task_and_is_not_sent_again() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("paid")]);
    let node = with_tokens(&upstream).start().await;
    let task = Task::from(&pay(&node, "key-1").send().await);
    let results = |method| node.call(method, task.path()).bearer("john");
    let ended = async || (results(Method::GET).send().await.status == 200).then_some(());
    eventually("the task is finished", ended).await;
    assert_eq!(results(Method::DELETE).send().await.status, 204);
    for prefer in ["respond-async", "respond-async, wait=60"] {
        let again = pay(&node, "key-1").header("prefer", prefer).send().await;
        assert_eq!((again.status, id(&again)), (202, task.id.clone()), "{prefer}");
        assert_eq!(again.header("preference-applied"), Some("respond-async"));
    }
    results(Method::GET).send().await.is_refusal(410, "results_expired");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn a_repeated_call_of_a_cancelled_task_is_not_sent_again() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("paid").behind(&gate)]);
    let node = with_tokens(&upstream).start().await;
    let task = Task::from(&pay(&node, "key-1").send().await);
    upstream.wait_for_calls(1).await;
    let delete = node.call(Method::DELETE, task.path()).bearer("john");
    assert_eq!(delete.send().await.json()["error"], "cancelled");
    let again = pay(&node, "key-1").header("prefer", "respond-async, wait=60").send().await;
    assert_eq!((again.status, id(&again)), (202, task.id), "no synchronous call is ever cancelled");
    gate.open();
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn a_repeated_call_gets_its_202_although_the_store_is_full() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("x".repeat(20_000))]);
    let setup = with_tokens(&upstream)
        .set("retention.max_bytes", "1MB")
        .set("retention.results_at_least", "10m")
        .set("upstreams.0.max_result_bytes", "64KB")
        .set("server.max_body_bytes", "64KB");
    let node = setup.start().await;
    let task = Task::from(&pay(&node, "key-1").send().await);
    eventually("the store is full", async || {
        let answer = node.get("/x?async=true").bearer("jane").send().await;
        if answer.status == 202 {
            let task = Task::from(&answer);
            let ended =
                async || (node.results(&task).bearer("jane").send().await.status == 200).then_some(());
            eventually("the task is finished", ended).await;
            return None;
        }
        answer.is_refusal(503, "store_full");
        Some(())
    })
    .await;
    let again = pay(&node, "key-1").send().await;
    assert_eq!((again.status, id(&again)), (202, task.id));
    pay(&node, "key-1").body("11 to jane").send().await.is_refusal(422, "idempotency_key_reused");
    pay(&node, "key-2").send().await.is_refusal(503, "store_full");
}

//! Calls that must not be sent twice: what a caller learns when the answer is missing.

use serde_json::Value;

use crate::support::node::{Node, Setup};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply};

/// The details of a Failed / `outcome_unknown` task, and that its time is one between the two.
fn unknown(failed: &Value, before: jiff::Timestamp, after: jiff::Timestamp) -> Value {
    assert_eq!(failed["error"], "outcome_unknown");
    let details = failed["error_details"].clone();
    assert_eq!((&details["outcome"], &details["attempts"]), (&"unknown".into(), &1.into()));
    let sent_at: jiff::Timestamp =
        details["sent_at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    let millisecond = jiff::SignedDuration::from_millis(1);
    assert!(before - millisecond <= sent_at && sent_at <= after, "{before} {sent_at} {after}");
    details
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[tokio::test]
async fn a_missing_answer_says_when_the_call_was_sent_how_much_of_it_and_that_time_ran_out() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::silence()]);
    let node = Setup::new(&upstream).set("upstreams.0.timeout", "300ms").start().await;
    let before = now();
    let task = node.submit(node.post("/pay?async=true").body("10 to jane")).await;
    let failed = node.failed(&task).await;
    let details = unknown(&failed, before, now());
    assert_eq!((&details["cause"], &details["bytes_sent"]), (&"timeout".into(), &10.into()));
    assert_eq!(details["reason"], "not_repeatable");
}

#[tokio::test]
async fn a_broken_connection_is_told_from_a_timeout() {
    let upstream = Upstream::start().await;
    for reply in [Reply::cut(), Reply::reset(), Reply::new(200).broken_after("a whole answer", 4)] {
        upstream.always([reply]);
        let node = Node::start(&upstream).await;
        let before = now();
        let task = node.submit(node.post("/pay?async=true").body("10 to jane")).await;
        let failed = node.failed(&task).await;
        let details = unknown(&failed, before, now());
        assert_eq!((&details["cause"], &details["bytes_sent"]), (&"connection_lost".into(), &10.into()));
    }
}

#[tokio::test]
async fn a_large_body_counts_chunk_by_chunk_and_an_empty_one_counts_nothing() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::cut()]);
    let node = Node::start(&upstream).await;
    for size in [0_usize, 1, 700_000] {
        let before = now();
        let task = node.submit(node.post("/pay?async=true").body(vec![b'x'; size])).await;
        let failed = node.failed(&task).await;
        assert_eq!(unknown(&failed, before, now())["bytes_sent"], size);
    }
}

#[tokio::test]
async fn after_a_crash_what_is_known_is_said_and_nothing_else() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("paid").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let before = now();
    let task = node.submit(node.post("/pay?async=true").body("10 to jane")).await;
    upstream.wait_for_calls(1).await;
    let sent_before = now();

    let node = node.kill9().await.start().await;

    let failed = node.failed(&task).await;
    let details = unknown(&failed, before, sent_before);
    assert_eq!((&details["cause"], &details["bytes_sent"]), (&"node_stopped".into(), &Value::Null));
    assert_eq!(details["reason"], "interrupted");
}

#[tokio::test]
async fn an_answered_failure_says_nothing_of_a_missing_answer() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(502)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.post("/pay?async=true").body("10 to jane")).await;
    let details = node.failed(&task).await["error_details"].clone();
    assert_eq!((&details["outcome"], &details["upstream_status"]), (&"unknown".into(), &502.into()));
    for absent in ["sent_at", "bytes_sent", "cause"] {
        assert_eq!(details.get(absent), None, "{details}");
    }
}

#[tokio::test]
async fn a_safe_call_without_an_answer_says_how_often_it_was_tried_and_no_more() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::cut()]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    let details = node.failed(&task).await["error_details"].clone();
    assert_eq!(details, serde_json::json!({ "reason": "retries_exhausted", "attempts": 7 }));
}

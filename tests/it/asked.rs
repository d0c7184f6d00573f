//! Identity modes that ask somebody about a token: its issuer, or the upstream.

use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;

use crate::support::issuer::now;
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, within};

/// A node that asks `/introspect` of the second peer.
async fn by_introspection() -> (Upstream, Upstream, Setup) {
    let (upstream, issuer) = (Upstream::start().await, Upstream::start().await);
    let setup = Setup::new(&upstream)
        .set("upstreams.0.identity.mode", "introspection")
        .set("upstreams.0.identity.introspection_url", issuer.uri("/introspect"))
        .set("upstreams.0.identity.client_id", "ringback");
    let secret = setup.write("client-secret", "s3cret\n").display().to_string();
    let setup = setup.set("upstreams.0.identity.client_secret_file", secret);
    (upstream, issuer, setup)
}

fn active(subject: &str) -> Reply {
    Reply::json(200, &json!({"active": true, "sub": subject, "exp": now() + 600}).to_string())
}

fn inactive() -> Reply {
    Reply::json(200, r#"{"active": false}"#)
}

/// A node that asks `/me` of its upstream.
async fn by_upstream() -> (Upstream, Setup) {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream)
        .set("upstreams.0.identity.mode", "upstream")
        .set("upstreams.0.identity.path", "/me")
        .set("upstreams.0.identity.pointer", "/results/0/credentials_id");
    (upstream, setup)
}

fn me() -> String {
    format!("{PREFIX}/me")
}

fn is_me(id: &str) -> Reply {
    Reply::json(200, &json!({"results": [{"credentials_id": id}], "status": "Succeeded"}).to_string())
}

async fn submit(node: &Node, token: &str) -> Task {
    node.submit(node.get("/accounts?async=true").bearer(token)).await
}

#[tokio::test]
async fn the_issuer_says_whose_token_it_is() {
    let (_upstream, issuer, setup) = by_introspection().await;
    issuer.script("/introspect", [active("john"), active("jane"), active("john"), inactive()]);
    let node = setup.start().await;
    let task = submit(&node, "john-1").await;
    node.results(&task).bearer("jane-1").send().await.is_refusal(404, "task_not_found");
    let refreshed = node.results(&task).bearer("john-2").send().await;
    assert!([200, 202].contains(&refreshed.status), "{}", refreshed.status);
    node.results(&task).bearer("john-3").send().await.is_refusal(401, "invalid_token");
    let calls = issuer.calls_of("/introspect");
    assert_eq!(calls.len(), 4, "each token was asked about once");
    assert_eq!(calls[0].method, "POST");
    assert_eq!(calls[0].header("authorization"), Some("Basic cmluZ2JhY2s6czNjcmV0"));
    assert_eq!(calls[0].body, b"token=john-1&token_type_hint=access_token");
    node.results(&task).send().await.is_refusal(401, "invalid_token");
    assert!(!node.log().contains("s3cret") && !node.log().contains("john-1"));
}

#[tokio::test]
async fn without_the_issuer_a_call_is_refused_for_now_and_nothing_is_stored() {
    let (upstream, issuer, setup) = by_introspection().await;
    issuer.script("/introspect", [Reply::new(500), Reply::cut(), Reply::new(401), active("john")]);
    let node = setup.start().await;
    let before = node.rows();
    for _ in 0..3 {
        let refused = node.get("/x?async=true").bearer("t").send().await;
        refused.is_refusal(503, "identity_unavailable");
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(node.rows(), before);
    upstream.saw_nobody();
    submit(&node, "t").await;
}

#[tokio::test]
async fn an_issuer_that_never_answers_holds_nobody_up_for_long() {
    let (upstream, issuer, setup) = by_introspection().await;
    issuer.script("/introspect", [Reply::silence()]);
    let node = setup.set("upstreams.0.identity.timeout", "50ms").start().await;
    let refused = node.get("/x?async=true").bearer("t").send().await;
    refused.is_refusal(503, "identity_unavailable");
    assert_eq!(node.get("/x").send().await.status, 200, "what needs no identity is served");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn the_upstream_says_whose_token_it_is() {
    let (upstream, setup) = by_upstream().await;
    upstream.script(&me(), [is_me("c-1"), is_me("c-2"), is_me("c-1"), Reply::new(401)]);
    let node = setup.start().await;
    let task = submit(&node, "one").await;
    node.results(&task).bearer("two").send().await.is_refusal(404, "task_not_found");
    let refreshed = node.results(&task).bearer("three").send().await;
    assert!([200, 202].contains(&refreshed.status), "{}", refreshed.status);
    node.results(&task).bearer("four").send().await.is_refusal(401, "invalid_token");
    let calls = upstream.calls_of(&me());
    assert_eq!(calls.len(), 4, "each token was asked about once");
    assert_eq!(calls[0].header("authorization"), Some("Bearer one"));
}

#[tokio::test]
async fn a_token_revoked_upstream_reads_nothing_more() {
    let upstream = Upstream::start().await;
    upstream.script(&me(), [Reply::new(200), Reply::new(401)]);
    let node = Setup::new(&upstream)
        .set("upstreams.0.identity.mode", "opaque")
        .set("upstreams.0.identity.revalidate", true)
        .set("upstreams.0.identity.path", "/me")
        .set("upstreams.0.identity.max_cache", "1ms")
        .start()
        .await;
    let task = submit(&node, "t").await;
    eventually("the revoked token is refused", async || {
        let answer = node.results(&task).bearer("t").send().await;
        (answer.status == 401).then_some(())
    })
    .await;
}

/// Waits until what was believed of a token is forgotten, and the upstream's refusal is heard.
async fn is_revoked(node: &Node, task: &Task, token: &str) {
    eventually("the revoked token is refused", async || {
        (node.results(task).bearer(token).send().await.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_once_its_token_was_revoked_upstream() {
    let ((upstream, setup), gate) = (by_upstream().await, Gate::closed());
    upstream.script(&me(), [is_me("c-1")]);
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = setup.set("upstreams.0.identity.max_cache", "1ms").start().await;
    let task = submit(&node, "one").await;
    let call = node.results(&task).bearer("one").header("accept", "text/event-stream");
    let mut body = call.open().await.expect("it was answered").into_body();
    let mut said = String::new();
    while !said.contains("\"Running\"") {
        said += &frame_of(&mut body).await.expect("the stream goes on");
    }
    upstream.script(&me(), [Reply::new(401)]);
    is_revoked(&node, &task, "one").await;
    gate.open();
    while let Some(more) = frame_of(&mut body).await {
        said += &more;
    }
    assert!(said.ends_with("event: end\ndata: {\"reason\":\"token_refused\"}\n\n"), "{said}");
    assert!(!said.contains("Succeeded"), "{said}");
}

/// A node that asks about a token again and again while somebody waits.
async fn that_looks_often() -> (Upstream, Gate, Node) {
    let ((upstream, setup), gate) = (by_upstream().await, Gate::closed());
    upstream.script(&me(), [is_me("c-1")]);
    upstream.always([Reply::ok("done").behind(&gate)]);
    let setup = setup.set("upstreams.0.identity.max_cache", "1ms").set("server.stream_heartbeat", "20ms");
    (upstream, gate, setup.start().await)
}

#[tokio::test]
async fn a_stream_of_a_revoked_token_ends_although_nothing_changes() {
    let (upstream, gate, node) = that_looks_often().await;
    let task = submit(&node, "one").await;
    let call = node.results(&task).bearer("one").header("accept", "text/event-stream");
    let mut body = call.open().await.expect("it was answered").into_body();
    let mut said = String::new();
    while !said.contains(": still here") {
        said += &frame_of(&mut body).await.expect("the stream goes on");
    }
    upstream.script(&me(), [Reply::new(401)]);
    let to_the_end = async {
        while let Some(more) = frame_of(&mut body).await {
            said += &more;
        }
    };
    within("the stream ended", to_the_end).await;
    assert!(said.ends_with("event: end\ndata: {\"reason\":\"token_refused\"}\n\n"), "{said}");
    gate.open();
}

#[tokio::test]
async fn a_wait_of_a_revoked_token_ends_although_nothing_changes() {
    let (upstream, gate, node) = that_looks_often().await;
    let task = submit(&node, "one").await;
    upstream.wait_for_calls(2).await;
    let waiting = tokio::spawn(node.results(&task).bearer("two").header("prefer", "wait=60").send());
    // Its own question, and one while it waits.
    let looked = async || (upstream.calls_of(&me()).len() >= 3).then_some(());
    eventually("the wait was judged again", looked).await;
    assert!(!waiting.is_finished());
    upstream.script(&me(), [Reply::new(503), Reply::new(503), Reply::new(401)]);
    waiting.await.expect("it was answered").is_refusal(401, "invalid_token");
    gate.open();
}

#[tokio::test]
async fn a_wait_of_a_token_that_became_anothers_sees_nothing() {
    let (upstream, gate, node) = that_looks_often().await;
    let task = submit(&node, "one").await;
    upstream.wait_for_calls(2).await;
    let waiting = tokio::spawn(node.results(&task).bearer("two").header("prefer", "wait=60").send());
    eventually("the wait was let in", async || (upstream.calls_of(&me()).len() >= 2).then_some(())).await;
    upstream.script(&me(), [is_me("c-2")]);
    waiting.await.expect("it was answered").is_refusal(404, "task_not_found");
    gate.open();
}

#[tokio::test]
async fn a_task_is_cancelled_by_nobody_whose_token_is_revoked_or_cannot_be_judged() {
    let (upstream, gate, node) = that_looks_often().await;
    let task = submit(&node, "one").await;
    eventually("the task is in flight", async || {
        let answer = node.results(&task).bearer("one").send().await;
        (answer.header("ringback-status") == Some("Running")).then_some(())
    })
    .await;
    // Of the same credentials, and not believed for having been asked about a moment ago.
    let delete = || node.call(Method::DELETE, task.path()).bearer("two");
    for (says, status, code) in
        [(Reply::new(503), 503, "identity_unavailable"), (Reply::new(401), 401, "invalid_token")]
    {
        upstream.script(&me(), [says]);
        delete().send().await.is_refusal(status, code);
    }
    upstream.script(&me(), [is_me("c-1")]);
    gate.open();
    let result = eventually("the task is finished", async || {
        Some(node.results(&task).bearer("two").send().await).filter(|answer| answer.status == 200)
    });
    assert_eq!(result.await.body, "done");
}

async fn frame_of(body: &mut Incoming) -> Option<String> {
    let frame = within("the stream went on", body.frame()).await?;
    let data = frame.expect("the stream does not break").into_data().expect("data");
    Some(String::from_utf8(data.to_vec()).expect("events are UTF-8"))
}

#[tokio::test]
async fn a_wait_does_not_answer_a_token_revoked_meanwhile() {
    let ((upstream, setup), gate) = (by_upstream().await, Gate::closed());
    upstream.script(&me(), [is_me("c-1"), is_me("c-1"), Reply::new(401)]);
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = setup.set("upstreams.0.identity.max_cache", "1ms").start().await;
    let task = submit(&node, "one").await;
    let waiting = tokio::spawn(node.results(&task).bearer("two").header("prefer", "wait=60").send());
    eventually("the wait was let in", async || (upstream.calls_of(&me()).len() == 2).then_some(())).await;
    is_revoked(&node, &task, "two").await;
    gate.open();
    waiting.await.expect("it was answered").is_refusal(401, "invalid_token");
}

#[tokio::test]
async fn a_credential_the_configuration_would_overwrite_is_refused_at_start() {
    let (_upstream, setup) = by_upstream().await;
    let setup = setup.set("upstreams.0.headers.set.authorization", "Bearer fixed");
    let ended = setup.spawn().ended().await;
    let said = ended.stderr.join("\n");
    assert!(said.contains("upstream `bank`: `headers` sets or removes"), "{said}");
}

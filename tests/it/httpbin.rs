//! In front of an upstream nobody here wrote: what it answers asynchronously is what it answers.

use async_compression::tokio::bufread::GzipDecoder;
use http::Method;
use tokio::io::AsyncReadExt as _;

use crate::support::client::{Answer, Call};
use crate::support::httpbin::Httpbin;
use crate::support::node::{Node, Setup};

async fn start() -> (Httpbin, Node) {
    let httpbin = Httpbin::start().await;
    let setup = Setup::of(httpbin.url()).set("upstreams.0.retry.delays", vec!["20ms", "20ms"]);
    let node = setup.start().await;
    (httpbin, node)
}

/// Makes one call both ways; `call` builds it from its target.
async fn both(node: &Node, target: &str, call: impl Fn(&str) -> Call) -> (Answer, Answer) {
    let synchronous = call(target).send().await;
    let question = if target.contains('?') { "&" } else { "?" };
    let task = node.submit(call(&format!("{target}{question}async=true"))).await;
    (synchronous, node.finished(&task).await)
}

#[tokio::test]
async fn results_are_the_synchronous_answers_byte_for_byte() {
    let (_httpbin, node) = start().await;
    let targets = [
        "/anything",
        "/anything/a%20b/c?x=1&y=%2F&z=a+b",
        "/drip?duration=1&numbytes=10&delay=0",
        "/bytes/2048?seed=1",
        "/stream-bytes/5000?seed=2&chunk_size=100",
        "/encoding/utf8",
        "/image/png",
        "/xml",
        "/delay/2",
    ];
    for target in targets {
        let (synchronous, result) =
            both(&node, target, |target| node.get(target).header("x-mine", "1")).await;
        assert_eq!((synchronous.status, result.status), (200, 200), "{target}");
        assert_eq!(result.header("ringback-status"), Some("Succeeded"), "{target}");
        assert!(!result.body.is_empty(), "{target}");
        assert!(result.body == synchronous.body, "{target}:\n{:?}\n{:?}", result.body, synchronous.body);
        assert_eq!(result.header("content-type"), synchronous.header("content-type"), "{target}");
    }
}

#[tokio::test]
async fn a_body_is_echoed_as_it_was_sent() {
    let (_httpbin, node) = start().await;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let (synchronous, result) = both(&node, "/anything", |target| {
            let call = node.call(method.clone(), &format!("/data/v1{target}"));
            call.header("content-type", "application/json").body("{\"pay\": \"10 €\"}")
        })
        .await;
        assert_eq!(result.json()["json"]["pay"], "10 €", "{method}");
        assert_eq!(result.body, synchronous.body, "{method}");
    }
}

#[tokio::test]
async fn a_compressed_answer_is_the_same_after_decoding() {
    let (_httpbin, node) = start().await;
    let call = |target: &str| node.get(target).header("accept-encoding", "gzip");
    let synchronous = call("/gzip").send().await;
    assert_eq!(synchronous.header("content-encoding"), Some("gzip"));
    let mut decoded = Vec::new();
    GzipDecoder::new(synchronous.body.as_ref()).read_to_end(&mut decoded).await.expect("gzip");

    let task = node.submit(call("/gzip?async=true")).await;
    node.finished(&task).await;
    let plain = node.results(&task).header("accept-encoding", "identity").send().await;
    let stored = node.results(&task).header("accept-encoding", "gzip").send().await;

    assert_eq!((plain.header("content-encoding"), &plain.body), (None, &decoded.into()));
    assert_eq!(stored.header("content-encoding"), Some("gzip"));
    let mut decoded = Vec::new();
    GzipDecoder::new(stored.body.as_ref()).read_to_end(&mut decoded).await.expect("gzip");
    assert_eq!(plain.body, decoded);
}

#[tokio::test]
async fn statuses_end_tasks_as_they_should() {
    let (_httpbin, node) = start().await;
    let cases = [
        ("/status/503", "upstream_error", "retries_exhausted", 3),
        ("/status/418", "upstream_error", "not_transient", 1),
        ("/redirect/1", "upstream_redirected", "not_transient", 1),
    ];
    for (target, error, reason, attempts) in cases {
        let task = node.submit(node.get(&format!("{target}?async=true"))).await;
        let failed = node.failed(&task).await;
        assert_eq!(failed["error"], error, "{target}");
        assert_eq!(failed["error_details"]["reason"], reason, "{target}");
        assert_eq!(failed["error_details"]["attempts"], attempts, "{target}");
    }
    let task = node.submit(node.get("/status/201?async=true")).await;
    assert_eq!(node.finished(&task).await.header("ringback-upstream-status"), Some("201"));
}

//! Errors as problems (RFC 9457), for clients that ask for them.

use http::Method;

use crate::support::client::Call;
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::reply::Reply;

/// Calls that are refused, each for another reason.
fn refused(node: &Node) -> Vec<(u16, &'static str, Call)> {
    let results = |id: &str| node.get(&format!("/results/{id}")).bearer("john");
    vec![
        (404, "no_upstream", node.call(Method::GET, "/elsewhere")),
        (400, "validation_error", node.get("/x?async=maybe")),
        (401, "invalid_token", node.get("/x?async=true")),
        (404, "task_not_found", results("nonsense")),
        (405, "method_not_allowed", node.call(Method::PUT, &format!("{PREFIX}/results/1")).bearer("john")),
        (405, "method_not_allowed", node.call(Method::PUT, "/.well-known/jwks")),
        (413, "body_too_large", node.post("/x?async=true").bearer("john").body("x".repeat(2000))),
        (502, "upstream_broken", node.get("/x")),
    ]
}

async fn strict(upstream: &Upstream) -> Node {
    upstream.always([Reply::cut()]);
    let setup = Setup::new(upstream).set("upstreams.0.identity.mode", "opaque");
    setup.set("server.max_body_bytes", 1000).start().await
}

#[tokio::test]
async fn every_error_of_ours_is_told_as_a_problem_to_those_who_ask() {
    let upstream = Upstream::start().await;
    let node = strict(&upstream).await;
    for (status, code, call) in refused(&node) {
        let answer = call.header("accept", "application/problem+json").send().await;
        assert_eq!(
            (answer.status, answer.header("ringback-error")),
            (status, Some(code)),
            "{:?}",
            answer.body
        );
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{code}");
        assert_eq!(answer.keys(), ["type", "title", "status", "detail", "error", "error_details"]);
        let body = answer.json();
        assert_eq!((&body["error"], &body["status"]), (&code.into(), &status.into()));
        assert_eq!(body["type"], format!("urn:ringback:error:{code}"));
        assert!(body["detail"].as_str().is_some_and(|detail| detail.ends_with('.')));
        assert!(answer.list("vary").contains(&"accept".to_owned()), "{code}");
    }
}

#[tokio::test]
async fn everybody_else_gets_our_own_form() {
    let upstream = Upstream::start().await;
    let node = strict(&upstream).await;
    for accept in [
        "*/*",
        "application/json",
        "application/problem+xml",
        "application/problem+json;q=0",
        "application/json, application/problem+json;q=0.5",
        "application/x-unknown",
        "nonsense/;;q",
    ] {
        for (status, code, call) in refused(&node) {
            let answer = call.header("accept", accept).send().await;
            answer.is_refusal(status, code);
            assert!(answer.list("vary").contains(&"accept".to_owned()), "{code}");
        }
    }
}

#[tokio::test]
async fn errors_of_the_upstream_stay_as_they_are() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::json(404, "{\"error\":\"mine\"}")]);
    let node = Node::start(&upstream).await;
    let answer = node.get("/x").header("accept", "application/problem+json").send().await;
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")));
    assert_eq!(answer.body, "{\"error\":\"mine\"}");
}

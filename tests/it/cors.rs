//! Browsers: preflights, and what scripts may read of our answers.

use http::Method;

use crate::support::client::Call;
use crate::support::issuer::{self, Key};
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::reply::Reply;

const APP: &str = "https://app.example";

fn preflight(node: &Node, target: &str, origin: &str) -> Call {
    node.call(Method::OPTIONS, &format!("{PREFIX}{target}"))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, x-tag")
}

/// A node that wants tokens, with these origins.
async fn node(upstream: &Upstream, key: &Key, origins: &[&str]) -> Node {
    issuer::by_file(Setup::new(upstream), &[key])
        .set("upstreams.0.cors.origins", origins.to_vec())
        .start()
        .await
}

#[tokio::test]
async fn a_preflight_is_proxied_where_no_origins_are_configured() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(204).bodyless().header("access-control-allow-origin", "*")]);
    let node = node(&upstream, &Key::p256("k"), &[]).await;
    let before = node.rows();

    let answer = preflight(&node, "/accounts?async=true&x=1", APP).send().await;

    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("*")));
    let call = upstream.only_call();
    assert_eq!((call.method.as_str(), call.header("origin")), ("OPTIONS", Some(APP)));
    assert_eq!(node.rows(), before, "a preflight is never a task");
}

#[tokio::test]
async fn a_preflight_is_answered_here_where_its_origin_is_configured() {
    let upstream = Upstream::start().await;
    let node = node(&upstream, &Key::p256("k"), &[APP, "https://other.example"]).await;
    let before = node.rows();
    for target in ["/accounts", "/accounts?async=true", "/results/0192f0c0-0000-7000-8000-000000000001"] {
        let answer = preflight(&node, target, APP).send().await;
        assert!((200..300).contains(&answer.status), "{target}: {}", answer.status);
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
        assert!(answer.list("access-control-allow-methods").iter().any(|name| name == "post" || name == "*"));
        let headers = answer.list("access-control-allow-headers");
        assert!(headers.contains(&"authorization".to_owned()), "{headers:?}: * does not cover it");
        assert!(headers.contains(&"x-tag".to_owned()) || headers.contains(&"*".to_owned()), "{headers:?}");
        assert!(answer.list("vary").contains(&"origin".to_owned()));
    }
    upstream.saw_nobody();
    assert_eq!(node.rows(), before);
}

#[tokio::test]
async fn a_preflight_of_another_origin_allows_nothing() {
    let upstream = Upstream::start().await;
    let node = node(&upstream, &Key::p256("k"), &[APP]).await;
    for origin in ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null"] {
        let answer = preflight(&node, "/accounts?async=true", origin).send().await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
    }
}

#[tokio::test]
async fn scripts_may_read_our_answers_and_the_headers_that_matter() {
    let upstream = Upstream::start().await;
    let key = Key::p256("k");
    let node = node(&upstream, &key, &[APP]).await;
    let token = key.token("john");
    let accepted = node.get("/accounts?async=true").bearer(&token).header("origin", APP).send().await;
    let task = crate::support::node::Task::from(&accepted);
    let refused = node.get("/accounts?async=maybe").bearer(&token).header("origin", APP).send().await;
    refused.is_refusal(400, "validation_error");
    let nobody = node.get("/accounts?async=true").header("origin", APP).send().await;
    nobody.is_refusal(401, "invalid_token");
    let result = node.results(&task).bearer(&token).header("origin", APP).send().await;
    for (name, answer) in [("202", accepted), ("400", refused), ("401", nobody), ("result", result)] {
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP), "{name}");
        let exposed = answer.list("access-control-expose-headers");
        for header in [
            "location",
            "retry-after",
            "etag",
            "accept-ranges",
            "content-range",
            "content-disposition",
            "preference-applied",
            "allow",
            "ringback-task",
            "ringback-status",
            "ringback-upstream-status",
            "ringback-error",
        ] {
            assert!(exposed.contains(&header.to_owned()), "{name} does not expose {header}: {exposed:?}");
        }
        assert!(answer.list("vary").contains(&"origin".to_owned()), "{name}");
    }
    let plain =
        node.get("/accounts?async=true").bearer(&token).header("origin", "https://evil.example").send().await;
    assert_eq!(plain.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_replayed_answer_exposes_what_the_upstream_exposed_and_what_is_ours() {
    let upstream = Upstream::start().await;
    let reply = Reply::ok("done").header("access-control-allow-origin", "https://elsewhere.example");
    upstream.always([reply.header("access-control-expose-headers", "X-Total")]);
    let key = Key::p256("k");
    let node = node(&upstream, &key, &[APP]).await;
    let token = key.token("john");
    let task = crate::support::node::Task::from(&node.get("/x?async=true").bearer(&token).send().await);
    let path = format!("{}/response", task.path());
    let call = node.call(Method::GET, &path).bearer(&token).header("origin", APP);
    let answer = call.header("prefer", "wait=60").send().await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    let exposed = answer.list("access-control-expose-headers");
    assert!(
        ["x-total", "ringback-task"].iter().all(|name| exposed.contains(&(*name).to_owned())),
        "{exposed:?}"
    );
}

#[tokio::test]
async fn every_origin_may_be_allowed() {
    let upstream = Upstream::start().await;
    let key = Key::p256("k");
    let node = node(&upstream, &key, &["*"]).await;
    let answer = preflight(&node, "/accounts?async=true", "https://anybody.example").send().await;
    let allowed = answer.header("access-control-allow-origin");
    assert!([Some("*"), Some("https://anybody.example")].contains(&allowed), "{allowed:?}");
}

#[tokio::test]
async fn options_without_a_preflights_headers_is_an_ordinary_call() {
    let upstream = Upstream::start().await;
    let key = Key::p256("k");
    let node = node(&upstream, &key, &[APP]).await;
    let call = node.call(Method::OPTIONS, &format!("{PREFIX}/accounts?async=true"));
    assert_eq!(call.bearer(&key.token("john")).send().await.status, 202);
    let call = node.call(Method::OPTIONS, &format!("{PREFIX}/accounts?async=true"));
    call.send().await.is_refusal(401, "invalid_token");
}

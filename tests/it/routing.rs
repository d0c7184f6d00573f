//! Which upstream a path belongs to, and what of it is rewritten.

use http::Method;

use crate::support::node::{Node, Setup};
use crate::support::peer::Upstream;
use crate::support::reply::Reply;

async fn get(node: &Node, target: &str) -> (u16, String) {
    let answer = node.call(Method::GET, target).send().await;
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

async fn named(name: &'static str) -> Upstream {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok(name)]);
    upstream
}

#[tokio::test]
async fn the_prefix_is_replaced_by_the_path_of_the_url() {
    let cases = [
        ("/data/v1", "/api", "/data/v1/x/y?z=1", "/api/x/y?z=1"),
        ("/data/v1", "/api/", "/data/v1/x", "/api/x"),
        ("/data/v1", "", "/data/v1/x", "/x"),
        ("/data/v1", "/", "/data/v1", "/"),
        ("/data/v1", "/api", "/data/v1", "/api"),
        ("/data/v1", "/api", "/data/v1/", "/api/"),
        ("/data/v1", "/api", "/data/v1?x", "/api?x"),
        ("/", "", "/x//y/?q=a%20b&r=+", "/x//y/?q=a%20b&r=+"),
        ("/", "/api", "/x", "/api/x"),
        ("/", "/api", "/", "/api/"),
    ];
    for (prefix, path, target, sent) in cases {
        let upstream = Upstream::start().await;
        let node = Setup::new(&upstream)
            .set("upstreams.0.prefix", prefix)
            .set("upstreams.0.url", upstream.uri(path))
            .start()
            .await;
        assert_eq!(get(&node, target).await.0, 200, "{prefix} {path} {target}");
        assert_eq!(upstream.only_call().target, sent, "{prefix} {path} {target}");
        let question = if target.contains('?') { "&" } else { "?" };
        let task = node.submit(node.call(Method::GET, &format!("{target}{question}async=true"))).await;
        node.finished(&task).await;
        assert_eq!(upstream.calls()[1].target, sent, "{prefix} {path} {target} as a task");
    }
}

#[tokio::test]
async fn the_longest_prefix_of_whole_segments_wins() {
    let (root, data, cards) = (named("root").await, named("data").await, named("cards").await);
    let node = Setup::new(&data)
        .add_upstream("cards", "/data/v1/cards", &cards.uri(""))
        .add_upstream("root", "/", &root.uri(""))
        .start()
        .await;
    let cases = [
        ("/", "root"),
        ("/x", "root"),
        ("/data", "root"),
        ("/data/v1x", "root"),
        ("/data/v1", "data"),
        ("/data/v1/x", "data"),
        ("/data/v1/cardsx", "data"),
        ("/data/v1/cards", "cards"),
        ("/data/v1/cards/1", "cards"),
        ("/Data/v1", "root"),
        ("/data%2Fv1/x", "root"),
    ];
    for (target, name) in cases {
        assert_eq!(get(&node, target).await, (200, name.to_owned()), "{target}");
    }
}

#[tokio::test]
async fn several_upstreams_have_tasks_side_by_side_and_results_of_their_own() {
    let (first, second) = (named("first").await, named("second").await);
    let node = Setup::new(&first).add_upstream("second", "/other", &second.uri("")).start().await;
    let one = node.submit(node.call(Method::GET, "/data/v1/x?async=true")).await;
    let two = node.submit(node.call(Method::GET, "/other/x?async=true")).await;
    assert!(one.path().starts_with("/data/v1/results/"));
    assert!(two.path().starts_with("/other/results/"));
    assert_eq!(node.finished(&one).await.body, "first");
    assert_eq!(node.finished(&two).await.body, "second");
    let crossed = node.call(Method::GET, &format!("/other/results/{}", one.id)).send().await;
    crossed.is_refusal(404, "task_not_found");
}

#[tokio::test]
async fn a_task_goes_where_its_upstream_is_now() {
    let (old, new) = (Upstream::start().await, named("new").await);
    old.always([Reply::new(503)]);
    let setup = Setup::new(&old).set("upstreams.0.retry.delays", vec!["2s"]);
    let node = setup.start().await;
    let task = node.submit(node.get("/x?async=true")).await;
    old.wait_for_calls(1).await;
    node.reaches(&task, "Queued").await;
    let node = node.kill9().await.set("upstreams.0.url", new.uri("/api")).start().await;
    assert_eq!(node.finished(&task).await.body, "new");
    assert_eq!(new.only_call().target, "/api/x");
}

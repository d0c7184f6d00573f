//! `<results_uri>/response`: the upstream's last answer as it was.

use http::Method;

use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply};

#[tokio::test]
async fn the_answer_of_a_succeeded_task_comes_back_as_it_was() {
    let upstream = Upstream::start().await;
    let reply = Reply::new(203).header("content-type", "text/x-bank; charset=latin1");
    let reply = reply.header("x-internal", "1").header("set-cookie", "a=b").header("set-cookie", "c=d");
    let reply = reply.header("cache-control", "public, max-age=9").header("retry-after", "7");
    upstream.always([reply.header("connection", "x-hop").header("x-hop", "1").body("as it was\r\n")]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.post("/accounts?async=true").body("{}")).await;
    node.finished(&task).await;
    for path in [format!("{}/response", task.path()), format!("{}/response/", task.path())] {
        let answer = node.call(Method::GET, &path).send().await;
        assert_eq!((answer.status, answer.body.as_ref()), (203, b"as it was\r\n".as_slice()));
        assert_eq!(answer.header("ringback-task"), Some(task.id.as_str()));
        let mut names: Vec<&str> = answer.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "cache-control",
                "content-length",
                "content-type",
                "date",
                "retry-after",
                "ringback-task",
                "set-cookie",
                "vary",
                "x-internal"
            ]
        );
        assert_eq!(answer.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=b", "c=d"]);
        assert_eq!(answer.header("cache-control"), Some("public, max-age=9"));
        assert_eq!(answer.header("vary"), Some("Authorization"));
        let head = node.call(Method::HEAD, &path).send().await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (203, Some("11"), 0));
    }
}

#[tokio::test]
async fn the_answer_of_a_failed_task_comes_back_as_it_was() {
    let upstream = Upstream::start().await;
    let page = "x".repeat(600_000);
    upstream.script(
        &format!("{PREFIX}/gone"),
        [Reply::new(410).header("content-type", "text/html").body(page.clone())],
    );
    upstream.script(&format!("{PREFIX}/moved"), [Reply::new(307).header("location", "/elsewhere")]);
    let node = Node::start(&upstream).await;
    let replayed = async |path: &str| {
        let task = node.submit(node.get(&format!("{path}?async=true"))).await;
        node.failed(&task).await;
        node.call(Method::GET, &format!("{}/response", task.path())).send().await
    };
    let gone = replayed("/gone").await;
    assert_eq!((gone.status, gone.header("content-type")), (410, Some("text/html")));
    assert!(gone.body == page);
    assert_eq!(gone.header("ringback-error"), None, "the error is the upstream's");
    let moved = replayed("/moved").await;
    assert_eq!((moved.status, moved.header("location")), (307, Some("/elsewhere")));
}

#[tokio::test]
async fn an_answer_without_content_comes_back_without_content() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(204).bodyless()]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    node.finished(&task).await;
    let answer = node.call(Method::GET, &format!("{}/response", task.path())).send().await;
    assert_eq!((answer.status, answer.body.len(), answer.header("content-length")), (204, 0, None));
    // The answer to HEAD declares a body that it does not have.
    upstream.always([Reply::ok("four")]);
    let task = node.submit(node.call(Method::HEAD, &format!("{PREFIX}/x?async=true"))).await;
    node.finished(&task).await;
    let answer = node.call(Method::GET, &format!("{}/response", task.path())).send().await;
    assert_eq!((answer.status, answer.body.len(), answer.header("content-length")), (200, 0, Some("0")));
}

#[tokio::test]
async fn there_is_no_answer_where_none_came_or_none_was_kept() {
    let upstream = Upstream::start().await;
    upstream.script(&format!("{PREFIX}/cut"), [Reply::cut()]);
    upstream.script(&format!("{PREFIX}/large"), [Reply::new(200).zeros(2000)]);
    upstream.script(&format!("{PREFIX}/error"), [Reply::new(404).zeros(2000)]);
    let setup = Setup::new(&upstream).set("upstreams.0.max_result_bytes", 1000);
    let node = setup.set("upstreams.0.retry.delays", toml::Value::Array(Vec::new())).start().await;
    for path in ["/cut", "/large", "/error"] {
        let task = node.submit(node.get(&format!("{path}?async=true"))).await;
        node.failed(&task).await;
        let answer = node.call(Method::GET, &format!("{}/response", task.path())).send().await;
        answer.is_refusal(404, "no_response");
    }
}

#[tokio::test]
async fn the_answer_of_a_waiting_task_is_the_202_and_can_be_waited_for() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::new(201).body("made").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    let path = format!("{}/response", task.path());
    assert_eq!(node.call(Method::GET, &path).send().await.status, 202);
    let waiting = tokio::spawn(node.call(Method::GET, &path).header("prefer", "wait=60").send());
    gate.open();
    let answer = waiting.await.expect("it was answered");
    assert_eq!((answer.status, answer.body.as_ref()), (201, b"made".as_slice()));
}

#[tokio::test]
async fn the_answer_is_for_its_owner_alone_and_nothing_else_is_there() {
    let upstream = Upstream::start().await;
    let node = Setup::new(&upstream).set("upstreams.0.identity.mode", "opaque").start().await;
    let task = node.submit(node.get("/accounts?async=true").bearer("john")).await;
    let get =
        |path: &str, token: &str| node.call(Method::GET, &format!("{}{path}", task.path())).bearer(token);
    while get("/response", "john").send().await.status == 202 {}
    assert_eq!(get("/response", "john").send().await.status, 200);
    get("/response", "jane").send().await.is_refusal(404, "task_not_found");
    for below in ["/responses", "/response/x", "/Response", "/response//"] {
        get(below, "john").send().await.is_refusal(404, "task_not_found");
    }
    let post = node.call(Method::POST, &format!("{}/response", task.path())).bearer("john").send().await;
    post.is_refusal(405, "method_not_allowed");
}

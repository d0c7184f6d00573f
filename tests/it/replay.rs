//! `<results_uri>/response`: the upstream's last answer as it was.

use http::Method;

use crate::support::client::Call;
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
                "etag",
                "retry-after",
                "ringback-task",
                "set-cookie",
                "vary",
                "x-internal"
            ]
        );
        assert_eq!(answer.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=b", "c=d"]);
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
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
    for method in [Method::POST, Method::DELETE] {
        let answer = node.call(method, &format!("{}/response", task.path())).bearer("john").send().await;
        answer.is_refusal(405, "method_not_allowed");
        assert_eq!(answer.list("allow"), ["get", "head"]);
    }
    assert_eq!(get("/response", "john").send().await.status, 200, "nothing was erased");
}

/// The path of the answer to a finished task.
async fn answered(reply: Reply) -> (Upstream, Node, String, String) {
    let upstream = Upstream::start().await;
    upstream.always([reply]);
    let setup = Setup::new(&upstream).set("upstreams.0.retry.delays", toml::Value::Array(Vec::new()));
    let node = setup.start().await;
    let task = node.submit(node.get("/file?async=true")).await;
    node.finished(&task).await;
    (upstream, node, format!("{}/response", task.path()), task.id)
}

#[tokio::test]
async fn a_client_that_has_the_answer_is_told_so_by_the_upstreams_tag() {
    let reply = Reply::ok("as it was").header("etag", "\"v1\"").header("cache-control", "max-age=9");
    let (_upstream, node, path, _) = answered(reply).await;
    for method in [Method::GET, Method::HEAD] {
        let same = node.call(method.clone(), &path).header("if-none-match", "\"v1\"").send().await;
        assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, Some("\"v1\"")));
        assert_eq!((same.header("content-type"), same.header("content-length")), (None, None));
        assert_eq!(same.header("cache-control"), Some("private, no-cache"));
        assert_eq!(same.header("ringback-upstream-status"), Some("200"), "the 304 is not the upstream's");
        let other = node.call(method, &path).header("if-none-match", "\"v2\"").send().await;
        assert_eq!((other.status, other.header("ringback-upstream-status")), (200, None));
    }
    let moved = node.call(Method::GET, &path).header("if-match", "\"v2\"").send().await;
    moved.is_refusal(412, "precondition_failed");
}

#[tokio::test]
async fn an_answer_without_a_tag_gets_one() {
    for reply in [Reply::ok("as it was"), Reply::new(204).bodyless()] {
        let (_upstream, node, path, id) = answered(reply).await;
        let first = node.call(Method::GET, &path).send().await;
        let tag = first.header("etag").expect("a tag").to_owned();
        assert_eq!(tag, format!("\"{id}\""));
        assert_eq!(node.call(Method::GET, &path).header("if-none-match", &tag).send().await.status, 304);
    }
}

#[tokio::test]
async fn a_part_of_the_answer_can_be_read() {
    let (_upstream, node, path, _) = answered(Reply::ok("0123456789").header("etag", "\"v1\"")).await;
    let get = |range: &str| node.call(Method::GET, &path).header("range", range);
    assert_eq!(node.call(Method::GET, &path).send().await.header("accept-ranges"), Some("bytes"));
    let part = get("bytes=2-4").send().await;
    assert_eq!((part.status, part.body.as_ref()), (206, b"234".as_slice()));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(part.header("ringback-upstream-status"), Some("200"));
    assert!(
        get("bytes=0-0,9-9")
            .send()
            .await
            .header("content-type")
            .is_some_and(|kind| { kind.starts_with("multipart/byteranges; boundary=") })
    );
    get("bytes=10-").send().await.is_refusal(416, "range_not_satisfiable");
    assert_eq!(get("bytes=4-2").send().await.status, 200);
    assert_eq!(get("bytes=0-1").header("if-range", "\"v1\"").send().await.status, 206);
    assert_eq!(get("bytes=0-1").header("if-range", "W/\"v1\"").send().await.status, 200);
    let head = node.call(Method::HEAD, &path).header("range", "bytes=2-4").send().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
}

/// RFC 9110, 13.2.1: conditions are for what is there.
#[tokio::test]
async fn an_error_of_the_upstream_comes_back_whole_whatever_the_conditions() {
    let reply = Reply::new(404).header("etag", "\"v1\"").header("content-type", "text/plain").body("nothing");
    let (_upstream, node, path, _) = answered(reply).await;
    for (name, value) in [("if-none-match", "\"v1\""), ("if-match", "\"v2\""), ("range", "bytes=0-1")] {
        let answer = node.call(Method::GET, &path).header(name, value).send().await;
        assert_eq!((answer.status, answer.body.as_ref()), (404, b"nothing".as_slice()), "{name}");
    }
}

#[tokio::test]
async fn an_answer_kept_public_by_the_upstream_is_never_shared_where_the_credential_is_in_another_header() {
    let upstream = Upstream::start().await;
    let reply = Reply::ok("john's").header("cache-control", "public, max-age=600");
    let reply = reply.header("expires", "Fri, 01 Jan 2100 00:00:00 GMT").header("vary", "Accept-Language");
    upstream.always([reply.header("cdn-cache-control", "max-age=600")]);
    let setup = Setup::new(&upstream).set("upstreams.0.identity.mode", "opaque");
    let node = setup.set("upstreams.0.identity.header", "X-Api-Key").start().await;
    let call = |call: Call| call.header("x-api-key", "john");
    let waited = call(node.get("/accounts?async=true")).header("prefer", "wait=60").send().await;
    let task = waited.header("ringback-task").expect("the answer names its task").to_owned();
    let path = format!("{PREFIX}/results/{task}/response");
    let replayed = call(node.call(Method::GET, &path)).send().await;
    let tag = replayed.header("etag").expect("a tag").to_owned();
    let same = call(node.call(Method::GET, &path)).header("if-none-match", &tag).send().await;
    assert_eq!((waited.status, replayed.status, same.status), (200, 200, 304));
    for answer in [waited, replayed, same] {
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"), "{}", answer.status);
        assert_eq!((answer.header("expires"), answer.header("cdn-cache-control")), (None, None));
        assert_eq!(answer.list("vary"), ["accept-language", "authorization", "x-api-key"]);
    }
}

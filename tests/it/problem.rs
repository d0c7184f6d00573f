//! Errors as problems (RFC 9457), for clients that ask for them: every code of ours, each provoked here.

use std::collections::BTreeSet;
use std::path::Path;

use http::Method;

use crate::support::client::{Answer, Call, raw};
use crate::support::edge::{EIO, Edge, WRITE, When};
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, store};

const PROBLEM: &str = "application/problem+json";

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

/// The codes that were seen told as a problem.
#[derive(Default)]
struct Seen(BTreeSet<(u16, String)>);

impl Seen {
    /// Sends a call that is refused.
    async fn by(&mut self, status: u16, code: &str, call: Call) -> Answer {
        let answer = call.header("accept", PROBLEM).send().await;
        self.told(status, code, &answer);
        answer
    }

    #[track_caller]
    fn told(&mut self, status: u16, code: &str, answer: &Answer) {
        answer.is_problem(status, code);
        self.0.insert((status, code.to_owned()));
    }
}

/// A code that is new is in the table of `docs/API.md`, which a test beside the codes makes sure of; and
/// what is in the table is provoked here.
fn documented() -> BTreeSet<(u16, String)> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/API.md");
    let document = std::fs::read_to_string(document).expect("the document is there");
    let table = document.split("\n### Errors of a call\n").nth(1).expect("it has the table");
    let lines = table.split("\n###").next().unwrap_or_default().lines().filter(|line| line.contains("[`"));
    lines
        .map(|line| {
            let (status, rest) = line.trim_start_matches("| ").split_once(" | [`").expect("a line of it");
            let code = rest.split('`').next().expect("a code");
            (status.parse().expect("a status"), code.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn every_error_of_ours_is_told_as_a_problem_to_those_who_ask() {
    let mut seen = Seen::default();
    of_the_call(&mut seen).await;
    of_a_finished_task(&mut seen).await;
    of_too_much(&mut seen).await;
    of_others(&mut seen).await;
    of_the_store(&mut seen).await;
    assert_eq!(seen.0, documented());
}

/// What was sent.
async fn of_the_call(seen: &mut Seen) {
    let upstream = Upstream::start().await;
    let node = strict(&upstream).await;
    for (status, code, call) in refused(&node) {
        seen.by(status, code, call).await;
    }
    let head = format!("GET {PREFIX}/x HTTP/1.1\r\nhost: a\r\naccept: {PROBLEM}\r\n");
    let answer = raw(node.address(), format!("{head}x: {}\r\n\r\n", "x".repeat(70_000)).as_bytes()).await;
    seen.told(431, "headers_too_large", &Answer::from_wire(&answer));
    let answer = raw(node.address(), format!("{head}x : a\r\n\r\n").as_bytes()).await;
    seen.told(400, "validation_error", &Answer::from_wire(&answer));
    let answer =
        raw(node.address(), format!("{head}content-length: 1\r\ncontent-length: 1\r\n\r\n").as_bytes()).await;
    seen.told(400, "validation_error", &Answer::from_wire(&answer));

    let setup = Setup::new(&upstream).set("server.body_timeout", "100ms").set("server.max_uri_bytes", 1000);
    let node = setup.start().await;
    let long = node.get(&format!("/{}", "x".repeat(1000))).http2();
    seen.by(414, "uri_too_long", long).await;
    let never = futures_util::stream::pending::<bytes::Bytes>();
    seen.by(408, "body_timeout", node.post("/x?async=true").stream(never)).await;
    let broken = format!(
        "POST {PREFIX}/x?async=true HTTP/1.1\r\nhost: a\r\naccept: {PROBLEM}\r\n\
         transfer-encoding: chunked\r\n\r\nnonsense\r\n"
    );
    seen.told(400, "body_broken", &Answer::from_wire(&raw(node.address(), broken.as_bytes()).await));

    let pay = |body: &'static str| node.post("/pay?async=true").header("idempotency-key", "k").body(body);
    node.submit(pay("1")).await;
    seen.by(422, "idempotency_key_reused", pay("2")).await;
}

/// What became of a task.
async fn of_a_finished_task(seen: &mut Seen) {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("done")]);
    upstream.script(&format!("{PREFIX}/cut"), [Reply::cut()]);
    let setup = Setup::new(&upstream).set("upstreams.0.retry.delays", Vec::<String>::new());
    let node = setup.set("upstreams.0.max_result_bytes", 1000).start().await;
    let finished = async |path: &str| {
        let task = node.submit(node.get(&format!("{path}?async=true"))).await;
        node.finished(&task).await;
        task
    };
    let task = finished("/x").await;
    seen.by(412, "precondition_failed", node.results(&task).header("if-match", "\"other\"")).await;
    seen.by(416, "range_not_satisfiable", node.results(&task).header("range", "bytes=99-")).await;
    let response = |task: &Task| node.call(Method::GET, &format!("{}/response", task.path()));
    seen.by(404, "no_response", response(&finished("/cut").await)).await;
    node.call(Method::DELETE, task.path()).send().await;
    seen.by(410, "results_expired", node.results(&task)).await;
    seen.by(410, "results_expired", response(&task)).await;
    let events = format!("text/event-stream, {PROBLEM};q=0.9");
    let answer = node.results(&task).header("accept", &events).send().await;
    seen.told(410, "results_expired", &answer);

    upstream.script(&format!("{PREFIX}/large"), [Reply::ok("x".repeat(2000))]);
    let waits = node.get("/large").header("prefer", "respond-async, wait=30");
    seen.by(502, "result_too_large", waits).await;
    let task = finished("/x").await;
    store::spoil_results(&node.data_dir());
    seen.by(500, "internal_error", node.results(&task)).await;
}

/// Too much at once.
async fn of_too_much(seen: &mut Seen) {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let setup = Setup::new(&upstream)
        .set("upstreams.0.identity.mode", "opaque")
        .set("server.max_waiters", 1)
        .set("server.max_queued_tasks", 2)
        .set("server.max_queued_per_credentials", 1);
    let node = setup.start().await;
    let submit = |token: &str| node.get("/x?async=true").bearer(token);
    let task = node.submit(submit("john")).await;
    seen.by(429, "credentials_backlog_full", submit("john")).await;
    node.submit(submit("jane")).await;
    seen.by(503, "backlog_full", submit("jim")).await;
    let follow = |accept: &str| node.results(&task).bearer("john").header("accept", accept);
    let stream = follow("text/event-stream").open().await.expect("the one place is free");
    let answer = follow(&format!("text/event-stream, {PROBLEM};q=0.9")).send().await;
    seen.told(503, "too_many_waiters", &answer);
    drop(stream);

    let setup = Setup::new(&upstream).set("server.max_calls_per_credentials", 1).set("server.max_calls", 2);
    let node = setup.start().await;
    let before = upstream.calls().len();
    let slow = |token: &str| tokio::spawn(node.get("/slow").bearer(token).send());
    let john = slow("john");
    upstream.wait_for_calls(before + 1).await;
    seen.by(429, "too_many_calls", node.get("/x").bearer("john")).await;
    let jane = slow("jane");
    upstream.wait_for_calls(before + 2).await;
    seen.by(503, "overloaded", node.get("/x").bearer("jim")).await;
    gate.open();
    for call in [john, jane] {
        assert_eq!(call.await.expect("a call does not panic").status, 200);
    }
}

/// What others do.
async fn of_others(seen: &mut Seen) {
    let upstream = Upstream::start().await;
    upstream.always([Reply::silence()]);
    let port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        listener.local_addr().expect("it has an address").port()
    };
    let nobody = format!("http://127.0.0.1:{port}");
    let setup = Setup::new(&upstream)
        .set("upstreams.0.timeout", "100ms")
        .add_upstream("nobody", "/nobody", &nobody)
        .add_upstream("locked", "/locked", &nobody)
        .set("upstreams.2.identity.mode", "upstream")
        .set("upstreams.2.identity.path", "/me")
        .set("upstreams.2.identity.pointer", "/id");
    let node = setup.start().await;
    seen.by(504, "upstream_timeout", node.get("/x")).await;
    seen.by(502, "upstream_unreachable", node.call(Method::GET, "/nobody/x")).await;
    let locked = node.call(Method::GET, "/locked/x?async=true").bearer("john");
    seen.by(503, "identity_unavailable", locked).await;
}

/// A store that cannot and one that may not.
async fn of_the_store(seen: &mut Seen) {
    let (edge, upstream) = (Edge::new(), Upstream::start().await);
    let node = edge.before(Setup::new(&upstream)).start().await;
    edge.fail_all(WRITE, EIO, When::Before);
    seen.by(503, "store_unavailable", node.get("/x?async=true")).await;
    edge.heal();

    upstream.always([Reply::ok("x".repeat(20_000))]);
    let setup = Setup::new(&upstream).set("retention.max_bytes", "1MB");
    let setup = setup.set("upstreams.0.max_result_bytes", "64KB").set("server.max_body_bytes", "64KB");
    let node = setup.set("retention.results_at_least", "10m").start().await;
    let refused = eventually("the store is full", async || {
        let answer = node.get("/x?async=true").header("accept", PROBLEM).send().await;
        if answer.status == 202 {
            node.finished(&Task::from(&answer)).await;
        }
        (answer.status != 202).then_some(answer)
    });
    seen.told(503, "store_full", &refused.await);
}

/// Which of the two forms, by what a client writes: RFC 9110, 12.5.1.
#[tokio::test]
async fn the_form_a_client_wants_more_wins() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for (accept, is_problem) in [
        ("application/json, application/problem+json", true),
        ("application/problem+json, application/json;q=0.9", true),
        ("application/problem+json;q=0.9, application/json", false),
        ("application/problem+json;q=0.9, application/*", false),
        ("application/problem+json;q=0.9, application/*;q=0.8", true),
        ("application/problem+json;q=0.5, application/json;q=0.4, */*", true),
        ("application/*", false),
    ] {
        let answer = node.call(Method::GET, "/elsewhere").header("accept", accept).send().await;
        let kind = if is_problem { PROBLEM } else { "application/json" };
        assert_eq!(answer.header("content-type"), Some(kind), "{accept}");
    }
}

#[tokio::test]
async fn head_gets_the_head_of_a_problem() {
    let upstream = Upstream::start().await;
    let node = strict(&upstream).await;
    let results = format!("{PREFIX}/results/nonsense");
    for target in ["/elsewhere", &results, "/.well-known/jwks?x"] {
        let call = |method| node.call(method, target).bearer("john").header("accept", PROBLEM);
        let (get, head) = (call(Method::GET).send().await, call(Method::HEAD).send().await);
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{target}");
        let less_date = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            headers.remove("date");
            headers
        };
        assert_eq!(less_date(&head), less_date(&get), "{target}");
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

//! The admin listener: alive, ready, and what is counted.

use std::collections::BTreeMap;

use http::Method;

use crate::support::client::raw;
use crate::support::eventually;
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};

/// Samples by name and labels, as written.
type Samples = BTreeMap<String, String>;

/// Reads `/metrics` as `OpenMetrics` text; a line that is not well formed fails the test.
async fn metrics(node: &Node) -> Samples {
    let answer = node.admin("/metrics").send().await;
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").expect("a content type");
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = String::from_utf8(answer.body.to_vec()).expect("metrics are text");
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("it does not end with # EOF:\n{text}"));
    let mut samples = Samples::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let kind = comment.split(' ').next().unwrap_or_default();
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "not OpenMetrics: {line}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
        value.parse::<f64>().unwrap_or_else(|_| panic!("not a number: {line}"));
        assert!(samples.insert(sample.to_owned(), value.to_owned()).is_none(), "twice: {line}");
    }
    samples
}

/// The sum of the samples of `name` whose labels contain `label`.
fn sum(samples: &Samples, name: &str, label: &str) -> u64 {
    let of_name = |sample: &str| sample.split('{').next() == Some(name) && sample.contains(label);
    samples
        .iter()
        .filter(|(sample, _)| of_name(sample))
        .map(|(_, value)| value.parse::<u64>().expect("a count"))
        .sum()
}

#[tokio::test]
async fn a_node_is_alive_and_ready() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(node.admin(path).send().await.status, 200, "{path}");
    }
    assert_eq!(node.admin("/nothing").send().await.status, 404);
}

#[tokio::test]
async fn the_gateway_does_not_serve_what_the_admin_listener_serves() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        node.call(Method::GET, path).send().await.is_refusal(404, "no_upstream");
    }
}

#[tokio::test]
async fn a_stopping_node_is_not_ready() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let mut node = Node::start(&upstream).await;
    node.submit(node.get("/x?async=true")).await;
    upstream.wait_for_calls(1).await;
    node.process().signal("TERM");
    eventually("the node is not ready any more", async || {
        let answer = node.admin("/readyz").try_send().await;
        answer.map_or(Some(()), |answer| (answer.status == 503).then_some(()))
    })
    .await;
    gate.open();
    assert!(node.process().ended().await.status.success());
}

#[tokio::test]
async fn what_happens_is_counted() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    receiver.refuses_first(1);
    upstream.script(&format!("{PREFIX}/fails"), [Reply::new(404)]);
    upstream.script(&format!("{PREFIX}/flaky"), [Reply::new(503), Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    let before = metrics(&node).await;
    assert_eq!(sum(&before, "ringback_tasks_accepted_total", ""), 0);

    let task = node.submit(node.get(&format!("/flaky?{}", receiver.query("/hook")))).await;
    node.finished(&task).await;
    receiver.wait_for(2).await;
    let task = node.submit(node.get("/fails?async=true")).await;
    node.finished(&task).await;
    node.get("/x").send().await;
    node.get("/x?async=maybe").send().await;
    node.get("/results/unknown").send().await;
    // Refused before anything of its head is believed.
    (0..101).fold(node.get("/x"), |call, at| call.header(&format!("x-{at}"), "v")).send().await;

    let counted = [
        ("ringback_tasks_accepted_total", "", 2),
        ("ringback_tasks_finished_total", "Succeeded", 1),
        ("ringback_tasks_finished_total", "Failed", 1),
        ("ringback_attempts_total", "success", 1),
        ("ringback_attempts_total", "transient", 1),
        ("ringback_attempts_total", "fatal", 1),
        ("ringback_deliveries_total", "delivered", 1),
        ("ringback_deliveries_total", "retried", 1),
        ("ringback_calls_refused_total", "validation_error", 1),
        ("ringback_calls_refused_total", "task_not_found", 1),
        ("ringback_calls_refused_total", "headers_too_large", 1),
        ("ringback_queue_depth", "", 0),
    ];
    eventually("everything is counted", async || {
        let now = metrics(&node).await;
        let wrong = counted.iter().find(|(name, label, count)| sum(&now, name, label) != *count);
        wrong.is_none().then_some(())
    })
    .await;
    let now = metrics(&node).await;
    assert!(sum(&now, "ringback_commit_seconds_count", "") > 0, "{now:?}");
    assert!(now.keys().any(|name| name.contains("oldest_age")), "{now:?}");
}

#[tokio::test]
async fn what_waits_is_counted_while_it_waits() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let mut tasks = Vec::new();
    for number in 0..3 {
        tasks.push(node.submit(node.get(&format!("/{number}?async=true"))).await);
    }
    let depth = async |expected: u64| {
        eventually(&format!("{expected} tasks wait"), async || {
            (sum(&metrics(&node).await, "ringback_queue_depth", "") == expected).then_some(())
        })
        .await;
    };
    depth(3).await;
    gate.open();
    depth(0).await;
}

#[tokio::test]
async fn labels_never_hold_what_a_client_chose() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let before = metrics(&node).await.len();
    for number in 0..20 {
        let task = node.submit(node.get(&format!("/hush-{number}?async=true"))).await;
        node.finished(&task).await;
    }
    let text = node.admin("/metrics").send().await.body;
    assert!(!String::from_utf8_lossy(&text).contains("hush"));
    assert!(metrics(&node).await.len() <= before + 20, "the number of samples does not grow with calls");
}

#[tokio::test]
async fn what_is_not_for_everybody_is_shown_to_nobody_from_another_site() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let asked = |host: &str| node.admin("/tasks").header("host", host);
    assert_eq!(asked("localhost").send().await.status, 404);
    assert_eq!(asked("evil.example").send().await.status, 403, "a name that leads here");
    let foreign = asked("localhost").header("origin", "https://evil.example");
    assert_eq!(foreign.send().await.status, 403);
    // Probes call the node by whatever name they know.
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(node.admin(path).header("host", "node-1.cluster").send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_client_of_the_admin_listener_that_says_nothing_is_hung_up_on() {
    let upstream = Upstream::start().await;
    let node = Setup::new(&upstream).set("server.header_timeout", "100ms").start().await;
    for begun in ["", "GET /livez HTTP/1.1\r\nHost: ", "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let answer = raw(node.admin_address(), begun.as_bytes()).await;
        assert_eq!(answer.contains("200 OK"), begun.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn an_admin_token_opens_and_nothing_else_does() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream);
    let file = setup.write("admin-token", "s3cret-token\n").display().to_string();
    let node = setup.set("server.admin_token_file", file).start().await;
    assert_eq!(node.admin("/tasks").bearer("s3cret-token").send().await.status, 404);
    let refused = node.admin("/tasks").bearer("another").send().await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").is_some());
    assert_eq!(node.admin("/livez").send().await.status, 200);
    assert!(!node.log().contains("s3cret-token"));
}

/// A container serves probes to others; no token was given, so nobody has one.
#[tokio::test]
async fn beyond_loopback_and_without_a_token_everybody_is_refused_but_probes() {
    let upstream = Upstream::start().await;
    for anywhere in ["0.0.0.0:0", "[::]:0"] {
        let node = Setup::new(&upstream).set("server.admin_listen", anywhere).start().await;
        let refused = [
            node.admin("/tasks"),
            node.admin("/tasks").header("host", "localhost"),
            node.admin("/tasks").bearer(""),
            node.admin("/tasks").bearer("null"),
            node.admin("/tasks").header("authorization", "Bearer"),
            node.admin("/"),
            node.admin("/metrics/"),
            node.admin("//metrics"),
        ];
        for call in refused {
            let answer = call.send().await;
            assert_eq!(answer.status, 401, "{:?}", answer.body);
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(node.admin(path).header("host", "10.1.2.3:8081").send().await.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn a_token_opens_from_no_page_of_another_origin_and_only_once() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream);
    let file = setup.write("admin-token", "s3cret-token\n").display().to_string();
    let node =
        setup.set("server.admin_token_file", file).set("server.admin_listen", "0.0.0.0:0").start().await;
    let asked = || node.admin("/tasks").header("host", "ops.example:8081").bearer("s3cret-token");
    assert_eq!(asked().send().await.status, 404);
    assert_eq!(asked().header("origin", "http://ops.example:8081").send().await.status, 404);
    for origin in
        ["https://evil.example", "null", "http://ops.example", "http://ops.example:8081.evil.example"]
    {
        assert_eq!(asked().header("origin", origin).send().await.status, 403, "{origin}");
    }
    let twice = asked().header("origin", "http://ops.example:8081").header("origin", "https://evil.example");
    assert_eq!(twice.send().await.status, 403);
    assert_eq!(asked().bearer("s3cret-token").send().await.status, 401, "two tokens are none");
    for token in ["s3cret-toke", "s3cret-token2", "S3CRET-TOKEN", "s3cret-token,x"] {
        let answer = node.admin("/tasks").header("host", "ops.example:8081").bearer(token).send().await;
        assert_eq!(answer.status, 401, "{token}");
    }
    assert!(!node.log().contains("s3cret"));
}

#[tokio::test]
async fn an_admin_token_file_without_a_token_does_not_start() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream);
    let files = [("empty", ""), ("blank", " \n\t\n")].map(|(name, text)| setup.write(name, text));
    let empty = "`server.admin_token_file` cannot be read or is empty";
    let gone = setup.data_dir().join("no-such-token");
    let mut setup = setup;
    for (file, words) in [(&files[0], empty), (&files[1], empty), (&gone, "no-such-token")] {
        setup = setup.set("server.admin_token_file", file.display().to_string());
        let ended = setup.spawn().ended().await;
        assert!(!ended.status.success(), "{}", file.display());
        let complaints = ended.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains(words), "{complaints:?}");
    }
}

//! Secrets go in; nothing that Ringback writes, logs, counts or refuses holds one of them.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::client::{encode, raw};
use crate::support::node::{PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::Reply;

/// Each in its own place; the place is the name.
const SECRETS: [&str; 15] = [
    "canary-token-7f3a",
    "canary-query-81bc",
    "canary-header-92cd",
    "canary-body-a3de",
    "canary-hook-b4ef",
    "canary-result-c5f0",
    "canary-result-header-d601",
    "canary-error-e712",
    "canary-refused-f823",
    "canary-client-secret-0934",
    "canary-admin-token-1a45",
    "canary-set-header-2b56",
    "canary-file-header-3c67",
    "canary-idempotency-key-4d78",
    "canary-answer-of-issuer-5e89",
];

/// Everything Ringback wrote, by where.
struct Written(Vec<(String, String)>);

impl Written {
    /// Searching text is fast; a secret is ASCII, which no other byte can hide.
    fn add(&mut self, place: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.to_owned(), String::from_utf8_lossy(&bytes.into()).into_owned()));
    }

    fn add_files(&mut self, when: &str, dir: &Path) {
        for file in fs::read_dir(dir).expect("the data directory is there") {
            let path = file.expect("it can be listed").path();
            self.add(&format!("{} {when}", path.display()), fs::read(&path).expect("it can be read"));
        }
    }

    /// Where a secret stands: as it is, percent-encoded, in base64 or in hexadecimal digits.
    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for secret in SECRETS {
            let hex: Vec<String> = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
            // Base64 of a part depends on where it begins; a middle part is the same in one of three.
            let base64 = (0..3).map(|skip| {
                let encoded = STANDARD.encode(&secret.as_bytes()[skip..]);
                encoded[..encoded.len() / 4 * 4 - 4].to_owned()
            });
            let spellings = [secret.to_owned(), hex.concat(), numbers.join(", ")].into_iter().chain(base64);
            for spelling in spellings {
                for (place, text) in &self.0 {
                    if text.contains(&spelling) {
                        leaks.push(format!("{secret} in {place}"));
                    }
                }
            }
        }
        leaks
    }
}

#[tokio::test]
async fn no_secret_is_found_in_anything_that_is_written() {
    let [token, query, header, body, hook, result, result_header, error, refused, ..] = SECRETS;
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let path = |name: &str| format!("{PREFIX}/{name}");
    upstream.script(&path("good"), [Reply::ok(result).header("x-result", result_header)]);
    upstream.script(
        &path("large"),
        [Reply::ok(result.repeat(40_000)).header("etag", &format!("\"{result_header}\""))],
    );
    upstream.script(
        &path("failing"),
        [Reply::json(403, &format!(r#"{{"error":"denied","error_description":"{error}"}}"#))],
    );
    upstream.script(&path("flaky"), [Reply::new(503).body(error), Reply::reset(), Reply::ok(result)]);
    upstream.script(&path("broken"), [Reply::reset()]);
    receiver.refuses_first(2);
    let node = Setup::new(&upstream)
        .set("upstreams.0.identity.mode", "opaque")
        .arg("--log-level")
        .arg("trace")
        .start()
        .await;
    let mut written = Written(Vec::new());

    let hook_query = receiver.query(&format!("/hook?key={hook}"));
    for name in ["good", "large", "failing", "flaky", "broken"] {
        let call = node.call(http::Method::PUT, &format!("{}?q={query}&{hook_query}", path(name)));
        let call =
            call.bearer(token).header("x-secret", header).header("cookie", header).body(body.repeat(30_000));
        let task = node.submit(call).await;
        // While it is queued or running the request is at rest too.
        written.add_files("while a task runs", &node.data_dir());
        let look = async || {
            let answer = node.results(&task).bearer(token).send().await;
            (answer.status == 200).then_some(answer)
        };
        crate::support::eventually("the task is finished", look).await;
        receiver.wait_for_task(&task.id, 1).await;
        // A stranger who asks for it learns nothing.
        let stranger = node.results(&task).bearer(refused).send().await;
        stranger.is_refusal(404, "task_not_found");
        written.add("a stranger's answer", format!("{:?} {:?}", stranger.headers, stranger.body));
    }
    // A receiver that cannot be reached, under a URI that holds a secret.
    let dead = encode(&format!("http://127.0.0.1:9/{hook}"));
    node.submit(node.get(&format!("/good?q={query}&async=true&webhook_uri={dead}")).bearer(token)).await;

    let bad_hook = encode(&format!("http://10.0.0.1/{refused}"));
    let worse_hook = encode(&format!("https://{refused}@example.com/"));
    for target in [
        format!("/good?async=true&webhook_uri={bad_hook}"),
        format!("/good?async=true&webhook_uri={worse_hook}"),
        format!("/good?async={refused}"),
        format!("/good?async=true&webhook_uri=a&webhook_uri={refused}"),
        format!("/{refused}/../x"),
        format!("/results/{refused}"),
    ] {
        let answer = node.get(&target).bearer(refused).header("x-secret", refused).send().await;
        assert!(answer.status >= 400, "{target}: {}", answer.status);
        written.add("an error answer", format!("{:?} {:?}", answer.headers, answer.body));
    }
    let twice = node.get("/good?async=true").bearer(refused).header("authorization", refused).send().await;
    written.add("an error answer", format!("{:?} {:?}", twice.headers, twice.body));

    let metrics = node.admin("/metrics").send().await;
    assert_eq!(metrics.status, 200);
    written.add("the metrics", metrics.body);
    let data_dir = node.data_dir();
    written.add_files("of the running node", &data_dir);
    let (_setup, ended) = node.terminate().await;
    written.add_files("of the stopped node", &data_dir);
    let log = ended.stderr.join("\n");
    assert!(log.contains("webhook not delivered"), "the log is not at its most talkative");
    written.add("the log", log);
    written.add("the standard output", ended.stdout.join("\n"));

    assert!(written.0.iter().any(|(place, text)| place.contains("ringback.db") && text.len() > 100_000));
    let leaks = written.leaks();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

/// A node that holds each secret of an operator, and writes all it can.
fn with_an_operators_secrets(upstream: &Upstream, issuer: &Upstream, client_auth: &str) -> Setup {
    let [.., client_secret, admin_token, set_header, file_header, _, _] = SECRETS;
    let setup = Setup::new(upstream)
        .set("upstreams.0.identity.mode", "introspection")
        .set("upstreams.0.identity.introspection_url", issuer.uri("/introspect"))
        .set("upstreams.0.identity.client_id", "ringback")
        .set("upstreams.0.identity.client_auth", client_auth)
        .set("upstreams.0.identity.max_cache", "1ms")
        .set("upstreams.0.headers.set.x-api-key", set_header);
    let file = |name: &str, secret: &str| setup.write(name, &format!("{secret}\n")).display().to_string();
    let [client, admin, of_file] =
        [("client", client_secret), ("admin", admin_token), ("of-file", file_header)]
            .map(|(name, secret)| file(name, secret));
    setup
        .set("upstreams.0.identity.client_secret_file", client)
        .set("server.admin_token_file", admin)
        .set("upstreams.0.headers.set_from_file.x-other-key", of_file)
        .arg("--log-level")
        .arg("trace")
}

/// What the operator gave the node to keep, and what a client sends over HTTP/2 with an `Idempotency-Key`.
async fn no_secret_of_an_operator_is_found(client_auth: &str) {
    let [token, query, header, body, hook, result, _, _, refused, rest @ ..] = SECRETS;
    let [client_secret, admin_token, set_header, file_header, key, issuers] = rest;
    let (upstream, issuer, receiver) =
        (Upstream::start().await, Upstream::start().await, Receiver::start().await);
    upstream.always([Reply::ok(result.repeat(1_000))]);
    let active = Reply::json(200, &format!(r#"{{"active":true,"sub":"john","username":"{issuers}"}}"#));
    issuer.always([active]);
    let setup = with_an_operators_secrets(&upstream, &issuer, client_auth);
    let mut written = Written(Vec::new());
    let checked =
        crate::support::process::run(&["check", "--config", &setup.config_file().display().to_string()])
            .await;
    assert!(
        checked.status.success() && checked.stdout.join("\n").contains("x-api-key"),
        "{:?}",
        checked.stderr
    );
    written.add("what `ringback check` says", [checked.stdout, checked.stderr].concat().join("\n"));
    let node = setup.start().await;

    let target = format!("{PREFIX}/x?q={query}&{}", receiver.query(&format!("/hook?key={hook}")));
    let call = |body: &str| {
        let call = node.call(http::Method::PUT, &target).http2().bearer(token).header("idempotency-key", key);
        call.header("x-secret", header).header("cookie", header).body(body.repeat(1_000))
    };
    let task = node.submit(call(body)).await;
    written.add_files("while a task runs", &node.data_dir());
    let look = async || {
        let answer = node.results(&task).http2().bearer(token).send().await;
        (answer.status == 200).then_some(answer)
    };
    crate::support::eventually("the task is finished", look).await;
    receiver.wait_for_task(&task.id, 1).await;
    assert_eq!(node.submit(call(body)).await.id, task.id, "the key is known");
    let mut odd = vec![
        call("another").send().await,
        node.get("/x?async=true")
            .http2()
            .bearer(token)
            .header("idempotency-key", &format!("{key} {key}"))
            .send()
            .await,
        node.get("/x?async=true").http2().bearer(token).bearer(refused).send().await,
        node.get("/x?async=maybe").http2().bearer(refused).header("x-secret", header).send().await,
    ];
    // The issuer goes away, then it says no; both are logged, with nothing of the question.
    for (reply, status) in [
        (Reply::new(401).body(issuers), 503),
        (Reply::ok(issuers), 503),
        (Reply::json(200, &format!(r#"{{"active":false,"username":"{issuers}"}}"#)), 401),
    ] {
        issuer.always([reply]);
        let answer = crate::support::eventually("the issuer's answer is heard", async || {
            Some(node.results(&task).http2().bearer(token).send().await)
                .filter(|answer| answer.status == status)
        });
        odd.push(answer.await);
    }
    for call in [
        node.admin("/tasks").bearer(admin_token),
        node.admin("/tasks").bearer(refused),
        node.admin("/tasks").bearer(admin_token).header("origin", &format!("http://{refused}.example")),
    ] {
        odd.push(call.send().await);
    }
    for answer in odd {
        assert!(answer.status >= 400, "{}", answer.status);
        written.add("an error answer", format!("{:?} {:?}", answer.headers, answer.body));
    }

    // All of them were in use.
    let sent = &upstream.calls_of(&format!("{PREFIX}/x"))[0];
    assert_eq!((sent.header("x-api-key"), sent.header("x-other-key")), (Some(set_header), Some(file_header)));
    assert_eq!(sent.header("idempotency-key"), Some(key));
    let asked = &issuer.calls()[0];
    let basic = STANDARD.encode(format!("ringback:{client_secret}"));
    let known = asked.header("authorization") == Some(&format!("Basic {basic}"))
        || String::from_utf8_lossy(&asked.body).contains(client_secret);
    assert!(known, "the issuer was not told the client's secret");

    written.add("the metrics", node.admin("/metrics").send().await.body);
    let data_dir = node.data_dir();
    written.add_files("of the running node", &data_dir);
    let (_setup, ended) = node.terminate().await;
    written.add_files("of the stopped node", &data_dir);
    let log = ended.stderr.join("\n");
    assert!(log.contains("the identity service is of no help"), "the log is not at its most talkative");
    written.add("the log", log);
    written.add("the standard output", ended.stdout.join("\n"));
    let leaks = written.leaks();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

#[tokio::test]
async fn no_secret_of_an_operator_is_found_in_anything_that_is_written() {
    no_secret_of_an_operator_is_found("basic").await;
}

#[tokio::test]
async fn no_secret_sent_to_an_issuer_in_a_form_is_found_in_anything_that_is_written() {
    no_secret_of_an_operator_is_found("post").await;
}

/// Code that takes a hostile value for a good one panics with that value in its message; the message holds
/// a whole head. In a build for tests every request to one path is sent by such code.
#[cfg(debug_assertions)]
#[tokio::test]
async fn a_panic_ends_one_thing_and_tells_nothing_of_what_it_held() {
    let [token, query, header, body, hook, .., api_key, _, key, _] = SECRETS;
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let path = format!("{PREFIX}/panics");
    let setup = Setup::new(&upstream)
        .set("upstreams.0.identity.mode", "opaque")
        .set("upstreams.0.headers.set.x-api-key", api_key);
    let setup =
        setup.arg("--log-level").arg("trace").env("RINGBACK_PANIC_AT", &path).env("RUST_BACKTRACE", "1");
    let mut node = setup.start().await;
    let mut written = Written(Vec::new());
    let call = |target: &str| {
        let call = node.call(http::Method::PUT, target).bearer(token);
        call.header("x-secret", header).body(body.repeat(1_000))
    };

    // An attempt that panics ends its task; its webhook leaves all the same.
    let attempt = call(&format!("{path}?q={query}&{}", receiver.query(&format!("/hook?key={hook}"))));
    let attempt = attempt.header("idempotency-key", key).http2();
    let attempt = node.submit(attempt).await;
    receiver.wait_for_task(&attempt.id, 1).await;
    let answer = node.results(&attempt).bearer(token).send().await;
    assert_eq!((answer.status, &answer.json()["error"]), (200, &"internal_error".into()));
    assert_eq!(answer.json()["error_details"]["reason"], "panicked");
    written.add("an error answer", format!("{:?} {:?}", answer.headers, answer.body));

    // A delivery that panics counts as a failed try; its result is there.
    let delivery =
        call(&format!("{PREFIX}/fine?q={query}&{}", receiver.query(&format!("{path}?key={hook}"))));
    let delivery = node.submit(delivery).await;
    let given_up = |line: &serde_json::Value| line["message"].as_str()?.contains("given up").then_some(());
    node.process().logged("the webhook is given up", given_up).await;
    assert_eq!(node.results(&delivery).bearer(token).send().await.status, 200);

    // A proxied call that panics takes its own connection with it.
    let head = format!("GET {path}?q={query} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    written.add("the answer to a proxied call", raw(node.address(), head.as_bytes()).await);

    let fine = node.submit(node.get("/fine?async=true").bearer(token)).await;
    assert_eq!(node.results(&fine).bearer(token).send().await.header("ringback-task"), Some(&*fine.id));
    let (_setup, ended) = node.terminate().await;
    assert!(ended.status.success());
    let panics = ended.stderr.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let panics: Vec<_> = panics.filter(|line| line["place"].is_string()).collect();
    // The attempt, seven tries of the delivery, the proxied call.
    assert_eq!(panics.len(), 9, "{panics:?}");
    for panic in panics {
        assert!(panic["place"].as_str().is_some_and(|place| place.starts_with("src/client/defect.rs:")));
        assert!(panic["backtrace"].as_str().is_some_and(|trace| trace.contains("ringback::")));
    }
    written.add("the log", ended.stderr.join("\n"));
    written.add("the standard output", ended.stdout.join("\n"));
    let leaks = written.leaks();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    let secret = SECRETS[3];
    let hex: String = secret.bytes().map(|byte| format!("{byte:02X}").to_lowercase()).collect();
    for text in [
        format!("x{secret}y"),
        hex,
        STANDARD.encode(format!("x{secret}y")),
        STANDARD.encode(format!("xy{secret}")),
        format!("{:?}", secret.as_bytes()),
    ] {
        let mut written = Written(Vec::new());
        written.add("here", text.clone());
        assert!(!written.leaks().is_empty(), "{text}");
    }
}

//! What is refused: each with its code, nothing stored, nobody called.

use http::Method;
use serde_json::{Value, json};

use crate::support::client::{Call, encode, raw};
use crate::support::issuer::{self, Key, claims, now};
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;

/// A node as strict as it comes: identity `jwt`, receivers by https on port 443 only.
struct Strict {
    node: Node,
    upstream: Upstream,
    key: Key,
    token: String,
}

impl Strict {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let key = Key::p256("k1");
        let setup = issuer::by_file(Setup::new(&upstream), &[&key])
            .set("webhooks.allow_loopback", false)
            .set("server.max_body_bytes", 1000)
            .set("server.max_uri_bytes", 2000)
            .set("server.max_header_bytes", "8KB");
        let token = key.token("john");
        Self { node: setup.start().await, upstream, key, token }
    }

    fn get(&self, target: &str) -> Call {
        self.node.get(target).bearer(&self.token)
    }

    fn post(&self, target: &str) -> Call {
        self.node.post(target).bearer(&self.token)
    }

    /// Sends each call, expects its refusal, and that nothing was stored and nobody was called.
    async fn refuses(&self, status: u16, code: &str, calls: Vec<(&str, Call)>) {
        let before = self.node.rows();
        for (name, call) in calls {
            let answer = call.send().await;
            assert_eq!((answer.status, answer.header("ringback-error")), (status, Some(code)), "{name}");
            answer.is_refusal(status, code);
            assert_eq!(self.node.rows(), before, "{name}: something was stored");
        }
        self.upstream.saw_nobody();
        // The node is well: the same call without the fault is accepted, and is the first one sent.
        let accepted = self.get("/fine?async=true").send().await;
        assert_eq!(accepted.status, 202, "{:?}", accepted.body);
        assert_eq!(self.upstream.wait_for_calls(1).await[0].target, format!("{PREFIX}/fine"));
        assert_eq!(self.upstream.calls().len(), 1);
    }
}

#[tokio::test]
async fn parameters_that_are_not_understood_are_refused() {
    let strict = Strict::start().await;
    let receiver = "webhook_uri=https%3A%2F%2Freceiver.example%2F";
    let twice = format!("async=true&{receiver}&{receiver}");
    let queries = [
        "async=maybe",
        "async=",
        "async",
        "async=1",
        "async=yes",
        "async=true%20",
        "async=true,true",
        "async=true&async=true",
        "async=true&async=false",
        "async=false&async=true",
        "x=1&async=true&y=2&async=true",
        &twice,
    ];
    let calls = queries.iter().map(|query| (*query, strict.get(&format!("/x?{query}")))).collect();
    strict.refuses(400, "validation_error", calls).await;
}

#[tokio::test]
async fn webhook_uris_that_may_not_be_called_are_refused() {
    let strict = Strict::start().await;
    let uris = [
        // Not absolute, or not a URI.
        "",
        "/relative",
        "receiver.example/x",
        "//receiver.example/x",
        "https:receiver.example",
        "https:///path",
        "https://",
        "https://[::1/",
        "https://receiver.example:99999/",
        "https://receiver.example:port/",
        "https://receiver.example/%zz",
        "https://receiver.example/a b",
        "https://receiver.example/a?b c",
        "https://rec eiver.example/",
        " https://receiver.example/",
        "https://receiver.example\\@other.example/",
        "https://receiver.example/a\\b",
        "https://receiver.example/a\nb",
        "https://receiver.example/a\u{7f}",
        "https://receiver.example/ä",
        "https://räceiver.example/",
        "https://receiver.example/<x>",
        // A scheme that is not allowed.
        "ftp://receiver.example/",
        "file:///etc/passwd",
        "gopher://receiver.example/",
        "javascript:alert(1)",
        "http://receiver.example/",
        // User-info.
        "https://user@receiver.example/",
        "https://user:password@receiver.example/",
        "https://@receiver.example/",
        // Literal addresses nobody outside can mean.
        "https://10.0.0.1/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://255.255.255.255/",
        "https://224.0.0.1/",
        "https://[::]/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::10.0.0.1]/",
        "https://[2002:0a00:0001::1]/",
        // A port that is not allowed.
        "https://receiver.example:22/",
        "https://receiver.example:80/",
        "https://receiver.example:8443/",
    ];
    let call = |uri: &&'static str| (*uri, strict.get(&format!("/x?async=true&webhook_uri={}", encode(uri))));
    strict.refuses(400, "validation_error", uris.iter().map(call).collect()).await;
}

#[tokio::test]
async fn without_a_good_token_nobody_finds_out_which_webhook_uris_are_allowed() {
    let strict = Strict::start().await;
    let before = strict.node.rows();
    for token in [None, Some("nonsense")] {
        let said = async |query: &str| {
            let call = strict.node.post(&format!("/x?{query}"));
            let answer = match token {
                None => call.send().await,
                Some(token) => call.bearer(token).send().await,
            };
            answer.is_refusal(401, "invalid_token");
            answer.body
        };
        let without = said("async=true").await;
        for uri in [
            "https://receiver.example/",
            "https://receiver.example:22/",
            "http://receiver.example/",
            "https://10.0.0.1/",
            "https://127.0.0.1/",
            "https://user@receiver.example/",
            "nonsense",
            "",
        ] {
            assert_eq!(said(&format!("async=true&webhook_uri={}", encode(uri))).await, without, "{uri}");
        }
    }
    assert_eq!(strict.node.rows(), before);
    strict.upstream.saw_nobody();
}

#[tokio::test]
async fn a_public_webhook_uri_is_accepted_by_the_same_node() {
    let strict = Strict::start().await;
    for uri in
        ["https://receiver.invalid/a?b=%20", "https://receiver.invalid:443/", "HTTPS://RECEIVER.invalid"]
    {
        let answer = strict.get(&format!("/x?async=true&webhook_uri={}", encode(uri))).send().await;
        assert_eq!(answer.status, 202, "{uri}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn odd_spellings_of_a_private_address_never_reach_it() {
    let (upstream, hidden) = (Upstream::start().await, Receiver::start().await);
    let allowed = Receiver::listen("127.0.0.2:0").await;
    allowed.answers([crate::support::reply::Reply::new(500)]);
    let port = hidden.peer().address().port();
    let node = Setup::new(&upstream)
        .set("webhooks.allow_loopback", false)
        .set("webhooks.allow_http", true)
        .set("webhooks.allow_networks", vec!["127.0.0.2/32"])
        .set("webhooks.ports", vec![i64::from(port), i64::from(allowed.peer().address().port())])
        .start()
        .await;
    for host in
        ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "localhost.", "[::ffff:127.0.0.1]"]
    {
        let uri = encode(&format!("http://{host}:{port}/hook"));
        let answer = node.get(&format!("/x?async=true&webhook_uri={uri}")).send().await;
        assert!([202, 400].contains(&answer.status), "{host}: {}", answer.status);
    }
    // Seven tries of a later task take as long as all tries before it.
    let call = node.get(&format!("/x?{}", allowed.query("/hook")));
    let task = node.submit(call).await;
    allowed.wait_for_task(&task.id, 7).await;
    hidden.peer().saw_nobody();
}

#[tokio::test]
async fn a_target_that_is_too_long_is_refused() {
    let strict = Strict::start().await;
    let long = "x".repeat(3000);
    let calls = vec![
        ("query", strict.get(&format!("/x?async=true&q={long}"))),
        ("path", strict.get(&format!("/{long}?async=true"))),
        ("proxied", strict.get(&format!("/x?q={long}"))),
    ];
    strict.refuses(414, "uri_too_long", calls).await;
}

#[tokio::test]
async fn a_header_section_that_is_too_large_is_refused() {
    let strict = Strict::start().await;
    let many = |call: Call| (0..70).fold(call, |call, at| call.header(&format!("x-{at}"), &"v".repeat(150)));
    let calls = vec![
        ("one", strict.get("/x?async=true").header("x-long", &"v".repeat(10_000))),
        ("many", many(strict.get("/x?async=true"))),
        ("proxied", strict.get("/x").header("x-long", &"v".repeat(10_000))),
    ];
    strict.refuses(431, "headers_too_large", calls).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let strict = Strict::start().await;
    let pieces = || futures_util::stream::iter(vec![bytes::Bytes::from(vec![1; 400]); 3]);
    let calls = vec![
        ("declared", strict.post("/x?async=true").body(vec![1; 1001])),
        ("not declared", strict.post("/x?async=true").stream(pieces())),
    ];
    strict.refuses(413, "body_too_large", calls).await;
}

#[tokio::test]
async fn a_body_at_the_limit_is_accepted() {
    let strict = Strict::start().await;
    assert_eq!(strict.post("/x?async=true").body(vec![1; 1000]).send().await.status, 202);
    assert_eq!(strict.upstream.wait_for_calls(1).await[0].body.len(), 1000);
}

#[tokio::test]
async fn a_call_is_refused_before_its_body_is_sent() {
    let strict = Strict::start().await;
    let before = strict.node.rows();
    let cases = [
        ("too large", "/x?async=true", strict.token.as_str(), "413"),
        ("no token", "/x?async=true", "nonsense", "401"),
        ("bad parameter", "/x?async=maybe", &strict.token, "400"),
    ];
    for (name, target, token, status) in cases {
        let head = format!(
            "POST {PREFIX}{target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-length: 100000\r\nconnection: close\r\n\r\n"
        );
        // Not a byte of the body is sent, so an answer that waits for it never comes.
        let answer = raw(strict.node.address(), head.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
    }
    assert_eq!(strict.node.rows(), before);
    strict.upstream.saw_nobody();
}

#[tokio::test]
async fn a_body_that_breaks_off_makes_no_task() {
    let strict = Strict::start().await;
    let before = strict.node.rows();
    let token = &strict.token;
    for framing in ["content-length: 10\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let head = format!(
            "POST {PREFIX}/x?async=true HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{framing}"
        );
        half_closed(strict.node.address(), head.as_bytes()).await;
    }
    assert_eq!(strict.node.rows(), before);
    strict.refuses(400, "validation_error", Vec::new()).await;
}

#[tokio::test]
async fn a_client_that_pauses_too_long_is_not_waited_for() {
    let upstream = Upstream::start().await;
    let setup =
        Setup::new(&upstream).set("server.body_timeout", "200ms").set("server.header_timeout", "200ms");
    let node = setup.start().await;
    let before = node.rows();
    let call = format!("POST {PREFIX}/x?async=true HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf");
    let answer = raw(node.address(), call.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"), "{answer}");
    let answer = raw(node.address(), b"GET / HTTP/1.1\r\nhost: ").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let answer = raw(node.address(), b"").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(node.rows(), before);
    upstream.saw_nobody();
}

/// Sends `bytes`, ends the sending side, and waits until the other side has closed too.
async fn half_closed(to: std::net::SocketAddr, bytes: &[u8]) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(to).await.expect("the listener accepts");
    stream.write_all(bytes).await.expect("the call is written");
    stream.shutdown().await.expect("a socket can be half closed");
    let mut answer = Vec::new();
    let _ = crate::support::within("the connection was closed", stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn tokens_that_are_not_good_are_refused() {
    let strict = Strict::start().await;
    let key = &strict.key;
    let with = |name: &str, value: Value| {
        let mut claims = claims("john");
        claims[name] = value;
        key.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = claims("john");
        claims.as_object_mut().expect("claims are an object").remove(name);
        key.sign(&claims)
    };
    let good: Vec<String> = strict.token.split('.').map(str::to_owned).collect();
    let other: Vec<String> = key.token("jane").split('.').map(str::to_owned).collect();
    let flipped = if good[2].starts_with('A') { "B" } else { "A" };
    let tokens = [
        ("expired", with("exp", json!(now() - 3600))),
        ("not yet", with("nbf", json!(now() + 3600))),
        ("never expires", without("exp")),
        ("wrong issuer", with("iss", json!("https://evil.example"))),
        ("no issuer", without("iss")),
        ("wrong audience", with("aud", json!("other_api"))),
        ("no audience", without("aud")),
        ("nobody", without("sub")),
        ("nobody's name", with("sub", json!(""))),
        ("a number", with("sub", json!(7))),
        ("tampered claims", format!("{}.{}.{}", good[0], other[1], good[2])),
        ("tampered signature", format!("{}.{}.{flipped}{}", good[0], good[1], &good[2][1..])),
        ("no signature", format!("{}.{}.", good[0], good[1])),
        ("algorithm none", unsigned(&claims("john"))),
        ("another key", Key::p256("k1").token("john")),
        ("unknown key", Key::p256("k2").token("john")),
        ("another algorithm", Key::ed25519("k1").token("john")),
        ("not a token", "nonsense".to_owned()),
        ("dots", "..".to_owned()),
    ];
    let mut calls: Vec<(&str, Call)> =
        tokens.iter().map(|(name, token)| (*name, strict.node.get("/x?async=true").bearer(token))).collect();
    calls.push(("missing", strict.node.get("/x?async=true")));
    calls.push(("empty", strict.node.get("/x?async=true").header("authorization", "Bearer ")));
    calls.push(("twice", strict.get("/x?async=true").bearer(&strict.token)));
    let basic = format!("Basic {}", strict.token);
    calls.push(("another scheme", strict.node.get("/x?async=true").header("authorization", &basic)));
    strict.refuses(401, "invalid_token", calls).await;
    let refused = strict.node.get("/x?async=true").send().await;
    assert!(refused.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")));
}

fn unsigned(claims: &Value) -> String {
    use base64::Engine as _;
    let part = |value: &Value| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none", "typ": "at+jwt", "kid": "k1"})), part(claims))
}

#[tokio::test]
async fn an_upgrade_cannot_be_a_task() {
    let strict = Strict::start().await;
    let call = strict.get("/x?async=true").header("connection", "upgrade").header("upgrade", "websocket");
    strict.refuses(400, "validation_error", vec![("upgrade", call)]).await;
}

#[tokio::test]
async fn dot_segments_are_refused_however_they_are_written() {
    let strict = Strict::start().await;
    let paths = [
        "/../x",
        "/./x",
        "/x/..",
        "/x/.",
        "/%2e%2e/x",
        "/%2E./x",
        "/.%2e/x",
        "/%2e/x",
        "/a/b/%2e%2E",
        "/x/%2E/",
    ];
    let both = paths
        .iter()
        .flat_map(|path| [(*path, strict.get(path)), (*path, strict.get(&format!("{path}?async=true")))]);
    strict.refuses(400, "validation_error", both.collect()).await;
}

#[tokio::test]
async fn a_path_no_upstream_has_is_refused() {
    let strict = Strict::start().await;
    let call = |target: &str| strict.node.call(Method::GET, target).bearer(&strict.token);
    let calls = vec![
        ("another path", call("/other?async=true")),
        ("half a segment", call("/data/v10/x?async=true")),
        ("the root", call("/")),
        ("another spelling", call("/Data/v1/x")),
    ];
    strict.refuses(404, "no_upstream", calls).await;
}

#[tokio::test]
async fn trace_and_connect_are_refused() {
    let strict = Strict::start().await;
    let call = |method| strict.node.call(method, &format!("{PREFIX}/x?async=true")).bearer(&strict.token);
    strict.refuses(405, "method_not_allowed", vec![("TRACE", call(Method::TRACE))]).await;
    let answer = raw(
        strict.node.address(),
        b"CONNECT receiver.example:443 HTTP/1.1\r\nhost: receiver.example:443\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_message_with_two_lengths_is_refused() {
    let strict = Strict::start().await;
    let before = strict.node.rows();
    let token = &strict.token;
    let framings = [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "transfer-encoding: gzip\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "content-length: +5\r\n\r\nhello",
    ];
    for query in ["", "?async=true"] {
        for framing in framings {
            let call = format!(
                "POST {PREFIX}/x{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
                 connection: close\r\n{framing}"
            );
            let answer = raw(strict.node.address(), call.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(), "{framing}: {answer}");
        }
    }
    assert_eq!(strict.node.rows(), before);
    strict.upstream.saw_nobody();
}

//! What is refused, and in which words; what is ours and what is the upstream's.

use super::support::{Node, Scripted, mirror, node, node_with};

async fn quiet() -> (Scripted, Node) {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    (upstream, node)
}

#[tokio::test]
async fn refusals_name_their_code_and_call_nothing() {
    let (upstream, node) = quiet().await;
    let long = "x".repeat(1100);
    let large = "x".repeat(9000);
    let many = "A: b\r\n".repeat(101);
    for (head, status, code) in [
        ("TRACE /api HTTP/1.1\r\nHost: a\r\n", 405, "method_not_allowed"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n", 405, "method_not_allowed"),
        ("GET /other HTTP/1.1\r\nHost: a\r\n", 404, "no_upstream"),
        ("GET /apis HTTP/1.1\r\nHost: a\r\n", 404, "no_upstream"),
        ("GET /api/%2e%2E/x HTTP/1.1\r\nHost: a\r\n", 400, "validation_error"),
        ("GET /api/..;/x HTTP/1.1\r\nHost: a\r\n", 400, "validation_error"),
        ("GET /api HTTP/1.1\r\n", 400, "validation_error"),
        ("GET /api HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400, "validation_error"),
        ("GET /api?async=maybe HTTP/1.1\r\nHost: a\r\n", 400, "validation_error"),
        ("GET /api?async=true&async=true HTTP/1.1\r\nHost: a\r\n", 400, "validation_error"),
        ("GET /api?async=true&webhook_uri=%zz HTTP/1.1\r\nHost: a\r\n", 400, "validation_error"),
        (
            "GET /api?async=true HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
            400,
            "validation_error",
        ),
        ("GET /api/results/7 HTTP/1.1\r\nHost: a\r\n", 404, "task_not_found"),
        ("GET /api/results/7/ HTTP/1.1\r\nHost: a\r\n", 404, "task_not_found"),
        (&format!("GET /api?{long} HTTP/1.1\r\nHost: a\r\n"), 414, "uri_too_long"),
        (&format!("GET /api?{large} HTTP/1.1\r\nHost: a\r\n"), 414, "uri_too_long"),
        (&format!("GET /api HTTP/1.1\r\nHost: a\r\nX: {large}\r\n"), 431, "headers_too_large"),
        (&format!("GET /api HTTP/1.1\r\nHost: a\r\n{many}"), 431, "headers_too_large"),
    ] {
        let answer = node.answer_to(&format!("{head}Connection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
        assert!(answer.contains(&format!("ringback-error: {code}\r\n")), "{head}: {answer}");
        assert!(
            answer.contains(&format!("{{\"error\":\"{code}\",\"error_description\":\"")),
            "{head}: {answer}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_refusal_comes_before_the_body_is_read() {
    let (_, node) = quiet().await;
    let mut client = node.connect().await;
    client
        .send("POST /other HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
        .await;
    assert!(client.head().await.starts_with("http/1.1 404"));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_declared_or_not() {
    let upstream = mirror().await;
    let node = node_with(upstream.address, "max_proxy_body_bytes = 4", "").await;
    let call = |fields: &str| format!("POST /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}");
    let declared = node.answer_to(&call("Content-Length: 5\r\n\r\n12345")).await;
    assert!(declared.starts_with("HTTP/1.1 413") && declared.contains("body_too_large"), "{declared}");
    assert_eq!(upstream.connections(), 0);
    let counted =
        node.answer_to(&call("Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\n2\r\n45\r\n0\r\n\r\n")).await;
    assert!(counted.starts_with("HTTP/1.1 413") && counted.contains("body_too_large"), "{counted}");
    let just = node.answer_to(&call("Content-Length: 4\r\n\r\n1234")).await;
    assert!(just.starts_with("HTTP/1.1 200") && just.ends_with("1234"), "{just}");
}

#[tokio::test]
async fn results_without_an_id_and_neighbours_are_the_upstreams() {
    let (_, node) = quiet().await;
    for path in
        ["/api/results", "/api/results/", "/api/results/?x", "/api/resultsx/7", "/api/.well-known/jwks"]
    {
        let answer =
            node.answer_to(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains(&format!("get {} http", path.replace("/api", "/v1"))), "{path}: {answer}");
    }
}

#[tokio::test]
async fn async_false_is_proxied_without_our_parameters() {
    let (_, node) = quiet().await;
    let call = "GET /api/x?async=false&a=%20&webhook_uri=b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(node.answer_to(call).await.contains("get /v1/x?a=%20 http/1.1"));
}

#[tokio::test]
async fn a_preflight_is_proxied_where_no_origin_is_configured() {
    let (_, node) = quiet().await;
    let fields = "HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: https://o\r\nAccess-Control-Request-Method: GET\r\n\r\n";
    for (target, seen) in [("/api/x?async=true", "/v1/x"), ("/api/x?async=maybe", "/v1/x?async=maybe")] {
        let answer = node.answer_to(&format!("OPTIONS {target} {fields}")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("options {seen} http")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn our_answers_can_be_read_by_configured_origins() {
    let upstream = mirror().await;
    let node = node_with(upstream.address, "", "cors = { origins = [\"https://o\"] }").await;
    let call = |method: &str, target: &str, field: &str| {
        format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: https://o\r\n{field}\r\n"
        )
    };
    let preflight =
        node.answer_to(&call("OPTIONS", "/api/x?async=true", "Access-Control-Request-Method: GET\r\n")).await;
    assert!(
        preflight.starts_with("HTTP/1.1 204") && preflight.contains("access-control-allow-methods: GET"),
        "{preflight}"
    );
    for target in ["/api/results/7", "/api/x?async=maybe", "/api/%2e/", "/api/x?async=true"] {
        let answer = node.answer_to(&call("GET", target, "")).await;
        assert!(answer.contains("access-control-allow-origin: https://o"), "{target}: {answer}");
        assert!(answer.contains("access-control-expose-headers: Location"), "{target}: {answer}");
    }
    assert_eq!(upstream.connections(), 0);
    let proxied = node.answer_to(&call("GET", "/api/x", "")).await;
    assert!(proxied.starts_with("HTTP/1.1 200") && !proxied.contains("access-control"), "{proxied}");
}

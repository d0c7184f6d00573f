//! Heads and bodies that two parsers could read differently.

use super::strict::strict;
use super::support::{mirror, node, upstream};

const GOOD: &str = "GET /api/good HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_head_with_two_readings_is_refused_and_nothing_is_called() {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    for head in [
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/smuggled HTTP/1.1\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx",
        "GET /api HTTP/1.1\nHost: a\n\n",
        "GET /api HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n 0\r\n\r\nx",
        "POST /api HTTP/1.1\r\nHost: a\nContent-Length: 1\r\n\r\nx",
        "GET /api HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        "GET /api?webhook_uri=https://a.example/a b HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        for target in ["/api", "/api?async=true&x"] {
            let head = head.replacen("/api", target, 1);
            let answer = node.answer_to(&head).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
            assert!(
                answer.contains("ringback-error: validation_error") && answer.contains("connection: close"),
                "{answer}"
            );
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn calls_before_a_refused_head_are_served_and_none_after_it() {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    let posted = "POST /api/posted HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n \r\n";
    let answer = node.answer_to(&format!("{GOOD}{posted}GET /api/bad HTTP/1.1\r\nA : b\r\n\r\n{GOOD}")).await;
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answer}");
    assert!(
        answer.contains("get /v1/good") && answer.contains("post /v1/posted") && !answer.contains("/bad")
    );
}

#[tokio::test]
async fn heads_may_arrive_in_any_pieces() {
    let node = node(mirror().await.address).await;
    let mut client = node.connect().await;
    let calls = "\r\nPOST /api/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                 POST /api/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ndef";
    for byte in calls.bytes() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(client.message().await.1.contains("post /v1/1"));
    assert!(client.message().await.1.ends_with("def"));
}

#[tokio::test]
async fn a_chunk_with_two_readings_breaks_the_call() {
    let upstream = upstream(|mut client| async move { client.ended().await }).await;
    let node = node(upstream.address).await;
    for chunk in ["3\nabc\r\n0\r\n\r\n", "3 ;a\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n"] {
        let answer = node
            .answer_to(&format!(
                "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{GOOD}"
            ))
            .await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("body_broken"), "{chunk:?}: {answer}");
    }
}

#[tokio::test]
async fn a_client_reads_a_refusal_although_it_is_still_sending() {
    let node = super::support::node_with(mirror().await.address, "max_proxy_body_bytes = 1000", "").await;
    let mut client = node.connect().await;
    client.send("POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n").await;
    let piece = vec![b'x'; 100_000];
    for _ in 0..40 {
        client.send(&piece).await;
    }
    let (head, body) = client.message().await;
    assert!(head.starts_with("http/1.1 413") && body.contains("body_too_large"), "{head}{body}");
}

#[tokio::test]
async fn a_target_and_a_host_that_disagree_are_refused() {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    for head in [
        "GET http://a.example/api HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n",
        "GET http://a.example:8080/api HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "GET http://a.example/api?async=true HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n",
        "GET http://a.example/api HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "GET http://a.example/api HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET http:///api HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "GET a.example/api HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "GET http://u@a.example/api HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a, b\r\nConnection: close\r\n\r\n",
        "GET /api HTTP/1.1\r\nConnection: close\r\n\r\n",
    ] {
        let answer = node.answer_to(head).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
    }
    assert_eq!(upstream.connections(), 0);
    let call = "GET http://a.example/api/x HTTP/1.1\r\nHost: A.example\r\nConnection: close\r\n\r\n";
    let answer = node.answer_to(call).await;
    assert!(answer.contains("get /v1/x http/1.1"), "the absolute form goes on in origin form: {answer}");
}

#[tokio::test]
async fn trailers_change_nothing_of_the_call_they_follow() {
    let (upstream, seen) = strict().await;
    let node = node(upstream.address).await;
    for (name, value) in [
        ("content-length", "9"),
        ("transfer-encoding", "chunked"),
        ("host", "b"),
        ("te", "gzip"),
        ("connection", "close"),
        ("upgrade", "x"),
        ("keep-alive", "x"),
    ] {
        let field = format!("{name}: {value}");
        let call = format!(
            "POST /api HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum, {name}\r\n\
             Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n{field}\r\nx-sum: 1\r\n\r\n"
        );
        let answer = node.answer_to(&call).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{field}: {answer}");
        let arrived = seen.take();
        let [Ok(call)] = &arrived[..] else { panic!("{field}: {arrived:?}") };
        let (_, trailers) = call.split_once("\nx\n").expect("the body and its trailers");
        assert_eq!(trailers, "x-sum: 1", "{field}");
    }
}

#[tokio::test]
async fn what_an_upstream_sends_beyond_its_answer_is_nobodys_answer() {
    const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    for lying in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 60\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 60\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    ] {
        let upstream = upstream(move |mut client| async move {
            while let Some(head) = client.try_until("\r\n\r\n").await {
                if head.contains("/first") {
                    client.send(format!("{lying}{SMUGGLED}")).await;
                } else {
                    client.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown").await;
                }
            }
        })
        .await;
        let node = node(upstream.address).await;
        let mut client = node.connect().await;
        client.send("GET /api/first HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let first = client.rest().await;
        assert_eq!(first.matches("HTTP/1.1 ").count(), 1, "{lying:?}: {first}");
        let both = first.to_ascii_lowercase();
        assert!(
            !(both.contains("content-length:") && both.contains("transfer-encoding:")),
            "{lying:?}: {first}"
        );
        assert!(both.matches("content-length:").count() <= 1, "{lying:?}: {first}");
        let call = "GET /api/second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let mut client = node.connect().await;
        client.send(call).await;
        let second = client.rest().await;
        assert!(!second.contains("smuggled"), "{lying:?}: {second}");
    }
}

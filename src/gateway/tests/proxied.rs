//! What a proxied call and its answer look like on the other side.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::support::{Raw, answering, mirror, nobody, node, node_with, soon, upstream};

#[tokio::test]
async fn a_call_arrives_as_it_was_but_for_its_hop() {
    let node = node(mirror().await.address).await;
    let mut client = node.connect().await;
    client
        .send(
            "PATCH /api/a%2Fb//c;d?x=%7e+&webhook_uri=y HTTP/1.1\r\nHost: called.example\r\n\
             Connection: keep-alive, X-Private\r\nX-Private: 1\r\nTE: trailers, gzip\r\nX-Forwarded-For: 9.9.9.9\r\n\
             X-Public: 2\r\nX-Public: 3\r\nExpect: \r\nContent-Length: 4\r\n\r\nbody",
        )
        .await;
    let (_, seen) = client.message().await;
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "body");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("patch /v1/a%2fb//c;d?x=%7e+&webhook_uri=y http/1.1"));
    let mut lines: Vec<&str> = lines.filter(|line| !line.starts_with("host: 127.0.0.1:")).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "connection: te",
            "content-length: 4",
            "expect: ",
            "forwarded: for=127.0.0.1;host=called.example;proto=http",
            "te: trailers",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: called.example",
            "x-forwarded-proto: http",
            "x-public: 2",
            "x-public: 3",
        ]
    );
}

#[tokio::test]
async fn an_answer_comes_back_as_it_was_but_for_its_hop() {
    let answer = "HTTP/1.1 418 Short And Stout\r\nX-A: 1\r\nX-A: 2\r\nConnection: X-B\r\nX-B: 3\r\nKeep-Alive: timeout=5\r\n\
                  Proxy-Authenticate: Basic\r\nDate: yesterday\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nhi";
    let node = node(answering(answer).await.address).await;
    let mut client = node.connect().await;
    client.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await;
    assert_eq!(client.until("hi").await, "hi");
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "HTTP/1.1 418 Short And Stout");
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["content-length: 2", "date: yesterday", "set-cookie: a", "set-cookie: b", "x-a: 1", "x-a: 2"]
    );
}

#[tokio::test]
async fn connections_are_kept_alive_on_both_sides() {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    let mut client = node.connect().await;
    for _ in 0..3 {
        client.send("POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
        assert!(client.message().await.1.ends_with('x'));
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let node = node(mirror().await.address).await;
    let mut client = node.connect().await;
    client
        .send("GET /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert!(client.message().await.1.ends_with("3\r\nabc\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let script = |mut client: Raw| async move {
        let head = client.head().await;
        assert!(head.contains("te: trailers") && head.contains("trailer: x-sum"), "{head}");
        assert!(client.until("\r\n\r\n").await.to_lowercase().ends_with("0\r\nx-sum: up\r\n\r\n"));
        client
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: down\r\n\r\n")
            .await;
        client.ended().await;
    };
    let node = node(upstream(script).await.address).await;
    let mut client = node.connect().await;
    client
        .send(
            "POST /api HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nab\r\n0\r\nX-Sum: up\r\n\r\n",
        )
        .await;
    assert!(client.head().await.contains("transfer-encoding: chunked"));
    assert_eq!(client.until("\r\n\r\n").await.to_lowercase(), "2\r\nhi\r\n0\r\nx-sum: down\r\n\r\n");
}

#[tokio::test]
async fn bodies_stream_both_ways_while_they_are_made() {
    let script = |mut client: Raw| async move {
        client.head().await;
        // The answer begins before the request is whole, and the request goes on after that.
        client.until("one\r\n").await;
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n").await;
        client.until("two\r\n0\r\n\r\n").await;
        client.send("3\r\nTWO\r\n0\r\n\r\n").await;
        client.ended().await;
    };
    let node = node(upstream(script).await.address).await;
    let mut client = node.connect().await;
    client.send("POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.head().await;
    client.until("ONE\r\n").await;
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(client.until("0\r\n\r\n").await, "3\r\nTWO\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_large_body_comes_through_whole() {
    const PIECES: usize = 2_000;
    let script = |mut client: Raw| async move {
        client.head().await;
        let mut seen = client.buffered();
        while seen < PIECES * 10_000 {
            let mut piece = vec![0; 60_000];
            let count = soon(tokio::io::AsyncReadExt::read(&mut client.stream, &mut piece)).await.unwrap();
            assert!(count > 0 && piece[..count].iter().all(|byte| *byte == b'x'));
            seen += count;
        }
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECES * 10_000)).await;
        let piece = vec![b'y'; 10_000];
        for _ in 0..PIECES {
            client.send(&piece).await;
        }
        client.ended().await;
    };
    let node = node(upstream(script).await.address).await;
    let mut client = node.connect().await;
    client
        .send(format!(
            "PUT /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            PIECES * 10_000
        ))
        .await;
    let piece = vec![b'x'; 10_000];
    for _ in 0..PIECES {
        client.send(&piece).await;
    }
    client.head().await;
    let body = client.rest().await;
    assert_eq!(body.len(), PIECES * 10_000);
    assert!(body.bytes().all(|byte| byte == b'y'));
}

#[tokio::test]
async fn answers_without_a_body_keep_their_fields() {
    for (call, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n"),
    ] {
        let node = node(answering(answer).await.address).await;
        let mut client = node.connect().await;
        for _ in 0..2 {
            client.send(format!("{call} /api HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let head = client.head().await;
            for line in answer.to_lowercase().trim_end().lines() {
                assert!(head.contains(line), "{line} is missing in {head}");
            }
        }
    }
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let script = |mut client: Raw| async move {
        let head = client.head().await;
        assert!(head.contains("upgrade: echo/1") && head.contains("connection: upgrade"), "{head}");
        client
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\nhello")
            .await;
        assert_eq!(client.until("ping").await, "GET / not http\nping");
        client.send("pong").await;
    };
    let node = node(upstream(script).await.address).await;
    let mut client = node.connect().await;
    // What follows at once is already the other protocol.
    client
        .send(
            "GET /api HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\nGET / not http\n",
        )
        .await;
    let head = client.head().await;
    assert!(
        head.starts_with("http/1.1 101")
            && head.contains("upgrade: echo/1")
            && head.contains("connection: upgrade")
    );
    client.send("ping").await;
    assert_eq!(client.rest().await, "hellopong");
}

#[tokio::test]
async fn a_refused_upgrade_leaves_the_connection_http() {
    let node = node(answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await.address).await;
    let mut client = node.connect().await;
    let call = "GET /api HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(format!("{call}{call}")).await;
    for _ in 0..2 {
        assert!(client.message().await.0.starts_with("http/1.1 403"));
    }
}

#[tokio::test]
async fn h2c_is_not_tunnelled() {
    let node = node(mirror().await.address).await;
    let mut client = node.connect().await;
    client
        .send("GET /api HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n")
        .await;
    let (_, seen) = client.message().await;
    assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{seen}");
}

#[tokio::test]
async fn a_switch_nobody_asked_for_is_a_broken_answer() {
    let node = node(
        answering("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            .await
            .address,
    )
    .await;
    let answer = node.answer_to("GET /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("upstream_broken"), "{answer}");
}

#[tokio::test]
async fn early_hints_pass_and_100_does_not() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let script = move |mut client: Raw| {
        let wait = Arc::clone(&wait);
        async move {
            while client.try_until("\r\n\r\n").await.is_some() {
                client.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n").await;
                wait.notified().await;
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
            }
        }
    };
    let node = node(upstream(script).await.address).await;
    let mut client = node.connect().await;
    for _ in 0..2 {
        client.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.head().await, "http/1.1 103 early hints\r\nlink: </a>\r\n\r\n");
        go.notify_one();
        assert!(client.message().await.0.starts_with("http/1.1 200"));
    }
    // A client of the older version does not know them.
    client = node.connect().await;
    go.notify_one();
    client.send("GET /api HTTP/1.0\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.contains(" 200 OK") && !answer.contains("103"), "{answer}");
}

#[tokio::test]
async fn a_client_that_goes_takes_its_upstream_call_along() {
    let (events, mut seen) = mpsc::channel(4);
    let script = move |mut client: Raw| {
        let events = events.clone();
        async move {
            let head = client.head().await;
            events.send("called").await.unwrap();
            if head.contains("/body") {
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart").await;
            }
            client.ended().await;
            events.send("gone").await.unwrap();
        }
    };
    let node = node(upstream(script).await.address).await;
    for target in ["/api/head", "/api/body"] {
        let mut client = node.connect().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(soon(seen.recv()).await, Some("called"));
        if target == "/api/body" {
            client.until("part").await;
        }
        drop(client);
        assert_eq!(soon(seen.recv()).await, Some("gone"));
    }
}

#[tokio::test]
async fn an_answer_cut_upstream_never_ends_cleanly() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\npart",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\npart",
    ] {
        let script = move |mut client: Raw| async move {
            client.head().await;
            client.send(answer).await;
        };
        let node = node(upstream(script).await.address).await;
        let mut client = node.connect().await;
        client.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        let body = client.rest().await;
        assert!(body.contains("part") && !body.ends_with("0\r\n\r\n"), "{head}{body}");
        assert!(head.contains("content-length: 50") || head.contains("chunked"), "{head}");
        // To HTTP/1.0 a chunked body ends with the connection, so that must break.
        if answer.contains("chunked") {
            let mut client = node.connect().await;
            client.send("GET /api HTTP/1.0\r\n\r\n").await;
            let mut read = Vec::new();
            let end = soon(tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut read)).await;
            assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

#[tokio::test]
async fn no_answer_is_said_with_its_reason_and_nothing_is_sent_twice() {
    let call = "POST /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    let down = node(nobody().await).await.answer_to(call).await;
    assert!(down.starts_with("HTTP/1.1 502") && down.contains("\"upstream_unreachable\""), "{down}");

    let silent = upstream(|mut client| async move { client.ended().await }).await;
    let node_of_silent = node_with(silent.address, "", "timeout = \"50ms\"").await;
    let slow = node_of_silent.answer_to(call).await;
    assert!(slow.starts_with("HTTP/1.1 504") && slow.contains("\"upstream_timeout\""), "{slow}");

    for answer in ["", "HTTP/1.1 200 OK\r\nA: ", "nonsense\r\n\r\n"] {
        let breaking = upstream(move |mut client| async move {
            client.until("x").await;
            client.send(answer).await;
        })
        .await;
        let broken = node(breaking.address).await.answer_to(call).await;
        assert!(broken.starts_with("HTTP/1.1 502") && broken.contains("\"upstream_broken\""), "{broken}");
        assert_eq!(breaking.connections(), 1);
    }
    assert_eq!(silent.connections(), 1);
}

#[tokio::test]
async fn a_pause_in_the_answer_that_is_too_long_cuts_it() {
    let script = |mut client: Raw| async move {
        client.head().await;
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart").await;
        client.ended().await;
    };
    let node = node_with(upstream(script).await.address, "", "idle_timeout = \"50ms\"").await;
    assert!(node.answer_to("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await.ends_with("\r\n\r\npart"));
}

#[tokio::test]
async fn a_client_that_stalls_is_told_so() {
    let node = node_with(mirror().await.address, "", "timeout = \"50ms\"").await;
    let mut client = node.connect().await;
    client.send("POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\npart").await;
    let (head, body) = client.message().await;
    assert!(head.starts_with("http/1.1 408") && body.contains("body_timeout"), "{head}{body}");
}

#[tokio::test]
async fn trusted_proxies_are_appended_to_and_the_host_can_be_kept() {
    let node =
        node_with(mirror().await.address, "trusted_proxies = [\"127.0.0.0/8\"]", "preserve_host = true")
            .await;
    let mut client = node.connect().await;
    client
        .send("GET http://target.example/api HTTP/1.1\r\nHost: target.example\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\r\n")
        .await;
    let (_, seen) = client.message().await;
    for line in ["x-forwarded-for: 9.9.9.9, 127.0.0.1", "x-forwarded-proto: https", "host: target.example"] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} is missing in {seen}");
    }
}

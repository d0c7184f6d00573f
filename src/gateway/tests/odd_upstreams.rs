//! Upstreams that answer oddly: what a client is told has one reading, over HTTP/1.1 and HTTP/2.

use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;

use super::http2::{connect, empty, request};
use super::support::{Node, node, soon, upstream};

/// What no HTTP/2 message may have (RFC 9113, 8.2.2).
const OF_ONE_CONNECTION: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"];

/// Answers that two parsers would read differently, or that break off.
const LYING: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 9\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n:status: 500\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    b"HTTP/2 200\r\nContent-Length: 2\r\n\r\nok",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n Content-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
];

/// A node whose upstream answers the first call by these bytes, and every other one well.
async fn lying(answer: &'static [u8]) -> Node {
    let upstream = upstream(move |mut client| async move {
        while let Some(head) = client.try_until("\r\n\r\n").await {
            if !head.contains("/first") {
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown").await;
                continue;
            }
            client.send(answer).await;
            if head.contains("/first-and-last") {
                return;
            }
        }
    })
    .await;
    node(upstream.address).await
}

/// What a client of a node hears when its upstream answers a call by these bytes: the answer, or `None`
/// for a stream that was reset. A call after it is answered for itself.
async fn heard(answer: &'static [u8]) -> Option<(StatusCode, HeaderMap, Vec<u8>)> {
    let node = lying(answer).await;
    let (mut sender, _) = connect(&node).await;
    let first = soon(sender.send_request(request("/api/first-and-last", empty()))).await.ok();
    let first = match first {
        None => None,
        Some(response) => {
            let (parts, body) = response.into_parts();
            let body = soon(body.collect()).await.ok();
            body.map(|body| (parts.status, parts.headers, body.to_bytes().to_vec()))
        }
    };
    let second = soon(sender.send_request(request("/api/second", empty()))).await.unwrap();
    assert_eq!(soon(second.into_body().collect()).await.unwrap().to_bytes(), "own");
    first
}

#[tokio::test]
async fn an_answer_with_two_readings_reaches_no_client_of_http2() {
    for answer in LYING {
        let shown = String::from_utf8_lossy(answer);
        if let Some((status, headers, _)) = heard(answer).await {
            assert_eq!(status, StatusCode::BAD_GATEWAY, "{shown:?}");
            assert_eq!(headers["ringback-error"], "upstream_broken", "{shown:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_with_two_readings_reaches_no_client_of_http1() {
    for answer in LYING {
        let shown = String::from_utf8_lossy(answer);
        let node = lying(answer).await;
        let call = "GET /api/first-and-last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let first = told(&node, call).await;
        assert!(first.matches("http/1.1 ").count() <= 1, "{shown:?}: {first}");
        if first.starts_with("http/1.1 200") {
            // Too late to say so; then it must not look whole. Not a byte is as good.
            let (head, body) = first.split_once("\r\n\r\n").unwrap();
            let is_whole = body.ends_with("0\r\n\r\n") || head.contains("content-length: 2\r\n");
            assert!(!is_whole, "{shown:?}: {first}");
            let framed =
                ["content-length:", "transfer-encoding: chunked"].map(|field| head.matches(field).count());
            assert_eq!(framed.iter().sum::<usize>(), 1, "{shown:?}: {first}");
        } else if !first.is_empty() {
            assert!(
                first.starts_with("http/1.1 502") && first.contains("upstream_broken"),
                "{shown:?}: {first}"
            );
        }
        let call = "GET /api/second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert!(told(&node, call).await.ends_with("own"), "{shown:?}");
    }
}

/// Whatever comes until the connection ends, cleanly or not, in lower case.
async fn told(node: &Node, call: &str) -> String {
    let mut client = node.connect().await;
    client.send(call).await;
    client.whatever().await.to_lowercase()
}

#[tokio::test]
async fn bare_line_feeds_of_an_answer_go_no_further() {
    let answer = b"HTTP/1.1 200 OK\nX-Odd: a\nContent-Length: 2\n\nok";
    let (status, headers, body) = heard(answer).await.expect("a whole answer");
    assert_eq!((status, &headers["x-odd"], &body[..]), (StatusCode::OK, &"a".parse().unwrap(), &b"ok"[..]));
    let call = "GET /api/first-and-last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let first = told(&lying(answer).await, call).await;
    assert!(first.contains("x-odd: a\r\n") && first.ends_with("ok"), "{first}");
    assert_eq!(first.matches('\n').count(), first.matches("\r\n").count(), "{first}");
}

#[tokio::test]
async fn an_odd_answer_with_one_reading_is_a_good_one_over_http2() {
    for (answer, status, expected) in [
        (
            &b"HTTP/1.1 200 OK\r\nConnection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
               Proxy-Connection: close\r\nUpgrade: h2c\r\nTE: gzip\r\nX-Upper: Kept\r\nContent-Length: 2\r\n\r\nok"[..],
            200,
            &b"ok"[..],
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.1 999 High\r\nContent-Length: 2\r\n\r\nok", 999, b"ok"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\n\
              Content-Length: 9\r\nTransfer-Encoding: chunked\r\nX-Sum: 1\r\n\r\n",
            200,
            b"ok",
        ),
    ] {
        let shown = String::from_utf8_lossy(answer);
        let (told, headers, body) = heard(answer).await.unwrap_or_else(|| panic!("reset: {shown:?}"));
        assert_eq!((told.as_u16(), &body[..]), (status, expected), "{shown:?}");
        for name in OF_ONE_CONNECTION.into_iter().chain(["x-private"]) {
            assert!(!headers.contains_key(name), "{shown:?}: {headers:?}");
        }
        let length = headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap());
        let is_whole = length.is_none_or(|length| length == expected.len().to_string());
        assert!(is_whole || status == 304, "{shown:?}: {headers:?}");
    }
}

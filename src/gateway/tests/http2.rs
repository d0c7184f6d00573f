//! The same over HTTP/2 with prior knowledge.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::support::{Node, Raw, mirror, node, node_with, soon, upstream};
use crate::client::{Body, BoxError};

pub(super) async fn connect(node: &Node) -> (SendRequest<Body>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(node.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

pub(super) fn request(target: &str, body: Body) -> Request<Body> {
    Request::builder().uri(format!("http://called.example{target}")).body(body).unwrap()
}

pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

#[tokio::test]
async fn a_call_over_http2_arrives_as_http1() {
    let node = node(mirror().await.address).await;
    let (mut sender, _) = connect(&node).await;
    let mut call = request("/api/x?y", empty());
    for cookie in ["a=1", "b=2"] {
        call.headers_mut().append(header::COOKIE, HeaderValue::from_static(cookie));
    }
    let response = soon(sender.send_request(call)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen = soon(response.into_body().collect()).await.unwrap().to_bytes();
    let seen = std::str::from_utf8(&seen).unwrap();
    assert!(seen.starts_with("get /v1/x?y http/1.1\r\n"), "{seen}");
    assert!(
        seen.contains("x-forwarded-host: called.example\r\n") && seen.contains("cookie: a=1; b=2\r\n"),
        "{seen}"
    );
    assert!(!seen.contains("transfer-encoding"), "{seen}");
}

#[tokio::test]
async fn bodies_and_trailers_pass_over_http2() {
    let script = |mut client: Raw| async move {
        client.head().await;
        client.until("2\r\nab\r\n0\r\n\r\n").await;
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: s\r\n\r\n").await;
        client.ended().await;
    };
    let node = node(upstream(script).await.address).await;
    let (mut sender, _) = connect(&node).await;
    let frames = futures_util::stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"ab")))]);
    let response =
        soon(sender.send_request(request("/api", StreamBody::new(frames).boxed_unsync()))).await.unwrap();
    let body = soon(response.into_body().collect()).await.unwrap();
    assert_eq!(
        body.trailers(),
        Some(&HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("s"))]))
    );
    assert_eq!(body.to_bytes(), "hi");
}

#[tokio::test]
async fn an_answer_cut_upstream_resets_its_stream() {
    let script = |mut client: Raw| async move {
        client.head().await;
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n").await;
    };
    let node = node(upstream(script).await.address).await;
    let (mut sender, _) = connect(&node).await;
    let response = soon(sender.send_request(request("/api", empty()))).await.unwrap();
    assert!(soon(response.into_body().collect()).await.is_err());
}

#[tokio::test]
async fn refusals_over_http2_have_the_same_words() {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    let (mut sender, _) = connect(&node).await;
    let body = || Full::new(Bytes::from_static(b"x")).map_err(|never| match never {}).boxed_unsync();
    for (target, code) in [
        ("/other", "no_upstream"),
        ("/api/%2e%2e/", "validation_error"),
        ("/api?async=x", "validation_error"),
    ] {
        let response = soon(sender.send_request(request(target, body()))).await.unwrap();
        assert_eq!(response.headers()["ringback-error"], code, "{target}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn stopping_says_goodbye() {
    let node = node(mirror().await.address).await;
    let (mut sender, connection) = connect(&node).await;
    soon(sender.send_request(request("/api", empty()))).await.unwrap();
    node.stop.cancel();
    soon(connection).await.unwrap().unwrap();
    soon(node.served).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    // Each answer takes several times the idle limit.
    let script = |mut client: Raw| async move {
        while client.try_until("\r\n\r\n").await.is_some() {
            for piece in ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "h", "i", "!"] {
                client.send(piece).await;
                tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            }
        }
    };
    let node = node_with(upstream(script).await.address, "header_timeout = \"50ms\"", "").await;
    let (mut sender, connection) = connect(&node).await;
    let mut first = soon(sender.send_request(request("/api", empty()))).await.unwrap().into_body();
    for piece in ["h", "i"] {
        assert_eq!(soon(first.frame()).await.unwrap().unwrap().into_data().unwrap(), piece);
    }
    // Still open for more.
    let second = soon(sender.send_request(request("/api", empty()))).await.unwrap();
    assert_eq!(soon(first.collect()).await.unwrap().to_bytes(), "!");
    assert_eq!(soon(second.into_body().collect()).await.unwrap().to_bytes(), "hi!");
    soon(connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_over_http2_that_reads_two_ways_is_refused() {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    for (name, value) in [
        ("host", "other.example"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("connection", "close"),
    ] {
        let (mut sender, _) = connect(&node).await;
        let body = Full::new(Bytes::from_static(b"x")).map_err(|never| match never {}).boxed_unsync();
        let mut call = request("/api/bad", body);
        *call.method_mut() = http::Method::POST;
        call.headers_mut().insert(name, HeaderValue::from_static(value));
        // Refused with an answer or with a reset; what our own library will not even send is dropped.
        if let Ok(response) = soon(sender.send_request(call)).await
            && response.status() == StatusCode::OK
        {
            let seen = soon(response.into_body().collect()).await.unwrap().to_bytes();
            let seen = std::str::from_utf8(&seen).unwrap();
            let framed =
                [seen.contains("content-length: 1\r\n"), seen.contains("transfer-encoding: chunked")];
            assert!(name != "host" && framed.iter().filter(|is| **is).count() == 1, "{name}: {seen}");
            assert!(!seen.contains("other.example") && !seen.contains("content-length: 5"), "{name}: {seen}");
        }
    }
}

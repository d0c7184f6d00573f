//! What one client may take, each limit with its code: over HTTP/2, where a library stands in front, and of
//! clients that do not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, mpsc};

use super::frames::{Client, END_STREAM, Heard, headers};
use super::http2::{connect, empty, request};
use super::support::{Raw, mirror, node, node_with, soon, upstream};
use crate::client::{Body, BoxError};

type Sender = SendRequest<Body>;

fn of(bytes: &'static [u8]) -> Body {
    Full::new(Bytes::from_static(bytes)).map_err(|never| match never {}).boxed_unsync()
}

/// In pieces, so that no length is declared.
fn in_pieces(bytes: &'static [u8]) -> Body {
    let frames = bytes.chunks(2).map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from_static(piece))));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// Sends a call that must be refused; the head of the answer.
async fn refused(sender: &mut Sender, call: http::Request<Body>, status: u16, code: &str) -> HeaderMap {
    let what = format!("{} {}", call.method(), call.uri());
    let response = soon(sender.send_request(call)).await.unwrap();
    assert_eq!(response.status(), StatusCode::from_u16(status).unwrap(), "{what}");
    let (parts, body) = response.into_parts();
    assert_eq!(
        parts.headers.get("ringback-error").map(HeaderValue::as_bytes),
        Some(code.as_bytes()),
        "{what}"
    );
    let body: serde_json::Value =
        serde_json::from_slice(&soon(body.collect()).await.unwrap().to_bytes()).unwrap();
    assert_eq!(body["error"], code, "{what}");
    parts.headers
}

fn post(target: &str, body: Body) -> http::Request<Body> {
    let mut call = request(target, body);
    *call.method_mut() = Method::POST;
    call
}

#[tokio::test]
async fn a_target_that_is_too_long_is_refused_over_http2() {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    let (mut sender, _) = connect(&node).await;
    for target in ["/api", "/api/x?async=true&q=", "/api/"] {
        let long = format!("{target}{}", "x".repeat(1025 - target.len()));
        refused(&mut sender, request(&long, empty()), 414, "uri_too_long").await;
    }
    assert_eq!(upstream.connections(), 0);
    let just = format!("/api?{}", "x".repeat(1019));
    assert_eq!(soon(sender.send_request(request(&just, empty()))).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_over_http2_declared_or_not() {
    let upstream = mirror().await;
    let server = "max_proxy_body_bytes = 4\nmax_body_bytes = 4";
    let node = node_with(upstream.address, server, "").await;
    let (mut sender, _) = connect(&node).await;
    for target in ["/api", "/api?async=true"] {
        refused(&mut sender, post(target, of(b"12345")), 413, "body_too_large").await;
    }
    assert_eq!(upstream.connections(), 0);
    for target in ["/api", "/api?async=true"] {
        refused(&mut sender, post(target, in_pieces(b"12345")), 413, "body_too_large").await;
    }
    assert_eq!(soon(sender.send_request(post("/api", of(b"1234")))).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn methods_that_are_not_supported_are_refused_over_http2() {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    let (mut sender, _) = connect(&node).await;
    for target in ["/api", "/api?async=true"] {
        let mut call = request(target, empty());
        *call.method_mut() = Method::TRACE;
        let told = refused(&mut sender, call, 405, "method_not_allowed").await;
        assert!(told.contains_key(header::ALLOW));
    }
    refused(&mut sender, post("/.well-known/jwks", empty()), 405, "method_not_allowed").await;
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_header_section_that_is_too_large_is_refused_over_http2() {
    let upstream = mirror().await;
    let node = node(upstream.address).await;
    let (mut sender, _) = connect(&node).await;
    let with = |length: usize| {
        let mut call = request("/api", empty());
        call.headers_mut().insert("x-long", HeaderValue::from_str(&"x".repeat(length)).unwrap());
        call
    };
    refused(&mut sender, with(8_300), 431, "headers_too_large").await;
    assert_eq!(upstream.connections(), 0);
    assert_eq!(soon(sender.send_request(with(7_900))).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn calls_beyond_their_number_are_refused_for_now_over_http2() {
    let (called, mut calls) = mpsc::channel(16);
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let script = move |mut client: Raw| {
        let (called, wait) = (called.clone(), Arc::clone(&wait));
        async move {
            while client.try_until("\r\n\r\n").await.is_some() {
                called.send(()).await.unwrap();
                wait.notified().await;
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    };
    let server = "max_calls = 2\nmax_calls_per_credentials = 1";
    let node = node_with(upstream(script).await.address, server, "").await;
    let (sender, _) = connect(&node).await;
    let call = |token: &'static str| {
        let mut call = request("/api", empty());
        call.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static(token));
        call
    };
    let slow = |token| {
        let mut sender = sender.clone();
        tokio::spawn(async move { sender.send_request(call(token)).await.unwrap().status() })
    };
    let john = slow("Bearer john");
    soon(calls.recv()).await.unwrap();
    let mut sender = sender.clone();
    let told = refused(&mut sender, call("Bearer john"), 429, "too_many_calls").await;
    assert!(told.contains_key(header::RETRY_AFTER));
    let jane = slow("Bearer jane");
    soon(calls.recv()).await.unwrap();
    let told = refused(&mut sender, call("Bearer jim"), 503, "overloaded").await;
    assert!(told.contains_key(header::RETRY_AFTER));
    go.notify_one();
    go.notify_one();
    for slow in [john, jane] {
        assert_eq!(soon(slow).await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_full_backlog_is_said_over_http2() {
    let silent = upstream(|mut client| async move { client.ended().await }).await;
    let identity = "identity = { mode = \"opaque\" }";
    let server = "max_queued_tasks = 2\nmax_queued_per_credentials = 1";
    let node = node_with(silent.address, server, identity).await;
    let (mut sender, _) = connect(&node).await;
    let call = |token: &'static str| {
        let mut call = request("/api/x?async=true", empty());
        call.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static(token));
        call
    };
    assert_eq!(soon(sender.send_request(call("Bearer john"))).await.unwrap().status(), StatusCode::ACCEPTED);
    let told = refused(&mut sender, call("Bearer john"), 429, "credentials_backlog_full").await;
    assert!(told.contains_key(header::RETRY_AFTER));
    assert_eq!(soon(sender.send_request(call("Bearer jane"))).await.unwrap().status(), StatusCode::ACCEPTED);
    let told = refused(&mut sender, call("Bearer jim"), 503, "backlog_full").await;
    assert!(told.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn the_stream_after_the_last_allowed_is_refused_and_no_other() {
    const MOST: u32 = 256;
    /// `REFUSED_STREAM` (RFC 9113, 7): nothing was done, it may be sent again.
    const REFUSED: u32 = 7;
    let (called, mut calls) = mpsc::channel(512);
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = Arc::clone(&go);
    let script = move |mut client: Raw| {
        let (called, wait) = (called.clone(), Arc::clone(&wait));
        async move {
            client.head().await;
            called.send(()).await.unwrap();
            let _open = wait.acquire().await.unwrap();
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        }
    };
    let node = node(upstream(script).await.address).await;
    let mut client = Client::connect(node.address).await;
    let call = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/api/x")];
    for number in 0..=MOST {
        assert!(client.try_send(&headers(2 * number + 1, END_STREAM, &call)).await);
    }
    assert_eq!(client.heard(2 * MOST + 1).await, Heard::Reset(REFUSED));
    for _ in 0..MOST {
        soon(calls.recv()).await.unwrap();
    }
    go.add_permits(1);
    assert_eq!(client.heard(1).await, Heard::Answer { status: 200, body: String::from("ok") });
    assert!(calls.try_recv().is_err(), "the refused call went upstream");
}

/// What the upstream got rid of is what the node and the kernel hold for the client.
#[tokio::test]
async fn a_client_that_never_reads_its_large_answer_is_hung_up_on_and_costs_little() {
    const PIECE: usize = 64 * 1024;
    /// The kernel keeps some megabytes for each of the two connections.
    const MOST: usize = 64 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let (ended, mut ends) = mpsc::channel(4);
    let counted = Arc::clone(&sent);
    let script = move |mut client: Raw| {
        let (counted, ended) = (Arc::clone(&counted), ended.clone());
        async move {
            client.head().await;
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n").await;
            let piece = vec![b'x'; PIECE];
            while client.stream.write_all(&piece).await.is_ok() {
                counted.fetch_add(PIECE, Ordering::Relaxed);
            }
            ended.send(()).await.unwrap();
        }
    };
    let node = node_with(upstream(script).await.address, "stall_timeout = \"100ms\"", "").await;
    let mut client = node.connect().await;
    client.send("GET /api/large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    soon(ends.recv()).await.unwrap();
    let sent = sent.load(Ordering::Relaxed);
    assert!((PIECE..MOST).contains(&sent), "{sent}");
    client.ended().await;
}

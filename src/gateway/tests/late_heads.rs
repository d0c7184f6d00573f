//! Heads that begin and never end: the client is hung up on when it has had its time, over HTTP/1.1 and
//! HTTP/2, and whatever else it is doing.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::frames::{CONTINUATION, Client, END_HEADERS, END_STREAM, HEADERS, Heard, block, frame, headers};
use super::support::{Node, Raw, mirror, node_with, soon, upstream};

const FIELDS: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/api/x")];

/// Far less than a limit on bytes needs to end a head that trickles.
const BEAT: Duration = Duration::from_millis(5);

/// A client with a call on stream 1 that is answered long after any head must have ended: with a 504.
async fn with_a_running_call() -> (Node, Client) {
    let (called, mut calls) = tokio::sync::mpsc::channel(1);
    let script = move |mut client: Raw| {
        let called = called.clone();
        async move {
            client.head().await;
            called.send(()).await.unwrap();
            client.ended().await;
        }
    };
    let upstream = upstream(script).await;
    let node = node_with(upstream.address, "header_timeout = \"100ms\"", "timeout = \"5s\"").await;
    let mut client = Client::connect(node.address).await;
    client.try_send(&headers(1, END_STREAM, &FIELDS)).await;
    soon(calls.recv()).await.unwrap();
    (node, client)
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off_the_first_and_the_next_on_a_connection() {
    let node = node_with(mirror().await.address, "header_timeout = \"100ms\"", "").await;
    for calls_before in 0..2 {
        let mut client = node.connect().await;
        for _ in 0..calls_before {
            client.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(client.message().await.0.starts_with("http/1.1 200"));
        }
        client.send("GET /api HTTP/1.1\r\nHost: a\r\nX: ").await;
        soon(async {
            while client.stream.write_all(b"a").await.is_ok() {
                tokio::time::sleep(BEAT).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_head_over_http2_that_never_ends_is_cut_off_beside_a_running_call() {
    let begun = frame(HEADERS, END_STREAM, 3, &block(&FIELDS));
    let more = frame(CONTINUATION, 0, 3, &block(&[("x", "y")]));
    let whole = headers(3, END_STREAM, &FIELDS);
    for bytes in [&begun[..], &[&begun[..], &more].concat(), &whole[..whole.len() - 1], &whole[..5]] {
        let (_node, mut client) = with_a_running_call().await;
        client.try_send(bytes).await;
        let heard = client.heard_in_silence(1).await;
        assert!(matches!(heard, Heard::Closed | Heard::GoAway(_)), "{heard:?}");
    }
}

#[tokio::test]
async fn a_head_over_http2_that_trickles_is_cut_off_beside_a_running_call() {
    let (_node, mut client) = with_a_running_call().await;
    // Of a number of frames the library has enough soon; of the bytes of one frame it never has.
    let long = frame(HEADERS, END_STREAM | END_HEADERS, 3, &[0; 16_000]);
    client.try_send(&long[..20]).await;
    soon(async {
        while client.try_send(&[0]).await {
            tokio::time::sleep(BEAT).await;
        }
    })
    .await;
    let heard = client.heard_in_silence(1).await;
    assert!(matches!(heard, Heard::Closed | Heard::GoAway(_)), "{heard:?}");
}

/// Slow, but in time: it takes longer than one head may, and each head is whole in time.
#[tokio::test]
async fn heads_over_http2_that_end_in_time_are_answered_however_many_come() {
    let node = node_with(mirror().await.address, "header_timeout = \"300ms\"", "").await;
    let mut client = Client::connect(node.address).await;
    for number in 0..5 {
        let stream = 2 * number + 1;
        client.try_send(&frame(HEADERS, END_STREAM, stream, &block(&FIELDS))).await;
        tokio::time::sleep(Duration::from_millis(80)).await;
        client.try_send(&frame(CONTINUATION, END_HEADERS, stream, &[])).await;
        let heard = client.heard(stream).await;
        assert!(matches!(heard, Heard::Answer { status: 200, .. }), "{heard:?}");
    }
}

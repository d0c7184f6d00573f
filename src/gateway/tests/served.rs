//! Connections: how many, how long, and what stopping means to them.

use std::sync::Arc;

use tokio::sync::Notify;

use super::support::{Raw, answering, mirror, node, node_with, soon, upstream};

#[tokio::test]
async fn stopping_closes_idle_connections_and_finishes_busy_ones() {
    let (called, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&called), Arc::clone(&go));
    let script = move |mut client: Raw| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            while let Some(head) = client.try_until("\r\n\r\n").await {
                if head.contains("/slow") {
                    tell.notify_one();
                    wait.notified().await;
                }
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
            }
        }
    };
    let node = node(upstream(script).await.address).await;
    let mut silent = node.connect().await;
    let mut begun = node.connect().await;
    begun.send("GET /api HT").await;
    let mut idle = node.connect().await;
    idle.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.until("hi").await;
    let mut busy = node.connect().await;
    busy.send("GET /api/slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    soon(called.notified()).await;

    node.stop.cancel();
    for client in [&mut silent, &mut begun, &mut idle] {
        client.ended().await;
    }
    assert!(!node.served.is_finished());
    go.notify_one();
    let answer = busy.rest().await;
    assert!(answer.ends_with("hi") && answer.contains("connection: close"), "{answer}");
    soon(node.served).await.unwrap();
}

#[tokio::test]
async fn stopping_ends_tunnels() {
    let script = |mut client: Raw| async move {
        client.head().await;
        client
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello")
            .await;
        client.ended().await;
    };
    let node = node(upstream(script).await.address).await;
    let mut client = node.connect().await;
    client.send("GET /api HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
    client.until("hello").await;
    node.stop.cancel();
    client.ended().await;
    soon(node.served).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_hung_up_on() {
    let node = node_with(mirror().await.address, "header_timeout = \"50ms\"", "").await;
    for begun in ["", "P", "PRI * HTTP/2.0\r\n", "GET /api HTTP/1.1\r\nHost:"] {
        let mut client = node.connect().await;
        client.send(begun).await;
        client.ended().await;
    }
    let mut idle = node.connect().await;
    idle.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.message().await;
    idle.ended().await;
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let node = node_with(
        answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.address,
        "max_connections = 1",
        "",
    )
    .await;
    let mut first = node.connect().await;
    first.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.until("hi").await;
    let mut second = node.connect().await;
    second.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.until("hi").await;
    let mut byte = [0];
    assert!(second.stream.try_read(&mut byte).is_err());
    drop(first);
    second.until("hi").await;
}

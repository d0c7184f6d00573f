//! HTTP/2 in, upgrades through, and answers before the answer.

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::reply::{Reply, Step};
use crate::support::within;

#[tokio::test]
async fn http2_is_spoken_with_clients_that_speak_it() {
    let upstream = Upstream::start().await;
    upstream.script(&format!("{PREFIX}/x"), [Reply::new(201).header("x-kept", "1").body("done")]);
    let node = Node::start(&upstream).await;

    let answer = node.post("/x?y=1").http2().header("x-tag", "2").body("up").send().await;

    assert_eq!((answer.version, answer.status), (Version::HTTP_2, 201));
    assert_eq!((answer.body.as_ref(), answer.header("x-kept")), (b"done".as_slice(), Some("1")));
    let call = upstream.only_call();
    assert_eq!((call.target.as_str(), call.header("x-tag")), ("/data/v1/x?y=1", Some("2")));
    assert_eq!(
        (call.body.as_slice(), call.header("host")),
        (b"up".as_slice(), Some(upstream.address().to_string().as_str()))
    );
    assert_eq!(call.header("x-forwarded-host"), Some(node.address().to_string().as_str()));
}

#[tokio::test]
async fn a_task_can_be_submitted_and_read_by_http2() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    let task = Task::from(&node.post("/x?async=true").http2().body("up").send().await);
    assert!(task.results_uri.starts_with(&format!("http://{}/", node.address())));
    node.finished(&task).await;
    let answer = node.results(&task).http2().send().await;
    assert_eq!((answer.version, answer.body.as_ref()), (Version::HTTP_2, b"done".as_slice()));
    assert_eq!(upstream.only_call().body, b"up");
}

#[tokio::test]
async fn refusals_are_the_same_by_http2() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    node.get("/x?async=maybe").http2().send().await.is_refusal(400, "validation_error");
    node.call(Method::TRACE, &format!("{PREFIX}/x"))
        .http2()
        .send()
        .await
        .is_refusal(405, "method_not_allowed");
    upstream.saw_nobody();
}

#[tokio::test]
async fn a_websocket_is_tunnelled_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("the node connects");
        let mut socket = tokio_tungstenite::accept_async(stream).await.expect("it asks for a WebSocket");
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
    });
    let node = Setup::of(&format!("http://{address}{PREFIX}")).start().await;

    let stream = TcpStream::connect(node.address()).await.expect("the node accepts");
    let uri = format!("ws://{}{PREFIX}/socket?room=1", node.address());
    let (mut socket, answer) =
        within("the WebSocket opened", tokio_tungstenite::client_async(uri, stream)).await.expect("it opens");

    assert_eq!(answer.status(), 101);
    let messages = [Message::text("hello"), Message::binary(vec![7; 300_000]), Message::text("")];
    for message in messages {
        socket.send(message.clone()).await.expect("the tunnel takes it");
        let echo = within("the echo came back", socket.next()).await.expect("open").expect("whole");
        assert_eq!(echo, message);
    }
    socket.close(None).await.expect("the tunnel closes");
}

#[tokio::test]
async fn an_upgrade_to_anything_is_tunnelled_and_ends_with_either_side() {
    let upstream = Upstream::start().await;
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\nwelcome ";
    upstream.always([Reply::steps(vec![Step::Send(head.into()), Step::Echo])]);
    let node = Node::start(&upstream).await;
    let mut stream = TcpStream::connect(node.address()).await.expect("the node accepts");
    let call = format!("GET {PREFIX}/x HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: shout\r\n\r\n");
    stream.write_all(call.as_bytes()).await.expect("the call is written");
    let mut come = Vec::new();
    within("the tunnel opened", async {
        while !come.ends_with(b"welcome ") {
            assert!(stream.read_buf(&mut come).await.expect("the tunnel is open") > 0);
        }
    })
    .await;
    let head = String::from_utf8_lossy(&come).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: shout"), "{head}");
    stream.write_all(b"anything").await.expect("the tunnel takes it");
    let mut echo = [0; 8];
    within("the echo came back", stream.read_exact(&mut echo)).await.expect("the tunnel is open");
    assert_eq!(&echo, b"anything");
    assert_eq!(upstream.only_call().header("upgrade"), Some("shout"));
    stream.shutdown().await.expect("our side ends");
    let mut rest = Vec::new();
    within("the other side ended too", stream.read_to_end(&mut rest)).await.expect("it ends cleanly");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn an_upgrade_the_upstream_declines_is_an_ordinary_answer() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(426).header("upgrade", "h2c").body("no")]);
    let node = Node::start(&upstream).await;
    let call = node.get("/x").header("connection", "upgrade").header("upgrade", "websocket");
    let answer = call.send().await;
    assert_eq!((answer.status, answer.body.as_ref()), (426, b"no".as_slice()));
}

/// Reads from `stream` until `end` has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut come = Vec::new();
    within(&format!("`{end}` came"), async {
        while !String::from_utf8_lossy(&come).contains(end) {
            let count = stream.read_buf(&mut come).await.expect("the connection is open");
            assert!(count > 0, "the connection ended after: {}", String::from_utf8_lossy(&come));
        }
    })
    .await;
    String::from_utf8_lossy(&come).into_owned()
}

#[tokio::test]
async fn early_hints_arrive_before_the_answer() {
    let upstream = Upstream::start().await;
    let gate = crate::support::reply::Gate::closed();
    upstream.always([Reply::steps(vec![
        Step::Send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n".into()),
        Step::Wait(gate.clone()),
        Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone".into()),
    ])]);
    let node = Node::start(&upstream).await;
    let mut stream = TcpStream::connect(node.address()).await.expect("the node accepts");
    let call = format!("GET {PREFIX}/x HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(call.as_bytes()).await.expect("the call is written");
    let hints = read_until(&mut stream, "\r\n\r\n").await.to_ascii_lowercase();
    assert!(hints.starts_with("http/1.1 103 ") && hints.contains("link: </a.css>; rel=preload"), "{hints}");
    gate.open();
    let answer = read_until(&mut stream, "done").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn hints_before_a_tasks_answer_do_no_harm() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::steps(vec![
        Step::Send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n".into()),
        Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone".into()),
    ])]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true")).await;
    assert_eq!(node.finished(&task).await.body, "done");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    for (target, status) in [("/x", "200"), ("/x?async=true", "202")] {
        let mut stream = TcpStream::connect(node.address()).await.expect("the node accepts");
        let call = format!(
            "POST {PREFIX}{target} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
        );
        stream.write_all(call.as_bytes()).await.expect("the head is written");
        let go_on = read_until(&mut stream, "\r\n\r\n").await;
        assert!(go_on.starts_with("HTTP/1.1 100 "), "{target}: {go_on}");
        stream.write_all(b"body").await.expect("the body is written");
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
    }
    let calls = upstream.wait_for_calls(2).await;
    assert!(calls.iter().all(|call| call.body == b"body"));
}

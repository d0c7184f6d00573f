//! The webhook inbox.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Server;

async fn deliveries(inbox: &Server) -> Vec<Value> {
    inbox.get("/deliveries", "").await.json().as_array().unwrap().clone()
}

async fn deliver(inbox: &Server, target: &str, id: &str, body: &str) -> u16 {
    inbox.send(Method::POST, target, &[("webhook-id", id)], body.as_bytes()).await.status
}

#[tokio::test]
async fn what_arrives_is_recorded_whole_and_oldest_first() {
    let inbox = Server::inbox().await;
    assert_eq!(deliver(&inbox, "/hook?secret=a%20b", "msg_1", r#"{"status":"Succeeded"}"#).await, 200);
    assert_eq!(inbox.send(Method::PUT, "/other", &[("x-one", "1")], b"\xff plain").await.status, 200);
    assert_eq!(inbox.send(Method::POST, "/", &[], b"").await.status, 200);
    assert_eq!(inbox.send(Method::DELETE, "/deliveries", &[], b"").await.status, 200);
    let list = deliveries(&inbox).await;
    let first = &list[0];
    assert_eq!(
        (&first["method"], &first["path"], &first["query"]),
        (&json!("POST"), &json!("/hook"), &json!("secret=a%20b"))
    );
    assert_eq!(first["headers"]["webhook-id"], "msg_1");
    assert_eq!(first["body"], r#"{"status":"Succeeded"}"#);
    assert_eq!(first["json"], json!({"status": "Succeeded"}));
    assert_eq!(
        (&first["webhook_id"], &first["try"], &first["status"]),
        (&json!("msg_1"), &json!(1), &json!(200))
    );
    first["received_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!((&list[1]["body"], &list[1]["json"]), (&json!("\u{fffd} plain"), &json!(null)));
    assert_eq!((&list[1]["webhook_id"], &list[1]["headers"]["x-one"]), (&json!(null), &json!("1")));
    let targets: Vec<String> =
        list.iter().map(|delivery| format!("{} {}", delivery["method"], delivery["path"])).collect();
    assert_eq!(targets[2..], [r#""POST" "/""#, r#""DELETE" "/deliveries""#]);
}

#[tokio::test]
async fn fail_refuses_the_first_tries_of_each_webhook() {
    let inbox = Server::inbox().await;
    for id in ["msg_1", "msg_2"] {
        for (attempt, status) in [(1, 503), (2, 503), (3, 202), (4, 202)] {
            assert_eq!(deliver(&inbox, "/hook?fail=2&status=202", id, "{}").await, status, "{id}");
            let last = deliveries(&inbox).await.pop().unwrap();
            assert_eq!((&last["try"], &last["status"]), (&json!(attempt), &json!(status)));
        }
    }
}

#[tokio::test]
async fn a_webhook_without_an_id_is_known_by_path_and_body() {
    let inbox = Server::inbox().await;
    let send = async |path: &'static str, body: &'static str| {
        inbox.send(Method::POST, path, &[], body.as_bytes()).await.status
    };
    assert_eq!(send("/a?fail=1", "x").await, 503);
    assert_eq!(send("/a?fail=1", "y").await, 503);
    assert_eq!(send("/b?fail=1", "x").await, 503);
    assert_eq!(send("/a?fail=1", "x").await, 200);
}

#[tokio::test]
async fn status_and_delay_do_as_they_are_told() {
    let inbox = Server::inbox().await;
    assert_eq!(deliver(&inbox, "/hook?status=410", "msg_1", "{}").await, 410);
    let bad = inbox.send(Method::POST, "/hook?delay=soon", &[], b"{}").await;
    assert_eq!(bad.status, 400);
    assert!(String::from_utf8_lossy(&bad.body).contains("delay"));
    for (delay, millis) in [("1s", 1000), ("50ms", 50), ("1", 1000)] {
        let start = Instant::now();
        assert_eq!(deliver(&inbox, &format!("/hook?delay={delay}"), "msg_2", "{}").await, 200);
        assert!(start.elapsed() >= Duration::from_millis(millis), "{delay}");
    }
}

#[tokio::test]
async fn a_delivery_whose_sender_left_has_no_status() {
    let inbox = Server::inbox().await;
    let mut sender = TcpStream::connect(&inbox.address).await.unwrap();
    let request = "POST /hook?delay=300s HTTP/1.1\r\nhost: inbox\r\ncontent-length: 2\r\n\r\n{}";
    sender.write_all(request.as_bytes()).await.unwrap();
    let list = loop {
        let list = deliveries(&inbox).await;
        if !list.is_empty() {
            break list;
        }
    };
    assert_eq!((&list[0]["json"], &list[0]["status"]), (&json!({}), &json!(null)));
    drop(sender);
    inbox.stop().await;
}

#[tokio::test]
async fn a_body_over_a_megabyte_is_refused_but_seen() {
    let inbox = Server::inbox().await;
    let largest = "x".repeat(1 << 20);
    assert_eq!(deliver(&inbox, "/hook", "msg_1", &largest).await, 200);
    // Raw, because a client may fail to write the rest of a body that is refused early.
    let mut sender = TcpStream::connect(&inbox.address).await.unwrap();
    let head = format!("POST /big HTTP/1.1\r\nhost: inbox\r\ncontent-length: {}\r\n\r\n", (1 << 20) + 1);
    sender.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let (mut reader, mut writer) = sender.split();
    let body = format!("{largest}x");
    let (read, _) = tokio::join!(reader.read_exact(&mut answer), writer.write_all(body.as_bytes()));
    read.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    let list = deliveries(&inbox).await;
    assert_eq!((list[0]["body"].as_str().unwrap().len(), &list[1]["body"]), (1 << 20, &json!("")));
    assert_eq!((&list[1]["path"], &list[1]["status"]), (&json!("/big"), &json!(413)));
}

#[tokio::test]
async fn the_page_shows_the_newest_first_and_runs_nothing() {
    let inbox = Server::inbox().await;
    let empty = inbox.get("/", "").await;
    assert_eq!((empty.status, empty.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(String::from_utf8_lossy(&empty.body).contains("Nothing has arrived yet"));
    deliver(&inbox, "/first", "msg_1", r#"{"a":"<img src=x onerror=alert(1)>"}"#).await;
    deliver(&inbox, "/second?fail=1", "msg_2", "<script>alert(1)</script>").await;
    let page = inbox.get("/", "").await;
    let html = String::from_utf8_lossy(&page.body);
    assert!(html.find("/second").unwrap() < html.find("/first").unwrap());
    assert!(!html.contains("<script") && !html.contains("<img"));
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(deliveries(&inbox).await.len(), 2, "looking at the page is no delivery");
}

//! The troublesome users, and how the servers end.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Server;

#[tokio::test]
async fn an_error_user_fails_every_data_call_with_its_code_and_status() {
    let bank = Server::bank().await;
    for (code, status, answered) in [
        ("sca_exceeded", 403, "sca_exceeded"),
        ("request_conflict", 409, "request_conflict"),
        ("wrong_bank", 410, "wrong_bank"),
        ("provider_request_limit_exceeded", 429, "provider_request_limit_exceeded"),
        ("endpoint_not_supported", 501, "endpoint_not_supported"),
        ("provider_error", 503, "provider_error"),
        ("provider_timeout", 504, "provider_timeout"),
        ("nobody_knows_this", 500, "internal_server_error"),
    ] {
        let token = bank.token(&format!("error.{code}")).await;
        for path in ["me", "info", "accounts", "cards/x/transactions?from=bad"] {
            for _ in 0..2 {
                let reply = bank.get(&format!("/data/v1/{path}"), &token).await;
                assert_eq!(
                    (reply.status, &reply.json()["error"]),
                    (status, &json!(answered)),
                    "{code} {path}"
                );
            }
        }
    }
}

#[tokio::test]
async fn flaky_fails_each_distinct_request_twice() {
    let bank = Server::bank().await;
    let token = bank.token("flaky").await;
    for path in ["/data/v1/me", "/data/v1/me?t=1", "/data/v1/accounts"] {
        for status in [503, 503, 200, 200] {
            let reply = bank.get(path, &token).await;
            assert_eq!(reply.status, status, "{path}");
            if status == 503 {
                assert_eq!(reply.json()["error"], "provider_error");
                assert_eq!(reply.header("retry-after"), "");
            }
        }
    }
    let head =
        bank.send(Method::HEAD, "/data/v1/me", &[("authorization", &format!("Bearer {token}"))], b"").await;
    assert_eq!(head.status, 503, "another method is another request");
}

#[tokio::test]
async fn limited_asks_for_two_seconds_once_for_each_distinct_request() {
    let bank = Server::bank().await;
    let token = bank.token("limited").await;
    for path in ["/data/v1/me", "/data/v1/info"] {
        let reply = bank.get(path, &token).await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, "2"));
        assert_eq!(reply.json()["error"], "provider_too_many_requests");
        assert_eq!(bank.get(path, &token).await.status, 200);
        assert_eq!(bank.get(path, &token).await.status, 200);
    }
}

#[tokio::test]
async fn slow_answers_after_eight_seconds() {
    let bank = Server::bank().await;
    let token = bank.token("slow").await;
    let start = Instant::now();
    bank.get("/data/v1/info", &token).await.results();
    assert!(start.elapsed() >= Duration::from_secs(8));
}

#[tokio::test]
async fn broken_cuts_every_answer_in_mid_body() {
    let bank = Server::bank().await;
    let whole = bank.get("/data/v1/accounts", &bank.token("john").await).await.body.len();
    let token = bank.token("broken").await;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(&bank.address).await.unwrap();
        let request =
            format!("GET /data/v1/accounts HTTP/1.1\r\nhost: bank\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The cut may arrive as an end or as a reset.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("the head arrived");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let declared = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let declared: usize = declared.parse().unwrap();
        assert!(declared.abs_diff(whole) < 100, "as long as anyone's accounts");
        assert_eq!(body.len(), declared / 2);
        assert!(body.starts_with(r#"{"results":[{"#));
    }
}

#[tokio::test]
async fn a_call_nobody_waited_for_is_listed_without_a_status() {
    let bank = Server::bank().await;
    let token = bank.token("slow").await;
    let mut stream = TcpStream::connect(&bank.address).await.unwrap();
    let request =
        format!("GET /data/v1/info HTTP/1.1\r\nhost: bank\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let calls = loop {
        let calls = bank.get("/calls", "").await.json();
        if !calls.as_array().unwrap().is_empty() {
            break calls;
        }
    };
    assert_eq!((&calls[0]["user"], &calls[0]["status"]), (&json!("slow"), &json!(null)));
}

#[tokio::test]
async fn a_stop_cuts_idle_connections_and_slow_answers_at_once() {
    let bank = Server::bank().await;
    let token = bank.token("slow").await;
    let mut idle = TcpStream::connect(&bank.address).await.unwrap();
    let mut slow = TcpStream::connect(&bank.address).await.unwrap();
    let request =
        format!("GET /data/v1/info HTTP/1.1\r\nhost: bank\r\nauthorization: Bearer {token}\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    idle.write_all(b"GET /calls HTTP/1.1\r\nhost: bank\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 64]).await.unwrap(), 0, "the idle connection is in use");
    while bank.get("/calls", "").await.json().as_array().unwrap().is_empty() {}
    let address = bank.address.clone();
    // A guard against hanging, not a measurement: without the cut the idle connection stays for ever.
    tokio::time::timeout(Duration::from_mins(1), bank.stop()).await.expect("the bank stops");
    let mut rest = Vec::new();
    // The cut may arrive as an end or as a reset.
    let _ = slow.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "the slow answer never comes");
    let _ = idle.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(&address).await.is_err(), "nobody listens any more");
}

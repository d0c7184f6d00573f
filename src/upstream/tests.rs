use proptest::prelude::*;

use super::*;
use crate::client::scripted::{OK, Server, fed_body};
use crate::client::{empty_body, full_body};
use crate::config::Config;

/// An upstream by its most telling settings; the rest are generous.
fn config(prefix: &str, url: &str) -> UpstreamConfig {
    let text = "[[upstreams]]\nname = \"bank\"\nprefix = \"/\"\nurl = \"http://127.0.0.1\"\n\
                timeout = \"10s\"\nidle_timeout = \"10s\"\ntotal_timeout = \"10s\"\n";
    let mut config = Config::from_toml(text).unwrap().upstreams.remove(0);
    (config.prefix, config.url) = (prefix.to_owned(), url.to_owned());
    config
}

fn at(server: &Server, change: impl FnOnce(&mut UpstreamConfig)) -> Upstream {
    let mut config = config("/data/v1", &format!("http://{}/api", server.address()));
    change(&mut config);
    Upstream::new(&config).unwrap()
}

fn get(path_and_query: &str) -> Call<'_> {
    Call {
        method: Method::GET,
        path_and_query,
        headers: HeaderMap::new(),
        body: empty_body(),
        content_length: None,
        safety: Safety::Repeatable,
    }
}

fn post(body: &'static str) -> Call<'static> {
    Call {
        method: Method::POST,
        body: full_body(Bytes::from_static(body.as_bytes())),
        content_length: Some(body.len() as u64),
        safety: Safety::Unsafe,
        ..get("/data/v1/payments")
    }
}

async fn answered(upstream: &Upstream, call: Call<'_>) -> Answer {
    match upstream.attempt(call).await {
        Attempt::Answered(answer) => answer,
        Attempt::NotSent => panic!("not sent"),
        Attempt::NoAnswer(why) => panic!("no answer: {why:?}"),
    }
}

#[test]
fn the_prefix_gives_way_to_the_path_of_the_url() {
    for (prefix, url, path, expected) in [
        ("/data/v1", "http://bank", "/data/v1/me", "/me"),
        ("/data/v1", "http://bank/", "/data/v1/me", "/me"),
        ("/data/v1", "http://bank/", "/data/v1", "/"),
        ("/data/v1", "http://bank/", "/data/v1?x=1", "/?x=1"),
        ("/data/v1", "http://bank/", "/data/v1/", "/"),
        ("/data/v1", "http://bank/api", "/data/v1", "/api"),
        ("/data/v1", "http://bank/api", "/data/v1/", "/api/"),
        ("/data/v1", "http://bank/api", "/data/v1/me?x", "/api/me?x"),
        ("/data/v1", "http://bank/api/", "/data/v1", "/api/"),
        ("/data/v1", "http://bank/api/", "/data/v1/me", "/api/me"),
        ("/data/v1", "http://bank/data/v1", "/data/v1/me", "/data/v1/me"),
        ("/data/v1", "http://bank/x", "/data/v1//a%2Fb/%7e?q=%20+'&", "/x//a%2Fb/%7e?q=%20+'&"),
        ("/", "http://bank", "/me", "/me"),
        ("/", "http://bank", "/?x", "/?x"),
        ("/", "http://bank/api", "/", "/api/"),
        ("/", "http://bank/api/", "/me", "/api/me"),
    ] {
        let upstream = Upstream::new(&config(prefix, url)).unwrap();
        assert_eq!(upstream.uri_for(path).unwrap().to_string(), expected, "{prefix} {url} {path}");
    }
}

proptest! {
    #[test]
    fn nothing_but_the_prefix_is_rewritten(rest in "(/[-a-zA-Z0-9._~!$&'()*+,;=:@%]{0,20}){0,4}(\\?[-a-zA-Z0-9._~!$&'()*+,;=:@%/?]{0,40})?") {
        let upstream = Upstream::new(&config("/data/v1", "http://bank/api")).unwrap();
        let uri = upstream.uri_for(&format!("/data/v1{rest}")).unwrap();
        prop_assert_eq!(uri.to_string(), format!("/api{rest}"));
    }
}

#[test]
fn a_url_that_cannot_be_an_upstream_is_refused() {
    for url in [
        "bank",
        "/api",
        "ftp://bank",
        "http://",
        "http://u@bank",
        "http://bank?x",
        "http://bank/#x",
        "http://bank:0",
    ] {
        assert!(matches!(Upstream::new(&config("/", url)), Err(UpstreamError::Url { .. })), "{url}");
    }
}

#[test]
fn headers_become_the_upstreams() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("key");
    std::fs::write(&secret, "from-file\n").unwrap();
    let mut config = config("/", "https://bank.example:8443/api");
    config.headers.remove = vec!["Cookie".into()];
    config.headers.set.insert("X-Team".into(), "ringback".into());
    config.headers.set_from_file.insert("X-Api-Key".into(), secret);
    let client = HeaderMap::from_iter([
        (header::HOST, HeaderValue::from_static("client.example")),
        (header::COOKIE, HeaderValue::from_static("a=b")),
        (header::ACCEPT, HeaderValue::from_static("*/*")),
        (http::HeaderName::from_static("x-api-key"), HeaderValue::from_static("forged")),
    ]);
    let client_host = HeaderValue::from_static("client.example");

    for (preserve_host, host) in [(false, "bank.example:8443"), (true, "client.example")] {
        config.preserve_host = preserve_host;
        let mut headers = client.clone();
        Upstream::new(&config).unwrap().prepare_headers(&mut headers, Some(&client_host));
        assert_eq!(headers[header::HOST], host);
        assert!(!headers.contains_key(header::COOKIE));
        assert_eq!(headers[header::ACCEPT], "*/*");
        assert_eq!(headers["x-team"], "ringback");
        assert_eq!(headers.get_all("x-api-key").iter().collect::<Vec<_>>(), ["from-file"]);
        assert!(headers["x-api-key"].is_sensitive());
    }
    let mut headers = HeaderMap::new();
    Upstream::new(&config).unwrap().prepare_headers(&mut headers, None);
    assert_eq!(headers[header::HOST], "bank.example:8443");
}

#[test]
fn headers_that_frame_a_message_cannot_be_configured() {
    let refused = |change: fn(&mut UpstreamConfig)| {
        let mut config = config("/", "http://bank");
        change(&mut config);
        match Upstream::new(&config) {
            Err(UpstreamError::Headers { why, .. }) => why.to_string(),
            _ => panic!("accepted"),
        }
    };
    let said = refused(|c| c.headers.remove = vec!["Content-Length".into()]);
    assert!(said.contains("`Content-Length` frames"), "{said}");
    refused(|c| drop(c.headers.set.insert("transfer-encoding".into(), "chunked".into())));
    refused(|c| drop(c.headers.set.insert("no name".into(), "x".into())));
    let said = refused(|c| drop(c.headers.set.insert("x-key".into(), "s3cret\r\n".into())));
    assert!(!said.contains("s3cret"), "{said}");
    refused(|c| c.headers.remove = vec!["host".into()]);
    refused(|c| drop(c.headers.set_from_file.insert("x-key".into(), "/nowhere/key".into())));
}

#[tokio::test]
async fn an_attempt_sends_the_call_and_streams_the_answer() {
    let server = Server::start().await;
    let upstream = at(&server, |_| ());
    let response = "HTTP/1.1 429 Slow\r\nRetry-After: 2\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
                    3\r\none\r\n3\r\ntwo\r\n0\r\nx-trailer: t\r\n\r\n";
    let (mut answer, request) =
        tokio::join!(answered(&upstream, get("/data/v1/accounts?from=2024-01-01")), async {
            server.accept().await.answer(response).await
        });
    let expected =
        format!("GET /api/accounts?from=2024-01-01 HTTP/1.1\r\nhost: {}\r\n\r\n", server.address());
    assert_eq!(request, expected);
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["x-a"], "1");
    assert_eq!(answer.retry_after, Some(RetryAfter::Delay(Duration::from_secs(2))));
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.unwrap() {
        body.extend_from_slice(&piece);
    }
    assert_eq!(body, b"onetwo");
}

#[tokio::test]
async fn the_length_sent_is_that_of_the_body_stored() {
    let server = Server::start().await;
    let upstream = at(&server, |_| ());
    let mut call = post("pay");
    call.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("7"));
    call.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    let (_, request) = tokio::join!(answered(&upstream, call), async {
        let mut peer = server.accept().await;
        let request = peer.read_until("pay").await;
        peer.write(OK).await;
        request
    });
    assert!(request.contains("content-length: 3\r\n"), "{request}");
    assert!(!request.contains("transfer-encoding"), "{request}");
}

#[tokio::test]
async fn an_unsafe_call_takes_a_connection_of_its_own() {
    let server = Server::start().await;
    let upstream = at(&server, |_| ());
    let (mut answer, _first) = tokio::join!(answered(&upstream, get("/data/v1/me")), async {
        let mut peer = server.accept().await;
        peer.answer(OK).await;
        peer
    });
    while answer.chunk().await.unwrap().is_some() {}
    while upstream.client.idle() == 0 {
        tokio::task::yield_now().await;
    }
    // Never answered, did it arrive on the first connection.
    let (answer, ()) = tokio::join!(answered(&upstream, post("pay")), async {
        let mut peer = server.accept().await;
        peer.read_until("pay").await;
        peer.write(OK).await;
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn an_upstream_that_is_down_was_not_sent_anything() {
    let server = Server::start().await;
    let upstream = at(&server, |_| ());
    drop(server);
    assert!(matches!(upstream.attempt(post("pay")).await, Attempt::NotSent));
}

#[tokio::test]
async fn a_reset_after_the_call_is_no_answer() {
    let server = Server::start().await;
    let upstream = at(&server, |_| ());
    let (attempt, ()) = tokio::join!(upstream.attempt(post("pay")), async {
        let mut peer = server.accept().await;
        peer.read_until("pay").await;
        peer.reset();
    });
    assert!(matches!(attempt, Attempt::NoAnswer(NoAnswer::Broken)));
}

#[tokio::test]
async fn headers_that_do_not_come_in_time_are_a_timeout() {
    let server = Server::start().await;
    for total in [false, true] {
        let short = Duration::from_millis(50);
        let upstream = at(&server, |config| {
            *if total { &mut config.total_timeout } else { &mut config.timeout } = short;
        });
        let (attempt, mut peer) = tokio::join!(upstream.attempt(get("/data/v1/me")), async {
            let mut peer = server.accept().await;
            peer.request().await;
            peer
        });
        assert!(matches!(attempt, Attempt::NoAnswer(NoAnswer::Timeout)));
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_body_shorter_than_declared_is_broken() {
    let server = Server::start().await;
    let upstream = at(&server, |_| ());
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort";
    let (mut answer, _) = tokio::join!(answered(&upstream, get("/data/v1/me")), async {
        server.accept().await.answer(short).await
    });
    assert_eq!(answer.chunk().await, Ok(Some(Bytes::from_static(b"short"))));
    assert_eq!(answer.chunk().await, Err(NoAnswer::Broken));
}

#[tokio::test]
async fn a_pause_in_the_body_or_a_body_without_end_is_a_timeout() {
    let server = Server::start().await;
    for total in [false, true] {
        let short = Duration::from_millis(100);
        let upstream = at(&server, |config| {
            *if total { &mut config.total_timeout } else { &mut config.idle_timeout } = short;
        });
        let started = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx";
        let (mut answer, mut peer) = tokio::join!(answered(&upstream, get("/data/v1/me")), async {
            let mut peer = server.accept().await;
            peer.answer(started).await;
            peer
        });
        let reading = async {
            loop {
                match answer.chunk().await {
                    Ok(piece) => assert!(piece.is_some(), "ended"),
                    Err(why) => break why,
                }
            }
        };
        let trickling = async {
            if !total {
                std::future::pending::<()>().await;
            }
            loop {
                peer.write("x").await;
                tokio::task::yield_now().await;
            }
        };
        let why = tokio::select! { why = reading => why, never = trickling => never };
        assert_eq!(why, NoAnswer::Timeout);
        drop(answer);
        peer.closed().await;
    }
}

#[tokio::test]
async fn an_exchange_streams_a_body_of_unknown_length() {
    let server = Server::start().await;
    let upstream = at(&server, |_| ());
    let (feed, body) = fed_body();
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = upstream.uri_for("/data/v1/upload").unwrap();
    upstream.prepare_headers(request.headers_mut(), None);
    let (answer, ()) = tokio::join!(upstream.exchange(request, Reuse::Fresh), async {
        let mut peer = server.accept().await;
        peer.request().await;
        for piece in ["one", "two"] {
            feed.send(Bytes::from(piece)).await.unwrap();
            peer.read_until(&format!("3\r\n{piece}\r\n")).await;
        }
        drop(feed);
        peer.read_until("0\r\n\r\n").await;
        peer.write(OK).await;
    });
    assert_eq!(answer.unwrap().status(), 200);
}

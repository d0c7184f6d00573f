//! Upstreams that are down, slow, encrypted, or reached by IPv6; and the error answers in between.

use std::sync::Arc;

use tokio::net::TcpSocket;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::support::client::raw;
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::{Peer, Upstream};
use crate::support::reply::Reply;

#[tokio::test]
async fn the_upstreams_errors_are_its_own_and_nothing_is_tried_twice() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for status in [301, 400, 404, 418, 429, 500, 503] {
        upstream.always([Reply::json(status, "{\"error\":\"theirs\"}").header("retry-after", "7")]);
        let before = upstream.calls().len();
        let answer = node.get("/x").send().await;
        assert_eq!((answer.status, answer.header("ringback-error")), (status, None));
        assert_eq!(answer.body, "{\"error\":\"theirs\"}");
        assert_eq!(answer.header("retry-after"), Some("7"));
        assert_eq!(upstream.calls().len(), before + 1);
    }
}

#[tokio::test]
async fn an_upstream_that_is_down_is_a_502() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
    let node = Setup::of(&format!("http://{}", socket.local_addr().expect("it is bound"))).start().await;
    node.get("/x").send().await.is_refusal(502, "upstream_unreachable");
    node.post("/x").body("y").send().await.is_refusal(502, "upstream_unreachable");
}

#[tokio::test]
async fn an_upstream_that_hangs_up_without_an_answer_is_a_502() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::cut()]);
    let node = Node::start(&upstream).await;
    for call in [node.get("/x"), node.post("/x").body("y")] {
        assert_eq!(call.send().await.status, 502);
    }
}

#[tokio::test]
async fn an_upstream_that_is_too_slow_is_a_504() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::silence()]);
    let node = Setup::new(&upstream).set("upstreams.0.timeout", "200ms").start().await;
    node.get("/x").send().await.is_refusal(504, "upstream_timeout");
    upstream.wait_for_abandoned(1).await;
}

#[tokio::test]
async fn a_connection_the_upstream_closed_while_it_was_idle_is_not_an_error() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("again").closing()]);
    let node = Node::start(&upstream).await;
    for _ in 0..20 {
        assert_eq!(node.get("/x").send().await.body, "again");
    }
    let task = node.submit(node.post("/x?async=true").body("y")).await;
    assert_eq!(node.finished(&task).await.body, "again");
}

/// A peer that serves https for `127.0.0.1`, and the PEM file of its authority.
async fn tls_peer() -> (Peer, String) {
    let made =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate can be made");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("the provider knows them")
    .with_no_client_auth()
    .with_single_cert(vec![made.cert.der().clone()], key)
    .expect("certificate and key fit");
    (Peer::with_tls(TlsAcceptor::from(Arc::new(config))).await, made.cert.pem())
}

#[tokio::test]
async fn an_upstream_by_https_is_trusted_by_its_authority() {
    let (upstream, pem) = tls_peer().await;
    upstream.always([Reply::ok("secure")]);
    let setup = Setup::new(&upstream);
    let ca_file = setup.write("ca.pem", &pem).display().to_string();
    let node = setup.set("upstreams.0.ca_file", ca_file).start().await;
    assert_eq!(node.get("/x").send().await.body, "secure");
    let task = node.submit(node.get("/x?async=true")).await;
    assert_eq!(node.finished(&task).await.body, "secure");
}

#[tokio::test]
async fn an_upstream_by_https_that_nobody_vouches_for_is_not_called() {
    let (upstream, _) = tls_peer().await;
    let node = Setup::new(&upstream).set("upstreams.0.retry.delays", vec!["20ms"]).start().await;
    node.get("/x").send().await.is_refusal(502, "upstream_unreachable");
    let task = node.submit(node.post("/x?async=true").body("y")).await;
    assert_eq!(node.failed(&task).await["error"], "upstream_unreachable");
    assert_eq!(upstream.calls().len(), 0);
}

#[tokio::test]
async fn ipv6_works_on_both_sides() {
    let upstream = Upstream::listen("[::1]:0").await;
    upstream.always([Reply::ok("six")]);
    let node = Setup::new(&upstream).set("server.listen", "[::1]:0").start().await;
    assert!(node.address().is_ipv6());
    assert_eq!(node.get("/x").send().await.body, "six");
    assert_eq!(upstream.only_call().header("host"), Some(upstream.address().to_string().as_str()));
    let task = node.submit(node.get("/x?async=true")).await;
    assert!(task.results_uri.starts_with(&format!("http://[::1]:{}", node.address().port())));
    assert_eq!(node.finished(&task).await.body, "six");
}

#[tokio::test]
async fn an_upstream_can_be_named() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("by name")]);
    let url = format!("http://localhost:{}{PREFIX}", upstream.address().port());
    let node = Setup::of(&url).start().await;
    assert_eq!(node.get("/x").send().await.body, "by name");
    let host = format!("localhost:{}", upstream.address().port());
    assert_eq!(upstream.only_call().header("host"), Some(host.as_str()));
}

#[tokio::test]
async fn what_is_not_http_is_answered_with_an_end() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for nonsense in ["\r\n\r\n\r\n\r\nnonsense\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n"]
    {
        let answer = raw(node.address(), nonsense.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    upstream.saw_nobody();
    assert_eq!(node.get("/x").send().await.status, 200);
}

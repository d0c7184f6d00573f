//! The node's own certificate: shown to the upstream it is configured for, and to nobody else.

use std::sync::Arc;

use http::Method;

use crate::support::certificates::{Asking, Authority};
use crate::support::issuer::{self, now};
use crate::support::node::{PREFIX, Setup};
use crate::support::peer::{Peer, Upstream};
use crate::support::receiver::Receiver;
use crate::support::reply::Reply;

/// A server that asks for certificates, and what it was shown.
async fn asking(authority: &Authority) -> (Peer, Arc<Asking>) {
    let asking = Asking::new();
    let server = authority.certificate("127.0.0.1").asking_server(&asking);
    (Peer::with_tls(server).await, asking)
}

#[tokio::test]
async fn only_the_upstream_it_is_configured_for_sees_the_nodes_certificate() {
    let (authority, own) = (Authority::new(), Authority::new().certificate("ringback.example"));
    let (bank, seen_by_bank) = asking(&authority).await;
    let (other, seen_by_other) = asking(&authority).await;
    let (issuer, seen_by_issuer) = asking(&authority).await;
    let seen_by_receiver = Asking::new();
    let receiver = authority.certificate("127.0.0.1").asking_server(&seen_by_receiver);
    let receiver = Receiver::with_tls(receiver).await;
    let active = format!("{{\"active\": true, \"sub\": \"john\", \"exp\": {}}}", now() + 600);
    issuer.script("/introspect", [Reply::json(200, &active)]);

    let setup = Setup::new(&bank).add_upstream("other", "/other", &other.uri("/other"));
    let file = |name: &str, content: &str| setup.write(name, content).display().to_string();
    let trusted = file("authority.pem", &authority.pem());
    let (cert_file, key_file) = (file("own.pem", &own.pem()), file("own.key", &own.key_pem()));
    let secret = file("client-secret", "s3cret");
    let node = setup
        .env("SSL_CERT_FILE", &trusted)
        .set("upstreams.0.client_cert_file", cert_file)
        .set("upstreams.0.client_key_file", key_file)
        .set("upstreams.0.identity.mode", "introspection")
        .set("upstreams.0.identity.introspection_url", issuer.uri("/introspect"))
        .set("upstreams.0.identity.client_id", "ringback")
        .set("upstreams.0.identity.client_secret_file", secret)
        .start()
        .await;

    assert_eq!(node.get("/proxied").bearer("token").send().await.status, 200);
    assert_eq!(seen_by_bank.shown(), [own.der()], "a proxied call shows it");
    // A connection of its own, so that it is shown again.
    let task = node.submit(node.post(&format!("/task?{}", receiver.query("/hook"))).bearer("token")).await;
    receiver.wait_for_task(&task.id, 1).await;
    assert_eq!(seen_by_bank.shown(), [own.der(), own.der()], "a task shows it");
    assert_eq!(node.call(Method::GET, "/other/proxied").send().await.status, 200);
    let task = node.call(Method::POST, &format!("/other/task?{}", receiver.query("/other")));
    let task = node.submit(task).await;
    receiver.wait_for_task(&task.id, 1).await;

    assert_eq!((other.calls().len(), issuer.calls().is_empty()), (2, false), "all of them were called");
    for (who, seen) in [
        ("another upstream", seen_by_other),
        ("the identity service", seen_by_issuer),
        ("a receiver", seen_by_receiver),
    ] {
        assert_eq!(seen.shown(), [], "{who}");
    }
}

#[tokio::test]
async fn two_upstreams_at_one_address_share_no_connection() {
    let (authority, own) = (Authority::new(), Authority::new().certificate("ringback.example"));
    let (bank, seen) = asking(&authority).await;
    let setup = Setup::new(&bank).add_upstream("open", "/open", &bank.uri("/open"));
    let file = |name: &str, content: &str| setup.write(name, content).display().to_string();
    let trusted = file("authority.pem", &authority.pem());
    let (cert_file, key_file) = (file("own.pem", &own.pem()), file("own.key", &own.key_pem()));
    let node = setup
        .env("SSL_CERT_FILE", &trusted)
        .set("upstreams.0.client_cert_file", cert_file)
        .set("upstreams.0.client_key_file", key_file)
        .start()
        .await;
    // The second call of each finds a connection of the first.
    for path in [&format!("{PREFIX}/x"), "/open/x", &format!("{PREFIX}/x"), "/open/x"] {
        assert_eq!(node.call(Method::GET, path).send().await.status, 200, "{path}");
    }
    assert_eq!((bank.connections(), seen.shown().len()), (2, 1));
}

#[tokio::test]
async fn an_upstream_that_shows_no_certificate_of_its_host_is_sent_nothing() {
    let authority = Authority::new();
    for name in ["bank.example", "127.0.0.2"] {
        let bank = Peer::with_tls(authority.certificate(name).server()).await;
        let setup = Setup::new(&bank);
        let trusted = setup.write("authority.pem", &authority.pem()).display().to_string();
        let setup = setup.set("upstreams.0.ca_file", trusted).set("upstreams.0.retry.delays", vec!["20ms"]);
        let node = setup.start().await;
        node.get("/x").bearer("secret").send().await.is_refusal(502, "upstream_unreachable");
        let task = node.submit(node.get("/x?async=true").bearer("secret")).await;
        assert_eq!(node.failed(&task).await["error"], "upstream_unreachable");
        assert_eq!((bank.calls().len(), bank.peak()), (0, 0), "{name}");
    }
}

#[tokio::test]
async fn a_certificate_toward_an_upstream_that_is_of_no_use_does_not_start() {
    let upstream = Upstream::start().await;
    let (own, other) = (Authority::new().certificate("a.example"), Authority::new().certificate("b.example"));
    let setup = Setup::new(&upstream);
    let file = |name: &str, content: &str| setup.write(name, content).display().to_string();
    let (cert, key) = (file("own.pem", &own.pem()), file("own.key", &own.key_pem()));
    let other_key = file("other.key", &other.key_pem());
    let (empty, garbage) = (file("empty", ""), file("garbage", "-----BEGIN NOTHING-----\n"));
    let gone = setup.data_dir().join("gone").display().to_string();
    let mut setup = setup;
    for (name, cert, key, words) in [
        ("no key", &cert, "", "belong together"),
        ("no certificate", &String::new(), key.as_str(), "belong together"),
        ("another's key", &cert, &other_key, "other.key holds no usable private key, or not that of"),
        ("an empty certificate", &empty, &key, "empty holds no certificate"),
        ("a certificate that is none", &garbage, &key, "garbage; name a PEM file"),
        ("a key for a certificate", &key, &key, "own.key holds no certificate"),
        ("no certificate file", &gone, &key, "gone"),
        ("an empty key", &cert, &empty, "empty holds no usable private key"),
        ("a certificate for a key", &cert, &cert, "own.pem holds no usable private key"),
        ("no key file", &cert, &gone, "gone"),
    ] {
        setup = setup.set("upstreams.0.client_cert_file", cert.clone());
        setup = setup.set("upstreams.0.client_key_file", key);
        let ended = setup.spawn().ended().await;
        assert!(!ended.status.success(), "{name}");
        let complaints = ended.complaints();
        assert_eq!(complaints.len(), 1, "{name}: {complaints:?}");
        assert!(complaints[0].contains(words), "{name}: {complaints:?}");
        assert!(!ended.stderr.concat().contains("PRIVATE KEY"), "{name}");
    }
    setup = setup.set("upstreams.0.client_cert_file", cert).set("upstreams.0.client_key_file", key);
    for (file, words) in [(&empty, "empty holds no certificate"), (&gone, "gone")] {
        setup = setup.set("upstreams.0.ca_file", file.clone());
        let ended = setup.spawn().ended().await;
        assert_eq!(ended.complaints().len(), 1, "{:?}", ended.stderr);
        assert!(ended.complaints()[0].contains(words), "{:?}", ended.stderr);
    }
    upstream.saw_nobody();
    // With the two that belong together it starts.
    let setup = setup.set("upstreams.0.ca_file", "");
    assert_eq!(setup.start().await.get("/x").send().await.status, 200);
}

#[tokio::test]
async fn an_identity_service_that_does_not_prove_who_it_is_is_told_nothing_and_believed_nothing() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let key = issuer::Key::p256("k1");
    let service = Peer::with_tls(authority.certificate("issuer.example").server()).await;
    service.script("/introspect", [Reply::json(200, r#"{"active": true, "sub": "john"}"#)]);
    issuer::publish(&service, &[&key]);
    let by_introspection = |setup: Setup| {
        setup
            .set("upstreams.0.identity.mode", "introspection")
            .set("upstreams.0.identity.introspection_url", service.uri("/introspect"))
            .set("upstreams.0.identity.client_id", "ringback")
            .set("upstreams.0.identity.client_secret", "s3cret")
    };
    let by_keys = |setup: Setup| issuer::by_url(setup, &service.uri("/jwks"));
    for setup in [by_introspection(Setup::new(&upstream)), by_keys(Setup::new(&upstream))] {
        let trusted = setup.write("authority.pem", &authority.pem()).display().to_string();
        let node = setup.env("SSL_CERT_FILE", &trusted).start().await;
        let before = node.rows();
        let results = "/results/019a3f00-0000-7000-8000-000000000001";
        for call in [
            node.get("/x?async=true"),
            node.get(results),
            node.call(Method::DELETE, &format!("{PREFIX}{results}")),
        ] {
            let refused = call.bearer(&key.token("john")).send().await;
            refused.is_refusal(503, "identity_unavailable");
            assert!(refused.header("retry-after").is_some());
        }
        assert_eq!(node.rows(), before);
    }
    assert!(service.connections() > 0, "it was not asked");
    assert_eq!((service.calls().len(), service.peak()), (0, 0), "something was sent");
    upstream.saw_nobody();
}

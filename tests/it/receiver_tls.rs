//! Webhooks by https: delivered to whoever proves to be the host, and to nobody else.

use std::sync::{Arc, Mutex};

use rcgen::{DnType, ExtendedKeyUsagePurpose, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::certificates::{Authority, Certificate};
use crate::support::client::encode;
use crate::support::node::{Node, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;

/// A node for which this authority is the system's only one.
async fn trusting(upstream: &Upstream, authority: &Authority) -> Node {
    let setup = Setup::new(upstream).set("webhooks.delays", vec!["20ms"]);
    let file = setup.write("authority.pem", &authority.pem()).display().to_string();
    setup.env("SSL_CERT_FILE", &file).start().await
}

async fn submit(node: &Node, host: &str, port: u16) -> Task {
    let uri = encode(&format!("https://{host}:{port}/hook?key=hush-hush"));
    node.submit(node.get(&format!("/x?async=true&webhook_uri={uri}"))).await
}

#[tokio::test]
async fn a_webhook_goes_by_https_to_a_host_that_proves_who_it_is() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let node = trusting(&upstream, &authority).await;
    for host in ["localhost", "127.0.0.1"] {
        let receiver = Receiver::with_tls(authority.certificate(host).server()).await;
        let port = receiver.peer().address().port();
        let task = submit(&node, host, port).await;
        let webhook = receiver.wait_for_task(&task.id, 1).await.remove(0);
        assert_eq!(webhook.target, "/hook?key=hush-hush");
        assert_eq!(webhook.header("host"), Some(format!("{host}:{port}").as_str()));
        assert_eq!(webhook.json()["status"], "Succeeded");
    }
}

#[tokio::test]
async fn a_host_that_does_not_prove_who_it_is_gets_nothing() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let node = trusting(&upstream, &authority).await;
    let with = |change: fn(&mut rcgen::CertificateParams)| authority.certificate_with("localhost", change);
    let certificates = [
        ("another name", authority.certificate("receiver.example")),
        ("an address is no name", authority.certificate("127.0.0.1")),
        ("a wildcard below it", authority.certificate("*.localhost")),
        ("a longer name", authority.certificate("localhost.receiver.example")),
        (
            "a common name alone",
            with(|params| {
                params.subject_alt_names.clear();
                params.distinguished_name.push(DnType::CommonName, "localhost");
            }),
        ),
        ("signed by itself", Certificate::of_nobody("localhost")),
        ("signed by a stranger", Authority::new().certificate("localhost")),
        ("expired", with(|params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("not yet valid", with(|params| params.not_before = date_time_ymd(2999, 1, 1))),
        (
            "for clients",
            with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ),
    ];
    for (number, (name, certificate)) in certificates.iter().enumerate() {
        let receiver = Receiver::with_tls(certificate.server()).await;
        let task = submit(&node, "localhost", receiver.peer().address().port()).await;
        assert_eq!(node.given_up(number + 1).await, "tls", "{name}");
        assert!(receiver.peer().connections() >= 2, "{name}: it was not tried again");
        assert_eq!((receiver.tries().len(), receiver.peer().peak()), (0, 0), "{name}: something was sent");
        assert_eq!(node.finished(&task).await.header("ringback-status"), Some("Succeeded"), "{name}");
    }
    assert!(!node.log().contains("hush-hush"));
}

#[tokio::test]
async fn a_receiver_that_speaks_no_tls_is_told_nothing_in_the_clear() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let node = trusting(&upstream, &authority).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            kept.lock().expect("no test panics holding it").extend(all);
        }
    });
    submit(&node, "localhost", port).await;
    assert_eq!(node.given_up(1).await, "tls");
    let heard = heard.lock().expect("no test panics holding it");
    for word in ["POST", "hook", "hush", "task_id"] {
        assert!(!heard.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
    }
}

#[tokio::test]
async fn a_webhook_that_cannot_be_sent_says_why_in_one_word() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let node = trusting(&upstream, &authority).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = nobody.local_addr().expect("a bound socket has an address").port();
    drop(nobody);
    submit(&node, "localhost", port).await;
    assert_eq!(node.given_up(1).await, "unreachable");
    // RFC 6761: never resolves.
    submit(&node, "nobody.invalid", 443).await;
    assert_eq!(node.given_up(2).await, "unresolved");
}

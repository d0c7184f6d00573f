//! TLS on the listener, and this node's own certificate toward upstreams.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::client::raw;
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::{Peer, Upstream};
use crate::support::{eventually, within};

fn certificate() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate can be made")
}

fn write(certificate: &CertifiedKey<KeyPair>, cert_file: &Path, key_file: &Path) {
    std::fs::write(key_file, certificate.signing_key.serialize_pem()).expect("the file can be written");
    std::fs::write(cert_file, certificate.cert.pem()).expect("the file can be written");
}

/// A node with TLS by this certificate, and its two files.
async fn node(upstream: &Peer, certificate: &CertifiedKey<KeyPair>) -> (Node, [std::path::PathBuf; 2]) {
    let setup = Setup::new(upstream);
    let files = [setup.write("cert.pem", ""), setup.write("key.pem", "")];
    write(certificate, &files[0], &files[1]);
    let [cert_file, key_file] = files.each_ref().map(|path| path.display().to_string());
    let setup = setup.set("server.tls_cert_file", cert_file).set("server.tls_key_file", key_file);
    (setup.start().await, files)
}

/// A connection that trusts this certificate alone; `None` where the handshake failed.
async fn connect(node: &Node, trusted: &CertifiedKey<KeyPair>, alpn: &str) -> Option<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).expect("a certificate of our own");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(node.address()).await.expect("the node listens");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}

async fn call(stream: &mut TlsStream<TcpStream>, target: &str) -> String {
    let call = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(call.as_bytes()).await.expect("the node reads");
    let mut answer = Vec::new();
    within("the answer ended", stream.read_to_end(&mut answer)).await.expect("an answer that ends cleanly");
    String::from_utf8(answer).expect("answers in these tests are text")
}

#[tokio::test]
async fn calls_arrive_by_tls_and_by_nothing_else() {
    let (upstream, certificate) = (Upstream::start().await, certificate());
    let (node, _) = node(&upstream, &certificate).await;

    let mut client = connect(&node, &certificate, "http/1.1").await.expect("a trusted connection");
    let answer = call(&mut client, &format!("{PREFIX}/x")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let proxied = upstream.calls().remove(0);
    assert_eq!(proxied.header("x-forwarded-proto"), Some("https"));
    assert!(proxied.header("forwarded").is_some_and(|value| value.contains("proto=https")));

    let mut client = connect(&node, &certificate, "http/1.1").await.expect("a trusted connection");
    let answer = call(&mut client, &format!("{PREFIX}/x?async=true")).await;
    let results_uri = format!("\"results_uri\":\"https://{}{PREFIX}/results/", node.address());
    assert!(answer.contains(&results_uri), "{answer}");

    let plain = raw(node.address(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!plain.contains("HTTP/1.1"), "nothing is answered in the clear");
}

#[tokio::test]
async fn http2_is_agreed_on_by_alpn() {
    let (upstream, certificate) = (Upstream::start().await, certificate());
    let (node, _) = node(&upstream, &certificate).await;
    let client = connect(&node, &certificate, "h2").await.expect("a trusted connection");
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(client);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.expect("the node speaks HTTP/2");
    tokio::spawn(connection);
    let uri = format!("https://{}{PREFIX}/x", node.address());
    let request = http::Request::get(uri).body(http_body_util::Empty::<bytes::Bytes>::new());
    let answer = send.send_request(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_changed_certificate_is_taken_without_a_restart() {
    let (upstream, old, new) = (Upstream::start().await, certificate(), certificate());
    let (node, [cert_file, key_file]) = node(&upstream, &old).await;
    let mut before = connect(&node, &old, "http/1.1").await.expect("a trusted connection");
    write(&new, &cert_file, &key_file);
    eventually("the new certificate is shown", async || connect(&node, &new, "http/1.1").await).await;
    let answer = call(&mut before, &format!("{PREFIX}/x")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "connections of before go on: {answer}");
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_hung_up_on() {
    let (upstream, certificate) = (Upstream::start().await, certificate());
    let setup = Setup::new(&upstream).set("server.header_timeout", "50ms");
    let files = [setup.write("cert.pem", ""), setup.write("key.pem", "")];
    write(&certificate, &files[0], &files[1]);
    let [cert_file, key_file] = files.each_ref().map(|path| path.display().to_string());
    let node =
        setup.set("server.tls_cert_file", cert_file).set("server.tls_key_file", key_file).start().await;
    let mut silent = TcpStream::connect(node.address()).await.expect("the node listens");
    let mut byte = [0];
    let end = within("the silent client was hung up on", silent.read(&mut byte)).await;
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_certificate_without_its_key_does_not_start() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream);
    let (one, other) = (certificate(), certificate());
    let cert_file = setup.write("cert.pem", &one.cert.pem()).display().to_string();
    let key_file = setup.write("key.pem", &other.signing_key.serialize_pem()).display().to_string();
    let setup = setup.set("server.tls_cert_file", cert_file);
    let ended = setup.spawn().ended().await;
    assert!(ended.stderr.join("\n").contains("belong together"), "{:?}", ended.stderr);
    let ended = setup.set("server.tls_key_file", key_file).spawn().ended().await;
    assert!(ended.stderr.join("\n").contains("is not that of the key"), "{:?}", ended.stderr);
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_gets_one() {
    let (server, client) = (certificate(), certificate());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut trusted = RootCertStore::empty();
    trusted.add(client.cert.der().clone()).expect("a certificate of our own");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider))
        .build()
        .expect("a verifier with one authority");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.cert.der().clone()], key)
        .expect("a certificate of our own");
    let upstream = Peer::with_tls(TlsAcceptor::from(Arc::new(config))).await;

    let setup = Setup::new(&upstream);
    let ca_file = setup.write("ca.pem", &server.cert.pem()).display().to_string();
    let stranger = setup.set("upstreams.0.ca_file", ca_file).start().await;
    let refused = stranger.get("/x").send().await;
    assert_eq!(refused.status, 502, "{:?}", refused.body);

    let (setup, _) = stranger.terminate().await;
    let cert_file = setup.write("client.pem", &client.cert.pem()).display().to_string();
    let key_file = setup.write("client.key", &client.signing_key.serialize_pem()).display().to_string();
    let setup = setup.set("upstreams.0.client_cert_file", cert_file);
    let known = setup.set("upstreams.0.client_key_file", key_file).start().await;
    assert_eq!(known.get("/x").send().await.status, 200);
}

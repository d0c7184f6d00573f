//! The first bytes on the listener when it speaks TLS: which versions and protocols it takes, and what
//! it says to everything else. The hellos are written out, so that no library here refuses to send them.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::aws_lc_rs, pki_types::CertificateDer,
};

use crate::support::certificates::{Authority, Certificate};
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::{eventually, within};

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
/// The longest thing said to a stranger: one alert (RFC 8446, 6).
const ALERT: usize = 7;
/// Fatal, `protocol_version`.
const WRONG_VERSION: [u8; 2] = [2, 70];

/// A node with TLS by a certificate of its own, and the two files.
async fn node(upstream: &Upstream, certificate: &Certificate) -> (Node, [std::path::PathBuf; 2]) {
    let setup = Setup::new(upstream);
    let files = [setup.write("cert.pem", &certificate.pem()), setup.write("key.pem", &certificate.key_pem())];
    let [cert_file, key_file] = files.each_ref().map(|path| path.display().to_string());
    let setup = setup.set("server.tls_cert_file", cert_file).set("server.tls_key_file", key_file);
    (setup.start().await, files)
}

/// A connection that trusts this certificate alone; `None` where the handshake failed.
async fn connect(
    node: &Node,
    trusted: CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
) -> Option<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).expect("a certificate of our own");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("the library knows them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(node.address()).await.expect("the node listens");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}

async fn status_of_a_call(mut stream: TlsStream<TcpStream>) -> String {
    let call = format!("GET {PREFIX}/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(call.as_bytes()).await.expect("the node reads");
    let mut answer = Vec::new();
    within("the answer ended", stream.read_to_end(&mut answer)).await.expect("it ends cleanly");
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

/// What the listener says first, at least `enough` bytes unless it hangs up before.
async fn said(to: SocketAddr, bytes: &[u8], enough: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.expect("the listener accepts");
    stream.write_all(bytes).await.expect("it is written");
    let mut answer = Vec::new();
    within("the listener answered or hung up", async {
        while answer.len() < enough && matches!(stream.read_buf(&mut answer).await, Ok(count) if count > 0) {}
    })
    .await;
    answer
}

/// `content` behind its length in two bytes.
fn sized(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("it is short");
    [&length.to_be_bytes(), content].concat()
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &sized(content)].concat()
}

/// A `ClientHello` (RFC 5246, 7.4.1.2) that lacks nothing but, perhaps, a version that is still spoken.
fn hello(version: [u8; 2], supported: Option<&[u8]>) -> Vec<u8> {
    // Suites of TLS 1.2 and older ones, for ECDSA and RSA.
    let suites = [0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f];
    let mut extensions = [
        extension(10, &sized(&[0x00, 0x1d, 0x00, 0x17])),
        extension(11, &[1, 0]),
        extension(13, &sized(&[0x04, 0x03, 0x08, 0x04, 0x04, 0x01, 0x05, 0x03])),
    ]
    .concat();
    if let Some(versions) = supported {
        let length = u8::try_from(versions.len()).expect("it is short");
        extensions.extend(extension(43, &[&[length], versions].concat()));
    }
    let body = [
        &version[..],
        &[7; 32],
        // No session, the suites, no compression.
        &[0],
        &sized(&suites),
        &[1, 0],
        &sized(&extensions),
    ]
    .concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[0x16, 3, 1][..], &sized(&message)].concat()
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let (upstream, certificate) = (Upstream::start().await, Certificate::of_nobody("127.0.0.1"));
    let (node, _) = node(&upstream, &certificate).await;
    for version in [&TLS12, &TLS13] {
        let stream = connect(&node, certificate.der(), &[version], &["http/1.1"]).await;
        let stream = stream.unwrap_or_else(|| panic!("{version:?} is not spoken"));
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert!(status_of_a_call(stream).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn versions_before_tls_1_2_are_refused() {
    let (upstream, certificate) = (Upstream::start().await, Certificate::of_nobody("127.0.0.1"));
    let (node, _) = node(&upstream, &certificate).await;
    // The same hello with a version that is spoken: a ServerHello of TLS 1.2.
    let answer = said(node.address(), &hello([3, 3], None), 11).await;
    assert_eq!((&answer[..3], answer[5], &answer[9..11]), (&[0x16, 3, 3][..], 2, &[3, 3][..]), "{answer:?}");
    for (name, hello) in [
        ("TLS 1.1", hello([3, 2], None)),
        ("TLS 1.0", hello([3, 1], None)),
        ("SSL 3.0", hello([3, 0], None)),
        ("TLS 1.1 by extension", hello([3, 3], Some(&[3, 2]))),
        ("TLS 1.1 and 1.0 by extension", hello([3, 3], Some(&[3, 2, 3, 1]))),
    ] {
        let answer = said(node.address(), &hello, usize::MAX).await;
        assert_eq!(answer.len(), ALERT, "{name}: {answer:?}");
        assert_eq!((answer[0], &answer[5..]), (0x15, &WRONG_VERSION[..]), "{name}: {answer:?}");
    }
    upstream.saw_nobody();
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_cut_and_nothing_is_said() {
    let (upstream, certificate) = (Upstream::start().await, Certificate::of_nobody("127.0.0.1"));
    let (node, _) = node(&upstream, &certificate).await;
    let before = node.rows();
    for call in [
        format!("GET {PREFIX}/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET {PREFIX}/x?async=true HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t\r\n\r\n"),
        String::from("GET /.well-known/jwks HTTP/1.1\r\nHost: a\r\n\r\n"),
        String::from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        String::from("nonsense\n"),
        // What TLS itself would take for a record without end.
        String::from("\u{16}\u{3}\u{1}\u{7f}\u{7f}") + &"x".repeat(40_000),
    ] {
        let answer = said(node.address(), call.as_bytes(), usize::MAX).await;
        assert!(answer.len() <= ALERT, "{call:?}: {:?}", String::from_utf8_lossy(&answer));
        assert!(answer.is_empty() || answer[0] == 0x15, "{call:?}: {answer:?}");
    }
    assert_eq!(node.rows(), before);
    upstream.saw_nobody();
}

#[tokio::test]
async fn the_protocol_is_agreed_on_by_alpn_or_is_http_1_1() {
    let (upstream, certificate) = (Upstream::start().await, Certificate::of_nobody("127.0.0.1"));
    let (node, _) = node(&upstream, &certificate).await;
    for (offered, agreed) in [
        (&["http/1.1", "h2"][..], Some(&b"h2"[..])),
        (&["h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&["http/1.0", "http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = connect(&node, certificate.der(), BOTH, offered).await;
        let stream = stream.unwrap_or_else(|| panic!("no connection for {offered:?}"));
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
        if agreed != Some(b"h2") {
            assert!(status_of_a_call(stream).await.starts_with("HTTP/1.1 200"), "{offered:?}");
        }
    }
    // RFC 7301, 3.2: nothing in common is no connection.
    assert!(connect(&node, certificate.der(), BOTH, &["spdy/3", "h3"]).await.is_none());
}

#[tokio::test]
async fn new_files_that_are_of_no_use_leave_the_old_certificate_and_are_said() {
    let authority = Authority::new();
    let (upstream, old) = (Upstream::start().await, Certificate::of_nobody("127.0.0.1"));
    let (new, other) = (Certificate::of_nobody("127.0.0.1"), authority.certificate("127.0.0.1"));
    let (node, [cert_file, key_file]) = node(&upstream, &old).await;
    let write = |path: &std::path::Path, text: &str| std::fs::write(path, text).expect("it can be written");
    let complaints = || node.log().matches("the old one stays").count();
    for (name, cert, key) in [
        ("an empty certificate", String::new(), old.key_pem()),
        ("half a certificate", new.pem()[..200].to_owned(), new.key_pem()),
        ("another's key", new.pem(), other.key_pem()),
        ("a key that is none", new.pem(), String::from("no key at all")),
    ] {
        let before = complaints();
        write(&cert_file, &cert);
        write(&key_file, &key);
        eventually(&format!("{name} is complained about"), async || (complaints() > before).then_some(()))
            .await;
        let stream = connect(&node, old.der(), BOTH, &["http/1.1"]).await;
        let stream = stream.unwrap_or_else(|| panic!("{name}: the old certificate is gone"));
        assert!(status_of_a_call(stream).await.starts_with("HTTP/1.1 200"), "{name}");
    }
    let before = complaints();
    std::fs::remove_file(&cert_file).expect("it is there");
    eventually("a file that is gone is complained about", async || (complaints() > before).then_some(()))
        .await;
    assert!(connect(&node, old.der(), BOTH, &["http/1.1"]).await.is_some());
    write(&key_file, &new.key_pem());
    write(&cert_file, &new.pem());
    let shown = async || connect(&node, new.der(), BOTH, &["http/1.1"]).await;
    eventually("the good new certificate is shown", shown).await;
    assert!(!node.log().contains("PRIVATE KEY"));
}

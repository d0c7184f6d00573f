//! For tests: a server on loopback whose every byte and every mishap is written out by the test.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Body, Origin, empty_body};

pub(crate) struct Server(TcpListener);

impl Server {
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1:0").await
    }

    pub(crate) async fn on(address: &str) -> Self {
        Self(TcpListener::bind(address).await.unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::new(false, &self.address().ip().to_string(), self.address().port())
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Peer<TcpStream> {
        Peer(self.0.accept().await.unwrap().0)
    }

    /// The next connection after its TLS handshake, `None` where that failed.
    pub(crate) async fn accept_tls(
        &self,
        config: &Arc<rustls::ServerConfig>,
    ) -> Option<Peer<TlsStream<TcpStream>>> {
        let (stream, _) = self.0.accept().await.unwrap();
        Box::pin(TlsAcceptor::from(Arc::clone(config)).accept(stream)).await.ok().map(Peer)
    }
}

/// The server's end of one connection.
pub(crate) struct Peer<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Reads one request: its header section, or more where `until` comes later.
    pub(crate) async fn read_until(&mut self, until: &str) -> String {
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let count = self.0.read(&mut piece).await.unwrap();
            assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&piece[..count]);
            let text = String::from_utf8_lossy(&seen);
            if text.ends_with(until) {
                return text.into_owned();
            }
        }
    }

    pub(crate) async fn request(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    pub(crate) async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads a request and answers it.
    pub(crate) async fn answer(&mut self, response: &str) -> String {
        let request = self.request().await;
        self.write(response).await;
        request
    }

    /// Waits until the client has closed the connection, in whatever way.
    pub(crate) async fn closed(&mut self) {
        let mut piece = [0; 4096];
        while let Ok(1..) = self.0.read(&mut piece).await {}
    }
}

impl Peer<TcpStream> {
    pub(crate) fn reset(self) {
        self.0.set_zero_linger().unwrap();
    }
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) fn get(target: &str) -> Request<Body> {
    with_body("GET", target, empty_body())
}

pub(crate) fn with_body(method: &str, target: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(target).header("host", "scripted").body(body).unwrap()
}

/// A request body that the test feeds piece by piece.
pub(crate) fn fed_body() -> (tokio::sync::mpsc::Sender<Bytes>, Body) {
    use http_body_util::BodyExt as _;
    let (feed, mut pieces) = tokio::sync::mpsc::channel(1);
    let frames = futures_util::stream::poll_fn(move |cx| {
        pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(http_body::Frame::data(piece))))
    });
    (feed, http_body_util::StreamBody::new(frames).boxed_unsync())
}

/// A certificate that signs itself, for `names`, and the server that shows it.
pub(crate) fn tls_server(names: &[&str]) -> (String, Arc<rustls::ServerConfig>) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (made.cert.pem(), Arc::new(config))
}

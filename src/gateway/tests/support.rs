//! A node on a free port, clients and upstreams that speak bytes.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use toml::Table;

use crate::client::Names;
use crate::config::Config;
use crate::gateway::listener;
use crate::service::assemble;

/// Nothing here takes that long; a test that does has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it should have happened by now")
}

const SERVER: &str = r#"
    listen = "127.0.0.1:0"
    admin_listen = "127.0.0.1:0"
    public_url = "http://ringback.example"
    max_body_bytes = "1MB"
    max_buffered_bytes = "1MB"
    max_uri_bytes = "1KB"
    max_header_bytes = "8KB"
    max_connections = 100
"#;

const UPSTREAM: &str = r#"
    name = "api"
    prefix = "/api"
    timeout = "20s"
    concurrency = 10
    identity = { mode = "none" }
"#;

fn laid_over(base: &str, changes: &str) -> Table {
    let mut table: Table = base.parse().unwrap();
    table.extend(changes.parse::<Table>().unwrap());
    table
}

/// A running listener with one upstream at `/api`.
pub struct Node {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub served: JoinHandle<()>,
    _data_dir: TempDir,
}

pub async fn node(upstream: SocketAddr) -> Node {
    node_with(upstream, "", "").await
}

/// With changes to the sections `server` and `upstreams`.
pub async fn node_with(upstream: SocketAddr, server: &str, upstreams: &str) -> Node {
    node_resolving(upstream, server, upstreams, "", Names::system()).await
}

/// With a section `webhooks` too, whose names are looked up as the test says.
pub async fn node_resolving(
    upstream: SocketAddr,
    server: &str,
    upstreams: &str,
    webhooks: &str,
    receivers: Names,
) -> Node {
    let data_dir = tempfile::tempdir().unwrap();
    let mut server = laid_over(SERVER, server);
    server.insert("data_dir".into(), data_dir.path().to_str().unwrap().into());
    let mut upstreams = laid_over(UPSTREAM, upstreams);
    upstreams.insert("url".into(), format!("http://{upstream}/v1").into());
    let mut config = Table::new();
    config.insert("server".into(), server.into());
    config.insert("upstreams".into(), vec![toml::Value::from(upstreams)].into());
    config.insert("webhooks".into(), webhooks.parse::<Table>().unwrap().into());
    let config = Config::from_toml(&config.to_string()).unwrap();
    let gateway = assemble::Node::open(&config, receivers).unwrap().gateway;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(listener::serve(gateway, listener, None, stop.clone()));
    Node { address, stop, served: running, _data_dir: data_dir }
}

impl Node {
    pub async fn connect(&self) -> Raw {
        Raw::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// One call on a connection of its own; the whole answer until the connection ends.
    pub async fn answer_to(&self, bytes: &str) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }
}

/// One end of a connection, in bytes.
pub struct Raw {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The bytes up to and with `end`. `None`: the connection ended before.
    pub async fn try_until(&mut self, end: &str) -> Option<String> {
        loop {
            let found = self.read.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(at + end.len());
                return Some(String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap());
            }
            if soon(self.stream.read_buf(&mut self.read)).await.ok()? == 0 {
                return None;
            }
        }
    }

    pub async fn until(&mut self, end: &str) -> String {
        match self.try_until(end).await {
            Some(text) => text,
            None => panic!("ended before {end:?}: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }

    /// A head, in lower case for comparing.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.to_lowercase()
    }

    /// A head and its body of declared length.
    pub async fn message(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        while self.read.len() < length {
            assert_ne!(soon(self.stream.read_buf(&mut self.read)).await.unwrap(), 0, "ended in mid-body");
        }
        let rest = self.read.split_off(length);
        let body = String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
        (head, body)
    }

    /// Bytes that were read beyond what was asked for.
    pub fn buffered(&self) -> usize {
        self.read.len()
    }

    /// Everything until a clean end.
    pub async fn rest(&mut self) -> String {
        soon(self.stream.read_to_end(&mut self.read)).await.unwrap();
        String::from_utf8(std::mem::take(&mut self.read)).unwrap()
    }

    /// Everything until the end, cleanly or not.
    pub async fn whatever(&mut self) -> String {
        self.ended().await;
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    /// Waits for the other side to be gone, cleanly or not.
    pub async fn ended(&mut self) {
        let _ = soon(self.stream.read_to_end(&mut self.read)).await;
    }
}

/// A scripted upstream; counts its connections.
pub struct Scripted {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Scripted {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub async fn upstream<S, F>(script: S) -> Scripted
where
    S: Fn(Raw) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(script(Raw::new(stream)));
        }
    });
    Scripted { address, connections }
}

/// Answers every request of a connection with 200 and its own head and body.
pub async fn mirror() -> Scripted {
    upstream(|mut client| async move {
        while let Some(head) = client.try_until("\r\n\r\n").await {
            let head = head.to_lowercase();
            let mut seen = head.clone();
            if head.contains("transfer-encoding: chunked") {
                seen += &client.until("0\r\n").await;
                seen += &client.until("\r\n").await;
            } else if let Some(rest) = head.split("content-length: ").nth(1) {
                let length: usize = rest.lines().next().unwrap().parse().unwrap();
                let mut body = vec![0; length];
                let there = client.read.len().min(length);
                body[..there].copy_from_slice(&client.read[..there]);
                client.read.drain(..there);
                client.stream.read_exact(&mut body[there..]).await.unwrap();
                seen += &String::from_utf8(body).unwrap();
            }
            client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{seen}", seen.len())).await;
        }
    })
    .await
}

/// Answers every request with these bytes.
pub async fn answering(answer: &'static str) -> Scripted {
    upstream(move |mut client| async move {
        while client.try_until("\r\n\r\n").await.is_some() {
            client.send(answer).await;
        }
    })
    .await
}

/// Nobody: a port where nothing listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

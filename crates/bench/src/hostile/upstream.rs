//! The upstream of hostile clients and of waiters: answers without measure, or when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Nobody reads that much.
const LARGE: u64 = 1 << 30;
const PIECE: usize = 64 * 1024;
/// No head the node sends is larger.
const MAX_HEAD: usize = 256 * 1024;

/// Runs on a thread of its own, for as long as the program.
pub struct Upstream {
    pub address: SocketAddr,
    is_open: Arc<watch::Sender<bool>>,
}

impl Upstream {
    /// # Errors
    /// No port or no thread is to be had.
    pub fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no port for the upstream")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let is_open = Arc::new(watch::Sender::new(false));
        let gate = Arc::clone(&is_open);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("upstream".to_owned()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                loop {
                    if let Ok((stream, _)) = listener.accept().await {
                        let opened = gate.subscribe();
                        // A connection that breaks is the node's business.
                        tokio::spawn(async move { attend(stream, opened).await });
                    }
                }
            });
        })?;
        Ok(Self { address, is_open })
    }

    /// Calls of `/gated` are answered, those that wait and those to come.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }
}

async fn attend(mut stream: TcpStream, mut opened: watch::Receiver<bool>) -> std::io::Result<()> {
    let mut read = Vec::new();
    while !read.windows(4).any(|window| window == b"\r\n\r\n") {
        if read.len() > MAX_HEAD || stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&read);
    let path = head.split(' ').nth(1).unwrap_or_default();
    if path.contains("/gated") {
        // An error: nobody can open it any more.
        let _ = opened.wait_for(|is_open| *is_open).await;
    } else if path.contains("/large") {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let piece = vec![b'x'; PIECE];
        for _ in 0..LARGE / PIECE as u64 {
            stream.write_all(&piece).await?;
        }
    } else if path.contains("/sink") {
        let mut piece = vec![0; PIECE];
        while stream.read(&mut piece).await? > 0 {}
        return Ok(());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await
}

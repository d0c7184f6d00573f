//! A server on the node's HTTP stack that does nothing: what accepting is measured against.
//!
//! It answers as a node does, without reading a token, sealing, storing or handing off anything.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// How a program that measures starts itself once more, as [`Noop`].
#[derive(clap::Subcommand)]
pub enum Role {
    /// The server that does nothing.
    #[command(hide = true)]
    Noop { address: SocketAddr },
}

impl Role {
    /// Serves until the process is ended.
    ///
    /// # Errors
    /// The address cannot be served.
    pub fn run(self) -> anyhow::Result<()> {
        let Self::Noop { address } = self;
        serve(address)
    }
}

const BODY: &str = "{\"results_uri\":\"http://127.0.0.1:8080/bench/results/019a3f00-0000-7000-8000-000000000001\",\
                    \"status\":\"Queued\",\"task_id\":\"019a3f00-0000-7000-8000-000000000001\"}";

/// Serves on one thread until the process ends.
///
/// # Errors
/// The address cannot be bound.
fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(30))
                    .serve_connection(TokioIo::new(stream), service_fn(async |_| answer())),
            );
        }
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the shape hyper asks for")]
fn answer() -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(BODY.as_bytes())));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::LOCATION, HeaderValue::from_static("http://127.0.0.1:8080/bench/results/0"));
    Ok(response)
}

/// The server as a child process; it ends when dropped.
pub struct Noop {
    child: Child,
    pub address: SocketAddr,
}

impl Noop {
    /// # Errors
    /// It does not start.
    pub fn start() -> anyhow::Result<Self> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let program = std::env::current_exe().context("this program does not know its own path")?;
        let child =
            Command::new(program).arg("noop").arg(address.to_string()).stdin(Stdio::null()).spawn()?;
        let noop = Self { child, address };
        for _ in 0..500 {
            if std::net::TcpStream::connect(address).is_ok() {
                return Ok(noop);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        anyhow::bail!("the no-op server does not listen")
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Noop {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

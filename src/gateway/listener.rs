//! The accept loop, and one connection from its first byte to its last.
//!
//! Invariant: at most `max_connections` are open, each one waits for its client at most
//! `header_timeout`, and [`serve`] returns when all of them have ended.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::framing::{Framed, Informational, Limits, Patience, Protocol, Wire};
use super::tls::ListenerTls;
use super::tunnel::Tunnels;
use super::{Gateway, Peer, own};

mod attended;
mod socket;
mod streams;

use attended::Attended;
pub use socket::Socket;
use streams::{Stream, Streams};

/// Between two attempts to accept while the process is out of file descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The library's own room for a head; it needs more only for larger heads.
const READ_BUFFER: usize = 400 * 1024;
/// Calls at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Of one HTTP/2 connection, what is kept of bodies that nobody has read yet, and of each answer that the
/// client has not taken yet. The library's own numbers make some 100 MB of one connection.
const MAX_UNREAD: u32 = 256 * 1024;
const MAX_UNSENT: usize = 64 * 1024;

/// Serves until `stop`. Then idle connections are closed at once, the others after the calls they
/// carry. With `tls` nothing is served in the clear.
pub async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    tls: Option<Arc<ListenerTls>>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(gateway.server.max_connections));
    let accepting = async {
        loop {
            // Taken first: what cannot be served waits in the kernel's queue.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let (stream, peer) = accept(&listener).await;
            let connection = Connection {
                gateway: Arc::clone(&gateway),
                tls: tls.clone(),
                peer,
                wire: Arc::default(),
                tunnels: Tunnels::new(connections.clone(), stop.clone()),
                stop: stop.clone(),
            };
            // Boxed: a runtime moves what it is given to spawn ten times.
            connections.spawn(Box::pin(async move {
                connection.attend(stream).await;
                drop(permit);
            }));
        }
    };
    stop.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut said = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !said {
                    tracing::error!(%error, "no connection can be accepted");
                    said = true;
                }
                sleep(BACK_OFF).await;
            }
        }
    }
}

/// The client was gone before it was accepted; the next one is not affected.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

struct Connection {
    gateway: Arc<Gateway>,
    tls: Option<Arc<ListenerTls>>,
    peer: SocketAddr,
    wire: Arc<Wire>,
    tunnels: Tunnels,
    stop: CancellationToken,
}

impl Connection {
    async fn attend(self, stream: TcpStream) {
        // Small answers must not wait for an acknowledgement; where that cannot be set, they do.
        let _ = stream.set_nodelay(true);
        let header_timeout = self.gateway.server.header_timeout;
        let patience = Patience { head: header_timeout, stall: self.gateway.server.stall_timeout };
        let accepting = async {
            let socket = match &self.tls {
                // Boxed: the state of a handshake is large.
                Some(tls) => Socket::Tls(Box::new(Box::pin(tls.accept(stream)).await?)),
                None => Socket::Plain(stream),
            };
            Framed::accept(socket, self.limits(), patience, Arc::clone(&self.wire)).await
        };
        let stop = self.stop.clone();
        match stop.run_until_cancelled(timeout(header_timeout, accepting)).await {
            Some(Ok(Ok((Protocol::Http1, framed)))) => self.attend_http1(framed).await,
            Some(Ok(Ok((Protocol::Http2, framed)))) => self.attend_http2(framed).await,
            // Gone, silent, or too late.
            _ => {}
        }
    }

    async fn attend_http1(self, framed: Framed) {
        let limits = self.limits();
        let stop = self.stop.clone();
        let header_timeout = self.gateway.server.header_timeout;
        let this = Arc::new(self);
        let calls = AtomicU64::new(0);
        let service = service_fn(move |request| {
            let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
            Arc::clone(&this).answer_http1(call, request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(READ_BUFFER.max(limits.head().saturating_add(8 * 1024)))
            .serve_connection(TokioIo::new(framed), service)
            .with_upgrades();
        drive(connection, &stop, http1::UpgradeableConnection::graceful_shutdown, std::future::pending())
            .await;
    }

    async fn attend_http2(self, framed: Framed) {
        let limits = self.limits();
        let stop = self.stop.clone();
        let header_timeout = self.gateway.server.header_timeout;
        let max_stall = self.gateway.server.stall_timeout;
        let this = Arc::new(self);
        let streams = Arc::new(Streams::default());
        let counted = Arc::clone(&streams);
        let service = service_fn(move |request| Arc::clone(&this).answer_http2(request, counted.begin()));
        // The library refuses without a word, so what is a little too large is left to us.
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(header_timeout)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(MAX_UNREAD)
            .initial_connection_window_size(MAX_UNREAD)
            .max_send_buf_size(MAX_UNSENT)
            .max_header_list_size(u32::try_from(limits.headers.saturating_mul(2)).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(framed), service);
        let idle = streams.until_idle(header_timeout);
        let driving = drive(connection, &stop, http2::Connection::graceful_shutdown, idle);
        // The socket's own patience does not see a client that reads everything but opens no window.
        tokio::select! {
            () = driving => {}
            () = streams.until_stalled(max_stall) => {}
            () = streams.until_abandoned(header_timeout, max_stall) => {}
        }
    }

    async fn answer_http1(
        self: Arc<Self>,
        call: u64,
        request: Request<Incoming>,
    ) -> Result<Response<Attended>, Infallible> {
        let old = request.version() == Version::HTTP_10;
        let (response, place) = if let Some((refusal, form)) = self.wire.refusal(call) {
            self.gateway.metrics.refused(refusal.code());
            // The head that stands for the refused one asks to close.
            (own(refusal.told_as(form)), None)
        } else {
            let informational = (!old).then(|| Informational::new(Arc::clone(&self.wire), call));
            self.gateway.handle(request, self.peer(informational)).await
        };
        self.wire.answered(call, response.status() == StatusCode::SWITCHING_PROTOCOLS);
        // To HTTP/1.0 the end of the connection can be the end of the body.
        let reset = old.then(|| Arc::clone(&self.wire));
        Ok(response.map(|body| Attended::new(body, reset, None, place)))
    }

    async fn answer_http2(
        self: Arc<Self>,
        request: Request<Incoming>,
        stream: Stream,
    ) -> Result<Response<Attended>, Infallible> {
        let (response, place) = self.gateway.handle(request, self.peer(None)).await;
        Ok(response.map(|body| Attended::new(body, None, Some(stream), place)))
    }

    fn peer(&self, informational: Option<Informational>) -> Peer<'_> {
        Peer { address: self.peer.ip(), informational, tunnels: &self.tunnels, stop: &self.stop }
    }

    fn limits(&self) -> Limits {
        let server = &self.gateway.server;
        let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Limits { target: bytes(server.max_uri_bytes), headers: bytes(server.max_header_bytes) }
    }
}

/// Runs a connection to its end; asks it to end after its calls when the node stops or it is idle.
async fn drive<C: Future>(
    connection: C,
    stop: &CancellationToken,
    finish: impl FnOnce(Pin<&mut C>),
    idle: impl Future<Output = ()>,
) {
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = idle => {}
    }
    finish(connection.as_mut());
    // How a client's connection ended is of no use to anybody.
    let _ = connection.await;
}

//! One node: built from a configuration, run, and drained.
//!
//! Owns the runtime, the signals and the order of things. Starting: store, workers, listeners; ready
//! only when all of them serve. Stopping: accept nothing, finish what is held for up to
//! `server.drain_timeout`, close the store. A second signal ends the process at once; what was held then
//! is due again at the next start.

pub(crate) mod assemble;
mod reload;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin, Guard, Readiness};
use crate::client::Names;
use crate::config::{Config, ServerConfig};
use crate::gateway::listener;
use crate::gateway::tls::{ListenerTls, TlsError};
use crate::identity::IdentityError;
use crate::janitor;
use crate::secret::Secret;
use crate::store::OpenError;
use crate::upstream::UpstreamError;
use assemble::Node;

/// Open connections get this long to end after the drain; what is left is cut.
const CONNECTIONS_PAUSE: Duration = Duration::from_secs(1);

/// Why a node does not start, or not go on. One line each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("`server.admin_token_file` cannot be read or is empty; write a token into it")]
    AdminToken,
    #[error("the store broke because of a defect in Ringback; start again: whatever was accepted is kept")]
    StoreBroke,
}

/// The sockets of a node, bound before anything else so that a port in use costs nothing.
pub struct Listeners {
    pub gateway: std::net::TcpListener,
    pub admin: std::net::TcpListener,
}

impl Listeners {
    /// # Errors
    /// An address cannot be bound.
    pub fn bind(server: &ServerConfig) -> Result<Self, StartError> {
        Ok(Self { gateway: bind(server.listen)?, admin: bind(server.admin_listen)? })
    }
}

/// A listening socket.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let listen = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| StartError::Listen { address, source })
}

pub type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;
pub type Serving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Another server in the same process, such as the sandbox bank. Outlives the drain: tasks in flight
/// may still need it.
pub struct Extra {
    pub name: &'static str,
    pub listener: std::net::TcpListener,
    pub serve: Box<dyn FnOnce(tokio::net::TcpListener, Stop) -> Serving + Send>,
}

/// Runs a node until it is told to stop by SIGTERM or SIGINT. Calls `ready` once everything serves.
///
/// # Errors
/// It cannot start, or its store broke. A drain that did not finish is not an error.
pub fn run(
    mut config: Config,
    listeners: Listeners,
    extras: Vec<Extra>,
    ready: impl FnOnce(),
) -> Result<(), StartError> {
    config.note_own_listeners();
    let runtime = runtime(config.server.threads).map_err(StartError::Runtime)?;
    let ended = runtime.block_on(serve(config, listeners, extras, ready));
    // Whatever still runs was given its time.
    runtime.shutdown_background();
    ended
}

/// Up to two cores one thread beside the store's writer does best (`docs/decisions/0002-threads.md`).
fn runtime(threads: usize) -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match threads {
        0 if cores <= 2 => 1,
        0 => cores - 1,
        threads => threads,
    };
    if threads == 1 {
        Builder::new_current_thread().enable_all().build()
    } else {
        Builder::new_multi_thread().worker_threads(threads).enable_all().build()
    }
}

async fn serve(
    config: Config,
    listeners: Listeners,
    extras: Vec<Extra>,
    ready: impl FnOnce(),
) -> Result<(), StartError> {
    let mut signals = Signals::listen().map_err(StartError::Runtime)?;
    let server = &config.server;
    let tls = match (&server.tls_cert_file, &server.tls_key_file) {
        (Some(certificate), Some(key)) => Some(ListenerTls::load(certificate, key)?),
        _ => None,
    };
    let guard = admin_guard(server)?;
    let hangup = signal(SignalKind::hangup()).map_err(StartError::Runtime)?;
    let node = Node::open(&config, Names::system())?;
    let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
    let readiness = Arc::new(Readiness::new(2 + extras.len(), stop.clone()));
    let servers = TaskTracker::new();
    let reloading = tokio::spawn(node.keys.on(hangup));

    for extra in extras {
        let listener = adopt(extra.listener, extra.name)?;
        let serving = (extra.serve)(listener, Box::pin(ended.clone().cancelled_owned()));
        servers.spawn(said(extra.name, serving));
        readiness.one_serves();
    }
    let admin = Admin {
        store: node.store.clone(),
        metrics: Arc::clone(&node.metrics),
        readiness: Arc::clone(&readiness),
        clock: node.clock,
        guard,
        header_timeout: config.server.header_timeout,
    };
    let admin_listener = adopt(listeners.admin, "admin")?;
    servers.spawn(admin::serve(admin, admin_listener, ended.clone()));
    readiness.one_serves();
    servers.spawn(janitor::run(
        node.store.clone(),
        config.retention.clone(),
        node.clock,
        Arc::clone(&node.metrics),
        stop.clone(),
    ));
    let gateway_listener = adopt(listeners.gateway, "gateway")?;
    let connections = TaskTracker::new();
    if let Some(tls) = &tls {
        servers.spawn(Arc::clone(tls).watch(stop.clone()));
    }
    connections.spawn(listener::serve(Arc::clone(&node.gateway), gateway_listener, tls, stop.clone()));
    readiness.one_serves();
    connections.close();
    servers.close();
    ready();

    tokio::select! {
        () = signals.next() => {}
        // Nothing that is held could be written: there is nothing to finish.
        () = node.store.failed() => return Err(StartError::StoreBroke),
    }
    tracing::info!("stopping: finishing what is held");
    stop.cancel();
    let drain = async {
        tokio::join!(node.worker.drain(), connections.wait());
    };
    tokio::select! {
        () = drain => tracing::info!("nothing is held"),
        () = tokio::time::sleep(config.server.drain_timeout) => {
            tracing::warn!("the drain timeout is over; what is still held is due again at the next start");
        }
        () = node.store.failed() => return Err(StartError::StoreBroke),
        () = signals.next() => tracing::warn!("second signal: stopping at once"),
    }
    reloading.abort();
    ended.cancel();
    let _ = tokio::time::timeout(CONNECTIONS_PAUSE, servers.wait()).await;
    node.store.close();
    Ok(())
}

fn admin_guard(server: &ServerConfig) -> Result<Guard, StartError> {
    let read = |path| {
        let token = std::fs::read_to_string(path).map_err(|_| StartError::AdminToken)?;
        let token = token.trim();
        if token.is_empty() { Err(StartError::AdminToken) } else { Ok(Secret::new(token)) }
    };
    let token = server.admin_token_file.as_ref().map(read).transpose()?;
    Ok(Guard { loopback: server.admin_listen.ip().is_loopback(), token })
}

/// Takes over a bound socket and says where it listens: the one line a script can wait for.
fn adopt(listener: std::net::TcpListener, name: &'static str) -> Result<tokio::net::TcpListener, StartError> {
    let adopted = listener
        .local_addr()
        .and_then(|address| tokio::net::TcpListener::from_std(listener).map(|listener| (listener, address)));
    let (listener, address) = adopted.map_err(StartError::Runtime)?;
    tracing::info!(listener = name, %address, "listening");
    Ok(listener)
}

async fn said(name: &'static str, serving: Serving) {
    if let Err(error) = serving.await {
        tracing::error!(listener = name, error = %error, "a listener broke");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

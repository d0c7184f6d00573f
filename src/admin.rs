//! The admin listener: is the process alive, is it ready, and its numbers.
//!
//! Answers nothing about a task or a caller. Anybody may ask for these three; everything else stands
//! behind the [`guard`].

pub mod guard;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

pub use guard::Guard;

/// OpenMetrics 1.0, which `/metrics` speaks.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Open connections; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// However busy it is, a connection ends after this, so that nobody keeps the probes out for good.
const MAX_LIFE: Duration = Duration::from_mins(5);
/// Between two attempts to accept while the process is out of file descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How many listeners still have to serve before the node is ready.
pub struct Readiness {
    missing: AtomicUsize,
    stopping: CancellationToken,
}

impl Readiness {
    #[must_use]
    pub fn new(listeners: usize, stopping: CancellationToken) -> Self {
        Self { missing: AtomicUsize::new(listeners), stopping }
    }

    /// One more listener serves.
    pub fn one_serves(&self) {
        self.missing.fetch_sub(1, Ordering::AcqRel);
    }

    fn is_ready(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0 && !self.stopping.is_cancelled()
    }
}

/// What the admin listener knows.
pub struct Admin {
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub clock: Clock,
    pub guard: Guard,
    /// Time a client has to send a header section, and to take the last answer.
    pub header_timeout: Duration,
}

/// Serves until `stop`, then closes idle connections.
pub async fn serve(admin: Admin, listener: TcpListener, stop: CancellationToken) {
    let header_timeout = admin.header_timeout;
    let service = TowerToHyperService::new(router(Arc::new(admin)));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(BACK_OFF).await;
                continue;
            };
            let (service, stop) = (service.clone(), stop.clone());
            tokio::spawn(async move {
                attend(stream, service, header_timeout, stop).await;
                drop(place);
            });
        }
    };
    stop.run_until_cancelled(accepting).await;
    // Every connection gives its place back.
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ended = places.acquire_many(all).await;
}

async fn attend(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: TowerToHyperService<Router>,
    header_timeout: Duration,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = sleep(MAX_LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(header_timeout, connection).await;
}

fn router(admin: Arc<Admin>) -> Router {
    let guarded = Router::new()
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here\n") })
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), judged));
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .with_state(admin)
}

async fn judged(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    match admin.guard.judge(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(denied) => {
            let mut response = (denied.status(), denied.sentence()).into_response();
            if denied.status() == StatusCode::UNAUTHORIZED {
                let scheme = header::HeaderValue::from_static("Bearer realm=\"ringback admin\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            }
            response
        }
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if !admin.readiness.is_ready() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n")
    } else if admin.store.numbers().await.is_err() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store cannot be read\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

type Document = ([(HeaderName, &'static str); 1], String);

async fn metrics(State(admin): State<Arc<Admin>>) -> Result<Document, impl IntoResponse> {
    match admin.store.numbers().await {
        Ok(numbers) => Ok((
            [(header::CONTENT_TYPE, OPEN_METRICS)],
            admin.metrics.encode(numbers, admin.clock.wall(), admin.clock.steady()),
        )),
        Err(_) => Err((StatusCode::SERVICE_UNAVAILABLE, "the store cannot be read\n")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    /// Calls every second; how long it was let to.
    async fn busy_for(stop: CancellationToken) -> Duration {
        let service = TowerToHyperService::new(Router::new().route("/livez", get(|| async { "alive\n" })));
        let (mut client, stream) = tokio::io::duplex(64 * 1024);
        let began = Instant::now();
        tokio::spawn(attend(stream, service, Duration::from_secs(30), stop));
        let mut answer = vec![0; 4096];
        while client.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok() {
            if client.read(&mut answer).await.unwrap_or(0) == 0 {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_its_life_is_over_however_busy_it_is() {
        let life = busy_for(CancellationToken::new()).await;
        assert!((MAX_LIFE..MAX_LIFE + Duration::from_secs(2)).contains(&life), "{life:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_ends_with_the_node() {
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(10)).await;
            stopping.cancel();
        });
        let life = busy_for(stop).await;
        assert!(life < Duration::from_secs(12), "{life:?}");
    }
}
